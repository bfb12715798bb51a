package faults

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// kill -9 of the leader while producers wait for acks=-1, through the shim and
// through every node, and its return: three times, whoever leads by then.
func TestKillLeaderDuringProduce(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{})
	create(t, c, "kill", 3)
	harness.StartWitness(t, c)
	l := harness.StartLoad("kill", 3, append(c.Addrs(), c.ShimAddr()), -1)
	defer l.Stop()
	for range 3 {
		must(t, l.Progress(50, patience))
		n := leader(t, c, "kill", 0)
		must(t, n.Kill9())
		must(t, l.Progress(50, patience))
		must(t, n.Restart())
	}
	must(t, l.Progress(50, patience))
	verify(t, c, l)
}

// acks=1 waits for the majority too.
func TestKillLeaderWithAcksOne(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{})
	create(t, c, "kill1", 1)
	l := harness.StartLoad("kill1", 1, []string{c.ShimAddr(), c.Node(1).Addr(), c.Node(2).Addr()}, 1)
	defer l.Stop()
	must(t, l.Progress(50, patience))
	n := leader(t, c, "kill1", 0)
	must(t, n.Kill9())
	must(t, l.Progress(50, patience))
	must(t, n.Restart())
	verify(t, c, l)
}

// The leader is stopped without dying: its sockets stay open, it answers nothing.
// The others go on; when it wakes it must not acknowledge anything as leader.
func TestPausedLeader(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{NoShim: true})
	create(t, c, "pause", 1)
	harness.StartWitness(t, c)
	for range 2 {
		n := leader(t, c, "pause", 0)
		var others []string
		for _, o := range c.Nodes {
			if o != n {
				others = append(others, o.Addr())
			}
		}
		// Producers on the paused node too: they are the ones that a deposed
		// leader could lie to.
		topic := harness.Topic("pause")
		create(t, c, topic, 1)
		n = leader(t, c, topic, 0)
		l := harness.StartLoad(topic, 1, append(others, n.Addr()), -1)
		must(t, l.Progress(30, patience))
		must(t, n.Pause())
		err := l.Progress(30, patience)
		resumed := n.Resume()
		must(t, err)
		must(t, resumed)
		must(t, n.WaitReady(patience))
		must(t, l.Progress(30, patience))
		verify(t, c, l)
	}
}

// A follower that was away while 30 MB were written has all of it when it is
// back, and serves it.
func TestFollowerAwayForLong(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{NoShim: true})
	create(t, c, "away", 1)
	lead := leader(t, c, "away", 0)
	var away *harness.Node
	for _, n := range c.Nodes {
		if n != lead {
			away = n
		}
	}
	must(t, away.Kill9())
	ledger := harness.NewLedger(1, time.Now())
	const batches, perBatch, size = 300, 10, 10_000
	next, try := 0, int32(0)
	must(t, harness.Again(lead.Addr(), patience, func(w *harness.Wire) error {
		for ; next < batches; next, try = next+1, 0 {
			var sent []harness.Attempt
			var set []byte
			for k := range perBatch {
				a := harness.Attempt{Seq: int32(next*perBatch + k), Try: try}
				sent = append(sent, a)
				set = harness.Message(set, 0, 0, []byte(a.Key()), []byte(a.Value(size)))
			}
			ledger.Sent(sent)
			w.Conn.SetDeadline(time.Now().Add(30 * time.Second))
			base, err := w.ProduceSet("away", 0, -1, 10*time.Second, set)
			if err != nil { // sent again, as another attempt: it may be there
				ledger.Unknown(sent, err.Error())
				try++
				return err
			}
			ledger.Acknowledged(0, sent, base, len(set), time.Now())
		}
		return nil
	}))
	must(t, ledger.Impossible())
	must(t, away.Restart())
	caughtUp := harness.Eventually(patience, func() bool {
		s, err := away.Status()
		if err != nil {
			return false
		}
		for _, topic := range s.Topics {
			for _, p := range topic.Partitions {
				for _, r := range p.Replicas {
					if topic.Name == "away" && r.Node == away.ID && r.Role != "offline" && r.Applied >= ledger.End(0) {
						return true
					}
				}
			}
		}
		return false
	})
	if caughtUp != nil {
		s, err := away.Status()
		t.Fatalf("%s has not caught up: %+v %v", away.ID, s, err)
	}
	entries, err := harness.ReadToEnd(away.Addr(), "away", 0, ledger.End(0), patience)
	must(t, err)
	must(t, ledger.Check(away.Addr(), 0, entries, size))
}

// Every node is killed at the same moment and started again; then once more,
// and every node comes back with other ports.
func TestAllNodesKilledAtOnce(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{})
	create(t, c, "all", 3)
	harness.StartWitness(t, c)
	for round, ports := range []string{"the same ports", "other ports"} {
		topic := "all"
		if round > 0 {
			topic = "all-again"
			create(t, c, topic, 3)
		}
		l := harness.StartLoad(topic, 3, append(c.Addrs(), c.ShimAddr()), -1)
		must(t, l.Progress(100, patience))
		var wg sync.WaitGroup
		for _, n := range c.Nodes {
			wg.Go(func() { n.Kill9() })
		}
		wg.Wait()
		if err := l.Stop(); err != nil {
			t.Error(err)
		}
		if round > 0 {
			for _, n := range c.Nodes {
				must(t, n.NewPorts())
			}
			c.Shim.Kill9()
			must(t, c.StartShim())
		}
		for _, n := range c.Nodes {
			must(t, n.Start())
		}
		if err := c.WaitReady(patience); err != nil {
			t.Fatalf("with %s: %v", ports, err)
		}
		verify(t, c, l)
		_, _, err := harness.Produce(c.ShimAddr(), topic, 0, "writable again", patience)
		must(t, err)
	}
}

// With two of three nodes gone nothing is acknowledged; the answer is an error
// that clients try again on, in time, and service returns with one of them.
func TestNoMajorityNoAcknowledgement(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{NoShim: true})
	create(t, c, "minority", 1)
	harness.StartWitness(t, c)
	addr := c.Node(1).Addr()
	_, _, err := harness.Produce(addr, "minority", 0, "before", patience)
	must(t, err)
	must(t, c.Node(2).Kill9())
	must(t, c.Node(3).Kill9())
	for i := range 3 {
		var answer error
		var took time.Duration
		// Until it knows that nobody runs at the addresses of the others it sends its clients to
		// them: these come again.
		err := harness.Eventually(patience, func() bool {
			w, err := harness.DialWire(addr)
			if err != nil {
				answer = err
				return false
			}
			defer w.Close()
			start := time.Now()
			w.Conn.SetDeadline(start.Add(patience))
			_, answer = w.Produce("minority", 0, -1, fmt.Sprint("alone ", i))
			took = time.Since(start)
			var code harness.ErrorCode
			return answer == nil || errors.As(answer, &code)
		})
		switch {
		case err != nil:
			t.Fatalf("it does not answer: %v", answer)
		case answer == nil:
			t.Fatal("acknowledged by one node of three")
		}
		// LEADER_NOT_AVAILABLE, NOT_LEADER_FOR_PARTITION, REQUEST_TIMED_OUT
		if !slices.Contains([]error{harness.ErrorCode(5), harness.ErrorCode(6), harness.ErrorCode(7)}, answer) {
			t.Errorf("%v is not one that 0.8 clients try again on", answer)
		}
		if took > 30*time.Second { // three times what it was given
			t.Errorf("the answer took %s", took)
		}
	}
	must(t, c.Node(2).Start())
	must(t, c.Node(2).WaitReady(patience))
	_, _, err = harness.Produce(addr, "minority", 0, "after", patience)
	must(t, err)
}

// The shim's gateway dies: its clients see a closed connection at most, and the
// next one works.
func TestShimFailsOver(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{})
	create(t, c, "shim", 1)
	for i := range c.Nodes {
		n := c.Nodes[i]
		must(t, n.Kill9())
		err := harness.Eventually(patience, func() bool {
			w, err := harness.DialWire(c.ShimAddr())
			if err != nil {
				return false
			}
			defer w.Close()
			w.Conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, err = w.Produce("shim", 0, -1, "through the others")
			return err == nil
		})
		if err != nil {
			t.Fatalf("with %s dead: %v", n.ID, err)
		}
		must(t, n.Restart())
	}
}

// SIGTERM ends a node cleanly: exit code 0, and the others go on.
func TestPlannedStop(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{})
	create(t, c, "stop", 3)
	l := harness.StartLoad("stop", 3, []string{c.ShimAddr()}, -1)
	defer l.Stop()
	for _, n := range c.Nodes {
		must(t, l.Progress(20, patience))
		code, err := n.Terminate(patience)
		must(t, err)
		if code != 0 {
			t.Errorf("%s ends with %d on SIGTERM", n.ID, code)
		}
		must(t, l.Progress(20, patience))
		must(t, n.Restart())
	}
	code, err := c.Shim.Terminate(patience)
	must(t, err)
	if code != 0 {
		t.Errorf("the shim ends with %d on SIGTERM", code)
	}
	must(t, c.StartShim())
	must(t, c.WaitReady(patience))
	verify(t, c, l)
}
