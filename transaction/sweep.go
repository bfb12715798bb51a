package transaction

import (
	"sync"
	"time"

	"github.com/trimaran-io/trimaran/fsm/transactions"
)

// sweepers is how many ids a sweep is at work on at a time.
const sweepers = 64

// armAbort sees to it that what is open is looked at. It is called when there may be something:
// also when nobody knows whether a command was applied or will be.
func (c *Coordinator) armAbort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.abort == nil {
		c.abort = c.tenure.After(c.set.AbortInterval, c.sweepOpen)
	}
}

// sweepOpen aborts transactions that are open longer than their timeout, and has those that are
// decided go on: the command that decided may have been applied after its fate was said to be
// unknown.
func (c *Coordinator) sweepOpen() {
	c.mu.Lock()
	c.abort = nil
	c.mu.Unlock()
	open, ids := c.cfg.State.opened()
	if ids > 0 {
		defer c.armAbort()
	}
	now, heard := time.Now(), c.heardSince()
	var late []string
	for _, o := range open {
		switch {
		case o.producer.Phase.Preparing():
			c.finish(o.id)
		case now.Sub(heard) >= c.set.AbortInterval && c.late(o.producer, now.UnixMilli()) && !c.held():
			// While commits are held, its own may wait.
			late = append(late, o.id)
		}
	}
	c.each(late, func(id string) {
		s, err := c.ask(c.tenure.Context(), id, c.decideTimeout)
		if err == nil && s.set != nil {
			c.log.Info("a transaction was open longer than its timeout and is aborted", "transactional_id", id,
				"producer_id", s.set.ProducerID, "timeout_ms", s.set.Timeout)
		}
	})
}

// heardSince is since when producers can be heard without a break.
func (c *Coordinator) heardSince() time.Time {
	since := c.began
	if c.cfg.Awake != nil {
		if awake := c.cfg.Awake(); awake.After(since) {
			since = awake
		}
	}
	return since
}

// late reports whether the transaction is open longer than its timeout. If it began by a clock that
// is ahead of the one here, it is taken to have begun when this coordinator did.
func (c *Coordinator) late(p transactions.Producer, now int64) bool {
	began := p.Start
	if began > now {
		began = c.began.UnixMilli()
	}
	return p.Phase == transactions.Ongoing && now-began > int64(p.Timeout)
}

func (c *Coordinator) decideTimeout(v view) step {
	if v.revision == 0 || !c.late(v.producer, v.now) {
		return step{}
	}
	s := decideFence(v)
	s.counts = func(c *Counters) counter { return &c.TimedOut }
	return s
}

// sweepIDs forgets ids that nobody has used for long.
func (c *Coordinator) sweepIDs() {
	now := time.Now().UnixMilli()
	var unused []string
	for _, id := range c.cfg.State.ids() {
		if p, _ := c.cfg.State.lookUp(id); c.unused(p, now) {
			unused = append(unused, id)
		}
	}
	c.each(unused, func(id string) {
		_, _ = c.ask(c.tenure.Context(), id, func(v view) step { return step{remove: v.revision != 0 && c.unused(v.producer, v.now)} })
	})
	if len(unused) > 0 {
		c.log.Info("transactional ids expired", "ids", len(unused))
	}
	c.tenure.After(c.set.RemoveInterval, c.sweepIDs)
}

func (c *Coordinator) unused(p transactions.Producer, now int64) bool {
	return !p.Phase.Open() && now-p.Updated >= c.set.IDExpiration.Milliseconds()
}

// each does it for all ids, several at a time, and waits. What is not done by an id's turn is done
// by the next sweep.
func (c *Coordinator) each(ids []string, do func(id string)) {
	var wait sync.WaitGroup
	next := make(chan string)
	for range min(sweepers, len(ids)) {
		wait.Go(func() {
			for id := range next {
				do(id)
			}
		})
	}
	for _, id := range ids {
		if c.tenure.Over() {
			break
		}
		next <- id
	}
	close(next)
	wait.Wait()
}
