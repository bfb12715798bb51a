package gateway

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/security/acl"
)

// DescribeTransactions, version 0 (KIP-664).
//
// Kept: the topics of a transaction that the caller may not describe are left out.
//
// Differs: an id that is named several times is described once, so that a short request has no
// answer of any size.

func handleDescribeTransactions(r *request) {
	req := r.body.(*kmsg.DescribeTransactionsRequest)
	if len(req.TransactionalIDs) > maxGroups {
		r.hangUp(errInvalidRequest)
		return
	}
	resp := req.ResponseKind().(*kmsg.DescribeTransactionsResponse)
	var ids []string
	seen := make(map[string]bool)
	for _, id := range req.TransactionalIDs {
		if !seen[id] {
			ids, seen[id] = append(ids, id), true
		}
	}
	r.look(func(ctx context.Context) {
		resp.TransactionStates = make([]kmsg.DescribeTransactionsResponseTransactionState, len(ids))
		eachOf(len(ids), func(i int) { resp.TransactionStates[i] = r.describeTransaction(ctx, ids[i]) })
		for _, state := range resp.TransactionStates {
			r.note(state.ErrorCode)
		}
		r.answer(resp)
	})
}

func (r *request) describeTransaction(ctx context.Context, id string) kmsg.DescribeTransactionsResponseTransactionState {
	out := kmsg.NewDescribeTransactionsResponseTransactionState()
	out.TransactionalID = id
	if err := r.noTransactions(id); err != nil {
		out.ErrorCode = errorCode(err)
		return out
	}
	one := kmsg.NewPtrDescribeTransactionsRequest()
	one.TransactionalIDs = []string{id}
	answer, err := r.coordinate(ctx, coordinator.ShardOf(id), one)
	if err != nil {
		out.ErrorCode = r.coordinatorCodeQuiet(err)
		return out
	}
	states := answer.(*kmsg.DescribeTransactionsResponse).TransactionStates
	if len(states) != 1 {
		out.ErrorCode = kerr.UnknownServerError.Code
		return out
	}
	out = states[0]
	if !r.caller.everything() {
		out.Topics = slices.DeleteFunc(out.Topics, func(t kmsg.DescribeTransactionsResponseTransactionStateTopic) bool {
			return !r.sees(acl.Describe, acl.Topic, t.Topic)
		})
	}
	return out
}
