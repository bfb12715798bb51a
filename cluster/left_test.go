package cluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

func (c *testCluster) ends(i int) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("node %d ends", i+1), func() error {
		if err := c.nodes[i].Err(); !errors.Is(err, ErrLeft) {
			return fmt.Errorf("it goes on: %v", err)
		}
		return nil
	})
	c.kill(i)
}

// TestLeavingTwiceIsLeavingOnce: who asks again, since the first answer was lost or he does not
// trust it, is not told that there never was such a node.
func TestLeavingTwiceIsLeavingOnce(t *testing.T) { inBubble(t, testLeavingTwiceIsLeavingOnce) }

func testLeavingTwiceIsLeavingOnce(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.allKnow()
	for range 2 {
		c.administer(0, admin.Request{Op: admin.OpDecommission, Node: "n3"})
	}
	c.ends(2)
	for _, op := range []admin.Op{admin.OpDecommission, admin.OpReplace} {
		if err := c.nodes[1].Administer(within(t), admin.Request{Op: op, Node: "n3"}); err != nil {
			t.Errorf("%s once more: %v", op, err)
		}
		if err := c.nodes[1].Administer(within(t), admin.Request{Op: op, Node: "n9"}); outcome.Code(err) != outcome.ErrInvalidAssignment {
			t.Errorf("%s of a node that never was: %v", op, err)
		}
	}
	if err := c.nodes[1].Administer(within(t), admin.Request{Op: admin.OpDrain, Node: "n3"}); outcome.Code(err) != outcome.ErrInvalidAssignment || !strings.Contains(err.Error(), "has left") {
		t.Errorf("drained: %v", err)
	}
}

// TestANodeHearsThatItHasLeftFromThoseItNeverMet: while it was away, all that it knew of the
// cluster went.
func TestANodeHearsThatItHasLeftFromThoseItNeverMet(t *testing.T) {
	inBubble(t, testANodeHearsThatItHasLeftFromThoseItNeverMet)
}

func testANodeHearsThatItHasLeftFromThoseItNeverMet(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.allKnow()
	c.kill(2)
	for range 2 {
		c.start(c.add(0))
	}
	c.ready()
	for i, node := range []fsm.NodeID{"n3", "n1", "n2"} {
		c.administer(4, admin.Request{Op: admin.OpReplace, Node: node})
		if i > 0 {
			c.ends(i - 1)
		}
	}
	c.start(2)
	c.ends(2)
}

// TestANodeThatWasCutOffWhenItLeftEnds: it has not been restarted since, and nobody tells it
// anything any more.
func TestANodeThatWasCutOffWhenItLeftEnds(t *testing.T) {
	inBubble(t, testANodeThatWasCutOffWhenItLeftEnds)
}

func testANodeThatWasCutOffWhenItLeftEnds(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.allKnow()
	c.net.isolate(2, len(c.nodes), true)
	c.administer(0, admin.Request{Op: admin.OpReplace, Node: "n3"})
	eventually(t, "the others are without it", func() error {
		for i := range 2 {
			servers, err := c.nodes[i].catalog.Member().Servers()
			if _, there := c.nodes[i].Topics().Node("n3"); there || err != nil || len(servers) != 2 {
				return fmt.Errorf("%v, %v", servers, err)
			}
		}
		return nil
	})
	if err := c.nodes[2].Err(); err != nil {
		t.Fatalf("it has ended: %v", err)
	}
	c.net.isolate(2, len(c.nodes), false)
	c.ends(2)
}

// TestAStatusSaysWhetherItIsConfirmed: a node that does not know the newest catalog says so.
func TestAStatusSaysWhetherItIsConfirmed(t *testing.T) {
	inBubble(t, testAStatusSaysWhetherItIsConfirmed)
}

func testAStatusSaysWhetherItIsConfirmed(t *testing.T) {
	c := newTestCluster(t, 3)
	lone := c.start(0)
	status, err := lone.Status(within(t))
	if err != nil || status.Confirmed || status.Unconfirmed == "" {
		t.Errorf("before there is a cluster: %+v, %v", status, err)
	}
	c.start(1)
	c.start(2)
	c.ready()
	c.topic("known", 1, 3)
	eventually(t, "all vote, and it is confirmed", func() error {
		status, err := lone.Status(within(t))
		if err != nil || !status.Confirmed || len(status.CatalogVoters) != 3 || status.Unconfirmed != "" {
			return fmt.Errorf("%+v, %v", status, err)
		}
		return nil
	})
	c.kill(1)
	c.kill(2)
	if status, err = lone.Status(within(t)); err != nil || status.Confirmed || !strings.Contains(status.Unconfirmed, "may be old") || len(status.Nodes) != 3 {
		t.Errorf("without a majority: %+v, %v", status, err)
	}
	c.kill(0)
	again := c.start(0)
	if status, err = again.Status(within(t)); err != nil || status.Confirmed || !strings.Contains(status.Unconfirmed, "has just started") {
		t.Errorf("just started, and alone: %+v, %v", status, err)
	}
	c.start(1)
	c.ready()
	if status, err = again.Status(within(t)); err != nil || !status.Confirmed {
		t.Errorf("with a majority: %+v, %v", status, err)
	}
}
