package route

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// Records is a replica of a partition on this node. What is asked AsLeader is answered by a leader
// that a majority confirmed, else with calls.NotLeader.
type Records interface {
	// AppendInLine hands batches to the leader; term is the leadership that is meant, 0 for any,
	// place their place in a connection's line, and txn the transaction that they may belong to.
	AppendInLine(ctx context.Context, term uint64, place calls.Place, txn fsm.Transaction, batches []kafkaproto.Batch) ([]fsm.Appended, error)
	// WriteMarkers ends transactions; the outcome of each marker is 0 when it is in the log.
	WriteMarkers(ctx context.Context, term uint64, markers []fsm.Marker) ([]outcome.Error, error)
	// ReadHere gives what can be read here; ok is false if from lies outside of that.
	ReadHere(from fsm.Offset, maxBytes int, isolation fsm.Isolation) (slice fsm.Slice, ok bool, err error)
	ReadAsLeader(ctx context.Context, from fsm.Offset, maxBytes int, isolation fsm.Isolation) (fsm.Slice, error)
	// Ends gives the log start, the next offset and the last stable offset here.
	Ends() (start, next, stable fsm.Offset)
	AwaitAsLeader(ctx context.Context, from fsm.Offset, isolation fsm.Isolation) error
	LastStable(ctx context.Context) (fsm.Offset, error)
	// OffsetsBefore answers ListOffsets v0.
	OffsetsBefore(ctx context.Context, timestamp int64, max int) ([]fsm.Offset, error)
	// ConfirmLeader returns nil at a leader that takes records.
	ConfirmLeader(ctx context.Context) error
	OffsetForTime(ctx context.Context, timestamp int64) (kafkaproto.TimestampedOffset, bool, error)
	EpochEnd(ctx context.Context, epoch fsm.LeaderEpoch) (fsm.LeaderEpoch, fsm.Offset, error)
	DeleteRecords(ctx context.Context, before fsm.Offset) (fsm.Offset, error)
	ActiveProducers(ctx context.Context) ([]fsm.ActiveProducer, error)
	// RestoreBatches appends batches that keep their offsets, and gives the next offset.
	RestoreBatches(ctx context.Context, batches []kafkaproto.Batch, end bool) (fsm.Offset, error)
}

// atRecords is AtLeader for what concerns the records of a partition: it asks local here, or the
// leader's node with the call.
func atRecords[Q, A any](ctx context.Context, r *Router, id fsm.PartitionID, hold time.Duration, call *calls.Call[Q, A], q func(h calls.Hint) Q, local func(context.Context, Records) (A, error)) (answer A, err error) {
	if id.Topic == fsm.GroupShardsID {
		return answer, outcome.ErrUnknownTopicOrPartition
	}
	err = r.AtLeader(ctx, id, hold, func(ctx context.Context, h calls.Hint, here bool) (err error) {
		if !here {
			answer, err = call.Ask(ctx, r.cfg.Caller, h.Identity, q(h))
			return err
		}
		records := r.cfg.Host.Records(id)
		if records == nil {
			return outcome.ErrNoLeader // closed this moment, or another node is mistaken
		}
		answer, err = local(ctx, records)
		return err
	})
	return answer, err
}

// Read gives the batches from offset from on that a reader of that isolation may see, without
// waiting for records or for a leader. A replica on this node answers for what it has; the rest is
// asked of the leader, so that an offset that is valid there and not yet here is never said to be
// out of range.
func (r *Router) Read(ctx context.Context, id fsm.PartitionID, from fsm.Offset, maxBytes int, isolation fsm.Isolation) (fsm.Slice, error) {
	topics := r.cfg.Host.Topics()
	if _, ok := topics.Partition(id); !ok {
		return fsm.Slice{}, outcome.ErrUnknownTopicOrPartition
	}
	here := r.cfg.Host.Records(id)
	if here != nil {
		slice, ok, err := here.ReadHere(from, maxBytes, isolation)
		if ok && err == nil {
			return slice, nil
		}
		if errors.Is(err, outcome.ErrRemote) {
			return slice, err // the leader would ask the same store, for the same
		}
		if err != nil {
			r.cfg.Unreadable(id, from, err)
		}
	}
	q := calls.ReadRequest{Partition: id, From: from, MaxBytes: uint32(min(max(maxBytes, 0), 1<<30))}
	local := func(ctx context.Context, here Records) (fsm.Slice, error) {
		return here.ReadAsLeader(ctx, from, maxBytes, isolation)
	}
	var slice fsm.Slice
	var err error
	if topics.FeatureLevel() < fsm.LevelTransactions {
		slice, err = atRecords(ctx, r, id, 0, calls.Read, func(calls.Hint) calls.ReadRequest { return q }, local)
	} else {
		slice, err = atRecords(ctx, r, id, 0, calls.ReadStable,
			func(calls.Hint) calls.ReadStableRequest {
				return calls.ReadStableRequest{ReadRequest: q, Isolation: isolation}
			}, local)
	}
	if err != nil && here != nil && outcome.NotAppended(err) {
		// No leader to ask: at the end of what this replica has there is nothing to read yet.
		start, next, stable := here.Ends()
		if from == next || isolation == fsm.ReadCommitted && from >= stable && from < next {
			return fsm.Slice{HighWatermark: next, LastStable: stable, LogStart: start}, nil
		}
	}
	return slice, err
}

// Await returns nil when a reader of that isolation can read at offset from, ctx.Err() when ctx
// ends first. While the partition has no leader it waits on.
func (r *Router) Await(ctx context.Context, id fsm.PartitionID, from fsm.Offset, isolation fsm.Isolation) error {
	if here := r.cfg.Host.Records(id); here != nil {
		_, end, stable := here.Ends()
		if isolation == fsm.ReadCommitted {
			end = stable
		}
		if end > from {
			return nil // the leader's state machine may be behind
		}
	}
	local := func(ctx context.Context, here Records) (calls.Nothing, error) {
		return calls.Nothing{}, here.AwaitAsLeader(ctx, from, isolation)
	}
	for {
		var err error
		if isolation == fsm.ReadCommitted && r.cfg.Host.Topics().FeatureLevel() >= fsm.LevelTransactions {
			_, err = atRecords(ctx, r, id, HoldLeaderless, calls.AwaitStable,
				func(calls.Hint) calls.AwaitRequest { return calls.AwaitRequest{Partition: id, From: from} }, local)
		} else {
			_, err = atRecords(ctx, r, id, HoldLeaderless, calls.Await,
				func(calls.Hint) calls.AwaitRequest { return calls.AwaitRequest{Partition: id, From: from} }, local)
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, outcome.ErrUnknownTopicOrPartition), errors.Is(err, outcome.ErrShuttingDown):
			return err
		}
		// The leader was lost while it was waited at: wait at the next one.
		select {
		case <-time.After(RetryPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ListOffsets answers in the form of ListOffsets v0, as the partition's leader confirmed by a
// majority: timestamp -1 is the log end, -2 the log start, else the base offsets of segments last
// written at or before timestamp (ms), newest first, at most max.
func (r *Router) ListOffsets(ctx context.Context, id fsm.PartitionID, timestamp int64, max int) ([]fsm.Offset, error) {
	if max <= 0 {
		return nil, nil
	}
	max = min(max, calls.MaxOffsets)
	return atRecords(ctx, r, id, HoldLeaderless, calls.ListOffsets,
		func(calls.Hint) calls.ListOffsetsRequest {
			return calls.ListOffsetsRequest{Partition: id, Time: timestamp, Max: uint32(max)}
		},
		func(ctx context.Context, here Records) ([]fsm.Offset, error) {
			return here.OffsetsBefore(ctx, timestamp, max)
		})
}

// LastStable gives the last stable offset as the partition's leader, confirmed by a majority, knows
// it: below it no transaction is open.
func (r *Router) LastStable(ctx context.Context, id fsm.PartitionID) (fsm.Offset, error) {
	if r.cfg.Host.Topics().FeatureLevel() < fsm.LevelTransactions {
		ends, err := r.ListOffsets(ctx, id, fsm.LatestOffset, 1)
		if err != nil || len(ends) == 0 {
			return -1, errors.Join(err, outcome.ErrUnknown)
		}
		return ends[0], nil
	}
	return atRecords(ctx, r, id, HoldLeaderless, calls.LastStable,
		func(calls.Hint) fsm.PartitionID { return id },
		func(ctx context.Context, here Records) (fsm.Offset, error) { return here.LastStable(ctx) })
}

// AwaitLeader returns when the partition's leader is known and takes records. The error is
// outcome.ErrTimeout when ctx ends first.
func (r *Router) AwaitLeader(ctx context.Context, id fsm.PartitionID) error {
	for {
		_, err := atRecords(ctx, r, id, HoldLeaderless, calls.ListOffsets,
			func(calls.Hint) calls.ListOffsetsRequest {
				return calls.ListOffsetsRequest{Partition: id, Time: -1, Max: 1}
			},
			func(ctx context.Context, here Records) ([]fsm.Offset, error) { return nil, here.ConfirmLeader(ctx) })
		if err == nil || !outcome.NotAppended(err) && !errors.Is(err, outcome.ErrUnknownFate) || errors.Is(err, outcome.ErrShuttingDown) {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", outcome.ErrTimeout, err)
		}
	}
}

// OffsetForTime finds the first record whose timestamp is at or after timestamp (ms since epoch),
// for -3 the first of those with the largest timestamp. ok is false if there is none. ctx bounds
// the time that it takes.
func (r *Router) OffsetForTime(ctx context.Context, id fsm.PartitionID, timestamp int64) (offset fsm.Offset, at int64, epoch fsm.LeaderEpoch, ok bool, err error) {
	found, err := atRecords(ctx, r, id, HoldLeaderless, calls.OffsetForTime,
		func(calls.Hint) calls.OffsetForTimeRequest {
			return calls.OffsetForTimeRequest{Partition: id, Time: timestamp}
		},
		func(ctx context.Context, here Records) (a calls.OffsetForTimeReply, err error) {
			a.TimestampedOffset, a.Found, err = here.OffsetForTime(ctx, timestamp)
			return a, err
		})
	if err != nil || !found.Found {
		return -1, -1, -1, false, err
	}
	return fsm.Offset(found.Offset), found.Timestamp, fsm.LeaderEpoch(found.LeaderEpoch), true, nil
}

// EpochEnd gives the largest epoch at or below epoch that has records, and the offset at which the
// next one begins, or the log end (KIP-101, KIP-279). Where no epoch at or below has records, it
// gives the asked one and where the first one begins; for an epoch that is still to come -1 and -1.
func (r *Router) EpochEnd(ctx context.Context, id fsm.PartitionID, epoch fsm.LeaderEpoch) (found fsm.LeaderEpoch, end fsm.Offset, err error) {
	a, err := atRecords(ctx, r, id, HoldLeaderless, calls.EpochEnd,
		func(calls.Hint) calls.EpochEndRequest { return calls.EpochEndRequest{Partition: id, Epoch: epoch} },
		func(ctx context.Context, here Records) (a calls.EpochEndReply, err error) {
			a.Epoch, a.End, err = here.EpochEnd(ctx, epoch)
			return a, err
		})
	if err != nil {
		return -1, -1, err
	}
	return a.Epoch, a.End, nil
}

// DeleteRecords makes before the first offset that can be read of a partition, -1 for its high
// watermark, on all replicas alike; what is below is freed later. low is the log start offset
// afterwards, which may be higher. Errors are outcome.ErrOffsetOutOfRange and those of reaching the
// leader.
func (r *Router) DeleteRecords(ctx context.Context, id fsm.PartitionID, before fsm.Offset) (low fsm.Offset, err error) {
	low, err = atRecords(ctx, r, id, HoldLeaderless, calls.DeleteRecords,
		func(calls.Hint) calls.DeleteRecordsRequest {
			return calls.DeleteRecordsRequest{Partition: id, Before: before}
		},
		func(ctx context.Context, here Records) (fsm.Offset, error) { return here.DeleteRecords(ctx, before) })
	if err != nil {
		return -1, err
	}
	return low, nil
}

// Producers gives the idempotent producers that the partition's leader remembers, in the order in
// which they last appended.
func (r *Router) Producers(ctx context.Context, id fsm.PartitionID) ([]fsm.ActiveProducer, error) {
	return atRecords(ctx, r, id, HoldLeaderless, calls.Producers,
		func(calls.Hint) fsm.PartitionID { return id },
		func(ctx context.Context, here Records) ([]fsm.ActiveProducer, error) {
			return here.ActiveProducers(ctx)
		})
}

// Restore appends batches of a backup to a partition that is being restored, and gives the next
// offset; end says that they are the last. What is there already is left out.
func (r *Router) Restore(ctx context.Context, id fsm.PartitionID, batches []kafkaproto.Batch, end bool) (next fsm.Offset, err error) {
	return atRecords(ctx, r, id, HoldLeaderless, calls.Restore,
		func(calls.Hint) calls.RestoreRequest {
			return calls.RestoreRequest{Partition: id, End: end, Batches: batches}
		},
		func(ctx context.Context, here Records) (fsm.Offset, error) {
			return here.RestoreBatches(ctx, batches, end)
		})
}

// WriteMarkers ends transactions in a partition, at most calls.MaxMarkers, and returns when the
// markers are committed. The outcome of each is 0 then, or why the partition's leader did not take
// it. The error is that no leader answered; what is not forced may be handed over again, since a
// partition takes each number once.
func (r *Router) WriteMarkers(ctx context.Context, id fsm.PartitionID, markers []fsm.Marker) ([]outcome.Error, error) {
	return atRecords(ctx, r, id, HoldLeaderless, calls.WriteMarkers,
		func(h calls.Hint) calls.WriteMarkersRequest {
			return calls.WriteMarkersRequest{Partition: id, Term: h.Term, Markers: markers}
		},
		func(ctx context.Context, here Records) ([]outcome.Error, error) {
			return here.WriteMarkers(ctx, 0, markers)
		})
}
