package gateway

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// Produce, version 0.
//
// Kept: acks 0 is never answered, and closes the connection if anything failed,
// since nothing else would tell the client (KafkaApis.handleProducerRequest of
// 0.8). Every other acks waits until the records are on stable storage at a
// majority: 1 promises no less than -1, and as in 0.8 (checkEnoughReplicasReachOffset)
// any negative number means all replicas. A larger positive number, which in 0.8
// means that many replicas, means all as well. Partitions fail one by one. A
// partition that is named twice in a request is appended to twice, in that order.
// An empty message set appends nothing and its offset is -1.
//
// The timeout answers REQUEST_TIMED_OUT for a partition whose append is not over
// then; the records may still be appended. In 0.8 it bounds the wait for
// replicas only, which acks 1 has none of, so there it is at least minAppend.
//
// Left out: producing does not create a topic; 0.8 did not either, its clients
// ask for metadata first.
const (
	// minAppend is how long an append may take however short the timeout is.
	minAppend = 5 * time.Second
	// maxWait bounds how long a client can have the gateway wait.
	maxWait = 5 * time.Minute
)

var errAcksZero = errors.New("a produce with acks=0 failed")

// errIncomplete is what a parcel's batches are if nobody gets to make them.
var errIncomplete = errors.New("produce was not worked on")

func handleProduce(r *request) {
	req := r.body.(*kmsg.ProduceRequest)
	timeout := min(max(time.Duration(req.TimeoutMillis)*time.Millisecond, 0), maxWait)
	until := r.began.Add(max(timeout, minAppend))
	deadline := r.began.Add(timeout)
	if req.Acks == 1 {
		deadline = until
	}
	resp := req.ResponseKind().(*kmsg.ProduceResponse)
	resp.Topics = make([]kmsg.ProduceResponseTopic, 0, len(req.Topics))
	var parcels []*parcel // one per partition of the response, in its order; nil: not there
	var sets [][]byte
	limits := make([]int, 0, len(req.Topics))
	topics := r.session.server.cluster.Topics()
	for i := range req.Topics {
		t := &req.Topics[i]
		topic, known := topics.Lookup(t.Topic)
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic = t.Topic
		rt.Partitions = make([]kmsg.ProduceResponseTopicPartition, len(t.Partitions))
		for j := range t.Partitions {
			rt.Partitions[j].Default()
			rt.Partitions[j].Partition, rt.Partitions[j].BaseOffset = t.Partitions[j].Partition, -1
			limit := 0
			var p *parcel
			if n := t.Partitions[j].Partition; known && n >= 0 && int(n) < len(topic.Partitions) {
				p = &parcel{
					partition: fsm.PartitionID{Topic: topic.ID, Partition: n}, topic: topic.Name, until: until,
					ready: make(chan struct{}), done: make(chan struct{}), err: errIncomplete,
				}
				limit = topic.MaxMessageBytes()
				r.session.lines.add(p)
			}
			parcels, sets, limits = append(parcels, p), append(sets, t.Partitions[j].Records), append(limits, limit)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	free := r.keepFrame()
	r.background(func() {
		if free != nil {
			defer free()
		}
		r.convert(parcels, sets, limits)
		r.answerProduce(req, resp, parcels, deadline)
		// The answer may have gone out at the deadline; the bytes are in use until
		// the last append is over.
		for _, p := range parcels {
			if p != nil {
				<-p.done
			}
		}
	})
}

// convert turns message sets into batches and lets the lines go on.
func (r *request) convert(parcels []*parcel, sets [][]byte, limits []int) {
	i := 0
	defer func() {
		for _, p := range parcels[i:] { // only after a panic, or a stop
			if p != nil {
				close(p.ready)
			}
		}
	}()
	s := r.session.server
	for ; i < len(parcels); i++ {
		p := parcels[i]
		if p == nil {
			continue
		}
		if err := s.conversions.Acquire(s.ctx, 1); err != nil {
			return
		}
		p.fill(sets[i], limits[i], s.cfg.MaxRequestBytes, s.conversions.Release)
		close(p.ready)
	}
}

func (p *parcel) fill(set []byte, maxMessage, maxDecompressed int, release func(int64)) {
	defer release(1)
	p.batches, p.records, p.err = kafkaproto.FromMessageSet(set, kafkaproto.Limits{
		MaxMessageBytes: maxMessage,
		MaxDecompressed: maxDecompressed, // compressed or not, a request holds no more
	})
	for _, b := range p.batches {
		p.bytes += len(b)
	}
}

// answerProduce waits for the parcels until the deadline and answers.
func (r *request) answerProduce(req *kmsg.ProduceRequest, resp *kmsg.ProduceResponse, parcels []*parcel, deadline time.Time) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	expired := ctx.Done()
	if req.Acks == 0 {
		expired = nil // only the outcome decides whether the connection stays
	}
	var failed error
	next := 0
	for i := range resp.Topics {
		for j := range resp.Topics[i].Partitions {
			out := &resp.Topics[i].Partitions[j]
			p := parcels[next]
			next++
			var err error
			if p == nil {
				err = r.session.server.unknownTopic()
			} else {
				err = p.wait(expired)
			}
			if err != nil {
				out.ErrorCode = r.fail(err)
				failed = err
				continue
			}
			out.BaseOffset = int64(p.base)
			r.session.server.metrics.produced(p.topic, p.bytes, p.records)
		}
	}
	switch {
	case req.Acks != 0:
		r.answer(resp)
	case failed != nil:
		r.hangUp(errors.Join(errAcksZero, failed))
	default:
		r.silence()
	}
}

// wait gives the parcel's outcome, or fsm.ErrTimeout if that takes too long.
func (p *parcel) wait(expired <-chan struct{}) error {
	select {
	case <-p.done:
		return p.err
	default:
	}
	select {
	case <-p.done:
		return p.err
	case <-expired:
		return fsm.ErrTimeout
	}
}

// unknownTopic is what to say of a topic or partition that is not in the catalog
// here: that it is not there, if this node can know.
func (s *Server) unknownTopic() error {
	if s.cluster.Ready() != nil {
		return errTopicComing
	}
	return fsm.ErrUnknownTopicOrPartition
}
