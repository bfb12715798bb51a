package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	partitionsEach = 100
	wideID         = "wide"
)

func manyPartitions(ctx context.Context, r *run) error {
	cl, err := r.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	adm.SetTimeoutMillis(int32(patience.Milliseconds()))
	var topics []string
	for n := range r.topics {
		topics = append(topics, fmt.Sprintf("wide-%d", n))
	}
	all := r.topics * partitionsEach
	if err := r.took(fmt.Sprintf("making %d partitions", all), func() error { return r.makeAll(ctx, adm, topics) }); err != nil {
		return err
	}
	// Each leaves two offsets in each partition, a record and a marker.
	if err := r.wide(ctx, adm, topics, true, 0); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if err := r.wide(ctx, adm, topics, false, 2); err != nil {
		return fmt.Errorf("abort: %w", err)
	}
	var read map[string]int
	if err := r.took("reading all with read_committed", func() (err error) {
		read, err = r.readCommitted(ctx, topics, 4)
		return err
	}); err != nil {
		return err
	}
	if read["committed"] != all || len(read) != 1 {
		return fmt.Errorf("read: %v, want %d of the committed one alone", read, all)
	}
	return nil
}

// makeAll makes topics and waits until each partition is led.
func (r *run) makeAll(ctx context.Context, adm *kadm.Client, topics []string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, t := range topics {
		// A node that elects for thousands of groups may send its clients elsewhere for a moment.
		err := r.until(ctx, func() error {
			_, err := adm.CreateTopic(ctx, partitionsEach, 3, nil, t)
			if errors.Is(err, kerr.TopicAlreadyExists) {
				return nil
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return r.until(ctx, func() error {
		ends, err := adm.ListEndOffsets(ctx, topics...)
		if err == nil {
			err = ends.Error()
		}
		return err
	})
}

// until tries again until it succeeds.
func (r *run) until(ctx context.Context, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// wide is one transaction with a record in each partition, whose coordinator dies once it has
// decided. stable is the last stable offset of each partition before.
func (r *run) wide(ctx context.Context, adm *kadm.Client, topics []string, commit bool, stable int64) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	word := map[bool]string{true: "committed", false: "aborted"}[commit]
	p, err := r.producer(wideID, patience)
	if err != nil {
		return err
	}
	defer p.Close()
	var records []*kgo.Record
	for _, t := range topics {
		for n := range int32(partitionsEach) {
			records = append(records, &kgo.Record{Topic: t, Partition: n, Value: []byte(word)})
		}
	}
	if err := r.took("a record to each partition", func() error { return p.ProduceSync(ctx, records...).FirstErr() }); err != nil {
		return err
	}
	// Again where leaders change: as many partitions keep three processes busy.
	if err := r.until(ctx, func() error { return r.stable(ctx, adm, topics, stable) }); err != nil {
		return fmt.Errorf("while it is open: %w", err)
	}
	leader, err := r.leaderOf(wideID)
	if err != nil {
		return err
	}
	began := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- p.EndTransaction(ctx, kgo.TransactionEndTry(commit)) }()
	state, err := r.decided(ctx, adm)
	if err != nil {
		return err
	}
	if err := leader.Kill9(); err != nil {
		return err
	}
	r.say("%s: kill -9 of %s %.3f s after EndTxn", state, leader.ID, time.Since(began).Seconds())
	// By the time that it answers the next leader may have told all partitions.
	if state, err = r.described(ctx, adm); err != nil {
		return err
	}
	r.say("the next leader says after %.2f s: %s", time.Since(began).Seconds(), state)
	if err := <-ended; err != nil {
		return fmt.Errorf("EndTxn: %w", err)
	}
	if err := leader.Restart(); err != nil {
		return err
	}
	if err := r.until(ctx, func() error { return r.stable(ctx, adm, topics, stable+2) }); err != nil {
		return err
	}
	r.say("all markers are there %.2f s after EndTxn", time.Since(began).Seconds())
	return nil
}

// decided waits until the transaction is being ended.
func (r *run) decided(ctx context.Context, adm *kadm.Client) (state string, err error) {
	err = r.until(ctx, func() error {
		if state, err = r.described(ctx, adm); err == nil && !strings.HasPrefix(state, "Prepare") {
			err = fmt.Errorf("the transaction is %s", state)
		}
		return err
	})
	return state, err
}

// described gives the transaction's state, once somebody knows it.
func (r *run) described(ctx context.Context, adm *kadm.Client) (state string, err error) {
	err = r.until(ctx, func() error {
		d, err := adm.DescribeTransactions(ctx, wideID)
		if err != nil {
			return err
		}
		state = d[wideID].State
		return d[wideID].Err
	})
	return state, err
}

// stable wants a last stable offset in each partition.
func (r *run) stable(ctx context.Context, adm *kadm.Client, topics []string, want int64) error {
	ends, err := adm.ListCommittedOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return err
	}
	n := 0
	ends.Each(func(o kadm.ListedOffset) {
		if n++; o.Offset != want && err == nil {
			err = fmt.Errorf("partition %d of %s: the last stable offset is %d, want %d", o.Partition, o.Topic, o.Offset, want)
		}
	})
	if n != len(topics)*partitionsEach {
		return fmt.Errorf("%d partitions answer", n)
	}
	return err
}

// readCommitted reads each partition to a last stable offset and counts values.
func (r *run) readCommitted(ctx context.Context, topics []string, end int64) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	from, waiting := map[string]map[int32]kgo.Offset{}, 0
	for _, t := range topics {
		from[t] = map[int32]kgo.Offset{}
		for n := range int32(partitionsEach) {
			from[t][n] = kgo.NewOffset().AtStart()
			waiting++
		}
	}
	cl, err := r.client(kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumePartitions(from), kgo.KeepControlRecords())
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	read := map[string]int{}
	for waiting > 0 {
		fetched := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%d partitions are not read to their end: %w", waiting, ctx.Err())
		}
		fetched.EachRecord(func(rec *kgo.Record) {
			if !rec.Attrs.IsControl() {
				read[string(rec.Value)]++
			}
			if rec.Offset == end-1 {
				waiting--
			}
		})
	}
	return read, nil
}
