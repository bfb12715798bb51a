package leading

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
)

// The tests of this file need no node: what leads, and who is told so, is given to the types by
// functions.

// threeNodes is a catalog with nodes n1 to n3 and a topic whose partitions 0 and 1 prefer n1 and
// n2.
func threeNodes(t *testing.T, more ...fsm.CatalogCommand) (*fsm.Topics, fsm.TopicID) {
	t.Helper()
	c := fsm.NewCatalog()
	var nodes []fsm.Node
	for i := range 3 {
		nodes = append(nodes, fsm.Node{ID: fsm.NodeID(fmt.Sprint("n", i+1)), Incarnation: "00000000", FeatureLevel: fsm.FeatureLevel})
	}
	topic := fsm.Topic{Name: "t", ID: fsm.TopicID{1}, ReplicationFactor: 3}
	for _, replicas := range [][]fsm.NodeID{{"n1", "n2", "n3"}, {"n2", "n3", "n1"}} {
		topic.Partitions = append(topic.Partitions, fsm.Partition{Replicas: replicas, Bootstrap: replicas})
	}
	commands := []fsm.CatalogCommand{{FormCluster: &fsm.FormCluster{ClusterID: "c", Nodes: nodes}}}
	for i := range nodes {
		commands = append(commands, fsm.CatalogCommand{RegisterNode: &nodes[i]})
	}
	commands = append(commands, fsm.CatalogCommand{RaiseFeatureLevel: &fsm.RaiseFeatureLevel{FeatureLevel: 2}}, fsm.CatalogCommand{CreateTopic: &fsm.CreateTopic{Topic: topic}})
	for i, command := range append(commands, more...) {
		if r := c.Apply(fsm.Index(i+1), command.Encode()); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	return c.View(), topic.ID
}

// leading is a node n1 that leads both partitions, and those to whom it gave them.
type leading struct {
	mu    sync.Mutex
	there map[string]bool
	full  bool
	given map[fsm.PartitionID]string // the first node that was suitable
	stays bool
}

func (l *leading) of(view *fsm.Topics, topic fsm.TopicID) *Preferred {
	return NewPreferred(PreferredConfig{
		NodeID: "n1", Logger: slog.New(slog.DiscardHandler), Steady: time.Minute, Balance: true,
		Topics:    func() *fsm.Topics { return view },
		Connected: func(identity string) bool { return l.there[identity] },
		Full:      func() bool { return l.full },
		SaysFull:  func(identity string) bool { return identity == "n2.00000000" && l.full },
		Led: func() map[fsm.PartitionID]fsm.Term {
			return map[fsm.PartitionID]fsm.Term{{Topic: topic, Partition: 0}: 3, {Topic: topic, Partition: 1}: 3}
		},
		Give: func(id fsm.PartitionID, suitable func(string) bool) error {
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, identity := range []string{"n1.00000000", "n2.00000000", "n3.00000000"} {
				if suitable(identity) && identity != "n1.00000000" {
					l.given[id] = identity
					break
				}
			}
			if l.stays {
				return errors.New("nobody follows")
			}
			return nil
		},
		GiveCatalog: func(func(string) bool) error { return nil },
	})
}

func (l *leading) wants(t *testing.T, what string, want map[int32]string) {
	t.Helper()
	got := map[int32]string{}
	for id, to := range l.given {
		got[id.Partition] = to
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: given %v, want %v", what, got, want)
	}
	clear(l.given)
}

// TestALeadershipGoesToThePreferredLeader once that has been there for long enough, and is not
// offered again at once.
func TestALeadershipGoesToThePreferredLeader(t *testing.T) {
	view, topic := threeNodes(t)
	l := &leading{there: map[string]bool{"n1.00000000": true, "n3.00000000": true}, given: map[fsm.PartitionID]string{}, stays: true}
	all := l.of(view, topic)
	now := time.Now()
	all.turn(now)
	all.turn(now.Add(time.Hour))
	l.wants(t, "the preferred leader is not there", map[int32]string{})
	l.there["n2.00000000"] = true
	now = now.Add(time.Hour)
	all.turn(now)
	all.turn(now.Add(59 * time.Second))
	l.wants(t, "it has just come", map[int32]string{})
	all.turn(now.Add(time.Minute))
	l.wants(t, "it is there", map[int32]string{1: "n2.00000000"})
	all.turn(now.Add(time.Minute + time.Second))
	l.wants(t, "it did not take it", map[int32]string{})
}

// TestADrainingNodeGivesEverythingAway, to whoever is suitable.
func TestADrainingNodeGivesEverythingAway(t *testing.T) {
	view, topic := threeNodes(t, fsm.CatalogCommand{SetNodeState: &fsm.SetNodeState{ID: "n1", State: fsm.NodeDraining}})
	l := &leading{there: map[string]bool{"n1.00000000": true, "n3.00000000": true}, given: map[fsm.PartitionID]string{}}
	l.of(view, topic).turn(time.Now())
	l.wants(t, "draining", map[int32]string{0: "n3.00000000", 1: "n3.00000000"})
}

// TestWhatStaysAtADrainingNodeIsNotOfferedAtOnce, since nothing is proposed meanwhile. The pause
// begins when it has stayed, however long that took.
func TestWhatStaysAtADrainingNodeIsNotOfferedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		view, topic := threeNodes(t, fsm.CatalogCommand{SetNodeState: &fsm.SetNodeState{ID: "n1", State: fsm.NodeDraining}})
		l := &leading{there: map[string]bool{"n1.00000000": true, "n3.00000000": true}, given: map[fsm.PartitionID]string{}, stays: true}
		all := l.of(view, topic)
		catalog := 0
		all.cfg.GiveCatalog = func(func(string) bool) error {
			catalog++
			time.Sleep(2 * retryPause)
			return errNotTaken
		}
		both := map[int32]string{0: "n3.00000000", 1: "n3.00000000"}
		all.turn(time.Now())
		l.wants(t, "draining", both)
		all.turn(time.Now())
		time.Sleep(retryPause / 2)
		all.turn(time.Now())
		if l.wants(t, "asked in vain", map[int32]string{}); catalog != 1 {
			t.Errorf("the catalog was offered %d times", catalog)
		}
		time.Sleep(retryPause / 2)
		all.turn(time.Now())
		if l.wants(t, "again", both); catalog != 2 {
			t.Errorf("the catalog was offered %d times", catalog)
		}
	})
}

// TestALeaderWithAFullDiskGivesAway after a while, to those with room, and asks again after a
// pause.
func TestALeaderWithAFullDiskGivesAway(t *testing.T) {
	view, topic := threeNodes(t)
	l := &leading{there: map[string]bool{"n1.00000000": true, "n2.00000000": true, "n3.00000000": true}, given: map[fsm.PartitionID]string{}, full: true, stays: true}
	all := l.of(view, topic)
	now := time.Now()
	all.turn(now)
	l.wants(t, "just full", map[int32]string{})
	now = now.Add(giveWhenFullFor)
	all.turn(now)
	l.wants(t, "full", map[int32]string{0: "n3.00000000", 1: "n3.00000000"})
	all.turn(now.Add(retryPause / 2))
	l.wants(t, "asked in vain", map[int32]string{})
	all.turn(now.Add(retryPause * 3 / 2))
	l.wants(t, "again", map[int32]string{0: "n3.00000000", 1: "n3.00000000"})
}
