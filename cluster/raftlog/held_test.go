package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// held is a log on a file system that loses what was not synced.
type held struct {
	t    *testing.T
	mem  *vfs.Mem
	left atomic.Int64 // operations until the power goes; the journal's count, too
	mu   sync.Mutex
	log  string // what the store said; guarded by mu
	// readError is what reading files ends with, if anything.
	readError  atomic.Pointer[error]
	beforeRead atomic.Pointer[func()] // what happens before a file is read
	// openError is what opening a segment or an index ends with, if anything; opens is told then.
	openError atomic.Pointer[error]
	opens     chan struct{}
	damaged   chan error
	format    int
	st        *Store
	*PartitionLog
}

func newHeld(t *testing.T) *held { return newHeldOf(t, segmentFormat) }

func newHeldOf(t *testing.T, format int) *held {
	mem := vfs.NewMem()
	mem.MkdirAll("/data")
	mem.SyncDir("/")
	h := &held{t: t, mem: mem, damaged: make(chan error, 1), opens: make(chan struct{}), format: format}
	h.open(true)
	return h
}

func (h *held) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log += string(b)
	return len(b), nil
}

func (h *held) said(what string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Contains(h.log, what)
}

// try opens the store and the log.
func (h *held) try(fresh bool) (err error) {
	mem := h.mem
	h.left.Store(math.MaxInt64)
	mem.OnStep(func(string, string) {
		if h.left.Add(-1) == 0 {
			mem.Stop()
		}
	})
	disk := vfs.Failing{FS: mem, Fail: func(op, name string) error {
		if before := h.beforeRead.Load(); before != nil && op == "read" {
			(*before)()
		}
		if err := h.readError.Load(); err != nil && op == "read" {
			return *err
		}
		if err := h.openError.Load(); err != nil && op == "open" {
			select {
			case h.opens <- struct{}{}:
			default:
			}
			return *err
		}
		return nil
	}}
	h.st, err = OpenStore("/data", Options{FS: disk, JournalBytes: 8 << 10, BypassBytes: 700, CacheBytes: 1 << 10, ReserveBytes: -1, Format: h.format, Logger: slog.New(slog.NewTextHandler(h, nil))})
	if err != nil {
		return err
	}
	h.PartitionLog, err = h.st.OpenLog(filepath.Join(h.st.Groups(), "g"), LogOptions{
		Group: "g", Span: testSpan, Trailing: 3, Fresh: fresh, SegmentBytes: func() int64 { return 2000 },
		OnDamage: func(err error) { h.damaged <- err },
	})
	return err
}

func (h *held) open(fresh bool) {
	h.t.Helper()
	if err := h.try(fresh); err != nil {
		h.t.Fatal(err)
	}
}

// crash takes the power away, once with each of the seeds for what survives of what
// was not synced, and opens the log again.
func (h *held) crash(seed uint64) {
	h.t.Helper()
	h.mem.Stop()
	h.PartitionLog.Close()
	h.st.Close()
	h.mem = h.mem.Crash(rand.New(rand.NewPCG(seed, 3)))
	h.open(false)
}

// entry is what a leader of that term wrote at index.
func entry(index, term uint64) *raft.Log {
	return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: fmt.Appendf(nil, "entry %d of term %d %0200d", index, term, index)}
}

func (h *held) store(from, to, term uint64) {
	h.t.Helper()
	for i := from; i <= to; i++ {
		if err := h.StoreLog(entry(i, term)); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *held) apply(to uint64) {
	h.t.Helper()
	index, next := h.LastApplied()
	for index++; index <= to; index++ {
		var e raft.Log
		if err := h.readEntry(index, &e); err != nil {
			h.t.Fatal(err)
		}
		if h.Crosses(index) {
			h.Cross(index, fmt.Append(nil, "state at ", next))
		}
		after, newest := testSpan(&e, next)
		h.Applied(index, after, newest, int64(index))
		next = after
	}
}

// snapshot takes a snapshot of what is applied.
func (h *held) snapshot(term uint64) error {
	index, next := h.LastApplied()
	sink, err := h.Snapshots().Create(1, index, term, raft.Configuration{}, 1, nil)
	if err != nil {
		return err
	}
	sink.(*Sink).SetNext(next)
	fmt.Fprint(sink, "state at ", next)
	return sink.Close()
}

func (h *held) mustSnapshot() {
	h.t.Helper()
	if err := h.snapshot(1); err != nil {
		h.t.Fatal(err)
	}
}

// holds gives an error unless the log, from the first entry that it keeps on, is
// exactly the entries of these terms: terms[i] is that of the entries up to ends[i].
func (h *held) holds(ends, terms []uint64) error {
	if len(h.segments) == 0 {
		return errors.New("nothing is there")
	}
	index := h.segments[0].base
	var wrong error
	err := h.Scan(0, func(e *raft.Log) bool {
		i := 0
		for i < len(ends) && ends[i] < index {
			i++
		}
		if i == len(ends) {
			wrong = fmt.Errorf("entry %d of term %d, behind the last", e.Index, e.Term)
		} else if want := entry(index, terms[i]); e.Index != index || e.Term != terms[i] || !bytes.Equal(e.Data, want.Data) {
			wrong = fmt.Errorf("entry %d of term %d, want %d of term %d", e.Index, e.Term, index, terms[i])
		}
		index++
		return wrong == nil
	})
	if err == nil && wrong == nil && index != ends[len(ends)-1]+1 {
		wrong = fmt.Errorf("ends at entry %d, want %d", index-1, ends[len(ends)-1])
	}
	return errors.Join(err, wrong)
}

// crashes runs do with the power going at each of the operations in it, with some
// chances for what survives, and then check; whole says that do came to its end.
func crashes(t *testing.T, prepare func() *held, do func(*held) error, check func(h *held, whole bool) error) {
	t.Helper()
	for step, whole := 1, false; !whole; step++ {
		for seed := range uint64(4) {
			h := prepare()
			h.left.Store(int64(step))
			err := do(h)
			alive := h.left.Load() > 0
			if whole = err == nil && alive; !whole && alive {
				t.Fatal(err)
			}
			h.crash(seed)
			if err := check(h, whole); err != nil {
				t.Fatalf("power lost at operation %d, seed %d: %v", step, seed, err)
			}
			h.PartitionLog.Close()
			h.st.Close()
		}
	}
}

// hangs on to what Raft's own recovery does: a state machine that only counts.
type counter struct{ h *held }

func (c counter) Apply(e *raft.Log) any {
	if c.h.Crosses(e.Index) {
		c.h.Cross(e.Index, nil)
	}
	_, next := c.h.LastApplied()
	after, newest := testSpan(e, next)
	c.h.Applied(e.Index, after, newest, 1)
	return nil
}
func (c counter) Snapshot() (raft.FSMSnapshot, error) { return c, nil }
func (c counter) Restore(r io.ReadCloser) error       { return r.Close() }
func (c counter) Persist(sink raft.SnapshotSink) error {
	_, next := c.h.LastApplied()
	sink.(*Sink).SetNext(next)
	_, err := sink.Write([]byte("state"))
	return err
}
func (c counter) Release() {}

func raftOf(h *held) (*raft.Config, raft.Configuration, raft.Transport) {
	config := raft.DefaultConfig()
	config.LocalID, config.Logger, config.NoSnapshotRestoreOnStart = "a", hclog.NewNullLogger(), true
	_, transport := raft.NewInmemTransport("a")
	return config, raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}}, transport
}

// copyFrom stages what h lacks of another log, but for the last step.
func copyFrom(t *testing.T, source, h *held) Described {
	t.Helper()
	d, ok := source.Describe(h.SnapshotIndex())
	if !ok {
		t.Fatal("the source has no snapshot")
	}
	s, err := h.Stage(d)
	if err != nil {
		t.Fatal(err)
	}
	for s.Next() <= d.Index {
		b, err := source.AppendEntries(nil, s.Next(), d.Index, 3000)
		if err != nil {
			t.Fatal(err)
		}
		entries, err := ParseEntries(b)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Add(entries); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return d
}
