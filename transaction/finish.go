package transaction

import (
	"time"

	"github.com/trimaran-io/trimaran/fsm"
)

// completeBackOff is after how long it is tried again to replicate that a transaction is over.
const completeBackOff = 500 * time.Millisecond

// finish has what was decided about an id reach everything that its transaction touches, if that is
// not on its way already. It does not wait. Whoever calls it is running, or is New.
func (c *Coordinator) finish(id string) {
	c.mu.Lock()
	l := c.line(id)
	begun := l.ending
	l.ending = true
	c.mu.Unlock()
	if begun {
		return
	}
	p, _ := c.cfg.State.lookUp(id)
	if !p.Phase.Preparing() {
		l.finished()
		return
	}
	mark := p.Marker()
	c.markers.write(mark, c.cfg.State.scope(id), func() { l.complete(mark) })
}

// complete replicates that the transaction is over, however often that has to be tried, and with it
// what waits for that.
func (l *line) complete(mark fsm.Marker) {
	a := &ask{
		decide: func(v view) step {
			if v.revision == 0 || !v.producer.Phase.Preparing() || v.producer.Marker() != mark {
				return step{}
			}
			p := completed(v.producer, v.now)
			return step{set: &p}
		},
		then: func(s step) {
			if s.code != 0 {
				l.c.tenure.After(completeBackOff, func() { l.complete(mark) })
				return
			}
			l.finished()
			if s.set == nil {
				l.c.finish(l.id) // it was over before, and the next one may be decided by now
			}
		},
	}
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.queue(append([]*ask{a}, l.parked...)...)
	l.parked = nil
}

// finished has those decided again who wait for the transaction to be over.
func (l *line) finished() {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.ending = false
	l.queue(l.parked...)
	l.parked = nil
	l.forget()
}
