package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// message names a message of the ring at one of its hops; its String is the record's value.
type message struct{ id, hop int }

func (m message) String() string { return fmt.Sprintf("%d/%d", m.id, m.hop) }

// parseMessage is the reverse of String.
func parseMessage(s string) (m message, ok bool) {
	id, hop, ok := strings.Cut(s, "/")
	if !ok {
		return m, false
	}
	var errs [2]error
	m.id, errs[0] = strconv.Atoi(id)
	m.hop, errs[1] = strconv.Atoi(hop)
	return m, errors.Join(errs[:]...) == nil
}

// feedPause is between two messages that are put into the ring.
const feedPause = 15 * time.Millisecond

// feed puts messages into the ring until ctx ends, with an idempotent producer.
func (w *world) feed(ctx context.Context) {
	cl, err := w.client(kgo.RecordDeliveryTimeout(time.Minute))
	if err != nil {
		w.h.anomaly("no-feed", "%v", err)
		return
	}
	defer cl.Close()
	for id := 0; wait(ctx, feedPause); id++ {
		m := message{id, 0}
		w.h.fed(m)
		within, cancel := context.WithTimeout(context.Background(), time.Minute)
		err := cl.ProduceSync(within, &kgo.Record{Topic: ringTopic(0), Value: []byte(m.String())}).FirstErr()
		cancel()
		if err != nil {
			w.trouble.add("feed", err)
			continue
		}
		w.h.fedSurely(m)
	}
}

func workerID(parity, n int) string { return fmt.Sprintf("worker-%d-%d", parity, n) }

// startWorkers starts the workers of both groups; they end with ctx.
func (w *world) startWorkers(ctx context.Context) *sync.WaitGroup {
	all := new(sync.WaitGroup)
	for parity := range 2 {
		for n := range w.workers {
			all.Go(func() {
				for ctx.Err() == nil {
					if err := w.work(ctx, parity, n); err != nil && ctx.Err() == nil {
						w.trouble.add("worker", err)
						wait(ctx, 100*time.Millisecond)
					}
				}
			})
		}
	}
	return all
}

// work takes messages from one topic to the other until ctx ends or the session is of no use.
func (w *world) work(ctx context.Context, parity, n int) error {
	a := new(asking)
	opts := []kgo.Opt{
		kgo.WithHooks(a),
		kgo.TransactionalID(workerID(parity, n)),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumerGroup("ring-" + strconv.Itoa(parity)),
		kgo.ConsumeTopics(ringTopic(parity)),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(6 * time.Second),
		kgo.RebalanceTimeout(6 * time.Second),
		kgo.HeartbeatInterval(500 * time.Millisecond),
		kgo.FetchMaxWait(300 * time.Millisecond),
		kgo.ProducerLinger(0),
		kgo.RecordDeliveryTimeout(endTimeout),
	}
	s, err := kgo.NewGroupTransactSession(append(opts, w.common()...)...)
	if err != nil {
		return err
	}
	defer s.Close()
	dice := rand.New(rand.NewPCG(w.seed, rand.Uint64()))
	for ctx.Err() == nil {
		fetches := s.PollRecords(ctx, 50)
		if ctx.Err() != nil {
			return nil
		}
		for _, e := range fetches.Errors() {
			w.trouble.add("worker's fetch", e.Err)
		}
		if fetches.Empty() {
			continue
		}
		if err := s.Begin(); err != nil {
			return err
		}
		failed := make(chan error, fetches.NumRecords())
		var done work
		fetches.EachRecord(func(r *kgo.Record) {
			m, ok := parseMessage(string(r.Value))
			if string(r.Value) == lastRecord {
				return
			}
			if !ok || m.hop%2 != parity {
				w.h.anomaly("unwritten-read", "a worker was given %q from %s", r.Value, r.Topic)
				return
			}
			done.consumed = append(done.consumed, m)
			if m.hop == w.hops {
				return // the end of its way; only the offset is committed
			}
			next := message{m.id, m.hop + 1}
			done.produced = append(done.produced, next)
			s.Produce(context.Background(), &kgo.Record{Topic: ringTopic(next.hop), Value: []byte(next.String())},
				func(_ *kgo.Record, err error) { failed <- err })
		})
		refused, err := w.kept(workerID(parity, n), a, failed, len(done.produced))
		if err != nil {
			return err
		}
		if refused != nil {
			w.trouble.add("worker's produce", refused)
		}
		if dice.IntN(12) == 0 {
			return w.giveUp(s.Client(), workerID(parity, n), parity, fetches)
		}
		within, cancel := context.WithTimeout(context.Background(), endTimeout)
		did, err := s.End(within, kgo.TransactionEndTry(refused == nil))
		cancel()
		if err != nil {
			return err
		}
		w.h.worked(did, done)
	}
	return nil
}

// giveUp commits the offsets of what a worker consumed in its transaction, aborts that, and has the
// worker leave: whoever comes next has to consume the same again.
func (w *world) giveUp(cl *kgo.Client, transactionalID string, parity int, consumed kgo.Fetches) error {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	id, epoch, err := cl.ProducerID(ctx)
	if err != nil {
		return err
	}
	member, generation := cl.GroupMetadata()
	group := "ring-" + strconv.Itoa(parity)
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = transactionalID, id, epoch, group
	if resp, err := add.RequestWith(ctx, cl); err != nil {
		return err
	} else if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return err
	}
	commit := kmsg.NewPtrTxnOffsetCommitRequest()
	commit.TransactionalID, commit.Group, commit.ProducerID, commit.ProducerEpoch = transactionalID, group, id, epoch
	commit.MemberID, commit.Generation = member, generation
	topic := kmsg.NewTxnOffsetCommitRequestTopic()
	topic.Topic = ringTopic(parity)
	consumed.EachPartition(func(p kgo.FetchTopicPartition) {
		if len(p.Records) == 0 {
			return
		}
		partition := kmsg.NewTxnOffsetCommitRequestTopicPartition()
		partition.Partition, partition.Offset = p.Partition, p.Records[len(p.Records)-1].Offset+1
		topic.Partitions = append(topic.Partitions, partition)
	})
	commit.Topics = append(commit.Topics, topic)
	if resp, err := commit.RequestWith(ctx, cl); err != nil {
		return err
	} else if err := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode); err != nil {
		return err
	}
	if err := cl.EndTransaction(ctx, kgo.TryAbort); err != nil {
		return err
	}
	w.h.gaveUp()
	return nil
}

// ringPatience is for how long no message of the ring may come further.
const ringPatience = 30 * time.Second

// awaitRing waits until all messages have come to their last hop, as long as some come further.
func (w *world) awaitRing(ctx context.Context) error {
	before, since := -1, time.Now()
	for {
		missing := w.h.underWay(w.hops)
		if missing == 0 {
			return nil
		}
		if missing != before {
			before, since = missing, time.Now()
		}
		if time.Since(since) > ringPatience || !wait(ctx, 100*time.Millisecond) {
			return fmt.Errorf("%d messages of the ring are still under way", missing)
		}
	}
}

// settleWorkers ends what workers left open.
func (w *world) settleWorkers(ctx context.Context) error {
	for parity := range 2 {
		for n := range w.workers {
			if err := w.fence(ctx, workerID(parity, n)); err != nil {
				return err
			}
		}
	}
	return nil
}
