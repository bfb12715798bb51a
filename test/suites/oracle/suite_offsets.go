package oracle

import (
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// list asks for one offset of a topic's partition.
func (t *T) list(version int16, topic string, partition int32, timestamp int64) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.Version, req.ReplicaID = version, -1
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewListOffsetsRequestTopicPartition()
	rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch = partition, timestamp, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := t.send(req)
	if err != nil {
		t.Say("ListOffsets v%d of %s: %v", version, t.time(timestamp), err)
		return
	}
	p := resp.(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]
	t.Say("ListOffsets v%d of %s: %s offset %d time %s", version, t.time(timestamp), errorName(p.ErrorCode), p.Offset, t.time(p.Timestamp))
}

// fetch asks for records of a topic's partition and says how many bytes came.
func (t *T) fetch(version int16, topic string, partition int32, from int64) {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MaxWaitMillis, req.MinBytes, req.MaxBytes = version, 0, 0, 1<<20
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = partition, from, 1<<20
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := t.send(req)
	if err != nil {
		t.Say("Fetch v%d from %d: %v", version, from, err)
		return
	}
	r := resp.(*kmsg.FetchResponse)
	if len(r.Topics) == 0 {
		t.Say("Fetch v%d from %d: %s and no topic", version, from, errorName(r.ErrorCode))
		return
	}
	p := r.Topics[0].Partitions[0]
	t.Say("Fetch v%d from %d: %s high watermark %d, stable %d, start %d, %d bytes", version, from, errorName(p.ErrorCode), p.HighWatermark, p.LastStableOffset, p.LogStartOffset, len(p.RecordBatches))
}

// deleteRecords moves the log start.
func (t *T) deleteRecords(topic string, partition int32, to int64) {
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.TimeoutMillis = 20_000
	rt := kmsg.NewDeleteRecordsRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewDeleteRecordsRequestTopicPartition()
	rp.Partition, rp.Offset = partition, to
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	p := t.ask(req).(*kmsg.DeleteRecordsResponse).Topics[0].Partitions[0]
	t.Say("DeleteRecords to %d: %s low watermark %d", to, errorName(p.ErrorCode), p.LowWatermark)
}

var offsetCases = []Case{
	{"offsets of a topic", func(t *T) {
		topic := t.Topic()
		t.Say("empty:")
		for _, at := range []int64{-1, -2, -3, -4, -5, t.Now} {
			t.list(9, topic, 0, at)
		}
		t.Produce(9, topic, t.batch(join(rec(0, "k", "v"), recAt(1000, 1, field("k"), field("v")), recAt(-500, 2, field("k"), field("v"))), 3))
		t.Produce(9, topic, t.batch(recAt(500, 0, field("k"), field("v")), 1))
		t.Say("four records:")
		for _, at := range []int64{-1, -2, -3, -4, -5, -6, -7, t.Now - 1000, t.Now, t.Now + 1, t.Now + 1000, t.Now + 1001, 0, math.MaxInt64} {
			t.list(9, topic, 0, at)
		}
		for _, v := range []int16{1, 2, 4, 5, 6, 7, 8} {
			t.list(v, topic, 0, -1)
			t.list(v, topic, 0, -3)
			t.list(v, topic, 0, -4)
		}
		t.list(9, topic, 1, -1)
		t.list(9, topic, -1, -1)
		t.list(9, "no-such-topic", 0, -1)
	}},
	{"fetches of a topic", func(t *T) {
		topic := t.Topic()
		t.Produce(9, topic, t.batch(join(rec(0, "k", "v"), rec(1, "k", "v")), 2))
		for _, v := range []int16{4, 11, 12} {
			for _, from := range []int64{0, 1, 2, 3, -1, math.MaxInt64} {
				t.fetch(v, topic, 0, from)
			}
			t.fetch(v, topic, 1, 0)
			t.fetch(v, "no-such-topic", 0, 0)
		}
	}},
	{"DeleteRecords", func(t *T) {
		topic := t.Topic()
		t.Produce(9, topic, t.batch(join(rec(0, "k", "v"), rec(1, "k", "v")), 2))
		for _, to := range []int64{0, 1, 0, 3, -2, 2, -1} {
			t.deleteRecords(topic, 0, to)
		}
		t.fetch(11, topic, 0, 0)
		t.list(9, topic, 0, -2)
		t.deleteRecords(topic, 1, 0)
		t.deleteRecords("no-such-topic", 0, 0)
		compacted := t.Topic("cleanup.policy=compact")
		t.deleteRecords(compacted, 0, 0)
	}},
	{"epochs", func(t *T) {
		topic := t.Topic()
		req := kmsg.NewPtrOffsetForLeaderEpochRequest()
		req.Version, req.ReplicaID = 3, -1
		rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
		rt.Topic = topic
		for _, epoch := range []int32{-1, 1 << 20} {
			rp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
			rp.LeaderEpoch, rp.CurrentLeaderEpoch = epoch, -1
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
		t.Do(req)
	}},
}
