package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// franzClient is franz-go as it comes: idempotent, acks=all, at most five requests in flight, its
// linger of 10 ms for what does not fill a batch. Only the size of batches is the load's, and what
// is sent is not compressed, since it is noise. One record at a time has no linger: nothing is
// behind it to wait for.
type franzClient struct {
	shape
	topic  string
	client *kgo.Client
	seeds  []string

	mu      sync.Mutex // guards latency
	latency []time.Duration
}

func newFranz(s shape, topic string, seeds []string) (*franzClient, error) {
	f := &franzClient{shape: s, topic: topic, seeds: seeds}
	if s.consume {
		return f, nil
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(seeds...), kgo.WithHooks(f), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerBatchMaxBytes(int32(max(s.size, recordSize+512))), // one record at least
	}
	if s.inFlight == 1 {
		opts = append(opts, kgo.ProducerLinger(0), kgo.ProducerBatchMaxBytes(1<<20))
	}
	var err error
	f.client, err = kgo.NewClient(opts...)
	return f, err
}

func (f *franzClient) close() {
	if f.client != nil {
		f.client.Close()
	}
}

// OnBrokerE2E is told of each request by franz-go: from before it is written to after its answer
// has been read.
func (f *franzClient) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e kgo.BrokerE2E) {
	if key != int16(kmsg.Produce) || e.Err() != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.latency = append(f.latency, e.DurationE2E())
}

func (f *franzClient) run(window time.Duration) (result, error) {
	switch {
	case f.consume:
		return f.fetch(window)
	case f.inFlight == 1:
		return f.oneByOne(window)
	}
	f.mu.Lock()
	f.latency = nil
	f.mu.Unlock()
	value := batch(recordSize, false).set[:recordSize] // noise
	var records atomic.Int64
	var failure atomic.Pointer[error]
	done := func(_ *kgo.Record, err error) {
		if err != nil {
			failure.CompareAndSwap(nil, &err)
			return
		}
		records.Add(1)
	}
	ctx := context.Background()
	start := time.Now()
	for n := 0; time.Since(start) < window && failure.Load() == nil; n++ {
		// As many records to one partition as fill a batch, then to the next.
		for range f.perRequest() {
			f.client.Produce(ctx, &kgo.Record{Topic: f.topic, Partition: int32(n % f.partitions), Value: value}, done)
		}
	}
	if err := f.client.Flush(ctx); err != nil {
		return result{}, err
	}
	r := result{took: time.Since(start), records: int(records.Load())}
	r.bytes = r.records * recordSize
	f.mu.Lock()
	r.latency = f.latency
	f.mu.Unlock()
	if err := failure.Load(); err != nil {
		return r, *err
	}
	return r, nil
}

// oneByOne waits for each record as a caller does.
func (f *franzClient) oneByOne(window time.Duration) (r result, err error) {
	value := batch(recordSize, false).set[:recordSize]
	ctx := context.Background()
	start := time.Now()
	for n := 0; time.Since(start) < window; n++ {
		at := time.Now()
		if f.perSecond > 0 {
			at = start.Add(time.Duration(float64(n) / f.perSecond * float64(time.Second)))
			time.Sleep(time.Until(at))
		}
		if err := f.client.ProduceSync(ctx, &kgo.Record{Topic: f.topic, Value: value}).FirstErr(); err != nil {
			return r, err
		}
		r.latency = append(r.latency, time.Since(at))
		r.records++
	}
	r.took, r.bytes = time.Since(start), r.records*recordSize
	return r, nil
}

// fetch reads the topic from its start until the window or the topic ends. Its latency is that of
// polls.
func (f *franzClient) fetch(window time.Duration) (r result, err error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(f.seeds...), kgo.ConsumeTopics(f.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return r, err
	}
	defer cl.Close()
	start := time.Now()
	last := start
	for time.Since(start) < window {
		ctx, cancel := context.WithTimeout(context.Background(), window/4+time.Second)
		at := time.Now()
		got := cl.PollFetches(ctx)
		cancel()
		if errors.Is(got.Err0(), context.DeadlineExceeded) {
			break // the end, of which nobody tells: it does not count
		}
		if err := got.Err(); err != nil {
			return r, err
		}
		got.EachRecord(func(rec *kgo.Record) {
			r.records++
			r.bytes += len(rec.Value)
		})
		last = time.Now()
		r.latency = append(r.latency, last.Sub(at))
	}
	r.took = last.Sub(start)
	return r, nil
}
