package fsm

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/trimaran-io/trimaran/kafkaproto"
)

// Isolation is which records a reader sees: Kafka's isolation level, with its numbers.
type Isolation int8

const (
	// ReadUncommitted sees all that is below the high watermark.
	ReadUncommitted Isolation = 0
	// ReadCommitted sees what is below the last stable offset, and is told which of that belongs to
	// transactions that were aborted.
	ReadCommitted Isolation = 1
)

// TransactionIndex is what a segment of a partition's log is kept with, for those who read
// committed records: the transactions whose abort markers are in it, and those that are open behind
// it. It follows from the log alone, so it can be made again from the segment, and what the segment
// before it is kept with.
type TransactionIndex struct {
	Aborted []AbortedTransaction // in the order of their markers
	Open    []OpenTransaction    // in the order of their first records; Since is not known

	firsts map[int64]Offset // of Open, by producer; nil: not made yet
}

// Transactions gives the index of a segment that ends here, with what was not dropped.
func (p *PartitionState) Transactions() TransactionIndex {
	return TransactionIndex{Aborted: p.Aborted(), Open: p.Open()}
}

// Add takes an entry that was committed, in front of which the next offset is next, and gives the
// offset behind it.
func (x *TransactionIndex) Add(data []byte, stamp Stamp, next Offset) Offset {
	if !IsRecords(data) {
		return next
	}
	s := Stored{Data: data, Stamp: stamp, Next: next}
	x.AddStored(&s)
	return s.Next
}

// AddStored is Add for an entry that is read again, and moves behind it.
func (x *TransactionIndex) AddStored(s *Stored) {
	for batch := range s.Batches() {
		if batch.Header().Records > 0 { // else it is no part of its transaction any more
			x.add(batch, Offset(batch.Header().BaseOffset))
		}
	}
}

// add takes a good batch, which stands at base.
func (x *TransactionIndex) add(batch kafkaproto.Batch, base Offset) {
	h := batch.Header()
	if !h.Transactional() {
		return
	}
	if x.firsts == nil {
		x.firsts = make(map[int64]Offset, len(x.Open))
		for _, o := range x.Open {
			x.firsts[o.ProducerID] = o.First
		}
	}
	first, open := x.firsts[h.ProducerID]
	if !h.Control() {
		if !open && Idempotent(h) && len(x.Open) < MaxOpenTransactions {
			x.firsts[h.ProducerID] = base
			x.Open = append(x.Open, OpenTransaction{ProducerID: h.ProducerID, First: base})
		}
		return
	}
	marker, err := kafkaproto.ParseMarker(batch)
	if err != nil || !open {
		return
	}
	delete(x.firsts, h.ProducerID)
	at := sort.Search(len(x.Open), func(i int) bool { return x.Open[i].First >= first })
	x.Open = slices.Delete(x.Open, at, at+1)
	if !marker.Commit {
		x.Aborted = append(x.Aborted, AbortedTransaction{h.ProducerID, first, base, x.LastStable(Offset(h.NextOffset()))})
	}
}

// LastStable gives the last stable offset where the next offset is next: below it no transaction is
// open.
func (x *TransactionIndex) LastStable(next Offset) Offset {
	if len(x.Open) > 0 {
		return x.Open[0].First
	}
	return next
}

// Within gives what a segment that reaches from an offset to the one behind it is kept with:
// markers that stand elsewhere are left out.
func (x TransactionIndex) Within(from, to Offset) TransactionIndex {
	i := sort.Search(len(x.Aborted), func(i int) bool { return x.Aborted[i].Last >= from })
	j := sort.Search(len(x.Aborted), func(i int) bool { return x.Aborted[i].Last >= to })
	x.Aborted = x.Aborted[i:max(i, j)]
	return x
}

// BoundAborted leaves out the batches from the first on that more than most aborted transactions
// concern, but never the first of all, and what concerns only those that are left out.
func (s *Slice) BoundAborted(most int) {
	if len(s.Aborted) <= most {
		return
	}
	to, size := s.Aborted[most].First, 0
	for batch, err := range kafkaproto.Batches(s.Batches) {
		next := Offset(batch.Header().NextOffset())
		if err != nil || size > 0 && next > to {
			break
		}
		size += batch.Size()
		to = max(to, next)
	}
	s.Batches = s.Batches[:size]
	s.Aborted = s.Aborted[:sort.Search(len(s.Aborted), func(i int) bool { return s.Aborted[i].First >= to })]
}

const (
	transactionIndexMagic   = "TriT"
	transactionIndexVersion = 1
)

// A transaction index, inside of the envelope of snapshots, is a row of numbers, each a
// variable-length integer of encoding/binary:
//
//	count of open transactions, then of each: producer id, first offset
//	count of aborted transactions, then of each: producer id, first offset, marker's offset, last
//	stable offset

// Bytes gives the index as it is kept; nil if there is nothing in it.
func (x *TransactionIndex) Bytes() []byte {
	if len(x.Open) == 0 && len(x.Aborted) == 0 {
		return nil
	}
	return seal(transactionIndexMagic, transactionIndexVersion, func(b []byte) []byte {
		b = binary.AppendUvarint(b, uint64(len(x.Open)))
		for _, o := range x.Open {
			b = binary.AppendUvarint(b, uint64(o.ProducerID))
			b = binary.AppendUvarint(b, uint64(o.First))
		}
		b = binary.AppendUvarint(b, uint64(len(x.Aborted)))
		for _, a := range x.Aborted {
			b = binary.AppendUvarint(b, uint64(a.ProducerID))
			b = binary.AppendUvarint(b, uint64(a.First))
			b = binary.AppendUvarint(b, uint64(a.Last))
			b = binary.AppendUvarint(b, uint64(a.LastStable))
		}
		return b
	})
}

// ParseTransactionIndex reads what Bytes gave, and a partition's snapshot, which has the same in it
// and which programs kept with segments before there were transactions. The error wraps
// ErrSnapshot.
func ParseTransactionIndex(data []byte) (x TransactionIndex, err error) {
	if len(data) == 0 {
		return x, nil
	}
	if len(data) >= len(partitionMagic) && string(data[:len(partitionMagic)]) == partitionMagic {
		state, err := RestorePartition(data)
		if err != nil {
			return x, err
		}
		return state.Transactions(), nil
	}
	payload, _, err := unseal(transactionIndexMagic, transactionIndexVersion, data)
	if err != nil {
		return x, fmt.Errorf("transaction index: %w", err)
	}
	r := numbers{b: payload}
	// Each takes a byte a number at least: what is claimed has its bytes.
	if n := r.atMost(min(uint64(len(r.b))/2, MaxOpenTransactions)); n > 0 {
		x.Open = make([]OpenTransaction, n)
	}
	for i := range x.Open {
		x.Open[i] = OpenTransaction{ProducerID: r.positive(), First: Offset(r.positive())}
	}
	if n := r.atMost(uint64(len(r.b)) / 4); n > 0 {
		x.Aborted = make([]AbortedTransaction, n)
	}
	for i := range x.Aborted {
		x.Aborted[i] = AbortedTransaction{r.positive(), Offset(r.positive()), Offset(r.positive()), Offset(r.positive())}
	}
	if r.bad || len(r.b) > 0 {
		return TransactionIndex{}, fmt.Errorf("transaction index: %w: malformed", ErrSnapshot)
	}
	if err := x.check(); err != nil {
		return TransactionIndex{}, fmt.Errorf("transaction index: %w: %w", ErrSnapshot, err)
	}
	return x, nil
}

// check reports whether what the fields promise of each other holds.
func (x *TransactionIndex) check() error {
	producers := make(map[int64]bool, len(x.Open))
	before := Offset(-1)
	for _, o := range x.Open {
		if o.First <= before || producers[o.ProducerID] {
			return fmt.Errorf("producer %d has an open transaction at %d behind one at %d", o.ProducerID, o.First, before)
		}
		before, producers[o.ProducerID] = o.First, true
	}
	before = -1
	for _, a := range x.Aborted {
		if a.Last <= before || a.First >= a.Last || a.LastStable > a.Last+1 || a.Last == math.MaxInt64 {
			return fmt.Errorf("producer %d: aborted from %d to %d, stable to %d, behind %d", a.ProducerID, a.First, a.Last, a.LastStable, before)
		}
		before = a.Last
	}
	return nil
}
