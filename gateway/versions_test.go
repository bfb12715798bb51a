package gateway

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// ask sends a request of any version and reads the answer.
func (c *client) ask(req kmsg.Request) kmsg.Response {
	c.t.Helper()
	c.send(encode(9, req))
	b, err := c.frame()
	if err != nil {
		c.t.Fatal(err)
	}
	resp := req.ResponseKind()
	body := b[8:]
	if resp.IsFlexible() && req.Key() != int16(kmsg.ApiVersions) {
		body = body[1:] // the header's tagged fields
	}
	if err := resp.ReadFrom(body); err != nil {
		c.t.Fatalf("%s v%d: %v", kmsg.NameForKey(req.Key()), req.GetVersion(), err)
	}
	return resp
}

// recordBatch makes what a producer of today sends.
func recordBatch(values ...string) []byte {
	batches, _, err := kafkaproto.FromMessageSet(messageSet(values...), kafkaproto.Limits{})
	if err != nil {
		panic(err)
	}
	return batches[0].Bytes()
}

func zstdBatch(t *testing.T, values ...string) []byte {
	t.Helper()
	b := recordBatch(values...)
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	b = w.EncodeAll(b[kafkaproto.BatchHeaderSize:], b[:kafkaproto.BatchHeaderSize:kafkaproto.BatchHeaderSize])
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	b[22] = byte(kafkaproto.Zstd)
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func produceAt(version int16, f *fakeCluster, topic string, partition int32, records []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = version, -1, 10_000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.TopicID = topic, f.id(topic, 0).Topic
	rt.Partitions = []kmsg.ProduceRequestTopicPartition{{Partition: partition, Records: records}}
	req.Topics = append(req.Topics, rt)
	return req
}

func fetchAt(version int16, f *fakeCluster, from int64, maxBytes int32, topics ...string) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MinBytes, req.MaxBytes = version, 1, maxBytes
	for _, topic := range topics {
		rt := kmsg.NewFetchRequestTopic()
		rt.Topic, rt.TopicID = topic, f.id(topic, 0).Topic
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.FetchOffset, rp.PartitionMaxBytes = from, 1<<20
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
	}
	return req
}

// Every served version of every API is answered, and the answer can be read.
func TestEveryVersionIsAnswered(t *testing.T) {
	f := newFake(t, "events")
	c := serve(t, f, nil).dial()
	for _, api := range kafkaproto.Served {
		for v := api.Min; v <= api.Max; v++ {
			req := kmsg.RequestForKey(int16(api.Key))
			req.SetVersion(v)
			if r, ok := req.(*kmsg.ApiVersionsRequest); ok {
				r.ClientSoftwareName, r.ClientSoftwareVersion = "test", "1"
			}
			if r, ok := req.(*kmsg.ProduceRequest); ok {
				r.Acks = -1
			}
			if resp := c.ask(req); resp.GetVersion() != v {
				t.Errorf("%s v%d: answer in version %d", api.Name, v, resp.GetVersion())
			}
		}
	}
}

// What any version of Produce takes, any version of Fetch gives.
func TestAnyProduceReachesAnyFetch(t *testing.T) {
	f := newFake(t, "events")
	c := serve(t, f, nil).dial()
	produced, _ := kafkaproto.Lookup(0)
	fetched, _ := kafkaproto.Lookup(1)
	var want []string
	for v := range produced.Max + 1 {
		value := fmt.Sprint("from ", v)
		want = append(want, value)
		set := messageSet(value)
		if v >= 3 {
			set = recordBatch(value)
		}
		out := c.ask(produceAt(v, f, "events", 0, set)).(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		if out.ErrorCode != 0 || out.BaseOffset != int64(v) {
			t.Fatalf("produce v%d: %+v", v, out)
		}
	}
	for v := range fetched.Max + 1 {
		part := c.ask(fetchAt(v, f, 0, 1<<20, "events")).(*kmsg.FetchResponse).Topics[0].Partitions[0]
		if part.ErrorCode != 0 || part.HighWatermark != int64(len(want)) {
			t.Fatalf("fetch v%d: %+v", v, part)
		}
		set := part.RecordBatches
		if v >= 4 {
			var err error
			if set, err = kafkaproto.ToMessageSet(nil, set, 0, 0, 1<<20); err != nil {
				t.Fatal(err)
			}
		} else if magic := int8(set[16]); magic != int8(v/2) {
			t.Errorf("fetch v%d: magic %d", v, magic)
		}
		if v < 2 || v >= 4 {
			if got := values(t, set); !slices.Equal(got, want) {
				t.Errorf("fetch v%d: %q", v, got)
			}
		}
	}
}

// zstd reaches who can know it and is refused to who cannot; what stands in front
// of it is given.
func TestZstdTowardOldClients(t *testing.T) {
	f := newFake(t, "events")
	c := serve(t, f, nil).dial()
	for _, b := range [][]byte{recordBatch("plain"), zstdBatch(t, "packed")} {
		if out := c.ask(produceAt(9, f, "events", 0, b)).(*kmsg.ProduceResponse).Topics[0].Partitions[0]; out.ErrorCode != 0 {
			t.Fatalf("%+v", out)
		}
	}
	for v := range int16(19) {
		for from := range int64(2) {
			part := c.ask(fetchAt(v, f, from, 1<<20, "events")).(*kmsg.FetchResponse).Topics[0].Partitions[0]
			wantCode := int16(0)
			if from == 1 && v < 10 {
				wantCode = kerr.UnsupportedCompressionType.Code
			}
			if from == 1 && v == 0 {
				wantCode = kerr.CorruptMessage.Code // 0.8 knows no better
			}
			batches := 0
			if v >= 4 {
				for range kafkaproto.Batches(part.RecordBatches) {
					batches++
				}
			}
			if part.ErrorCode != wantCode || v >= 10 && batches != 2-int(from) || v < 10 && v >= 4 && batches != 1-int(from) || from == 0 && len(part.RecordBatches) == 0 {
				t.Errorf("fetch v%d from %d: code %d, %d batches, %d bytes", v, from, part.ErrorCode, batches, len(part.RecordBatches))
			}
		}
	}
}

// The topic's choice replaces the producer's timestamps, in all formats.
func TestLogAppendTime(t *testing.T) {
	f := newFake(t)
	if err := f.doCreate(fsm.TopicSpec{Name: "stamped", Partitions: 1, ReplicationFactor: 3, Configs: map[string]string{"message.timestamp.type": "LogAppendTime"}}, false); err != nil {
		t.Fatal(err)
	}
	c := serve(t, f, nil).dial()
	before := time.Now().UnixMilli()
	for v, set := range map[int16][]byte{2: messageSet("a", "b"), 9: recordBatch("c")} {
		out := c.ask(produceAt(v, f, "stamped", 0, set)).(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		if out.ErrorCode != 0 || out.LogAppendTime < before || out.LogAppendTime > time.Now().UnixMilli() {
			t.Errorf("v%d: %+v", v, out)
		}
	}
	part := c.ask(fetchAt(11, f, 0, 1<<20, "stamped")).(*kmsg.FetchResponse).Topics[0].Partitions[0]
	for batch, err := range kafkaproto.Batches(part.RecordBatches) {
		if err == nil {
			err = batch.CheckCRC()
		}
		if err != nil {
			t.Fatal(err)
		}
		if h := batch.Header(); !h.LogAppendTime() || h.MaxTimestamp < before {
			t.Errorf("%+v", h)
		}
	}
}

// From version 3 on the order of the request decides who comes first when not all
// fits, the first batch comes whole, and what found no place comes with the next
// fetch: nothing is cut, nothing is waited for.
func TestFetchLimitOfTheWholeAnswer(t *testing.T) {
	f := newFake(t, "a", "b", "c")
	c := serve(t, f, nil).dial()
	big := strings.Repeat("x", 1000)
	for _, topic := range []string{"a", "b", "c"} {
		for range 3 {
			if out := c.ask(produceAt(9, f, topic, 0, recordBatch(big))).(*kmsg.ProduceResponse).Topics[0].Partitions[0]; out.ErrorCode != 0 {
				t.Fatalf("%+v", out)
			}
		}
	}
	size := len(recordBatch(big))
	for _, test := range []struct {
		limit int32
		want  [3]int // batches per topic
	}{
		{1, [3]int{1, 0, 0}}, {int32(size), [3]int{1, 0, 0}}, {int32(2*size + 10), [3]int{2, 0, 0}},
		{int32(3*size) + 10, [3]int{3, 0, 0}}, {int32(4 * size), [3]int{3, 1, 0}}, {int32(7 * size), [3]int{3, 3, 1}}, {1 << 20, [3]int{3, 3, 3}},
	} {
		for _, v := range []int16{4, 11, 18} {
			req := fetchAt(v, f, 0, test.limit, "a", "b", "c")
			req.MaxWaitMillis, req.MinBytes = 60_000, 1<<20
			if test.limit == 1<<20 {
				req.MaxWaitMillis = 0
			}
			var got [3]int
			for i, topic := range c.ask(req).(*kmsg.FetchResponse).Topics {
				for batch, err := range kafkaproto.Batches(topic.Partitions[0].RecordBatches) {
					if err != nil {
						t.Fatalf("limit %d: %v", test.limit, err)
					}
					_ = batch
					got[i]++
				}
			}
			if got != test.want {
				t.Errorf("v%d, limit %d: %v, want %v", v, test.limit, got, test.want)
			}
		}
	}
}

// Partitions for which there was no room at first are read when those before them
// had little, and are waited for.
func TestFetchOfMorePartitionsThanFitAtOnce(t *testing.T) {
	f := newFake(t, "events:40")
	inBubble(t, func(cfg *Config) { cfg.Cluster, cfg.MaxRequestBytes = f, 1<<20 }, func(t *testing.T, p *pipes, _ *Server) {
		reader, writer := &client{p.dial(), t}, &client{p.dial(), t}
		defer reader.Close()
		defer writer.Close()
		req := fetchAt(11, f, 0, 1<<30)
		rt := kmsg.NewFetchRequestTopic()
		rt.Topic = "events"
		for i := range int32(40) {
			rp := kmsg.NewFetchRequestTopicPartition()
			rp.Partition, rp.PartitionMaxBytes = i, 300<<10
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics, req.MaxWaitMillis = append(req.Topics, rt), 60_000
		reader.send(encode(1, req))
		time.Sleep(time.Second)
		began := time.Now()
		writer.ask(produceAt(9, f, "events", 39, recordBatch("late")))
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		reader.want(1, resp)
		if len(resp.Topics[0].Partitions[39].RecordBatches) == 0 || time.Since(began) != 0 {
			t.Errorf("after %v: %+v", time.Since(began), resp.Topics[0].Partitions[39])
		}
	})
}

// A partition with more than its limit does not take the place of others.
func TestFetchLimitOfAPartition(t *testing.T) {
	f := newFake(t, "a", "b", "c")
	c := serve(t, f, nil).dial()
	value := strings.Repeat("x", 1000)
	size := int32(len(recordBatch(value)))
	for _, topic := range []string{"a", "b", "c"} {
		for range 3 {
			c.ask(produceAt(9, f, topic, 0, recordBatch(value)))
		}
	}
	req := fetchAt(11, f, 0, 5*size, "a", "b", "c") // three waves: 2 + 2 + 1
	req.MaxWaitMillis, req.MinBytes = 60_000, 1<<20
	for i := range req.Topics {
		req.Topics[i].Partitions[0].PartitionMaxBytes = 2*size + 10
	}
	for i, topic := range c.ask(req).(*kmsg.FetchResponse).Topics {
		if got, want := len(topic.Partitions[0].RecordBatches), int(size)*[]int{2, 2, 1}[i]; got != want {
			t.Errorf("topic %s: %d bytes, want %d", topic.Topic, got, want)
		}
	}
}

// A client that knows a newer leader than a node that only remembers is believed.
func TestLeaderEpochsOfNodesThatOnlyRemember(t *testing.T) {
	f := newFake(t, "events")
	c := serve(t, remembering{f, 3}, nil).dial()
	for epoch, want := range map[int32]int16{-1: 0, 2: kerr.FencedLeaderEpoch.Code, 3: 0, 4: 0} {
		req := fetchAt(11, f, 0, 1<<20, "events")
		req.Topics[0].Partitions[0].CurrentLeaderEpoch = epoch
		if got := c.ask(req).(*kmsg.FetchResponse).Topics[0].Partitions[0].ErrorCode; got != want {
			t.Errorf("epoch %d: code %d, want %d", epoch, got, want)
		}
	}
}

type remembering struct {
	*fakeCluster
	known fsm.LeaderEpoch
}

func (r remembering) LeaderEpoch(fsm.PartitionID) (fsm.LeaderEpoch, bool) { return r.known, false }

// A search by time may take longer than other questions, and is bounded.
func TestSearchByTimeIsBounded(t *testing.T) {
	f := newFake(t, "events")
	inBubble(t, func(cfg *Config) { cfg.Cluster = endless{f} }, func(t *testing.T, p *pipes, _ *Server) {
		c := &client{p.dial(), t}
		defer c.Close()
		for _, test := range []struct {
			timeout int32
			want    time.Duration
		}{{0, searchGrace}, {5000, 5 * time.Second}, {1 << 30, searchGrace}} {
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			req := kmsg.NewPtrListOffsetsRequest()
			req.Version, req.TimeoutMillis = 10, test.timeout
			rt := kmsg.NewListOffsetsRequestTopic()
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rt.Topic, rp.Timestamp = "events", 5
			rt.Partitions = append(rt.Partitions, rp)
			req.Topics = append(req.Topics, rt)
			began := time.Now()
			part := c.ask(req).(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]
			if part.ErrorCode != kerr.NotLeaderForPartition.Code || part.Offset != -1 || time.Since(began) != test.want {
				t.Errorf("%+v after %v", part, time.Since(began))
			}
		}
	})
}

type endless struct{ *fakeCluster }

func (endless) OffsetForTime(ctx context.Context, _ fsm.PartitionID, _ int64) (fsm.Offset, int64, fsm.LeaderEpoch, bool, error) {
	<-ctx.Done()
	return -1, -1, -1, false, fmt.Errorf("%w: %w", outcome.ErrTimeout, ctx.Err())
}
