package leading

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// handOversAtOnce bounds the groups that are between two leaders while a node stops. Handed
	// over all at once, each is silent for as long as all elections together take; few at a time,
	// about as long as its own does.
	handOversAtOnce = 8
	// handOverTurn is how long a group that does not get on, as one that nobody follows, keeps
	// others from their turn.
	handOverTurn = 50 * time.Millisecond
)

// GiveAll hands leadership of every group that this node leads to another voter, for a node that
// stops. It returns when that is done or ctx ends.
func (h *Handovers) GiveAll(ctx context.Context, groups []Member) {
	inTurns(ctx, handOversAtOnce, handOverTurn, groups, func(g Member) {
		if g.State() != raft.Leader || len(g.Voters()) < 2 {
			return
		}
		if err := h.Give(g); err != nil {
			h.Logger.Debug("leadership was not handed over", "group", g.Group(), "error", err)
		}
	})
}

// inTurns does job for all items, for so many at once, and returns when all are done or ctx ends,
// whatever is under way then. One that takes longer than turn goes on and keeps no other waiting.
func inTurns[T any](ctx context.Context, atOnce int, turn time.Duration, items []T, job func(T)) {
	var begun sync.WaitGroup
	turns := make(chan struct{}, atOnce)
	for _, item := range items {
		select {
		case turns <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		endTurn := sync.OnceFunc(func() { <-turns })
		late := time.AfterFunc(turn, endTurn)
		done := make(chan struct{})
		go func() { defer close(done); job(item) }()
		begun.Go(func() {
			select {
			case <-done:
			case <-ctx.Done():
			}
			late.Stop()
			endTurn()
		})
	}
	begun.Wait()
}
