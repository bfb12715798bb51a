package raftlog

import (
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// TestJournalFilesAreUsedAgainInOrder: a journal file that waits for a slow segment holds the ones
// behind it back. Were they used again before it, a start would find old batches, then a hole.
func TestJournalFilesAreUsedAgainInOrder(t *testing.T) {
	synctest.Test(t, testJournalOrder)
}

func testJournalOrder(t *testing.T) {
	const journalBytes = 1 << 10
	mem := vfs.NewMem()
	mem.MkdirAll("/data")
	mem.SyncDir("/")
	var hold atomic.Bool
	held, release := make(chan struct{}, 100), make(chan struct{})
	opts := Options{JournalBytes: journalBytes, BypassBytes: 700, ReserveBytes: -1}
	opts.FS = vfs.Failing{FS: mem, Fail: func(op, name string) error {
		if op == "sync" && hold.Load() && strings.Contains(name, "/slow/") {
			held <- struct{}{}
			<-release
		}
		return nil
	}}
	open := func() (*Store, map[string]*PartitionLog) {
		t.Helper()
		st, err := OpenStore("/data", opts)
		if err != nil {
			t.Fatal(err)
		}
		logs := map[string]*PartitionLog{}
		for _, name := range []string{"slow", "quick"} {
			l, err := st.OpenLog(filepath.Join(st.Groups(), name), LogOptions{Group: name, Span: testSpan, Fresh: true, SegmentBytes: func() int64 { return 1 << 20 }})
			if err != nil {
				t.Fatal(err)
			}
			logs[name] = l
		}
		return st, logs
	}
	st, logs := open()
	want := map[string]uint64{}
	store := func(name string) {
		t.Helper()
		want[name]++
		if err := logs[name].StoreLogs([]*raft.Log{{Index: want[name], Term: 1, Data: make([]byte, 300)}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // what can be synced is
	}
	store("slow")
	hold.Store(true) // its file is there and synced
	store("quick")
	store("quick") // the first file is full
	<-held         // and waits for the slow segment
	for range 2 * (maxJournalFiles - 2) {
		store("quick")
	}
	mem.Stop()
	hold.Store(false)
	close(release)
	for _, l := range logs {
		l.Close()
	}
	st.Close()
	opts.FS = mem.Crash(rand.New(rand.NewPCG(1, 1)))
	st, logs = open()
	defer st.Close()
	for name, l := range logs {
		defer l.Close()
		if last, _ := l.LastIndex(); last != want[name] {
			t.Errorf("%s ends at %d, want %d", name, last, want[name])
		}
	}
}

// TestAVoidJournalStillHasAnEpoch: a node may stop when the last full file is void already and the
// next has nothing yet.
func TestAVoidJournalStillHasAnEpoch(t *testing.T) {
	mem := vfs.NewMem()
	mem.MkdirAll("/data/journal")
	f, err := mem.Create("/data/journal/000004.journal")
	if err != nil {
		t.Fatal(err)
	}
	// What has the id of no segment may be a client's.
	mem.MkdirAll("/data/partitions/g")
	s := segment{base: 1, gen: 1}
	s.id.Store(1)
	g, err := mem.Create("/data/partitions/g/" + segmentID{base: 1, gen: 1}.name())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.WriteAt(s.header(), 0); err != nil {
		t.Fatal(err)
	}
	content := encodeBatch(nil, batching{}, 0, 7, 1, nil)
	clear(content)
	content = append(content, encodeBatch(nil, batching{}, 0, 7, 2, []*journalWrite{{id: 1, pos: segmentHeader, data: make([]byte, 100)}})...)
	content = append(content, encodeBatch(nil, batching{}, 0, math.MaxUint64, 3, []*journalWrite{{id: 2, pos: segmentHeader, data: make([]byte, 100)}})...)
	if _, err := f.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	st, err := OpenStore("/data", Options{FS: mem, JournalBytes: 1 << 10, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if st.journal.epoch != 8 {
		t.Errorf("epoch %d, want 8", st.journal.epoch)
	}
}

// TestAJournalFileIsVoidBeforeItIsUsedAgain: the power goes while the first batches of another
// round are written over those of the last, which nothing follows any more.
func TestAJournalFileIsVoidBeforeItIsUsedAgain(t *testing.T) {
	for round := range 4 * segmentFormat { // what happens at once happens in another order
		format := 1 + round%segmentFormat
		var last uint64 // entry of the first round
		crashes(t, func() *held {
			h := newHeldOf(t, format)
			j := h.st.journal
			last = 0
			store := func() (size int64) {
				size = j.current.size
				last++
				h.store(last, last, 1)
				return j.current.size - size
			}
			for j.files.next < 2 {
				store()
			}
			for free := 0; free == 0; runtime.Gosched() { // the first file is
				j.files.mu.Lock()
				free = len(j.files.free)
				j.files.mu.Unlock()
			}
			for size := int64(0); j.current.size+size <= j.files.limit; {
				size = store()
			}
			return h
		}, func(h *held) error {
			// More than a page of the disk, of which one may be lost.
			if err := h.StoreLogs([]*raft.Log{entry(last+1, 1), entry(last+2, 1)}); err != nil {
				return err
			}
			if err := h.StoreLog(entry(last+3, 1)); err != nil {
				return err
			}
			if n := h.st.journal.files.next; n != 2 {
				return fmt.Errorf("there are %d files", n)
			}
			return nil
		}, func(h *held, whole bool) error {
			if h.last < last || whole && h.last != last+3 {
				return fmt.Errorf("it ends at entry %d, after %d", h.last, last)
			}
			return h.holds([]uint64{h.last}, []uint64{1})
		})
	}
}
