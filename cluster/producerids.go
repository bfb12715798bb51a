package cluster

import (
	"context"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// producerIDBlock is how many producer ids a node takes from the catalog at once:
// a client that starts is mostly answered from memory. What a node has left when
// it stops is never used.
const producerIDBlock = 1000

// producerIDs hands out the ids that this node has of the catalog.
type producerIDs struct {
	turn chan struct{} // holds a token while nobody is at the fields below
	next int64
	end  int64
}

func newProducerIDs() *producerIDs {
	ids := &producerIDs{turn: make(chan struct{}, 1)}
	ids.turn <- struct{}{}
	return ids
}

// NewProducerID gives an id for an idempotent producer that no other has had or
// will have (KIP-98). Errors are outcome.ErrNoLeader, when the catalog has no leader
// within ctx, and outcome.ErrTimeout.
func (n *Node) NewProducerID(ctx context.Context) (int64, error) {
	ids := n.producerIDs
	select {
	case <-ids.turn:
	case <-ctx.Done():
		return 0, outcome.ErrTimeout
	case <-n.ctx.Done():
		return 0, outcome.ErrShuttingDown
	}
	defer func() { ids.turn <- struct{}{} }()
	for ids.next == ids.end {
		reply, err := n.catalog.apply(ctx, fsm.CatalogCommand{AllocateProducerIDs: &fsm.AllocateProducerIDs{Count: producerIDBlock}})
		if outcome.Code(err) == outcome.ErrUnknownFate && ctx.Err() == nil {
			continue // a block may be lost; there are enough
		}
		if err != nil {
			return 0, err
		}
		ids.next, ids.end = reply.FirstProducerID, reply.FirstProducerID+producerIDBlock
	}
	id := ids.next
	ids.next++
	return id, nil
}
