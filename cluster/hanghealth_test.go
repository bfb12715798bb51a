package cluster

import (
	"fmt"
	"testing"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
)

// The only replica of a partition takes nothing while its disk hangs, and the operator sees that.
// With others that lead instead nothing is amiss.
func TestAPartitionWhoseDiskHangsIsOfflineIfNobodyElseLeads(t *testing.T) {
	inRealTime(t, testAPartitionWhoseDiskHangsIsOfflineIfNobodyElseLeads)
}

func testAPartitionWhoseDiskHangsIsOfflineIfNobodyElseLeads(t *testing.T) {
	c := newWatched(t, 3)
	disks := make([]*hangs, len(c.nodes))
	for i := range c.nodes {
		disks[i] = c.disk(i)
	}
	c.startAll()
	alone := fsm.PartitionID{Topic: c.topic("alone", 1, 1).ID}
	at := c.leaderOf(alone)
	others := fsm.PartitionID{Topic: c.topic("others", 1, 3).ID}
	disks[at].begin(func(op, _ string) bool { return op == "write" || op == "sync" || op == "allocate" })
	for _, id := range []fsm.PartitionID{alone, others} {
		go c.nodes[at].Append(within(t), id, batchList{prototest.Batch("in the disk that hangs")})
	}
	online := func(id fsm.PartitionID) bool {
		n := c.nodes[at].Node
		view := n.Topics()
		p, _ := view.Partition(id)
		return n.health.Online(id, p, n.nodesHere(view))
	}
	eventually(t, "the one without others is offline", func() error {
		if online(alone) || !online(others) {
			return fmt.Errorf("alone: %v, others: %v", online(alone), online(others))
		}
		return nil
	})
	disks[at].end()
	eventually(t, "it is online again", func() error {
		if !online(alone) || !online(others) {
			return fmt.Errorf("alone: %v, others: %v", online(alone), online(others))
		}
		return nil
	})
}
