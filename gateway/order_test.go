package gateway

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// Nobody can forget to say what a new API does to what others see.
func TestEveryServedAPIHasAnEffect(t *testing.T) {
	for _, served := range kafkaproto.Served {
		if api, ok := apis[served.Key]; !ok || api.handle == nil {
			t.Errorf("%s has no line in apis", served.Name)
		}
	}
	for key, api := range apis {
		if _, ok := kafkaproto.Lookup(int16(key)); !ok && api.own == nil {
			t.Errorf("%d has a line in apis and is not served", key)
		}
	}
}

func deleteRecords(before int64, timeoutMillis int32) *kmsg.DeleteRecordsRequest {
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.TimeoutMillis = timeoutMillis
	req.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: "events", Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: 0, Offset: before}}}}
	return req
}

func listOffset(which int64) *kmsg.ListOffsetsRequest {
	req := kmsg.NewPtrListOffsetsRequest()
	req.Version = 1
	req.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: "events", Partitions: []kmsg.ListOffsetsRequestTopicPartition{{Partition: 0, Timestamp: which}}}}
	return req
}

// What changes something is seen by what stands behind it in the same write, however long it takes.
func TestPipelinedRequestsSeeThoseBeforeThem(t *testing.T) {
	f := newFake(t, "events")
	slowly := func() { time.Sleep(3 * time.Second) } // of virtual time
	f.create = func(_ context.Context, spec fsm.TopicSpec, validateOnly bool) error {
		slowly()
		return f.doCreate(spec, validateOnly)
	}
	f.remove = func(_ context.Context, name string) error {
		slowly()
		return f.apply(fsm.CatalogCommand{DeleteTopic: &fsm.DeleteTopic{Name: name}})
	}
	f.append = func(_ context.Context, p fsm.PartitionID, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
		slowly()
		return f.doAppend(p, batches)
	}
	inBubble(t, func(cfg *Config) { cfg.Cluster = f }, func(t *testing.T, p *pipes, _ *Server) {
		c := &client{p.dial(), t}
		defer c.Close()
		create := &kmsg.CreateTopicsRequest{Version: 1, TimeoutMillis: 10_000, Topics: []kmsg.CreateTopicsRequestTopic{newTopic("new", 1, 1)}}
		partitions := kmsg.NewPtrCreatePartitionsRequest()
		partitions.TimeoutMillis, partitions.Topics = 10_000, []kmsg.CreatePartitionsRequestTopic{{Topic: "new", Count: 3}}
		remove := &kmsg.DeleteTopicsRequest{Version: 1, TimeoutMillis: 10_000, TopicNames: []string{"new"}}
		requests := []kmsg.Request{
			0: produce(-1, "events", 0, "a", "b", "c"),
			1: listOffset(-1),
			2: fetchOf("events", 0, 0, 0, 0, 1<<20),
			3: deleteRecords(2, 10_000),
			4: listOffset(-2),
			5: produce(-1, "events", 0, "d"),
			6: deleteRecords(-1, 10_000),
			7: listOffset(-2),
			8: create,
			9: produce(-1, "new", 0, "x"), 10: metadataOf("new"), 11: partitions, 12: produce(-1, "new", 2, "y"),
			13: remove, 14: metadataOf("new"),
		}
		var all []byte
		for i, req := range requests {
			all = append(all, encode(int32(i), req)...)
		}
		go c.send(all)
		answers := make([]kmsg.Response, len(requests))
		for i, req := range requests {
			answers[i] = req.ResponseKind()
			c.want(int32(i), answers[i])
		}
		offset := func(i int) int64 {
			return answers[i].(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0].Offset
		}
		produced := func(i int) int16 {
			return answers[i].(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode
		}
		topic := func(i int) kmsg.MetadataResponseTopic { return answers[i].(*kmsg.MetadataResponse).Topics[0] }
		if got := offset(1); got != 3 {
			t.Errorf("the end behind a produce of 3 is %d", got)
		}
		if got := values(t, answers[2].(*kmsg.FetchResponse).Topics[0].Partitions[0].RecordBatches); len(got) != 3 {
			t.Errorf("a fetch behind a produce of 3 gives %q", got)
		}
		if got := offset(4); got != 2 {
			t.Errorf("the start behind DeleteRecords up to 2 is %d", got)
		}
		if got := offset(7); got != 4 {
			t.Errorf("the start behind a produce and DeleteRecords up to the end is %d, want 4", got)
		}
		if code := produced(9); code != 0 {
			t.Errorf("a produce behind CreateTopics: %v", kerr.ErrorForCode(code))
		}
		if got := topic(10); got.ErrorCode != 0 || len(got.Partitions) != 1 {
			t.Errorf("Metadata behind CreateTopics: %+v", got)
		}
		if code := produced(12); code != 0 {
			t.Errorf("a produce behind CreatePartitions: %v", kerr.ErrorForCode(code))
		}
		if got := topic(14); got.ErrorCode == 0 {
			t.Errorf("Metadata behind DeleteTopics: %+v", got)
		}
	})
}

// Produces to different partitions, and a fetch that waits in front of them, are worked on at once.
func TestProducesAndFetchesOverlap(t *testing.T) {
	f := newFake(t, "events:3")
	f.append = func(_ context.Context, p fsm.PartitionID, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
		time.Sleep(3 * time.Second)
		return f.doAppend(p, batches)
	}
	inBubble(t, func(cfg *Config) { cfg.Cluster = f }, func(t *testing.T, p *pipes, _ *Server) {
		c := &client{p.dial(), t}
		defer c.Close()
		requests := []kmsg.Request{
			fetchOf("events", 0, 0, 10*time.Second, 1, 1<<20),
			produce(-1, "events", 0, "a"), produce(-1, "events", 1, "b"), produce(-1, "events", 2, "c"),
		}
		var all []byte
		for i, req := range requests {
			all = append(all, encode(int32(i), req)...)
		}
		began := time.Now()
		go c.send(all)
		for i, req := range requests {
			c.want(int32(i), req.ResponseKind())
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("three produces of 3 s, and a fetch that they end, took %v", took)
		}
	})
}

// ListGroups shows a group that was made by the request in front of it.
func TestListGroupsSeesTheCommitBeforeIt(t *testing.T) {
	f := newFake(t, "events")
	c := serve(t, f, nil).dial()
	for i := range 50 {
		group := string(rune('a'+i%26)) + string(rune('a'+i/26))
		commit := kmsg.NewPtrOffsetCommitRequest()
		commit.Version, commit.Group, commit.Generation = 2, group, -1
		commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "events", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Partition: 0, Offset: 1}}}}
		list := kmsg.NewPtrListGroupsRequest()
		c.send(append(encode(1, commit), encode(2, list)...))
		c.want(1, commit.ResponseKind())
		resp := list.ResponseKind().(*kmsg.ListGroupsResponse)
		c.want(2, resp)
		if len(resp.Groups) != i+1 {
			t.Fatalf("%d groups are listed behind the commit of the %d-th, in %d shards", len(resp.Groups), i+1, coordinator.Shards)
		}
	}
}

// A timeout of 0 bounds the wait for replicas in Kafka, and here there are none: what is carried
// out is said to be, and what is wrong is said, too.
func TestDeleteRecordsWithoutTimeout(t *testing.T) {
	f := newFake(t, "events")
	c := serve(t, f, nil).dial()
	c.do(produce(-1, "events", 0, "a", "b", "c"))
	for _, timeout := range []int32{0, -1, 1} {
		got := c.do(deleteRecords(2, timeout)).(*kmsg.DeleteRecordsResponse).Topics[0].Partitions[0]
		if got.ErrorCode != 0 || got.LowWatermark != 2 {
			t.Errorf("timeout %d: %+v", timeout, got)
		}
		got = c.do(deleteRecords(9, timeout)).(*kmsg.DeleteRecordsResponse).Topics[0].Partitions[0]
		if got.ErrorCode != kerr.OffsetOutOfRange.Code {
			t.Errorf("timeout %d, beyond the end: %+v", timeout, got)
		}
	}
}
