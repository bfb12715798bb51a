package transaction

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/trimaran-io/trimaran/fsm/transactions"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/internal/tenure"
)

// view is what a decision is made from.
type view struct {
	id       string
	producer transactions.Producer
	revision uint64 // 0: the id is not there
	newID    int64  // a producer id that nobody has; -1: not asked for yet
	now      int64  // ms
	// scope is what is added by the same command already.
	scope transactions.Scope
	// cleared: the same command ends the transaction that is in State, so what that touches does
	// not count.
	cleared bool
	// next is what is known behind the transaction that is decided. producer is what State has
	// until next.arrived, and from then on what is about to be replicated.
	next foreseen
}

// step is what a decision is.
type step struct {
	code int16
	// needsID: a producer id is needed first; then it is decided again.
	needsID bool
	// waits: the transaction before is not over; once it is, it is decided again.
	waits bool
	// set is what the id is to become, scope what its transaction touches besides; then code is 0
	// and counts is what it counts as. If remove, the id goes.
	set    *transactions.Producer
	scope  transactions.Scope
	remove bool
	// settles: what is known behind the transaction that is decided is to be replicated. joins:
	// scope is in the next transaction with nothing replicated (next).
	settles, joins bool
	counts         func(*Counters) counter
	// told is the producer id and epoch that the client is told.
	told identity
	// replicated: a command that was decided with this step is. unknown: none could be. held: it
	// would commit, and commits are held (hold.go); it is decided again by who asked.
	replicated, unknown, held bool
}

type identity struct {
	producerID int64
	epoch      int16
}

var none = identity{-1, -1}

func refuse(err *kerr.Error) step { return step{code: err.Code, told: none} }

// writes reports whether something is to be replicated, adds whether that only adds to a
// transaction.
func (s step) writes() bool { return s.set != nil || s.remove || s.settles }
func (s step) adds() bool   { return s.set != nil && s.set.Phase == transactions.Ongoing }

// ask is something that is asked of an id.
type ask struct {
	// decide may be called several times. It has no effect.
	decide func(v view) step
	step   step // once done is closed; its code is the answer
	done   chan struct{}
	then   func(step) // in place of done: it is called with the answer
	// hurried: it is not to wait for the transaction before. Coordinator.mu guards it.
	hurried bool
}

// line is what is asked of one id, in turn. Coordinator.mu guards it.
type line struct {
	c       *Coordinator
	id      string
	asks    []*ask
	working bool
	// ending: the transaction that is decided is not everywhere over. parked is what waits for
	// that: it is decided again with what says that it is.
	ending bool
	parked []*ask
	// next is what is known behind that transaction, nil while its markers are not on their way.
	next *next
	// linger has what is known replicated if nothing else does; nil: it is not set.
	linger *tenure.Timer
}

// ask has it decided in turn and waits for what comes of it: until that is replicated, and while
// the transaction before is not over, at most Settings.EndWait. The error is ctx's, or Confirm's.
func (c *Coordinator) ask(ctx context.Context, id string, decide func(v view) step) (step, error) {
	s, err := c.decided(ctx, id, decide)
	if err == nil && !s.replicated && !s.unknown && !s.held {
		err = c.confirm(ctx)
	}
	return s, err
}

// decided is ask without Confirm.
func (c *Coordinator) decided(ctx context.Context, id string, decide func(v view) step) (step, error) {
	locks.MayWait("a command to be replicated")
	limit := time.NewTimer(c.set.EndWait)
	defer limit.Stop()
	a := &ask{decide: decide, done: make(chan struct{})}
	c.submit(id, a)
	select {
	case <-a.done:
		return a.step, nil
	case <-ctx.Done():
		c.withdraw(id, a)
		return step{}, ctx.Err()
	case <-limit.C:
		if c.withdraw(id, a) {
			return refuse(kerr.ConcurrentTransactions), nil
		}
	case <-c.tenure.Context().Done():
		if c.withdraw(id, a) {
			return step{code: kerr.NotCoordinator.Code, told: none, unknown: true}, nil
		}
	}
	// It is being decided.
	select {
	case <-a.done:
		return a.step, nil
	case <-ctx.Done():
		return step{}, ctx.Err()
	}
}

// withdraw takes back what waits for the transaction before, and says whether it did. What does not
// wait now will not later.
func (c *Coordinator) withdraw(id string, a *ask) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	a.hurried = true
	l := c.lines[id]
	if l == nil {
		return false
	}
	i := slices.Index(l.parked, a)
	if i < 0 {
		return false
	}
	l.parked = slices.Delete(l.parked, i, i+1)
	l.forget()
	return true
}

// submit queues what is asked. Whoever does is running, so that Close waits.
func (c *Coordinator) submit(id string, a *ask) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line(id).queue(a)
}

// queue queues what is asked. mu is held.
func (l *line) queue(asks ...*ask) {
	l.asks = append(l.asks, asks...)
	if len(l.asks) > 0 && !l.working {
		l.working = true
		l.c.tenure.Go(l.work)
	}
}

// line gives the line of an id. mu is held.
func (c *Coordinator) line(id string) *line {
	l := c.lines[id]
	if l == nil {
		l = &line{c: c, id: id}
		c.lines[id] = l
	}
	return l
}

// forget forgets the line if there is nothing to it. mu is held.
func (l *line) forget() {
	if !l.working && !l.ending && len(l.parked) == 0 {
		delete(l.c.lines, l.id)
	}
}

// take gives what is asked, nil if nothing is; then the line no longer works.
func (l *line) take() []*ask {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	asks := l.asks
	l.asks = nil
	if len(asks) == 0 {
		l.working = false
		l.forget()
	}
	return asks
}

func (l *line) work() {
	for asks := l.take(); len(asks) > 0; asks = l.take() {
		for len(asks) > 0 {
			asks = l.turn(asks)
		}
	}
}

// maxJoined is how many bytes one command has at most, unless one request alone has more.
const maxJoined = 1 << 20

// chain is a command: what an id becomes, one after the other.
type chain struct {
	after    uint64
	sets     []transactions.Producer
	revision []uint64 // of each of them
	adds     int      // after which of them the scope is added: an ongoing transaction
	foreseen bool     // the first of them are what is known behind the transaction that is decided
	remove   bool
	asks     []*ask // what it answers
	size     int    // about, in bytes
}

// turn decides the first of asks, or several of them that can be one command, and gives the others:
// all that add to a transaction, and what follows one that is over in the same command that says
// so. So who waited for that does not wait for another command.
func (l *line) turn(asks []*ask) []*ask {
	c := l.c
	v := view{id: l.id, newID: -1, now: time.Now().UnixMilli()}
	v.producer, v.revision = c.cfg.State.lookUp(l.id)
	d, rest := chain{after: v.revision}, asks
	l.foresee(&d, &v)
	for len(rest) > 0 && (len(d.asks) == 0 || d.size < maxJoined) {
		a := rest[0]
		a.step = a.decide(v)
		if a.step.needsID && len(d.asks) == 0 {
			id, err := c.newProducerID()
			if err != nil {
				a.step = step{code: c.codeOf(err), told: none, unknown: true}
			} else {
				v.newID = id
				a.step = a.decide(v)
			}
		}
		if len(d.asks) > 0 && (a.step.needsID || a.step.remove || a.step.set != nil && !a.step.adds() && v.producer.Phase.Open()) {
			break // decided again once this is replicated
		}
		rest = rest[1:]
		if a.step.remove && d.foreseen {
			a.step = step{} // it is used
		}
		if a.step.joins {
			l.joins(a.step.scope.Partitions, time.UnixMilli(v.now))
			l.answer(a)
			return rest
		}
		if !a.step.writes() && len(d.asks) == 0 {
			l.answer(a)
			continue
		}
		// What writes nothing rests on what is replicated now, too.
		d.asks = append(d.asks, a)
		v.next.stands = false
		if d.remove = a.step.remove; d.remove {
			break
		}
		if a.step.set != nil {
			l.write(&d, &v, a.step)
		}
		if v.producer.Phase.Preparing() {
			break
		}
	}
	if len(d.asks) == 0 {
		return rest
	}
	if v.producer.Phase == transactions.PrepareCommit {
		if !c.mayDecide() {
			return append(d.asks, rest...) // they are held since a moment ago
		}
		defer c.hasDecided()
	}
	if d.foreseen {
		l.proposes()
	}
	err := c.propose(transactions.Encode(l.command(d, v.scope)))
	c.armAbort()
	if err == nil {
		if _, now := c.cfg.State.lookUp(l.id); !d.remove && now != v.revision || d.remove && now == d.after {
			// A command of before, whose fate was unknown, came first.
			return append(d.asks, rest...)
		}
		if d.foreseen {
			l.finished()
		}
	}
	for _, a := range d.asks {
		if err != nil {
			a.step = step{code: c.codeOf(err), told: none, unknown: true}
		} else if a.step.replicated = true; a.step.counts != nil {
			a.step.counts(c.counters).Add(1)
		}
		l.answer(a)
	}
	if err == nil && v.producer.Phase.Preparing() {
		c.finish(l.id)
	}
	return rest
}

// write adds a step to a command, and to what the next is decided from.
func (l *line) write(d *chain, v *view, s step) {
	if n := len(d.sets); n > 0 && s.adds() && v.producer.Phase == transactions.Ongoing {
		d.sets[n-1] = *s.set // all of one transaction
	} else {
		v.revision = l.c.revision.Add(1)
		d.sets, d.revision = append(d.sets, *s.set), append(d.revision, v.revision)
		d.size += transactions.CostID + len(l.id)
	}
	if s.adds() {
		d.adds = len(d.sets) - 1
	}
	v.producer = *s.set
	v.cleared = v.cleared || !v.producer.Phase.Open()
	v.scope.Partitions = append(v.scope.Partitions, s.scope.Partitions...)
	v.scope.Groups = append(v.scope.Groups, s.scope.Groups...)
	d.size += 24*len(s.scope.Partitions) + 1024*len(s.scope.Groups)
}

// command gives d as it is replicated. scope is what the last set's transaction touches besides.
func (l *line) command(d chain, scope transactions.Scope) (command transactions.Changes) {
	if d.remove {
		command.Delete(l.id, d.after)
		return command
	}
	after := d.after
	for i, set := range d.sets {
		command.Set(l.id, after, d.revision[i], set)
		after = d.revision[i]
		if i == d.adds && len(scope.Partitions)+len(scope.Groups) > 0 {
			command.Add(l.id, after, scope)
		}
	}
	return command
}

// answer tells who asked.
func (l *line) answer(a *ask) {
	switch {
	case a.then != nil:
		a.then(a.step)
	case a.step.waits:
		l.park(a)
	default:
		close(a.done)
	}
}

// park lets it wait until the transaction that is decided is over.
func (l *line) park(a *ask) {
	l.c.mu.Lock()
	switch {
	case l.c.tenure.Over():
		a.step = step{code: kerr.NotCoordinator.Code, told: none, unknown: true}
	case a.hurried:
		a.step = refuse(kerr.ConcurrentTransactions)
	case l.next != nil && l.next.arrived: // a moment ago
		l.queue(a)
		l.c.mu.Unlock()
		return
	default:
		l.parked = append(l.parked, a)
		l.c.mu.Unlock()
		l.c.finish(l.id)
		return
	}
	l.c.mu.Unlock()
	close(a.done)
}
