package harness

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// Old gives the options that hold franz-go to what a 0.8.0 client speaks.
// Idempotent writes need a producer id, which 0.8 does not have.
func Old(seeds ...string) []kgo.Opt {
	return append(Seeds(seeds...),
		kgo.MaxVersions(kversion.V0_8_0()),
		kgo.DisableIdempotentWrite(),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.MetadataMinAge(50*time.Millisecond),
		kgo.RetryBackoffFn(func(n int) time.Duration { return min(time.Duration(n)*50*time.Millisecond, 500*time.Millisecond) }),
	)
}

// CreateTopic creates a topic and returns when every running node serves it.
// The node that took the request knows the topic when it answers; the others
// follow in their own time, and until then tell a client to try again, which a
// bare connection does not do by itself.
func (c *Cluster) CreateTopic(ctx context.Context, topic string, partitions int32, rf int16) error {
	for _, n := range c.Nodes {
		if n.Running() {
			if err := CreateTopic(ctx, n.Driver(), topic, partitions, rf); err != nil {
				return err
			}
			break
		}
	}
	return c.WaitTopic(topic, partitions)
}

// WaitTopic waits until every running node serves a topic, that somebody has created, with so many
// partitions.
func (c *Cluster) WaitTopic(topic string, partitions int32) error {
	for _, n := range c.Nodes {
		if !n.Running() {
			continue
		}
		err := Again(n.Driver(), readyWithin, func(w *Wire) error {
			m, err := w.Metadata(topic)
			switch {
			case err != nil:
				return err
			case m.Topics[0].Code != 0:
				return ErrorCode(m.Topics[0].Code)
			case len(m.Topics[0].Partitions) != int(partitions):
				return fmt.Errorf("%w: %d partitions", errNotYet, len(m.Topics[0].Partitions))
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s does not serve topic %s: %w", n.ID, topic, err)
		}
	}
	return nil
}

// CreateTopic creates a topic through CreateTopics and returns when the node can use it. It asks
// the given node itself: franz-go's own way asks the controller, which Metadata v0 does not name.
func CreateTopic(ctx context.Context, addr, topic string, partitions int32, rf int16) error {
	cl, err := kgo.NewClient(Seeds(addr)...)
	if err != nil {
		return err
	}
	defer cl.Close()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 20_000
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = topic, partitions, rf
	req.Topics = append(req.Topics, t)
	return again(ctx, "create topic "+topic, kerr.TopicAlreadyExists, func() error {
		answer, err := cl.SeedBrokers()[0].Request(ctx, req)
		if err != nil {
			return err
		}
		for _, t := range answer.(*kmsg.CreateTopicsResponse).Topics {
			if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
				return err
			}
		}
		return nil
	})
}

// again asks until there is no error after which a client asks again. When the answer to an attempt
// did not come, the one to the next may be that it is done.
func again(ctx context.Context, what string, done error, ask func() error) error {
	var last error
	unknown := false
	err := Eventually(readyWithin, func() bool {
		err := ask()
		if unknown && errors.Is(err, done) {
			err = nil
		}
		last = err
		var code *kerr.Error
		answered := errors.As(err, &code)
		if err == nil || ctx.Err() != nil || answered && !Retriable(code) {
			return true
		}
		unknown = unknown || !answered || code == kerr.RequestTimedOut
		return false
	})
	if err == nil {
		err = last
	} else {
		err = fmt.Errorf("%w: %w", err, last)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// DeleteTopic deletes a topic and returns when no running node lists it.
func (c *Cluster) DeleteTopic(ctx context.Context, topic string) error {
	asked := false
	for _, n := range c.Nodes {
		if !n.Running() {
			continue
		}
		cl, err := kgo.NewClient(kgo.SeedBrokers(n.Addr()))
		if err != nil {
			return err
		}
		defer cl.Close()
		if !asked {
			req := kmsg.NewPtrDeleteTopicsRequest()
			req.TimeoutMillis = 20_000
			req.TopicNames = []string{topic} // up to version 5
			named := kmsg.NewDeleteTopicsRequestTopic()
			named.Topic = &topic
			req.Topics = append(req.Topics, named)
			err := again(ctx, "delete topic "+topic, kerr.UnknownTopicOrPartition, func() error {
				answer, err := cl.SeedBrokers()[0].Request(ctx, req)
				if err != nil {
					return err
				}
				topics := answer.(*kmsg.DeleteTopicsResponse).Topics
				if len(topics) != 1 {
					return fmt.Errorf("an answer about %d topics", len(topics))
				}
				return kerr.ErrorForCode(topics[0].ErrorCode)
			})
			if err != nil {
				return err
			}
			asked = true
		}
		err = Eventually(20*time.Second, func() bool {
			w, err := DialWire(n.Addr())
			if err != nil {
				return false
			}
			defer w.Close()
			m, err := w.Metadata()
			if err != nil {
				return false
			}
			return !slices.ContainsFunc(m.Topics, func(t TopicMetadata) bool { return t.Name == topic })
		})
		if err != nil {
			return fmt.Errorf("%s still lists topic %s: %w", n.ID, topic, err)
		}
	}
	return nil
}

// ReadAll reads a topic's partition from the start until `until` records came,
// over the options given (a client of its own), at most until ctx ends.
func ReadAll(ctx context.Context, opts []kgo.Opt, topic string, partition int32, until int) ([]*kgo.Record, error) {
	opts = append(opts, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		topic: {partition: kgo.NewOffset().AtStart()},
	}))
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var out []*kgo.Record
	for len(out) < until {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return out, fmt.Errorf("%d of %d records of %s-%d: %w (%v)", len(out), until, topic, partition, ctx.Err(), fetches.Err())
		}
		fetches.EachRecord(func(r *kgo.Record) { out = append(out, r) })
	}
	return out, nil
}

// EndOffset asks for the latest offset (ListOffsets v0, -1) and the earliest (-2).
func EndOffset(ctx context.Context, addr, topic string, partition int32, timestamp int64) (int64, error) {
	cl, err := kgo.NewClient(Old(addr)...)
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewListOffsetsRequestTopicPartition()
	rp.Partition, rp.Timestamp, rp.MaxNumOffsets = partition, timestamp, 1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return 0, err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return 0, err
			}
			if len(p.OldStyleOffsets) > 0 {
				return p.OldStyleOffsets[0], nil
			}
		}
	}
	return 0, errors.New("no offset in the answer")
}
