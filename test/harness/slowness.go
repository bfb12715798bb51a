package harness

import (
	"sync"
	"testing"
	"time"
)

// slownessEvery is how often each node is asked.
const slownessEvery = 20 * time.Millisecond

// Slowness is how long everybody is kept waiting by a machine that is busy with other things: the
// longest that a node took to say that it lives. A test of what has to come to pass in time allows
// for it.
type Slowness struct {
	mu      sync.Mutex // guards the rest
	longest time.Duration
	asked   map[string]time.Time // when a node that has not answered yet was to be asked
}

// WatchSlowness asks the nodes at these addresses until the test ends.
func WatchSlowness(t testing.TB, addrs ...string) *Slowness {
	s := &Slowness{asked: map[string]time.Time{}}
	over := make(chan struct{})
	var all sync.WaitGroup
	for _, addr := range addrs {
		all.Go(func() {
			for {
				s.note(addr, time.Now().Add(slownessEvery))
				select {
				case <-over:
					return
				case <-time.After(slownessEvery):
				}
				_, _, _ = Get("http://" + addr + "/healthz") // that it takes as long as it does is what counts
			}
		})
	}
	t.Cleanup(func() {
		close(over)
		all.Wait()
	})
	return s
}

// note ends what a node was asked, and says when it is asked next.
func (s *Slowness) note(addr string, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if asked, ok := s.asked[addr]; ok {
		s.longest = max(s.longest, time.Since(asked))
	}
	s.asked[addr] = next
}

// Forget begins anew.
func (s *Slowness) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.longest = 0
}

// Longest gives it, answers that are under way among them.
func (s *Slowness) Longest() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	longest := s.longest
	for _, asked := range s.asked {
		longest = max(longest, time.Since(asked))
	}
	return longest
}
