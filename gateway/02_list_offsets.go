package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// ListOffsets, versions 0 to 11.
//
// Version 0 gives lists: -1 is the log's end, -2 its start, a timestamp gives the
// base offsets of segments last written at or before it, newest first, at most
// max_num_offsets; 0 or less gives none. A partition named twice is answered twice.
//
// From version 1 on there is one offset per partition: -1 and -2 as before, a
// timestamp gives the first record that is not older, -3 (from version 7) the first
// of those with the largest timestamp; where there is no such record the offset is
// -1. -4 (from 8) is the first offset that replicas keep, -5 (from 9) the last one in
// the tier, -6 (from 11) the first that is still to go there; without a tier the log's
// start, -1 and -1. What a version does not
// know is UNSUPPORTED_VERSION, a partition named twice INVALID_REQUEST. From 4 on
// answers have leader epochs, and the client may say which one it knows (KIP-320).
//
// All of it comes from a leader that a majority confirmed. From version 2 on there are
// isolation levels: for one that reads committed records the log ends at the last stable
// offset, and a record at or behind that is none.
//
// Left out: the replica id. A partition whose leader does not answer within
// offsetsGrace is NOT_LEADER_FOR_PARTITION; looking for a time may take searchGrace,
// or the request's timeout (from 10 on) if that is shorter.
const (
	offsetsGrace = 3 * time.Second
	searchGrace  = 25 * time.Second // clients wait 30 s for any answer
)

// Offsets finds offsets of a partition, all as its leader knows them.
type Offsets interface {
	// ListOffsets answers in the form of ListOffsets v0: -1 latest, -2 earliest, -4 to -6 of what
	// is in the tier (see fsm.EarliestLocalOffset), else segments last written at or before
	// timestamp (ms), newest first, at most max.
	ListOffsets(ctx context.Context, p fsm.PartitionID, timestamp int64, max int) ([]fsm.Offset, error)
	// OffsetForTime finds the first record whose timestamp is at or after timestamp (ms since
	// epoch), for -3 the first of those with the largest timestamp (KIP-734). ok is false if
	// there is none.
	OffsetForTime(ctx context.Context, p fsm.PartitionID, timestamp int64) (offset fsm.Offset, at int64, epoch fsm.LeaderEpoch, ok bool, err error)
	// EpochEnd answers OffsetForLeaderEpoch (KIP-101, KIP-279): the largest epoch at or below
	// epoch that has records, and the offset at which the next one begins, or the log end.
	// Where no epoch at or below has records: the asked one, and where the first one begins. An
	// epoch that is still to come gives -1, -1.
	EpochEnd(ctx context.Context, p fsm.PartitionID, epoch fsm.LeaderEpoch) (fsm.LeaderEpoch, fsm.Offset, error)
	// LastStable gives the last stable offset: below it no transaction is open.
	LastStable(ctx context.Context, p fsm.PartitionID) (fsm.Offset, error)
}

// maxListed bounds the offsets of one answer.
const maxListed = 1 << 16

// Timestamps that are no times, and the first version that knows each.
const (
	latestOffset          = fsm.LatestOffset
	earliestOffset        = fsm.EarliestOffset
	maxTimestampOffset    = -3 // KIP-734
	earliestLocalOffset   = fsm.EarliestLocalOffset
	latestTieredOffset    = fsm.LatestTieredOffset
	earliestPendingOffset = fsm.EarliestPendingOffset
)

var specialSince = map[int64]int16{
	latestOffset: 0, earliestOffset: 0, maxTimestampOffset: 7, earliestLocalOffset: 8, latestTieredOffset: 9, earliestPendingOffset: 11,
}

func handleListOffsets(r *request) {
	r.background(func() {
		req := r.body.(*kmsg.ListOffsetsRequest)
		resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
		s := r.conn.server
		topics := s.catalog.Topics()
		ctx, cancel := context.WithTimeout(r.reply.Open(), offsetsGrace)
		defer cancel()
		grace := searchGrace
		if req.Version >= 10 && req.TimeoutMillis > 0 {
			grace = min(grace, time.Duration(req.TimeoutMillis)*time.Millisecond)
		}
		searching, cancel := context.WithTimeout(r.reply.Open(), grace)
		defer cancel()
		isolation := fsm.Isolation(req.IsolationLevel)
		var work errgroup.Group
		work.SetLimit(parallelReads)
		left := maxListed
		twice := duplicates(req)
		for _, t := range req.Topics {
			topic, unknown := r.findNamed(topics, t.Topic)
			rt := kmsg.NewListOffsetsResponseTopic()
			rt.Topic = t.Topic
			rt.Partitions = make([]kmsg.ListOffsetsResponseTopicPartition, len(t.Partitions))
			for j, p := range t.Partitions {
				out := &rt.Partitions[j]
				out.Default()
				out.Partition, out.OldStyleOffsets, out.Timestamp, out.Offset = p.Partition, []int64{}, -1, -1
				id, err := r.findPartition(topic, unknown, p.Partition, p.CurrentLeaderEpoch)
				switch since, special := specialSince[p.Timestamp]; {
				case isolation != fsm.ReadUncommitted && isolation != fsm.ReadCommitted,
					req.Version > 0 && twice[named{t.Topic, p.Partition}]:
					err = errInvalidRequest
				case req.Version > 0 && p.Timestamp < 0 && (!special || req.Version < since):
					err = errUnsupportedVersion
				}
				if err != nil {
					out.ErrorCode = r.fail(err)
					continue
				}
				most := 1
				if req.Version == 0 {
					if most = min(max(int(p.MaxNumOffsets), 0), left); most == 0 {
						continue
					}
					if p.Timestamp < 0 {
						most = 1
					}
					left -= most
				}
				work.Go(func() error {
					var err error
					switch {
					case req.Version == 0:
						var offsets []fsm.Offset
						offsets, err = r.listOffsets(ctx, id, p.Timestamp, most)
						for _, o := range offsets {
							out.OldStyleOffsets = append(out.OldStyleOffsets, int64(o))
						}
					case p.Timestamp >= 0 || p.Timestamp == maxTimestampOffset:
						err = r.offsetForTime(searching, id, p.Timestamp, isolation, out)
					default:
						err = r.endOffset(ctx, id, p.Timestamp, isolation, out)
					}
					out.ErrorCode = codeOf(err, kmsg.ListOffsets, r.header.Version)
					return nil
				})
			}
			resp.Topics = append(resp.Topics, rt)
		}
		_ = work.Wait()
		for i := range resp.Topics {
			for j := range resp.Topics[i].Partitions {
				r.note(resp.Topics[i].Partitions[j].ErrorCode)
			}
		}
		r.answer(resp)
	})
}

// named is a partition as requests name it.
type named struct {
	topic     string
	partition int32
}

// duplicates gives the partitions that a request names more than once.
func duplicates(req *kmsg.ListOffsetsRequest) map[named]bool {
	twice := map[named]bool{}
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			_, again := twice[named{t.Topic, p.Partition}]
			twice[named{t.Topic, p.Partition}] = again
		}
	}
	return twice
}

// endOffset fills in an end of the log.
func (r *request) endOffset(ctx context.Context, id fsm.PartitionID, which int64, isolation fsm.Isolation, out *kmsg.ListOffsetsResponseTopicPartition) error {
	if r.conn.server.catalog.Topics().FeatureLevel() < fsm.LevelTiers {
		switch which { // a node that leads might not know them
		case latestTieredOffset, earliestPendingOffset:
			return nil
		case earliestLocalOffset:
			which = earliestOffset
		}
	}
	var offsets []fsm.Offset
	var err error
	if which == latestOffset && isolation == fsm.ReadCommitted {
		offsets, err = r.lastStable(ctx, id)
	} else {
		offsets, err = r.listOffsets(ctx, id, which, 1)
	}
	if err != nil {
		return err
	}
	if len(offsets) == 0 {
		return outcome.ErrUnknown
	}
	out.Offset = int64(offsets[0])
	if which == latestOffset {
		// What is read at the end is written in this epoch or a later one.
		epoch, _ := r.conn.server.catalog.LeaderEpoch(id)
		out.LeaderEpoch = int32(epoch)
	}
	return nil
}

// offsetForTime fills in the offset for a time; a panic of the cluster is an error.
func (r *request) offsetForTime(ctx context.Context, id fsm.PartitionID, timestamp int64, isolation fsm.Isolation, out *kmsg.ListOffsetsResponseTopicPartition) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = r.reply.Panicked(v)
		}
	}()
	offset, at, epoch, ok, err := r.conn.server.offsets.OffsetForTime(ctx, id, timestamp)
	if err == nil && ok && isolation == fsm.ReadCommitted {
		// As in Kafka (Partition.fetchOffsetForTimestamp), nothing further back is looked for.
		var stable fsm.Offset
		stable, err = r.conn.server.offsets.LastStable(ctx, id)
		ok = offset < stable
	}
	if err != nil && ctx.Err() != nil && !errors.Is(err, outcome.ErrUnknownTopicOrPartition) {
		return fmt.Errorf("%w: %w", outcome.ErrTimeout, err)
	}
	if err == nil && ok {
		out.Offset, out.Timestamp, out.LeaderEpoch = int64(offset), at, int32(epoch)
	}
	return err
}

// lastStable asks the cluster; a panic there is an error here.
func (r *request) lastStable(ctx context.Context, id fsm.PartitionID) (offsets []fsm.Offset, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = r.reply.Panicked(v)
		}
	}()
	stable, err := r.conn.server.offsets.LastStable(ctx, id)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", outcome.ErrNoLeader, err)
	}
	return []fsm.Offset{stable}, err
}

// listOffsets asks the cluster; a panic there is an error here.
func (r *request) listOffsets(ctx context.Context, id fsm.PartitionID, timestamp int64, most int) (offsets []fsm.Offset, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = r.reply.Panicked(v)
		}
	}()
	offsets, err = r.conn.server.offsets.ListOffsets(ctx, id, timestamp, most)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", outcome.ErrNoLeader, err)
	}
	return offsets[:min(len(offsets), most)], err
}
