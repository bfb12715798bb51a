package gateway

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
)

// DescribeProducers, version 0 (KIP-664).
//
// Kept: the producers that a partition remembers, with the sequence number and the
// timestamp of each one's last record, and the first offset of its open transaction. A
// partition that a request names again is answered once: it may have thousands of producers.
//
// The coordinator's epoch is the number of the producer's last transaction that was ended there
// (fsm.Marker.Number), and -1 before the first.

func handleDescribeProducers(r *request) {
	r.background(func() {
		req := r.body.(*kmsg.DescribeProducersRequest)
		resp := req.ResponseKind().(*kmsg.DescribeProducersResponse)
		s := r.conn.server
		topics := s.catalog.Topics()
		ctx, cancel := context.WithTimeout(r.reply.Open(), minAppend)
		defer cancel()
		answered := map[named]bool{}
		for i := range req.Topics {
			rt := kmsg.NewDescribeProducersResponseTopic()
			rt.Topic = req.Topics[i].Topic
			topic, unknown := r.findNamed(topics, rt.Topic)
			for _, partition := range req.Topics[i].Partitions {
				if answered[named{rt.Topic, partition}] {
					continue
				}
				answered[named{rt.Topic, partition}] = true
				rp := kmsg.NewDescribeProducersResponseTopicPartition()
				rp.Partition = partition
				var producers []fsm.ActiveProducer
				id, err := r.findPartition(topic, unknown, partition, noEpoch)
				if err == nil {
					producers, err = s.producers.Producers(ctx, id)
				}
				if err != nil {
					rp.ErrorCode, rp.ErrorMessage = r.fail(err), kmsg.StringPtr(message(err))
				}
				for _, p := range producers {
					out := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
					out.ProducerID, out.ProducerEpoch = p.ID, int32(p.Epoch)
					out.LastSequence, out.LastTimestamp = p.LastSequence, p.LastTimestamp
					out.CoordinatorEpoch, out.CurrentTxnStartOffset = -1, -1
					if p.Ended != 0 {
						out.CoordinatorEpoch = p.Ended
					}
					if p.Open != nil {
						out.CurrentTxnStartOffset = int64(*p.Open)
					}
					rp.ActiveProducers = append(rp.ActiveProducers, out)
				}
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		r.answer(resp)
	})
}
