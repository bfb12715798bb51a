package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"path/filepath"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// Compaction is how far a log's segments are compacted. The zero value: not at all.
type Compaction struct {
	// Decision is the index of the entry that decided what was carried out last; 0: none was
	// wholly.
	Decision uint64 `json:"decision,omitempty"`
	// Bound and Horizon are how far it went, or, if some of another one is done, that.
	Bound   int64 `json:"bound,omitempty"`
	Horizon int64 `json:"horizon,omitempty"`
	// First: below it Raft has nothing, since entries may be compacted.
	First uint64 `json:"first,omitempty"`
	// Mark names what the entries are: it is Decision where that is carried out wholly and nothing
	// since, and else a number, from mixedMark on, that no other log and no other time has. What is
	// copied from another replica, in however many pieces, must be of one mark.
	Mark uint64 `json:"mark,omitempty"`
	// Left is how many tombstones and markers were found at or above the horizon.
	Left int64 `json:"left,omitempty"`
}

const mixedMark = 1 << 63

// Whole reports whether the newest decision that was begun is carried out.
func (c Compaction) Whole() bool { return c.Mark < mixedMark }

// Pass is one pass over a log, from its oldest entry up, in which entries lose records.
type Pass struct {
	// Bound is the offset that the pass goes up to; segments that begin there or above stay.
	Bound int64
	// From: segments that end at or below it stay. Nobody may read what is in them: what they lack
	// of a decision others may do without, as an aborted transaction without its marker.
	From int64
	// SegmentBytes: neighbours become one segment if they have no more than that together.
	SegmentBytes int64
	// Entry gives what is left of an entry's data, in front of which the next offset is next: what
	// it is given if same is true. All entries of a segment come, in order, each once.
	Entry func(entry *raft.Log, next int64) (data []byte, same bool, err error)
	// Kept gives what is kept with a segment that is made of others, whose entries came last. nil:
	// nothing is kept.
	Kept func(old []KeptSegment) ([]byte, error)
	// Pace is told of bytes that were read or written. Its error ends the pass and is returned.
	Pace func(bytes int) error
	// Held reports whether somebody copies entries: they must stay as they are.
	Held func() bool
}

var (
	// ErrNotClosed says that some of what is to be compacted is in a segment that may still change.
	ErrNotClosed = errors.New("not all of it is in closed segments below the snapshot")
	// ErrHeld says that a pass has ended since somebody copies from the log.
	ErrHeld = errors.New("somebody copies from the log")
)

// compactor makes segments anew with fewer records in them. One goroutine may use it at a time.
type compactor struct {
	*home
	view    *view
	turn    *turn
	offsets *offsets
}

// Compaction gives how far the segments are compacted.
func (l *compactor) Compaction() Compaction { return l.view.published().Compacted }

// Rewritten counts the times that segments were put in place of others since the log was opened:
// what was read on both sides of one may not fit together.
func (l *compactor) Rewritten() uint64 { return l.view.rewritten.Load() }

// Saved counts the bytes by which segments became smaller.
type Saved struct{ Read, Written, Before, After int64 }

// Compact makes one pass. An error leaves a log of which some segments are done: as good as before
// to who reads. The error is ErrNotClosed, ErrHeld, or wraps ErrNotInLog, vfs.ErrNoSpace or
// ErrDamaged, or is Pace's. After an error a pass may be made again.
func (l *compactor) Compact(p Pass) (saved Saved, err error) {
	segments, ok := l.view.compactable(p.From, p.Bound)
	if !ok {
		return saved, ErrNotClosed
	}
	for len(segments) > 0 {
		n, size := 1, segments[0].end-segmentHeader
		for n < len(segments) && size+segments[n].end-segmentHeader <= p.SegmentBytes {
			size += segments[n].end - segmentHeader
			n++
		}
		if p.Held() {
			return saved, ErrHeld
		}
		if err := l.rewrite(p, segments[:n:n], &saved); errors.Is(err, errGone) {
			return saved, fmt.Errorf("%w: a segment was freed this moment", ErrNotInLog)
		} else if err != nil {
			return saved, err
		}
		segments = segments[n:]
	}
	return saved, nil
}

// Note makes c what the log says of itself: all of it is done.
func (l *compactor) Note(c Compaction) error {
	if err := l.turn.take(); err != nil {
		return err
	}
	defer l.turn.pass()
	m := *l.view.published()
	c.First = max(c.First, m.Compacted.First)
	m.Compacted = c
	if err := m.write(l.st.disk, l.dir); err != nil {
		return err
	}
	l.view.noted(&m)
	return nil
}

// rewriting is the making of one segment out of others.
type rewriting struct {
	*compactor
	pass  Pass
	old   segmentList
	saved *Saved

	s     *segment // nil: everything is the same so far
	f     vfs.File
	buf   []byte
	pos   int64     // where buf goes
	next  int64     // offset behind what was read
	out   int64     // and behind what was written
	gap   *raft.Log // not written yet; nil: none
	since int64     // bytes since the last point of the index
}

// rewrite makes one segment out of neighbours, and puts it in their place unless it is the same.
func (l *compactor) rewrite(p Pass, old segmentList, saved *Saved) (err error) {
	w := &rewriting{compactor: l, pass: p, old: old, saved: saved, next: l.view.startOf(old[0])}
	defer func() {
		if w.f != nil {
			w.s.handle.release()
		}
		if err != nil && w.s != nil && l.st.failed() == nil {
			segmentList{w.s}.drop()
			l.st.fs.Remove(indexPath(w.s.path))
			l.st.fs.Remove(w.s.path)
		}
	}()
	if len(old) > 1 {
		if err := w.begin(); err != nil {
			return err
		}
	}
	if err := w.all(len(old), -1, p.Entry); err != nil || w.s == nil {
		return err
	}
	if err := w.finish(); err != nil {
		return err
	}
	if p.Held() {
		return ErrHeld
	}
	w.s.handle.release()
	w.f = nil
	return l.put(w.s, old, saved)
}

// all takes the entries of the first n of the old segments, up to a position in the last of them;
// -1: its end.
func (w *rewriting) all(n int, to int64, change func(*raft.Log, int64) ([]byte, bool, error)) error {
	for i, s := range w.old[:n] {
		limit := s.end
		if i == n-1 && to >= 0 {
			limit = to
		}
		if err := w.segment(i, limit, change); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(s.path), err)
		}
	}
	return nil
}

func (w *rewriting) segment(i int, limit int64, change func(*raft.Log, int64) ([]byte, bool, error)) error {
	s := w.old[i]
	f, err := s.handle.acquire()
	if err != nil {
		return err
	}
	defer s.handle.release()
	c := chainCheck{w: newWalker(f, s.framing, segmentHeader, limit, walkChunk), index: s.base - 1, chain: s.seed}
	for {
		at := c.w.pos
		fr, b, err := c.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		w.saved.Read += fr.size()
		if err := w.pass.Pace(int(fr.size())); err != nil {
			return err
		}
		entry := fr.entry(b)
		after, _ := w.opts.Span(&entry, w.next)
		after = max(after, w.next)
		same, data := true, []byte(nil)
		if w.next < w.pass.Bound {
			if data, same, err = change(&entry, w.next); err != nil {
				return err
			}
		}
		if same && w.s == nil {
			w.next = after
			continue
		}
		if w.s == nil {
			// What is in front of it is the same.
			next := w.next
			w.next = w.view.startOf(w.old[0])
			if err := w.begin(); err != nil {
				return err
			}
			if err := w.all(i+1, at, unchanged); err != nil {
				return err
			}
			if w.next != next {
				return fmt.Errorf("%w: entry %d is behind offset %d, and then behind %d", ErrDamaged, fr.first(), next, w.next)
			}
		}
		if !same {
			entry.Data = data
			c := Compacted(&entry)
			c.After = after
			c.note(&entry)
		}
		if err := w.take(&entry); err != nil {
			return err
		}
		w.next = after
	}
}

func unchanged(*raft.Log, int64) ([]byte, bool, error) { return nil, true, nil }

// begin makes the files.
func (w *rewriting) begin() (err error) {
	if w.st.space.short.Load() || w.st.Full() {
		return fmt.Errorf("%w: nothing is compacted on a full disk", vfs.ErrNoSpace)
	}
	id := w.old[0].segmentID()
	for _, s := range w.old {
		id.rewrite = max(id.rewrite, s.rewrite)
	}
	id.rewrite++
	s := &segment{
		base: id.base, gen: id.gen, rewrite: id.rewrite, seed: mathrand.Uint32(), path: filepath.Join(w.dir, id.name()),
		last: id.base - 1, end: segmentHeader, start: w.view.startOf(w.old[0]), maxTime: noTime, framing: newFraming(true), sealed: true,
	}
	s.id.Store(newID())
	s.chain = s.seed
	f, err := w.st.create(s.path)
	if err != nil {
		return err
	}
	s.handle.init(w.st.disk, s.path, f)
	w.s = s
	if w.f, err = s.handle.acquire(); err != nil {
		return err
	}
	if s.index, err = newIndex(w.st.disk, s); err != nil {
		return err
	}
	w.buf, w.pos, w.out, w.since = append(w.buf[:0], s.header()...), 0, s.start, pointEvery
	return nil
}

// take adds an entry, or adds it to the gap in front of it.
func (w *rewriting) take(entry *raft.Log) error {
	c := Compacted(entry)
	if c.gap() == 0 {
		if err := w.closeGap(); err != nil {
			return err
		}
		return w.write(entry)
	}
	if g := w.gap; g != nil && g.Term == entry.Term {
		if before := Compacted(g); before.Run < maxPayload-c.Run && bytes.Equal(before.Extensions, c.Extensions) {
			c.Run += before.Run
			g.Index, g.AppendedAt = entry.Index, entry.AppendedAt
			c.note(g)
			return nil
		}
	}
	if err := w.closeGap(); err != nil {
		return err
	}
	w.gap = &raft.Log{Index: entry.Index, Term: entry.Term, Type: raft.LogCommand, AppendedAt: entry.AppendedAt}
	c.note(w.gap)
	return nil
}

// closeGap writes the gap that was collected.
func (w *rewriting) closeGap() error {
	g := w.gap
	if g == nil {
		return nil
	}
	w.gap = nil
	return w.write(g)
}

// write adds an entry behind what is written.
func (w *rewriting) write(entry *raft.Log) (err error) {
	s := w.s
	if first := firstOf(entry); first != s.last+1 {
		return fmt.Errorf("%w: entry %d behind entry %d", ErrDamaged, first, s.last)
	}
	if w.since >= pointEvery {
		s.index.add(point{firstOf(entry), s.end, w.out, s.maxTime})
		w.since = 0
	}
	before := len(w.buf)
	if w.buf, s.chain, err = appendFrame(w.buf, s.framing, s.end, entry, s.chain, 0); err != nil {
		return err
	}
	size := int64(len(w.buf) - before)
	s.end, s.last = s.end+size, entry.Index
	w.since += size
	if after, newest := w.opts.Span(entry, w.out); after > w.out {
		w.out, s.maxTime = after, max(s.maxTime, newest)
	}
	if len(w.buf) < walkChunk {
		return nil
	}
	return w.flush()
}

// flush brings what is collected to the file.
func (w *rewriting) flush() error {
	if w.st.space.short.Load() || w.st.Full() {
		return fmt.Errorf("%w: nothing is compacted on a full disk", vfs.ErrNoSpace)
	}
	if err := w.pass.Pace(len(w.buf)); err != nil {
		return err
	}
	if _, err := w.f.WriteAt(w.buf, w.pos); err != nil {
		return err
	}
	w.pos += int64(len(w.buf))
	w.saved.Written += int64(len(w.buf))
	w.buf = w.buf[:0]
	return w.s.index.spill()
}

// finish brings the files to stable storage.
func (w *rewriting) finish() error {
	s, last := w.s, w.old[len(w.old)-1]
	if err := w.closeGap(); err != nil {
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	if s.last != last.last || w.out != w.next {
		return fmt.Errorf("%w: entry %d, offset %d at the end of %d segments that end with entry %d, offset %d", ErrDamaged, s.last, w.out, len(w.old), last.last, w.next)
	}
	s.allocated = s.end
	for _, old := range w.old {
		s.lastWrite, s.firstAt = max(s.lastWrite, old.lastWrite), old.firstAt
	}
	if err := w.st.sync(w.f); err != nil {
		return err
	}
	var state []byte
	if w.pass.Kept != nil {
		var old []KeptSegment
		for i, o := range w.old {
			k := KeptSegment{Base: o.base, From: w.view.startOf(o), To: w.out, File: o.id.Load(), log: w.offsets, seg: o}
			if i+1 < len(w.old) {
				k.To = w.view.startOf(w.old[i+1])
			}
			old = append(old, k)
		}
		var err error
		if state, err = w.pass.Kept(old); err != nil {
			return err
		}
	}
	if err := s.index.finish(w.st.disk, s.extent(), w.out, state); err != nil {
		return err
	}
	return w.st.syncDir(w.dir)
}

// put puts a segment in place of others, in one step.
func (l *compactor) put(s *segment, old segmentList, saved *Saved) error {
	if err := l.turn.take(); err != nil {
		return err
	}
	defer l.turn.pass()
	m := *l.view.published()
	at := slices.IndexFunc(m.Segments, func(r segmentRecord) bool { return r.id() == old[0].segmentID() })
	if at < 0 || at+len(old) > len(m.Segments) || m.Segments[at+len(old)-1].id() != old[len(old)-1].segmentID() {
		return errGone // freed meanwhile
	}
	record := segmentRecord{
		Base: s.base, Generation: s.gen, Rewrite: s.rewrite, Last: s.last, End: s.end, Chain: s.chain,
		Start: s.start, MaxTime: s.maxTime, LastWrite: s.lastWrite, Final: true,
	}
	m.Segments = slices.Concat(m.Segments[:at:at], []segmentRecord{record}, m.Segments[at+len(old):])
	m.Compacted.Mark = mixedMark | mathrand.Uint64()
	m.Compacted.First = max(m.Compacted.First, s.last+1)
	// Before anything else: Raft must not send what is compacted.
	l.view.raise(m.Compacted.First)
	if err := m.write(l.st.disk, l.dir); err != nil {
		if now, rerr := readManifest(l.st.disk, l.dir); rerr != nil || now == nil || now.Compacted.Mark == m.Compacted.Mark {
			// It may be there or not: nothing may be done to files that it names, or does not.
			l.turn.err = err
			l.st.fail(err)
		}
		return err
	}
	l.view.swapped(&m, s, old)
	for _, o := range old {
		saved.Before += o.end - segmentHeader
		if err := l.remove(o); err != nil {
			l.st.logger.Warn("a segment that was compacted cannot be removed", "group", l.opts.Group, "segment", filepath.Base(o.path), "error", err)
		} // no manifest names it: the next start removes it
	}
	saved.After += s.end - segmentHeader
	return nil
}
