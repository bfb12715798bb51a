package gateway

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
)

// DeleteRecords, versions 0 to 2 (KIP-107).
//
// Kept: the offset given becomes the first that can be read, -1 stands for the high
// watermark; the answer's low watermark is the log start offset afterwards. An
// offset below the log start changes nothing and is no error. A topic whose
// cleanup.policy is not delete is POLICY_VIOLATION. Partitions fail one by one.
// Disk space is freed a little later, by whole segments. A timeout bounds the wait for
// replicas in Kafka, of which the one broker has none: a short one, 0 even, is minAppend.

// minDeleteMillis is minAppend.
const minDeleteMillis = int32(minAppend / time.Millisecond)

func handleDeleteRecords(r *request) {
	r.background(func() {
		req := r.body.(*kmsg.DeleteRecordsRequest)
		resp := req.ResponseKind().(*kmsg.DeleteRecordsResponse)
		s := r.conn.server
		topics := s.catalog.Topics()
		type place struct{ topic, partition int }
		var places []place
		for i := range req.Topics {
			for j := range req.Topics[i].Partitions {
				places = append(places, place{i, j})
			}
		}
		// Written by whoever works on that partition, read after its error is told.
		lows := make([]fsm.Offset, len(places))
		errs := r.admin(max(req.TimeoutMillis, minDeleteMillis), len(places), func(ctx context.Context, i int) error {
			t := &req.Topics[places[i].topic]
			p := t.Partitions[places[i].partition]
			topic, unknown := r.findNamed(topics, t.Topic)
			id, err := r.findPartition(topic, unknown, p.Partition, noEpoch)
			if err == nil {
				lows[i], err = s.records.DeleteRecords(ctx, id, fsm.Offset(p.Offset))
			}
			return err
		})
		next := 0
		for i := range req.Topics {
			rt := kmsg.NewDeleteRecordsResponseTopic()
			rt.Topic = req.Topics[i].Topic
			for j := range req.Topics[i].Partitions {
				rp := kmsg.NewDeleteRecordsResponseTopicPartition()
				rp.Partition, rp.LowWatermark = req.Topics[i].Partitions[j].Partition, -1
				if err := errs[next]; err != nil {
					rp.ErrorCode = r.fail(err)
				} else {
					rp.LowWatermark = int64(lows[next])
				}
				next++
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		r.answer(resp)
	})
}
