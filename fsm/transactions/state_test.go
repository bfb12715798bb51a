package transactions

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/trimaran-io/trimaran/fsm"
)

// drawCommand draws a command about a few ids, so that they meet. Revisions are often those that
// are there.
func drawCommand(t *rapid.T, s *State) []byte {
	var c Changes
	for range rapid.IntRange(0, 4).Draw(t, "records") {
		id := rapid.SampledFrom([]string{"a", "b", "an id that is longer"}).Draw(t, "id")
		_, revision := s.LookUp(id)
		if rapid.IntRange(0, 9).Draw(t, "stale") == 0 {
			revision = rapid.Uint64Range(0, s.revision+1).Draw(t, "revision")
		}
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0, 1:
			next := s.revision + rapid.Uint64Range(1, 3).Draw(t, "next")
			c.Set(id, revision, next, drawProducer(t))
			if rapid.Bool().Draw(t, "and add") {
				c.Add(id, next, drawScope(t))
			}
		case 2, 3:
			c.Add(id, revision, drawScope(t))
		case 4:
			c.Delete(id, revision)
		}
	}
	return Encode(c)
}

func drawProducer(t *rapid.T) Producer {
	return Producer{
		ProducerID: rapid.Int64().Draw(t, "pid"), Previous: rapid.Int64().Draw(t, "previous"), Next: rapid.Int64().Draw(t, "next"),
		Epoch: rapid.Int16().Draw(t, "epoch"), LastEpoch: rapid.Int16().Draw(t, "last"), Number: rapid.Int32().Draw(t, "number"),
		Timeout: rapid.Int32().Draw(t, "timeout"), Version: rapid.Byte().Draw(t, "version"),
		Phase: rapid.SampledFrom([]Phase{Empty, Ongoing, Ongoing, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort}).Draw(t, "phase"),
		Start: rapid.Int64().Draw(t, "start"), Updated: rapid.Int64().Draw(t, "updated"),
	}
}

func drawScope(t *rapid.T) (s Scope) {
	for range rapid.IntRange(0, 4).Draw(t, "partitions") {
		s.Partitions = append(s.Partitions, fsm.PartitionID{
			Topic: fsm.TopicID{rapid.Byte().Draw(t, "topic") % 3}, Partition: rapid.Int32Range(0, 3).Draw(t, "partition"),
		})
	}
	for range rapid.IntRange(0, 2).Draw(t, "groups") {
		s.Groups = append(s.Groups, rapid.SampledFrom([]string{"g", "h", "group"}).Draw(t, "group"))
	}
	return s
}

// TestStateReplays: what is replayed is equal byte for byte, it does not matter where a replica
// began from a snapshot, and nothing is left when all ids are gone.
func TestStateReplays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all, begun := NewState(), NewState()
		for range rapid.IntRange(1, 30).Draw(t, "commands") {
			command := drawCommand(t, all)
			for _, s := range []*State{all, begun} {
				if err := s.Apply(command); err != nil {
					t.Fatal(err)
				}
			}
			checkInvariants(t, all)
			if !rapid.Bool().Draw(t, "restart") {
				continue
			}
			snapshot := begun.Snapshot()
			restored, err := RestoreState(snapshot)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(restored.ids, begun.ids) || !reflect.DeepEqual(restored.open, begun.open) {
				t.Fatalf("a restored state is another one: %x", snapshot)
			}
			begun = restored
		}
		if !bytes.Equal(all.Snapshot(), begun.Snapshot()) {
			t.Fatalf("replayed %x, restored %x", all.Snapshot(), begun.Snapshot())
		}
		if all.bytes != begun.bytes {
			t.Fatalf("%d bytes are accounted for, %d after restarts", all.bytes, begun.bytes)
		}
		for _, id := range all.IDs() {
			_, revision := all.LookUp(id)
			var c Changes
			c.Delete(id, revision)
			if err := all.Apply(Encode(c)); err != nil {
				t.Fatal(err)
			}
		}
		if all.bytes != 0 || len(all.open) != 0 {
			t.Fatalf("nothing takes %d bytes, %d are open", all.bytes, len(all.open))
		}
	})
}

func checkInvariants(t *rapid.T, s *State) {
	for id, stored := range s.ids {
		open := stored.producer.Phase.Open()
		if (s.open[id] == stored) != open {
			t.Fatalf("id %q is %s, and open: %v", id, stored.producer.Phase, s.open[id] != nil)
		}
		if !open && len(stored.partitions)+len(stored.groups) > 0 {
			t.Fatalf("id %q is %s and touches something", id, stored.producer.Phase)
		}
		if stored.revision > s.revision {
			t.Fatalf("revision %d, the highest is %d", stored.revision, s.revision)
		}
	}
	for id := range s.open {
		if s.ids[id] == nil {
			t.Fatalf("id %q is open and not there", id)
		}
	}
}

// TestACommandOfAnotherRevisionIsVoid: what was decided from a state that is no longer there does
// nothing, to begin with an id that another has made since.
func TestACommandOfAnotherRevisionIsVoid(t *testing.T) {
	s := NewState()
	apply := func(make func(c *Changes)) {
		t.Helper()
		var c Changes
		make(&c)
		if err := s.Apply(Encode(c)); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(phase Phase, revision uint64, partitions int) {
		t.Helper()
		p, r := s.LookUp("x")
		if p.Phase != phase || r != revision || len(s.Scope("x").Partitions) != partitions {
			t.Errorf("%s at revision %d with %d partitions, want %s at %d with %d", p.Phase, r, len(s.Scope("x").Partitions), phase, revision, partitions)
		}
	}
	one := Scope{Partitions: []fsm.PartitionID{{Partition: 1}}}
	apply(func(c *Changes) { c.Set("x", 0, 5, Producer{Phase: Ongoing}); c.Add("x", 5, one) })
	expect(Ongoing, 5, 1)
	apply(func(c *Changes) { c.Set("x", 0, 6, Producer{}) })
	expect(Ongoing, 5, 1)
	apply(func(c *Changes) { c.Set("x", 5, 7, Producer{Phase: PrepareCommit}) })
	expect(PrepareCommit, 7, 1)
	apply(func(c *Changes) { c.Set("x", 5, 8, Producer{Phase: PrepareAbort}) })
	two := Scope{Partitions: []fsm.PartitionID{{Partition: 2}}}
	apply(func(c *Changes) { c.Add("x", 7, two) }) // it is decided
	apply(func(c *Changes) { c.Delete("x", 5) })
	expect(PrepareCommit, 7, 1)
	apply(func(c *Changes) { c.Set("x", 7, 9, Producer{Phase: CompleteCommit}) })
	expect(CompleteCommit, 9, 0)
	apply(func(c *Changes) { c.Delete("x", 9) })
	expect(Empty, 0, 0)
	apply(func(c *Changes) { c.Set("x", 9, 10, Producer{}) })
	expect(Empty, 0, 0)
	if s.Empty() || s.Revision() != 10 {
		t.Errorf("revision %d, empty %v", s.Revision(), s.Empty())
	}
}

// TestLargeTransactionsAreCheap: adding partitions one by one costs no more for the last than for
// the first, in bytes of commands, and beyond the bound nothing grows.
func TestLargeTransactionsAreCheap(t *testing.T) {
	s := NewState()
	var c Changes
	c.Set("x", 0, 1, Producer{Phase: Ongoing})
	longest := 0
	for i := range MaxPartitions + 10 {
		c.Add("x", 1, Scope{Partitions: []fsm.PartitionID{{Partition: int32(i)}}})
		longest = max(longest, c.Size())
		if err := s.Apply(Encode(c)); err != nil {
			t.Fatal(err)
		}
		c = Changes{}
	}
	if n := len(s.Scope("x").Partitions); n != MaxPartitions || longest > 100 {
		t.Errorf("%d partitions, the longest command had %d bytes", n, longest)
	}
	restored, err := RestoreState(s.Snapshot())
	if err != nil || restored.bytes != s.bytes {
		t.Errorf("restored: %v", err)
	}
}

// TestMissing tells what a transaction does not touch.
func TestMissing(t *testing.T) {
	s := NewState()
	if err := errors.Join(s.Apply(seeds()[1]), s.Apply(seeds()[2])); err != nil {
		t.Fatal(err)
	}
	ask := Scope{
		Partitions: []fsm.PartitionID{{Topic: fsm.TopicID{1}, Partition: 1}, {Topic: fsm.TopicID{1}, Partition: 2}},
		Groups:     []string{"g", "i"},
	}
	missing, partitions, groups := s.Missing("a", ask)
	if partitions != 3 || groups != 2 || !slices.Equal(missing.Partitions, ask.Partitions[1:]) || !slices.Equal(missing.Groups, ask.Groups[1:]) {
		t.Errorf("%v is missing, %d partitions and %d groups are there", missing, partitions, groups)
	}
	if missing, _, _ := s.Missing("nobody", ask); !reflect.DeepEqual(missing, ask) {
		t.Errorf("%v is missing in no transaction", missing)
	}
}

// FuzzApply: whatever is applied, the state is one that can be restored, and what is no command
// changes nothing.
func FuzzApply(f *testing.F) {
	for _, seed := range seeds() {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := NewState()
		if err := errors.Join(s.Apply(seeds()[1]), s.Apply(seeds()[2])); err != nil {
			t.Fatal(err)
		}
		before := s.Snapshot()
		err := s.Apply(b)
		after := s.Snapshot()
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%v is not ErrMalformed", err)
			}
			if !bytes.Equal(before, after) {
				t.Error("it is no command, and the state changed")
			}
			return
		}
		restored, err := RestoreState(after)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(restored.Snapshot(), after) || restored.bytes != s.bytes {
			t.Error("the restored state is another one")
		}
	})
}

// FuzzRestoreState: what is restored, though it may not have been written by Snapshot, has a
// snapshot that gives the same state.
func FuzzRestoreState(f *testing.F) {
	s := NewState()
	f.Add(payload(s.Snapshot()))
	for _, seed := range seeds() {
		if err := s.Apply(seed); err != nil {
			f.Fatal(err)
		}
		f.Add(payload(s.Snapshot()))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		// The checksum would keep the fuzzer out.
		s, err := RestoreState(file(body))
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%v is not ErrMalformed", err)
			}
			return
		}
		again, err := RestoreState(s.Snapshot())
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(s.ids, again.ids) || s.bytes != again.bytes || s.revision != again.revision {
			t.Error("the snapshot of a restored state gives another one")
		}
	})
}

func payload(snapshot []byte) []byte { return snapshot[snapshotHead : len(snapshot)-4] }

func file(body []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte(snapshotMagic), snapshotVersion)
	b = append(b, body...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// TestRestoreTellsWhatIsWrong keeps damage, other files, newer formats and states that none can
// have apart.
func TestRestoreTellsWhatIsWrong(t *testing.T) {
	full := NewState()
	for _, seed := range seeds() {
		if err := full.Apply(seed); err != nil {
			t.Fatal(err)
		}
	}
	good := full.Snapshot()
	change := func(at int, to byte) []byte {
		b := bytes.Clone(good)
		b[at] = to
		if at >= 4 {
			return sealed(b)
		}
		return b
	}
	damaged := bytes.Clone(good)
	damaged[9] ^= 1
	for _, c := range []struct {
		name  string
		b     []byte
		newer bool
		want  string
	}{
		{"short", good[:5], false, "5 bytes are too few"},
		{"other file", change(3, 'G'), false, `it begins with "TriG"`},
		{"newer", change(5, 2), true, "format 2, this program knows 1"},
		{"older", change(5, 0), false, "format 0, this program knows 1"},
		{"damage", damaged, false, "damaged"},
		{"revision", change(6, 1), false, "the highest is 1"},
		{"phase", change(bytes.Index(good, []byte{byte(PrepareCommit), 2, 10}), 6), true, "phase 6"},
		{"longer", sealed(append(bytes.Clone(good), 0)), false, "1 bytes left"},
	} {
		_, err := RestoreState(c.b)
		if !errors.Is(err, ErrMalformed) || errors.Is(err, fsm.ErrNewer) != c.newer || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	for name, b := range map[string][]byte{"version": {2}, "kind": {1, 1, 4, 1, 'x', 0}, "phase": newerPhase()} {
		if _, err := ParseCommand(b); !errors.Is(err, ErrMalformed) || !errors.Is(err, fsm.ErrNewer) {
			t.Errorf("a command of a newer %s: %v", name, err)
		}
	}
}

func newerPhase() []byte {
	var c Changes
	c.Set("x", 0, 1, Producer{Phase: CompleteAbort + 1})
	return Encode(c)
}

func sealed(b []byte) []byte {
	b = b[:len(b)-4]
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}
