package raftlog

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// Span says what an entry of records adds when it stands where the next offset is
// next: the next offset behind it, and the largest timestamp (ms) of its records.
// after == next means nothing: it is no entry of records, or all of it is void.
type Span func(entry *raft.Log, next int64) (after, maxTime int64)

// Kept makes what readers of a segment need beside its entries, and is kept with its index: it is
// given entries in their order.
type Kept interface {
	// Add takes an entry in front of which the next offset is next.
	Add(entry *raft.Log, next int64)
	// End gives what is kept with a segment that reaches from one offset to another and whose last
	// entry was added last; nil: nothing. What is kept with it alone is forgotten.
	End(from, to int64) []byte
	// Holds reports whether End would give something.
	Holds() bool
	// Crowded is LogOptions.Crowded of the entries so far.
	Crowded(start int64) bool
}

// LogOptions says how a partition's log works.
type LogOptions struct {
	Group string
	// SegmentBytes and SegmentAge end a segment (segment.bytes, segment.ms). They
	// are asked before each append. nil: 1 GiB, never.
	SegmentBytes func() int64
	SegmentAge   func() time.Duration
	Span         Span // needed to make an index again
	// Kept begins to make what is kept with the indexes of segments from their entries alone;
	// before is what the segment in front is kept with, nil where that is nothing or there is none.
	// The error says that before is not that. nil: nothing is kept.
	Kept func(before []byte) (Kept, error)
	// Crowded reports whether so much is to be kept with the segment that is written to, which
	// begins at offset start, that it should end. It is asked before each append, and must not
	// wait. nil: never.
	Crowded func(start int64) bool
	// Begins reports whether an entry should be the first of its segment. nil: none need be.
	Begins func(*raft.Log) bool
	// Trailing is how many entries below a snapshot Raft still has after a restart.
	Trailing uint64
	// OnDamage is told, in a goroutine of its own, when Raft wanted an entry that
	// cannot be read while the raft group runs. See PartitionLog.Abandon.
	OnDamage func(error)
	// Bulk reports whether an entry may be refused because the disk is nearly full:
	// records, but nothing that Raft or retention needs to go on. nil: none may.
	Bulk func(*raft.Log) bool
	// Fresh says that the raft group may begin here with nothing.
	Fresh bool
	// Whole says that it is a WholeLog's.
	Whole bool
}

// ErrLost is in the error of OpenLog when the log should be there and is not.
var ErrLost = errors.New("the log is gone")

// home is where a log lives: what its parts share. Nothing in it changes.
type home struct {
	st    *Store
	dir   string
	opts  LogOptions
	cache *memberCache
}

// PartitionLog is the log of one partition's raft group: segments in a folder. It is what Raft
// writes (Log), where the partition's records are read (ReadAt), and where its snapshots are kept
// (Snapshots). It only puts its parts together; each owns its state and says what its lock is for.
type PartitionLog struct {
	*home
	*view      // what the log consists of, for all who read
	*tail      // the end, which Raft writes
	*entries   // reading by Raft's index
	*gate      // what Raft must not see
	*offsets   // reading by the partition's offset
	*retention // the beginning, which the partition frees
	*scrubber
	*compactor

	turn      *turn // of those that change files
	snapshots snapshots
}

var _ Log = (*PartitionLog)(nil)

// OpenLog opens the log of a raft group in the folder dir, or makes a new one if opts.Fresh. What a
// crash has torn is cut off; what is damaged is refused with ErrDamaged, and nothing is changed
// then.
func (st *Store) OpenLog(dir string, opts LogOptions) (*PartitionLog, error) {
	return st.openLog(dir, opts, 0)
}

// openLog is OpenLog for a log whose first entry, unless a snapshot says otherwise, stands where
// the next offset is start.
func (st *Store) openLog(dir string, opts LogOptions, start int64) (*PartitionLog, error) {
	h := &home{st: st, dir: dir, opts: opts, cache: st.cache.group()}
	v, err := recoverLog(h, start)
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", opts.Group, err)
	}
	st.ledger.opened(dir)
	t := &turn{disk: st.disk}
	g := newGate(opts.OnDamage)
	o := &offsets{home: h, view: v}
	l := &PartitionLog{
		home: h, view: v, turn: t, gate: g,
		tail:     &tail{home: h, view: v, turn: t},
		entries:  &entries{home: h, view: v, gate: g},
		offsets:  o,
		scrubber: &scrubber{view: v}, compactor: &compactor{home: h, view: v, turn: t, offsets: o},
	}
	l.retention = &retention{home: h, view: v, turn: t, tail: l.tail, entries: l.entries}
	l.snapshots = snapshots{home: h, view: v, turn: t}
	if opts.Whole {
		w := &installer{snapshots: l.snapshots, tail: l.tail, entries: l.entries, gate: g}
		l.snapshots.take = w.install
	}
	return l, nil
}

// Snapshots is the raft.SnapshotStore of a partition: there is one snapshot, and it is in the
// manifest. The state in it is small; the records are the segments.
//
// Raft of a partition's raft group never installs a snapshot of another node by itself: see
// Staging. That of a whole log does.
func (l *PartitionLog) Snapshots() raft.SnapshotStore { return l.snapshots }

// Close brings everything to stable storage and closes the files. Raft must be down.
func (l *PartitionLog) Close() error {
	l.Abandon()
	l.turn.wait()
	defer l.turn.pass()
	segments := l.view.close()
	if l.turn.closed {
		return nil
	}
	l.turn.closed = true
	var err error
	var end *closedEnds
	if last := segments.newest(); last != nil {
		// The journal will not sync it any more.
		if err = last.flush(l.st.disk); err == nil && l.turn.err == nil {
			end = &closedEnds{last.id.Load(), last.last}
		}
	}
	segments.drop()
	l.st.ledger.ended(l.dir, end)
	if l.turn.err == nil {
		l.turn.err = errClosed
	}
	return err
}
