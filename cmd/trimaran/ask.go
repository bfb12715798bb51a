package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ask sends one request to the brokers in turn until one answers or ctx ends.
// Any of them will do: the cluster is one logical broker, so there is neither a
// controller nor a leader to look for. The client does not try again by itself,
// which it would do at the same broker.
func ask[R kmsg.Response](ctx context.Context, b *brokers, cl *kgo.Client, req kmsg.Request) (R, error) {
	var none R
	var last error
	for {
		seeds := cl.SeedBrokers()
		for at := range b.inTurn(len(seeds)) {
			turn, cancel := b.turn(ctx)
			resp, err := seeds[at].Request(turn, req)
			cancel()
			if err == nil {
				b.answered.Store(int64(at))
				return resp.(R), nil
			}
			// that the time is over tells less than what came before
			if last == nil || !timedOut(err) {
				last = err
			}
			if !retriable(err) {
				return none, err
			}
		}
		select {
		case <-ctx.Done():
			return none, b.unreachable(last)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func timedOut(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// retriable reports whether another broker, or the same a little later, may do
// better. A version that is not served stays unserved.
func retriable(err error) bool {
	if e := (*kerr.Error)(nil); errors.As(err, &e) {
		return e.Retriable
	}
	return true
}

// partitionsOf gives the number of partitions of every topic, without creating any.
func partitionsOf(ctx context.Context, b *brokers, cl *kgo.Client) (map[string]int32, error) {
	req := kmsg.NewPtrMetadataRequest()
	// All topics: from version 1 on a null list, in version 0 an empty one, and
	// that is how kmsg writes null there.
	req.Topics = nil
	resp, err := ask[*kmsg.MetadataResponse](ctx, b, cl, req)
	if err != nil {
		return nil, err
	}
	topics := map[string]int32{}
	for _, t := range resp.Topics {
		if t.Topic != nil {
			topics[*t.Topic] = int32(len(t.Partitions))
		}
	}
	return topics, nil
}

// partitionCount gives the number of partitions of a topic, at least 1.
func partitionCount(ctx context.Context, b *brokers, cl *kgo.Client, topic string) (int32, error) {
	topics, err := partitionsOf(ctx, b, cl)
	if err == nil && topics[topic] == 0 {
		err = fmt.Errorf("topic %s: there is none of that name; 'trimaran topic list' shows all", topic)
	}
	return topics[topic], err
}

// The timestamps of ListOffsets that stand for the two ends of a log.
const (
	latest   = int64(-1)
	earliest = int64(-2)
)

// listOffsets gives the earliest or latest offset of partitions of a topic. It
// asks again where a partition has no leader for the moment, until ctx ends.
func listOffsets(ctx context.Context, b *brokers, cl *kgo.Client, topic string, partitions []int32, which int64) (map[int32]int64, error) {
	found := map[int32]int64{}
	var last error // of a partition; it tells more than that the time is over
	for {
		req := kmsg.NewPtrListOffsetsRequest()
		req.ReplicaID = -1
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic = topic
		for _, p := range partitions {
			if _, ok := found[p]; ok {
				continue
			}
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rp.Partition, rp.Timestamp, rp.MaxNumOffsets, rp.CurrentLeaderEpoch = p, which, 1, -1
			rt.Partitions = append(rt.Partitions, rp)
		}
		if len(rt.Partitions) == 0 {
			return found, nil
		}
		req.Topics = append(req.Topics, rt)
		resp, err := ask[*kmsg.ListOffsetsResponse](ctx, b, cl, req)
		if err != nil && last != nil && ctx.Err() != nil {
			return nil, last
		}
		if err != nil {
			return nil, err
		}
		last = nil
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					last = fmt.Errorf("partition %d of %s: %w; 'trimaran cluster status' shows which nodes hold it", p.Partition, topic, err)
					if !kerr.IsRetriable(err) {
						return nil, last
					}
					continue
				}
				found[p.Partition] = p.Offset
				if len(p.OldStyleOffsets) > 0 { // version 0
					found[p.Partition] = p.OldStyleOffsets[0]
				}
			}
		}
		if last == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return nil, last
		case <-time.After(200 * time.Millisecond):
		}
	}
}
