package gateway

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// UpdateFeatures, versions 0 to 2 (KIP-584).
//
// Kept: a request that names no feature changes nothing and is no error. None can be updated: each
// is INVALID_UPDATE_VERSION, up to version 1 one by one, from 2 on for the whole request, as Kafka
// says it.
//
// Differs: what Kafka's metadata.version is for, not to use what an older program does not
// know, is done by the cluster's feature level, which rises by itself; transaction.version, which
// ApiVersions lists, follows from it.

const noFeatures = "features follow from the cluster's level, which rises by itself: what is new is used when all nodes know it"

func handleUpdateFeatures(r *request) {
	req := r.body.(*kmsg.UpdateFeaturesRequest)
	resp := req.ResponseKind().(*kmsg.UpdateFeaturesResponse)
	if len(req.FeatureUpdates) > 0 {
		failure, why := r.note(kerr.InvalidUpdateVersion.Code), noFeatures
		if req.Version >= 2 {
			resp.ErrorCode, resp.ErrorMessage = failure, &why
		}
		for _, f := range req.FeatureUpdates {
			out := kmsg.NewUpdateFeaturesResponseResult()
			out.Feature, out.ErrorCode, out.ErrorMessage = f.Feature, failure, &why
			resp.Results = append(resp.Results, out)
		}
	}
	r.answer(resp)
}
