package peer_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// clients propose to the groups and ask leaders whether they lead.
type clients struct {
	c    *chaosCluster
	seed uint64
	stop chan struct{}
	wg   sync.WaitGroup
}

// perProposer bounds what one proposer proposes in a run.
const perProposer = 250

func startClients(c *chaosCluster, seed uint64) *clients {
	s := &clients{c: c, seed: seed, stop: make(chan struct{})}
	for _, group := range c.groups {
		for i := range 2 {
			s.wg.Go(func() { s.propose(group, fmt.Sprintf("p%d", i)) })
		}
		s.wg.Go(func() { s.verify(group) })
	}
	return s
}

func (s *clients) end() {
	close(s.stop)
	s.wg.Wait()
}

// pause waits and says whether to go on.
func (s *clients) pause(d time.Duration) bool {
	select {
	case <-s.stop:
		return false
	case <-time.After(d):
		return true
	}
}

// rest is a pause between two calls: mostly short, sometimes so long that everything falls silent.
func rest(rng *rand.Rand) time.Duration {
	switch x := rng.IntN(20); {
	case x == 0:
		return seconds(3 + 6*rng.Float64())
	case x < 4:
		return seconds(rng.Float64())
	default:
		return seconds(rng.Float64() / 10)
	}
}

// propose proposes unique values, one after the other or a few at once, and waits for what becomes of them.
func (s *clients) propose(group, name string) {
	rng := rand.New(rand.NewPCG(s.seed, mix("propose", group, name)))
	for n := 0; n < perProposer && s.pause(rest(rng)); {
		candidates := s.c.leaders(group)
		if rng.IntN(30) == 0 {
			candidates = s.c.running(group)
		}
		if len(candidates) == 0 {
			continue
		}
		to := candidates[rng.IntN(len(candidates))]
		count := 1
		if rng.IntN(4) == 0 {
			count += rng.IntN(6)
		}
		var values []string
		var futures []raft.ApplyFuture
		for range count {
			v := fmt.Sprintf("%s-%d", name, n)
			n++
			s.c.check.propose(group, name, v)
			values = append(values, v)
			futures = append(futures, to.raft.Apply([]byte(v), time.Second))
		}
		ended := time.After(seconds(1 + 10*rng.Float64()))
		for i, f := range futures {
			if !s.settle(group, to.node, values[i], f, ended) {
				ended = closedTime // the others have had their time, too
			}
		}
	}
}

var closedTime = func() <-chan time.Time {
	c := make(chan time.Time)
	close(c)
	return c
}()

// settle waits for one proposal and says whether its outcome came in time; else nobody looks at it any more.
func (s *clients) settle(group, node, value string, f raft.ApplyFuture, ended <-chan time.Time) bool {
	got := make(chan error, 1)
	go func() { got <- f.Error() }()
	var err error
	select {
	case err = <-got:
	case <-ended:
		select {
		case err = <-got:
		default:
			s.c.check.event("%s: %s: nobody knows what becomes of %q", group, node, value)
			return false
		}
	}
	switch {
	case err == nil:
		at := f.Response().(appliedAt)
		s.c.check.event("%s: %s acknowledges %q at %d of term %d", group, node, value, at.index, at.term)
		s.c.check.claim(group, at.term, node, "acknowledged")
		s.c.check.settle(group, value, acknowledged, at.index, at.term)
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		s.c.check.settle(group, value, refused, 0, 0)
	default:
		s.c.check.event("%s: %s: %q may be there: %v", group, node, value, err)
	}
	return true
}

// verify asks everybody who thinks that he leads.
func (s *clients) verify(group string) {
	rng := rand.New(rand.NewPCG(s.seed, mix("verify", group)))
	for s.pause(rest(rng)) {
		for _, l := range s.c.leaders(group) {
			began, term := time.Now(), l.raft.CurrentTerm()
			f := l.raft.VerifyLeader()
			s.wg.Go(func() {
				// Between two looks at the term that show the same it was confirmed in that term.
				if err := f.Error(); err != nil || l.raft.CurrentTerm() != term {
					return
				}
				s.c.check.confirm(group, confirmation{l.node, term, began, time.Now(), l.raft.LastIndex()})
			})
		}
	}
}
