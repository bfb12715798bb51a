package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/fsm"
)

// A byte that flips on a replica's disk is found by its CRC and never served. The
// replica is rebuilt from the others while the partition goes on.
func TestADamagedRecordIsNeverServed(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	const value = "a value that is easy to find on the disk"
	c.mustAppend(0, id, value)
	c.everywhere(id, 1) // else a follower may take both in one write, and one that is torn is no damage
	c.mustAppend(0, id, "the next one")
	want := []string{value, "the next one"}
	c.wantEverywhere(id, want)
	victim := (c.leaderOf(id) + 1) % 3
	c.everywhere(id, 2)
	dir := c.nodes[victim].partitionDir(id)
	c.kill(victim)
	flip(t, dir, value)
	c.start(victim)
	c.ready()
	// The replica leaves the group, is rebuilt from the others and votes again.
	c.rebuilt(victim, id, 2)
	c.wantEverywhere(id, want)
	slice, ok, err := c.nodes[victim].records(id).readCommitted(0, 1<<20)
	if err != nil || !ok || !bytes.Contains(slice.Batches, []byte(value)) {
		t.Errorf("the rebuilt replica serves %d bytes, %v, %v", len(slice.Batches), ok, err)
	}
}

// everywhere waits until every replica has records up to next.
func (c *testCluster) everywhere(id fsm.PartitionID, next fsm.Offset) {
	c.t.Helper()
	eventually(c.t, "all replicas have it", func() error {
		for i, n := range c.nodes {
			r := n.records(id)
			if r == nil {
				return fmt.Errorf("node %d has no replica", i)
			}
			if _, end := r.bounds(); end < next {
				return fmt.Errorf("node %d ends at %d", i, end)
			}
		}
		return nil
	})
}

// rebuilt waits until a replica has records up to next, and a vote.
func (c *testCluster) rebuilt(node int, id fsm.PartitionID, next fsm.Offset) {
	c.t.Helper()
	eventually(c.t, "the replica is rebuilt", func() error {
		r := c.nodes[node].records(id)
		if r == nil {
			return errors.New("it does not run")
		}
		if _, end := r.bounds(); end < next {
			return fmt.Errorf("it ends at %d", end)
		}
		future := r.group.raft.GetConfiguration()
		if err := future.Error(); err != nil {
			return err
		}
		for _, s := range future.Configuration().Servers {
			if string(s.ID) == c.nodes[node].identity && s.Suffrage == raft.Voter {
				return nil
			}
		}
		return errors.New("it has no vote")
	})
}

// With a majority damaged nobody invents what is lost: the partition says so and
// serves no damaged byte.
func TestAMajorityDamagedIsRefused(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	const value = "a value that is easy to find on the disk"
	c.mustAppend(0, id, value)
	c.everywhere(id, 1) // else a follower may take both in one write, and one that is torn is no damage
	c.mustAppend(0, id, "the next one")
	c.everywhere(id, 2)
	dirs := map[int]string{}
	for i, n := range c.nodes {
		dirs[i] = n.partitionDir(id)
	}
	for i := range c.nodes {
		c.kill(i)
	}
	flip(t, dirs[0], value)
	flip(t, dirs[1], value)
	for i := range c.nodes {
		c.start(i)
	}
	eventually(t, "two replicas stay out", func() error {
		for i := range 2 {
			n := c.nodes[i]
			n.mu.Lock()
			err := n.broken[id]
			n.mu.Unlock()
			if err == nil || !strings.Contains(err.Error(), "needed to rebuild") {
				return fmt.Errorf("node %d: %v", i, err)
			}
		}
		return nil
	})
	for i, n := range c.nodes {
		if slice, err := n.Read(within(t), id, 0, 1<<20); err == nil && bytes.Contains(slice.Batches, []byte("A"+value[1:])) {
			t.Errorf("node %d serves what was damaged", i)
		}
	}
}

// emptyJournal takes away what the journal of a stopped node still has of the log in that folder, and would bring back.
func emptyJournal(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "..", "..", "journal", "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if err := os.Truncate(f, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// flip changes one byte of a value in a replica's segments.
func flip(t *testing.T, dir, value string) {
	t.Helper()
	emptyJournal(t, dir)
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(data, []byte(value)); at >= 0 {
			data[at] ^= 0x20
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("the record is not on the disk as it was written")
}
