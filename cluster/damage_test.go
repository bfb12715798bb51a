package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/fsm"
)

// A byte that flips on a replica's disk is found by its CRC and never served. The
// replica is rebuilt from the others while the partition goes on.
func TestADamagedRecordIsNeverServed(t *testing.T) { inBubble(t, testADamagedRecordIsNeverServed) }

func testADamagedRecordIsNeverServed(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	const value = "a value that is easy to find on the disk"
	c.mustAppend(0, id, value)
	// else a follower may take both in one write, and one that is torn is no damage
	c.everywhere(id, 1)
	c.mustAppend(0, id, "the next one")
	want := []string{value, "the next one"}
	c.wantEverywhere(id, want)
	victim := (c.leaderOf(id) + 1) % 3
	c.everywhere(id, 2)
	dir := c.nodes[victim].folder(id)
	c.kill(victim)
	flip(t, dir, value)
	c.start(victim)
	c.ready()
	// The replica leaves the group, is rebuilt from the others and votes again.
	c.rebuilt(victim, id, 2)
	c.wantEverywhere(id, want)
	slice, ok, err := c.nodes[victim].records(id).ReadHere(0, 1<<20, fsm.ReadUncommitted)
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
			if _, end := r.Bounds(); end < next {
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
		if _, end := r.Bounds(); end < next {
			return fmt.Errorf("it ends at %d", end)
		}
		future := r.Member.Raft.GetConfiguration()
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
func TestAMajorityDamagedIsRefused(t *testing.T) { inBubble(t, testAMajorityDamagedIsRefused) }

func testAMajorityDamagedIsRefused(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	const value = "a value that is easy to find on the disk"
	c.mustAppend(0, id, value)
	// else a follower may take both in one write, and one that is torn is no damage
	c.everywhere(id, 1)
	c.mustAppend(0, id, "the next one")
	c.everywhere(id, 2)
	dirs := map[int]folder{}
	for i, n := range c.nodes {
		dirs[i] = n.folder(id)
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
			err := c.nodes[i].replicas.WhyBroken(id)
			if err == nil || !strings.Contains(err.Error(), "needed to rebuild") {
				return fmt.Errorf("node %d: %v", i, err)
			}
		}
		return nil
	})
	for i, n := range c.nodes {
		if slice, err := n.Read(within(t), id, 0, 1<<20, fsm.ReadUncommitted); err == nil && bytes.Contains(slice.Batches, []byte("A"+value[1:])) {
			t.Errorf("node %d serves what was damaged", i)
		}
	}
}

// What a follower copies goes behind its own segments. If the last entry of one is damaged, which
// an opening does not notice as it is covered by the snapshot, the replica is made anew instead of
// being copied again for ever.
func TestACopyThatMeetsDamageIsMadeAnew(t *testing.T) {
	inBubble(t, testACopyThatMeetsDamageIsMadeAnew)
}

func testACopyThatMeetsDamageIsMadeAnew(t *testing.T) {
	c := newTestCluster(t, 3)
	small(c, map[string]string{"segment.bytes": "20000"})
	for _, n := range c.nodes {
		n.cfg.ScrubRate = -1 // it would find the damage, too
	}
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	want := c.fill(0, id, "before", 50)
	away := (c.leaderOf(id) + 1) % 3
	there := []int{(away + 1) % 3, (away + 2) % 3}
	c.everywhere(id, 50)
	dir := c.nodes[away].folder(id)
	var covered uint64
	eventually(t, "a snapshot covers its first segment", func() error {
		log := c.nodes[away].records(id).Log
		if covered = log.Segments()[0].Last; log.SnapshotIndex() <= covered {
			return errors.New("not yet")
		}
		return nil
	})
	c.kill(away)
	want = append(want, c.fill(there[0], id, "meanwhile", 150)...)
	c.outOfWindow(there, id, 60)
	if !flipIndex(t, dir, covered) {
		t.Fatalf("no entry %d", covered)
	}
	c.start(away)
	c.rebuilt(away, id, fsm.Offset(len(want)))
	c.wantEverywhere(id, want)
}

// flipIndex changes the index in the header of an entry; false: there is no such entry.
func flipIndex(t *testing.T, dir folder, index uint64) bool {
	t.Helper()
	return editSegments(t, dir, func(data []byte) bool {
		for pos := range entriesIn(data) {
			if at := data[pos:]; binary.LittleEndian.Uint64(at[16:]) == index {
				at[20] ^= 16
				return true
			}
		}
		return false
	})
}

// editSegments writes back the first segment of a stopped node's replica that edit changes; false:
// there is none.
func editSegments(t *testing.T, dir folder, edit func(data []byte) bool) bool {
	t.Helper()
	emptyJournal(t, dir)
	files := find(t, dir.disk, dir.path, "*.log")
	if len(files) == 0 {
		t.Fatalf("%s is empty", dir.path)
	}
	for _, path := range files {
		if data := contents(t, dir.disk, path); edit(data) {
			overwrite(t, dir.disk, path, data, 0)
			return true
		}
	}
	return false
}

// entriesIn gives where each entry of a segment file begins and ends (raftlog/FORMAT.md).
func entriesIn(data []byte) iter.Seq2[int, int] {
	return func(yield func(pos, end int) bool) {
		head := entryHead(data)
		for pos := 64; pos+head <= len(data); {
			end := pos + head + int(binary.LittleEndian.Uint32(data[pos+8:])) + int(binary.LittleEndian.Uint16(data[pos+12:]))
			if end > len(data) || !yield(pos, end) {
				return
			}
			pos = (end + 7) &^ 7
		}
	}
}

// entryHead gives how many bytes stand in front of an entry's data, by the format of its segment.
func entryHead(segment []byte) int {
	if segment[7] == 1 {
		return 40
	}
	return 48
}

// emptyJournal takes away what the journal of a stopped node still has of the log in that folder,
// and would bring back.
func emptyJournal(t *testing.T, dir folder) {
	t.Helper()
	files := find(t, dir.disk, filepath.Join(dir.path, "..", "..", "journal"), "*")
	if len(files) == 0 {
		t.Fatal("there is no journal")
	}
	for _, f := range files {
		truncate(t, dir.disk, f, 0)
	}
}

// flip changes one byte of a value in a replica's segments.
func flip(t *testing.T, dir folder, value string) {
	t.Helper()
	if editSegments(t, dir, func(data []byte) bool {
		at := bytes.Index(data, []byte(value))
		if at >= 0 {
			data[at] ^= 0x20
		}
		return at >= 0
	}) {
		return
	}
	t.Fatal("the record is not on the disk as it was written")
}
