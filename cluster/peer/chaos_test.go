package peer_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// chaosRuns is how many seeds a plain go test tries.
const chaosRuns = 12

// TestChaos runs groups through what the seed says and lets the checker judge. CHAOS_SEED is the first seed, CHAOS_RUNS
// how many follow it. The same seed gives the same cluster, faults and choices; Raft draws its election
// timeouts itself, and goroutines that are ready at once run in any order, so a failure may need some tries:
// CHAOS_REPEAT runs each seed so many times. CHAOS_JOURNAL names a directory that gets a file of all events of each seed.
func TestChaos(t *testing.T) {
	first, runs, repeat := fromEnv(t, "CHAOS_SEED", 1), fromEnv(t, "CHAOS_RUNS", chaosRuns), fromEnv(t, "CHAOS_REPEAT", 1)
	if testing.Short() && os.Getenv("CHAOS_RUNS") == "" {
		runs = 2
	}
	for seed := first; seed < first+runs; seed++ {
		for range repeat {
			t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { chaos(t, seed) })
			})
		}
	}
}

func fromEnv(t *testing.T, name string, otherwise uint64) uint64 {
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

// scenario is one run.
type scenario struct {
	*chaosCluster
	rng  *rand.Rand
	wg   sync.WaitGroup // what goes on in the background
	down []string       // nodes that were crashed
	// changing has for each group the last membership change; closed: its outcome is known.
	changing map[string]chan struct{}
}

// calm is within what virtual time everything must be well after the faults: hashicorp/raft waits up to 20 s
// between two tries to send to a follower, and an election may take some tries of up to two timeouts each.
const calm = 2 * time.Minute

func chaos(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	s := &scenario{chaosCluster: draw(t, seed, rng), rng: rng, changing: map[string]chan struct{}{}}
	if dir := os.Getenv("CHAOS_JOURNAL"); dir != "" {
		var err error
		if s.check.journal, err = os.Create(filepath.Join(dir, fmt.Sprintf("%d.log", seed))); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.check.journal.Close() }()
	}
	defer func() {
		if s.check.failed() || t.Failed() {
			t.Errorf("CHAOS_SEED=%d CHAOS_RUNS=1 CHAOS_REPEAT=20 is this seed again. What happened last:\n%s", seed, s.check.history())
			for _, w := range s.check.wrong[:min(5, len(s.check.wrong))] {
				t.Error(w)
			}
		}
	}()
	s.boot()
	defer s.stop()
	clients := startClients(s.chaosCluster, seed)
	for range 30 + rng.IntN(30) {
		time.Sleep(s.gap())
		s.freeStuck()
		s.step()
		if s.check.failed() {
			break
		}
	}
	s.heal()
	s.converge()
	s.wg.Wait()
	clients.end()
	s.judge()
	if testing.Verbose() {
		s.report()
	}
}

func (s *scenario) gap() time.Duration {
	if s.rng.IntN(4) == 0 {
		return seconds(4 * s.rng.Float64())
	}
	return seconds(s.rng.Float64())
}

func (s *scenario) node() string  { return s.nodes[s.rng.IntN(len(s.nodes))] }
func (s *scenario) group() string { return s.groups[s.rng.IntN(len(s.groups))] }

func (s *scenario) pair() (a, b string) {
	i := s.rng.IntN(len(s.nodes))
	j := (i + 1 + s.rng.IntN(len(s.nodes)-1)) % len(s.nodes)
	return s.nodes[i], s.nodes[j]
}

// heal ends all faults.
func (s *scenario) heal() {
	s.check.event("the end: everything is healed")
	s.net.HealAll()
	s.weather.clear()
	s.restart()
	for _, group := range s.groups {
		for _, r := range s.replicas[group] {
			r.disk.hang(false)
			if r.raft == nil {
				s.startReplica(r)
			}
		}
	}
}

// converge waits until every group commits and all its members have applied the same.
func (s *scenario) converge() {
	began := time.Now()
	for _, group := range s.groups {
		for n := 0; ; n++ {
			if time.Since(began) > calm {
				s.check.fail("%s: nothing is committed %v after the end of the faults:\n%s", group, time.Since(began), s.state())
				return
			}
			s.freeStuck()
			ls := s.leaders(group)
			if len(ls) == 0 {
				time.Sleep(100 * time.Millisecond)
				continue
			}
			v := fmt.Sprintf("end-%d", n)
			s.check.propose(group, "end", v)
			clients := &clients{c: s.chaosCluster}
			if clients.settle(group, ls[0].node, v, ls[0].raft.Apply([]byte(v), time.Second), time.After(10*time.Second)) && s.check.isAcknowledged(group, v) {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// members gives the members of a group as its leader sees them, and whether all of them have applied the same.
func (s *scenario) members(group string) (out []running, same bool) {
	ls := s.leaders(group)
	if len(ls) == 0 {
		return nil, false
	}
	l := ls[0]
	same = true
	for _, r := range s.running(group) {
		if _, ok := l.suffrage(r.node); ok {
			out = append(out, r)
			same = same && r.raft.AppliedIndex() == l.raft.LastIndex() && len(r.fsm.entries()) == len(l.fsm.entries())
		}
	}
	return out, same && l.raft.AppliedIndex() == l.raft.LastIndex()
}

// judge waits until all members are equal and has the checker look at them.
func (s *scenario) judge() {
	if s.check.failed() {
		return
	}
	began := time.Now()
	for _, group := range s.groups {
		for {
			s.freeStuck()
			members, same := s.members(group)
			if same {
				logs := map[string][]entry{}
				for _, m := range members {
					logs[m.node] = m.fsm.entries()
				}
				s.check.finish(group, s.mostLate(), logs)
				break
			}
			if time.Since(began) > calm {
				s.check.fail("%s: its members do not hold the same %v after the last proposal:\n%s", group, time.Since(began), s.state())
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// report says what the run consisted of.
func (s *scenario) report() {
	line := fmt.Sprintf("%v virtual", time.Since(s.check.began).Round(time.Second))
	for _, group := range s.groups {
		line += fmt.Sprintf(", %s", s.check.summary(group))
	}
	s.t.Log(line, "excused", s.check.excused, "back", s.check.back, "goroutines", runtime.NumGoroutine())
}
