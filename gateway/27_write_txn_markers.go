package gateway

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
	"github.com/trimaran-io/trimaran/security/acl"
)

// WriteTxnMarkers, versions 0 to 2.
//
// In Kafka coordinators send it to partitions' leaders. Here they have a call of their own, and
// this is what an operator ends a transaction with that nobody coordinates any more
// (kafka-transactions abort, KIP-664): what the producer has open in the partition with that epoch,
// whatever its number.
//
// Differs: only aborts are written, since a commit is its coordinator's decision: one is
// INVALID_TXN_STATE. There is no topic __consumer_offsets, so it is UNKNOWN_TOPIC_OR_PARTITION.

// Markers is how the cluster ends transactions in partitions.
type Markers interface {
	// WriteMarkers has the partition's leader write markers, and gives the outcome of each, 0 where
	// it is committed. After an error the fate of all is not known, or, if
	// outcome.NotAppended(err), none was written.
	WriteMarkers(ctx context.Context, p fsm.PartitionID, markers []fsm.Marker) ([]outcome.Error, error)
}

// maxMarkers bounds how many markers a request may have written, each to one partition.
const maxMarkers = 10_000

func handleWriteTxnMarkers(r *request) {
	req := r.body.(*kmsg.WriteTxnMarkersRequest)
	if !r.caller.everything() && !r.mayInstead() && !r.may(acl.ClusterAction, acl.Cluster, acl.ClusterName) {
		r.answer(refuseMarkers(req, r.fail(errClusterDenied)))
		return
	}
	if err := r.conn.server.transactional(); err != nil {
		r.answer(refuseMarkers(req, r.fail(err)))
		return
	}
	resp := refuseMarkers(req, 0)
	type one struct {
		marker, topic, partition int
	}
	var all []one
	for i, m := range req.Markers {
		for j, t := range m.Topics {
			for k := range t.Partitions {
				all = append(all, one{i, j, k})
			}
		}
	}
	if len(all) > maxMarkers {
		r.hangUp(errInvalidRequest)
		return
	}
	r.transact(func(ctx context.Context) {
		topics := r.conn.server.catalog.Topics()
		eachOf(len(all), func(n int) {
			at := all[n]
			m, p := &req.Markers[at.marker], &resp.Markers[at.marker].Topics[at.topic].Partitions[at.partition]
			var unknown error
			topic, known := topics.Lookup(m.Topics[at.topic].Topic)
			if !known {
				unknown = r.conn.server.unknownTopic()
			}
			id, err := r.findPartition(topic, unknown, p.Partition, noEpoch)
			if err == nil {
				err = r.writeMarker(ctx, id, m)
			}
			p.ErrorCode = codeOf(err, kmsg.WriteTxnMarkers, r.header.Version)
		})
		for _, at := range all {
			r.note(resp.Markers[at.marker].Topics[at.topic].Partitions[at.partition].ErrorCode)
		}
		r.answer(resp)
	})
}

func (r *request) writeMarker(ctx context.Context, id fsm.PartitionID, m *kmsg.WriteTxnMarkersRequestMarker) error {
	switch {
	case m.ProducerID < 0 || m.ProducerEpoch < 0:
		return outcome.ErrInvalidProducerEpoch
	case m.Committed:
		return outcome.ErrInvalidTxnState
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", outcome.ErrNoLeader, ctx.Err())
	}
	outcomes, err := r.conn.server.markers.WriteMarkers(ctx, id, []fsm.Marker{{
		ProducerID: m.ProducerID, Epoch: m.ProducerEpoch, Number: m.CoordinatorEpoch, Forced: true,
	}})
	if err == nil && outcomes[0] != 0 {
		err = outcomes[0]
	}
	return err
}

// refuseMarkers is an answer with that code everywhere.
func refuseMarkers(req *kmsg.WriteTxnMarkersRequest, code int16) *kmsg.WriteTxnMarkersResponse {
	resp := req.ResponseKind().(*kmsg.WriteTxnMarkersResponse)
	for _, m := range req.Markers {
		out := kmsg.NewWriteTxnMarkersResponseMarker()
		out.ProducerID = m.ProducerID
		for _, t := range m.Topics {
			topic := kmsg.NewWriteTxnMarkersResponseMarkerTopic()
			topic.Topic = t.Topic
			for _, p := range t.Partitions {
				topic.Partitions = append(topic.Partitions, kmsg.WriteTxnMarkersResponseMarkerTopicPartition{Partition: p, ErrorCode: code})
			}
			out.Topics = append(out.Topics, topic)
		}
		resp.Markers = append(resp.Markers, out)
	}
	return resp
}
