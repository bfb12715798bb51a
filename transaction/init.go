package transaction

import (
	"context"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm/transactions"
)

// lastEpoch is the highest epoch that is given out: one more must fit that fences it.
const lastEpoch = math.MaxInt16 - 1

func (c *Coordinator) initProducerID(ctx context.Context, client Client, req *kmsg.InitProducerIDRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	id, timeout := "", time.Duration(req.TransactionTimeoutMillis)*time.Millisecond
	if req.TransactionalID != nil {
		id = *req.TransactionalID
	}
	expected := identity{req.ProducerID, req.ProducerEpoch}
	switch {
	case (expected.producerID == -1) != (expected.epoch == -1):
		resp.ErrorCode = kerr.InvalidRequest.Code
	case c.refused(id) != 0:
		resp.ErrorCode = c.refused(id)
	case timeout <= 0 || timeout > c.set.MaxTimeout:
		resp.ErrorCode = kerr.InvalidTransactionTimeout.Code
	default:
		s, err := c.ask(ctx, id, func(v view) step {
			if v.revision == 0 && c.cfg.State.size() >= c.maxState {
				return refuse(kerr.PolicyViolation)
			}
			return decideInit(v, expected, req.TransactionTimeoutMillis)
		})
		if err != nil {
			return nil, err
		}
		resp.ErrorCode, resp.ProducerID, resp.ProducerEpoch = told(s.code, client.Version, 4), s.told.producerID, s.told.epoch
	}
	return resp, nil
}

// decideInit is InitProducerId. expected is none, or what the producer has (KIP-360).
func decideInit(v view, expected identity, timeout int32) step {
	p := v.producer
	fresh := func(next transactions.Producer) step {
		next.Timeout, next.Phase, next.Start, next.Updated = timeout, transactions.Empty, -1, v.now
		return step{set: &next, told: identity{next.ProducerID, next.Epoch}}
	}
	if v.revision == 0 {
		if v.newID == -1 {
			return step{needsID: true}
		}
		return fresh(transactions.Producer{ProducerID: v.newID, Previous: v.newID, Next: -1, LastEpoch: -1})
	}
	if expected != none && expected.producerID != p.ProducerID &&
		!(p.Phase.Preparing() && expected == after(p)) &&
		!(expected.producerID == p.Previous && expected.epoch >= lastEpoch) {
		return refuse(kerr.ProducerFenced)
	}
	switch {
	case p.Phase.Preparing():
		return step{waits: true}
	case p.Phase == transactions.Ongoing:
		if expected != none && expected.epoch != p.Epoch {
			return refuse(kerr.ProducerFenced)
		}
		s := decideFence(v)
		s.waits = s.set != nil
		s.counts = func(c *Counters) counter { return &c.Fenced }
		return s
	case expected != none && expected.epoch != p.Epoch:
		if expected.epoch != p.LastEpoch {
			return refuse(kerr.ProducerFenced)
		}
		return fresh(p) // it asked before and did not hear the answer
	}
	last := p.Epoch
	if expected == none {
		last = -1
	}
	p.LastEpoch, p.Previous = last, p.ProducerID
	if p.Epoch >= lastEpoch {
		if v.newID == -1 {
			return step{needsID: true}
		}
		p.ProducerID, p.Epoch, p.Number = v.newID, 0, 0
		return fresh(p)
	}
	p.Epoch++
	return fresh(p)
}
