package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// never is a time that does not come: what Raft would do at intervals, housekeeping does by bytes.
const never = 1 << 62

// files opens the log of a replica.
func (r *Replica) files(fresh bool) (raftgroup.Files, error) {
	opts := r.machine.logOptions()
	opts.Group, opts.Fresh, opts.Trailing = r.ID.String(), fresh, r.env.Trailing
	opts.OnDamage = func(err error) { r.keeper.Damaged(r, err) }
	log, err := r.env.Logs.OpenLog(r.env.dirOf(r.ID), opts)
	if err == nil && fresh && r.begin != nil {
		var begun *raftlog.PartitionLog
		if begun, err = r.beginAt(log, opts); err != nil && begun != nil {
			begun.Close()
		}
		log = begun
	}
	if err != nil {
		return raftgroup.Files{}, err
	}
	r.Log = log
	return raftgroup.Files{Log: log, Snapshots: log.Snapshots(), Serving: log.Serving}, nil
}

// LogOptions gives how the log of a replica is opened that does not run, so that what is kept with
// its segments stays what it is.
func LogOptions(id fsm.PartitionID) raftlog.LogOptions {
	opts := raftlog.LogOptions{Group: id.String(), Span: SpanOf(id), Trailing: defaultTrailing}
	if id.Topic != fsm.GroupShardsID {
		opts.Kept = newKept
	}
	return opts
}

// logOptions implements machine.
func (r *Records) logOptions() raftlog.LogOptions {
	return raftlog.LogOptions{
		SegmentBytes: func() int64 { return r.env.configNumber(r.ID.Topic, "segment.bytes") },
		SegmentAge: func() time.Duration {
			age := r.env.configNumber(r.ID.Topic, "segment.ms")
			if topic, ok := r.env.Host.Topics().ByID(r.ID.Topic); ok && topic.Compacted(r.env.TopicDefaults) {
				age = min(age, r.env.configNumber(r.ID.Topic, "max.compaction.lag.ms"))
			}
			return time.Duration(min(age, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
		},
		Span: span, Kept: newKept, Crowded: r.crowded,
		// All that is to be compacted is in closed segments then, on every replica.
		Begins: func(entry *raft.Log) bool { return entry.Type == raft.LogCommand && fsm.IsCompact(entry.Data) },
		Bulk:   func(entry *raft.Log) bool { return entry.Type == raft.LogCommand && fsm.IsRecords(entry.Data) },
	}
}

// SpanOf gives the raftlog.Span of a replica's log.
func SpanOf(id fsm.PartitionID) raftlog.Span {
	if id.Topic == fsm.GroupShardsID {
		return shardSpan
	}
	return span
}

// span tells the log what an entry adds (raftlog.Span).
func span(entry *raft.Log, next int64) (after, maxTime int64) {
	maxTime = math.MinInt64
	if entry.Type != raft.LogCommand {
		return next, maxTime
	}
	s := stored(entry, fsm.Offset(next))
	for batch := range s.Batches() {
		maxTime = max(maxTime, batch.Header().MaxTimestamp)
	}
	return int64(s.Next), maxTime
}

// stored gives an entry of commands as the state machine's package reads it, in front of which the
// next offset is next.
func stored(entry *raft.Log, next fsm.Offset) fsm.Stored {
	c := raftlog.Compacted(entry)
	return fsm.Stored{
		Data: entry.Data, Stamp: fsm.StampOf(entry.Term, c.Extensions), Next: next,
		Compacted: c.Compacted, After: fsm.Offset(c.After),
	}
}

// ReadHere gives what a reader can read of what this replica has applied, at offset from; all of it
// comes from one state. ok is false if from lies outside of that.
func (r *Records) ReadHere(from fsm.Offset, maxBytes int, isolation fsm.Isolation) (slice fsm.Slice, ok bool, err error) {
	return r.readHere(r.env.ctx, tierPatience, from, maxBytes, isolation)
}

// readHere is ReadHere that waits for the tier, if it has to, for so long and no longer than ctx
// lasts; 0: as long as that.
func (r *Records) readHere(ctx context.Context, patience time.Duration, from fsm.Offset, maxBytes int, isolation fsm.Isolation) (slice fsm.Slice, ok bool, err error) {
	for freed := false; ; {
		// Batches from before segments were compacted and aborted transactions from after that do
		// not fit together, nor does a place that was looked for in others.
		rewritten := r.Log.Rewritten()
		slice, ok, err = r.readOnce(ctx, patience, from, maxBytes, isolation)
		if err != nil && !freed && errors.Is(err, raftlog.ErrNotInLog) {
			freed = true // this moment, and it is in the tier
			continue
		}
		if rewritten == r.Log.Rewritten() {
			return slice, ok, err
		}
		if slice.Done != nil {
			slice.Done()
		}
	}
}

// readOnce is ReadHere of segments that stay as they are.
func (r *Records) readOnce(ctx context.Context, patience time.Duration, from fsm.Offset, maxBytes int, isolation fsm.Isolation) (slice fsm.Slice, ok bool, err error) {
	r.mu.Lock()
	seen := r.seen
	r.mu.Unlock()
	slice.LogStart, slice.HighWatermark, slice.LastStable = seen.start, seen.next, seen.stable
	limit := seen.end(isolation)
	if from < slice.LogStart || from >= limit {
		return slice, false, nil
	}
	if r.away(seen, from) {
		from, err = r.readTier(ctx, patience, &slice, seen, from, maxBytes, isolation)
		if err != nil || len(slice.Batches) > 0 || from >= limit {
			return slice, err != nil || len(slice.Batches) > 0, err
		}
	}
	end, ok, err := r.readBatches(&slice, seen.last, from, limit, maxBytes)
	if ok && err == nil && isolation == fsm.ReadCommitted {
		ok, err = r.addAborted(&slice, seen, from, end)
	}
	if !ok || err != nil {
		if slice.Done != nil {
			slice.Done()
		}
		slice.Batches, slice.Done, slice.Aborted = nil, nil, nil
	}
	return slice, ok, err
}

// readBatches adds batches from offset from on, up to the entry at index last and below limit, to a
// slice, and gives the offset behind them.
func (r *Records) readBatches(slice *fsm.Slice, last fsm.Index, from, limit fsm.Offset, maxBytes int) (end fsm.Offset, ok bool, err error) {
	end, ok, err = r.searchBatches(slice, last, from, limit, maxBytes, false)
	var lost errLost
	if errors.As(err, &lost) {
		r.Log.Recheck(int64(from), lost.error)
		end, ok, err = r.searchBatches(slice, last, from, limit, maxBytes, true)
	}
	return end, ok, err
}

// errLost says that nothing was found, and why: the log may be damaged, or only the index that told
// where to look.
type errLost struct{ error }

// searchBatches is readBatches. The error is errLost where nothing is found, unless rechecked: the
// index is known to be good.
func (r *Records) searchBatches(slice *fsm.Slice, last fsm.Index, from, limit fsm.Offset, maxBytes int, rechecked bool) (end fsm.Offset, ok bool, err error) {
	reader, err := r.Log.ReadAt(int64(from), maxBytes)
	if errors.Is(err, raftlog.ErrNotInLog) {
		if start, _ := r.Bounds(); from < start {
			return from, false, nil // freed this moment
		}
	}
	if err != nil {
		return from, true, r.unreadable(err, 0)
	}
	defer reader.Close()
	for len(slice.Batches) < maxBytes || len(slice.Batches) == 0 {
		// The state machine's own index bounds the read: Raft's applied index runs ahead of it.
		entry, err := reader.Next(uint64(last))
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, raftlog.ErrNotInLog) && len(slice.Batches) == 0 {
			if start, _ := r.Bounds(); from < start {
				return from, false, nil // freed this moment
			}
		}
		if err != nil {
			if len(slice.Batches) > 0 {
				break // the next read begins there
			}
			if !rechecked {
				return from, true, errLost{err}
			}
			if err := r.passDamage(reader, from, err); err != nil {
				return from, true, err
			}
			continue
		}
		if full := takeBatches(slice, reader, &entry, &end, from, limit, maxBytes); full {
			break
		}
	}
	if len(slice.Batches) == 0 {
		err := fmt.Errorf("%w: offset %d is committed and not in the log", outcome.ErrStorage, from)
		if !rechecked {
			err = errLost{err}
		}
		return from, true, err
	}
	return end, true, nil
}

// takeBatches adds what a reader at offset from gets of an entry below limit, where a batch begins,
// and notes the offset behind it. full: it is enough.
func takeBatches(slice *fsm.Slice, reader *raftlog.Reader, entry *raft.Log, end *fsm.Offset, from, limit fsm.Offset, maxBytes int) (full bool) {
	if entry.Type != raft.LogCommand {
		return false
	}
	s := stored(entry, fsm.Offset(reader.Expected()))
	for batch := range s.Batches() {
		base, next := fsm.Offset(batch.Header().BaseOffset), s.Next
		if next <= from {
			continue
		}
		if base >= limit || len(slice.Batches) > 0 && len(slice.Batches)+batch.Size() > maxBytes {
			// Not all of the entry: the next read begins in front of it.
			reader.Unread()
			return true
		}
		if slice.Batches == nil {
			// The reader's bytes are its own. Most reads get what they asked for, if
			// there is as much.
			slice.Batches, slice.Done = memoryFor(max(batch.Size(), min(int64AsInt(reader.Left())+len(entry.Data), maxBytes)))
		}
		if need := len(slice.Batches) + batch.Size(); need > cap(slice.Batches) {
			// There was more behind the segment's end.
			old := *slice
			slice.Batches, slice.Done = memoryFor(max(need, min(2*need, maxBytes)))
			slice.Batches = append(slice.Batches, old.Batches...)
			if old.Done != nil {
				old.Done()
			}
		}
		slice.Batches = append(slice.Batches, batch.Bytes()...)
		*end = next
		if len(slice.Batches) >= maxBytes {
			full = true
		}
	}
	reader.Passed(int64(s.Next))
	return full
}

func int64AsInt(n int64) int { return int(min(n, math.MaxInt32)) }
