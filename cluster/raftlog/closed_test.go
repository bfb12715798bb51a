package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// fromFiles gives a disk with these files.
func fromFiles(t *testing.T, files map[string][]byte) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem()
	for name, data := range files {
		mem.MkdirAll(filepath.Dir(name))
		f, err := mem.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(data, 0); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Sync(), mem.SyncDir(filepath.Dir(name))); err != nil {
			t.Fatal(err)
		}
	}
	return mem
}

// inJournal gives a log that has entries of one term, as many of them in the journal as fit, after
// the power went or after it was closed.
func inJournal(t *testing.T, entries uint64, closed bool, seed uint64) map[string][]byte {
	t.Helper()
	h := newHeld(t)
	h.store(1, entries, 1)
	if closed {
		if err := errors.Join(h.PartitionLog.Close(), h.st.Close()); err != nil {
			t.Fatal(err)
		}
		return all(t, h.mem)
	}
	h.mem.Stop()
	h.PartitionLog.Close()
	h.st.Close()
	return all(t, h.mem.Crash(rand.New(rand.NewPCG(seed, 3))))
}

// opens opens the log on a disk and gives an error unless it is refused as damaged or has its
// entries up to one of these.
func opens(t *testing.T, mem *vfs.Mem, least, most uint64) (refused bool, err error) {
	t.Helper()
	h := &held{t: t, mem: mem, damaged: make(chan error, 1)}
	err = h.try(false)
	if h.st != nil {
		defer h.st.Close()
	}
	if h.st != nil && h.PartitionLog == nil && errors.Is(err, ErrDamaged) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer h.PartitionLog.Close()
	if h.last < least || h.last > most {
		return false, fmt.Errorf("it ends at entry %d, want %d", h.last, most)
	}
	return false, h.holds([]uint64{h.last}, []uint64{1})
}

// A flipped byte of the journal takes no node down, and no log that may have lost something by it
// is used. All but the newest append counts: that one may be torn.
func TestAFlippedByteOfTheJournal(t *testing.T) {
	const entries = 12
	for seed := range uint64(12) {
		disk := inJournal(t, entries, false, seed)
		for name, content := range disk {
			if !strings.Contains(name, "/journal/") {
				continue
			}
			refusals := 0
			for at := 0; at < len(bytes.TrimRight(content, "\x00")); at += 1 + at/8 {
				spoiled := bytes.Clone(content)
				if spoiled[at] ^= 1 << (at % 8); allZero(spoiled[journalHeader+16 : journalHeader+batchHeader]) {
					continue // as if no more than that was written of it
				}
				disk[name] = spoiled
				mem := fromFiles(t, disk)
				refused, err := opens(t, mem, entries-1, entries)
				if err != nil {
					t.Fatalf("seed %d, %s at %d: %v", seed, name, at, err)
				}
				if refused {
					refusals++
					// It stays so: the journal that told it is gone.
					if again, err := opens(t, mem, entries, entries); err != nil || !again {
						t.Fatalf("seed %d, %s at %d: refused, and then %v, %v", seed, name, at, again, err)
					}
				}
			}
			if refusals == 0 {
				t.Errorf("no flip of %s shows", name)
			}
			disk[name] = content
		}
	}
}

// A journal that is gone as a whole is damaged, too.
func TestAMissingJournal(t *testing.T) {
	for seed := range uint64(12) { // of some all segments are whole
		disk := inJournal(t, 12, false, seed)
		for name := range disk {
			if strings.Contains(name, "/journal/") {
				delete(disk, name)
			}
		}
		if refused, err := opens(t, fromFiles(t, disk), 12, 12); err != nil || !refused {
			t.Errorf("seed %d: refused %v, %v", seed, refused, err)
		}
	}
}

// Nothing of the journal is needed after a stop in good order. And then a damaged end of a log is
// no torn append.
func TestAFlippedByteAfterAStopInGoodOrder(t *testing.T) {
	const entries = 12
	disk := inJournal(t, entries, true, 0)
	journals := map[string][]byte{}
	for name, content := range disk {
		if !strings.Contains(name, "/journal/") {
			continue
		}
		journals[name] = content
		for at := 0; at < len(content); at += 7 {
			spoiled := bytes.Clone(content)
			spoiled[at] ^= 16
			disk[name] = spoiled
			if refused, err := opens(t, fromFiles(t, disk), entries, entries); err != nil || refused {
				t.Fatalf("%s at %d: refused %v, %v", name, at, refused, err)
			}
		}
		disk[name] = content
	}
	for name, content := range disk {
		if !strings.HasSuffix(name, segmentSuffix) {
			continue
		}
		// The journal would put it right.
		for journal := range journals {
			disk[journal] = nil
		}
		for at := segmentHeader; at < len(bytes.TrimRight(content, "\x00")); at += 3 {
			spoiled := bytes.Clone(content)
			spoiled[at] ^= 16
			disk[name] = spoiled
			if _, err := opens(t, fromFiles(t, disk), entries, entries); err != nil {
				t.Fatalf("%s at %d: %v", name, at, err)
			}
		}
		disk[name] = content
	}
}

// A log that is opened again and goes on is not held to where it ended before: it may have been cut
// since.
func TestALogGoesOnBehindWhereItWasClosed(t *testing.T) {
	h := newHeld(t)
	h.store(1, 12, 1)
	for i := range uint64(3) {
		if err := errors.Join(h.PartitionLog.Close(), h.st.Close()); err != nil {
			t.Fatal(err)
		}
		h.open(false)
		if err := h.DeleteRange(10, 12); err != nil {
			t.Fatal(err)
		}
		h.crash(i)
		if h.last != 9 {
			t.Fatalf("it ends at entry %d, want 9", h.last)
		}
		h.store(10, 12, 1)
	}
	h.PartitionLog.Close()
	h.st.Close()
}

// What a client writes may look like a batch of the journal.
func TestRecordsThatLookLikeTheJournal(t *testing.T) {
	for format := 1; format <= segmentFormat; format++ {
		recordsLikeTheJournal(t, format)
	}
}

func recordsLikeTheJournal(t *testing.T, format int) {
	h := newHeldOf(t, format)
	form := batching{stamped: format > 1, secret: 5}
	h.store(1, 1, 1)
	index := uint64(2)
	for h.st.journal.seq < 200 { // all files are used again, and have old batches
		data := make([]byte, 0, 600)
		for epoch := range uint64(6) {
			data = append(data, encodeBatch(nil, form, 0, epoch, 1<<40+epoch, []*journalWrite{{id: 77, pos: segmentHeader, data: make([]byte, 8)}})...)
		}
		if err := h.StoreLog(&raft.Log{Index: index, Term: 1, Data: data}); err != nil {
			t.Fatal(err)
		}
		index++
	}
	for seed := range uint64(5) {
		h.crash(seed)
		if h.last != index-1 {
			t.Fatalf("it ends at entry %d, want %d", h.last, index-1)
		}
		for range 50 {
			if err := h.StoreLog(&raft.Log{Index: index, Term: 1, Data: encodeBatch(nil, form, 0, seed+2, 1<<40, []*journalWrite{{id: 77, pos: segmentHeader, data: make([]byte, 400)}})}); err != nil {
				t.Fatal(err)
			}
			index++
		}
	}
	h.PartitionLog.Close()
	h.st.Close()
}

// A segment whose head the disk does not give at a start, or whose version is not what was written,
// takes down its own log only.
func TestOneBadSegmentHead(t *testing.T) {
	disk := inJournal(t, 12, false, 1)
	first := filepath.Join("/data/partitions/g", segmentID{base: 1, gen: 1}.name())
	t.Run("unreadable", func(t *testing.T) {
		mem := fromFiles(t, disk)
		broken := true
		opts := Options{JournalBytes: 8 << 10, ReserveBytes: -1}
		opts.FS = vfs.Failing{FS: mem, Fail: func(op, name string) error {
			if op == "read" && name == first && broken {
				return fmt.Errorf("%s %s: %w", op, name, syscall.EIO)
			}
			return nil
		}}
		for range 2 {
			st, err := OpenStore("/data", opts)
			if err != nil {
				t.Fatal(err)
			}
			broken = false // though it comes back: what the journal had of it is gone
			if _, err := st.OpenLog("/data/partitions/g", fuzzedOptions()); !errors.Is(err, ErrDamaged) {
				t.Errorf("the log opens with %v", err)
			}
			l, err := st.OpenLog("/data/partitions/h", LogOptions{Group: "h", Span: testSpan, Fresh: true})
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
			st.Close()
		}
	})
	t.Run("version", func(t *testing.T) {
		for _, version := range []byte{0, 3, 129} {
			spoiled := bytes.Clone(disk[first])
			spoiled[7] = version
			files := maps.Clone(disk)
			files[first] = spoiled
			if refused, err := opens(t, fromFiles(t, files), 12, 12); err != nil || !refused {
				t.Errorf("version %d: refused %v, %v", version, refused, err)
			}
		}
	})
	t.Run("newer", func(t *testing.T) {
		spoiled := bytes.Clone(disk[first])
		spoiled[7] = segmentFormat + 1
		put(spoiled, segmentHeader-4, sum(spoiled, 0, segmentHeader-4))
		files := maps.Clone(disk)
		files[first] = spoiled
		mem := fromFiles(t, files)
		if _, err := opens(t, mem, 12, 12); !errors.Is(err, ErrVersion) {
			t.Errorf("%v, want that it is newer", err)
		}
		if after := all(t, mem); !maps.EqualFunc(after, files, bytes.Equal) {
			t.Error("something was changed")
		}
	})
}

// listing is told when a folder is looked for.
type listing struct {
	vfs.FS
	told func(dir string)
}

func (l listing) List(dir string) ([]vfs.Entry, error) {
	defer l.told(dir)
	return l.FS.List(dir)
}

// TestTheLedgerForgetsLogsThatAreGone and no other: one may be made again where one was looked for.
func TestTheLedgerForgetsLogsThatAreGone(t *testing.T) {
	mem := vfs.NewMem()
	mem.MkdirAll("/there")
	d := &disk{}
	b := &ledger{disk: d, ends: map[string]closedEnds{}}
	d.fs = listing{mem, func(dir string) {
		if dir == "/again" {
			b.opened(dir)
			b.ended(dir, &closedEnds{ID: 2, Last: 9})
		}
	}}
	for dir, end := range map[string]closedEnds{"/there": {ID: 1, Last: 5}, "/gone": {ID: 3, Last: 5}, "/again": {ID: 4, Last: 5}} {
		b.opened(dir)
		b.ended(dir, &end)
	}
	b.tidy(maps.Clone(b.ends))
	want := map[string]closedEnds{"/there": {ID: 1, Last: 5}, "/again": {ID: 2, Last: 9}}
	if !maps.Equal(b.ends, want) {
		t.Errorf("it knows %v", b.ends)
	}
}
