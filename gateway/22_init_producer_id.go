package gateway

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// InitProducerId, versions 0 to 5.
//
// Kept: without a transactional id every request gets a producer id that nobody
// had before, with epoch 0, also one that says which id the client has (KIP-360):
// a client raises the epoch of such an id by itself.
//
// One with a transactional id goes to its coordinator, which fences who had the id before. Until
// all nodes know transactions it is refused with TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which
// clients take for final; in a cluster's first second, when that is about to be, with
// COORDINATOR_LOAD_IN_PROGRESS.
//
// Left out: version 6, with prepared transactions of two-phase commit (KIP-939). Clients that want
// them find that version missing and say so.

// Producers is what the cluster knows of idempotent producers.
type Producers interface {
	// NewProducerID gives an id for an idempotent producer that nobody had before.
	NewProducerID(ctx context.Context) (int64, error)
	// Producers gives the idempotent producers that a partition remembers.
	Producers(ctx context.Context, p fsm.PartitionID) ([]fsm.ActiveProducer, error)
}

func handleInitProducerID(r *request) {
	r.background(func() {
		req := r.body.(*kmsg.InitProducerIDRequest)
		resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
		resp.ProducerID, resp.ProducerEpoch = -1, -1
		if req.TransactionalID == nil && !r.mayWriteSomewhere() {
			resp.ErrorCode = r.fail(errClusterDenied)
			r.answer(resp)
			return
		}
		if req.TransactionalID != nil {
			err := r.noTransactions(*req.TransactionalID)
			if errors.Is(err, outcome.ErrFeatureLevel) {
				err = errTransactionalIDDenied
			}
			if err != nil {
				resp.ErrorCode = r.fail(err)
				r.answer(resp)
				return
			}
		}
		if (req.ProducerID < 0) != (req.ProducerEpoch < 0) {
			resp.ErrorCode = r.fail(errInvalidRequest)
			r.answer(resp)
			return
		}
		if req.TransactionalID != nil {
			r.initTransactions(req, resp)
			return
		}
		ctx, cancel := context.WithTimeout(r.reply.Open(), minAppend)
		defer cancel()
		id, err := r.conn.server.producers.NewProducerID(ctx)
		if err != nil {
			resp.ErrorCode = r.fail(err)
		} else {
			resp.ProducerID, resp.ProducerEpoch = id, 0
		}
		r.answer(resp)
	})
}

// initTransactions has the coordinator give the transactional id a producer id and an epoch, unless
// the client is gone (transact): it would fence whoever has the id by now.
func (r *request) initTransactions(req *kmsg.InitProducerIDRequest, resp *kmsg.InitProducerIDResponse) {
	ctx, cancel := context.WithTimeout(r.reply.Awaited(), minAppend)
	defer cancel()
	defer r.answer(resp)
	answer, err := r.coordinate(ctx, coordinator.ShardOf(*req.TransactionalID), req)
	if err != nil {
		resp.ErrorCode = r.coordinatorCode(err)
		return
	}
	given := answer.(*kmsg.InitProducerIDResponse)
	resp.ErrorCode, resp.ProducerID, resp.ProducerEpoch = r.answered(given.ErrorCode), given.ProducerID, given.ProducerEpoch
}
