package gateway

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
)

// InitProducerId, versions 0 to 5.
//
// Kept: without a transactional id every request gets a producer id that nobody
// had before, with epoch 0, also one that says which id the client has (KIP-360):
// a client raises the epoch of such an id by itself.
//
// Left out: there are no transactions. A transactional id is refused with
// TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which clients take for final: nobody may
// use one here.

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
			r.mayTransactionalID(*req.TransactionalID)
			resp.ErrorCode = r.note(kerr.TransactionalIDAuthorizationFailed.Code)
			r.answer(resp)
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
