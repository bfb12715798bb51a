package catalog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// placing is a catalog, and a placer for it. All nodes are there but those that are away, and all
// vote.
type placing struct {
	*plans
	pl *placer
}

func newPlacing(t *testing.T, nodes ...fsm.NodeID) *placing {
	x := &placing{plans: newPlans(t, Config{}, nodes...)}
	x.pl = &placer{partitions: 2, factor: 3, shards: 16,
		connected: func(identity string) bool { return !x.away[fsm.NodeID(strings.Split(identity, ".")[0])] },
		voters: func() (ids []string, err error) {
			for _, n := range x.m.view.Load().Nodes() {
				ids = append(ids, n.Identity())
			}
			return ids, nil
		},
		lost: x.lost,
	}
	return x
}

// make applies what a placer gives.
func (x *placing) make(command fsm.CatalogCommand, err error) error {
	if err != nil {
		return err
	}
	return x.log.raw(command.Encode()).Err
}

func (x *placing) create(call calls.CreateTopicRequest) error {
	return x.make(x.pl.createTopic(x.m.view.Load(), call))
}

func TestATopicIsCreatedOnce(t *testing.T) {
	x := newPlacing(t, "n1", "n2", "n3", "n4")
	call := calls.CreateTopicRequest{Spec: fsm.TopicSpec{Name: "a", Partitions: -1, ReplicationFactor: -1}, ID: fsm.TopicID{1}}
	check := call
	check.ValidateOnly = true
	if err := x.create(check); !errors.Is(err, errDone) {
		t.Errorf("only checked: %v", err)
	}
	if err := x.create(call); err != nil {
		t.Fatal(err)
	}
	topic, ok := x.m.view.Load().Lookup("a")
	if !ok || len(topic.Partitions) != 2 || topic.ReplicationFactor != 3 || len(topic.Partitions[0].Replicas) != 3 {
		t.Errorf("%+v", topic)
	}
	if err := x.create(call); !errors.Is(err, errDone) {
		t.Errorf("once more, by the same call: %v", err)
	}
	call.ID = fsm.TopicID{2}
	if err := x.create(call); outcome.Code(err) != outcome.ErrTopicExists {
		t.Errorf("by another call: %v", err)
	}
	more := calls.CreatePartitionsRequest{Topic: topic.ID, Count: 5, From: 2}
	if err := x.make(x.pl.createPartitions(x.m.view.Load(), more)); err != nil {
		t.Error(err)
	}
	if err := x.make(x.pl.createPartitions(x.m.view.Load(), more)); !errors.Is(err, errDone) {
		t.Errorf("once more, by the same call: %v", err)
	}
	more.From = 5
	if err := x.make(x.pl.createPartitions(x.m.view.Load(), more)); outcome.Code(err) != outcome.ErrInvalidPartitions {
		t.Errorf("as many as there are: %v", err)
	}
	if err := x.make(x.pl.createShards(x.m.view.Load())); err != nil {
		t.Error(err)
	}
	if err := x.make(x.pl.createShards(x.m.view.Load())); !errors.Is(err, errDone) {
		t.Errorf("shards once more: %v", err)
	}
}

func TestATopicThatCannotBeIsRefused(t *testing.T) {
	x := newPlacing(t, "n1", "n2", "n3")
	for name, test := range map[string]struct {
		spec fsm.TopicSpec
		away []fsm.NodeID
		want outcome.Error
	}{
		"too many replicas":            {fsm.TopicSpec{Partitions: 1, ReplicationFactor: 4}, nil, outcome.ErrInvalidReplicationFactor},
		"no replica":                   {fsm.TopicSpec{Partitions: 1, ReplicationFactor: 0}, nil, outcome.ErrInvalidReplicationFactor},
		"no partition":                 {fsm.TopicSpec{Partitions: 0, ReplicationFactor: 1}, nil, outcome.ErrInvalidPartitions},
		"too many partitions":          {fsm.TopicSpec{Partitions: fsm.MaxPartitions + 1, ReplicationFactor: 1}, nil, outcome.ErrInvalidPartitions},
		"no majority of them is there": {fsm.TopicSpec{Partitions: 1, ReplicationFactor: 3}, []fsm.NodeID{"n2", "n3"}, outcome.ErrInvalidReplicationFactor},
		"a majority of them is there":  {fsm.TopicSpec{Partitions: 1, ReplicationFactor: 3}, []fsm.NodeID{"n3"}, 0},
	} {
		clear(x.away)
		for _, id := range test.away {
			x.away[id] = true
		}
		test.spec.Name = "a"
		_, err := x.pl.createTopic(x.m.view.Load(), calls.CreateTopicRequest{Spec: test.spec, ID: fsm.TopicID{1}})
		if outcome.Code(err) != test.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	empty := new(ends).machine()
	if _, err := x.pl.createTopic(empty.view.Load(), calls.CreateTopicRequest{}); outcome.Code(err) != outcome.ErrNoLeader {
		t.Errorf("before the cluster is formed: %v", err)
	}
}

// Who is there leads, and gets what another one cannot have.
func TestNewReplicasGoToThoseThatAreThere(t *testing.T) {
	x := newPlacing(t, "n1", "n2", "n3", "n4", "n5")
	x.away["n1"] = true
	x.state("n2", fsm.NodeDraining, "")
	x.state("n3", fsm.NodeLeaving, "")
	for factor, never := range map[int][]fsm.NodeID{2: {"n1", "n2", "n3"}, 3: {"n1", "n3"}, 4: {"n3"}} {
		assignment, err := x.pl.place(x.m.view.Load(), 10, factor, fsm.TopicID{byte(factor)})
		if err != nil {
			t.Fatal(err)
		}
		for _, replicas := range assignment {
			for _, id := range never {
				if slices.Contains(replicas, id) {
					t.Errorf("%d replicas: %v", factor, replicas)
				}
			}
			if replicas[0] == "n1" {
				t.Errorf("%d replicas: n1 is to lead %v", factor, replicas)
			}
		}
	}
}

func TestWhatAnOperatorAsksForIsChecked(t *testing.T) {
	x := newPlacing(t, "n1", "n2", "n3", "n4")
	x.topic("three", []fsm.NodeID{"n1", "n2", "n3"})
	x.topic("pair", []fsm.NodeID{"n1", "n4"})
	x.topic("only", []fsm.NodeID{"n4"})
	for name, test := range map[string]struct {
		request admin.Request
		away    fsm.NodeID
		want    outcome.Error
	}{
		"a fourth replica":                         {admin.Request{Op: admin.OpReplicationFactor, Topic: "three", Factor: 4}, "", 0},
		"and n4 is away":                           {admin.Request{Op: admin.OpReplicationFactor, Topic: "three", Factor: 4}, "n4", outcome.ErrInvalidReplicationFactor},
		"no replica":                               {admin.Request{Op: admin.OpReplicationFactor, Topic: "three", Factor: 0}, "", outcome.ErrInvalidReplicationFactor},
		"of a topic that is not there":             {admin.Request{Op: admin.OpReplicationFactor, Topic: "four", Factor: 1}, "", outcome.ErrUnknownTopicOrPartition},
		"a third replica beside one of two":        {admin.Request{Op: admin.OpReplicationFactor, Topic: "pair", Factor: 3}, "n4", outcome.ErrInvalidReplicationFactor},
		"one replica of two, of which one is gone": {admin.Request{Op: admin.OpReplicationFactor, Topic: "pair", Factor: 1}, "n4", outcome.ErrInvalidReplicationFactor},
		"a node with the only replica":             {admin.Request{Op: admin.OpReplace, Node: "n4"}, "n4", outcome.ErrInvalidAssignment},
		"a node that can go":                       {admin.Request{Op: admin.OpDecommission, Node: "n3"}, "", 0},
		"a node that nobody can take over from":    {admin.Request{Op: admin.OpDecommission, Node: "n3"}, "n4", outcome.ErrInvalidAssignment},
		"for a successor that is away":             {admin.Request{Op: admin.OpReplace, Node: "n3", Successor: "n4"}, "n4", outcome.ErrInvalidAssignment},
		"for one that is there":                    {admin.Request{Op: admin.OpReplace, Node: "n3", Successor: "n4"}, "", 0},
		"a node that never was":                    {admin.Request{Op: admin.OpDrain, Node: "n9"}, "", outcome.ErrInvalidAssignment},
		"a drain":                                  {admin.Request{Op: admin.OpDrain, Node: "n3"}, "n3", 0},
		"something else":                           {admin.Request{Op: "paint", Node: "n3"}, "", outcome.ErrInvalidConfig},
	} {
		clear(x.away)
		x.away[test.away] = true
		if _, err := x.pl.administer(x.m.view.Load(), test.request); outcome.Code(err) != test.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Who reads that there are too few nodes, and has started enough, is to learn which of them are not
// reached.
func TestARefusalNamesWhoIsAway(t *testing.T) {
	x := newPlacing(t, "n1", "n2", "n3", "n4")
	x.topic("three", []fsm.NodeID{"n1", "n2", "n3"})
	x.away["n4"] = true
	_, err := x.pl.administer(x.m.view.Load(), admin.Request{Op: admin.OpDecommission, Node: "n3"})
	if err == nil || !strings.Contains(err.Error(), "does not reach n4 now") {
		t.Error(err)
	}
}

// Leaving twice is leaving once, and who has left is no node that never was.
func TestWhatIsDoneIsDone(t *testing.T) {
	x := newPlacing(t, "n1", "n2", "n3", "n4")
	leave := admin.Request{Op: admin.OpDecommission, Node: "n4"}
	if err := x.make(x.pl.administer(x.m.view.Load(), leave)); err != nil {
		t.Fatal(err)
	}
	if err := x.make(x.pl.administer(x.m.view.Load(), leave)); !errors.Is(err, errDone) {
		t.Errorf("while it leaves: %v", err)
	}
	x.after(0)
	if err := x.make(x.pl.administer(x.m.view.Load(), leave)); !errors.Is(err, errDone) {
		t.Errorf("when it has left: %v", err)
	}
	if err := x.make(x.pl.administer(x.m.view.Load(), admin.Request{Op: admin.OpDrain, Node: "n4"})); err == nil || !strings.Contains(err.Error(), "has left") {
		t.Errorf("drained: %v", err)
	}
}

// Of the replicas that are too many those go that are not there.
func TestAFactorIsLoweredByWhoIsMissedLeast(t *testing.T) {
	x := newPlacing(t, "n1", "n2", "n3")
	x.topic("a", []fsm.NodeID{"n1", "n2", "n3"})
	x.away["n2"] = true
	command, err := x.pl.administer(x.m.view.Load(), admin.Request{Op: admin.OpReplicationFactor, Topic: "a", Factor: 2})
	if err != nil {
		t.Fatal(err)
	}
	if to := fmt.Sprint(command.Reassign.Moves[0].To); to != "[n1 n3]" {
		t.Error(to)
	}
}
