package raftlog

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// Verified is what Archive.Verify found in a log.
type Verified struct {
	Segments int    `json:"segments"`
	Entries  int64  `json:"entries"`
	Bytes    int64  `json:"bytes"`       // of good entries
	First    uint64 `json:"first"`       // Raft index; 0: no entry
	Last     uint64 `json:"last"`        //
	Start    int64  `json:"start"`       // offset in front of the first entry; -1: not known
	Next     int64  `json:"next_offset"` // offset behind the last, were all of them committed
	// Torn is how many bytes behind the last entry are of an append that was never
	// acknowledged; the next start cuts them off.
	Torn int64 `json:"torn"`
}

// verifier checks one log.
type verifier struct {
	*recovery
	check func(entry *raft.Log) error
	pace  func(bytes int64)
	found Verified
	bad   []error

	next     int64 // offset in front of the next entry; unknownOffset: not known
	maxTime  int64 // of the segment so far
	snapshot bool  // the place of the snapshot was passed
}

func (v *verifier) problem(format string, args ...any) {
	const enough = 100
	if len(v.bad) < enough {
		v.bad = append(v.bad, fmt.Errorf(format, args...))
	}
}

// Verify reads a whole log: manifest, segments without a hole, CRCs and chain,
// offsets, indexes, the snapshot's place; and check looks into each entry. It
// gives all that is wrong, up to a hundred things. progress is told of bytes read.
func (a *Archive) Verify(name string, span Span, check func(*raft.Log) error, progress func(bytes int64)) (Verified, []error) {
	l, err := a.open(name)
	if err != nil {
		return Verified{Start: unknownOffset}, []error{err}
	}
	defer l.segments.drop()
	l.opts.Span = span
	suspected := a.st.disk.suspected(l.dir)
	v := &verifier{recovery: l, check: check, pace: progress, next: unknownOffset}
	v.found.Start = unknownOffset
	v.found.Segments = len(l.segments)
	if suspected != nil {
		v.problem("%w", suspected)
	}
	v.all()
	return v.found, v.bad
}

func (v *verifier) all() {
	m := v.manifest
	if len(v.segments) == 0 {
		if m.Snapshot != nil || m.First > 1 {
			v.problem("the manifest says that the log begins with entry %d, and there is no segment", max(m.First, 1))
		}
		return
	}
	if base := v.segments[0].base; m.First != 0 && base != m.First {
		v.problem("a hole: the log should begin with entry %d, its first segment does with %d", m.First, base)
	}
	first := v.segments[0]
	// Retention may have freed the segment that ended with the snapshot.
	v.snapshot = m.Snapshot != nil && first.base == m.Snapshot.Index+1 && m.Snapshot.Segment < first.base
	switch {
	case first.start != unknownOffset:
		v.next = first.start
	case m.Snapshot != nil && first.base == m.Snapshot.Index+1:
		v.next = m.Snapshot.Next
	case m.Snapshot == nil && first.base == 1:
		v.next = 0
	}
	v.found.Start = v.next
	for i := range v.segments {
		v.segment(i)
	}
	v.found.Next = v.next
	if s := m.Snapshot; s != nil && !v.snapshot {
		v.problem("the snapshot is of entry %d, which the log does not have in its place", s.Index)
	}
}

// segment reads one segment.
func (v *verifier) segment(i int) {
	s := v.segments[i]
	name := filepath.Base(s.path)
	f, err := s.handle.acquire()
	if err != nil {
		v.problem("%s: %w", name, err)
		return
	}
	defer s.handle.release()
	if s.start != unknownOffset {
		if v.next != unknownOffset && v.next != s.start {
			v.problem("%s: it should begin at offset %d, the segment before ends at %d", name, s.start, v.next)
		}
		v.next = s.start
	}
	limit := s.allocated
	if s.sealed {
		limit = s.end
	}
	points := v.points(i)
	v.maxTime = noTime
	latest := int64(noTime) // of the points so far
	c := chainCheck{w: newWalker(f, s.framing, segmentHeader, limit, walkChunk), index: s.base - 1, chain: s.seed}
	var damage error
	end := int64(segmentHeader)
	for {
		if v.pace != nil && end != c.w.pos {
			v.pace(c.w.pos - end)
		}
		end = c.w.pos
		index, chain := c.index, c.chain
		fr, b, err := c.next()
		if err != nil {
			c.index, c.chain = index, chain
			if !errors.Is(err, io.EOF) {
				damage = err
			}
			break
		}
		v.place(s, fr.first(), end, chain)
		if len(points) > 0 && points[0].pos == end {
			p := points[0]
			points = points[1:]
			v.point(name, p, fr.first(), latest)
			latest = p.before
		}
		entry := fr.entry(b)
		if v.check != nil {
			if err := v.check(&entry); err != nil {
				v.problem("%s: entry %d: %w", name, fr.index, err)
			}
		}
		if v.next != unknownOffset && v.opts.Span != nil {
			if after, newest := v.opts.Span(&entry, v.next); after > v.next {
				v.next, v.maxTime = after, max(v.maxTime, newest)
			}
		}
		if v.found.First == 0 {
			v.found.First = fr.first()
		}
		v.found.Last = fr.index
		v.found.Entries += int64(fr.run)
		v.found.Bytes += fr.size()
	}
	v.place(s, c.index+1, end, c.chain)
	if s.sealed && v.manifest.Snapshot != nil && c.index <= v.manifest.Snapshot.Index {
		v.newest(s)
	}
	if len(points) > 0 {
		v.problem("%s: its index names position %d, where no entry begins", name, points[0].pos)
	}
	v.end(i, c, end, damage)
}

// end compares where segment i ends, which c has read up to a position, with where it should.
func (v *verifier) end(i int, c chainCheck, end int64, damage error) {
	s, name := v.segments[i], filepath.Base(v.segments[i].path)
	later := i+1 < len(v.segments)
	switch {
	case damage != nil && !errors.Is(damage, ErrDamaged):
		v.problem("%s: %w", name, damage)
	case s.sealed && (damage != nil || c.index != s.last || c.chain != s.chain):
		v.problem("%s: it ends at entry %d instead of %d: %w", name, c.index, s.last, orDamaged(damage))
	case later && c.index+1 != v.segments[i+1].base:
		v.problem("%s: a hole: it ends at entry %d, the next segment begins with %d: %w", name, c.index, v.segments[i+1].base, orDamaged(damage))
	case !later && c.index < v.st.noted.endedAt(s.id.Load()):
		v.problem("%s: it ends at entry %d, and was acknowledged up to entry %d when the node was stopped: %w", name, c.index, v.st.noted.endedAt(s.id.Load()), orDamaged(damage))
	case !later && damage != nil:
		v.tail(s, end, c.index, damage)
	}
	if later && v.segments[i+1].start == unknownOffset && damage != nil {
		v.next = unknownOffset // what is missing may have had records
	}
}

func orDamaged(err error) error {
	if err == nil {
		return ErrDamaged
	}
	return err
}

// point compares a point of an index with what the segment has in its place: the entry with that
// index. latest is the time of the point before. The times of points may be later than those of the
// records in front of them, as long as they never go back: a lookup then begins earlier than it
// need. Snapshots that were taken while more was applied had such.
func (v *verifier) point(name string, p point, index uint64, latest int64) {
	what := func(format string, args ...any) {
		v.problem("%s: its index at position %d: %s", name, p.pos, fmt.Sprintf(format, args...))
	}
	switch {
	case p.index != index:
		what("entry %d, the segment has entry %d there", p.index, index)
	case v.next == unknownOffset || v.opts.Span == nil:
	case p.offset != v.next:
		what("offset %d in front of entry %d, the segment has %d", p.offset, index, v.next)
	case p.before < v.maxTime:
		what("largest time %s in front of entry %d, the segment has %s", timeText(p.before), index, timeText(v.maxTime))
	case p.before < latest:
		what("largest time %s in front of entry %d, the point before has %s", timeText(p.before), index, timeText(latest))
	}
}

func timeText(ms int64) string {
	if ms == noTime {
		return "none"
	}
	return fmt.Sprint(ms)
}

// newest compares the largest time that the manifest has of a segment with that of the records in
// it, as far as it is of them. A later one does no harm: see point.
func (v *verifier) newest(s *segment) {
	for _, r := range v.manifest.Segments {
		if r.Base == s.base && r.MaxTime < v.maxTime && v.next != unknownOffset && v.opts.Span != nil {
			v.problem("%s: the manifest has %s as the largest time of its records, one of them has %s", filepath.Base(s.path), timeText(r.MaxTime), timeText(v.maxTime))
		}
	}
}

// place compares the place of an entry with what the snapshot says of it.
func (v *verifier) place(s *segment, index uint64, pos int64, chain uint32) {
	snapshot := v.manifest.Snapshot
	if snapshot == nil || index != snapshot.Index+1 || s.base != snapshot.Segment || v.snapshot {
		return
	}
	v.snapshot = true
	v.newest(s)
	if pos != snapshot.Pos || chain != snapshot.Chain {
		v.problem("the snapshot ends at position %d of %s, CRC %08x, the entry there at %d, %08x", snapshot.Pos, filepath.Base(s.path), snapshot.Chain, pos, chain)
	}
	if v.next != unknownOffset && v.next != snapshot.Next {
		v.problem("the next offset behind the snapshot is %d, the segments give %d", snapshot.Next, v.next)
	}
}

// tail looks at what is behind the last good entry of the log.
func (v *verifier) tail(s *segment, end int64, last uint64, damage error) {
	f, err := s.handle.acquire()
	if err != nil {
		return
	}
	defer s.handle.release()
	if v.manifest.Snapshot != nil && last < v.manifest.Snapshot.Index {
		v.problem("%s: behind entry %d: %w", filepath.Base(s.path), last, damage)
		return
	}
	later, tornEnd, _, err := s.behind(f, end, last)
	if err != nil {
		v.problem("%s: %w", filepath.Base(s.path), err)
	}
	v.found.Torn = tornEnd - end
	if later != 0 {
		v.problem("%s: behind entry %d: %w; entry %d of a later append is good, so it was acknowledged", filepath.Base(s.path), last, damage, later)
	}
}

// points gives the index of segment i, and says what is wrong with it.
func (v *verifier) points(i int) []point {
	s := v.segments[i]
	var record segmentRecord
	for _, r := range v.manifest.Segments {
		if r.Base == s.base {
			record = r
		}
	}
	var err error
	switch {
	case record.Final:
		s.index, err = openIndex(v.st.disk, s)
	case record.Base != 0 && record.Points > 0:
		s.index, err = resumeIndex(v.st.disk, s, record.Points, record.PointsCRC)
	default:
		return nil
	}
	if err == nil {
		err = s.index.check()
	}
	if err == nil {
		_, err = s.index.readState()
	}
	if err != nil {
		v.problem("%w (the node makes it again when it starts)", err)
		return nil
	}
	f, err := s.index.handle.acquire()
	if err != nil {
		v.problem("%w", err)
		return nil
	}
	defer s.index.handle.release()
	b := make([]byte, s.index.written*pointSize)
	if _, err := f.ReadAt(b, indexHeader); err != nil && !errors.Is(err, io.EOF) {
		v.problem("%s: %w", filepath.Base(s.index.path), err)
		return nil
	}
	points := make([]point, 0, s.index.written)
	for ; len(b) > 0; b = b[pointSize:] {
		points = append(points, parsePoint(b))
	}
	return points
}
