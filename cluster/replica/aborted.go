package replica

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// Which transactions were aborted is known from two places: the state machine has those whose
// markers came last, and what is older is kept with the index of the segment that has the marker.
// The state machine lets go of it only when that index is on the disk. So a reader that looks at
// the state machine first and at the segments then finds each, in one of them or in both.

const (
	// maxAborted bounds the aborted transactions of one answer, but for those that have records in
	// its first batch: what follows is for the next read.
	maxAborted = 1 << 14
	// crowdedAt is with how many aborted transactions a segment ends.
	crowdedAt = 1 << 16
)

// kept makes the transaction index of a segment from its entries (raftlog.Kept).
type kept struct{ index fsm.TransactionIndex }

func newKept(before []byte) (raftlog.Kept, error) {
	x, err := fsm.ParseTransactionIndex(before)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", raftlog.ErrDamaged, err)
	}
	return &kept{fsm.TransactionIndex{Open: x.Open}}, nil
}

// Add implements raftlog.Kept.
func (k *kept) Add(entry *raft.Log, next int64) {
	if entry.Type == raft.LogCommand {
		s := stored(entry, fsm.Offset(next))
		k.index.AddStored(&s)
	}
}

// End implements raftlog.Kept.
func (k *kept) End(from, to int64) []byte {
	x := k.index.Within(fsm.Offset(from), fsm.Offset(to))
	b := x.Bytes()
	k.index.Aborted = nil
	return b
}

// Holds implements raftlog.Kept.
func (k *kept) Holds() bool { return len(k.index.Open) > 0 || len(k.index.Aborted) > 0 }

// Crowded implements raftlog.Kept.
func (k *kept) Crowded(int64) bool { return len(k.index.Aborted) >= crowdedAt }

// crowded reports whether the segment that is written to, which begins at offset start, has so many
// aborted transactions that it should end.
func (r *Records) crowded(start int64) bool {
	rows := r.recent.Load()
	if rows == nil || start < 0 || len(*rows) < crowdedAt {
		return false
	}
	return len(behind(*rows, fsm.Offset(start))) >= crowdedAt
}

// behind gives the rows whose markers are at an offset or behind it; rows are in the order of their
// markers.
func behind(rows []fsm.AbortedTransaction, offset fsm.Offset) []fsm.AbortedTransaction {
	return rows[sort.Search(len(rows), func(i int) bool { return rows[i].Last >= offset }):]
}

// keeps gives what is kept with a segment that ends where the state machine is.
func (r *Records) keeps() []byte {
	r.forget()
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.state.Transactions()
	return x.Bytes()
}

// forget lets the state machine go of the aborted transactions that are kept with segments on the
// disk, and of those that are below the log start: nobody can read what was in them.
func (r *Records) forget() {
	indexed := fsm.Offset(r.Log.IndexedTo())
	r.mu.Lock()
	defer r.mu.Unlock()
	if rows := r.state.Aborted(); len(rows) > 0 && rows[0].Last < max(indexed, r.seen.start) {
		r.state.DropAborted(max(indexed, r.seen.start))
	}
}

// aborted gives the aborted transactions that have records from offset from to below end, or reach
// over them, in the order of their first offsets. seen is the state that the answer is of; end is
// at most its last stable offset. The error is raftlog.ErrNotInLog if what is at from was freed
// this moment.
func (r *Records) aborted(seen seen, from, end fsm.Offset) ([]fsm.AbortedTransaction, error) {
	var found []fsm.AbortedTransaction
	// take adds the rows that concern the reader, and reports whether later ones cannot.
	take := func(rows []fsm.AbortedTransaction) (all bool) {
		for _, a := range behind(rows, from) {
			if a.First < end {
				found = append(found, a)
			}
			if a.LastStable >= end {
				return true
			}
		}
		return false
	}
	// What is in final indexes by now is looked for there alone: of a transaction whose marker is
	// gone nobody must be told. What comes into one from here on is found in both.
	indexed := fsm.Offset(r.Log.IndexedTo())
	for at := from; at < seen.next; {
		segment, final, ok := r.Log.KeptAt(int64(at))
		if !ok {
			return nil, raftlog.ErrNotInLog
		}
		at = fsm.Offset(segment.To)
		if !final {
			continue // the state machine knows
		}
		stable := at
		if segment.Keeps() {
			x, err := r.keptWith(segment)
			if err != nil {
				return nil, err
			}
			if take(x.Aborted) {
				break
			}
			stable = x.LastStable(at)
		}
		if stable >= end {
			break
		}
	}
	take(behind(seen.aborted, indexed))
	if len(found) < 2 {
		return found, nil
	}
	slices.SortFunc(found, func(a, b fsm.AbortedTransaction) int { return cmp.Compare(a.Last, b.Last) })
	found = slices.CompactFunc(found, func(a, b fsm.AbortedTransaction) bool { return a.Last == b.Last })
	slices.SortFunc(found, func(a, b fsm.AbortedTransaction) int {
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
	})
	return found, nil
}

// whetherAborted gives a function that says of a batch of records whether it belongs to one of some
// aborted transactions.
func whetherAborted(rows []fsm.AbortedTransaction) func(kafkaproto.BatchHeader) bool {
	of := map[int64][]fsm.AbortedTransaction{}
	for _, a := range rows {
		of[a.ProducerID] = append(of[a.ProducerID], a)
	}
	return func(h kafkaproto.BatchHeader) bool {
		base := fsm.Offset(h.BaseOffset)
		return h.Transactional() && slices.ContainsFunc(of[h.ProducerID], func(a fsm.AbortedTransaction) bool { return a.First <= base && base < a.Last })
	}
}

// keptWith gives the transaction index of a complete segment.
func (r *Records) keptWith(segment raftlog.KeptSegment) (x fsm.TransactionIndex, err error) {
	key := keptSegment{r.ID, fsm.Offset(segment.From), fsm.Offset(segment.To), segment.File}
	if x, ok := r.env.kept.get(key); ok {
		return x, nil
	}
	err = segment.Kept(func(b []byte) (err error) {
		if x, err = fsm.ParseTransactionIndex(b); err != nil {
			err = fmt.Errorf("%w: %w", raftlog.ErrDamaged, err)
		}
		return err
	})
	if err != nil {
		return x, err
	}
	x = x.Within(key.from, key.to)
	// What is kept with the segments in front may be there as well, and is not to stay in memory.
	x.Aborted = slices.Clone(x.Aborted)
	r.env.kept.put(key, x)
	return x, nil
}

// addAborted tells the reader at offset from which transactions of its slice were aborted. ok is
// false if what it has was freed this moment.
func (r *Records) addAborted(slice *fsm.Slice, seen seen, from, end fsm.Offset) (ok bool, err error) {
	rows, err := r.aborted(seen, from, end)
	if errors.Is(err, raftlog.ErrNotInLog) {
		if start, _ := r.Bounds(); from < start {
			return false, nil
		}
	}
	if err != nil {
		return true, r.unreadable(err, 0)
	}
	slice.Aborted = rows
	slice.BoundAborted(maxAborted)
	return true, nil
}

// lateBuffer is the time that Kafka gives the markers before it calls a transaction late
// (ProducerStateManager.LATE_TRANSACTION_BUFFER_MS).
const lateBuffer = 5 * time.Minute

// Late reports whether a transaction of that age should have been ended by its coordinator: it is
// open for longer than a client may ask for (transaction.max.timeout.ms), and lateBuffer.
func (r *Records) Late(age time.Duration) bool {
	return age >= r.env.Transactions.MaxTimeout+lateBuffer
}

// Transactions tells of the transactions that are open here: how many, the oldest, and how many
// records readers of committed ones do not get yet.
func (r *Records) Transactions() (count int, oldest fsm.OpenTransaction, behind int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	oldest, _ = r.state.OldestOpen()
	return r.state.OpenTransactions(), oldest, int64(r.seen.next - r.seen.stable)
}

// sayLate says once of the oldest open transaction that it is open for too long: it holds up who
// reads committed records, and retention, for ever if its coordinator does not know it any more.
func (r *Records) sayLate(topic *fsm.Topic, now time.Time) {
	count, oldest, behind := r.Transactions()
	if count == 0 || !r.Late(time.Duration(now.UnixMilli()-oldest.Since)*time.Millisecond) {
		return
	}
	r.mu.Lock()
	said := r.late == oldest
	r.late = oldest
	epoch := int16(-1)
	if p, known := r.state.Producer(oldest.ProducerID); known {
		epoch = p.Epoch
	}
	r.mu.Unlock()
	if said {
		return
	}
	r.env.Logger.Warn("a transaction is open for too long: readers of committed records wait for it, and it may be hanging",
		"topic", topic.Name, "partition", r.ID.Partition, "producer_id", oldest.ProducerID, "epoch", epoch,
		"first_offset", oldest.First, "since", time.UnixMilli(oldest.Since).UTC(), "offsets_behind", behind, "open", count)
}
