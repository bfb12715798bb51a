package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/twmb/franz-go/pkg/kgo"
)

// judge gives the client by which the driver itself looks at the cluster.
func (a *attempt) judge() (*kgo.Client, error) {
	return kgo.NewClient(append(harness.Seeds(a.driverAddr), kgo.MetadataMinAge(50*time.Millisecond))...)
}

// makeTopic makes a topic of three replicas without the client and waits until it is
// served.
func (b *bench) makeTopic(ctx context.Context, topic string, partitions int32) error {
	ctx, cancel := context.WithTimeout(ctx, b.step)
	defer cancel()
	if b.cluster != nil {
		return b.cluster.CreateTopic(ctx, topic, partitions, 3)
	}
	return harness.CreateTopic(ctx, b.addrs[0], topic, partitions, -1) // its own default
}

// awaitTopic waits until every node serves all partitions of the topic.
func (a *attempt) awaitTopic() error {
	for _, addr := range a.looks {
		var last error
		err := harness.Eventually(a.deadline(), func() bool {
			w, err := harness.DialWire(addr)
			if err != nil {
				last = err
				return false
			}
			defer w.Close()
			m, err := w.Metadata(a.topic)
			switch {
			case err != nil:
				last = err
			case m.Topics[0].Code != 0:
				last = harness.ErrorCode(m.Topics[0].Code)
			case len(m.Topics[0].Partitions) != partitions:
				last = fmt.Errorf("it has %d partitions, want %d", len(m.Topics[0].Partitions), partitions)
			default:
				return true
			}
			return false
		})
		if err != nil {
			return fmt.Errorf("%s does not serve the topic: %w", addr, last)
		}
	}
	return nil
}

// ends gives the end of each partition.
func (a *attempt) ends(ctx context.Context) (map[int32]int64, error) {
	out := map[int32]int64{}
	for p := range int32(partitions) {
		var last error
		err := harness.Eventually(a.deadline(), func() bool {
			out[p], last = harness.EndOffset(ctx, a.driverAddr, a.topic, p, -1)
			return last == nil || ctx.Err() != nil
		})
		if err = errors.Join(err, last); err != nil {
			return nil, fmt.Errorf("end of partition %d: %w", p, err)
		}
	}
	return out, nil
}

// cross reads what the client wrote with franz-go of today and, as far as a client
// of 0.8 can (it knows no zstd), with franz-go held to 0.8.
func (a *attempt) cross(ctx context.Context, written []record, codecs []string) error {
	modern := harness.Seeds(a.driverAddr)
	if err := a.crossRead(ctx, modern, written, rules{headers: !a.noHeaders}); err != nil {
		return fmt.Errorf("read by franz-go: %w", err)
	}
	for _, c := range codecs {
		// Toward clients of 0.8 Kafka leaves lz4 as it is, which franz-go cannot read.
		if c == "zstd" || c == "lz4" && a.against != "" {
			return nil
		}
	}
	if err := a.crossRead(ctx, harness.Old(a.driverAddr), written, rules{}); err != nil {
		return fmt.Errorf("read by a client of 0.8: %w", err)
	}
	return nil
}

func (a *attempt) crossRead(ctx context.Context, opts []kgo.Opt, written []record, r rules) error {
	a.trace("cross-read")
	ctx, cancel := context.WithTimeout(ctx, a.deadline())
	defer cancel()
	ends, err := a.ends(ctx)
	if err != nil {
		return err
	}
	from, want := map[int32]kgo.Offset{}, 0
	for p, end := range ends {
		from[p] = kgo.NewOffset().AtStart()
		want += int(end)
	}
	cl, err := kgo.NewClient(append(opts, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{a.topic: from}))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	var got []record
	for len(got) < want {
		f := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("%d of %d records: %w (%v)", len(got), want, ctx.Err(), f.Err())
		}
		f.EachRecord(func(k *kgo.Record) {
			g := record{partition: k.Partition, offset: k.Offset, key: string(k.Key), value: string(k.Value)}
			for _, h := range k.Headers {
				g.headers += h.Key + "=" + string(h.Value)
			}
			got = append(got, g)
		})
	}
	own := a.rules(false)
	r.doubled, r.unordered = own.doubled, own.unordered
	_, err = check(written, got, r)
	return err
}
