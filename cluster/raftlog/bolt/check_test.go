package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
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

// scan calls fn for the entries from an index on.
func scan(l *Log, from uint64, fn func(*raft.Log)) error {
	for index := from; ; index++ {
		var entry raft.Log
		err := l.GetLog(index, &entry)
		if errors.Is(err, raft.ErrLogNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		fn(&entry)
	}
}

// A raft-boltdb file that is not what was written is refused, or nothing that it holds is hurt;
// bbolt itself would end the process, or give what is there.
func TestADamagedBoltLogIsRefused(t *testing.T) {
	const last = 120
	path := filepath.Join(t.TempDir(), "raft.db")
	b, err := OpenLog(path, nil)
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
		b, err := OpenLog(path, nil)
		if errors.Is(err, raftlog.ErrDamaged) {
			refused++
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer b.Close()
		whole++
		// Without its newest meta page bbolt goes back to what was before the last write. A page
		// that is named wrongly can be one of an older state, whole in itself.
		end, _ := b.LastIndex()
		if end != last && end != last+2 {
			shorter++
		}
		next := uint64(21)
		err = scan(b, 21, func(e *raft.Log) {
			want := boltEntry(next)
			// it may look as if it were from before there were CRCs; the catalog's entries have no
			// extensions
			if next == 21 {
				want.Extensions = e.Extensions
			}
			if e.Index != want.Index || e.Term != want.Term || e.Type != want.Type || !bytes.Equal(e.Data, want.Data) ||
				!bytes.Equal(e.Extensions, want.Extensions) || !e.AppendedAt.Equal(want.AppendedAt) {
				t.Fatalf("%s: entry %d is %+v", what, next, e)
			}
			next++
		})
		if err != nil || next != end+1 {
			t.Fatalf("%s: entries up to %d, %v", what, next-1, err)
		}
	})
	if refused == 0 || whole == 0 || shorter > 10 { // which pages are where differs from run to run
		t.Errorf("%d refused, %d whole, %d of them shorter", refused, whole, shorter)
	}
}

// oldVotes writes a vote file as programs with bbolt did. Those from before there were CRCs had no
// seals.
func oldVotes(t *testing.T, path string, votes map[string]map[string][]byte, sealed bool) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, options())
	if err != nil {
		t.Fatal(err)
	}
	for name, kept := range votes {
		err = errors.Join(err, db.Update(func(tx *bbolt.Tx) error {
			bucket, err := tx.CreateBucketIfNotExists([]byte(name))
			for key, value := range kept {
				err = errors.Join(err, bucket.Put([]byte(key), value))
			}
			if sealed {
				err = errors.Join(err, bucket.Put(sumKey, binary.LittleEndian.AppendUint32(nil, sumOfBucket(bucket))))
				_, serr := tx.CreateBucketIfNotExists(sealedBucket)
				err = errors.Join(err, serr)
			}
			return err
		}))
	}
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// someVotes is what raft groups have voted.
func someVotes(groups int) map[string]map[string][]byte {
	votes := map[string]map[string][]byte{}
	for i := range groups {
		number := binary.BigEndian.AppendUint64(nil, uint64(1000+i))
		votes[fmt.Sprintf("group-%02d", i)] = map[string][]byte{
			"CurrentTerm": number, "LastVoteTerm": number, "LastVoteCand": fmt.Appendf(nil, "node-%d", i), "trimaran/created": {1},
		}
	}
	return votes
}

func sameVotes(a, b map[string][]byte) bool {
	return maps.EqualFunc(a, b, func(a, b []byte) bool { return bytes.Equal(a, b) })
}

// The same of the votes: what a raft group has voted is as it was, or the raft group or the file is
// refused.
func TestDamagedOldVotesAreNotUsed(t *testing.T) {
	path := filepath.Join(t.TempDir(), VotesFile)
	want := someVotes(60)
	oldVotes(t, path, want, true)
	refused, alone, whole := 0, 0, 0
	spoilEach(t, path, func(path, what string) {
		votes, damaged, err := readVotes(path)
		if errors.Is(err, raftlog.ErrDamaged) {
			refused++
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		lost := 0
		for name, kept := range want {
			if votes[name] == nil {
				lost++ // damaged, or its name is gone, or it was written last
			} else if !sameVotes(votes[name], kept) {
				t.Fatalf("%s: %s has %q", what, name, votes[name])
			}
		}
		if len(damaged) > 0 || lost > 0 {
			alone++
		} else {
			whole++
		}
	})
	if refused == 0 || alone == 0 || whole == 0 { // which pages are where differs from run to run
		t.Errorf("%d files refused, %d with groups refused, %d whole", refused, alone, whole)
	}
}

// Votes from before there were CRCs are read, and so is no file at all.
func TestOldVotesWithoutCRCs(t *testing.T) {
	path := filepath.Join(t.TempDir(), VotesFile)
	if votes, damaged, err := readVotes(path); len(votes) > 0 || len(damaged) > 0 || err != nil {
		t.Errorf("of no file: %v, %v, %v", votes, damaged, err)
	}
	want := someVotes(3)
	oldVotes(t, path, want, false)
	votes, damaged, err := readVotes(path)
	if err != nil || len(damaged) > 0 || !maps.EqualFunc(votes, want, sameVotes) {
		t.Errorf("%v, %v, %v", votes, damaged, err)
	}
}

// TestBucketsInOneAnother: a file whose buckets lie in the same bytes, over and over, is refused
// before all ways through them were gone.
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
	if err := check(path); !errors.Is(err, raftlog.ErrDamaged) || !strings.Contains(err.Error(), "room") {
		t.Error(err)
	}
}
