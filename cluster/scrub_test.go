package cluster

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/fsm"
)

// A byte that flips far below a snapshot is read by nobody, not at a restart
// either. The scrub finds it, and the replica is rebuilt while the partition goes on.
func TestTheScrubFindsWhatNobodyReads(t *testing.T) { inBubble(t, testTheScrubFindsWhatNobodyReads) }

func testTheScrubFindsWhatNobodyReads(t *testing.T) {
	c := newTestCluster(t, 3)
	small(c, map[string]string{"segment.bytes": "20000"})
	for _, n := range c.nodes {
		n.cfg.ScrubRate = -1
	}
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	total := len(c.fill(0, id, "old", 100))
	victim := (c.leaderOf(id) + 1) % 3
	c.outOfWindow([]int{victim}, id, 0)
	eventually(t, "a snapshot above the first segments", func() error {
		r := c.nodes[victim].replica(id)
		if at := r.Log.SnapshotIndex(); at < r.Log.Segments()[3].Last {
			return errors.New("not yet")
		}
		return nil
	})
	dir := c.nodes[victim].folder(id)
	c.kill(victim)
	const mark = "old-5-xxxx"
	flip(t, dir, mark)
	c.start(victim)
	c.ready()
	eventually(t, "the replica runs: nobody has seen it", func() error {
		if c.nodes[victim].replica(id) == nil {
			return errors.New("not there")
		}
		return nil
	})
	if found(t, dir, mark) {
		t.Fatal("the byte is whole already")
	}
	c.kill(victim)
	c.nodes[victim].cfg.ScrubRate = 1 << 30
	c.start(victim)
	rebuilt := false
	eventually(t, "the damaged byte is gone from the disk", func() error {
		c.mustAppend((victim+1)%3, id, "goes on")
		total++
		if rebuilt = found(t, dir, mark); !rebuilt {
			return errors.New("not yet")
		}
		return nil
	})
	c.rebuilt(victim, id, fsm.Offset(total))
	if start, n := localValues(t, c.nodes[victim].Node, id); start != 0 || n != total {
		t.Errorf("it has %d records from offset %d on, want %d", n, start, total)
	}
}

// found reports whether a replica's segments hold the value.
func found(t *testing.T, dir folder, value string) bool {
	t.Helper()
	for _, path := range find(t, dir.disk, dir.path, "*.log") {
		data, err := vfs.ReadFile(dir.disk, path, 1<<30)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte(value)) {
			return true
		}
	}
	return false
}
