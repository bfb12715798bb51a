package faults

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// Five nodes are hit at random, several at once and while they still recover from the
// blow before: kill -9 of up to two, SIGSTOP of up to two others. Producers go on
// through all of them. What was acknowledged is there in the end, once, at its offset,
// on every node. STORM_SECONDS makes it longer than 12 s, STORM_SEED repeats the dice.
func TestKillStorm(t *testing.T) {
	t.Parallel()
	lasts, seed := fromEnv(t, "STORM_SECONDS", 12), fromEnv(t, "STORM_SEED", rand.Uint64()>>1)
	t.Logf("STORM_SEED=%d STORM_SECONDS=%d", seed, lasts)
	c := harness.New(t, harness.Options{Nodes: 5})
	nodes := c.Addrs()
	var loads []*harness.Load
	for _, l := range []struct {
		topic      string
		partitions int32
		addrs      []string
		acks       int16
	}{
		{"storm", 3, []string{c.ShimAddr(), nodes[0]}, -1},
		{"storm-direct", 2, nodes[1:], -1},
		{"storm-acks-1", 1, []string{c.ShimAddr(), nodes[4]}, 1},
	} {
		create(t, c, l.topic, l.partitions)
		load := harness.StartLoad(l.topic, l.partitions, l.addrs, l.acks)
		defer load.Stop()
		loads = append(loads, load)
	}
	s := &storm{t: t, nodes: c.Nodes, dice: rand.New(rand.NewPCG(seed, 0)), began: time.Now()}
	for blow := 1; time.Since(s.began) < time.Duration(lasts)*time.Second; blow++ {
		s.strike()
		if blow%4 > 0 {
			s.pause(s.upTo(1500 * time.Millisecond))
			continue
		}
		// A cluster that never answers again would lose nothing either.
		calm := time.Now()
		for _, l := range loads {
			must(t, l.Progress(10, patience))
		}
		t.Logf("all partitions serve after %s", time.Since(calm).Round(time.Millisecond))
	}
	over := time.Now()
	must(t, c.WaitReady(patience))
	for _, l := range loads {
		must(t, l.Progress(10, patience))
	}
	t.Logf("%d kills, %d pauses; all serve %s after the last", s.kills, s.pauses, time.Since(over).Round(time.Millisecond))
	for i, topic := range []string{"storm", "storm-direct", "storm-acks-1"} {
		verify(t, c, loads[i])
		waitNoLag(t, c, topic)
		replicasAgree(t, c.Addrs(), topic)
	}
}

func fromEnv(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// storm hits nodes of a cluster. All that is random comes from its dice, in one goroutine.
type storm struct {
	t     *testing.T
	nodes []*harness.Node
	dice  *rand.Rand
	began time.Time

	kills, pauses int
}

// moment is the longest time for which a majority of the catalog's five nodes is away.
const moment = 500 * time.Millisecond

// upTo rolls a time.
func (s *storm) upTo(most time.Duration) time.Duration {
	return time.Duration(s.dice.Int64N(int64(most)))
}

// pause lets time pass: how long a fault lasts and when the next one comes is the test.
func (s *storm) pause(d time.Duration) {
	select {
	case <-s.t.Context().Done():
	case <-time.After(d):
	}
}

// strike hits one to three nodes at the same time, and returns when the killed ones are
// started and the stopped ones go on. They may not serve yet.
func (s *storm) strike() {
	s.t.Helper()
	for _, n := range s.nodes {
		if !n.Running() {
			s.t.Fatalf("%s has ended by itself:\n%s", n.ID, n.Tail(20))
		}
	}
	killed, paused := s.dice.IntN(3), s.dice.IntN(3)
	if killed == 0 {
		paused = max(paused, 1)
	}
	if killed == 2 {
		paused = min(paused, 1)
	}
	down, asleep := 2*time.Second, 2*time.Second
	if killed+paused > 2 {
		asleep = moment
	}
	var wg sync.WaitGroup
	errs := make([]error, killed+paused)
	var told []string
	for i, at := range s.dice.Perm(len(s.nodes))[:killed+paused] {
		n := s.nodes[at]
		if i < killed {
			s.kills++
			d := s.upTo(down)
			told = append(told, fmt.Sprintf("%s killed for %s", n.ID, d.Round(time.Millisecond)))
			wg.Go(func() {
				if errs[i] = n.Kill9(); errs[i] == nil {
					s.pause(d)
					errs[i] = n.Start()
				}
			})
			continue
		}
		s.pauses++
		d := s.upTo(asleep)
		told = append(told, fmt.Sprintf("%s stopped for %s", n.ID, d.Round(time.Millisecond)))
		wg.Go(func() {
			if errs[i] = n.Pause(); errs[i] == nil {
				s.pause(d)
				errs[i] = n.Resume()
			}
		})
	}
	s.t.Logf("%s %6.2f s: %s", time.Now().Format("15:04:05.000"), time.Since(s.began).Seconds(), strings.Join(told, ", "))
	wg.Wait()
	for _, err := range errs {
		must(s.t, err)
	}
}

// trimaran runs the program as an operator does and gives what it prints.
func trimaran(t *testing.T, addrs []string, args ...string) string {
	t.Helper()
	out, err := harness.Taken(patience, func() (string, error) { return tryTrimaran(addrs, args...) })
	must(t, err)
	return out
}

func tryTrimaran(addrs []string, args ...string) (string, error) {
	program, err := harness.Program("trimaran")
	if err != nil {
		return "", err
	}
	cmd := exec.Command(program, append(args, "--brokers", strings.Join(addrs, ","))...)
	out, err := cmd.Output()
	if exit, ok := err.(*exec.ExitError); ok {
		err = fmt.Errorf("trimaran %s: %w\n%s%s", strings.Join(args, " "), err, out, exit.Stderr)
	}
	return string(out), err
}

// replicasAgree has the three replicas of each partition compared on their own disks.
func replicasAgree(t *testing.T, addrs []string, topic string) {
	t.Helper()
	var partitions []struct {
		Partition int32 `json:"partition"`
		Same      bool  `json:"same"`
		Compared  int   `json:"compared"`
		From, To  int64
	}
	out := trimaran(t, addrs, "cluster", "verify", topic, "--json")
	must(t, json.Unmarshal([]byte(out), &partitions))
	good := len(partitions) > 0
	for _, p := range partitions {
		good = good && p.Same && p.Compared == 3 && p.From == 0 && p.To > 0
	}
	if !good {
		t.Errorf("the replicas of %s: %s", topic, out)
	}
}
