package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// recovery finds out what a log is from what is on the disk. One goroutine has it, and nobody else
// knows the log yet.
type recovery struct {
	*home
	manifest *manifest
	segments segmentList
	window
	progress
}

// recoverLog brings a log to what is on the disk, or makes a new one. Its first entry stands where
// the next offset is start, unless a snapshot says otherwise.
func recoverLog(h *home, start int64) (*view, error) {
	l := &recovery{home: h}
	if err := h.st.suspected(h.dir); err != nil {
		return nil, err
	}
	m, err := readManifest(h.st.disk, h.dir)
	if err != nil {
		return nil, err
	}
	if m == nil {
		if m, err = l.begin(); err != nil {
			return nil, err
		}
	}
	if m.Group != h.opts.Group {
		return nil, fmt.Errorf("%s is that of %s", h.dir, m.Group)
	}
	l.manifest, l.next = m, start
	// What was not passed by an applied entry of commands has no final index.
	l.applying = max(0, slices.IndexFunc(m.Segments, func(r segmentRecord) bool { return !r.Final }))
	if len(m.Segments) > 0 && m.Segments[len(m.Segments)-1].Final {
		l.applying = len(m.Segments) // Retention or a copy: the next one
	}
	if err := l.recover(); err != nil {
		l.segments.drop()
		return nil, err
	}
	return &view{manifest: l.manifest, segments: l.segments, window: l.window, progress: l.progress}, nil
}

// begin makes the folder of a log that is new here.
func (l *recovery) begin() (*manifest, error) {
	entries, err := l.st.fs.List(l.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if e.Name == "raft.db" {
			return nil, fmt.Errorf("%s was written by an older version of the program, which this one does not read", filepath.Join(l.dir, e.Name))
		}
		if _, ok := parseSegmentName(e.Name); ok {
			return nil, fmt.Errorf("%w: there are segments and no manifest", ErrLost)
		}
	}
	if !l.opts.Fresh {
		return nil, ErrLost
	}
	if err := l.st.fs.MkdirAll(l.dir); err != nil {
		return nil, err
	}
	if err := l.st.syncDir(filepath.Dir(l.dir)); err != nil {
		return nil, err
	}
	m := &manifest{Group: l.opts.Group, Generation: 1}
	return m, m.write(l.st.disk, l.dir)
}

// recover brings the log to what is on the disk.
func (l *recovery) recover() error {
	m := l.manifest
	if err := l.collect(); err != nil {
		return err
	}
	at, pos, err := l.checkpoint()
	if err != nil {
		return err
	}
	for i := at; i < len(l.segments); i++ {
		s := l.segments[i]
		if i > at {
			pos = segmentHeader
			s.last, s.end, s.chain = s.base-1, segmentHeader, s.seed
		}
		if err := l.readBack(i, pos); err != nil {
			return err
		}
	}
	if n := len(l.segments); n > 0 {
		l.last = l.segments[n-1].last
		l.first = l.segments[0].base
		if l.last < l.first && n == 1 && m.Snapshot == nil {
			l.last = 0 // nothing was ever stored
			if l.first > max(m.First, 1) {
				return fmt.Errorf("%w: the log begins at entry %d and is empty", ErrDamaged, l.first)
			}
		}
	}
	if s := m.Snapshot; s != nil {
		if l.last < s.Index {
			return fmt.Errorf("%w: the log ends at entry %d, below its snapshot of entry %d", ErrDamaged, l.last, s.Index)
		}
		if keep := s.Index - min(s.Index, l.opts.Trailing); keep >= l.first {
			l.first = keep + 1
		}
		l.first = max(l.first, m.Compacted.First)
		l.applied, l.next = s.Index, s.Next
		if l.applying < len(l.segments) && l.segments[l.applying].start == unknownOffset {
			l.segments[l.applying].start = l.next
		}
	}
	if err := l.openIndexes(); err != nil {
		return err
	}
	return l.sweep()
}

// collect finds the segments that belong to the log.
func (l *recovery) collect() error {
	m := l.manifest
	entries, err := l.st.fs.List(l.dir)
	if err != nil {
		return err
	}
	sizes := map[string]int64{}
	for _, e := range entries {
		sizes[e.Name] = e.Size
	}
	var beyond uint64 // listed up to here
	for _, r := range m.Segments {
		name := r.id().name()
		size, ok := sizes[name]
		if !ok {
			return fmt.Errorf("%w: %s is missing", ErrDamaged, name)
		}
		s := &segment{base: r.Base, gen: r.Generation, rewrite: r.Rewrite, start: r.Start, maxTime: r.MaxTime, lastWrite: r.LastWrite, allocated: size}
		if r.Last != 0 {
			if size < r.End {
				return fmt.Errorf("%w: %s has %d bytes, want %d", ErrDamaged, name, size, r.End)
			}
			s.last, s.end, s.chain, s.sealed = r.Last, r.End, r.Chain, true
		}
		if err := l.identify(s, name); err != nil {
			return err
		}
		l.segments = append(l.segments, s)
		beyond = r.Base
	}
	for _, e := range entries {
		id, ok := parseSegmentName(e.Name)
		if !ok || id.gen != m.Generation || id.rewrite != 0 || id.base <= beyond || id.base < m.First {
			continue
		}
		s := &segment{base: id.base, gen: id.gen, start: unknownOffset, maxTime: noTime, allocated: e.Size}
		if err := l.identify(s, e.Name); err != nil {
			// A crash while it was made, if it is the last and nothing was stored in it.
			if errors.Is(err, ErrDamaged) && e.Name == lastSegment(entries, m.Generation) && s.holdsNothing() {
				s.handle.drop()
				continue
			}
			return err
		}
		l.segments = append(l.segments, s)
	}
	for i := 1; i < len(l.segments); i++ {
		if before := l.segments[i-1]; before.sealed && l.segments[i].base != before.last+1 {
			return fmt.Errorf("%w: a hole between entries %d and %d", ErrDamaged, before.last, l.segments[i].base)
		}
	}
	return nil
}

func lastSegment(entries []vfs.Entry, gen uint32) (name string) {
	for _, e := range entries {
		if id, ok := parseSegmentName(e.Name); ok && id.gen == gen && id.rewrite == 0 {
			name = e.Name
		}
	}
	return name
}

// holdsNothing reports whether there are only zeros behind the head.
func (s *segment) holdsNothing() bool {
	f, err := s.handle.acquire()
	if err != nil {
		return false
	}
	defer s.handle.release()
	buf := make([]byte, walkChunk)
	for at := int64(segmentHeader); at < s.allocated; {
		n, err := f.ReadAt(buf, at)
		if !allZero(buf[:n]) || err != nil && !errors.Is(err, io.EOF) {
			return false
		}
		if n == 0 {
			break
		}
		at += int64(n)
	}
	return true
}

// identify reads the head of a segment file.
func (l *recovery) identify(s *segment, name string) error {
	s.path = filepath.Join(l.dir, name)
	s.handle.init(l.st.disk, s.path, nil)
	f, err := s.handle.acquire()
	if err != nil {
		return err
	}
	defer s.handle.release()
	head, err := readSegmentHeader(s.path, f)
	if err != nil {
		return err
	}
	if head.base != s.base || head.gen != s.gen {
		return fmt.Errorf("%w: %s says that it is segment %d of generation %d", ErrDamaged, name, head.base, head.gen)
	}
	s.id.Store(head.id)
	s.seed, s.framing = head.seed, head.framing
	return nil
}

// checkpoint gives the segment and the position from where the log is read: all
// in front of it was read before a snapshot was published.
func (l *recovery) checkpoint() (at int, pos int64, err error) {
	if len(l.segments) == 0 {
		return 0, 0, nil
	}
	snapshot := l.manifest.Snapshot
	if snapshot == nil {
		s := l.segments[0]
		s.last, s.end, s.chain, s.sealed = s.base-1, segmentHeader, s.seed, false
		s.start = l.next
		return 0, segmentHeader, nil
	}
	for i, s := range l.segments {
		if s.base == snapshot.Segment {
			// A sealed one is read to the end that the manifest names, or beyond if it
			// was not sealed then.
			s.last, s.chain = snapshot.Index, snapshot.Chain
			if !s.sealed {
				s.end = snapshot.Pos
			}
			return i, snapshot.Pos, nil
		}
	}
	if s := l.segments[0]; s.base == snapshot.Index+1 {
		// Retention has freed the segment that ended with the snapshot.
		s.last, s.end, s.chain, s.sealed = s.base-1, segmentHeader, s.seed, false
		s.start = snapshot.Next
		return 0, segmentHeader, nil
	}
	return 0, 0, fmt.Errorf("%w: the segment of entry %d, where the snapshot is, is not there", ErrDamaged, snapshot.Index)
}

// readBack reads segment i from pos to its end, notes where index points may be
// made, and cuts off what is torn.
func (l *recovery) readBack(i int, pos int64) error {
	s := l.segments[i]
	f, err := s.handle.acquire()
	if err != nil {
		return err
	}
	defer s.handle.release()
	limit := s.allocated
	listed := s.sealed // the manifest says where it ends
	lastListed := s.last
	if listed && l.manifest.Snapshot != nil && s.base == l.manifest.Snapshot.Segment {
		lastListed = l.recordedLast(s.base)
	}
	if listed {
		limit = s.end
	}
	if s.allocated < segmentHeader {
		return fmt.Errorf("%w: %s has %d bytes", ErrDamaged, s.path, s.allocated)
	}
	call, damage, err := l.walk(s, f, pos, limit)
	if err != nil {
		return err
	}
	later := i+1 < len(l.segments)
	switch {
	case listed && (damage != nil || s.last != lastListed):
		return fmt.Errorf("%s: %w", filepath.Base(s.path), errors.Join(damage, fmt.Errorf("%w: it ends at entry %d", ErrDamaged, s.last)))
	case listed:
		return nil
	case later && s.last+1 == l.segments[i+1].base:
		// It was complete and on stable storage before the next was begun.
		s.sealed = true
		return nil
	case later:
		next := l.segments[i+1]
		return fmt.Errorf("%s: %w: it ends at entry %d, and segment %d follows: %w", filepath.Base(s.path), ErrDamaged, s.last, next.base, damage)
	}
	was := l.st.noted.endedAt(s.id.Load())
	if s.last < was {
		return fmt.Errorf("%s: it ends at entry %d, and was acknowledged up to entry %d when the node was stopped: %w", filepath.Base(s.path), s.last, was, orDamaged(damage))
	}
	if damage != nil {
		if err := l.mend(s, f, damage); err != nil {
			return err
		}
	}
	if s.last == was && was != 0 {
		return nil // all of it was synced when the node was stopped
	}
	return l.secure(s, f, call)
}

// walk reads a segment from pos to its last good entry, or to limit, and notes where index points
// may be made. call is where the last call begins that stored entries here; damage says why it ends
// before limit.
func (l *recovery) walk(s *segment, f io.ReaderAt, pos, limit int64) (call int64, damage, err error) {
	w := newWalker(f, s.framing, pos, limit, walkChunk)
	index, chain := s.last, s.chain
	since, fresh := int64(0), true
	call = pos
	for {
		at := w.pos
		fr, _, err := w.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && (fr.chain != chain || fr.first() != index+1) {
			err = fmt.Errorf("%w: entry %d behind entry %d is not of one log", ErrDamaged, fr.first(), index)
		}
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				return 0, nil, err
			}
			damage = err
			w.pos = at
			break
		}
		if fresh || since >= pointEvery {
			l.marks = append(l.marks, mark{s, fr.first(), at})
			since, fresh = 0, false
		}
		if fr.flags&flagCallStart != 0 {
			call = at
		}
		since += fr.size()
		index, chain = fr.index, fr.crc
	}
	s.last, s.end, s.chain = index, w.pos, chain
	if s.last >= s.base {
		s.firstAt = nowMillis()
	}
	return call, damage, nil
}

// secure writes again what a process that was not stopped in good order may have left of the last
// segment in the page cache and not on the disk, though reads give it and a sync alone would do
// nothing (see disk): the head, which a cut changes, and the last call's entries, which begin
// at from. What was stored before them was acknowledged, or is written again by the journal.
func (l *recovery) secure(s *segment, f vfs.File, from int64) error {
	if _, err := f.WriteAt(s.header(), 0); err != nil {
		return err
	}
	buf := make([]byte, min(walkChunk, s.end-from))
	for at := from; at < s.end; {
		b := buf[:min(int64(len(buf)), s.end-at)]
		if n, err := f.ReadAt(b, at); n < len(b) {
			return err
		}
		if _, err := f.WriteAt(b, at); err != nil {
			return err
		}
		at += int64(len(b))
	}
	return l.st.sync(f)
}

func (l *recovery) recordedLast(base uint64) uint64 {
	for _, r := range l.manifest.Segments {
		if r.Base == base {
			return r.Last
		}
	}
	return 0
}

// mend makes the last segment end behind its last good entry. A torn append was
// never acknowledged. But if a later append is there and good, then this one was
// acknowledged, and is damaged: nothing is changed then.
func (l *recovery) mend(s *segment, f vfs.File, damage error) error {
	later, end, hashed, err := s.behind(f, s.end, s.last)
	if err != nil {
		return err
	}
	if later != 0 {
		return fmt.Errorf("%s: behind entry %d: %w; entry %d of a later append is good, so it was acknowledged", filepath.Base(s.path), s.last, damage, later)
	}
	if end == s.end {
		return nil // allocated ahead
	}
	l.st.logger.Info("a torn append is cut off", "group", l.opts.Group, "segment", filepath.Base(s.path), "entry", s.last+1, "bytes", end-s.end, "hashed", hashed)
	if err := f.Truncate(s.end); err != nil {
		return err
	}
	s.allocated = s.end
	return l.st.sync(f)
}

// behind searches what a segment has behind its last good entry. later is the index of a good entry
// that begins a later append than the one that should follow, 0 if there is none: each entry in
// between takes some room. end is where the zeros begin that are allocated ahead.
func (s *segment) behind(f io.ReaderAt, from int64, last uint64) (later uint64, end, hashed int64, err error) {
	end = from
	look := func(at int64, b []byte) (c claim, ok bool) {
		if isZeroWord(b) {
			return c, false
		}
		end = at + frameAlign
		fr, err := parseFrame(b, s.framing, at)
		if err != nil || fr.flags&flagCallStart == 0 || fr.flags > flagCallStart|flagGap || fr.kind > raft.LogConfiguration ||
			fr.first() <= last+1 || fr.first()-last-1 > uint64(at-from)/uint64(fr.header) || at+fr.size() > s.allocated {
			return c, false
		}
		return claim{at: at, skip: 4, to: at + int64(fr.header) + int64(fr.data) + int64(fr.extra), crc: fr.crc, tag: fr.index}, true
	}
	hashed, err = sweep(f, from, s.allocated, s.framing.header(), look, func(c claim) bool {
		later = c.tag
		return false
	})
	return later, end, hashed, err
}

func allZero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

// sweep removes files that are not part of the log.
func (l *recovery) sweep() error {
	entries, err := l.st.fs.List(l.dir)
	if err != nil {
		return err
	}
	removed := false
	for _, e := range entries {
		if e.Dir || e.Name == manifestName {
			continue
		}
		stem, isIndex := strings.CutSuffix(e.Name, indexSuffix)
		name := e.Name
		if isIndex {
			name = stem + segmentSuffix
		}
		id, ok := parseSegmentName(name)
		if !ok && name != manifestNew {
			continue // not ours
		}
		if slices.ContainsFunc(l.segments, func(s *segment) bool { return s.segmentID() == id }) {
			continue
		}
		if err := l.st.fs.Remove(filepath.Join(l.dir, e.Name)); err != nil {
			return err
		}
		removed = true
	}
	if removed {
		return l.st.syncDir(l.dir)
	}
	return nil
}
