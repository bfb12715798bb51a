package fsm

import (
	"encoding/binary"
	"fmt"
	"iter"
	"slices"

	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// What is compacted is decided by the leader and stands in the partition's log, so that all
// replicas come to hold the same. The decision names offsets alone: segments are each replica's own
// affair. What it makes of a log is a function of the log and of the newest decision, in the sense
// that an earlier one, carried out or not, changes nothing in the result. So the state machine
// keeps only the newest.

// CompactionAlgorithm is the newest that this program knows.
//
//	1  of the records below Bound the newest of each key stays, but tombstones below Horizon;
//	   records without key and those of aborted transactions go; a marker goes that is below
//	   Horizon and of whose transaction no record at or above Start is left; the batch in front of
//	   Bound stays, empty if need be; what is left of a batch is kafkaproto.Batch.Retain, but of no
//	   transaction if all of it is below Start, where not all replicas have it
const CompactionAlgorithm = 1

// Compaction is one decision. The zero value is none.
type Compaction struct {
	Index     Index // of the entry that it stands in
	Algorithm uint64
	// Bound: nothing at or above it is touched. It is at most the last stable offset, and a batch
	// begins there, or would.
	Bound Offset
	// Horizon: tombstones and markers below it are no longer needed. It was the bound of an earlier
	// decision, which was carried out long enough ago (delete.retention.ms).
	Horizon Offset
	Start   Offset // where what replicas have to keep began when it was applied (LocalStart)
	Time    int64  // ms since epoch, by the leader's clock, but never before that of the last one
}

// cleaned says that all below an offset was compacted at a time, ms since epoch.
type cleaned struct {
	bound Offset
	at    int64
}

// maxCleaned bounds what is remembered of earlier decisions.
const maxCleaned = 64

// CompactCommand gives the data of an entry that decides c, whose Index and Start do not count.
// since is when the leader had carried out the decision before it, ms since epoch.
func CompactCommand(c Compaction, since int64) []byte {
	b := binary.AppendUvarint([]byte{controlCompact}, c.Algorithm)
	for _, v := range []int64{int64(c.Bound), int64(c.Horizon), c.Time, since} {
		b = binary.AppendUvarint(b, uint64(max(v, 0)))
	}
	return b
}

// parseCompact reads a CompactCommand. The error is ErrNewer for a later algorithm, whatever its
// command has, else ErrUnknown.
func parseCompact(data []byte) (c Compaction, since int64, err error) {
	r := numbers{b: data[1:]}
	if c.Algorithm = r.unsigned(); !r.bad && c.Algorithm > CompactionAlgorithm {
		return c, 0, newer("compaction by algorithm %d", c.Algorithm)
	}
	c.Bound, c.Horizon, c.Time, since = Offset(r.positive()), Offset(r.positive()), r.positive(), r.positive()
	if r.bad || len(r.b) > 0 || c.Algorithm == 0 {
		return c, 0, fmt.Errorf("%w: malformed compaction", outcome.ErrUnknown)
	}
	return c, since, nil
}

// IsCompact reports whether an entry's data decide a compaction.
func IsCompact(data []byte) bool { return len(data) > 0 && data[0] == controlCompact }

// Compaction is the newest decision; Index is 0 if there is none.
func (p *PartitionState) Compaction() Compaction { return p.compaction }

// compact takes a decision. One that does not fit has no effect on any replica: another leader may
// have decided meanwhile.
func (p *PartitionState) compact(index Index, data []byte) error {
	c, since, err := parseCompact(data)
	if err != nil {
		return err
	}
	old := p.compaction
	if c.Bound < old.Bound || c.Bound > p.LastStable() || c.Horizon < old.Horizon || c.Horizon > old.Bound {
		return fmt.Errorf("%w: compaction up to %d with horizon %d, after %d with %d, stable to %d", outcome.ErrUnknown, c.Bound, c.Horizon, old.Bound, old.Horizon, p.LastStable())
	}
	if c.Horizon > old.Horizon && len(p.tiers.segments) > 0 {
		return fmt.Errorf("%w: compaction with horizon %d, after %d, and what the tombstones in between stand for is in the tier", outcome.ErrUnknown, c.Horizon, old.Horizon)
	}
	start, _ := p.LocalStart()
	c.Index, c.Start, c.Time = index, start, max(c.Time, old.Time)
	p.cleaned = withCleaned(p.cleaned, old, since)
	p.cleaned = slices.DeleteFunc(p.cleaned, func(row cleaned) bool { return row.bound <= c.Horizon })
	p.compaction = c
	return nil
}

// withCleaned adds that the decision old was carried out at that time. Where there are too many
// rows every other one goes, so that what was clean by then counts from a later time.
func withCleaned(rows []cleaned, old Compaction, since int64) []cleaned {
	if old.Index == 0 || len(rows) > 0 && rows[len(rows)-1].bound >= old.Bound {
		return rows
	}
	rows = append(slices.Clip(rows), cleaned{old.Bound, max(since, old.Time)})
	if len(rows) > maxCleaned {
		kept := rows[:0:0]
		for i := 1; i < len(rows); i += 2 {
			kept = append(kept, rows[i])
		}
		rows = append(kept, rows[len(kept)*2:]...)
	}
	return rows
}

// NextHorizon gives the horizon of a decision at now, if the one before it was carried out at since
// and tombstones are kept for retention after that; all in ms.
func (p *PartitionState) NextHorizon(now, since, retention int64) Offset {
	horizon := p.compaction.Horizon
	for _, row := range withCleaned(p.cleaned, p.compaction, since) {
		if row.at <= now-retention {
			horizon = max(horizon, row.bound)
		}
	}
	return horizon
}

// snapshotCompaction appends the decision and the rows: the count of these, then of each bound and
// time.
func (p *PartitionState) snapshotCompaction(b []byte) []byte {
	c := p.compaction
	for _, v := range []uint64{uint64(c.Index), c.Algorithm, uint64(c.Bound), uint64(c.Horizon), uint64(c.Start), uint64(c.Time), uint64(len(p.cleaned))} {
		b = binary.AppendUvarint(b, v)
	}
	for _, row := range p.cleaned {
		b = binary.AppendUvarint(b, uint64(row.bound))
		b = binary.AppendUvarint(b, uint64(row.at))
	}
	return b
}

func (p *PartitionState) restoreCompaction(r *numbers) {
	p.compaction = Compaction{
		Index: Index(r.unsigned()), Algorithm: r.unsigned(), Bound: Offset(r.positive()), Horizon: Offset(r.positive()),
		Start: Offset(r.positive()), Time: r.positive(),
	}
	for range r.atMost(maxCleaned) {
		p.cleaned = append(p.cleaned, cleaned{Offset(r.positive()), r.positive()})
	}
}

// checkCompaction reports whether the decision can be one of this partition's.
func (p *PartitionState) checkCompaction() error {
	c := p.compaction
	if start, _ := p.LocalStart(); c.Index > p.applied || c.Bound > p.next || c.Horizon > c.Bound || c.Start > start {
		return fmt.Errorf("compaction of entry %d up to %d with horizon %d: entry %d is applied, the log ends at %d", c.Index, c.Bound, c.Horizon, p.applied, p.next)
	}
	before := c.Horizon
	for _, row := range p.cleaned {
		if row.bound <= before || row.bound > c.Bound {
			return fmt.Errorf("compacted up to %d behind %d, and up to %d", row.bound, before, c.Bound)
		}
		before = row.bound
	}
	return nil
}

// Stored is an entry of a partition's log as it is read again: committed, and perhaps compacted
// since.
type Stored struct {
	Data  []byte
	Stamp Stamp
	// Next is the next offset in front of what Batches has not given yet; in the end, behind the
	// entry.
	Next Offset
	// Compacted: some of the entry's records are gone. After is the offset behind it.
	Compacted bool
	After     Offset
}

// Batches goes over the batches that have their place in the log. Where Next was, and where it is
// then, is what the batch given last takes; with gaps in front of it if the entry is compacted.
func (s *Stored) Batches() iter.Seq[kafkaproto.Batch] {
	return func(yield func(kafkaproto.Batch) bool) {
		if IsRecords(s.Data) {
			for batch, err := range kafkaproto.Batches(s.Data) {
				if err != nil {
					break // the rest of the entry was void at Apply, too
				}
				next := Offset(batch.Header().NextOffset())
				if s.Compacted {
					if Offset(batch.Header().BaseOffset) < s.Next || next > s.After {
						break // no program wrote that
					}
				} else if !GoodBatch(batch, s.Next, s.Stamp) {
					continue
				}
				s.Next = next
				if !yield(batch) {
					return
				}
			}
		}
		if s.Compacted {
			s.Next = max(s.Next, s.After)
		}
	}
}
