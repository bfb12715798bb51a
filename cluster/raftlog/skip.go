package raftlog

import (
	"fmt"

	"github.com/hashicorp/raft"
)

// place is where a reader may begin, and the next offset in front of it.
type place struct {
	index  uint64
	pos    int64
	offset int64
}

// Skip goes behind the entry that Next could not give since it is damaged, so that Next gives the
// one behind it, or one that is some 16 KiB further on at most. Expected is right then. What is
// passed over cannot be read.
//
// first gives the offset that an entry claims for the first of its records; ok is false if it has
// none. The offset behind a damaged entry is not known. It is taken from there if it leads to what
// the index says of a place further on.
func (r *Reader) Skip(first func(entry *raft.Log) (offset int64, ok bool)) error {
	known, err := placeBehind(r.view, r.seg, r.index)
	if err != nil {
		return err
	}
	to := known
	if next, ok := r.entryBehind(known); ok {
		if offset, ok := r.offsetAt(next, known, first); ok {
			to = place{next.index, next.pos, offset}
		}
	}
	r.w.pos, r.w.have, r.index, r.next, r.before = to.pos, nil, to.index, to.offset, -1
	r.astray = false
	return nil
}

// placeBehind gives the first place behind an entry of a segment of which the offset is known: a
// point of the index, or the end of what is applied of the segment.
func placeBehind(v *view, s *segment, index uint64) (place, error) {
	end, x := v.endPlace(s)
	if x != nil {
		if p, ok, err := x.ceil(index); err == nil && ok && p.index < end.index {
			return place{p.index, p.pos, p.offset}, nil
		} // without an index more is passed over
	}
	if end.offset == unknownOffset {
		return end, fmt.Errorf("%w: it is not known what is behind entry %d", ErrDamaged, index)
	}
	return end, nil
}

// entryBehind gives the place right behind the damaged entry, without its offset, if the entry
// there is whole and is the next one by its index and by the CRC that it has of the damaged one:
// the damaged one's length is right then.
func (r *Reader) entryBehind(known place) (place, bool) {
	w := newWalker(r.w.f, r.w.fr, r.w.pos, known.pos, r.w.fr.header())
	bad, err := w.peek()
	if err != nil || !bad.holds(r.index) {
		return place{}, false
	}
	w.skip(bad)
	at := place{bad.index + 1, w.pos, unknownOffset}
	if at.index == known.index {
		return at, at.pos == known.pos
	}
	f, _, err := w.next()
	return at, err == nil && f.first() == at.index && f.chain == bad.crc
}

// offsetAt gives the offset at a place: the one that the first records behind it claim, if that
// leads to the offset that is known of the other place.
func (r *Reader) offsetAt(from, known place, first func(*raft.Log) (int64, bool)) (int64, bool) {
	if r.span == nil {
		return 0, false
	}
	w := newWalker(r.w.f, r.w.fr, from.pos, known.pos, pointEvery)
	offset, next, found := known.offset, known.offset, false
	for index := from.index; index < known.index; {
		f, b, err := w.next()
		if err != nil || f.first() != index {
			return 0, false
		}
		index = f.index + 1
		entry := f.entry(b)
		if !found {
			if offset, found = first(&entry); !found {
				offset = known.offset
				continue
			}
			next = offset
		}
		next, _ = r.span(&entry, next)
	}
	return offset, next == known.offset
}
