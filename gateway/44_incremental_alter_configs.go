package gateway

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/gateway/listen"
)

// IncrementalAlterConfigs, versions 0 and 1 (KIP-339).
//
// Kept: single configurations of a topic are set, deleted, or, if they are lists,
// appended to and subtracted from; the others stay as they are. One that stands
// twice for a resource is INVALID_REQUEST. validate_only.
//
// Differs: as AlterConfigs.

func handleIncrementalAlterConfigs(r *request) {
	r.background(func() {
		req := r.body.(*kmsg.IncrementalAlterConfigsRequest)
		resp := req.ResponseKind().(*kmsg.IncrementalAlterConfigsResponse)
		alterations := make([]alteration, len(req.Resources))
		for i := range req.Resources {
			in := &req.Resources[i]
			a := &alterations[i]
			a.typ, a.name = in.ResourceType, in.ResourceName
			for _, c := range in.Configs {
				op, known := configOps[c.Op]
				if !known {
					a.err = fmt.Errorf("%w: operation %d on %s", errInvalidRequest, c.Op, listen.Shown(c.Name))
				}
				a.change(c.Name, op, c.Value)
			}
		}
		errs := r.alterConfigs(alterations, req.ValidateOnly)
		for i := range req.Resources {
			out := kmsg.NewIncrementalAlterConfigsResponseResource()
			out.ResourceType, out.ResourceName = req.Resources[i].ResourceType, req.Resources[i].ResourceName
			if errs[i] != nil {
				out.ErrorCode, out.ErrorMessage = r.fail(errs[i]), kmsg.StringPtr(message(errs[i]))
			}
			resp.Resources = append(resp.Resources, out)
		}
		r.answer(resp)
	})
}

var configOps = map[kmsg.IncrementalAlterConfigOp]fsm.ConfigOp{
	kmsg.IncrementalAlterConfigOpSet:      fsm.SetConfig,
	kmsg.IncrementalAlterConfigOpDelete:   fsm.DeleteConfig,
	kmsg.IncrementalAlterConfigOpAppend:   fsm.AppendConfig,
	kmsg.IncrementalAlterConfigOpSubtract: fsm.SubtractConfig,
}
