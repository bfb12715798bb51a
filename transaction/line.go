package transaction

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/trimaran-io/trimaran/fsm/transactions"
	"github.com/trimaran-io/trimaran/internal/locks"
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
	counts func(*Counters) counter
	// told is the producer id and epoch that the client is told.
	told identity
}

type identity struct {
	producerID int64
	epoch      int16
}

var none = identity{-1, -1}

func refuse(err *kerr.Error) step { return step{code: err.Code, told: none} }

// writes reports whether something is to be replicated, adds whether that only adds to a
// transaction.
func (s step) writes() bool { return s.set != nil || s.remove }
func (s step) adds() bool   { return s.set != nil && s.set.Phase == transactions.Ongoing }

// ask is something that is asked of an id.
type ask struct {
	// decide may be called several times. It has no effect.
	decide func(v view) step
	step   step            // once done is closed; its code is the answer
	over   <-chan struct{} // if step.waits: until then
	done   chan struct{}
	then   func(step) // in place of done: it is called with the answer
}

// line is what is asked of one id, in turn. Coordinator.mu guards it.
type line struct {
	c       *Coordinator
	id      string
	asks    []*ask
	working bool
	// over is closed when the transaction that is decided is everywhere over; nil: none is.
	over chan struct{}
}

// ask has it decided in turn and waits for what comes of it: until that is replicated, and while
// the transaction before is not over, at most Settings.EndWait. The error is ctx's.
func (c *Coordinator) ask(ctx context.Context, id string, decide func(v view) step) (step, error) {
	locks.MayWait("a command to be replicated")
	limit := time.NewTimer(c.set.EndWait)
	defer limit.Stop()
	for {
		a := &ask{decide: decide, done: make(chan struct{})}
		c.submit(id, a)
		select {
		case <-a.done:
		case <-ctx.Done():
			return step{}, ctx.Err()
		}
		if !a.step.waits {
			return a.step, nil
		}
		select {
		case <-a.over:
		case <-limit.C:
			return refuse(kerr.ConcurrentTransactions), nil
		case <-c.tenure.Context().Done():
			return refuse(kerr.NotCoordinator), nil
		case <-ctx.Done():
			return step{}, ctx.Err()
		}
	}
}

// submit queues what is asked. Whoever does is running, so that Close waits.
func (c *Coordinator) submit(id string, a *ask) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.line(id)
	l.asks = append(l.asks, a)
	if !l.working {
		l.working = true
		c.tenure.Go(l.work)
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
	if !l.working && l.over == nil {
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

// maxJoined is how many bytes of scope are added by one command, unless one request alone has more.
const maxJoined = 1 << 20

// turn decides the first of asks, or several of them that can be one command, and gives the others.
func (l *line) turn(asks []*ask) []*ask {
	c := l.c
	v := view{id: l.id, newID: -1, now: time.Now().UnixMilli()}
	v.producer, v.revision = c.cfg.State.lookUp(l.id)
	if v.producer.Phase.Preparing() {
		c.finish(l.id) // it may have been decided by a command whose fate was unknown
	}
	after, joined, size := v.revision, asks[:0:0], 0
	var set transactions.Producer
	remove, rest := false, asks
	for len(rest) > 0 && (len(joined) == 0 || size < maxJoined) {
		a := rest[0]
		a.step = a.decide(v)
		if a.step.needsID && len(joined) == 0 {
			id, err := c.newProducerID()
			if err != nil {
				a.step = step{code: c.codeOf(err), told: none}
			} else {
				v.newID = id
				a.step = a.decide(v)
			}
		}
		if len(joined) > 0 && (a.step.needsID || a.step.writes() && !a.step.adds()) {
			break // decided again once this is replicated
		}
		if !a.step.writes() {
			l.answer(a)
			rest = rest[1:]
			continue
		}
		joined, rest = append(joined, a), rest[1:]
		if remove = a.step.remove; remove {
			break
		}
		set = *a.step.set
		v.scope.Partitions = append(v.scope.Partitions, a.step.scope.Partitions...)
		v.scope.Groups = append(v.scope.Groups, a.step.scope.Groups...)
		size += 24*len(a.step.scope.Partitions) + 1024*len(a.step.scope.Groups)
		if v.producer = set; !a.step.adds() {
			break
		}
	}
	if len(joined) == 0 {
		return rest
	}
	revision := c.revision.Add(1)
	var command transactions.Changes
	if remove {
		command.Delete(l.id, after)
	} else {
		command.Set(l.id, after, revision, set)
		if len(v.scope.Partitions)+len(v.scope.Groups) > 0 {
			command.Add(l.id, revision, v.scope)
		}
	}
	err := c.propose(transactions.Encode(command))
	c.armAbort()
	if err == nil {
		if _, now := c.cfg.State.lookUp(l.id); !remove && now != revision || remove && now == after {
			// A command of before, whose fate was unknown, came first.
			return append(joined, rest...)
		}
	}
	for _, a := range joined {
		if err != nil {
			a.step = step{code: c.codeOf(err), told: none}
		} else if a.step.counts != nil {
			a.step.counts(c.counters).Add(1)
		}
		l.answer(a)
	}
	if err == nil && set.Phase.Preparing() {
		c.finish(l.id)
	}
	return rest
}

// answer tells who asked.
func (l *line) answer(a *ask) {
	if a.then != nil {
		a.then(a.step)
		return
	}
	if a.step.waits {
		a.over = l.c.finish(l.id)
	}
	close(a.done)
}
