package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
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
		return outcome.ErrUnknownTopicOrPartition
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
	eventually(t, "answers hold memory after they were sent", func() bool { return g.answerBytes.Try(1 << 20) })
	if n := size(); n == 0 || n > 8*leanRead {
		t.Errorf("%d bytes with no memory left, want a little", n)
	}
	g.answerBytes.Release(1 << 20)
	eventually(t, "requests hold memory after their answers", func() bool { return g.sessions.Requests.Held() == 0 })
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

// Who waits for much has each record read once, not all of them again for each that
// comes; and has them as if they had been read at once.
func TestWaitingReadsOnlyWhatIsNew(t *testing.T) {
	f := newFake(t, "events:2")
	var read atomic.Int64
	f.read = func(ctx context.Context, p fsm.PartitionID, from fsm.Offset, maxBytes int) (fsm.Slice, error) {
		slice, err := f.doRead(p, from, maxBytes)
		read.Add(int64(len(slice.Batches)))
		return slice, err
	}
	inBubble(t, func(cfg *Config) { cfg.Cluster = f }, func(t *testing.T, p *pipes, _ *Server) {
		reader, writer := &client{p.dial(), t}, &client{p.dial(), t}
		defer reader.Close()
		defer writer.Close()
		next := int64(0)
		for _, version := range []int16{0, 2, 3, 4, 11} {
			read.Store(0)
			req := fetchOf("events", 0, next, time.Minute, 10_000, 100_000)
			req.Version, req.MaxBytes = version, 100_000
			req.Topics[0].Partitions = append(req.Topics[0].Partitions, kmsg.FetchRequestTopicPartition{Partition: 1, FetchOffset: next, PartitionMaxBytes: 100_000, CurrentLeaderEpoch: -1})
			req.Topics[0].Partitions[0].CurrentLeaderEpoch = -1
			reader.send(encode(1, req))
			const rounds = 50
			for i := range rounds {
				writer.do(produce(-1, "events", 0, fmt.Sprintf("%05d", i)))
				writer.do(produce(-1, "events", 1, fmt.Sprintf("%05d", i)))
				synctest.Wait()
			}
			if n := read.Load(); n > 2*rounds*100 {
				t.Errorf("version %d: %d bytes are read for %d records", version, n, 2*rounds)
			}
			time.Sleep(time.Minute)
			waited := req.ResponseKind().(*kmsg.FetchResponse)
			reader.want(1, waited)
			req.MaxWaitMillis = 0
			at := reader.do(req).(*kmsg.FetchResponse)
			for i, got := range waited.Topics[0].Partitions {
				once := at.Topics[0].Partitions[i]
				if got.ErrorCode != 0 || got.HighWatermark != once.HighWatermark || !bytes.Equal(got.RecordBatches, once.RecordBatches) {
					t.Errorf("version %d, partition %d: error %d, %d bytes to %d, at once %d to %d", version, i, got.ErrorCode, len(got.RecordBatches), got.HighWatermark, len(once.RecordBatches), once.HighWatermark)
				}
			}
			next += rounds
		}
	})
}

// Who waits, and gets what its version cannot have, is told when it asks for that: what
// stands in front of it comes first.
func TestWhatCannotBeHadComesWhileWaiting(t *testing.T) {
	f := newFake(t, "events")
	inBubble(t, func(cfg *Config) { cfg.Cluster = f }, func(t *testing.T, p *pipes, _ *Server) {
		reader, writer := &client{p.dial(), t}, &client{p.dial(), t}
		defer reader.Close()
		defer writer.Close()
		from := int64(0)
		for _, version := range []int16{0, 3, 4} {
			req := fetchOf("events", 0, from, time.Minute, 10_000, 100_000)
			req.Version, req.MaxBytes = version, 100_000
			reader.send(encode(1, req))
			writer.do(produce(-1, "events", 0, "a"))
			synctest.Wait()
			if _, err := f.doAppend(f.id("events", 0), asBatches(zstdBatch(t, "b"))); err != nil {
				t.Fatal(err)
			}
			resp := req.ResponseKind().(*kmsg.FetchResponse)
			reader.want(1, resp)
			if got := resp.Topics[0].Partitions[0]; got.ErrorCode != 0 || len(got.RecordBatches) == 0 {
				t.Errorf("version %d, in front of it: error %d, %d bytes", version, got.ErrorCode, len(got.RecordBatches))
			}
			req.Topics[0].Partitions[0].FetchOffset = from + 1
			want := kerr.UnsupportedCompressionType.Code
			if version == 0 {
				want = kerr.CorruptMessage.Code
			}
			if got := reader.do(req).(*kmsg.FetchResponse).Topics[0].Partitions[0]; got.ErrorCode != want {
				t.Errorf("version %d, that itself: error %d", version, got.ErrorCode)
			}
			from += 2
		}
	})
}

// A partition that cannot be read any more while others are waited for has nothing of
// what it had: the offsets that an answer with an error has mean nothing.
func TestAPartitionIsLostWhileWaiting(t *testing.T) {
	f := newFake(t, "events:2")
	var lost atomic.Bool
	f.read = func(ctx context.Context, p fsm.PartitionID, from fsm.Offset, maxBytes int) (fsm.Slice, error) {
		if lost.Load() && p.Partition == 0 {
			return fsm.Slice{}, outcome.ErrNotLeader
		}
		return f.doRead(p, from, maxBytes)
	}
	inBubble(t, func(cfg *Config) { cfg.Cluster = f }, func(t *testing.T, p *pipes, s *Server) {
		reader, writer := &client{p.dial(), t}, &client{p.dial(), t}
		defer reader.Close()
		defer writer.Close()
		req := fetchOf("events", 0, 0, time.Minute, 10_000, 100_000)
		req.Version, req.MaxBytes = 4, 100_000
		req.Topics[0].Partitions = append(req.Topics[0].Partitions, kmsg.FetchRequestTopicPartition{Partition: 1, PartitionMaxBytes: 100_000})
		reader.send(encode(1, req))
		writer.do(produce(-1, "events", 0, "a"))
		writer.do(produce(-1, "events", 1, "b"))
		synctest.Wait()
		lost.Store(true)
		writer.do(produce(-1, "events", 0, "c"))
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		reader.want(1, resp)
		gone, other := resp.Topics[0].Partitions[0], resp.Topics[0].Partitions[1]
		if gone.ErrorCode != kerr.NotLeaderForPartition.Code || gone.HighWatermark != -1 || len(gone.RecordBatches) != 0 || other.ErrorCode != 0 || len(other.RecordBatches) == 0 {
			t.Errorf("%+v, %+v", gone, other)
		}
		reader.do(metadataOf("events")) // the fetch is sent
		if held := s.answerBytes.Held(); held != 0 {
			t.Errorf("%d bytes are held for answers", held)
		}
	})
}

// A client that asks again as soon as it is told of a store that is down is told so ten times a
// second; what others write meanwhile comes at once, and so does any other error.
func TestAStoreThatIsDownIsToldOfInPeace(t *testing.T) {
	f := newFake(t, "events:2")
	var fails error = outcome.ErrRemote
	f.read = func(ctx context.Context, p fsm.PartitionID, from fsm.Offset, maxBytes int) (fsm.Slice, error) {
		if p.Partition == 0 {
			return fsm.Slice{}, fmt.Errorf("%w: the store is down", fails)
		}
		return f.doRead(p, from, maxBytes)
	}
	inBubble(t, func(cfg *Config) { cfg.Cluster = f }, func(t *testing.T, p *pipes, _ *Server) {
		reader, writer := &client{p.dial(), t}, &client{p.dial(), t}
		defer reader.Close()
		defer writer.Close()
		for _, version := range []int16{0, 3, 4, 11} {
			req := fetchOf("events", 0, 0, time.Minute, 1, 1000)
			req.Version, req.MaxBytes = version, 100_000
			req.Topics[0].Partitions[0].CurrentLeaderEpoch = -1
			for _, fails = range []error{outcome.ErrRemote, outcome.ErrStorage} {
				for _, wait := range []time.Duration{0, 30 * time.Millisecond, time.Minute} {
					req.MaxWaitMillis = int32(wait.Milliseconds())
					began := time.Now()
					got := reader.do(req).(*kmsg.FetchResponse).Topics[0].Partitions[0]
					if took := time.Since(began); took != min(wait, storagePause) || got.ErrorCode == 0 || len(got.RecordBatches) > 0 {
						t.Errorf("version %d, %v, a wait of %v: error %d after %v", version, fails, wait, got.ErrorCode, took)
					}
				}
			}
			fails = outcome.ErrOffsetOutOfRange
			began := time.Now()
			if got := reader.do(req).(*kmsg.FetchResponse).Topics[0].Partitions[0]; got.ErrorCode != kerr.OffsetOutOfRange.Code || time.Since(began) != 0 {
				t.Errorf("version %d, another error: %d after %v", version, got.ErrorCode, time.Since(began))
			}
			fails = outcome.ErrStorage
			log, err := f.log(f.id("events", 1))
			if err != nil {
				t.Fatal(err)
			}
			req.Topics[0].Partitions = append(req.Topics[0].Partitions, kmsg.FetchRequestTopicPartition{Partition: 1, FetchOffset: int64(log.next), PartitionMaxBytes: 1000, CurrentLeaderEpoch: -1})
			began = time.Now()
			reader.send(encode(1, req))
			time.Sleep(storagePause / 4)
			writer.do(produce(-1, "events", 1, "new"))
			resp := req.ResponseKind().(*kmsg.FetchResponse)
			reader.want(1, resp)
			if at := resp.Topics[0].Partitions; at[0].ErrorCode == 0 || at[1].ErrorCode != 0 || len(at[1].RecordBatches) == 0 || time.Since(began) != storagePause/4 {
				t.Errorf("version %d, what is new beside it: errors %d and %d, %d bytes after %v", version, at[0].ErrorCode, at[1].ErrorCode, len(at[1].RecordBatches), time.Since(began))
			}
		}
	})
}

// Message sets are made of few batches at once, since a small batch may unpack to a
// hundred megabytes. The time that this takes is not held against the partitions that are
// read after it, and a consumer that takes record batches does not wait.
func TestFewBatchesAreConvertedAtOnce(t *testing.T) {
	f := newFake(t, "events:3")
	f.read = func(ctx context.Context, p fsm.PartitionID, from fsm.Offset, maxBytes int) (fsm.Slice, error) {
		if err := ctx.Err(); err != nil {
			return fsm.Slice{}, err
		}
		return f.doRead(p, from, maxBytes)
	}
	inBubble(t, func(cfg *Config) { cfg.Cluster, cfg.MaxRequestBytes = f, 1000 }, func(t *testing.T, p *pipes, s *Server) {
		c, other := &client{p.dial(), t}, &client{p.dial(), t}
		defer c.Close()
		defer other.Close()
		for partition := range int32(3) {
			c.do(produce(-1, "events", partition, "12345"))
		}
		all := int64(2 * runtime.GOMAXPROCS(0))
		if !s.conversions.TryAcquire(all) {
			t.Fatal("something is being converted already")
		}
		for _, version := range []int16{0, 2, 3} {
			// one by one, since 1000 is all there is
			req := fetchOf("events", 0, 0, time.Minute, 1, 900)
			req.Version, req.MaxBytes = version, 1000
			for partition := range int32(2) {
				req.Topics[0].Partitions = append(req.Topics[0].Partitions, kmsg.FetchRequestTopicPartition{Partition: 1 + partition, PartitionMaxBytes: 900})
			}
			began := time.Now()
			c.send(encode(1, req))
			synctest.Wait()
			modern := fetchOf("events", 0, 0, 0, 1, 900)
			modern.Version, modern.MaxBytes = 4, 1000
			if got := other.do(modern).(*kmsg.FetchResponse).Topics[0].Partitions[0]; got.ErrorCode != 0 || len(got.RecordBatches) == 0 || time.Since(began) != 0 {
				t.Errorf("record batches, which need no conversion: %+v after %v", got, time.Since(began))
			}
			_ = c.SetReadDeadline(began.Add(10 * time.Second))
			if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("version %d: %d bytes, %v, although nothing could be converted", version, n, err)
			}
			_ = c.SetReadDeadline(time.Time{})
			s.conversions.Release(all)
			resp := req.ResponseKind().(*kmsg.FetchResponse)
			c.want(1, resp)
			if took := time.Since(began); took != 10*time.Second {
				t.Errorf("version %d: answered after %v", version, took)
			}
			for _, got := range resp.Topics[0].Partitions {
				if got.ErrorCode != 0 || len(got.RecordBatches) == 0 {
					t.Errorf("version %d, partition %d: error %d, %d bytes", version, got.Partition, got.ErrorCode, len(got.RecordBatches))
				}
			}
			if !s.conversions.TryAcquire(all) {
				t.Fatal("a conversion is not over")
			}
		}
		s.conversions.Release(all)
	})
}
