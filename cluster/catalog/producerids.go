package catalog

import (
	"context"

	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/outcome"
)

// producerIDBlock is how many producer ids a node takes from the catalog at once: a client that
// starts is mostly answered from memory. What a node has left when it stops is never used.
const producerIDBlock = 1000

// producerIDs hands out the ids that this node has of the catalog.
type producerIDs struct {
	allocate func(context.Context) (first int64, err error) // a block
	floor    func() int64                                   // ids below may be in what was restored

	turn chan struct{} // holds a token while nobody is at the fields below
	next int64
	end  int64
}

func newProducerIDs(allocate func(context.Context) (int64, error), floor func() int64) *producerIDs {
	ids := &producerIDs{allocate: allocate, floor: floor, turn: make(chan struct{}, 1)}
	ids.turn <- struct{}{}
	return ids
}

// take gives an id that no other has had. life is the node's.
func (ids *producerIDs) take(ctx, life context.Context) (int64, error) {
	locks.MayWait("a producer id")
	select {
	case <-ids.turn:
	case <-ctx.Done():
		return 0, outcome.ErrTimeout
	case <-life.Done():
		return 0, outcome.ErrShuttingDown
	}
	defer func() { ids.turn <- struct{}{} }()
	for ids.next = min(max(ids.next, ids.floor()), ids.end); ids.next == ids.end; {
		first, err := ids.allocate(ctx)
		if outcome.Code(err) == outcome.ErrUnknownFate && ctx.Err() == nil {
			continue // a block may be lost; there are enough
		}
		if err != nil {
			return 0, err
		}
		ids.next, ids.end = first, first+producerIDBlock
	}
	id := ids.next
	ids.next++
	return id, nil
}

// NewProducerID gives an id for an idempotent producer that no other has had or will have (KIP-98).
// Errors are outcome.ErrNoLeader, when the catalog has no leader within ctx, and
// outcome.ErrTimeout.
func (c *Catalog) NewProducerID(ctx context.Context) (int64, error) {
	return c.ids.take(ctx, c.cfg.Life)
}
