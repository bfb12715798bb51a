package cluster

import (
	"context"
	"testing"

	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// behindCatalog is a catalog that is behind until it is awaited.
type behindCatalog struct {
	replica.Catalog
	now, newest *fsm.Topics
	reached     bool
}

func (c *behindCatalog) Topics() *fsm.Topics { return c.now }

func (c *behindCatalog) AwaitTopics(context.Context) bool {
	if c.reached {
		c.now = c.newest
	}
	return c.reached
}

// A partition that is not known here is gone for good only if it is not in the newest catalog
// either: the marker of a transaction is not to be let go of before.
func TestGoneForGood(t *testing.T) {
	id := fsm.PartitionID{Topic: fsm.TopicID{1}}
	none := fsm.NewCatalog().View()
	catalog := fsm.NewCatalog()
	node := fsm.Node{ID: "n1", Incarnation: "00000000", FeatureLevel: fsm.FeatureLevel}
	replicas := []fsm.NodeID{"n1"}
	topic := fsm.Topic{Name: "t", ID: id.Topic, ReplicationFactor: 1, Partitions: []fsm.Partition{{Replicas: replicas, Bootstrap: replicas}}}
	for i, command := range []fsm.CatalogCommand{
		{FormCluster: &fsm.FormCluster{ClusterID: "c", Nodes: []fsm.Node{node}}},
		{RegisterNode: &node},
		{CreateTopic: &fsm.CreateTopic{Topic: topic}},
	} {
		if r := catalog.Apply(fsm.Index(i+1), command.Encode()); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	for _, test := range []struct {
		name    string
		newest  *fsm.Topics
		reached bool
		want    outcome.Error
	}{
		{"deleted", none, true, outcome.ErrUnknownTopicOrPartition},
		{"created a moment ago", catalog.View(), true, outcome.ErrNoLeader},
		{"nobody knows", none, false, outcome.ErrNoLeader},
	} {
		c := &behindCatalog{now: none, newest: test.newest, reached: test.reached}
		if err := goneForGood(t.Context(), c, id); outcome.Code(err) != test.want {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
}

// A node that does not know yet that there are transactions says nothing of one that a client takes
// for final.
func TestTransactionsNotKnownYet(t *testing.T) {
	if err := transactionsKnown(fsm.NewCatalog().View()); !outcome.NotAppended(err) {
		t.Error(err)
	}
}
