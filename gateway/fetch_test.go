package gateway

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
)

// min_bytes counts over all partitions: what one brings is not enough, and is
// there when the other has more.
func TestMinBytesCountsOverPartitions(t *testing.T) {
	f := newFake(t, "events:2")
	inBubble(t, func(cfg *Config) { cfg.Cluster = f }, func(t *testing.T, p *pipes, _ *Server) {
		reader, writer := &client{p.dial(), t}, &client{p.dial(), t}
		defer reader.Close()
		defer writer.Close()
		began := time.Now()
		req := fetchOf("events", 0, 0, time.Minute, 60, 1000) // two messages of 31 bytes
		req.Topics[0].Partitions = append(req.Topics[0].Partitions, kmsg.FetchRequestTopicPartition{Partition: 1, PartitionMaxBytes: 1000})
		reader.send(encode(1, req))
		time.Sleep(time.Second)
		writer.do(produce(-1, "events", 0, "12345"))
		time.Sleep(time.Second)
		writer.do(produce(-1, "events", 1, "67890"))
		resp := kmsg.NewPtrFetchResponse()
		reader.want(1, resp)
		if time.Since(began) != 2*time.Second {
			t.Errorf("answered after %v", time.Since(began))
		}
		for i, want := range []string{"12345", "67890"} {
			if got := values(t, resp.Topics[0].Partitions[i].RecordBatches); !slices.Equal(got, []string{want}) {
				t.Errorf("partition %d: %q", i, got)
			}
		}
	})
}

// Who waits for more of the same partition gets it all, once it is enough.
func TestMinBytesOfOnePartition(t *testing.T) {
	f := newFake(t, "events")
	inBubble(t, func(cfg *Config) { cfg.Cluster = f }, func(t *testing.T, p *pipes, _ *Server) {
		reader, writer := &client{p.dial(), t}, &client{p.dial(), t}
		defer reader.Close()
		defer writer.Close()
		reader.send(encode(1, fetchOf("events", 0, 0, time.Minute, 90, 1000)))
		for i := range 3 {
			time.Sleep(time.Second)
			writer.do(produce(-1, "events", 0, fmt.Sprintf("%05d", i)))
		}
		resp := kmsg.NewPtrFetchResponse()
		reader.want(1, resp)
		if got := values(t, resp.Topics[0].Partitions[0].RecordBatches); len(got) != 3 {
			t.Errorf("%q", got)
		}
	})
}

func TestMaxWaitEndsAndIsBounded(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, p *pipes, _ *Server) {
		c := &client{p.dial(), t}
		defer c.Close()
		for _, test := range []struct{ wait, want time.Duration }{
			{0, 0}, {-time.Second, 0}, {500 * time.Millisecond, 500 * time.Millisecond}, {24 * time.Hour, maxWait},
		} {
			began := time.Now()
			if resp := c.do(fetchOf("events", 0, 0, test.wait, 1, 100)).(*kmsg.FetchResponse); resp.Topics[0].Partitions[0].ErrorCode != 0 {
				t.Errorf("%+v", resp)
			}
			if got := time.Since(began); got != test.want {
				t.Errorf("max wait %v: answered after %v", test.wait, got)
			}
		}
	})
}

// A partition whose node does not answer is given up after readGrace; the others
// come with their records.
func TestHungPartitionHoldsNobodyUp(t *testing.T) {
	f := newFake(t, "events:20")
	f.read = func(ctx context.Context, p fsm.PartitionID, from fsm.Offset, max int) (fsm.Slice, error) {
		if p.Partition%2 == 1 {
			<-ctx.Done()
			return fsm.Slice{}, ctx.Err()
		}
		return f.doRead(p, from, max)
	}
	inBubble(t, func(cfg *Config) { cfg.Cluster = f }, func(t *testing.T, p *pipes, _ *Server) {
		c := &client{p.dial(), t}
		defer c.Close()
		req := fetchOf("events", 0, 0, time.Minute, 1, 1000)
		for i := range int32(20) {
			c.do(produce(-1, "events", i, "x"))
			if i > 0 {
				req.Topics[0].Partitions = append(req.Topics[0].Partitions, kmsg.FetchRequestTopicPartition{Partition: i, PartitionMaxBytes: 1000})
			}
		}
		began := time.Now()
		resp := c.do(req).(*kmsg.FetchResponse)
		if time.Since(began) > readGrace {
			t.Errorf("answered after %v", time.Since(began))
		}
		for i, part := range resp.Topics[0].Partitions {
			want, records := int16(0), 1
			if i%2 == 1 {
				want, records = 6, 0
			}
			if part.ErrorCode != want || len(values(t, part.RecordBatches)) != records {
				t.Errorf("partition %d: %+v", i, part)
			}
		}
	})
}

// A topic that is deleted while somebody waits at its end says so.
func TestDeletedWhileWaiting(t *testing.T) {
	f := newFake(t, "events", "other")
	waiting := make(chan struct{})
	deleted := make(chan struct{})
	f.await = func(ctx context.Context, p fsm.PartitionID, from fsm.Offset) error {
		close(waiting)
		<-deleted
		return fsm.ErrUnknownTopicOrPartition
	}
	g := serve(t, f, nil)
	c := g.dial()
	c.send(encode(1, fetchOf("events", 0, 0, time.Minute, 1, 100)))
	<-waiting
	resp := g.dial().do(&kmsg.DeleteTopicsRequest{TopicNames: []string{"events"}, TimeoutMillis: 1000}).(*kmsg.DeleteTopicsResponse)
	if resp.Topics[0].ErrorCode != 0 {
		t.Fatalf("%+v", resp)
	}
	close(deleted)
	fetched := kmsg.NewPtrFetchResponse()
	c.want(1, fetched)
	if code := fetched.Topics[0].Partitions[0].ErrorCode; code != 3 {
		t.Errorf("code %d", code)
	}
}

// An answer is bounded, whatever a client asks for, and so is what all answers
// take: with the memory used up, fetches get less, not nothing.
func TestFetchedBytesAreBounded(t *testing.T) {
	f := newFake(t, "events:8")
	g := serve(t, f, func(cfg *Config) { cfg.MaxRequestBytes, cfg.MaxInflightBytes = 1<<20, 1<<20 })
	c := g.dial()
	req := &kmsg.FetchRequest{MinBytes: 1, Topics: []kmsg.FetchRequestTopic{{Topic: "events"}}}
	for i := range int32(8) {
		for range 2 {
			c.do(produce(-1, "events", i, strings.Repeat("x", 300<<10)))
		}
		req.Topics[0].Partitions = append(req.Topics[0].Partitions, kmsg.FetchRequestTopicPartition{Partition: i, PartitionMaxBytes: 1 << 30})
	}
	size := func() (n int) {
		for _, p := range c.do(req).(*kmsg.FetchResponse).Topics[0].Partitions {
			if p.ErrorCode != 0 {
				t.Errorf("%+v", p.ErrorCode)
			}
			n += len(p.RecordBatches)
		}
		return n
	}
	if n := size(); n > 1<<20 || n < 600<<10 {
		t.Errorf("%d bytes, want up to 1 MiB", n)
	}
	// It is given back when the answer is sent, which is a moment after it was read here.
	eventually(t, "answers hold memory after they were sent", func() bool { return g.answerBytes.try(1 << 20) })
	if n := size(); n == 0 || n > 8*leanRead {
		t.Errorf("%d bytes with no memory left, want a little", n)
	}
	g.answerBytes.release(1 << 20)
	eventually(t, "requests hold memory after their answers", func() bool { return g.requestBytes.held.Load() == 0 })
}

// eventually waits for a condition that nothing tells of; otherwise says what is wrong then.
func eventually(t *testing.T, otherwise string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(otherwise)
		}
	}
}
