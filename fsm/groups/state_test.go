package groups

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// commands draws one command of a few groups, topics and partitions, so that they
// meet.
func drawCommand(t *rapid.T) []byte {
	var cmd Changes
	groups := rapid.SampledFrom([]string{"", "a", "b", "group with a longer name"})
	topics := rapid.SampledFrom([]string{"t1", "t2", "t3"})
	partitions := rapid.Int32Range(0, 4)
	for range rapid.IntRange(0, 5).Draw(t, "records") {
		group := groups.Draw(t, "group")
		producer, epoch := rapid.Int64Range(0, 2).Draw(t, "producer"), rapid.Int16Range(0, 2).Draw(t, "epoch")
		switch rapid.IntRange(0, 8).Draw(t, "kind") {
		case 0, 1:
			cmd.SetOffset(group, topics.Draw(t, "topic"), [16]byte{rapid.Byte().Draw(t, "id") % 3}, partitions.Draw(t, "partition"), Offset{
				Offset: rapid.Int64().Draw(t, "offset"), LeaderEpoch: rapid.Int32().Draw(t, "epoch"),
				Metadata: rapid.StringN(-1, 8, -1).Draw(t, "metadata"), CommittedAt: rapid.Int64Range(0, 3).Draw(t, "at"),
			})
		case 2:
			cmd.DeleteOffset(group, topics.Draw(t, "topic"), partitions.Draw(t, "partition"), rapid.Int64Range(-1, 3).Draw(t, "at"))
		case 3:
			cmd.SetGroup(group, drawGroup(t))
		case 4:
			cmd.DeleteGroup(group)
		case 5:
			cmd.DeleteGroupIfEmpty(group)
		case 6:
			cmd.SetPending(group, producer, epoch, topics.Draw(t, "topic"), [16]byte{rapid.Byte().Draw(t, "id") % 2}, partitions.Draw(t, "partition"), Offset{
				Offset: rapid.Int64().Draw(t, "offset"), Metadata: rapid.StringN(-1, 8, -1).Draw(t, "metadata"),
			})
		case 7:
			cmd.End(group, producer, epoch, rapid.Int32Range(0, 4).Draw(t, "number"), rapid.Bool().Draw(t, "commit"), rapid.Int64Range(0, 3).Draw(t, "at"))
		case 8:
			cmd.ForgetProducer(group, producer, rapid.Int64Range(0, 3).Draw(t, "at"))
		}
	}
	return Encode(cmd)
}

func drawGroup(t *rapid.T) Group {
	g := Group{Generation: rapid.Int32().Draw(t, "generation"), ProtocolType: "consumer", Since: rapid.Int64().Draw(t, "since")}
	for i := range rapid.IntRange(0, 3).Draw(t, "members") {
		m := Member{
			ID: fmt.Sprintf("m%d", i), ClientID: "client", Session: rapid.Int32().Draw(t, "session"),
			Subscription: rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "subscription"),
			Assignment:   rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "assignment"),
		}
		if rapid.Bool().Draw(t, "static") {
			instance := fmt.Sprintf("i%d", i)
			m.InstanceID = &instance
		}
		g.Members = append(g.Members, m)
		g.Protocol, g.Leader = "range", "m0"
	}
	return g
}

// TestStateReplays: what is replayed is equal byte for byte, and it does not matter
// where a replica began from a snapshot.
func TestStateReplays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all, begun := NewState(), NewState()
		for i, command := range rapid.SliceOfN(rapid.Custom(drawCommand), 1, 30).Draw(t, "commands") {
			if err := all.Apply(command); err != nil {
				t.Fatal(err)
			}
			if err := begun.Apply(command); err != nil {
				t.Fatal(err)
			}
			checkIdle(t, all)
			checkIdle(t, begun)
			if !rapid.Bool().Draw(t, "restart") {
				continue
			}
			snapshot := begun.Snapshot()
			restored, err := RestoreState(snapshot)
			if err != nil {
				t.Fatal(err)
			}
			if again := restored.Snapshot(); !bytes.Equal(again, snapshot) {
				t.Fatalf("after %d commands a restored state has another snapshot:\n%x\n%x", i, snapshot, again)
			}
			begun = restored
		}
		if !bytes.Equal(all.Snapshot(), begun.Snapshot()) {
			t.Fatalf("replayed %x, restored %x", all.Snapshot(), begun.Snapshot())
		}
		if all.bytes != begun.bytes {
			t.Fatalf("%d bytes are accounted for, %d after restarts", all.bytes, begun.bytes)
		}
		for _, id := range append(all.IDs(), slices.Collect(maps.Keys(all.pending))...) {
			if err := all.Apply(Encode(deletion(all, id))); err != nil {
				t.Fatal(err)
			}
		}
		if all.bytes != 0 || all.idle != (idle{}) {
			t.Fatalf("nothing takes %d bytes, and %d producers are listed", all.bytes, all.idle.n)
		}
	})
}

// checkIdle: who has ended a transaction and has nothing pending is listed, once, and nobody else.
func checkIdle(t *rapid.T, s *State) {
	listed := 0
	var before *producer
	for p := s.idle.oldest; p != nil; before, p = p, p.newer {
		if listed++; p.older != before || s.pending[p.group].producers[p.id] != p {
			t.Fatalf("producer %d of group %q is listed, and is not there", p.id, p.group)
		}
	}
	if listed != s.IdleLen() || s.idle.newest != before {
		t.Fatalf("%d producers are listed, %d are counted", listed, s.IdleLen())
	}
	for group, in := range s.pending {
		for id, p := range in.producers {
			if p.listed != (p.ended && len(p.topics) == 0) || (in.open[id] != nil) != (len(p.topics) > 0) || p.group != group || p.id != id {
				t.Fatalf("producer %d of group %q: listed %v, ended %v, %d topics", id, group, p.listed, p.ended, len(p.topics))
			}
		}
	}
}

// TestIdleInOrder: the one that ended longest ago comes first, also behind a restart.
func TestIdleInOrder(t *testing.T) {
	s := NewState()
	var c Changes
	for i := range int64(100) {
		c.End(fmt.Sprint(i*7%100), i, 0, 1, true, 1000+i)
	}
	c.SetPending("0", 0, 0, "t", [16]byte{1}, 0, Offset{})
	c.End("7", 1, 0, 2, true, 2000) // another one
	if err := s.Apply(Encode(c)); err != nil {
		t.Fatal(err)
	}
	restored, err := RestoreState(s.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*State{"as it is": s, "restored": restored} {
		var order []int64
		for p := range s.Idle {
			if order = append(order, p.ID); p.Group != fmt.Sprint(p.ID*7%100) || p.ID > 1 && p.At != 1000+p.ID {
				t.Errorf("%s: %+v", name, p)
			}
		}
		if len(order) != 99 || s.IdleLen() != 99 || order[98] != 1 || !slices.IsSorted(order[:98]) {
			t.Errorf("%s: %v", name, order)
		}
	}
}

// TestSizeCountsLastMarkers: they take in memory what the state says they do, whether producers
// share a group or not.
func TestSizeCountsLastMarkers(t *testing.T) {
	for name, group := range map[string]func(i int) string{
		"one group":      func(int) string { return "g" },
		"many groups":    func(i int) string { return fmt.Sprintf("a group of its own %d", i) },
		"long group ids": func(i int) string { return fmt.Sprintf("%01024d", i) },
	} {
		before := heap()
		s := NewState()
		for i := range 20_000 {
			var c Changes
			// as a client of good will: something was pending
			c.SetPending(group(i), int64(i), 0, "t", [16]byte{1}, 0, Offset{Metadata: "some"})
			c.End(group(i), int64(i), 0, 1, false, 1)
			if err := s.Apply(Encode(c)); err != nil {
				t.Fatal(err)
			}
		}
		if used := int(heap() - before); used > s.Size()*5/4 || used < s.Size()/3 {
			t.Errorf("%s: %d bytes are used, the state says %d", name, used, s.Size())
		}
		runtime.KeepAlive(s)
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func deletion(s *State, group string) (c Changes) {
	c.DeleteGroup(group)
	if t := s.pending[group]; t != nil {
		for id, p := range t.producers {
			c.ForgetProducer(group, id, p.at)
		}
	}
	return c
}

// TestStateJoinsCommands: commands that are joined are the commands one by one.
func TestStateJoinsCommands(t *testing.T) {
	var a, b Changes
	a.SetOffset("g", "t1", [16]byte{1}, 0, Offset{Offset: 1})
	b.SetOffset("g", "t1", [16]byte{1}, 0, Offset{Offset: 2})
	b.DeleteOffset("g", "t1", 1, -1)
	one, two := NewState(), NewState()
	for _, err := range []error{one.Apply(Encode(a, b)), two.Apply(Encode(a)), two.Apply(Encode(b))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(one.Snapshot(), two.Snapshot()) {
		t.Errorf("joined %x, one by one %x", one.Snapshot(), two.Snapshot())
	}
	if o, ok := one.Offset("g", "t1", [16]byte{1}, 0); !ok || o.Offset != 2 {
		t.Errorf("got offset %d, want 2", o.Offset)
	}
}

func seeds() [][]byte {
	instance := "one"
	var c, d Changes
	c.SetOffset("g", "t1", [16]byte{1}, 3, Offset{Offset: 42, LeaderEpoch: -1, Metadata: "m", CommittedAt: 7})
	c.SetGroup("g", Group{Generation: 2, ProtocolType: "consumer", Protocol: "range", Leader: "a", Members: []Member{
		{ID: "a", InstanceID: &instance, Subscription: []byte("s"), Assignment: []byte("x")}, {ID: "b"},
	}})
	d.DeleteOffset("g", "t1", 3, 7)
	d.DeleteGroupIfEmpty("g")
	d.DeleteGroup("h")
	return [][]byte{Encode(), Encode(c), Encode(d), Encode(c, d)}
}

// transactionalSeeds are as seeds, of transactions.
func transactionalSeeds() [][]byte {
	var c, d, e Changes
	c.SetPending("g", 7, 2, "t1", [16]byte{1}, 3, Offset{Offset: 43, LeaderEpoch: -1, Metadata: "m", CommittedAt: 8})
	c.SetPending("h", 8, 0, "t2", [16]byte{2}, 0, Offset{Offset: 1})
	c.SetOffset("h", "t2", [16]byte{2}, 0, Offset{Offset: 2})
	d.End("g", 7, 3, 1, true, 9)
	d.End("h", 9, 1, -1<<31, false, -1)
	e.ForgetProducer("g", 7, 9)
	return [][]byte{Encode(c), Encode(d), Encode(e)}
}

// FuzzApply: whatever is applied, the state is one that can be restored, and what is
// no command changes nothing.
func FuzzApply(f *testing.F) {
	for _, seed := range append(seeds(), transactionalSeeds()...) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := NewState()
		for _, seed := range [][]byte{seeds()[1], transactionalSeeds()[0]} {
			if err := s.Apply(seed); err != nil {
				t.Fatal(err)
			}
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

// FuzzRestoreState: what is restored, though it may not have been written by
// Snapshot, has a snapshot that gives the same state.
func FuzzRestoreState(f *testing.F) {
	s := NewState()
	f.Add(payload(s.Snapshot()))
	for _, seed := range append(seeds(), transactionalSeeds()...) {
		if err := s.Apply(seed); err != nil {
			f.Fatal(err)
		}
		f.Add(payload(s.Snapshot()))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		// The checksum would keep the fuzzer out.
		b := append([]byte(snapshotMagic), body...)
		b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
		s, err := RestoreState(b)
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
		if !reflect.DeepEqual(s.groups, again.groups) || !reflect.DeepEqual(s.pending, again.pending) || s.bytes != again.bytes {
			t.Error("the snapshot of a restored state gives another one")
		}
	})
}

func payload(snapshot []byte) []byte { return snapshot[len(snapshotMagic) : len(snapshot)-4] }

// TestRestoreTellsWhatIsWrong keeps damage, other files and newer formats apart.
func TestRestoreTellsWhatIsWrong(t *testing.T) {
	good := NewState().Snapshot()
	if _, err := RestoreState(good); err != nil {
		t.Fatal(err)
	}
	change := func(at int, to byte) []byte {
		b := bytes.Clone(good)
		b[at] = to
		if at >= 4 && at < 6 {
			binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[:len(b)-4], castagnoli))
		}
		return b
	}
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"short", good[:5], "5 bytes are too few"},
		{"other file", change(3, 'C'), `it begins with "TriC"`},
		{"newer", change(5, 3), "format 3, this program knows 2"},
		{"of transactions without any", change(5, 2), "no number"},
		{"damage", change(6, 1), "damaged"},
	} {
		if _, err := RestoreState(c.b); !errors.Is(err, ErrMalformed) || !bytes.Contains([]byte(fmt.Sprint(err)), []byte(c.want)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// A topic was deleted and created again, and two producers have offsets pending, one of each topic.
// What is committed for the new one stays, whichever transaction ends last.
func TestOffsetsOfATopicCreatedAgain(t *testing.T) {
	s := NewState()
	last, next := [16]byte{1}, [16]byte{2}
	var cmd Changes
	cmd.SetPending("g", 1, 0, "t", last, 0, Offset{Offset: 100})
	cmd.SetPending("g", 2, 0, "t", next, 0, Offset{Offset: 5})
	cmd.End("g", 2, 0, 1, true, 0)
	cmd.End("g", 1, 0, 1, true, 0)
	if err := s.Apply(Encode(cmd)); err != nil {
		t.Fatal(err)
	}
	if o, ok := s.Offset("g", "t", next, 0); !ok || o.Offset != 5 {
		t.Errorf("%+v, %t, want offset 5", o, ok)
	}
}
