package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"testing"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// checked compares a whole partition, piece by piece.
func checked(t *testing.T, n *Node, id fsm.PartitionID) (all []*admin.PartitionCheck) {
	t.Helper()
	for from := fsm.Offset(-1); ; {
		c, err := n.CheckReplicas(within(t), id, from)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
		if c.To >= c.End {
			return all
		}
		if c.To <= from {
			t.Fatalf("it does not go on: %+v", c)
		}
		from = c.To
	}
}

func TestReplicasAreCompared(t *testing.T) { inBubble(t, testReplicasAreCompared) }

func testReplicasAreCompared(t *testing.T) {
	c := newTestCluster(t, 3)
	small(c, map[string]string{"segment.bytes": "20000"})
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	if got := checked(t, c.nodes[1].Node, id); got[0].To != 0 || got[0].DiffersAt != -1 || got[0].Replicas[2].State != "checked" {
		t.Errorf("nothing there: %+v", got[0])
	}
	c.fill(0, id, "record", 60)
	eventually(t, "all have it", func() error {
		for i, n := range c.nodes {
			if _, next := n.records(id).Bounds(); next != 60 {
				return fmt.Errorf("node %d: %d", i+1, next)
			}
		}
		return nil
	})
	got := checked(t, c.nodes[0].Node, id)[0]
	if got.From != 0 || got.To != 60 || got.End != 60 || got.DiffersAt != -1 {
		t.Fatalf("%+v", got)
	}
	for _, r := range got.Replicas {
		if r.State != "checked" || r.Hash == "" || r.Hash != got.Replicas[0].Hash || r.Bytes < 60*1000 {
			t.Errorf("%+v", r)
		}
	}
	// A part has another hash, and a range that is not there is refused.
	r := c.nodes[0].records(id)
	whole, err := r.Digest(within(t), 0, 60, 1<<40)
	part, err2 := r.Digest(within(t), 1, 60, 1<<40)
	little, err3 := r.Digest(within(t), 0, 60, 2500)
	if err != nil || err2 != nil || err3 != nil || whole.Sum == part.Sum || part.Bytes >= whole.Bytes || little.UpTo != 3 {
		t.Errorf("%v, %v, %v; up to %d", err, err2, err3, little.UpTo)
	}
	if _, err := r.Digest(within(t), 0, 61, 1<<40); outcome.Code(err) != outcome.ErrOffsetOutOfRange {
		t.Errorf("beyond the end: %v", err)
	}

	c.kill(2)
	got = checked(t, c.nodes[0].Node, id)[0]
	states := map[fsm.NodeID]string{}
	for _, r := range got.Replicas {
		states[r.Node] = r.State
	}
	if got.To != 60 || got.DiffersAt != -1 || states["n3"] != "offline" || states["n1"] != "checked" {
		t.Errorf("one is away: %+v", got)
	}
}

// A replica with other bytes, each with a good CRC, is told from the others.
func TestReplicasThatDifferAreTold(t *testing.T) { inBubble(t, testReplicasThatDifferAreTold) }

func testReplicasThatDifferAreTold(t *testing.T) {
	c := newTestCluster(t, 3)
	small(c, map[string]string{"segment.bytes": "20000"})
	for _, n := range c.nodes {
		n.cfg.ScrubRate = -1 // it would find it, too: the chain of CRCs is not mended
	}
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	c.fill(0, id, "record", 30)
	victim := (c.leaderOf(id) + 1) % 3
	eventually(t, "it has all, below a snapshot", func() error {
		r := c.nodes[victim].records(id)
		if _, next := r.Bounds(); next != 30 || r.Log.SnapshotIndex() < r.Log.Segments()[0].Last {
			return errors.New("not yet")
		}
		return nil
	})
	dir := c.nodes[victim].folder(id)
	c.kill(victim)
	forge(t, dir, 7)
	c.start(victim)
	c.ready()
	c.wantMember(victim, id, 30)
	got := checked(t, c.nodes[0].Node, id)[0]
	if got.DiffersAt != 7 || got.DiffersTo != 8 || got.To != 30 {
		t.Errorf("%+v, want a difference at 7", got)
	}
}

func (c *testCluster) wantMember(node int, id fsm.PartitionID, next fsm.Offset) {
	c.t.Helper()
	eventually(c.t, "the replica runs", func() error {
		r := c.nodes[node].records(id)
		if r == nil {
			return errors.New("it does not")
		}
		if _, end := r.Bounds(); end < next {
			return fmt.Errorf("it ends at %d", end)
		}
		return nil
	})
}

// forge changes the last byte but some of the record at an offset, and makes the
// entry's CRC fit (cluster/raftlog/frame.go).
func forge(t *testing.T, dir folder, offset uint64) {
	t.Helper()
	if editSegments(t, dir, func(data []byte) bool {
		head := entryHead(data)
		for pos, end := range entriesIn(data) {
			size := int(binary.LittleEndian.Uint32(data[pos+8:]))
			if payload := data[pos+head : pos+head+size]; size > 1000 && binary.BigEndian.Uint64(payload) == offset {
				payload[size-5] ^= 1
				binary.LittleEndian.PutUint32(data[pos:], crc32.Checksum(data[pos+4:end], crc32.MakeTable(crc32.Castagnoli)))
				return true
			}
		}
		return false
	}) {
		return
	}
	t.Fatalf("no record at offset %d", offset)
}
