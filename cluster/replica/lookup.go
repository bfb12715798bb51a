package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/tier"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// This file finds offsets by time and by leader epoch. Both ask a leader that a
// majority confirmed, since a replica that lags would say that there is nothing.

// MaxTimestamp asks for the record with the largest timestamp (ListOffsets, KIP-734).
const MaxTimestamp = -3

// scanStep is how much of a log is read at once to look for a time.
const scanStep = 1 << 20

// asConfirmedLeader gives the proposer of a replica that a majority confirmed as the leader after
// this call began, and the bounds of the log, which are not below what anybody was told before.
func (r *Records) asConfirmedLeader(ctx context.Context) (p *proposer, start, next fsm.Offset, err error) {
	if p, err = r.proposing(); err != nil {
		return nil, 0, 0, err
	}
	if err := r.ReadIndex(ctx, p.term); err != nil {
		return nil, 0, 0, err
	}
	start, next = r.Bounds()
	return p, start, next, nil
}

// ConfirmLeader returns nil when a majority has confirmed, after the call began, that this replica
// leads.
func (r *Records) ConfirmLeader(ctx context.Context) error {
	_, _, _, err := r.asConfirmedLeader(ctx)
	return err
}

// OffsetForTime looks for a time in what is committed.
func (r *Records) OffsetForTime(ctx context.Context, timestamp int64) (found kafkaproto.TimestampedOffset, ok bool, err error) {
	_, start, next, err := r.asConfirmedLeader(ctx)
	if err != nil {
		return found, false, err
	}
	r.mu.Lock()
	seen := r.seen
	r.mu.Unlock()
	// The index says where to begin, and the segments what the newest time is.
	newest := int64(0)
	first := timestamp
	if timestamp == MaxTimestamp {
		newest, ok = r.Log.MaxTime()
		for _, s := range seen.tiered {
			if s.Bytes > 0 && (!ok || s.MaxTime > newest) {
				newest, ok = s.MaxTime, true
			}
		}
		if !ok {
			return found, false, nil
		}
		first, ok = newest, false
	}
	begin, any, err := r.beforeTime(ctx, seen, first)
	if err != nil {
		return found, false, err
	}
	if !any {
		return found, false, nil
	}
	for from := max(start, begin); from < next; {
		if err := ctx.Err(); err != nil {
			return found, false, fmt.Errorf("%w: looking for a time: %w", outcome.ErrTimeout, err)
		}
		slice, inside, err := r.readHere(tier.Patient(ctx), 0, from, scanStep, fsm.ReadUncommitted)
		if err != nil {
			return found, false, err
		}
		if !inside {
			if from = max(from, slice.LogStart); from >= slice.HighWatermark || from != slice.LogStart {
				break
			}
			continue // the log start moved over it
		}
		for batch, err := range kafkaproto.Batches(slice.Batches) {
			if err != nil {
				return found, false, fmt.Errorf("%w: %w", outcome.ErrStorage, err)
			}
			h := batch.Header()
			from = fsm.Offset(h.NextOffset())
			if timestamp != MaxTimestamp && h.MaxTimestamp < timestamp || timestamp == MaxTimestamp && ok && h.MaxTimestamp <= found.Timestamp {
				continue // none of its records
			}
			here, hit, err := r.timeIn(ctx, batch, int64(slice.LogStart), timestamp)
			if err != nil {
				return found, false, err
			}
			if !hit {
				continue
			}
			if timestamp != MaxTimestamp {
				return here, true, nil
			}
			if !ok || here.Timestamp > found.Timestamp {
				if found, ok = here, true; found.Timestamp >= newest {
					return found, true, nil
				}
			}
		}
	}
	return found, ok, nil
}

// beforeTime gives an offset at or before the first record with a timestamp (ms) of at least that,
// in the tier or here; ok is false if there is none.
func (r *Records) beforeTime(ctx context.Context, seen seen, timestamp int64) (offset fsm.Offset, ok bool, err error) {
	if offset, ok, err = r.tierSince(ctx, seen, timestamp); ok || err != nil {
		return offset, ok, err
	}
	begin, ok, err := r.Log.OffsetBeforeTime(timestamp)
	if err != nil {
		return 0, false, r.unreadable(err, 0)
	}
	return fsm.Offset(begin), ok, nil
}

// timeIn looks for a time among the records of one batch, from an offset on.
func (r *Records) timeIn(ctx context.Context, batch kafkaproto.Batch, from, timestamp int64) (found kafkaproto.TimestampedOffset, ok bool, err error) {
	if batch.Header().Codec() != kafkaproto.None {
		unpacking := r.env.unpacking
		if err := unpacking.Acquire(ctx, 1); err != nil {
			return found, false, fmt.Errorf("%w: looking for a time: %w", outcome.ErrTimeout, err)
		}
		defer unpacking.Release(1)
	}
	if timestamp != MaxTimestamp {
		found, ok, err = batch.FirstAtOrAfter(from, timestamp)
	} else {
		found, ok, err = batch.Latest(from)
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", outcome.ErrStorage, err)
	}
	return found, ok, err
}

// EpochEnd looks for the end of an epoch. Epochs never go down along the log, so
// a binary search over offsets finds where one ends, with a small read each.
func (r *Records) EpochEnd(ctx context.Context, epoch fsm.LeaderEpoch) (fsm.LeaderEpoch, fsm.Offset, error) {
	p, start, next, err := r.asConfirmedLeader(ctx)
	if err != nil {
		return -1, -1, err
	}
	current := p.term.Epoch()
	switch {
	case epoch == current:
		return epoch, next, nil
	case epoch > current:
		return -1, -1, nil
	}
	var failed error
	at := func(o fsm.Offset) fsm.LeaderEpoch {
		if failed == nil {
			failed = ctx.Err()
		}
		if failed != nil {
			return current
		}
		var e fsm.LeaderEpoch
		e, failed = r.epochAt(ctx, o)
		return e
	}
	// What is known of the tier leaves it out of the search but for one segment at most: who is at
	// the log's end asks here, too, and must not wait for a store.
	r.mu.Lock()
	from, to := epochIn(r.seen.tiered, epoch, start, next)
	r.mu.Unlock()
	above := from + fsm.Offset(sort.Search(int(to-from), func(i int) bool { return at(from+fsm.Offset(i)) > epoch }))
	found := epoch
	if above > start && failed == nil {
		found = at(above - 1)
	}
	if failed != nil {
		if ctx.Err() != nil {
			failed = fmt.Errorf("%w: looking for an epoch: %w", outcome.ErrTimeout, failed)
		}
		return -1, -1, failed
	}
	return found, above, nil
}

// epochIn narrows a log from start to next down to where its first offset of an epoch above one is,
// or to, by what is known of ascending segments.
func epochIn(segments []fsm.TieredSegment, epoch fsm.LeaderEpoch, start, next fsm.Offset) (from, to fsm.Offset) {
	i := sort.Search(len(segments), func(i int) bool { return segments[i].LastEpoch > epoch })
	if from, to = start, next; i > 0 {
		from = max(from, segments[i-1].Next)
	}
	if i < len(segments) {
		if to = segments[i].Next; segments[i].FirstEpoch > epoch {
			to = segments[i].First
		}
	}
	return from, max(from, to)
}

// epochAt gives the leader epoch of the entry that holds the offset: its batch may be gone. An
// offset that was missing when the log was restored has that of what is in front of it: so a
// consumer that was there before does not take the log for one that was cut.
func (r *Records) epochAt(ctx context.Context, o fsm.Offset) (epoch fsm.LeaderEpoch, err error) {
	for tries := 0; ; tries++ {
		rewritten := r.Log.Rewritten()
		for missing := true; missing && err == nil; {
			epoch, o, missing, err = r.searchEpoch(ctx, o)
		}
		if err == nil || tries > 0 && rewritten == r.Log.Rewritten() {
			return epoch, err
		}
		r.Log.Recheck(int64(o), err)
		err = nil
	}
}

// searchEpoch is epochAt by an index that may be damaged. missing: no entry holds the offset;
// further on is then one in front of it, in another entry.
func (r *Records) searchEpoch(ctx context.Context, o fsm.Offset) (epoch fsm.LeaderEpoch, further fsm.Offset, missing bool, err error) {
	r.mu.Lock()
	seen := r.seen
	r.mu.Unlock()
	start, next, last := seen.start, seen.next, seen.last
	if o >= start && r.away(seen, o) {
		epoch, err = r.tierEpochAt(ctx, seen, o)
		return epoch, o, false, err
	}
	reader, err := r.Log.ReadAt(int64(o), 1)
	if o < start || errors.Is(err, raftlog.ErrNotInLog) {
		if err == nil {
			reader.Close()
		}
		return -1, o, false, fmt.Errorf("%w: %d is not within %d to %d any more", outcome.ErrOffsetOutOfRange, o, start, next)
	}
	if err != nil {
		return -1, o, false, r.unreadable(err, 0)
	}
	defer reader.Close()
	for {
		entry, err := reader.Next(uint64(last))
		if errors.Is(err, io.EOF) {
			return -1, o, false, fmt.Errorf("%w: offset %d is committed and not in the log", outcome.ErrStorage, o)
		}
		if err != nil {
			if err := r.passDamage(reader, o, err); err != nil {
				return -1, o, false, err
			}
			continue
		}
		before := fsm.Offset(reader.Expected())
		after, _ := span(&entry, int64(before))
		if reader.Passed(after); fsm.Offset(after) <= o {
			continue
		}
		stamp := stored(&entry, before).Stamp
		switch {
		case !stamp.Restored || o >= stamp.First:
			return stamp.Epoch(), o, false, nil
		case before <= start:
			return 0, o, false, nil // nothing is in front of it
		}
		return -1, min(before, o) - 1, true, nil
	}
}
