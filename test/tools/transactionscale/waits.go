package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	heldTopic   = "held"
	heldTimeout = 10 * time.Second
)

// wholeTimeout leaves a transaction open. Readers of its partition wait for it, and no longer than
// its timeout says; who leaves it alone does not.
func wholeTimeout(ctx context.Context, r *run) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := r.cluster.CreateTopic(ctx, heldTopic, 2, 3); err != nil {
		return err
	}
	held, err := r.hold(ctx, heldTopic, 0)
	if err != nil {
		return err
	}
	defer held.Close()
	began := time.Now()
	plain, err := r.client()
	if err != nil {
		return err
	}
	defer plain.Close()
	for n := range int32(2) {
		if err := plain.ProduceSync(ctx, &kgo.Record{Topic: heldTopic, Partition: n, Value: []byte("behind")}).FirstErr(); err != nil {
			return err
		}
	}
	if err := r.readBehind(ctx, 1); err != nil {
		return err
	}
	r.say("the partition beside it is read after %.2f s", time.Since(began).Seconds())
	if err := r.readBehind(ctx, 0); err != nil {
		return err
	}
	r.say("its own after %.2f s; its timeout is %v", time.Since(began).Seconds(), heldTimeout)
	if open := time.Since(began); open < heldTimeout {
		return fmt.Errorf("it was ended after %v", open)
	}
	if err := held.EndTransaction(ctx, kgo.TryCommit); err == nil {
		return errors.New("it is committed after its timeout")
	}
	return nil
}

// hold begins a transaction in a partition and goes no further.
func (r *run) hold(ctx context.Context, topic string, partition int32) (*kgo.Client, error) {
	p, err := r.producer("holder", heldTimeout)
	if err != nil {
		return nil, err
	}
	if err := p.ProduceSync(ctx, &kgo.Record{Topic: topic, Partition: partition, Value: []byte("held")}).FirstErr(); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// readBehind reads a partition with read_committed until what is behind the transaction comes.
func (r *run) readBehind(ctx context.Context, partition int32) error {
	cl, err := r.client(kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{heldTopic: {partition: kgo.NewOffset().AtStart()}}))
	if err != nil {
		return err
	}
	defer cl.Close()
	var got []string
	for len(got) == 0 {
		cl.PollFetches(ctx).EachRecord(func(rec *kgo.Record) { got = append(got, string(rec.Value)) })
		if ctx.Err() != nil {
			return fmt.Errorf("nothing comes from partition %d: %w", partition, ctx.Err())
		}
	}
	if len(got) != 1 || got[0] != "behind" {
		return fmt.Errorf("partition %d: read %q", partition, got)
	}
	return nil
}

const (
	hundred       = 100
	transactions  = 20 // of each producer
	hundredTopic  = "hundred"
	hundredOthers = 6 // partitions, beside the one where a transaction hangs
)

// hundredProducers write transactions to partitions while one hangs in one of these. What they
// commit elsewhere is read at once; there it is read when the timeout has ended the one.
func hundredProducers(ctx context.Context, r *run) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := r.cluster.CreateTopic(ctx, hundredTopic, 1+hundredOthers, 3); err != nil {
		return err
	}
	held, err := r.hold(ctx, hundredTopic, 0)
	if err != nil {
		return err
	}
	defer held.Close()
	began := time.Now()
	from := map[int32]kgo.Offset{}
	for n := range int32(1 + hundredOthers) {
		from[n] = kgo.NewOffset().AtStart()
	}
	reader, err := r.client(kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{hundredTopic: from}))
	if err != nil {
		return err
	}
	defer reader.Close()
	var work sync.WaitGroup
	failed := make([]error, hundred)
	for n := range hundred {
		work.Go(func() { failed[n] = r.oneOfMany(ctx, n) })
	}
	got := map[string]int{}
	counts := make([]int, 1+hundredOthers)
	const each = hundred * transactions // records in each partition
	read := func(done func() bool) error {
		for !done() {
			reader.PollFetches(ctx).EachRecord(func(rec *kgo.Record) {
				got[fmt.Sprintf("%s in %d", rec.Value, rec.Partition)]++
				counts[rec.Partition]++
			})
			if ctx.Err() != nil {
				return fmt.Errorf("read %v of %d: %w", counts, each, ctx.Err())
			}
		}
		return nil
	}
	if err := read(func() bool {
		for _, n := range counts[1:] {
			if n < each {
				return false
			}
		}
		return true
	}); err != nil {
		return err
	}
	r.say("%d partitions are read to the end %.2f s after the one hung; %d of %d records of its own", hundredOthers, time.Since(began).Seconds(), counts[0], each)
	if counts[0] > 0 && time.Since(began) < heldTimeout {
		return errors.New("what is behind an open transaction is read")
	}
	work.Wait()
	if err := errors.Join(failed...); err != nil {
		return err
	}
	if err := read(func() bool { return counts[0] >= each }); err != nil {
		return err
	}
	r.say("its own after %.2f s; its timeout is %v", time.Since(began).Seconds(), heldTimeout)
	for what, n := range got {
		if n != 1 {
			return fmt.Errorf("%s is read %d times", what, n)
		}
	}
	if len(got) != each*(1+hundredOthers) {
		return fmt.Errorf("%d records are read, want %d", len(got), each*(1+hundredOthers))
	}
	return nil
}

// oneOfMany commits transactions of a record to each partition.
func (r *run) oneOfMany(ctx context.Context, n int) error {
	p, err := r.producer(fmt.Sprintf("one-%d", n), time.Minute)
	if err != nil {
		return err
	}
	defer p.Close()
	for i := range transactions {
		if i > 0 {
			if err := p.BeginTransaction(); err != nil {
				return err
			}
		}
		var records []*kgo.Record
		for to := range int32(1 + hundredOthers) {
			records = append(records, &kgo.Record{Topic: hundredTopic, Partition: to, Value: fmt.Appendf(nil, "%d/%d", n, i)})
		}
		if err := p.ProduceSync(ctx, records...).FirstErr(); err != nil {
			return fmt.Errorf("producer %d, transaction %d: %w", n, i, err)
		}
		if err := p.EndTransaction(ctx, kgo.TryCommit); err != nil {
			return fmt.Errorf("producer %d, transaction %d: %w", n, i, err)
		}
	}
	return nil
}
