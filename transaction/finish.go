package transaction

import (
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/fsm/transactions"
)

// completeBackOff is after how long it is tried again to replicate that a transaction is over.
const completeBackOff = 500 * time.Millisecond

// finish has what was decided about an id reach everything that its transaction touches, if that is
// not on its way already. It does not wait. Whoever calls it is running.
func (c *Coordinator) finish(id string) { c.end(id, false) }

// end is finish. earlier: it was decided before this coordinator's term.
func (c *Coordinator) end(id string, earlier bool) {
	if l, p := c.mark(id); l != nil {
		l.spread(p, earlier)
	}
}

// mark marks the id's line as ending, and gives it with what is replicated after that; nil: it was
// marked before, and whoever did that sees to everything.
func (c *Coordinator) mark(id string) (*line, transactions.Producer) {
	c.mu.Lock()
	l := c.line(id)
	marked := l.ending
	l.ending = true
	c.mu.Unlock()
	if marked {
		return nil, transactions.Producer{}
	}
	p, _ := c.cfg.State.lookUp(id)
	return l, p
}

// spread has the markers of what was decided written. The line was marked, and then p replicated.
func (l *line) spread(p transactions.Producer, earlier bool) {
	c, id := l.c, l.id
	for !p.Phase.Preparing() {
		l.finished()
		// Whoever decided it before that found the mark, and went away.
		if p, _ = c.cfg.State.lookUp(id); !p.Phase.Preparing() {
			return
		}
		if l, p = c.mark(id); l == nil {
			return
		}
	}
	mark, scope := p.Marker(), c.cfg.State.scope(id)
	ahead := c.cfg.Ahead != nil && c.cfg.Ahead()
	c.mu.Lock()
	l.next = newNext(p, scope, earlier, ahead)
	c.mu.Unlock()
	if mark.Commit {
		c.begunToEnd()
	}
	c.markers.write(mark, scope, func(begun []fsm.PartitionID) {
		if mark.Commit {
			c.hasEnded()
		}
		l.arrived(mark, begun)
	})
}

// arrived notes that all have the marker, and where the next transaction is open. What waits for
// that is decided now. That the transaction is over is replicated with what comes next, or soon.
func (l *line) arrived(mark fsm.Marker, begun []fsm.PartitionID) {
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.next == nil || l.next.of != mark {
		return
	}
	l.next.arrive(begun, time.Now())
	if l.next.stands {
		l.queue(l.parked...)
		l.parked = nil
		if l.linger == nil {
			l.linger = c.tenure.After(c.set.NextWait, l.lingered)
		}
		return
	}
	l.settle(mark)
}

// lingered has replicated what is known for long enough.
func (l *line) lingered() {
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	l.linger = nil
	if l.next == nil || !l.next.arrived {
		return
	}
	if rest := time.Until(l.next.at.Add(c.set.NextWait)); rest > 0 {
		l.linger = c.tenure.After(rest, l.lingered)
		return
	}
	l.settle(l.next.of)
}

// settle replicates that the transaction is over, however often that has to be tried, with what is
// known behind it, and what waits for that. mu is held.
func (l *line) settle(mark fsm.Marker) {
	if l.next == nil || l.next.of != mark {
		return // it is; and without that the line may be forgotten
	}
	a := &ask{
		decide: func(v view) step { return step{settles: v.next.arrived && v.next.of == mark} },
		then: func(s step) {
			if s.code != 0 {
				l.c.tenure.After(completeBackOff, func() {
					l.c.mu.Lock()
					defer l.c.mu.Unlock()
					l.settle(mark)
				})
			}
		},
	}
	l.queue(append([]*ask{a}, l.parked...)...)
	l.parked = nil
}

// finished has those decided again who wait for the transaction to be over.
func (l *line) finished() {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.over()
}

// over is finished. mu is held.
func (l *line) over() {
	l.ending, l.next = false, nil
	l.queue(l.parked...)
	l.parked = nil
	l.forget()
}
