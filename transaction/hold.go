package transaction

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm/transactions"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/internal/tenure"
	"github.com/trimaran-io/trimaran/outcome"
)

// Who reads many partitions and wants to have each transaction in all of them or in none holds
// commits at the coordinators of all shards, reads how far the partitions and the groups' offsets
// are, and lets go. While commits are held none is decided, and all that were decided have their
// markers everywhere. So what is read meanwhile has a transaction's markers in all that it touches,
// or in nothing.
//
// Why that is so:
//
//   - A commit's marker is sent only behind the decision, which this coordinator proposed
//     (deciding) or found replicated, and by spread, which counts it (ending) until all have it. A
//     hold stands once neither is under way. Should spread find another commit later, since a
//     command whose fate was unknown was applied, that is counted too (ended) before the first
//     marker is sent, and the hold does not count.
//   - Who lets go is told whether the hold stood all along. It did only at one coordinator, which
//     is confirmed then: so no other one was there since the hold began. One that was deposed may
//     have sent markers later, but of what it had decided, which the next has sent as well, and
//     heard that they have arrived, before a hold stands there.
//   - Aborts go on. A transaction that has its marker in some partitions and is open in others has
//     no committed record in any, once it is taken for aborted where it is open. Pending offsets of
//     groups are not seen before a commit.
//
// Producers wait, so a hold is short: it ends by itself after HoldTime, and no other begins for
// holdRest then.

const (
	// HoldTime is for how long commits are held at most, by one hold or several that overlap.
	HoldTime = 2 * time.Second
	// holdSettle is how long a hold waits for what is decided to be everywhere.
	holdSettle = time.Second
	// holdRest is the least time from the end of holds to the next. A producer asks again within
	// less.
	holdRest = 500 * time.Millisecond
)

// ErrNotSettled says that commits cannot be held now, since a transaction that is decided has not
// reached all that it touches.
var ErrNotSettled = fmt.Errorf("%w: a transaction that is decided has not reached all its partitions and groups", outcome.ErrTimeout)

// holds are what is held, and what of commits is under way. Coordinator.mu guards it.
type holds struct {
	all map[uint64]*hold
	// expiry ends all of them, at; nil: there are none.
	expiry *tenure.Timer
	at     time.Time
	// rest: no hold begins before.
	rest time.Time
	// deciding are commits that are being proposed, ending those whose markers are not everywhere;
	// ended counts all that began to end.
	deciding, ending int
	ended            uint64
	// changed is closed when holds end, or nothing is under way any more. Then there is another.
	changed chan struct{}
}

// hold is one of them.
type hold struct {
	stands bool
	ended  uint64 // holds.ended since it stands
}

func newHolds() holds { return holds{all: make(map[uint64]*hold), changed: make(chan struct{})} }

func (h *holds) tell() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// busy reports whether a commit is under way.
func (h *holds) busy() bool { return h.deciding+h.ending > 0 }

// HoldCommits begins to hold commits: it returns when none is under way, and none will be decided
// until ReleaseCommits is called with what it gives, or HoldTime has passed since it was called, or
// another hold before. The error is ctx's, ErrNotSettled, or wraps coordinator.ErrNotLeader. After
// an error nothing is held.
func (c *Coordinator) HoldCommits(ctx context.Context) (id uint64, err error) {
	locks.MayWait("commits to be everywhere")
	if !c.tenure.Begin() {
		return 0, coordinator.ErrNotLeader
	}
	defer c.tenure.Done()
	ctx, cancel := context.WithTimeout(ctx, holdSettle)
	defer cancel()
	defer context.AfterFunc(c.tenure.Context(), cancel)()
	defer func() {
		switch {
		case err == nil:
			return
		case c.tenure.Over():
			err = fmt.Errorf("%w: %w", coordinator.ErrNotLeader, err)
		case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
			err = fmt.Errorf("%w: %w", ErrNotSettled, err)
		}
		c.mu.Lock()
		c.drop(id)
		c.mu.Unlock()
		id = 0
	}()
	h := &hold{}
	for {
		c.mu.Lock()
		rest := time.Until(c.holds.rest)
		if rest <= 0 || len(c.holds.all) > 0 {
			id = c.add(h)
			c.mu.Unlock()
			break
		}
		c.mu.Unlock()
		if err := pause(ctx, rest); err != nil {
			return 0, err
		}
	}
	open, _ := c.cfg.State.opened()
	for _, o := range open {
		if o.producer.Phase == transactions.PrepareCommit {
			c.finish(o.id) // by a command whose fate was unknown
		}
	}
	for {
		c.mu.Lock()
		changed := c.holds.changed
		if !c.holds.busy() {
			h.stands, h.ended = true, c.holds.ended
			c.mu.Unlock()
			return id, nil
		}
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return id, ctx.Err()
		}
	}
}

// pause waits for d, or gives ctx's error.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// add adds a hold. mu is held.
func (c *Coordinator) add(h *hold) (id uint64) {
	for id == 0 || c.holds.all[id] != nil {
		id = rand.Uint64()
	}
	if len(c.holds.all) == 0 {
		c.holds.at = time.Now().Add(HoldTime)
		c.holds.expiry = c.tenure.After(HoldTime, c.expire)
	}
	c.holds.all[id] = h
	return id
}

// drop ends a hold, if it is there. mu is held.
func (c *Coordinator) drop(id uint64) {
	if c.holds.all[id] == nil {
		return
	}
	delete(c.holds.all, id)
	if len(c.holds.all) > 0 {
		return
	}
	c.holds.expiry.Stop()
	c.holds.expiry, c.holds.rest = nil, time.Now().Add(holdRest)
	c.holds.tell()
}

// expire ends all holds: who holds has had its time, or died.
func (c *Coordinator) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.holds.all) == 0 || time.Now().Before(c.holds.at) {
		return // it was about to run when the last one ended
	}
	for id := range c.holds.all {
		c.drop(id)
	}
}

// ReleaseCommits ends a hold, and says whether no commit was decided, nor had a marker written,
// since HoldCommits returned: not if HoldTime was over, or another coordinator was there. The error
// wraps coordinator.ErrNotLeader, or is Confirm's: then it is not known.
func (c *Coordinator) ReleaseCommits(ctx context.Context, id uint64) (held bool, err error) {
	if !c.tenure.Begin() {
		return false, coordinator.ErrNotLeader
	}
	defer c.tenure.Done()
	c.mu.Lock()
	h := c.holds.all[id]
	held = h != nil && h.stands && h.ended == c.holds.ended
	c.drop(id)
	c.mu.Unlock()
	if !held {
		return false, nil
	}
	return true, c.confirm(ctx)
}

// held reports whether commits are held.
func (c *Coordinator) held() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.holds.all) > 0
}

// mayDecide notes that a commit is about to be proposed, unless commits are held. If it says true,
// hasDecided is to be called once its markers are counted, or its fate is unknown.
func (c *Coordinator) mayDecide() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.holds.all) > 0 {
		return false
	}
	c.holds.deciding++
	return true
}

func (c *Coordinator) hasDecided() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holds.deciding--
	if len(c.holds.all) > 0 && !c.holds.busy() {
		c.holds.tell()
	}
}

// begunToEnd notes that a commit's markers are about to be sent. hasEnded is to be called when all
// have arrived.
func (c *Coordinator) begunToEnd() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holds.ending++
	c.holds.ended++
}

func (c *Coordinator) hasEnded() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holds.ending--
	if len(c.holds.all) > 0 && !c.holds.busy() {
		c.holds.tell()
	}
}

// letGo waits until commits are not held, or gives ctx's error.
func (c *Coordinator) letGo(ctx context.Context) error {
	for {
		c.mu.Lock()
		held, changed := len(c.holds.all) > 0, c.holds.changed
		c.mu.Unlock()
		if !held {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// askToEnd is ask, for the end of a transaction: a commit waits while commits are held, at most
// Settings.EndWait.
func (c *Coordinator) askToEnd(ctx context.Context, id string, decide func(v view) step) (step, error) {
	locks.MayWait("commits to be let go")
	within, cancel := context.WithTimeout(ctx, c.set.EndWait)
	defer cancel()
	defer context.AfterFunc(c.tenure.Context(), cancel)()
	for {
		s, err := c.ask(ctx, id, func(v view) step {
			if s := decide(v); s.set == nil || s.set.Phase != transactions.PrepareCommit || !c.held() {
				return s
			}
			return step{held: true, told: none}
		})
		if err != nil || !s.held {
			return s, err
		}
		switch err := c.letGo(within); {
		case err == nil:
		case ctx.Err() != nil:
			return step{}, ctx.Err()
		case c.tenure.Over():
			return step{code: kerr.NotCoordinator.Code, told: none, unknown: true}, nil
		default:
			return refuse(kerr.ConcurrentTransactions), nil
		}
	}
}
