// Package compaction says what a decision on compaction (fsm.Compaction) leaves of the records of a
// partition. It is pure: it is given batches, and knows neither files nor clocks, so that all
// replicas come to the same bytes.
//
// You are here:
//
//	keys.go   the newest offset of each key, in bounded memory
//	round.go  which records, markers and batches stay
//
// What it leaves does not depend on the way that led there. If a replica carries out a decision and
// later another, or only the other, or some of the first and then the other, or goes up to the
// bound in several steps since it has little memory for keys, the result is the same:
//
//   - A record that is gone had a newer one of its key below the bound. That one stays until a
//     newer one takes its place, or until it is a tombstone below the horizon.
//   - A tombstone below the horizon goes in the same step as, and behind, all that it stands for.
//   - What is left of a batch follows from the records that are left (kafkaproto.Batch.Retain).
//
// A pass goes up from the oldest record. So at every moment, also after a crash, what a tombstone
// stood for is gone before the tombstone is.
package compaction

import (
	"sort"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// Round is one pass over a log, for a decision. The batches of a log are given to it in order.
type Round struct {
	decision fsm.Compaction
	to       fsm.Offset // up to here, the decision's bound or less
	keys     *Keys
	aborted  Aborted

	// rows are in the order of their markers, of what is between two offsets
	rows           []fsm.AbortedTransaction
	rowsAt, rowsTo fsm.Offset

	// open has the producers of whose present transaction something is left.
	open    map[int64]bool
	dropped map[fsm.Offset]bool // markers

	// Left counts tombstones and markers that stay.
	Left int64
}

// Aborted gives the aborted transactions that have records at or above an offset, in the order of
// their markers, and up to which offset these are all. They are of the log as it was.
type Aborted func(from fsm.Offset) (rows []fsm.AbortedTransaction, to fsm.Offset, err error)

// NewRound begins a pass up to an offset. keys has those of all records below it that are not below
// the bound of the last pass, see Collect.
func NewRound(d fsm.Compaction, to fsm.Offset, keys *Keys, aborted Aborted) *Round {
	return &Round{
		decision: d, to: min(to, d.Bound), keys: keys, aborted: aborted,
		open: map[int64]bool{}, dropped: map[fsm.Offset]bool{},
	}
}

// isAborted reports whether a batch belongs to a transaction that was aborted.
func (r *Round) isAborted(h kafkaproto.BatchHeader) (bool, error) {
	base := fsm.Offset(h.BaseOffset)
	if !h.Transactional() {
		return false, nil
	}
	if base < r.rowsAt || base >= r.rowsTo {
		rows, to, err := r.aborted(base)
		if err != nil {
			return false, err
		}
		r.rows, r.rowsAt, r.rowsTo = rows, base, to
	}
	at := sort.Search(len(r.rows), func(i int) bool { return r.rows[i].Last > base })
	for _, a := range r.rows[at:] {
		if a.ProducerID == h.ProducerID && a.First <= base {
			return true, nil
		}
	}
	return false, nil
}

// Collect notes the keys of an entry's records from an offset on. It gives the offset of the first
// record below the decision's bound that did not fit; full is false if all did.
func (r *Round) Collect(s fsm.Stored, from fsm.Offset) (at fsm.Offset, full bool, err error) {
	for batch := range s.Batches() {
		h := batch.Header()
		if h.Control() || fsm.Offset(h.NextOffset()) <= from || fsm.Offset(h.BaseOffset) >= r.decision.Bound {
			continue
		}
		gone, err := r.isAborted(h)
		if err != nil {
			return 0, false, err
		}
		if gone {
			continue
		}
		rerr := batch.Records(func(record kafkaproto.Record) bool {
			offset := fsm.Offset(record.Offset)
			if record.Key == nil || offset < from || offset >= r.decision.Bound || r.keys.Put(record.Key, offset) {
				return true
			}
			at, full = offset, true
			return false
		})
		// What cannot be read, which no producer can have sent, stays as it is on all replicas.
		if rerr == nil && full {
			return at, true, nil
		}
		full = false
	}
	return 0, false, nil
}

// Entry gives what is left of an entry: all of it if same is true.
func (r *Round) Entry(s fsm.Stored) (data []byte, same bool, err error) {
	same = s.Compacted || fsm.IsRecords(s.Data)
	good := false
	for batch := range s.Batches() {
		good = true
		rest, err := r.batch(batch)
		if err != nil {
			return nil, false, err
		}
		h, was := rest.Header(), batch.Header()
		same = same && rest.Size() == batch.Size() && h.Records == was.Records && h.Transactional() == was.Transactional()
		data = append(data, rest.Bytes()...)
	}
	if !s.Compacted && !good {
		return nil, false, nil // a command, or void
	}
	if same {
		return s.Data, true, nil
	}
	return data, false, nil
}

// batch gives what is left of a batch; the zero Batch: nothing.
func (r *Round) batch(batch kafkaproto.Batch) (kafkaproto.Batch, error) {
	h := batch.Header()
	base, next := fsm.Offset(h.BaseOffset), fsm.Offset(h.NextOffset())
	switch {
	case base >= r.to:
		return batch, nil
	case h.Control():
		return r.marker(batch), nil
	}
	gone, err := r.isAborted(h)
	if err != nil {
		return kafkaproto.Batch{}, err
	}
	last, tombstones := fsm.Offset(-1), int64(0)
	rest, kept, err := batch.Retain(func(record kafkaproto.Record) bool {
		offset := fsm.Offset(record.Offset)
		if offset < r.to {
			if gone || record.Key == nil || r.keys.Newest(record.Key) > offset || record.Null && offset < r.decision.Horizon {
				return false
			}
			if record.Null {
				tombstones++
			}
		}
		last = offset
		return true
	})
	if err != nil { // on all replicas alike: its bytes are what was appended
		rest, kept, last, tombstones = batch, 1, next-1, 0
	}
	r.Left += tombstones
	if kept > 0 {
		switch {
		case !h.Transactional():
		case last >= r.decision.Start:
			r.open[h.ProducerID] = true
		case !gone: // what is gone and here cannot be read
			// Not all replicas have it, so its marker may go: it is what a committed one is.
			rest = rest.OutsideTransaction()
		}
		return rest, nil
	}
	if next == r.decision.Bound {
		return rest, nil // readers get to the end
	}
	return kafkaproto.Batch{}, nil
}

// marker decides about a control batch.
func (r *Round) marker(batch kafkaproto.Batch) kafkaproto.Batch {
	h := batch.Header()
	base := fsm.Offset(h.BaseOffset)
	if _, err := kafkaproto.ParseMarker(batch); err != nil {
		return batch
	}
	needed := r.open[h.ProducerID]
	delete(r.open, h.ProducerID)
	if needed || base >= r.decision.Horizon || fsm.Offset(h.NextOffset()) == r.decision.Bound {
		r.Left++
		return batch
	}
	r.dropped[base] = true
	return kafkaproto.Batch{}
}

// Kept gives what is kept with a segment that was made of others: what was kept with each of them,
// but the aborted transactions whose markers are gone.
func (r *Round) Kept(old []fsm.TransactionIndex) fsm.TransactionIndex {
	var x fsm.TransactionIndex
	for _, o := range old {
		x.Open = o.Open
		for _, a := range o.Aborted {
			if !r.dropped[a.Last] {
				x.Aborted = append(x.Aborted, a)
			}
		}
	}
	clear(r.dropped)
	return x
}
