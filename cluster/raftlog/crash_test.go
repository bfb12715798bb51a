package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// A crash run does random things to the logs of two raft groups on a file system that
// loses power at a random operation, opens them again and compares with what was
// acknowledged. Each seed is one run of several lives.

// modelLog is what a log should hold.
type modelLog struct {
	name     string
	entries  map[uint64]*raft.Log // acknowledged
	last     uint64
	applied  uint64
	next     int64
	snapshot uint64
	kept     uint64 // entries from here on must be there
	inFlight []*raft.Log
	cutting  uint64 // a cut from here on is under way
	term     uint64
}

const crashRuns = 300

func crashSeeds(t *testing.T) int {
	if s := os.Getenv("CRASH_RUNS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if testing.Short() {
		return crashRuns / 10
	}
	return crashRuns
}

// crashStart is the first seed.
func crashStart(t *testing.T) uint64 {
	s := os.Getenv("CRASH_SEED")
	if s == "" {
		return 1
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCrashes(t *testing.T) {
	start := crashStart(t)
	for seed := start; seed < start+uint64(crashSeeds(t)); seed++ {
		if err := crashRun(seed); err != nil {
			t.Fatalf("seed %d (CRASH_SEED=%d CRASH_RUNS=1 repeats it): %v", seed, seed, err)
		}
	}
}

// testSpan reads entries as the tests write them: every command adds as many
// offsets as it has bytes, and its index is its timestamp.
func testSpan(entry *raft.Log, next int64) (after, maxTime int64) {
	if c := Compacted(entry); c.Compacted {
		return c.After, int64(entry.Index)
	}
	if entry.Type != raft.LogCommand {
		return next, 0
	}
	return next + int64(len(entry.Data)), int64(entry.Index)
}

func crashRun(seed uint64) error {
	random := rand.New(rand.NewPCG(seed, 1))
	mem := vfs.NewMem()
	mem.MkdirAll("/data")
	mem.SyncDir("/")
	models := []*modelLog{}
	for i := range 2 {
		models = append(models, &modelLog{name: fmt.Sprint("group-", i), entries: map[uint64]*raft.Log{}, kept: 1, term: 1})
	}
	// Small journals are used again often.
	opts := Options{JournalBytes: 1 << (10 + random.IntN(4)), BypassBytes: 700, CacheBytes: 1 << 10, ReserveBytes: -1}
	if random.IntN(4) == 0 {
		opts.JournalBytes = -1
	}
	opts.Format = 1 + random.IntN(segmentFormat)
	for life := range 4 {
		var left atomic.Int64
		left.Store(int64(5 + random.IntN(150)))
		stop := life < 3
		mem.OnStep(func(string, string) {
			if left.Add(-1) == 0 && stop {
				mem.Stop()
			}
		})
		opts.FS = mem
		err := live(opts, models, random)
		if err != nil && !errors.Is(err, errPower) {
			return fmt.Errorf("life %d: %w", life, err)
		}
		mem.OnStep(nil)
		mem = mem.Crash(random)
		if err := verifies(mem, models); err != nil {
			return fmt.Errorf("after life %d: %w", life, err)
		}
	}
	return nil
}

// verifies gives what Archive.Verify says is wrong with what a crash left, which is sound.
func verifies(mem *vfs.Mem, models []*modelLog) error {
	a, err := OpenArchiveOn(mem, "/data")
	if err != nil {
		return err
	}
	if a.JournalErr != nil {
		return a.JournalErr
	}
	for _, m := range models {
		_, bad := a.Verify(m.name, testSpan, nil, nil)
		if len(bad) > 0 && !(m.last == 0 && errors.Is(bad[0], ErrLost)) {
			return fmt.Errorf("verify says that %s is wrong: %w", m.name, errors.Join(bad...))
		}
	}
	return nil
}

var errPower = errors.New("the power went")

// live opens everything, checks it, and does random things until the power goes.
func live(opts Options, models []*modelLog, random *rand.Rand) error {
	gone := func(err error) error {
		if errors.Is(err, os.ErrClosed) {
			return errPower
		}
		return err
	}
	foretold, err := OpenArchiveOn(opts.FS, "/data")
	if err != nil {
		return gone(err)
	}
	ends := make([]LogEnd, len(models))
	for i, m := range models {
		if ends[i], err = foretold.End(m.name, testSpan, nil); err != nil && !errors.Is(err, ErrLost) {
			return gone(err)
		}
	}
	st, err := OpenStore("/data", opts)
	if err != nil {
		return gone(err)
	}
	defer st.Close()
	logs := make([]*PartitionLog, len(models))
	for i, m := range models {
		l, err := st.OpenLog(filepath.Join(st.Groups(), m.name), LogOptions{
			Group: m.name, Span: testSpan, Trailing: 3, Fresh: true,
			SegmentBytes: func() int64 { return 2000 },
		})
		if err != nil {
			return gone(err)
		}
		defer l.Close()
		if err := ends[i].is(l); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if err := m.compare(l); err != nil {
			return gone(err)
		}
		logs[i] = l
	}
	upgrade := random.IntN(120)
	for n := range 60 {
		if n == upgrade {
			st.Upgrade()
		}
		i := random.IntN(len(models))
		if err := models[i].step(logs[i], random); err != nil {
			return gone(err)
		}
	}
	for i, m := range models {
		if err := m.compare(logs[i]); err != nil {
			return gone(err)
		}
	}
	return nil
}

// is gives an error if an opened log does not end as was foretold.
func (e LogEnd) is(l *PartitionLog) error {
	last, _ := l.LastIndex()
	var entry raft.Log
	if last > l.SnapshotIndex() {
		if err := l.GetLog(last, &entry); err != nil {
			return err
		}
	}
	if last = max(last, l.SnapshotIndex()); e.Index != last || entry.Term != 0 && e.Term != entry.Term || e.Snapshot != l.SnapshotIndex() {
		return fmt.Errorf("it ends at entry %d of term %d, its snapshot at %d; foretold was %d, %d, %d", last, entry.Term, l.SnapshotIndex(), e.Index, e.Term, e.Snapshot)
	}
	return nil
}

func (m *modelLog) compare(l *PartitionLog) error {
	if err := asRaftStarts(l); err != nil {
		return fmt.Errorf("%s: as Raft starts: %w", m.name, err)
	}
	last, _ := l.LastIndex()
	last = max(last, l.SnapshotIndex())
	// What was under way may be there, as far as its beginning goes.
	for _, entry := range m.inFlight {
		if entry.Index <= last {
			m.entries[entry.Index] = entry
			m.last = max(m.last, entry.Index)
		}
	}
	m.inFlight = nil
	if m.cutting != 0 && last < m.last {
		if last < m.cutting-1 {
			return fmt.Errorf("%s: cut at %d, and the log ends at %d", m.name, m.cutting, last)
		}
		for index := last + 1; index <= m.last; index++ {
			delete(m.entries, index)
		}
		m.last = last
	}
	m.cutting = 0
	if last != m.last {
		return fmt.Errorf("%s: the log ends at %d, want %d", m.name, last, m.last)
	}
	if s := l.SnapshotIndex(); s < m.snapshot {
		return fmt.Errorf("%s: snapshot %d, want %d", m.name, s, m.snapshot)
	} else {
		m.snapshot = s
	}
	index := m.kept
	var infos = l.Segments()
	if len(infos) > 0 && infos[0].Base > index && infos[0].Base <= m.snapshot+1 {
		index = infos[0].Base // a trim that was under way
		m.kept = index
	}
	err := l.Scan(index, func(entry *raft.Log) bool {
		if entry.Index != index {
			return false
		}
		want := m.entries[index]
		if want == nil || want.Term != entry.Term || want.Type != entry.Type || !bytes.Equal(want.Data, entry.Data) {
			return false
		}
		index++
		return true
	})
	if err != nil {
		return err
	}
	if index != m.last+1 && m.last > 0 {
		return fmt.Errorf("%s: entry %d is not what was stored", m.name, index)
	}
	// Apply again what the snapshot does not have, and read by offset.
	applied, next := l.LastApplied()
	for index := applied + 1; index <= m.applied; index++ {
		next = m.apply(l, index, next)
	}
	if m.applied < applied {
		m.applied = applied
	}
	m.next = next
	return m.read(l)
}

func (m *modelLog) apply(l *PartitionLog, index uint64, next int64) int64 {
	entry := m.entries[index]
	if entry.Type != raft.LogCommand {
		return next
	}
	if l.Crosses(index) {
		l.Cross(index, fmt.Append(nil, "state at ", next))
	}
	after, newest := testSpan(entry, next)
	l.Applied(index, after, newest, int64(index))
	return after
}

// read looks for some records by offset and by time.
func (m *modelLog) read(l *PartitionLog) error {
	infos := l.Segments()
	if len(infos) == 0 || infos[0].Start < 0 {
		return nil
	}
	for offset := infos[0].Start; offset < m.next; offset += 1 + (m.next-infos[0].Start)/7 {
		r, err := l.ReadAt(offset, 100)
		if err != nil {
			return fmt.Errorf("%s: offset %d: %w", m.name, offset, err)
		}
		for {
			entry, err := r.Next(m.applied)
			if err != nil {
				r.Close()
				return fmt.Errorf("%s: offset %d: %w", m.name, offset, err)
			}
			next, _ := testSpan(&entry, r.Expected())
			r.Passed(next)
			if next > offset {
				break
			}
		}
		r.Close()
	}
	return nil
}

func (m *modelLog) step(l *PartitionLog, random *rand.Rand) error {
	switch random.IntN(10) {
	default: // store
		m.term += uint64(random.IntN(3) / 2)
		var entries []*raft.Log
		for i := range 1 + random.IntN(4) {
			size := random.IntN(200)
			if random.IntN(5) == 0 {
				size = random.IntN(1500)
				if random.IntN(8) == 0 {
					size += pieceBytes
				}
			}
			kind := raft.LogCommand
			if random.IntN(6) == 0 {
				kind = raft.LogNoop
			}
			data := make([]byte, size)
			for i := range data {
				data[i] = byte(random.Uint32())
			}
			// a client's that knows how the log is written
			if l.st.stamping() && random.IntN(3) == 0 {
				data = forgedEntries(random, m.last+1, 0, size)
			}
			entries = append(entries, &raft.Log{Index: m.last + 1 + uint64(i), Term: m.term, Type: kind, Data: data})
		}
		m.inFlight = entries
		if err := l.StoreLogs(entries); err != nil {
			return err
		}
		for _, entry := range entries {
			m.entries[entry.Index] = entry
		}
		m.last += uint64(len(entries))
		m.inFlight = nil
	case 0, 1: // apply
		if m.applied < m.last {
			to := m.applied + 1 + random.Uint64N(m.last-m.applied)
			for index := m.applied + 1; index <= to; index++ {
				m.next = m.apply(l, index, m.next)
			}
			m.applied = to
			return m.read(l)
		}
	case 2: // cut
		if m.applied < m.last {
			from := m.applied + 1 + random.Uint64N(m.last-m.applied)
			m.cutting = from
			if err := l.DeleteRange(from, m.last); err != nil {
				return err
			}
			for index := from; index <= m.last; index++ {
				delete(m.entries, index)
			}
			m.last, m.cutting = from-1, 0
			m.term++
		}
	case 3: // snapshot
		if m.applied > m.snapshot {
			sink, err := l.Snapshots().Create(1, m.applied, m.term, raft.Configuration{}, 1, nil)
			if err != nil {
				return err
			}
			at, index := l.Standing(m.next), m.applied
			fmt.Fprint(sink, "state at ", m.next)
			// while it is written
			for more := random.IntN(2) * random.IntN(9); more > 0 && m.applied < m.last; more-- {
				m.applied++
				m.next = m.apply(l, m.applied, m.next)
			}
			sink.(*Sink).SetStanding(at)
			if err := sink.Close(); err != nil {
				return err
			}
			m.snapshot = index
			first, _ := l.FirstIndex()
			if m.snapshot > first {
				return l.DeleteRange(first, m.snapshot-1)
			}
		}
	case 4: // retention
		if m.next > 0 {
			start := random.Int64N(m.next + 1)
			if random.IntN(3) == 0 {
				start = m.next
				if err := l.EndSegment(start, m.applied, []byte("all below")); err != nil {
					return err
				}
			}
			if _, err := l.Trim(start, 0); err != nil {
				return err
			}
			if infos := l.Segments(); len(infos) > 0 {
				m.kept = infos[0].Base
			}
		}
	}
	return nil
}
