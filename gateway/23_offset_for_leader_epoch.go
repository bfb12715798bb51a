package gateway

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// OffsetForLeaderEpoch, versions 0 to 4.
//
// A leader epoch is a term of the partition's Raft group. Kept: the answer is the
// largest epoch with records at or below the asked one, and the offset where it
// ends (KIP-101, KIP-279): the next one's first offset, or the log's end. For an
// epoch that is still to come, or for none (-1), both are -1. From version 2 on the client may say
// which leader epoch it knows (KIP-320).
//
// Since only what is committed can be read, no consumer ever finds that records it
// has read are gone; consumers ask all the same.
//
// Left out: the replica id. A partition whose leader does not answer within
// offsetsGrace is NOT_LEADER_FOR_PARTITION.

func handleOffsetForLeaderEpoch(r *request) {
	r.background(func() {
		req := r.body.(*kmsg.OffsetForLeaderEpochRequest)
		resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
		topics := r.conn.server.catalog.Topics()
		ctx, cancel := context.WithTimeout(r.reply.Open(), offsetsGrace)
		defer cancel()
		var work errgroup.Group
		work.SetLimit(parallelReads)
		for _, t := range req.Topics {
			topic, unknown := r.findNamed(topics, t.Topic)
			rt := kmsg.NewOffsetForLeaderEpochResponseTopic()
			rt.Topic = t.Topic
			rt.Partitions = make([]kmsg.OffsetForLeaderEpochResponseTopicPartition, len(t.Partitions))
			for j, p := range t.Partitions {
				out := &rt.Partitions[j]
				out.Default()
				out.Partition = p.Partition
				id, err := r.findPartition(topic, unknown, p.Partition, p.CurrentLeaderEpoch)
				if err != nil {
					out.ErrorCode = r.fail(err)
					continue
				}
				if p.LeaderEpoch < 0 {
					continue // no epoch: no end
				}
				work.Go(func() error {
					epoch, end, err := r.epochEnd(ctx, id, fsm.LeaderEpoch(p.LeaderEpoch))
					if err != nil {
						out.ErrorCode = codeOf(err, kmsg.OffsetForLeaderEpoch, r.header.Version)
						return nil
					}
					out.LeaderEpoch, out.EndOffset = int32(epoch), int64(end)
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

// epochEnd asks the cluster; a panic there is an error here.
func (r *request) epochEnd(ctx context.Context, id fsm.PartitionID, epoch fsm.LeaderEpoch) (found fsm.LeaderEpoch, end fsm.Offset, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = r.reply.Panicked(v)
		}
	}()
	found, end, err = r.conn.server.offsets.EpochEnd(ctx, id, epoch)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", outcome.ErrNoLeader, err)
	}
	return found, end, err
}
