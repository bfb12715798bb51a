package fsm

import (
	"encoding/binary"
	"fmt"
	"math"
)

const (
	partitionMagic   = "TriP"
	partitionVersion = 1
)

// A partition's snapshot, inside of the envelope, is a row of numbers, each a
// variable-length integer of encoding/binary but the chain, which has 8 bytes:
//
//	last applied index, next offset, log start offset, chain, bytes since the last point
//	number of segments, for each: base less the one before, bytes, last written (signed)
//	number of points, for each: offset and index less those of the one before
//
// It grows by some 6 bytes for each 64 KiB of records.

// Snapshot gives the whole state as bytes; the same state, the same bytes.
func (p *PartitionState) Snapshot() []byte {
	return seal(partitionMagic, partitionVersion, func(b []byte) []byte {
		put := func(v uint64) { b = binary.AppendUvarint(b, v) }
		put(uint64(p.applied))
		put(uint64(p.next))
		put(uint64(p.logStart))
		b = binary.BigEndian.AppendUint64(b, p.chain)
		put(uint64(p.sincePoint))
		put(uint64(len(p.segments)))
		var base Offset
		for _, s := range p.segments {
			put(uint64(s.base - base))
			put(uint64(s.bytes))
			b = binary.AppendVarint(b, s.appended)
			base = s.base
		}
		put(uint64(len(p.points)))
		var last Position
		for _, at := range p.points {
			put(uint64(at.Next - last.Next))
			put(uint64(at.Index - last.Index))
			last = at
		}
		return b
	})
}

// RestorePartition gives the state that Snapshot was called on. The error wraps
// ErrSnapshot and says what is wrong: damage, another kind of file, a format
// newer than this program, or contents that no partition can have.
func RestorePartition(data []byte) (*PartitionState, error) {
	payload, _, err := unseal(partitionMagic, partitionVersion, data)
	if err != nil {
		return nil, fmt.Errorf("partition: %w", err)
	}
	r := numbers{b: payload}
	p := &PartitionState{
		applied:  Index(r.unsigned()),
		next:     Offset(r.positive()),
		logStart: Offset(r.positive()),
		chain:    r.fixed(),
	}
	p.sincePoint = r.positive()
	var base int64
	for range r.count(3) {
		s := segment{base: Offset(r.sum(base)), bytes: r.positive(), appended: r.signed()}
		base = int64(s.base)
		p.segments = append(p.segments, s)
	}
	var last Position
	for range r.count(2) {
		last = Position{Next: Offset(r.sum(int64(last.Next))), Index: last.Index + Index(r.unsigned())}
		p.points = append(p.points, last)
	}
	if r.bad || len(r.b) > 0 {
		return nil, fmt.Errorf("partition: %w: malformed", ErrSnapshot)
	}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("partition: %w: %w", ErrSnapshot, err)
	}
	return p, nil
}

// check reports whether what the fields promise of each other holds.
func (p *PartitionState) check() error {
	if p.logStart > p.next {
		return fmt.Errorf("log start %d above the end %d", p.logStart, p.next)
	}
	if len(p.segments) == 0 || p.segments[0].base > p.logStart {
		return fmt.Errorf("no segment holds the log start %d", p.logStart)
	}
	for i, s := range p.segments {
		if s.base > p.next || i > 0 && s.base <= p.segments[i-1].base {
			return fmt.Errorf("segment at %d is out of order", s.base)
		}
	}
	if p.logStart < p.next && (len(p.points) == 0 || p.points[0].Next > p.logStart) {
		return fmt.Errorf("the index does not hold the log start %d", p.logStart)
	}
	for i, at := range p.points {
		if at.Next >= p.next || at.Index > p.applied || i > 0 && (at.Next <= p.points[i-1].Next || at.Index <= p.points[i-1].Index) {
			return fmt.Errorf("index point at offset %d is out of order", at.Next)
		}
	}
	return nil
}

// numbers reads the payload. After a number that is missing or out of bounds,
// bad is true and everything reads as 0.
type numbers struct {
	b   []byte
	bad bool
}

func (r *numbers) fail() {
	r.b, r.bad = nil, true
}

func (r *numbers) unsigned() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *numbers) signed() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// positive reads a number that fits an int64.
func (r *numbers) positive() int64 {
	v := r.unsigned()
	if v > math.MaxInt64 {
		r.fail()
		return 0
	}
	return int64(v)
}

// sum reads a difference to from.
func (r *numbers) sum(from int64) int64 {
	d := r.positive()
	if d > math.MaxInt64-from {
		r.fail()
		return 0
	}
	return from + d
}

func (r *numbers) fixed() uint64 {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	v := binary.BigEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

// count reads how many things of at least size bytes follow, which bounds what
// is allocated for them.
func (r *numbers) count(size int) int {
	n := r.positive()
	if n > int64(len(r.b)/size) {
		r.fail()
		return 0
	}
	return int(n)
}
