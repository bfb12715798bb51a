package tier

import (
	"encoding/binary"
	"fmt"
	"math"
	"sort"

	"github.com/trimaran-io/trimaran/fsm"
)

// noTime stands for the largest timestamp of no records.
const noTime = -1

// index lists what a segment has. It is never changed once it is read.
type index struct {
	first, next fsm.Offset
	pieces      []piece // ascending, without a hole
	epochs      []epoch // ascending; the first begins at or in front of the first offset
	// aborted are the transactions that were aborted and have records in the segment, or reach
	// over it, in the order of their markers.
	aborted []fsm.AbortedTransaction
}

// piece is an object with record batches.
type piece struct {
	next    fsm.Offset // behind it
	bytes   int64
	maxTime int64 // largest timestamp of its records, ms since epoch
	sum     [32]byte
}

// epoch is a leader epoch and the offset that it begins at.
type epoch struct {
	epoch fsm.LeaderEpoch
	from  fsm.Offset
}

const (
	indexMagic = "TRMTIR\x00\x01"
	// maxIndex bounds an index, in bytes.
	maxIndex = 64 << 20
	// maxPiece bounds an object with records, in bytes: a batch may be as large as an entry of the
	// log.
	maxPiece = 512 << 20
)

// encode gives the index as it is stored.
func (x *index) encode() []byte {
	b := []byte(indexMagic)
	put := func(v uint64) { b = binary.AppendUvarint(b, v) }
	put(uint64(x.first))
	put(uint64(x.next))
	put(uint64(len(x.pieces)))
	for _, p := range x.pieces {
		put(uint64(p.next))
		put(uint64(p.bytes))
		b = binary.AppendVarint(b, p.maxTime)
		b = append(b, p.sum[:]...)
	}
	put(uint64(len(x.epochs)))
	for _, e := range x.epochs {
		put(uint64(e.epoch))
		put(uint64(e.from))
	}
	put(uint64(len(x.aborted)))
	for _, a := range x.aborted {
		for _, v := range [...]int64{a.ProducerID, int64(a.First), int64(a.Last), int64(a.LastStable)} {
			put(uint64(v))
		}
	}
	return b
}

// reader reads numbers. After one that is missing or out of bounds, bad is true and everything
// reads as 0.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() { r.b, r.bad = nil, true }

// positive reads a number that fits an int64.
func (r *reader) positive() int64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > math.MaxInt64 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return int64(v)
}

func (r *reader) signed() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads how many there are of what takes so many bytes at least.
func (r *reader) count(least int) int {
	n := r.positive()
	if n > int64(len(r.b)/least) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) sum() (sum [32]byte) {
	if len(r.b) < len(sum) {
		r.fail()
		return sum
	}
	r.b = r.b[copy(sum[:], r.b):]
	return sum
}

// parseIndex reads what encode gave. The error wraps ErrDamaged.
func parseIndex(data []byte) (*index, error) {
	if len(data) < len(indexMagic) || string(data[:len(indexMagic)]) != indexMagic {
		return nil, fmt.Errorf("%w: no index of a segment", ErrDamaged)
	}
	r := reader{b: data[len(indexMagic):]}
	x := &index{first: fsm.Offset(r.positive()), next: fsm.Offset(r.positive())}
	if n := r.count(35); n > 0 {
		x.pieces = make([]piece, n)
	}
	for i := range x.pieces {
		x.pieces[i] = piece{next: fsm.Offset(r.positive()), bytes: r.positive(), maxTime: r.signed(), sum: r.sum()}
	}
	if n := r.count(2); n > 0 {
		x.epochs = make([]epoch, n)
	}
	for i := range x.epochs {
		e := r.positive()
		if e > math.MaxInt32 {
			r.fail()
		}
		x.epochs[i] = epoch{fsm.LeaderEpoch(e), fsm.Offset(r.positive())}
	}
	if n := r.count(4); n > 0 {
		x.aborted = make([]fsm.AbortedTransaction, n)
	}
	for i := range x.aborted {
		x.aborted[i] = fsm.AbortedTransaction{ProducerID: r.positive(), First: fsm.Offset(r.positive()), Last: fsm.Offset(r.positive()), LastStable: fsm.Offset(r.positive())}
	}
	if r.bad || len(r.b) > 0 {
		return nil, fmt.Errorf("%w: a malformed index of a segment", ErrDamaged)
	}
	if err := x.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return x, nil
}

// check reports whether what the fields promise of each other holds.
func (x *index) check() error {
	if x.first >= x.next {
		return fmt.Errorf("a segment from offset %d to %d", x.first, x.next)
	}
	before := x.first
	for _, p := range x.pieces {
		if p.next <= before || p.next > x.next || p.bytes < 1 || p.bytes > maxPiece {
			return fmt.Errorf("a piece from offset %d to %d, of %d bytes", before, p.next, p.bytes)
		}
		before = p.next
	}
	if len(x.epochs) == 0 || x.epochs[0].from > x.first {
		return fmt.Errorf("a segment from offset %d on without leader epoch", x.first)
	}
	for i, e := range x.epochs {
		if e.from >= x.next || i > 0 && (e.from <= x.epochs[i-1].from || e.epoch <= x.epochs[i-1].epoch) {
			return fmt.Errorf("leader epoch %d from offset %d on", e.epoch, e.from)
		}
	}
	last := fsm.Offset(-1)
	for _, a := range x.aborted {
		if a.Last <= last || a.First >= a.Last || a.First >= x.next || a.Last < x.first {
			return fmt.Errorf("a transaction that was aborted, from %d to %d", a.First, a.Last)
		}
		last = a.Last
	}
	return nil
}

// of reports whether it is the index of a segment.
func (x *index) of(s fsm.TieredSegment) bool {
	return x.first == s.First && x.next == s.Next && len(x.pieces) == int(s.Pieces)
}

// at gives the piece that has an offset, or the first behind it; len(pieces) if there is none.
func (x *index) at(offset fsm.Offset) int {
	return sort.Search(len(x.pieces), func(i int) bool { return x.pieces[i].next > offset })
}

// startOf gives the offset that a piece begins at.
func (x *index) startOf(i int) fsm.Offset {
	if i == 0 {
		return x.first
	}
	return x.pieces[i-1].next
}

// epochAt gives the leader epoch of an offset of the segment.
func (x *index) epochAt(offset fsm.Offset) fsm.LeaderEpoch {
	i := sort.Search(len(x.epochs), func(i int) bool { return x.epochs[i].from > offset })
	return x.epochs[max(i-1, 0)].epoch
}

// concerning gives the aborted transactions that have records from one offset to the one in front
// of another, or reach over these, in the order of their first offsets.
func (x *index) concerning(from, end fsm.Offset) (rows []fsm.AbortedTransaction) {
	for _, a := range x.aborted {
		if a.First < end && a.Last >= from {
			rows = append(rows, a)
		}
	}
	sort.Slice(rows, func(i, j int) bool {
		if rows[i].First != rows[j].First {
			return rows[i].First < rows[j].First
		}
		return rows[i].Last < rows[j].Last
	})
	return rows
}
