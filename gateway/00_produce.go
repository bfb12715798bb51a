package gateway

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/gateway/order"
	"github.com/trimaran-io/trimaran/gateway/session"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// Produce, versions 0 to 13.
//
// Up to version 2 a partition gets a message set of magic 0 or 1, which becomes record batches.
// From 3 on it gets one record batch, which is checked as Kafka checks it and stored as it is, with
// its producer id and sequence number; zstd needs version 7. A compacted topic takes no records
// without key, and timestamps are within the topic's bounds, an hour ahead at most by default.
// Where the topic wants LogAppendTime, the time is that at which this node took the records. From 8
// on the answer says which record was refused and why (KIP-467), from 13 on topics have ids instead
// of names.
//
// Batches of transactions need the request's transactional id, and the partition in the
// transaction; from version 12 on the partition's leader adds it (KIP-890).
//
// Kept: acks 0 is never answered, and closes the connection if anything failed,
// since nothing else would tell the client (KafkaApis.handleProducerRequest of
// 0.8). Every other acks waits until the records are on stable storage at a
// majority: 1 promises no less than -1, and as in 0.8 (checkEnoughReplicasReachOffset)
// any negative number means all replicas. A larger positive number, which in 0.8
// means that many replicas, means all as well in version 0, and is
// INVALID_REQUIRED_ACKS from version 1 on. Partitions fail one by one. A
// partition that is named twice in a request is appended to twice, in that order.
// An empty message set appends nothing and its offset is -1.
//
// The timeout answers REQUEST_TIMED_OUT for a partition whose append is not over
// then; the records may still be appended. In 0.8 it bounds the wait for
// replicas only, which acks 1 has none of, so there it is at least minAppend.
//
// Left out: producing does not create a topic; 0.8 did not either, its clients
// ask for metadata first. Batches of transactions are INVALID_TXN_STATE while not all nodes know
// them. The answer never names another leader (KIP-951): the cluster's one broker is it.
const (
	// minAppend is how long an append may take however short the timeout is.
	minAppend = 5 * time.Second
	// maxWait bounds how long a client can have the gateway wait.
	maxWait = 5 * time.Minute
)

// producing is what a Produce has for one partition.
type producing struct {
	order.Produce
	topic   string
	records int
}

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
	a := &producesAnswered{request: r, acks: req.Acks, resp: resp}
	a.left.Store(1)
	var sets [][]byte
	rules := make([]produceRules, 0, len(req.Topics))
	badAcks := req.Version > 0 && (req.Acks < -1 || req.Acks > 1)
	topics := r.conn.server.catalog.Topics()
	transactions := topics.FeatureLevel() >= fsm.LevelTransactions
	noTransactions := req.TransactionID == nil && transactions && transactional(req) ||
		req.TransactionID != nil && !r.mayTransactionalID(*req.TransactionID)
	for i := range req.Topics {
		t := &req.Topics[i]
		topic, unknown := r.findTopic(topics, t.Topic, t.TopicID, req.Version >= 13)
		rule := produceRules{version: req.Version, maxDecompressed: r.conn.server.cfg.MaxRequestBytes, transactions: transactions, transaction: req.TransactionID}
		if req.TransactionID != nil && req.Version < addsPartition {
			rule.awaited = r.reply.Awaited // as in transact
		}
		if topic != nil {
			rule.of(topic, r.conn.server.cfg.TopicDefaults, time.Now().UnixMilli())
		}
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		rt.Partitions = make([]kmsg.ProduceResponseTopicPartition, len(t.Partitions))
		for j := range t.Partitions {
			rt.Partitions[j].Default()
			rt.Partitions[j].Partition, rt.Partitions[j].BaseOffset = t.Partitions[j].Partition, -1
			var p *producing
			id, err := r.findPartition(topic, unknown, t.Partitions[j].Partition, noEpoch)
			switch {
			case noTransactions:
				err = errTransactionalIDDenied
			case badAcks:
				err = errRequiredAcks
			case err == nil:
				p = &producing{topic: topic.Name}
				a.left.Add(1)
				p.Init(id, until, a.done)
				r.conn.queues.Add(&p.Produce)
			}
			a.produces, a.errs, sets, rules = append(a.produces, p), append(a.errs, err), append(sets, t.Partitions[j].Records), append(rules, rule)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	a.free = r.reply.KeepFrame()
	if req.Acks != 0 { // else only the outcome decides whether the connection stays
		a.expiry = time.AfterFunc(time.Until(deadline), a.respond)
	}
	r.background(func() {
		if work := a.convert(sets, rules); work != nil {
			work() // in this goroutine, which has nothing else to do
		}
	})
}

// produceRules is what the records for one partition have to keep to.
type produceRules struct {
	version         int16
	maxMessage      int // bytes of a batch
	maxDecompressed int // bytes of a set, decompressed
	logAppendTime   bool
	needKeys        bool
	transactions    bool    // the cluster has them
	transaction     *string // transactional id of the request; nil: none
	// awaited is for batches of transactions (order.Produce.InTransaction).
	awaited func() context.Context
	// earliest and latest are the first and the last timestamp, ms since epoch, that
	// records may bring; with logAppendTime their own do not count.
	earliest, latest int64
}

// of takes over what a topic asks of its records now (ms since epoch): the node that the
// client is connected to judges, by its own clock, as a broker does.
func (p *produceRules) of(topic *fsm.Topic, defaults map[string]string, now int64) {
	// 0 is a bound as well, which nothing keeps to.
	p.maxMessage = max(topic.MaxMessageBytes(defaults), 1)
	p.needKeys = topic.Compacted(defaults)
	p.logAppendTime = topic.ConfigOr(defaults, "message.timestamp.type") == "LogAppendTime"
	if !p.logAppendTime {
		p.earliest, p.latest = topic.TimestampBounds(defaults, now)
	}
}

// producesAnswered waits for what a request produces, and answers.
type producesAnswered struct {
	*request
	acks     int16
	resp     *kmsg.ProduceResponse
	produces []*producing // one per partition of the response, in its order; nil: see errs
	errs     []error
	// left is how many produces have no outcome yet, and one more until all are handed over.
	left   atomic.Int32
	once   sync.Once   // of the answer
	expiry *time.Timer // answers when the time is up; nil: it never is
	free   func()      // gives the request's bytes back; nil: they are not counted
}

// convert makes batches of what the request brought and lets the queues go on. It gives what is
// left to do, nil for nothing.
func (a *producesAnswered) convert(sets [][]byte, rules []produceRules) (work func()) {
	defer a.done()
	s, i := a.conn.server, 0
	defer func() {
		for _, p := range a.produces[i:] { // only after a panic, or a stop
			if p != nil {
				a.ready(p)
			}
		}
	}()
	for ; i < len(a.produces); i++ {
		p := a.produces[i]
		if p == nil {
			continue
		}
		if work != nil {
			s.listener.Go(work)
		}
		if err := s.conversions.Acquire(s.listener.Context(), 1); err != nil {
			return nil
		}
		p.fill(sets[i], rules[i], s.conversions.Release)
		work = a.conn.queues.Ready(&p.Produce)
	}
	return work
}

// ready has the queue go on beside.
func (a *producesAnswered) ready(p *producing) {
	if work := a.conn.queues.Ready(&p.Produce); work != nil {
		a.conn.server.listener.Go(work)
	}
}

// done is called when one of them has its outcome, by whoever found it out.
func (a *producesAnswered) done() {
	if a.left.Add(-1) > 0 {
		return
	}
	if a.expiry != nil {
		a.expiry.Stop()
	}
	a.respond()
	// The answer may have gone out at the deadline; the bytes are in use until the last append is
	// over.
	if a.free != nil {
		a.free()
	}
}

// fill makes batches of set.
func (p *producing) fill(set []byte, rules produceRules, release func(int64)) {
	defer release(1)
	batches, records, err := rules.batches(set)
	stamped := int64(-1)
	if err == nil && rules.logAppendTime {
		stamped = time.Now().UnixMilli()
		for i := range batches {
			batches[i].StampLogAppendTime(stamped)
		}
	}
	if err == nil && len(batches) > 0 && batches[0].Header().Transactional() {
		err = p.inTransaction(rules)
	}
	p.records = records
	p.Fill(batches, stamped, err)
}

// addsPartition is the version of Produce from which on the partition's leader adds the partition
// to the transaction (KIP-890).
const addsPartition = 12

// transactional reports whether a request has batches of transactions. Without a transactional id
// all of it is refused then (KafkaApis.handleProduceRequest).
func transactional(req *kmsg.ProduceRequest) bool {
	for i := range req.Topics {
		for j := range req.Topics[i].Partitions {
			if req.Version >= 3 && kafkaproto.BeginsTransactional(req.Topics[i].Partitions[j].Records) {
				return true
			}
		}
	}
	return false
}

// inTransaction says which transaction the batches belong to.
func (p *producing) inTransaction(rules produceRules) error {
	id := ""
	if rules.transaction != nil {
		id = *rules.transaction
	}
	if id == "" || len(id) > math.MaxInt16 {
		return fmt.Errorf("%w: transactional id of %d bytes", outcome.ErrInvalidTxnState, len(id))
	}
	p.InTransaction(fsm.Transaction{ID: id, Add: rules.version >= addsPartition}, rules.awaited)
	return nil
}

// batches makes record batches of what the request has for a partition, or checks those that it
// has.
func (p *produceRules) batches(set []byte) (batches []kafkaproto.Batch, records int, err error) {
	lim := kafkaproto.Limits{
		MaxMessageBytes: p.maxMessage,
		MaxDecompressed: p.maxDecompressed, // compressed or not, a request holds no more
		NoZstd:          p.version < 7,
		Transactions:    p.transactions,
		NeedKeys:        p.needKeys,
		Earliest:        p.earliest,
		Latest:          p.latest,
	}
	if p.version < 3 {
		return kafkaproto.FromMessageSet(set, lim)
	}
	batch, err := kafkaproto.CheckProduced(set, lim)
	if err != nil {
		return nil, 0, err
	}
	return []kafkaproto.Batch{batch}, int(batch.Header().Records), nil
}

// respond tells what became of the produces; of those that are under way that their time is up.
func (a *producesAnswered) respond() {
	a.once.Do(func() {
		defer func() {
			if v := recover(); v != nil {
				a.hangUp(a.reply.Panicked(v))
			}
		}()
		a.tell()
	})
}

func (a *producesAnswered) tell() {
	var failed error
	next := 0
	for i := range a.resp.Topics {
		for j := range a.resp.Topics[i].Partitions {
			out := &a.resp.Topics[i].Partitions[j]
			p, err := a.produces[next], a.errs[next]
			next++
			if p != nil {
				var over bool
				if err, over = p.Outcome(); !over {
					err = outcome.ErrTimeout
				}
			}
			if err != nil {
				a.refused(out, err)
				failed = err
				continue
			}
			base, logStart, stamped := p.Place()
			out.BaseOffset, out.LogStartOffset, out.LogAppendTime = int64(base), int64(logStart), stamped
			a.conn.server.metrics.produced(p.topic, p.Bytes(), p.records)
		}
	}
	switch {
	case a.acks != 0:
		a.answer(a.resp)
	case failed != nil:
		a.hangUp(errors.Join(session.ErrAcksZero, failed))
	default:
		a.silence()
	}
}

// refused says of a partition why its records are not there.
func (a *producesAnswered) refused(out *kmsg.ProduceResponseTopicPartition, err error) {
	out.ErrorCode = a.fail(err)
	var inside outcome.Error // its details name nodes
	if !errors.As(err, &inside) {
		out.ErrorMessage = kmsg.StringPtr(err.Error())
	}
	var records *kafkaproto.InvalidRecords
	if errors.As(err, &records) {
		for _, e := range records.Records {
			out.ErrorRecords = append(out.ErrorRecords, kmsg.ProduceResponseTopicPartitionErrorRecord{RelativeOffset: e.Index, ErrorMessage: &e.Reason})
		}
	}
}
