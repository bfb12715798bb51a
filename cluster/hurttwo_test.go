package cluster

import (
	"errors"
	"fmt"
	"testing"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/fsm"
)

// A check reads all replicas at once and so finds something damaged in two of three at the same
// time. They are rebuilt one after the other: closed together they would leave a group that nobody
// can lead.
func TestTwoOfThreeWithABadByteAreRebuilt(t *testing.T) {
	inBubble(t, testTwoOfThreeWithABadByteAreRebuilt)
}

func testTwoOfThreeWithABadByteAreRebuilt(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	c.mustAppend(0, id, "first")
	c.everywhere(id, 1)
	leader := c.leaderOf(id)
	old := map[int]*replica.Replica{}
	for i, n := range c.nodes {
		if i != leader {
			old[i] = n.replica(id)
		}
	}
	for i, r := range old {
		c.nodes[i].replicas.ReadFailed(r, fmt.Errorf("%w: by the test", raftlog.ErrDamaged), 0)
	}
	for i, r := range old {
		eventually(t, "the replica is replaced", func() error {
			if now := c.nodes[i].replica(id); now == nil || now == r {
				return errors.New("not yet")
			}
			return nil
		})
	}
	c.mustAppend(0, id, "second")
	for i := range old {
		c.rebuilt(i, id, 2)
	}
}
