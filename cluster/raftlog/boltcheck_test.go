package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// boltEntry is what a catalog's log has at index.
func boltEntry(index uint64) *raft.Log {
	e := &raft.Log{Index: index, Term: 1 + index/50, Type: raft.LogCommand, Data: bytes.Repeat([]byte{byte(index)}, int(index*37%900)), AppendedAt: time.Unix(int64(index), 7)}
	if index%3 == 0 {
		e.Extensions = fmt.Appendf(nil, "extension %d", index)
	}
	if index%60 == 0 {
		e.Data = bytes.Repeat([]byte{7}, 9000) // more than a page
	}
	return e
}

// spoilEach opens a file with each of many bytes flipped, one after the other, and cut short.
func spoilEach(t *testing.T, path string, check func(path, what string)) {
	t.Helper()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	spoiled := filepath.Join(t.TempDir(), "spoiled")
	try := func(b []byte, what string) {
		if err := os.WriteFile(spoiled, b, 0o600); err != nil {
			t.Fatal(err)
		}
		check(spoiled, what)
	}
	step := 1
	for at := 0; at < len(good); at += step {
		if good[at] == 0 && at%512 != 0 {
			continue
		}
		if step = 1; at >= 8<<10 {
			step = 211 // what is there repeats itself
		}
		b := bytes.Clone(good)
		b[at] ^= 1 << (at % 8)
		try(b, fmt.Sprintf("bit %d of byte %d flipped", at%8, at))
	}
	for size := 1; size < len(good); size += 5000 {
		try(good[:size], fmt.Sprintf("cut to %d bytes", size))
	}
}

// A raft-boltdb file that is not what was written is refused, or nothing that it holds is hurt; bbolt itself would
// end the process, or give what is there.
func TestADamagedBoltLogIsRefused(t *testing.T) {
	const last = 120
	path := filepath.Join(t.TempDir(), "raft.db")
	b, err := OpenBolt(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for index := uint64(1); index <= last; index += 10 {
		var some []*raft.Log
		for i := range uint64(10) {
			some = append(some, boltEntry(index+i))
		}
		if err := b.StoreLogs(some); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.DeleteRange(1, 20); err != nil {
		t.Fatal(err)
	}
	if err := b.StoreLogs([]*raft.Log{boltEntry(last + 1), boltEntry(last + 2)}); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	refused, whole, shorter := 0, 0, 0
	spoilEach(t, path, func(path, what string) {
		b, err := OpenBolt(path, nil)
		if errors.Is(err, ErrDamaged) {
			refused++
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer b.Close()
		whole++
		// Without its newest meta page bbolt goes back to what was before the last write. A page that is named wrongly can
		// be one of an older state, whole in itself.
		end, _ := b.LastIndex()
		if end != last && end != last+2 {
			shorter++
		}
		next := uint64(21)
		err = b.Scan(21, func(e *raft.Log) bool {
			want := boltEntry(next)
			if next == 21 { // it may look as if it were from before there were CRCs; the catalog's entries have no extensions
				want.Extensions = e.Extensions
			}
			if e.Index != want.Index || e.Term != want.Term || e.Type != want.Type || !bytes.Equal(e.Data, want.Data) ||
				!bytes.Equal(e.Extensions, want.Extensions) || !e.AppendedAt.Equal(want.AppendedAt) {
				t.Fatalf("%s: entry %d is %+v", what, next, e)
			}
			next++
			return true
		})
		if err != nil || next != end+1 {
			t.Fatalf("%s: entries up to %d, %v", what, next-1, err)
		}
	})
	if refused == 0 || whole == 0 || shorter > 10 { // which pages are where differs from run to run
		t.Errorf("%d refused, %d whole, %d of them shorter", refused, whole, shorter)
	}
}

// The same of the votes: what a group has voted is as it was, or the group or the node does not go on with it.
func TestDamagedVotesAreNotUsed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "votes.db")
	s, err := OpenStable(path)
	if err != nil {
		t.Fatal(err)
	}
	const groups = 60
	name := func(i int) string { return fmt.Sprintf("group-%02d", i) }
	for i := range groups {
		g := s.Group(name(i))
		for _, err := range []error{
			g.SetUint64([]byte("CurrentTerm"), uint64(1000+i)), g.SetUint64([]byte(keyVoteTerm), uint64(1000+i)),
			g.Set([]byte(keyVoteCandidate), fmt.Appendf(nil, "node-%d", i)), g.MarkCreated(),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	refused, alone, whole := 0, 0, 0
	spoilEach(t, path, func(path, what string) {
		s, err := OpenStable(path)
		if errors.Is(err, ErrDamaged) {
			refused++
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer s.Close()
		bad := 0
		for i := range groups {
			g := s.Group(name(i))
			if err := g.Check(); errors.Is(err, ErrDamaged) {
				// It begins anew with what its leader says, and nothing else.
				if err := g.BeginAnew(7, "leader"); err != nil {
					t.Fatal(err)
				}
				term, err := g.GetUint64([]byte("CurrentTerm"))
				if created, cerr := g.Created(); err != nil || cerr != nil || created || term != 7 || g.Check() != nil {
					t.Fatalf("%s: anew in term %d, %v, %v, %v", what, term, created, err, cerr)
				}
				bad++
				continue
			}
			if known, err := g.Known(); err == nil && !known {
				bad++ // its name is gone
				continue
			}
			term, _ := g.GetUint64([]byte("CurrentTerm"))
			voted, _ := g.GetUint64([]byte(keyVoteTerm))
			candidate, _ := g.Get([]byte(keyVoteCandidate))
			created, _ := g.Created()
			if term != uint64(1000+i) || voted != term || string(candidate) != fmt.Sprintf("node-%d", i) || !created && i < groups-1 {
				t.Fatalf("%s: group %d is in term %d, has voted for %q in term %d, %v", what, i, term, candidate, voted, created)
			}
		}
		if bad > 0 {
			alone++
		} else {
			whole++
		}
	})
	if refused == 0 || alone == 0 || whole == 0 { // which pages are where differs from run to run
		t.Errorf("%d files refused, %d with groups refused, %d whole", refused, alone, whole)
	}
}

// TestBucketsInOneAnother: a file whose buckets lie in the same bytes, over and over, is refused before all ways through them
// were gone.
func TestBucketsInOneAnother(t *testing.T) {
	const page, fan, depth = 4096, 16, 9
	le := binary.LittleEndian
	var leaf func(depth int) []byte
	leaf = func(depth int) []byte {
		b := make([]byte, boltPageHeader)
		le.PutUint16(b[8:], boltLeaf)
		if depth == 0 {
			return b
		}
		le.PutUint16(b[10:], fan)
		inner := append(make([]byte, boltBucketBytes), leaf(depth-1)...)
		for i := range fan { // all end where the value begins
			element := le.AppendUint32(nil, boltBucketFlag)
			element = le.AppendUint32(element, uint32((fan-i)*boltElement+fan-i-1))
			element = le.AppendUint32(element, uint32(i+1))
			b = append(b, le.AppendUint32(element, uint32(len(inner)))...)
		}
		for i := range fan {
			b = append(b, byte(fan-i))
		}
		return append(b, inner...)
	}
	file := make([]byte, 3*page)
	meta := file[boltPageHeader:]
	le.PutUint32(meta, boltMagic)
	le.PutUint32(meta[8:], page)
	le.PutUint64(meta[16:], 2)
	le.PutUint64(meta[40:], 3)
	sum := fnv.New64a()
	sum.Write(meta[:boltMetaSize-8])
	le.PutUint64(meta[boltMetaSize-8:], sum.Sum64())
	if n := copy(file[2*page:], leaf(depth)); n == page {
		t.Fatal("it does not fit a page")
	}
	le.PutUint64(file[2*page:], 2)
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkBolt(path); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "room") {
		t.Error(err)
	}
}
