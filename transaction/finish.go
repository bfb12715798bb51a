package transaction

import (
	"time"

	"github.com/trimaran-io/trimaran/fsm"
)

// completeBackOff is after how long it is tried again to replicate that a transaction is over.
const completeBackOff = 500 * time.Millisecond

// finish has what was decided about an id reach everything that its transaction touches, if that is
// not on its way already, and gives a channel that is closed once it is over. It does not wait.
// Whoever calls it is running, or is New.
func (c *Coordinator) finish(id string) <-chan struct{} {
	c.mu.Lock()
	l := c.line(id)
	over, begun := l.over, l.over != nil
	if !begun {
		over = make(chan struct{})
		l.over = over
	}
	c.mu.Unlock()
	if begun {
		return over
	}
	p, _ := c.cfg.State.lookUp(id)
	if !p.Phase.Preparing() {
		l.finished()
		return over
	}
	mark := p.Marker()
	c.markers.write(mark, c.cfg.State.scope(id), func() { l.complete(mark) })
	return over
}

// complete replicates that the transaction is over, however often that has to be tried.
func (l *line) complete(mark fsm.Marker) {
	l.c.submit(l.id, &ask{
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
	})
}

// finished tells those who wait for the transaction to be over.
func (l *line) finished() {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	close(l.over)
	l.over = nil
	l.forget()
}
