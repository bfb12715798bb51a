package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// txnID names a transaction of the load append.
type txnID struct{ producer, number int }

func (t txnID) String() string { return fmt.Sprintf("%d/%d", t.producer, t.number) }

// appended names one record of it: the record's value is its String.
type appended struct {
	txn       txnID
	i         int
	partition int32
}

func (a appended) String() string { return fmt.Sprintf("%s/%d/%d", a.txn, a.i, a.partition) }

// parseAppended is the reverse of String.
func parseAppended(s string) (a appended, ok bool) {
	parts := strings.Split(s, "/")
	if len(parts) != 4 {
		return a, false
	}
	var n [4]int
	for i, part := range parts {
		var err error
		if n[i], err = strconv.Atoi(part); err != nil {
			return a, false
		}
	}
	return appended{txnID{n[0], n[1]}, n[2], int32(n[3])}, true
}

const (
	// transactionTimeout is short, so that some transactions end by it while nodes are away.
	transactionTimeout = 8 * time.Second
	endTimeout         = 20 * time.Second
	mostRecords        = 12 // of a transaction
)

func appenderID(n int) string { return fmt.Sprintf("appender-%d", n) }

// append writes transactions until ctx ends.
func (w *world) append(ctx context.Context, producer int) {
	dice := rand.New(rand.NewPCG(w.seed, uint64(100+producer)))
	var cl *kgo.Client
	var a *asking
	var network *late
	defer func() {
		if cl != nil {
			cl.Close()
		}
	}()
	for n := 0; ctx.Err() == nil; n++ {
		if cl == nil {
			var err error
			network, a = w.late(dice.Uint64()), new(asking)
			if cl, err = w.appender(producer, network, a); err != nil {
				w.trouble.add("client", err)
				wait(ctx, 100*time.Millisecond)
				continue
			}
		}
		if !w.transaction(cl, network, a, dice, txnID{producer, n}) {
			// Closed or left behind: the next one fences it in the middle of whatever it does.
			old := cl
			cl = nil
			if dice.IntN(2) == 0 {
				time.AfterFunc(time.Duration(dice.IntN(300))*time.Millisecond, old.Close)
			} else {
				go old.Close()
			}
		}
		wait(ctx, time.Duration(dice.IntN(20))*time.Millisecond)
	}
}

func (w *world) appender(n int, network *late, a *asking) (*kgo.Client, error) {
	return w.client(
		kgo.WithHooks(a),
		kgo.TransactionalID(appenderID(n)),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0),
		kgo.RecordDeliveryTimeout(endTimeout),
		kgo.Dialer(network.dial),
	)
}

// transaction is one transaction. It is false if the client is not to be used any more.
func (w *world) transaction(cl *kgo.Client, network *late, a *asking, dice *rand.Rand, id txnID) bool {
	// A transaction that has begun is brought to its end.
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	if err := cl.BeginTransaction(); err != nil {
		w.trouble.add("begin", err)
		return false
	}
	count := 1 + dice.IntN(mostRecords)
	partitions := make([]int32, count)
	for i := range partitions {
		partitions[i] = int32(dice.IntN(w.partitions))
	}
	w.h.begun(id, partitions)
	abandoned := dice.IntN(25) == 0
	if abandoned && dice.IntN(2) == 0 {
		network.hold()
	}
	promises := make(chan error, count)
	for i, p := range partitions {
		if dice.IntN(6) == 0 {
			wait(ctx, time.Duration(dice.IntN(10))*time.Millisecond) // in more than one batch
		}
		cl.Produce(ctx, &kgo.Record{Topic: appendTopic, Partition: p, Value: []byte(appended{id, i, p}.String())},
			func(_ *kgo.Record, err error) { promises <- err })
	}
	if abandoned {
		w.h.ended(id, unknown) // may be anything but half
		return false
	}
	failed, err := w.kept(appenderID(id.producer), a, promises, count)
	if err != nil {
		w.h.ended(id, aborted) // nobody asked to commit it, and whoever comes next fences it
		return false
	}
	commit := dice.IntN(4) > 0 && failed == nil
	if failed != nil {
		w.trouble.add("produce", failed)
	}
	if commit {
		w.h.committing(id)
	}
	err = cl.EndTransaction(ctx, kgo.TransactionEndTry(commit))
	switch {
	case err != nil && commit:
		w.trouble.add("commit", err)
		w.h.ended(id, unknown)
	case err != nil:
		w.trouble.add("abort", err)
		w.h.ended(id, aborted) // nobody asked to commit it
	case commit:
		w.h.ended(id, committed)
	default:
		w.h.ended(id, aborted)
	}
	return err == nil
}

// settle fences every producer, and so ends what it left open.
func (w *world) settle(ctx context.Context) error {
	for n := range w.producers {
		if err := w.fence(ctx, appenderID(n)); err != nil {
			return err
		}
	}
	for n := range w.racers {
		if err := w.fence(ctx, racerID(n)); err != nil {
			return err
		}
	}
	return nil
}

// fence takes a transactional id over, until that worked and a transaction of its own is over.
func (w *world) fence(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	for {
		err := w.fenceOnce(ctx, id)
		if err == nil || ctx.Err() != nil {
			return err
		}
		w.trouble.add("fence", err)
		if !wait(ctx, 200*time.Millisecond) {
			return fmt.Errorf("nobody can take %s over: %w", id, err)
		}
	}
}

func (w *world) fenceOnce(ctx context.Context, id string) error {
	cl, err := w.client(kgo.TransactionalID(id), kgo.TransactionTimeout(transactionTimeout))
	if err != nil {
		return err
	}
	defer cl.Close()
	_, _, err = cl.ProducerID(ctx)
	return err
}
