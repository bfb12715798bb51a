package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/fsm"
)

// TestNodesRegisterWhatTheyKnow: who forms a cluster does not know it, so every node says it
// itself.
func TestNodesRegisterWhatTheyKnow(t *testing.T) { inBubble(t, testNodesRegisterWhatTheyKnow) }

func testNodesRegisterWhatTheyKnow(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	eventually(t, "all nodes have registered their level", func() error {
		view := c.nodes[0].Topics()
		for _, n := range view.Nodes() {
			if n.FeatureLevel != fsm.FeatureLevel {
				return fmt.Errorf("node %s: %d", n.ID, n.FeatureLevel)
			}
		}
		if view.FeatureLevel() != fsm.FeatureLevel {
			return fmt.Errorf("the cluster is at %d", view.FeatureLevel())
		}
		return nil
	})
}

// TestAnOldProgramStopsWhenTheFeatureLevelRises: it would not understand the catalog's log any
// more.
func TestAnOldProgramStopsWhenTheFeatureLevelRises(t *testing.T) {
	inBubble(t, testAnOldProgramStopsWhenTheFeatureLevelRises)
}

func testAnOldProgramStopsWhenTheFeatureLevelRises(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	n := c.nodes[0]
	newer := n.self()
	newer.FeatureLevel = fsm.FeatureLevel + 1
	eventually(t, "the level rises", func() error {
		// The node registers itself as it is as soon as it sees that it is not.
		if _, err := n.catalog.Change(within(t), fsm.CatalogCommand{RegisterNode: &newer}); err != nil {
			return err
		}
		_, err := n.catalog.Change(within(t), fsm.CatalogCommand{RaiseFeatureLevel: &fsm.RaiseFeatureLevel{FeatureLevel: fsm.FeatureLevel + 1}})
		if errors.Is(err, fsm.ErrNewer) {
			// it has risen, and who asked is told by the same program why that does not go on
			return nil
		}
		return err
	})
	<-n.Failed()
	if err := n.Err(); !strings.Contains(err.Error(), "start a newer one") {
		t.Errorf("it stopped with: %v", err)
	}
}

// TestLogsAreOfFormat2FromLevel3On: no node can go back to a program that does not read it then.
func TestLogsAreOfFormat2FromLevel3On(t *testing.T) { inBubble(t, testLogsAreOfFormat2FromLevel3On) }

func testLogsAreOfFormat2FromLevel3On(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	c.allKnow()
	id := fsm.PartitionID{Topic: c.topic("new", 1, 1).ID}
	c.mustAppend(c.leaderOf(id), id, "a")
	begins := func(dir, pattern, with string) {
		t.Helper()
		names := find(t, c.nodes[0].on(), c.nodes[0].dir.Join(dir), pattern)
		if len(names) == 0 {
			t.Fatalf("%s has no %s", dir, pattern)
		}
		for _, name := range names {
			b := contents(t, c.nodes[0].on(), name)
			if !bytes.HasPrefix(b, []byte(with)) {
				t.Errorf("%s does not begin with %q", name, with)
			}
		}
	}
	begins("partitions/"+id.String(), "*.log", "TRMSEG\x00\x02")
	c.kill(0)
	c.start(0)
	begins("journal", "*.journal", "TRMJNL\x00\x02")
	c.mustAppend(c.leaderOf(id), id, "b")
}
