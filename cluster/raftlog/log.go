package raftlog

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// Span says what an entry of records adds when it stands where the next offset is
// next: the next offset behind it, and the largest timestamp (ms) of its records.
// after == next means nothing: it is no entry of records, or all of it is void.
type Span func(entry *raft.Log, next int64) (after, maxTime int64)

// LogOptions says how a partition's log works.
type LogOptions struct {
	Group string
	// SegmentBytes and SegmentAge end a segment (segment.bytes, segment.ms). They
	// are asked before each append. nil: 1 GiB, never.
	SegmentBytes func() int64
	SegmentAge   func() time.Duration
	Span         Span // needed to make an index again
	// Trailing is how many entries below a snapshot Raft still has after a restart.
	Trailing uint64
	// OnDamage is told, in a goroutine of its own, when Raft wanted an entry that
	// cannot be read while the group runs. See PartitionLog.Abandon.
	OnDamage func(error)
	// Bulk reports whether an entry may be refused because the disk is nearly full:
	// records, but nothing that Raft or retention needs to go on. nil: none may.
	Bulk func(*raft.Log) bool
	// Fresh says that the group may begin here with nothing.
	Fresh bool
}

// ErrLost is in the error of OpenLog when the log should be there and is not.
var ErrLost = errors.New("the log is gone")

// PartitionLog is the log of one partition's group: segments in a folder. It is
// what Raft writes (Log), where the partition's records are read (Read), and
// where its snapshots are kept (Snapshots).
//
// Raft's calls come one at a time. Locks: write before state; neither while the
// journal is waited for is needed by readers.
type PartitionLog struct {
	st    *Store
	dir   string
	opts  LogOptions
	cache *groupCache

	write  sync.Mutex // one changes files: Raft's appends and cuts, snapshots, retention
	buf    []byte     // guarded by write
	err    error      // guarded by write: nothing more is taken
	closed bool       // guarded by write

	state    sync.RWMutex
	manifest *manifest
	segments []*segment // ascending, without a hole; the last is written to
	first    uint64     // Raft's window: FirstIndex
	last     uint64     // LastIndex
	applied  uint64     // highest index applied
	next     int64      // offset behind it
	applying int        // position in segments of the one that is being applied
	marks    []mark     // entries that may become points, ascending, above applied
	ends     []segmentEnd

	cuts   atomic.Uint64 // counts the cuts of the end, each when it begins and when it is made
	cursor atomic.Pointer[cursor]
	spots  spots

	sinceMark int64 // bytes; guarded by write
	lastMark  *segment

	serving atomic.Bool // Raft runs: errors it cannot bear are kept from it
	abandon chan struct{}
	left    sync.Once
	hurt    sync.Once
}

// mark is an entry where an index point may be made once it is applied.
type mark struct {
	seg   *segment
	index uint64
	pos   int64
}

// segmentEnd is the partition's state behind a segment, kept until its index is final.
type segmentEnd struct {
	seg   *segment
	next  int64
	state []byte
}

var _ Log = (*PartitionLog)(nil)

// defaultSegmentBytes is Kafka's default of segment.bytes.
const defaultSegmentBytes = 1 << 30

func (l *PartitionLog) segmentBytes() int64 {
	if l.opts.SegmentBytes == nil {
		return defaultSegmentBytes
	}
	return max(l.opts.SegmentBytes(), 1)
}

// FirstIndex implements raft.LogStore: 0 if Raft's window is empty.
func (l *PartitionLog) FirstIndex() (uint64, error) {
	l.state.RLock()
	defer l.state.RUnlock()
	if l.last < l.first {
		return 0, nil
	}
	return l.first, nil
}

// LastIndex implements raft.LogStore: 0 if Raft's window is empty, as it is when retention has freed everything up
// to the snapshot. Raft reads the entry of that index when it starts, and what is
// not there it takes from the snapshot.
func (l *PartitionLog) LastIndex() (uint64, error) {
	l.state.RLock()
	defer l.state.RUnlock()
	if l.last < l.first {
		return 0, nil
	}
	return l.last, nil
}

// StoreLog implements raft.LogStore.
func (l *PartitionLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore: it returns when the entries are on stable
// storage. After an error nothing of them is in the log.
func (l *PartitionLog) StoreLogs(entries []*raft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	l.write.Lock()
	defer l.write.Unlock()
	if err := l.writable(); err != nil {
		return err
	}
	for i, entry := range entries {
		if want := entries[0].Index + uint64(i); entry.Index != want {
			return fmt.Errorf("raft log entry %d where %d should be", entry.Index, want)
		}
	}
	l.state.RLock()
	want := l.last + 1
	if n := len(l.segments); n == 0 {
		want = max(l.manifest.First, 1)
	} else if l.last == 0 {
		want = l.segments[n-1].base
	}
	l.state.RUnlock()
	if entries[0].Index != want {
		return fmt.Errorf("raft log entry %d where %d should be: there would be a hole", entries[0].Index, want)
	}
	if l.opts.Bulk != nil && l.st.space.short.Load() && slices.ContainsFunc(entries, l.opts.Bulk) {
		return fmt.Errorf("%w: what is left is kept for other than records", vfs.ErrNoSpace)
	}
	flags := uint8(flagCallStart)
	for rest := entries; len(rest) > 0; {
		n, err := l.storeSome(rest, flags)
		if err != nil {
			if first := entries[0].Index; rest[0].Index != first && l.st.failed() == nil {
				err = errors.Join(err, l.cutFrom(first))
			}
			if errors.Is(err, vfs.ErrNoSpace) {
				l.st.space.noteFull()
			}
			return err
		}
		rest, flags = rest[n:], 0
	}
	l.cache.add(entries)
	l.spill()
	return nil
}

// spill writes points of the index that wait in memory: applying entries waits for no disk, and an append
// does so anyway.
func (l *PartitionLog) spill() {
	l.state.RLock()
	var x *index
	if l.applying < len(l.segments) {
		x = l.segments[l.applying].index
	}
	l.state.RUnlock()
	if x == nil {
		return
	}
	if err := x.spill(); err != nil {
		l.st.logger.Warn("a point of an index is not written yet", "file", x.path, "error", err)
	}
}

func (l *PartitionLog) writable() error {
	if l.err != nil {
		return l.err
	}
	return l.st.failed()
}

// storeSome writes as many entries as the segment takes, at least one; the write
// lock is held.
func (l *PartitionLog) storeSome(entries []*raft.Log, flags uint8) (int, error) {
	limit := l.segmentBytes()
	s, err := l.active(entries[0], limit)
	if err != nil {
		return 0, err
	}
	f, err := s.handle.acquire()
	if err != nil {
		return 0, err
	}
	defer s.handle.release()

	var marks []mark
	batch, chain, n := assembly{framing: s.framing, at: s.end, buf: l.buf[:0]}, s.chain, 0
	sinceMark, lastMark := l.sinceMark, l.lastMark
	for _, entry := range entries {
		pos := s.end + batch.size
		if n > 0 && pos+s.framing.size(entry) > limit {
			break
		}
		if lastMark != s || sinceMark >= pointEvery {
			marks = append(marks, mark{s, entry.Index, pos})
			sinceMark, lastMark = 0, s
		}
		if chain, err = batch.add(entry, chain, flags); err != nil {
			return 0, err
		}
		sinceMark += s.framing.size(entry)
		flags = 0
		n++
	}
	if l.buf = batch.buf; cap(l.buf) > 1<<20 {
		l.buf = nil // a burst should not stay in memory for each group
	}
	if err := s.allocate(f, l.st.space, batch.size, max(limit, s.end+batch.size)); err != nil {
		return 0, err
	}
	if err := batch.write(f, s.end); err != nil {
		return 0, l.undo(s, f, err)
	}
	// What is written in pieces is large, and goes straight to its segment.
	if j := l.st.journal; j != nil && batch.pieces == nil && batch.size < int64(l.st.bypass) {
		if err := j.append(s, s.end, batch.buf); err != nil {
			var full errNoRoom
			if errors.As(err, &full) {
				return 0, l.undo(s, f, err)
			}
			l.err = err
			return 0, err
		}
	} else if err := l.st.sync(f); err != nil {
		l.err = err
		return 0, err
	}
	l.state.Lock()
	defer l.state.Unlock()
	if s.firstAt == 0 {
		s.firstAt = nowMillis()
	}
	s.end += batch.size
	s.last = entries[n-1].Index
	s.chain = chain
	l.last = s.last
	l.marks = append(l.marks, marks...)
	l.sinceMark, l.lastMark = sinceMark, lastMark
	return n, nil
}

// assembly puts entries together for one write. The data of large ones are not
// copied.
type assembly struct {
	framing framing
	at      int64 // position in the file

	buf    []byte
	pieces [][]byte // nil: all is in buf
	from   int      // buf up to here is in pieces
	size   int64
}

// pieceBytes is the size from which data are written from where they are.
const pieceBytes = 32 << 10

func (a *assembly) add(entry *raft.Log, chain uint32, flags uint8) (crc uint32, err error) {
	if len(entry.Data) < pieceBytes {
		before := len(a.buf)
		a.buf, crc, err = appendFrame(a.buf, a.framing, a.at+a.size, entry, chain, flags)
		a.size += int64(len(a.buf) - before)
		return crc, err
	}
	if a.buf, crc, err = appendHeader(a.buf, a.framing, a.at+a.size, entry, chain, flags); err != nil {
		return 0, err
	}
	// buf may move when it grows: the pieces keep the array that they are in.
	a.pieces = append(a.pieces, a.buf[a.from:len(a.buf):len(a.buf)], entry.Data)
	a.from = len(a.buf)
	a.buf = append(a.buf, entry.Extensions...)
	a.buf = appendPadding(a.buf, a.framing.header()+len(entry.Data)+len(entry.Extensions))
	a.size += a.framing.size(entry)
	return crc, nil
}

func (a *assembly) write(f vfs.File, at int64) error {
	if a.pieces == nil {
		_, err := f.WriteAt(a.buf, at)
		return err
	}
	if a.from < len(a.buf) {
		a.pieces = append(a.pieces, a.buf[a.from:])
	}
	return f.WriteVector(a.pieces, at)
}

// undo takes back a write that failed half-way. If that fails too, nobody knows
// what the file holds, and the log takes nothing more.
func (l *PartitionLog) undo(s *segment, f vfs.File, cause error) error {
	err := f.Truncate(s.end)
	if err == nil {
		s.allocated = s.end
		err = l.st.sync(f)
	}
	if err != nil {
		l.err = fmt.Errorf("%s: %w, and then: %w", s.path, cause, err)
		return l.err
	}
	return cause
}

// active gives the segment that an entry goes to, a new one if the last is full, too
// old, or of an older format than new ones are; the write lock is held.
func (l *PartitionLog) active(entry *raft.Log, limit int64) (*segment, error) {
	l.state.RLock()
	var s *segment
	if len(l.segments) > 0 {
		s = l.segments[len(l.segments)-1]
	}
	l.state.RUnlock()
	if s != nil {
		full := s.end+s.framing.size(entry) > limit
		old := false
		if l.opts.SegmentAge != nil && s.firstAt != 0 {
			age := l.opts.SegmentAge()
			old = age > 0 && nowMillis()-s.firstAt >= age.Milliseconds()
		}
		before := l.st.stamping() && !s.framing.stamped
		empty := s.last < s.base
		if empty && before && !s.sealed {
			return s, l.rewriteHead(s)
		}
		if !s.sealed && (empty || !full && !old && !before) {
			return s, nil
		}
	}
	return l.roll(entry.Index)
}

// rewriteHead makes a segment that holds nothing one of the format of new ones; the write lock is held.
func (l *PartitionLog) rewriteHead(s *segment) error {
	f, err := s.handle.acquire()
	if err != nil {
		return err
	}
	defer s.handle.release()
	old := s.framing
	l.state.Lock() // readers that stand at its end go on with it
	s.framing = newFraming(true)
	l.state.Unlock()
	if _, err = f.WriteAt(s.header(), 0); err == nil {
		if err = l.st.sync(f); err == nil {
			return nil
		}
	} else {
		// A part of it may be written: the head that was there is put back, as far as that goes.
		l.state.Lock()
		s.framing = old
		l.state.Unlock()
		if _, back := f.WriteAt(s.header(), 0); back == nil {
			return err
		}
	}
	l.err = fmt.Errorf("%s: %w", s.path, err)
	l.st.fail(l.err)
	return l.err
}

// roll ends the last segment and begins another at index; the write lock is held.
func (l *PartitionLog) roll(index uint64) (*segment, error) {
	l.state.RLock()
	var old *segment
	if len(l.segments) > 0 {
		old = l.segments[len(l.segments)-1]
	}
	gen := l.manifest.Generation
	l.state.RUnlock()
	if old != nil {
		if err := l.seal(old); err != nil {
			return nil, err
		}
	}
	s, err := createSegment(l.st.disk, l.dir, index, gen, l.st.stamping())
	if err != nil {
		return nil, err
	}
	if s.index, err = newIndex(l.st.disk, s); err != nil {
		s.handle.drop()
		l.st.unmake(s.path)
		return nil, err
	}
	l.state.Lock()
	defer l.state.Unlock()
	if old != nil {
		old.sealed = true
	} else {
		l.first = index
	}
	if l.applying == len(l.segments) {
		s.start = l.next
	}
	l.segments = append(l.segments, s)
	return s, nil
}

// seal brings a segment that is complete to stable storage and gives back what
// was allocated ahead.
func (l *PartitionLog) seal(s *segment) error {
	f, err := s.handle.acquire()
	if err != nil {
		return err
	}
	defer s.handle.release()
	if s.allocated > s.end {
		if err := f.Truncate(s.end); err != nil {
			return err
		}
		s.allocated = s.end
	}
	return l.st.sync(f)
}

// Close brings everything to stable storage and closes the files. Raft must be
// down.
func (l *PartitionLog) Close() error {
	l.Abandon()
	l.write.Lock()
	defer l.write.Unlock()
	l.state.Lock()
	segments := l.segments
	l.segments = nil
	l.state.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	var err error
	var last *segment
	for i, s := range segments {
		if i == len(segments)-1 {
			// The journal will not sync it any more.
			last = s
			err = s.flush(l.st.disk)
		}
		s.handle.drop()
		if s.index != nil {
			s.index.handle.drop()
		}
	}
	var end *closedEnds
	if last != nil && err == nil && l.err == nil {
		end = &closedEnds{last.id.Load(), last.last}
	}
	l.st.ledger.ended(l.dir, end)
	if l.err == nil {
		l.err = errClosed
	}
	return err
}
