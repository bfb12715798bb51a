package cluster

import (
	"fmt"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/cluster/identity"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/fsm"
)

// seedIdentity writes a node.json as a node leaves it that stopped in the middle
// of forming a cluster.
func seedIdentity(t *testing.T, n *testNode, file identity.File) {
	t.Helper()
	cfg := n.cfg
	dir, err := identity.Open(n.on(), cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	file.NodeID = cfg.NodeID
	if err := dir.Save(&file); err != nil {
		t.Fatal(err)
	}
	// a node has one before it looks for others
	votes, err := raftlog.OpenStable(dir.Join("votes"), raftlog.Options{FS: n.on()})
	if err != nil {
		t.Fatal(err)
	}
	if err := votes.Close(); err != nil {
		t.Fatal(err)
	}
}

// Every node may stop at any step of the formation; what stands in their
// node.json then is one of these.
func TestAFormationThatWasCutShortIsResumed(t *testing.T) {
	for name, step := range map[string]struct {
		granted [3]bool // the node has the proposal in its node.json
		adopted [3]bool // and the cluster's id
	}{
		"proposed, nobody asked":     {[3]bool{true, false, false}, [3]bool{}},
		"proposed, one has granted":  {[3]bool{true, true, false}, [3]bool{}},
		"all granted":                {[3]bool{true, true, true}, [3]bool{}},
		"adopted, not bootstrapped":  {[3]bool{true, true, true}, [3]bool{true, false, false}},
		"one follower adopted first": {[3]bool{true, true, true}, [3]bool{true, false, true}},
	} {
		runInBubble(t, name, func(t *testing.T) {
			c := newTestCluster(t, 3)
			const id = "0123456789abcdef0123456789abcdef"
			forming := identity.Proposal{ClusterID: id, Proposer: "n1.00000001"}
			for i := range c.nodes {
				forming.Nodes = append(forming.Nodes, fsm.Node{ID: c.nodes[i].cfg.NodeID, Incarnation: fmt.Sprintf("%08x", i+1)})
			}
			for i, node := range c.nodes {
				file := identity.File{Incarnation: fmt.Sprintf("%08x", i+1)}
				if step.granted[i] {
					file.Forming = &forming
				}
				if step.adopted[i] {
					file.ClusterID = id
				}
				seedIdentity(t, node, file)
			}
			for _, i := range []int{2, 1, 0} { // the proposer last
				c.start(i)
			}
			c.ready()
			for i, node := range c.nodes {
				if got := node.ClusterID(); got != id {
					t.Errorf("node %d is in cluster %s, the proposal was %s", i+1, got, id)
				}
			}
			c.topic("a", 1, 3)
		})
	}
}

func TestAGrantBindsANodeToItsProposer(t *testing.T) { inBubble(t, testAGrantBindsANodeToItsProposer) }

func testAGrantBindsANodeToItsProposer(t *testing.T) {
	c := newTestCluster(t, 2)
	other := identity.Proposal{ClusterID: strings.Repeat("ab", 16), Proposer: "zz.0000ffff", Nodes: []fsm.Node{{ID: "n2", Incarnation: "00000002"}, {ID: "zz", Incarnation: "0000ffff"}}}
	seedIdentity(t, c.nodes[1], identity.File{Incarnation: "00000002", Forming: &other})
	c.start(0)
	c.start(1)
	for i, want := range []string{"waiting for n2 to agree", "waiting for zz.0000ffff"} {
		eventually(t, "the reason", func() error {
			if err := c.nodes[i].Ready(); err == nil || !strings.Contains(err.Error(), want) {
				return fmt.Errorf("node %d says %v", i+1, err)
			}
			return nil
		})
	}
}

func TestNodesThatDisagreeAboutTheSizeWaitAndSayWhy(t *testing.T) {
	inBubble(t, testNodesThatDisagreeAboutTheSizeWaitAndSayWhy)
}

func testNodesThatDisagreeAboutTheSizeWaitAndSayWhy(t *testing.T) {
	c := newTestCluster(t, 2)
	c.nodes[1].cfg.BootstrapExpect = 3
	c.start(0)
	c.start(1)
	for i := range c.nodes {
		eventually(t, "the reason", func() error {
			if err := c.nodes[i].Ready(); err == nil || !strings.Contains(err.Error(), "--bootstrap-expect") {
				return fmt.Errorf("node %d says %v", i+1, err)
			}
			return nil
		})
	}
}

func TestTwoNodesOfOneNameWaitAndSayWhy(t *testing.T) {
	inBubble(t, testTwoNodesOfOneNameWaitAndSayWhy)
}

func testTwoNodesOfOneNameWaitAndSayWhy(t *testing.T) {
	c := newTestCluster(t, 2)
	c.nodes[1].cfg.NodeID = c.nodes[0].cfg.NodeID
	c.start(0)
	c.start(1)
	for i := range c.nodes {
		eventually(t, "the reason", func() error {
			if err := c.nodes[i].Ready(); err == nil || !strings.Contains(err.Error(), "two nodes are named n1") {
				return fmt.Errorf("node %d says %v", i+1, err)
			}
			return nil
		})
	}
}

// TestACopyOfADataDirectoryIsNoSecondNode: it would vote and acknowledge in the name of the first.
func TestACopyOfADataDirectoryIsNoSecondNode(t *testing.T) {
	inBubble(t, testACopyOfADataDirectoryIsNoSecondNode)
}

func testACopyOfADataDirectoryIsNoSecondNode(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("copied", 1, 3).ID}
	c.kill(2)
	copied := c.add(0)
	c.nodes[copied].cfg.NodeID = "n3"
	copyFolder(t, c.nodes[2].on(), c.nodes[2].cfg.DataDir, c.nodes[copied].on(), c.nodes[copied].cfg.DataDir)
	c.start(2)
	c.ready()
	c.start(copied)
	eventually(t, "the copy ends and says why", func() error {
		if err := c.nodes[copied].Err(); err == nil || !strings.Contains(err.Error(), "is a copy") {
			return fmt.Errorf("it goes on: %v", err)
		}
		return nil
	})
	c.kill(copied)
	if err := c.nodes[2].Err(); err != nil {
		t.Errorf("the first one: %v", err)
	}
	c.ready()
	// The copy's connections had the first one's name, and those that they took the place of may
	// end now.
	eventually(t, "the first one serves", func() error {
		_, err := c.append(2, id, "a")
		return err
	})
}
