package raftlog

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
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

	write sync.Mutex // one changes files: Raft's appends and cuts, snapshots, retention
	buf   []byte     // guarded by write
	err   error      // guarded by write: nothing more is taken

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

	cuts   atomic.Uint64 // how often the end was cut off
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

// FirstIndex implements raft.LogStore.
func (l *PartitionLog) FirstIndex() (uint64, error) {
	l.state.RLock()
	defer l.state.RUnlock()
	if l.last == 0 {
		return 0, nil
	}
	return l.first, nil
}

// LastIndex implements raft.LogStore.
func (l *PartitionLog) LastIndex() (uint64, error) {
	l.state.RLock()
	defer l.state.RUnlock()
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
	return nil
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
	s, err := l.active(entries[0].Index, frameSize(entries[0]), limit)
	if err != nil {
		return 0, err
	}
	f, err := s.handle.acquire()
	if err != nil {
		return 0, err
	}
	defer s.handle.release()

	var marks []mark
	batch, chain, n := assembly{buf: l.buf[:0]}, s.chain, 0
	sinceMark, lastMark := l.sinceMark, l.lastMark
	for _, entry := range entries {
		pos := s.end + batch.size
		if n > 0 && pos+frameSize(entry) > limit {
			break
		}
		if lastMark != s || sinceMark >= pointEvery {
			marks = append(marks, mark{s, entry.Index, pos})
			sinceMark, lastMark = 0, s
		}
		if chain, err = batch.add(entry, chain, flags); err != nil {
			return 0, err
		}
		sinceMark += frameSize(entry)
		flags = 0
		n++
	}
	if l.buf = batch.buf; cap(l.buf) > 1<<20 {
		l.buf = nil // a burst should not stay in memory for each group
	}
	if err := s.allocate(f, batch.size, max(limit, s.end+batch.size)); err != nil {
		return 0, err
	}
	if err := batch.write(f, s.end); err != nil {
		return 0, l.undo(s, f, err)
	}
	// What is written in pieces is large, and goes straight to its segment.
	if j := l.st.journal; j != nil && batch.pieces == nil && batch.size < int64(l.st.opts.BypassBytes) {
		if err := j.append(s, s.end, batch.buf); err != nil {
			l.err = err
			return 0, err
		}
	} else if err := l.st.sync(f); err != nil {
		l.err = fmt.Errorf("sync %s: %w", s.path, err)
		l.st.fail(l.err)
		return 0, l.err
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
		a.buf, crc, err = appendFrame(a.buf, entry, chain, flags)
		a.size += int64(len(a.buf) - before)
		return crc, err
	}
	if a.buf, crc, err = appendHeader(a.buf, entry, chain, flags); err != nil {
		return 0, err
	}
	// buf may move when it grows: the pieces keep the array that they are in.
	a.pieces = append(a.pieces, a.buf[a.from:len(a.buf):len(a.buf)], entry.Data)
	a.from = len(a.buf)
	a.buf = append(a.buf, entry.Extensions...)
	a.buf = appendPadding(a.buf, frameHeader+len(entry.Data)+len(entry.Extensions))
	a.size += frameSize(entry)
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

// active gives the segment that an entry of that size goes to, a new one if the
// last is full, or too old; the write lock is held.
func (l *PartitionLog) active(index uint64, size, limit int64) (*segment, error) {
	l.state.RLock()
	var s *segment
	if len(l.segments) > 0 {
		s = l.segments[len(l.segments)-1]
	}
	l.state.RUnlock()
	if s != nil {
		full := s.end+size > limit
		old := false
		if l.opts.SegmentAge != nil && s.firstAt != 0 {
			age := l.opts.SegmentAge()
			old = age > 0 && nowMillis()-s.firstAt >= age.Milliseconds()
		}
		if empty := s.last < s.base; !s.sealed && (empty || !full && !old) {
			return s, nil
		}
	}
	return l.roll(index)
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
	s, err := createSegment(l.st, l.dir, index, gen)
	if err != nil {
		return nil, err
	}
	if s.index, err = newIndex(l.st, s); err != nil {
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
	if err := l.st.sync(f); err != nil {
		l.err = fmt.Errorf("sync %s: %w", s.path, err)
		l.st.fail(l.err)
		return l.err
	}
	return nil
}

// DeleteRange implements raft.LogStore. The head of the log only leaves Raft's
// window: its bytes are the partition's (invariant 1). The end is cut off, but
// never what is applied (invariant 5).
func (l *PartitionLog) DeleteRange(from, to uint64) error {
	l.write.Lock()
	defer l.write.Unlock()
	l.state.Lock()
	first, last, applied := l.first, l.last, l.applied
	if to <= applied || to > last && from <= applied {
		if from > first {
			l.state.Unlock()
			return fmt.Errorf("raft log: cannot delete %d to %d: %d to %d is applied", from, to, first, applied)
		}
		l.first = max(first, min(to, applied)+1)
		l.state.Unlock()
		return nil
	}
	l.state.Unlock()
	switch {
	case from <= applied:
		return fmt.Errorf("raft log: cannot delete %d to %d: up to %d it is applied", from, to, applied)
	case to < last:
		return fmt.Errorf("raft log: cannot delete %d to %d out of the middle of %d to %d", from, to, first, last)
	case from > last:
		return nil
	}
	if err := l.writable(); err != nil {
		return err
	}
	return l.cutFrom(from)
}

// cutFrom removes the entries from index from on; the write lock is held.
func (l *PartitionLog) cutFrom(from uint64) error {
	l.state.RLock()
	applied, segments := l.applied, slices.Clone(l.segments)
	l.state.RUnlock()
	if from <= applied {
		return fmt.Errorf("raft log: entry %d is applied and cannot be cut off", from)
	}
	// Whole segments first, the newest first: at any moment there is no hole.
	for len(segments) > 1 && segments[len(segments)-1].base >= from {
		s := segments[len(segments)-1]
		segments = segments[:len(segments)-1]
		l.publishCut(segments, s.base-1)
		if err := l.remove(s); err != nil {
			l.err = err
			return err
		}
	}
	if len(segments) == 0 {
		return nil
	}
	s := segments[len(segments)-1]
	if from > s.last {
		return nil
	}
	f, err := s.handle.acquire()
	if err != nil {
		return err
	}
	defer s.handle.release()
	end, chain, err := l.endOf(s, f, from-1)
	if err != nil {
		return err
	}
	l.publishCut(segments, from-1)
	if err := s.cut(l.st, f, end); err != nil {
		l.err = fmt.Errorf("cut %s: %w", s.path, err)
		return l.err
	}
	l.state.Lock() // readers look at the end
	s.last, s.end, s.chain, s.allocated = from-1, end, chain, end
	s.sealed = false
	l.state.Unlock()
	return nil
}

// publishCut makes readers see the log end at last, before its bytes go.
func (l *PartitionLog) publishCut(segments []*segment, last uint64) {
	l.cache.forget(last + 1)
	l.state.Lock()
	defer l.state.Unlock()
	l.segments, l.last = slices.Clone(segments), last
	l.applying = min(l.applying, max(len(segments)-1, 0))
	i := sort.Search(len(l.marks), func(i int) bool { return l.marks[i].index > last })
	l.marks = l.marks[:i]
	l.lastMark = nil
	l.cuts.Add(1)
}

// remove deletes a segment's files.
func (l *PartitionLog) remove(s *segment) error {
	s.handle.drop()
	if s.index != nil {
		s.index.handle.drop()
		l.st.fs.Remove(s.index.path)
	}
	if err := l.st.fs.Remove(s.path); err != nil {
		return err
	}
	return l.st.fs.SyncDir(l.dir)
}

// endOf gives where the entry at index, or the segment's head, ends, and its CRC.
func (l *PartitionLog) endOf(s *segment, f vfs.File, index uint64) (pos int64, chain uint32, err error) {
	if index < s.base {
		return segmentHeader, s.seed, nil
	}
	w, err := l.walkTo(s, f, index, frameHeader)
	if err != nil {
		return 0, 0, err
	}
	fr, _, err := w.next()
	if err != nil {
		return 0, 0, err
	}
	return w.pos, fr.crc, nil
}

// walkTo gives a walker at the entry of that index.
func (l *PartitionLog) walkTo(s *segment, f vfs.File, index uint64, chunk int) (*walker, error) {
	l.state.RLock()
	end := s.end
	at := point{index: s.base, pos: segmentHeader}
	if i := sort.Search(len(l.marks), func(i int) bool { return l.marks[i].index > index }); i > 0 && l.marks[i-1].seg == s {
		at.index, at.pos = l.marks[i-1].index, l.marks[i-1].pos
	}
	x := s.index
	l.state.RUnlock()
	if at.index == s.base && x != nil {
		if p, ok, err := x.floor(func(p point) bool { return p.index > index }); err == nil && ok {
			at = p
		} // a damaged index costs time here, no more
	}
	w := newWalker(f, at.pos, end, max(chunk, pointEvery))
	for {
		if w.pos >= end {
			return nil, fmt.Errorf("%w: entry %d is not in %s", ErrDamaged, index, filepath.Base(s.path))
		}
		fr, err := w.peek()
		switch {
		case err != nil:
			return nil, err
		case fr.index == index:
			return w, nil
		case fr.index > index:
			return nil, fmt.Errorf("%w: entry %d where %d should be", ErrDamaged, fr.index, index)
		}
		w.skip(fr)
	}
}

// find gives the segment that holds the entry; the state lock is held.
func (l *PartitionLog) find(index uint64) *segment {
	i := sort.Search(len(l.segments), func(i int) bool { return l.segments[i].base > index })
	if i == 0 {
		return nil
	}
	return l.segments[i-1]
}

// GetLog implements raft.LogStore. Below Raft's window there is nothing, though
// the bytes are there.
func (l *PartitionLog) GetLog(index uint64, out *raft.Log) error {
	if entry := l.cache.get(index); entry != nil {
		l.state.RLock()
		there := index >= l.first && index <= l.last
		l.state.RUnlock()
		if there {
			if l.cursor.Load() != nil {
				l.cursor.Store(nil) // caught up: its buffer is not needed
			}
			*out = *entry
			return nil
		}
	}
	l.state.RLock()
	there := index >= l.first && index <= l.last && l.last > 0
	l.state.RUnlock()
	if !there {
		return raft.ErrLogNotFound
	}
	err := l.readEntry(index, out)
	if err == nil || errors.Is(err, raft.ErrLogNotFound) || !l.serving.Load() {
		return err
	}
	// Raft panics when it cannot read what it is to apply (invariant 9). It waits
	// here until the group is closed, when nothing it sends leaves the node any
	// more, and then gets an entry that does nothing.
	l.hurt.Do(func() {
		if l.opts.OnDamage != nil {
			go l.opts.OnDamage(err)
		}
	})
	<-l.abandon
	*out = raft.Log{Index: index, Type: raft.LogNoop}
	return nil
}

// Serving says that Raft runs: from now on what cannot be read is told to
// OnDamage and not to Raft.
func (l *PartitionLog) Serving() { l.serving.Store(true) }

// Abandon lets go of calls of Raft that wait at damage. The group's transport
// must be closed and its shutdown begun: what they get is not what was written.
func (l *PartitionLog) Abandon() { l.left.Do(func() { close(l.abandon) }) }

// readEntry reads an entry from its file.
func (l *PartitionLog) readEntry(index uint64, out *raft.Log) error {
	for {
		l.state.RLock()
		s := l.find(index)
		l.state.RUnlock()
		if s == nil {
			return raft.ErrLogNotFound
		}
		f, err := s.handle.acquire()
		if errors.Is(err, errGone) {
			continue // cut or trimmed this moment: look again
		}
		if err != nil {
			return err
		}
		defer s.handle.release()
		w := l.takeCursor(index)
		if w == nil || w.seg != s {
			cuts := l.cuts.Load()
			inner, err := l.walkTo(s, f, index, walkChunk)
			if err != nil {
				return err
			}
			w = &cursor{walker: *inner, seg: s, cuts: cuts}
		}
		w.f = f
		l.state.RLock()
		w.limit = s.end
		l.state.RUnlock()
		fr, b, err := w.next()
		if err != nil {
			return err
		}
		if fr.index != index {
			return fmt.Errorf("%w: entry %d where %d should be", ErrDamaged, fr.index, index)
		}
		*out = fr.entry(slices.Clone(b))
		w.index = index + 1
		l.cursor.Store(w)
		return nil
	}
}

// Scan implements Log: all entries there are, also those below Raft's window.
func (l *PartitionLog) Scan(from uint64, fn func(*raft.Log) bool) error {
	l.state.RLock()
	if len(l.segments) > 0 {
		from = max(from, l.segments[0].base)
	}
	l.state.RUnlock()
	for index := from; ; index++ {
		entry := new(raft.Log)
		l.state.RLock()
		over := index > l.last
		l.state.RUnlock()
		if over {
			return nil
		}
		if err := l.readEntry(index, entry); err != nil {
			if errors.Is(err, raft.ErrLogNotFound) {
				return nil
			}
			return err
		}
		if !fn(entry) {
			return nil
		}
	}
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
	var err error
	for i, s := range segments {
		if i == len(segments)-1 {
			// The journal will not sync it any more.
			if serr := s.flush(l.st); serr != nil {
				l.st.fail(fmt.Errorf("sync %s: %w", s.path, serr))
				err = serr
			}
		}
		s.handle.drop()
		if s.index != nil {
			s.index.handle.drop()
		}
	}
	if l.err == nil {
		l.err = errClosed
	}
	return err
}

// cursor is a walker that stands in front of the entry at index.
type cursor struct {
	walker
	seg   *segment
	index uint64
	cuts  uint64 // how often the log had been cut when it was made
}

// takeCursor gives the place where Raft read last, if that is in front of index:
// Raft reads one entry after the other.
func (l *PartitionLog) takeCursor(index uint64) *cursor {
	c := l.cursor.Swap(nil)
	if c == nil || c.index != index || c.cuts != l.cuts.Load() {
		return nil
	}
	return c
}
