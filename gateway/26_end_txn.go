package gateway

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
)

// EndTxn, versions 0 to 5. From 5 on the answer has the producer id and epoch of the next
// transaction (KIP-890).
//
// Kept: it is answered once the decision is on stable storage at a majority; the markers follow.

func handleEndTxn(r *request) {
	req := r.body.(*kmsg.EndTxnRequest)
	resp := req.ResponseKind().(*kmsg.EndTxnResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	if err := r.noTransactions(req.TransactionalID); err != nil {
		resp.ErrorCode = r.fail(err)
		r.answer(resp)
		return
	}
	r.transact(func(ctx context.Context) {
		answer, err := r.coordinate(ctx, coordinator.ShardOf(req.TransactionalID), req)
		if err != nil {
			resp.ErrorCode = r.coordinatorCode(err)
		} else {
			ended := answer.(*kmsg.EndTxnResponse)
			resp.ErrorCode, resp.ProducerID, resp.ProducerEpoch = r.answered(ended.ErrorCode), ended.ProducerID, ended.ProducerEpoch
		}
		r.answer(resp)
	})
}
