package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// racers are producers whose last record is on its way while they end the transaction: it is in it
// or refused, and never behind its marker, where it would be of no transaction or of the next. They
// speak by single requests, since no client library does so; their transactions are among those of
// the load append, with producer numbers from firstRacer on.
const firstRacer = 1000

func racerID(n int) string { return fmt.Sprintf("racer-%d", n) }

// racer is a producer with a producer id; a failure of unknown consequence makes it take another
// epoch.
type racer struct {
	w       *world
	n       int
	dice    *rand.Rand
	clients [2]*kgo.Client // of the last record, and of everything else
	id      int64
	epoch   int16
	next    map[int32]int32 // sequence number by partition
}

// race writes transactions until ctx ends.
func (w *world) race(ctx context.Context, n int) {
	r := &racer{w: w, n: n, dice: rand.New(rand.NewPCG(w.seed, uint64(500+n)))}
	for i := range r.clients {
		cl, err := w.client(kgo.MaxProduceRequestsInflightPerBroker(1))
		if err != nil {
			w.h.anomaly("no-racer", "%v", err)
			return
		}
		defer cl.Close()
		r.clients[i] = cl
	}
	for number := 0; ctx.Err() == nil; number++ {
		if r.next == nil {
			if err := r.init(ctx); err != nil {
				w.trouble.add("racer's id", err)
				wait(ctx, 100*time.Millisecond)
				continue
			}
		}
		if err := r.transaction(txnID{firstRacer + n, number}); err != nil {
			w.trouble.add("racer", err)
			r.next = nil
		}
		wait(ctx, time.Duration(r.dice.IntN(30))*time.Millisecond)
	}
}

// ask sends a request until there is an answer that is not "again", and gives what code says of it.
func ask[R kmsg.Response](ctx context.Context, cl *kgo.Client, req kmsg.Request, code func(R) int16) error {
	for {
		resp, err := cl.Request(ctx, req)
		if err != nil {
			return err
		}
		err = kerr.ErrorForCode(code(resp.(R)))
		if !kerr.IsRetriable(err) || !wait(ctx, 20*time.Millisecond) {
			return err
		}
	}
}

func (r *racer) init(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis = kmsg.StringPtr(racerID(r.n)), int32(transactionTimeout.Milliseconds())
	return ask(ctx, r.clients[1], req, func(resp *kmsg.InitProducerIDResponse) int16 {
		r.id, r.epoch, r.next = resp.ProducerID, resp.ProducerEpoch, map[int32]int32{}
		if resp.ErrorCode != 0 {
			r.next = nil
		}
		return resp.ErrorCode
	})
}

// transaction writes record 0, and record 1 while it ends. An error is of unknown consequence.
func (r *racer) transaction(id txnID) error {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	partitions := []int32{int32(r.dice.IntN(r.w.partitions)), int32(r.dice.IntN(r.w.partitions))}
	r.w.h.begunWith(id, partitions, 1)
	if r.w.old {
		if err := r.add(ctx, partitions); err != nil {
			r.w.h.ended(id, aborted)
			return err
		}
	}
	if err := r.produce(appended{id, 0, partitions[0]})(ctx, r.clients[1]); err != nil {
		r.w.h.ended(id, aborted)
		return err
	}
	r.next[partitions[0]]++
	last := make(chan error, 1)
	produce := r.produce(appended{id, 1, partitions[1]})
	ahead := time.Duration(r.dice.IntN(4000)) * time.Microsecond
	go func() {
		wait(ctx, 2*time.Millisecond)
		last <- produce(ctx, r.clients[0])
	}()
	wait(ctx, ahead)
	commit := r.dice.IntN(3) > 0
	if commit {
		r.w.h.committing(id)
	}
	epoch := r.epoch
	ended := r.end(ctx, commit)
	produced := <-last
	switch {
	case !commit:
		r.w.h.ended(id, aborted)
	case ended != nil:
		r.w.h.ended(id, unknown)
	default:
		if produced == nil {
			r.w.h.need(id, 2)
		}
		r.w.h.ended(id, committed)
	}
	if ended != nil {
		return ended
	}
	if produced == nil {
		if r.epoch == epoch {
			r.next[partitions[1]]++
		}
		return nil
	}
	if ke, ok := produced.(*kerr.Error); ok && !ke.Retriable && r.epoch != epoch {
		return nil // it was refused, and the next transaction has an epoch of its own
	}
	return fmt.Errorf("its last record: %w", produced)
}

// produce makes the request that writes a record as things are now; what it gives sends it.
func (r *racer) produce(a appended) func(ctx context.Context, cl *kgo.Client) error {
	req := kmsg.NewPtrProduceRequest()
	req.TransactionID, req.Acks, req.TimeoutMillis = kmsg.StringPtr(racerID(r.n)), -1, 2000
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = a.partition, batchOf(a.String(), r.id, r.epoch, r.next[a.partition])
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic, topic.TopicID, topic.Partitions = appendTopic, r.w.topicID, []kmsg.ProduceRequestTopicPartition{p}
	req.Topics = append(req.Topics, topic)
	return func(ctx context.Context, cl *kgo.Client) error {
		return ask(ctx, cl, req, func(resp *kmsg.ProduceResponse) int16 { return resp.Topics[0].Partitions[0].ErrorCode })
	}
}

// batchOf is a transactional batch of one record.
func batchOf(value string, producer int64, epoch int16, sequence int32) []byte {
	record := kmsg.Record{Value: []byte(value)}
	body := record.AppendTo(nil)
	record.Length = int32(len(body)) - 1 // the length's own byte: values are short
	now := time.Now().UnixMilli()
	batch := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, Attributes: 1 << 4, FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: producer, ProducerEpoch: epoch, FirstSequence: sequence, NumRecords: 1, Records: record.AppendTo(nil),
	}
	b := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func (r *racer) add(ctx context.Context, partitions []int32) error {
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = racerID(r.n), r.id, r.epoch
	topic := kmsg.NewAddPartitionsToTxnRequestTopic()
	topic.Topic, topic.Partitions = appendTopic, partitions
	if partitions[0] == partitions[1] {
		topic.Partitions = partitions[:1]
	}
	req.Topics = append(req.Topics, topic)
	return ask(ctx, r.clients[1], req, func(resp *kmsg.AddPartitionsToTxnResponse) int16 {
		for _, p := range resp.Topics[0].Partitions {
			if p.ErrorCode != 0 {
				return p.ErrorCode
			}
		}
		return 0
	})
}

func (r *racer) end(ctx context.Context, commit bool) error {
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = racerID(r.n), r.id, r.epoch, commit
	return ask(ctx, r.clients[1], req, func(resp *kmsg.EndTxnResponse) int16 {
		if resp.ErrorCode == 0 && resp.Version >= 5 {
			r.id, r.epoch, r.next = resp.ProducerID, resp.ProducerEpoch, map[int32]int32{}
		}
		return resp.ErrorCode
	})
}
