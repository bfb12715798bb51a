package gateway

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/kafkaproto"
)

// ApiVersions, versions 0 to 5.
//
// Kept: the answer is the table of package kafkaproto, which dispatch goes by as
// well. A version that is not served is answered in version 0 with
// UNSUPPORTED_VERSION and the table, and the connection stays, so that the client
// can ask again (KIP-35, KIP-511). From version 3 on the request says which
// client it is, and what is not a name is INVALID_REQUEST (KIP-511); the
// response's header stays that of version 0. From version 5 on it may say which
// cluster and broker it means to talk to, and is told REBOOTSTRAP_REQUIRED where it
// does not (KIP-1242).
//
// Once all nodes know transactions the feature transaction.version is supported from 0 to 2 and
// finalized at 2, which has clients use version 2 of the protocol of transactions (KIP-890). As in
// Kafka what is supported stands in versions from 4 on only: Java clients before 3.9, which do not
// speak those, take a feature whose minimum is 0 for a broken answer and never get any further
// (KAFKA-17492).

func handleApiVersions(r *request) {
	req := r.body.(*kmsg.ApiVersionsRequest)
	resp := req.ResponseKind().(*kmsg.ApiVersionsResponse)
	means := req.ClusterID != nil
	switch {
	case req.Version >= 3 && !(validSoftware(req.ClientSoftwareName) && validSoftware(req.ClientSoftwareVersion)),
		req.Version >= 5 && means != (req.NodeID >= 0):
		resp.ErrorCode = r.note(kerr.InvalidRequest.Code)
	case req.Version >= 5 && means && (*req.ClusterID != r.conn.server.nodes.ClusterID() || !r.brokers().has(req.NodeID)):
		resp.ErrorCode = r.note(kerr.RebootstrapRequired.Code)
	default:
		resp.ApiKeys = served()
		r.features(resp)
	}
	r.answer(resp)
}

// answerUnknownApiVersions answers a version whose request nobody here can read.
func (r *request) answerUnknownApiVersions() {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.Version = 0
	resp.ErrorCode = r.note(kerr.UnsupportedVersion.Code)
	resp.ApiKeys = served()
	r.header.Version = 0
	r.answer(resp)
}

// transactionVersion is Kafka's name of the feature.
const (
	transactionVersion       = "transaction.version"
	transactionVersionLatest = 2
)

// features adds the features that the cluster has. Their epoch is the cluster's level, which
// changes when they do.
func (r *request) features(resp *kmsg.ApiVersionsResponse) {
	if r.header.Version < 3 || r.conn.server.transactional() != nil {
		return
	}
	if r.header.Version >= 4 {
		supported := kmsg.NewApiVersionsResponseSupportedFeature()
		supported.Name, supported.MaxVersion = transactionVersion, transactionVersionLatest
		resp.SupportedFeatures = append(resp.SupportedFeatures, supported)
	}
	finalized := kmsg.NewApiVersionsResponseFinalizedFeature()
	finalized.Name, finalized.MinVersionLevel, finalized.MaxVersionLevel = transactionVersion, transactionVersionLatest, transactionVersionLatest
	resp.FinalizedFeatures = append(resp.FinalizedFeatures, finalized)
	resp.FinalizedFeaturesEpoch = int64(r.conn.server.catalog.Topics().FeatureLevel())
}

func served() []kmsg.ApiVersionsResponseApiKey {
	keys := make([]kmsg.ApiVersionsResponseApiKey, len(kafkaproto.Served))
	for i, api := range kafkaproto.Served {
		keys[i].Default()
		keys[i].ApiKey, keys[i].MinVersion, keys[i].MaxVersion = int16(api.Key), api.Min, api.Max
	}
	return keys
}

// validSoftware applies the pattern of KIP-511: [a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?
func validSoftware(s string) bool {
	alphanumeric := func(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' }
	for _, c := range []byte(s) {
		if !alphanumeric(c) && c != '-' && c != '.' {
			return false
		}
	}
	return len(s) > 0 && alphanumeric(s[0]) && alphanumeric(s[len(s)-1])
}
