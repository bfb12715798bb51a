package cluster

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/trimaran-io/trimaran/fsm"
)

// A byte that flips on a replica's disk is found by the batch's CRC when it is
// read: the leader answers instead, and if this replica is the only one, the
// reader gets an error and never the damaged record.
func TestADamagedRecordIsNeverServed(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	const value = "a value that is easy to find on the disk"
	c.mustAppend(0, id, value)
	c.mustAppend(0, id, "the next one")
	want := []string{value, "the next one"}
	c.wantEverywhere(id, want)
	victim := (c.leaderOf(id) + 1) % 3
	eventually(t, "the follower has it", func() error {
		if _, next := c.nodes[victim].replica(id).bounds(); next != 2 {
			return errors.New("not yet")
		}
		return nil
	})
	path := filepath.Join(c.nodes[victim].partitionDir(id), "raft.db")
	c.kill(victim)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.ReplaceAll(data, []byte(value), []byte("A"+value[1:]))
	if bytes.Equal(flipped, data) {
		t.Fatal("the record is not on the disk as it was written")
	}
	if err := os.WriteFile(path, flipped, 0o600); err != nil {
		t.Fatal(err)
	}
	c.start(victim)
	c.ready()
	eventually(t, "the damaged replica runs", func() error {
		if _, next := c.nodes[victim].replica(id).bounds(); next != 2 {
			return errors.New("not yet")
		}
		return nil
	})
	c.wantEverywhere(id, want) // through the damaged replica's node, too
	if _, _, err := c.nodes[victim].replica(id).readCommitted(0, 1<<20); fsm.Code(err) != fsm.ErrStorage {
		t.Errorf("the damaged replica itself answers %v", err)
	}
	for i := range c.nodes {
		if i != victim {
			c.kill(i)
		}
	}
	if slice, err := c.nodes[victim].Read(within(t), id, 0, 1<<20); err == nil {
		t.Errorf("the damaged replica alone serves %d bytes", len(slice.Batches))
	}
}
