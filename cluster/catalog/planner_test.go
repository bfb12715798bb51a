package catalog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/fsm"
)

// plans is a catalog whose changes are applied at once, and a planner of it. Moves are carried out
// when settle is called.
type plans struct {
	t    *testing.T
	m    *machine
	log  *log
	p    *planner
	now  time.Time
	away map[fsm.NodeID]bool

	without  map[fsm.NodeID]bool // the cluster was recovered without them
	obstacle string              // why no node gives up its vote
	gave     []string            // who gave up its vote
	err      error               // what changes come to
}

func newPlans(t *testing.T, cfg Config, nodes ...fsm.NodeID) *plans {
	cfg.Logger = slog.New(slog.DiscardHandler)
	x := &plans{t: t, m: new(ends).machine(), now: time.Unix(1e9, 0), away: map[fsm.NodeID]bool{}}
	x.log = &log{to: x.m}
	x.log.formed(t, nodes...)
	x.p = newPlanner(x, &cfg)
	return x
}

func (x *plans) Change(_ context.Context, command fsm.CatalogCommand) (calls.CatalogReply, error) {
	if x.err != nil {
		return calls.CatalogReply{}, x.err
	}
	result := x.log.raw(command.Encode())
	return calls.CatalogReply{Index: fsm.Index(x.log.index)}, result.Err
}

func (x *plans) giveUpVote(_ context.Context, node fsm.Node) (string, error) {
	if x.obstacle == "" {
		x.gave = append(x.gave, string(node.ID))
	}
	return x.obstacle, x.err
}

func (x *plans) lost(*fsm.Topics) map[fsm.NodeID]bool { return x.without }

// topic creates a topic with these replicas.
func (x *plans) topic(name string, assignment ...[]fsm.NodeID) fsm.TopicID {
	x.t.Helper()
	topic := fsm.Topic{Name: name, ID: fsm.TopicID{byte(x.log.index), 1}, ReplicationFactor: len(assignment[0]), Partitions: formedOn(assignment)}
	x.log.add(x.t, fsm.CatalogCommand{CreateTopic: &fsm.CreateTopic{Topic: topic}})
	return topic.ID
}

func (x *plans) state(id fsm.NodeID, state fsm.NodeState, successor fsm.NodeID) {
	x.t.Helper()
	x.log.add(x.t, fsm.CatalogCommand{SetNodeState: &fsm.SetNodeState{ID: id, State: state, Successor: successor}})
}

// after plans once, that much later.
func (x *plans) after(d time.Duration) {
	x.now = x.now.Add(d)
	view := x.m.view.Load()
	x.p.plan(x.t.Context(), x.now, view, nodesHere(view, func(identity string) bool {
		for id := range x.away {
			if identity == node(id).Identity() {
				return !x.away[id]
			}
		}
		return true
	}))
}

// settle carries out what is planned, and says how many partitions were on the move.
func (x *plans) settle() (moved int) {
	x.t.Helper()
	eachPartition(x.m.view.Load(), func(topic *fsm.Topic, i int32, p *fsm.Partition) {
		if len(p.Leaving) > 0 {
			moved++
			x.log.add(x.t, fsm.CatalogCommand{Settle: &fsm.Settle{Topic: topic.ID, Partition: i, Nodes: p.Leaving, Replicas: p.Replicas}})
		}
	})
	return moved
}

// holds counts the replicas of a node.
func (x *plans) holds(id fsm.NodeID) (n int) {
	eachPartition(x.m.view.Load(), func(_ *fsm.Topic, _ int32, p *fsm.Partition) {
		n += boolInt(p.Holds(id))
	})
	return n
}

func times(n int, replicas ...fsm.NodeID) (out [][]fsm.NodeID) {
	for range n {
		out = append(out, replicas)
	}
	return out
}

// A node that is gone keeps its replicas for as long as it may come back, and not longer.
func TestReplicasOfADeadNodeGoToOthers(t *testing.T) {
	x := newPlans(t, Config{ReplaceAfter: time.Minute}, "n1", "n2", "n3", "n4")
	x.topic("a", times(3, "n1", "n2", "n3")...)
	x.away["n3"] = true
	x.after(0)
	x.after(59 * time.Second)
	if x.settle() > 0 {
		t.Error("it was away for less than a minute")
	}
	x.away["n3"] = false
	x.after(0)
	x.away["n3"] = true
	x.after(time.Minute)
	x.after(59 * time.Second)
	if x.settle() > 0 {
		t.Error("it was there in between")
	}
	x.after(time.Second)
	if moved := x.settle(); moved != 3 || x.holds("n3") != 0 || x.holds("n4") != 3 {
		t.Errorf("%d moved: n3 holds %d, n4 %d", moved, x.holds("n3"), x.holds("n4"))
	}
	if len(x.m.view.Load().Nodes()) != 4 || len(x.gave) > 0 {
		t.Error("it was taken out of the cluster, which nobody asked for")
	}
}

func TestReplicasStayWhereNobodyIsToReplaceThem(t *testing.T) {
	x := newPlans(t, Config{ReplaceAfter: -1}, "n1", "n2", "n3", "n4")
	x.topic("a", times(3, "n1", "n2", "n3")...)
	x.away["n3"] = true
	x.after(0)
	x.after(1000 * time.Hour)
	if x.settle() > 0 {
		t.Error("they moved")
	}
}

// A node that is to leave gives up its replicas, a few at a time, then its vote, and is then taken
// out.
func TestANodeLeavesWhenItHoldsNothing(t *testing.T) {
	x := newPlans(t, Config{}, "n1", "n2", "n3", "n4")
	x.topic("a", times(20, "n1", "n2", "n3")...)
	x.state("n3", fsm.NodeLeaving, "")
	for turn := range 3 {
		x.after(time.Second)
		x.after(time.Second) // nothing more as long as those are on the move
		if moved, want := x.settle(), min(maxMoving, 20-maxMoving*turn); moved != want {
			t.Errorf("turn %d: %d moved, want %d", turn, moved, want)
		}
	}
	if len(x.gave) > 0 {
		t.Error("it gave up its vote while it held replicas")
	}
	x.obstacle = "it is needed"
	x.after(time.Second)
	if _, there := x.m.view.Load().Node("n3"); !there || x.p.said != x.obstacle {
		t.Errorf("it has left, or nobody says why not: %q", x.p.said)
	}
	x.obstacle, x.err = "", errors.New("no leader")
	x.after(time.Second)
	x.err = nil
	x.after(time.Second)
	if _, there := x.m.view.Load().Node("n3"); there || !slices.Contains(x.gave, "n3") {
		t.Error("it has not left")
	}
	if x.holds("n4") != 20 {
		t.Errorf("n4 holds %d", x.holds("n4"))
	}
}

func TestASuccessorTakesItAll(t *testing.T) {
	x := newPlans(t, Config{}, "n1", "n2", "n3", "n4", "n5")
	x.topic("a", times(4, "n1", "n2", "n3")...)
	x.state("n3", fsm.NodeLeaving, "n5")
	x.after(time.Second)
	x.settle()
	if x.holds("n5") != 4 || x.holds("n4") != 0 {
		t.Errorf("n4 holds %d, n5 %d", x.holds("n4"), x.holds("n5"))
	}
}

// No step is planned that would leave a partition without a majority that is there, or that nobody
// could carry out.
func TestNoPlanLeavesAPartitionWithoutAMajority(t *testing.T) {
	x := newPlans(t, Config{ReplaceAfter: time.Minute}, "n1", "n2", "n3", "n4")
	x.topic("a", []fsm.NodeID{"n1", "n2"})
	x.away["n2"] = true
	x.after(0)
	x.after(time.Minute)
	if x.settle() > 0 || x.p.said != "a-0 has no majority of its replicas: n2 not there" {
		t.Errorf("it moved, or nobody says why not: %q", x.p.said)
	}
	x = newPlans(t, Config{ReplaceAfter: time.Minute}, "n1", "n2", "n3")
	x.topic("a", []fsm.NodeID{"n1", "n2", "n3"})
	x.away["n3"] = true
	x.after(0)
	x.after(time.Minute)
	if x.settle() > 0 || x.p.said != "node n3 holds a replica of a-0, and no other node is there that has none" {
		t.Errorf("it moved, or nobody says why not: %q", x.p.said)
	}
}

// Replicas move for the sake of balance when all nodes have been there for a while, and nothing
// else is on the move.
func TestBalanceWaitsUntilAllAreThere(t *testing.T) {
	for _, off := range []bool{false, true} {
		t.Run(fmt.Sprint("off: ", off), func(t *testing.T) {
			x := newPlans(t, Config{NoAutoBalance: off}, "n1", "n2", "n3", "n4")
			x.topic("a", times(8, "n1", "n2", "n3")...)
			x.away["n2"] = true
			x.after(0)
			x.after(settledFor)
			x.away["n2"] = false
			x.after(0)
			x.after(settledFor - time.Second)
			if x.settle() > 0 {
				t.Error("too early")
			}
			x.after(time.Second)
			if off {
				if x.settle() > 0 {
					t.Error("nobody asked for it")
				}
				return
			}
			for range 5 {
				x.settle()
				x.after(time.Second)
			}
			for _, id := range []fsm.NodeID{"n1", "n2", "n3", "n4"} {
				if n := x.holds(id); n != 6 {
					t.Errorf("%s holds %d", id, n)
				}
			}
		})
	}
}

// A leader that was not one in between does not know since when a node is away.
func TestANewLeaderBeginsToCount(t *testing.T) {
	x := newPlans(t, Config{ReplaceAfter: time.Minute}, "n1", "n2", "n3", "n4")
	x.topic("a", times(1, "n1", "n2", "n3")...)
	x.away["n3"] = true
	x.after(0)
	x.p.forget()
	x.after(time.Minute)
	if x.settle() > 0 {
		t.Error("it counts from before")
	}
	x.after(time.Minute)
	if x.settle() != 1 {
		t.Error("it does not count")
	}
}
