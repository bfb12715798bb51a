package gateway

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/trimaran-io/trimaran/fsm"
)

// ListOffsets, version 0.
//
// Kept: -1 is the log's end, -2 its start, a timestamp gives the base offsets of
// segments last written at or before it, newest first, at most
// max_num_offsets. All of it comes from a leader that a majority confirmed. A
// partition named twice is answered twice. max_num_offsets of 0 or less gives no
// offsets.
//
// Left out: the replica id. A partition whose leader does not answer within
// offsetsGrace is NOT_LEADER_FOR_PARTITION.
const offsetsGrace = 3 * time.Second

// maxListed bounds the offsets of one answer.
const maxListed = 1 << 16

func handleListOffsets(r *request) {
	r.background(func() {
		req := r.body.(*kmsg.ListOffsetsRequest)
		resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
		s := r.session.server
		topics := s.cluster.Topics()
		ctx, cancel := context.WithTimeout(r.session.open, offsetsGrace)
		defer cancel()
		var work errgroup.Group
		work.SetLimit(parallelReads)
		left := maxListed
		for _, t := range req.Topics {
			topic, known := topics.Lookup(t.Topic)
			rt := kmsg.NewListOffsetsResponseTopic()
			rt.Topic = t.Topic
			rt.Partitions = make([]kmsg.ListOffsetsResponseTopicPartition, len(t.Partitions))
			for j, p := range t.Partitions {
				out := &rt.Partitions[j]
				out.Default()
				out.Partition, out.OldStyleOffsets = p.Partition, []int64{}
				if !known || p.Partition < 0 || int(p.Partition) >= len(topic.Partitions) {
					out.ErrorCode = r.fail(s.unknownTopic())
					continue
				}
				most := min(max(int(p.MaxNumOffsets), 0), left)
				if most == 0 {
					continue
				}
				if p.Timestamp < 0 {
					most = 1
				}
				left -= most
				id, timestamp := fsm.PartitionID{Topic: topic.ID, Partition: p.Partition}, p.Timestamp
				work.Go(func() (err error) {
					offsets, err := r.listOffsets(ctx, id, timestamp, most)
					if err != nil {
						out.ErrorCode = codeOf(err, kmsg.ListOffsets, r.header.Version)
						return nil
					}
					for _, o := range offsets {
						out.OldStyleOffsets = append(out.OldStyleOffsets, int64(o))
					}
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

// listOffsets asks the cluster; a panic there is an error here.
func (r *request) listOffsets(ctx context.Context, id fsm.PartitionID, timestamp int64, most int) (offsets []fsm.Offset, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = r.session.panicked(v)
		}
	}()
	offsets, err = r.session.server.cluster.ListOffsets(ctx, id, timestamp, most)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", fsm.ErrNoLeader, err)
	}
	return offsets[:min(len(offsets), most)], err
}
