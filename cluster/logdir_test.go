package cluster

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/fsm"
)

// What nodes leave behind, after retention, copies and kills, is good to the last
// byte, and every record is found again.
func TestLogDirOfStoppedNodes(t *testing.T) { inBubble(t, testLogDirOfStoppedNodes) }

func testLogDirOfStoppedNodes(t *testing.T) {
	c := newTestCluster(t, 3)
	c.onDisk()
	small(c, map[string]string{"segment.bytes": "20000", "retention.bytes": "100000"})
	c.startAll()
	topic := c.topic("a", 2, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	c.fill(0, id, "before", 50)
	away := (c.leaderOf(id) + 1) % 3
	there := []int{(away + 1) % 3, (away + 2) % 3}
	c.kill(away)
	total := fsm.Offset(50 + len(c.fill(there[0], id, "meanwhile", 200)))
	c.outOfWindow(there, id, 60)
	eventually(t, "retention", func() error {
		if start, _ := c.nodes[there[0]].replica(id).Bounds(); start == 0 {
			return errors.New("nothing is gone")
		}
		return nil
	})
	c.start(away)
	c.rebuilt(away, id, total)
	c.fill(there[0], id, "after", 30)
	total += 30
	c.rebuilt(away, id, total)
	if _, err := OpenLogDir(c.nodes[away].cfg.DataDir); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("of a running node: %v", err)
	}
	eventually(t, "retention on every node's disk", func() error {
		for _, node := range c.nodes {
			first, err := filepath.Glob(filepath.Join(node.partitionDir(id), "00000000000000000001-*.log"))
			if err != nil || len(first) > 0 {
				return fmt.Errorf("the first segment is there: %v, %w", first, err)
			}
		}
		return nil
	})
	for i := range c.nodes {
		c.kill(i)
		d, err := OpenLogDir(c.nodes[i].cfg.DataDir)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		names, bytes, err := d.Partitions()
		if err != nil || len(names) != 2 || bytes == 0 || d.JournalErr() != nil {
			t.Fatalf("node %d: %v, %d bytes, %v, %v", i+1, names, bytes, err, d.JournalErr())
		}
		for _, name := range names {
			found, bad := d.Verify(name, nil)
			if len(bad) > 0 {
				t.Errorf("node %d, %s: %v", i+1, name, bad)
			}
			if name != id.String() {
				continue
			}
			// The last records may not have come to a follower that was stopped.
			if found.Start <= 0 || fsm.Offset(found.Next) > total || fsm.Offset(found.Next) < total-30 {
				t.Errorf("node %d: %+v, want records up to %d", i+1, found, total)
			}
			l, err := d.Describe(name)
			if err != nil {
				t.Fatal(err)
			}
			next := found.Start
			for _, s := range l.Segments {
				err := d.Entries(name, s.Base, true, func(e DumpedEntry) error {
					for _, b := range e.Batches {
						if b.BaseOffset != next || len(b.List) != int(b.Records) || b.Error != "" || b.List[0].Value < 1000 {
							t.Errorf("node %d: %+v, want offset %d", i+1, b, next)
						}
						next = b.LastOffset + 1
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
			if next != found.Next {
				t.Errorf("node %d: the dump ends at %d, want %d", i+1, next, found.Next)
			}
		}
	}
}
