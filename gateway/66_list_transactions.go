package gateway

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/security/acl"
)

// ListTransactions, versions 0 to 2: filtered by state and producer id, from 1 on by how long a
// transaction has been open (KIP-994), from 2 on by a pattern of the id (KIP-1152).
//
// Those of all coordinators. Transactional ids that the caller may not describe are left out.

// maxFilters bounds what a request filters by, in bytes: each coordinator gets all of it, and what
// it does not know comes back from each.
const maxFilters = 1 << 20

func handleListTransactions(r *request) {
	req := r.body.(*kmsg.ListTransactionsRequest)
	resp := req.ResponseKind().(*kmsg.ListTransactionsResponse)
	if err := r.conn.server.transactional(); err != nil {
		if errors.Is(err, errTransactionsComing) {
			resp.ErrorCode = r.fail(err)
		}
		r.answer(resp)
		return
	}
	size := 8 * len(req.ProducerIDFilters)
	for _, state := range req.StateFilters {
		size += 16 + len(state)
	}
	if req.TransactionalIDPattern != nil {
		size += len(*req.TransactionalIDPattern)
	}
	if size > maxFilters {
		r.hangUp(errInvalidRequest)
		return
	}
	r.look(func(ctx context.Context) {
		answers := make([]*kmsg.ListTransactionsResponse, coordinator.Shards)
		errs := make([]error, coordinator.Shards)
		eachOf(coordinator.Shards, func(shard int) {
			one := *req
			answer, err := r.coordinate(ctx, shard, &one)
			answers[shard], _ = answer.(*kmsg.ListTransactionsResponse)
			errs[shard] = err
		})
		for shard, answer := range answers {
			if errs[shard] != nil {
				resp.ErrorCode = r.coordinatorCode(errs[shard])
				continue
			}
			if answer.ErrorCode != 0 {
				resp.ErrorCode = r.answered(answer.ErrorCode)
			}
			resp.UnknownStateFilters = append(resp.UnknownStateFilters, answer.UnknownStateFilters...)
			resp.TransactionStates = append(resp.TransactionStates, answer.TransactionStates...)
		}
		slices.Sort(resp.UnknownStateFilters)
		resp.UnknownStateFilters = slices.Compact(resp.UnknownStateFilters)
		if resp.ErrorCode != 0 {
			resp.TransactionStates = nil
		}
		if !r.caller.everything() {
			resp.TransactionStates = slices.DeleteFunc(resp.TransactionStates, func(t kmsg.ListTransactionsResponseTransactionState) bool {
				return !r.sees(r.needs().transactionalID, acl.TransactionalID, t.TransactionalID)
			})
		}
		slices.SortFunc(resp.TransactionStates, func(a, b kmsg.ListTransactionsResponseTransactionState) int {
			return cmp.Compare(a.TransactionalID, b.TransactionalID)
		})
		r.answerSized(resp, 64+96*len(resp.TransactionStates))
	})
}
