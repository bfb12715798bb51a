package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// A topic that is deleted and created again under its name shares nothing with
// the first one, also on a node that was away for both.
func TestDeletedAndCreatedAgain(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{NoShim: true})
	create(t, c, "again", 2)
	for i := range 20 {
		_, _, err := harness.Produce(c.Node(1).Addr(), "again", int32(i%2), fmt.Sprint("old ", i), patience)
		must(t, err)
	}
	away := c.Node(3)
	must(t, away.Kill9())
	must(t, c.DeleteTopic(t.Context(), "again"))
	create(t, c, "again", 1)
	base, tries, err := harness.Produce(c.Node(1).Addr(), "again", 0, "new", patience)
	must(t, err)
	if base >= int64(tries) { // the first one of them is at 0, and there were ten old ones
		t.Errorf("the new topic's first record has offset %d, and was sent %d times", base, tries)
	}
	must(t, away.Restart())
	for _, n := range c.Nodes {
		err := harness.Eventually(patience, func() bool {
			r, err := harness.DialWire(n.Addr())
			if err != nil {
				return false
			}
			defer r.Close()
			m, err := r.Metadata("again")
			if err != nil || m.Topics[0].Code != 0 || len(m.Topics[0].Partitions) != 1 {
				return false
			}
			entries, err := r.FetchAll("again", 0, base+1, patience)
			return err == nil && len(entries) <= tries && entries[0].Offset == 0 &&
				!slices.ContainsFunc(entries, func(e harness.Entry) bool { return string(e.Value) != "new" })
		})
		if err != nil {
			t.Errorf("%s does not serve the new topic alone", n.ID)
		}
		// The disk of the first one is free: one replica's folder is left.
		var left []os.DirEntry
		err = harness.Eventually(patience, func() bool {
			left, err = os.ReadDir(filepath.Join(n.Data, "partitions"))
			return err == nil && len(left) == 1
		})
		if err != nil {
			t.Errorf("%s keeps %v", n.ID, left)
		}
	}
}

// A topic that was created while a node was away gets its replica there when the
// node is back, and that replica catches up.
func TestTopicCreatedWhileANodeWasAway(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{NoShim: true})
	away := c.Node(2)
	must(t, away.Kill9())
	create(t, c, "meanwhile", 3)
	l := harness.StartLoad("meanwhile", 3, []string{c.Node(1).Addr(), c.Node(3).Addr()}, -1)
	defer l.Stop()
	must(t, l.Progress(50, patience))
	must(t, away.Restart())
	must(t, l.Progress(50, patience))
	must(t, l.Stop())
	// The replica that came later carries the topic when another one goes.
	waitNoLag(t, c, "meanwhile")
	must(t, c.Node(1).Kill9())
	if err := l.Verify(away.Addr(), patience); err != nil {
		t.Error(err)
	}
}

// waitNoLag waits until every replica of a topic has applied all there is.
func waitNoLag(t *testing.T, c *harness.Cluster, topic string) {
	t.Helper()
	var last *harness.Status
	err := harness.Eventually(patience, func() bool {
		for _, n := range c.Nodes {
			if !n.Running() {
				continue
			}
			s, err := n.Status()
			if err != nil {
				return false
			}
			last = s
			break
		}
		replicas := 0
		for _, tp := range last.Topics {
			for _, p := range tp.Partitions {
				for _, r := range p.Replicas {
					if tp.Name != topic {
						continue
					}
					replicas++
					if r.Role == "offline" || r.Applied != p.HighWatermark || p.Leader == "" {
						return false
					}
				}
			}
		}
		return replicas > 0
	})
	if err != nil {
		t.Fatalf("replicas of %s do not catch up: %+v", topic, last)
	}
}

// After its first start a node needs no --join: it remembers whom it met, also
// when its own addresses have changed meanwhile.
func TestRestartWithoutJoin(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{NoShim: true})
	create(t, c, "remember", 3)
	l := harness.StartLoad("remember", 3, []string{c.Node(1).Addr(), c.Node(2).Addr()}, -1)
	defer l.Stop()
	must(t, l.Progress(20, patience))
	n := c.Node(3)
	must(t, n.Kill9())
	n.NoJoin = true
	must(t, n.NewPorts())
	must(t, n.Restart())
	must(t, l.Progress(20, patience))
	verify(t, c, l)
	// All of them, each knowing only what it remembers.
	for _, n := range c.Nodes {
		must(t, n.Kill9())
		n.NoJoin = true
	}
	for _, n := range c.Nodes {
		must(t, n.Start())
	}
	must(t, c.WaitReady(patience))
	verify(t, c, l)
}

// Three nodes form the cluster, three more join one after the other through any
// live one. The catalog has five voters at most. New topics use the new nodes.
func TestNodesJoinLater(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{NoShim: true})
	for range 3 {
		n, err := c.AddNode()
		must(t, err)
		must(t, n.Start())
		must(t, n.WaitReady(patience))
	}
	create(t, c, "wide", 12)
	voters, nonvoters := 0, 0
	err := harness.Eventually(patience, func() bool {
		s, err := c.Node(6).Status()
		if err != nil {
			return false
		}
		voters, nonvoters = 0, 0
		for _, n := range s.Nodes {
			switch n.CatalogRole {
			case "leader", "voter":
				voters++
			case "nonvoter":
				nonvoters++
			}
		}
		return voters == 5 && nonvoters == 1
	})
	if err != nil {
		t.Errorf("the catalog has %d voters and %d followers that do not vote; want 5 and 1", voters, nonvoters)
	}
	s := status(t, c.Node(4))
	used := map[string]int{}
	for _, tp := range s.Topics {
		for _, p := range tp.Partitions {
			if len(p.Replicas) != 3 {
				t.Errorf("%s-%d has %d replicas", tp.Name, p.Partition, len(p.Replicas))
			}
			for _, r := range p.Replicas {
				used[r.Node]++
			}
		}
	}
	for _, n := range c.Nodes {
		if used[n.ID] != 6 {
			t.Errorf("36 replicas on six nodes: %v", used)
			break
		}
	}
	// A node without a replica of a partition serves it all the same.
	l := harness.StartLoad("wide", 12, []string{c.Node(1).Addr(), c.Node(6).Addr()}, -1)
	defer l.Stop()
	must(t, l.Progress(10, patience))
	must(t, c.Node(5).Kill9())
	must(t, l.Progress(10, patience))
	must(t, c.Node(5).Restart())
	verify(t, c, l)
}

// A paused follower costs nothing that producers would see, and has everything
// soon after it wakes.
func TestPausedFollower(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{NoShim: true})
	create(t, c, "asleep", 1)
	lead := leader(t, c, "asleep", 0)
	var sleeper *harness.Node
	for _, n := range c.Nodes {
		if n != lead {
			sleeper = n
		}
	}
	l := harness.StartLoad("asleep", 1, []string{lead.Addr()}, -1)
	defer l.Stop()
	must(t, l.Progress(20, patience))
	must(t, sleeper.Pause())
	start := time.Now()
	err := l.Progress(500, patience)
	took := time.Since(start)
	must(t, sleeper.Resume())
	must(t, err)
	t.Logf("500 records with a paused follower took %s", took.Round(time.Millisecond))
	must(t, l.Stop())
	waitNoLag(t, c, "asleep")
	verify(t, c, l)
}

// With replication factor 1 a partition is gone while its node is, which its
// producers are told, and back with it.
func TestReplicationFactorOne(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{NoShim: true})
	must(t, c.CreateTopic(t.Context(), "single", 1, 1))
	w, err := harness.DialWire(c.Node(1).Addr())
	must(t, err)
	_, err = w.Produce("single", 0, -1, "one")
	w.Close()
	must(t, err)
	owner := leader(t, c, "single", 0)
	var other *harness.Node
	for _, n := range c.Nodes {
		if n != owner {
			other = n
		}
	}
	must(t, owner.Kill9())
	// A node that reaches no majority for a moment ends the connections of its clients, who come
	// again: each question has its own.
	ask := func(question func(w *harness.Wire) error) error {
		w, err := harness.DialWire(other.Addr())
		if err != nil {
			return err
		}
		defer w.Close()
		return question(w)
	}
	var code harness.ErrorCode
	err = harness.Eventually(patience, func() bool {
		return errors.As(ask(func(w *harness.Wire) error {
			_, err := w.Produce("single", 0, -1, "two")
			return err
		}), &code)
	})
	if err != nil {
		t.Errorf("its producer is not told that its only replica is gone: %v", err)
	}
	must(t, owner.Restart())
	err = harness.Eventually(patience, func() bool {
		return ask(func(w *harness.Wire) error {
			entries, err := w.FetchAll("single", 0, 1, 5*time.Second)
			if err == nil && string(entries[0].Value) != "one" {
				err = fmt.Errorf("%q", entries[0].Value)
			}
			return err
		}) == nil
	})
	must(t, err)
}
