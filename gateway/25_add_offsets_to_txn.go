package gateway

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
)

// AddOffsetsToTxn, versions 0 to 4.
//
// Differs: what is added is the group itself. In Kafka it is a partition of __consumer_offsets,
// which is not there here.

func handleAddOffsetsToTxn(r *request) {
	req := r.body.(*kmsg.AddOffsetsToTxnRequest)
	resp := req.ResponseKind().(*kmsg.AddOffsetsToTxnResponse)
	err := r.noTransactions(req.TransactionalID)
	if err == nil && !r.mayGroup(req.Group) {
		err = errGroupDenied
	}
	if err != nil {
		resp.ErrorCode = r.fail(err)
		r.answer(resp)
		return
	}
	r.transact(func(ctx context.Context) {
		answer, err := r.coordinate(ctx, coordinator.ShardOf(req.TransactionalID), req)
		if err != nil {
			resp.ErrorCode = r.coordinatorCode(err)
		} else {
			resp.ErrorCode = r.answered(answer.(*kmsg.AddOffsetsToTxnResponse).ErrorCode)
		}
		r.answer(resp)
	})
}
