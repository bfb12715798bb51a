package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// place is a partition of a topic.
type place struct {
	topic     string
	partition int32
}

func (p place) String() string { return fmt.Sprintf("%s-%d", p.topic, p.partition) }

// read is what a reader was given at an offset.
type read struct {
	offset int64
	value  string
	at     time.Time
}

// reader opens a client that reads every partition from its beginning.
func (w *world) reader(level kgo.IsolationLevel) (*kgo.Client, error) {
	offsets := map[string]map[int32]kgo.Offset{}
	for _, topic := range topics() {
		offsets[topic] = map[int32]kgo.Offset{}
		for p := range int32(w.partitions) {
			offsets[topic][p] = kgo.NewOffset().At(0)
		}
	}
	return w.client(
		kgo.ConsumePartitions(offsets),
		kgo.FetchIsolationLevel(level),
		kgo.FetchMaxWait(300*time.Millisecond),
		// The topics have never lost a record: who is told otherwise has found something.
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
	)
}

// follow starts a reader of each isolation level; both end with ctx.
func (w *world) follow(ctx context.Context) *sync.WaitGroup {
	all := new(sync.WaitGroup)
	for _, isolation := range []isolation{readCommitted, readUncommitted} {
		level := kgo.ReadCommitted()
		if isolation == readUncommitted {
			level = kgo.ReadUncommitted()
		}
		all.Go(func() {
			cl, err := w.reader(level)
			if err != nil {
				w.h.anomaly("no-reader", "%v", err)
				return
			}
			defer cl.Close()
			for ctx.Err() == nil {
				fetches := cl.PollFetches(ctx)
				now := time.Now()
				for _, e := range fetches.Errors() {
					if ctx.Err() == nil && !errors.Is(e.Err, context.Canceled) {
						w.trouble.add("reader", e.Err)
					}
				}
				fetches.EachRecord(func(r *kgo.Record) {
					w.h.followed(isolation, place{r.Topic, r.Partition}, read{r.Offset, string(r.Value), now})
				})
			}
		})
	}
	return all
}

// awaitMarkers waits until readers of committed records wait for nothing more, anywhere: every
// transaction has been ended, so its markers have to come. Where they do not, it is an anomaly; how
// many partitions there are is what it gives.
func (w *world) awaitMarkers(ctx context.Context) (hanging map[place]int64, err error) {
	cl, err := w.client()
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	deadline := time.Now().Add(markersWithin)
	for {
		within, cancel := context.WithTimeout(ctx, 30*time.Second)
		hanging, err = stable(within, kadm.NewClient(cl))
		cancel()
		if err == nil && len(hanging) == 0 {
			return nil, nil
		}
		if time.Now().After(deadline) || !wait(ctx, 200*time.Millisecond) {
			break
		}
	}
	for p, at := range hanging {
		w.h.anomaly("hanging-transaction", "%s: one is open since offset %d, and was ended %v ago or before", p, at, markersWithin)
	}
	return hanging, err
}

// markersWithin is how long markers may take when all nodes are up.
const markersWithin = 30 * time.Second

// stable gives the partitions whose last stable offset is not their end, with that.
func stable(ctx context.Context, cl *kadm.Client) (map[place]int64, error) {
	ends, err := cl.ListEndOffsets(ctx, topics()...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, err
	}
	committed, err := cl.ListCommittedOffsets(ctx, topics()...)
	if err == nil {
		err = committed.Error()
	}
	hanging := map[place]int64{}
	committed.Each(func(o kadm.ListedOffset) {
		if end, _ := ends.Lookup(o.Topic, o.Partition); o.Offset < end.Offset {
			hanging[place{o.Topic, o.Partition}] = o.Offset
		}
	})
	return hanging, err
}

// readAll reads all that is committed, once more and from the beginning. Of partitions where a
// transaction hangs it reads what is before that.
func (w *world) readAll(ctx context.Context, hanging map[place]int64) (map[place][]read, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	ends, err := w.ends(ctx)
	if err != nil {
		return nil, err
	}
	cl, err := w.reader(kgo.ReadCommitted())
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	// A partition's end may hold markers only, which no reader is given: so a last record that is
	// no transaction's is written to each.
	all := map[place][]read{}
	open := len(ends) - len(hanging)
	for open > 0 {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%d of %d partitions cannot be read to their end: is a transaction open for ever?", open, len(ends))
		}
		fetches.EachRecord(func(r *kgo.Record) {
			p := place{r.Topic, r.Partition}
			if string(r.Value) == lastRecord {
				open--
				return
			}
			all[p] = append(all[p], read{r.Offset, string(r.Value), time.Now()})
		})
	}
	return all, nil
}

// lastRecord is the value of the record behind all others.
const lastRecord = "last"

// ends writes the last records and gives the partitions' ends.
func (w *world) ends(ctx context.Context) (map[place]int64, error) {
	cl, err := w.client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	for _, topic := range topics() {
		for p := range int32(w.partitions) {
			if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Partition: p, Value: []byte(lastRecord)}).FirstErr(); err != nil {
				return nil, fmt.Errorf("writing the last record of %s-%d: %w", topic, p, err)
			}
		}
	}
	listed, err := kadm.NewClient(cl).ListEndOffsets(ctx, topics()...)
	if err != nil {
		return nil, err
	}
	ends := map[place]int64{}
	listed.Each(func(o kadm.ListedOffset) { ends[place{o.Topic, o.Partition}] = o.Offset })
	return ends, listed.Error()
}

// awaitFollowers waits until those who followed have been given all that there is; check says who
// has not.
func (w *world) awaitFollowers(ctx context.Context, final map[place][]read) {
	deadline := time.Now().Add(30 * time.Second)
	for !w.h.caughtUp(final) && time.Now().Before(deadline) && wait(ctx, 50*time.Millisecond) {
	}
}
