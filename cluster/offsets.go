package cluster

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"sort"

	"golang.org/x/sync/semaphore"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// This file finds offsets by time and by leader epoch. Both ask a leader that a
// majority confirmed, since a replica that lags would say that there is nothing.

// maxTimestamp asks for the record with the largest timestamp (ListOffsets, KIP-734).
const maxTimestamp = -3

// scanStep is how much of a log is read at once to look for a time.
const scanStep = 1 << 20

// newUnpacking bounds the batches that a node unpacks at once to look for a time: a small
// one may become a hundred megabytes.
func newUnpacking() *semaphore.Weighted { return semaphore.NewWeighted(int64(runtime.GOMAXPROCS(0))) }

// OffsetForTime finds the first record whose timestamp is at or after timestamp
// (ms since epoch), for -3 the first of those with the largest timestamp. ok is
// false if there is none. ctx bounds the time that it takes.
func (n *Node) OffsetForTime(ctx context.Context, id fsm.PartitionID, timestamp int64) (offset fsm.Offset, at int64, epoch fsm.LeaderEpoch, ok bool, err error) {
	var found kafkaproto.TimestampedOffset
	err = n.atRecords(ctx, id, holdLeaderless, func(ctx context.Context, h hint, local *records) (err error) {
		if local != nil {
			found, ok, err = local.offsetForTime(ctx, timestamp)
			return err
		}
		reply, err := n.ask(ctx, h.identity, callOffsetForTime, binary.BigEndian.AppendUint64(appendPartition(nil, id), uint64(timestamp)))
		if err != nil {
			return err
		}
		if ok = len(reply) > 0; ok {
			r := reader{b: reply}
			found = kafkaproto.TimestampedOffset{Offset: int64(r.uint64()), Timestamp: int64(r.uint64()), LeaderEpoch: int32(r.uint32())}
			if r.bad {
				return outcome.ErrUnknown
			}
		}
		return nil
	})
	if err != nil || !ok {
		return -1, -1, -1, false, err
	}
	return fsm.Offset(found.Offset), found.Timestamp, fsm.LeaderEpoch(found.LeaderEpoch), true, nil
}

// EpochEnd gives the largest epoch at or below epoch that has records, and the
// offset at which the next one begins, or the log end (KIP-101, KIP-279). Where
// no epoch at or below has records, it gives the asked one and where the first
// one begins; for an epoch that is still to come -1 and -1.
func (n *Node) EpochEnd(ctx context.Context, id fsm.PartitionID, epoch fsm.LeaderEpoch) (found fsm.LeaderEpoch, end fsm.Offset, err error) {
	err = n.atRecords(ctx, id, holdLeaderless, func(ctx context.Context, h hint, local *records) (err error) {
		if local != nil {
			found, end, err = local.epochEnd(ctx, epoch)
			return err
		}
		reply, err := n.ask(ctx, h.identity, callEpochEnd, binary.BigEndian.AppendUint32(appendPartition(nil, id), uint32(epoch)))
		if err != nil {
			return err
		}
		r := reader{b: reply}
		if found, end = fsm.LeaderEpoch(r.uint32()), fsm.Offset(r.uint64()); r.bad {
			return outcome.ErrUnknown
		}
		return nil
	})
	if err != nil {
		return -1, -1, err
	}
	return found, end, nil
}

// LeaderEpoch gives the epoch of the leader that this node knows, -1 for none.
// newest is true where a replica here follows the leader and hears of the next
// one by itself; what is only remembered of other nodes may be long over.
func (n *Node) LeaderEpoch(id fsm.PartitionID) (epoch fsm.LeaderEpoch, newest bool) {
	if replica := n.replica(id); replica != nil {
		if h, _ := replica.leader(); h.identity != "" {
			return fsm.Term(h.term).Epoch(), true
		}
		return -1, false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if h, ok := n.hints[id]; ok && h.identity != "" && h.term != 0 {
		return fsm.Term(h.term).Epoch(), false
	}
	return -1, false
}

// answerOffsets answers other nodes' calls for what is in this file.
func answerOffsets(ctx context.Context, replica *records, kind uint8, r *reader) ([]byte, error) {
	switch kind {
	case callOffsetForTime:
		timestamp := int64(r.uint64())
		if r.bad {
			return nil, errMalformed
		}
		found, ok, err := replica.offsetForTime(ctx, timestamp)
		if err != nil || !ok {
			return nil, err
		}
		out := binary.BigEndian.AppendUint64(nil, uint64(found.Offset))
		out = binary.BigEndian.AppendUint64(out, uint64(found.Timestamp))
		return binary.BigEndian.AppendUint32(out, uint32(found.LeaderEpoch)), nil
	default: // callEpochEnd
		epoch := fsm.LeaderEpoch(r.uint32())
		if r.bad {
			return nil, errMalformed
		}
		found, end, err := replica.epochEnd(ctx, epoch)
		if err != nil {
			return nil, err
		}
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, uint32(found)), uint64(end)), nil
	}
}

// asConfirmedLeader gives the proposer of a replica that a majority confirmed as the leader after
// this call began, and the bounds of the log, which are not below what anybody was told before.
func (r *records) asConfirmedLeader(ctx context.Context) (p *proposer, start, next fsm.Offset, err error) {
	if p, err = r.leads(); err != nil {
		return nil, 0, 0, err
	}
	if err := r.readIndex(ctx, p.term); err != nil {
		return nil, 0, 0, err
	}
	start, next = r.bounds()
	return p, start, next, nil
}

// offsetForTime looks for a time in what is committed.
func (r *records) offsetForTime(ctx context.Context, timestamp int64) (found kafkaproto.TimestampedOffset, ok bool, err error) {
	_, start, next, err := r.asConfirmedLeader(ctx)
	if err != nil {
		return found, false, err
	}
	// The index says where to begin, and the segments what the newest time is.
	newest := int64(0)
	first := timestamp
	if timestamp == maxTimestamp {
		if newest, ok = r.log.MaxTime(); !ok {
			return found, false, nil
		}
		first, ok = newest, false
	}
	begin, any, err := r.log.OffsetBeforeTime(first)
	if err != nil {
		return found, false, r.unreadable(err, 0)
	}
	if !any {
		return found, false, nil
	}
	for from := max(start, fsm.Offset(begin)); from < next; {
		if err := ctx.Err(); err != nil {
			return found, false, fmt.Errorf("%w: looking for a time: %w", outcome.ErrTimeout, err)
		}
		slice, inside, err := r.readCommitted(from, scanStep)
		if err != nil {
			return found, false, err
		}
		if !inside {
			if from = max(from, slice.LogStart); from >= slice.HighWatermark || from != slice.LogStart {
				break
			}
			continue // the log start moved over it
		}
		for batch, err := range kafkaproto.SplitBatches(slice.Batches) {
			if err != nil {
				return found, false, fmt.Errorf("%w: %w", outcome.ErrStorage, err)
			}
			h, err := kafkaproto.ParseBatchHeader(batch)
			if err != nil {
				return found, false, fmt.Errorf("%w: %w", outcome.ErrStorage, err)
			}
			from = fsm.Offset(h.NextOffset())
			if timestamp != maxTimestamp && h.MaxTimestamp < timestamp || timestamp == maxTimestamp && ok && h.MaxTimestamp <= found.Timestamp {
				continue // none of its records
			}
			here, hit, err := r.timeIn(ctx, h, batch, int64(slice.LogStart), timestamp)
			if err != nil {
				return found, false, err
			}
			if !hit {
				continue
			}
			if timestamp != maxTimestamp {
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

// timeIn looks for a time among the records of one batch, from an offset on.
func (r *records) timeIn(ctx context.Context, h kafkaproto.BatchHeader, batch []byte, from, timestamp int64) (found kafkaproto.TimestampedOffset, ok bool, err error) {
	if h.Codec() != kafkaproto.None {
		unpacking := r.replica.node.unpacking
		if err := unpacking.Acquire(ctx, 1); err != nil {
			return found, false, fmt.Errorf("%w: looking for a time: %w", outcome.ErrTimeout, err)
		}
		defer unpacking.Release(1)
	}
	if timestamp != maxTimestamp {
		found, ok, err = kafkaproto.FirstAtOrAfter(batch, from, timestamp)
	} else {
		found, ok, err = kafkaproto.Latest(batch, from)
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", outcome.ErrStorage, err)
	}
	return found, ok, err
}

// epochEnd looks for the end of an epoch. Epochs never go down along the log, so
// a binary search over offsets finds where one ends, with a small read each.
func (r *records) epochEnd(ctx context.Context, epoch fsm.LeaderEpoch) (fsm.LeaderEpoch, fsm.Offset, error) {
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
		e, failed = r.epochAt(o)
		return e
	}
	above := start + fsm.Offset(sort.Search(int(next-start), func(i int) bool { return at(start+fsm.Offset(i)) > epoch }))
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

// epochAt gives the leader epoch of the batch that holds the offset.
func (r *records) epochAt(o fsm.Offset) (fsm.LeaderEpoch, error) {
	slice, ok, err := r.readCommitted(o, 1)
	if err != nil {
		return -1, err
	}
	if !ok {
		return -1, fmt.Errorf("%w: %d is not within %d to %d any more", outcome.ErrOffsetOutOfRange, o, slice.LogStart, slice.HighWatermark)
	}
	h, err := kafkaproto.ParseBatchHeader(slice.Batches)
	if err != nil {
		return -1, fmt.Errorf("%w: %w", outcome.ErrStorage, err)
	}
	return fsm.LeaderEpoch(h.LeaderEpoch), nil
}
