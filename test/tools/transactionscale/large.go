package main

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/trimaran-io/trimaran/test/harness"
)

const (
	largeTopic      = "large"
	largePartitions = 3
	largeRecord     = 100_000
	// What a node may have for itself while a transaction goes by that is larger: Go's aim, and the
	// requests and answers that are under way.
	goAims     = 256 * mib
	inFlight   = 64 * mib
	mostMemory = goAims + 2*inFlight
)

// smallNodes have little memory.
func smallNodes(o options) harness.Options {
	h := plainNodes(o)
	h.Env = []string{fmt.Sprintf("GOMEMLIMIT=%d", goAims)}
	h.NodeArgs = []string{"--max-request-bytes", fmt.Sprint(inFlight / 4), "--max-inflight-bytes", fmt.Sprint(inFlight)}
	return h
}

func largeTransaction(ctx context.Context, r *run) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	if err := r.cluster.CreateTopic(ctx, largeTopic, largePartitions, 3); err != nil {
		return err
	}
	count := int(r.large / largeRecord)
	if r.large <= mostMemory {
		r.say("-large is no more than a node may have (%d MiB): little is tried", mostMemory/mib)
	}
	stop := r.watchMemory(ctx)
	err := r.abortAndCommit(ctx, count)
	most := stop()
	r.say("a node had %.1f MiB of memory at most, and may have %d", float64(most)/mib, mostMemory/mib)
	if err == nil && most > mostMemory {
		err = fmt.Errorf("a node had %d bytes of memory", most)
	}
	return err
}

func (r *run) abortAndCommit(ctx context.Context, count int) error {
	p, err := r.producer("large", 15*time.Minute, kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return err
	}
	defer p.Close()
	for i, word := range []string{"aborted", "committed"} {
		if i > 0 {
			if err := p.BeginTransaction(); err != nil {
				return err
			}
		}
		if err := r.took(fmt.Sprintf("writing %d records of %d bytes in one transaction", count, largeRecord), func() error {
			return r.writeLarge(ctx, p, word, count)
		}); err != nil {
			return err
		}
		if n, _, err := r.readLarge(ctx, kgo.ReadCommitted()); err != nil || n["aborted"]+n["committed"] > 0 {
			return fmt.Errorf("while it is open %v are read with read_committed: %w", n, err)
		}
		end := kgo.TransactionEndTry(word == "committed")
		if err := r.took("its end, "+word, func() error { return p.EndTransaction(ctx, end) }); err != nil {
			return err
		}
	}
	if err := r.took("reading with read_committed", func() error {
		n, aborts, err := r.readLarge(ctx, kgo.ReadCommitted())
		if err == nil && (n["committed"] != count || n["aborted"] != 0 || aborts != 0) {
			err = fmt.Errorf("%v are read, want %d committed", n, count)
		}
		return err
	}); err != nil {
		return err
	}
	return r.took("reading with read_uncommitted", func() error {
		n, _, err := r.readLarge(ctx, kgo.ReadUncommitted())
		if err == nil && (n["committed"] != count || n["aborted"] != count) {
			err = fmt.Errorf("%v are read, want %d of each", n, count)
		}
		return err
	})
}

func (r *run) writeLarge(ctx context.Context, p *kgo.Client, word string, count int) error {
	value := append([]byte(word), bytes.Repeat([]byte("."), largeRecord-len(word))...)
	var first kgo.FirstErrPromise
	for i := range count {
		p.Produce(ctx, &kgo.Record{Topic: largeTopic, Partition: int32(i % largePartitions), Value: value}, first.Promise())
	}
	if err := p.Flush(ctx); err != nil {
		return err
	}
	return first.Err()
}

// readLarge reads to the present ends, the last stable offsets for read_committed, and counts
// records by their words.
func (r *run) readLarge(ctx context.Context, level kgo.IsolationLevel) (words map[string]int, unknown int, err error) {
	from := map[int32]kgo.Offset{}
	for n := range int32(largePartitions) {
		from[n] = kgo.NewOffset().AtStart()
	}
	cl, err := r.client(kgo.FetchIsolationLevel(level), kgo.KeepControlRecords(), kgo.FetchMaxBytes(16*mib),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{largeTopic: from}))
	if err != nil {
		return nil, 0, err
	}
	defer cl.Close()
	// All that is open begins behind what is stable, and each transaction ends with a marker.
	ends, err := kadm.NewClient(cl).ListCommittedOffsets(ctx, largeTopic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, 0, err
	}
	waiting := 0
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			waiting++
		}
	})
	words = map[string]int{}
	for waiting > 0 {
		fetched := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return words, unknown, ctx.Err()
		}
		fetched.EachRecord(func(rec *kgo.Record) {
			if o, _ := ends.Lookup(largeTopic, rec.Partition); rec.Offset == o.Offset-1 {
				waiting--
			}
			word, _, _ := bytes.Cut(rec.Value, []byte("."))
			switch {
			case rec.Attrs.IsControl():
			case string(word) == "committed", string(word) == "aborted":
				words[string(word)]++
			default:
				unknown++
			}
		})
	}
	return words, unknown, nil
}
