package gateway

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// configured is a fake cluster with one topic, "events", that has these configurations.
func configured(t *testing.T, configs map[string]string) *fakeCluster {
	t.Helper()
	f := newFake(t)
	if err := f.doCreate(fsm.TopicSpec{Name: "events", Partitions: 1, ReplicationFactor: 3, Configs: configs}, false); err != nil {
		t.Fatal(err)
	}
	return f
}

// blamed gives the records that an answer names.
func blamed(p kmsg.ProduceResponseTopicPartition) (indexes []int32) {
	for _, e := range p.ErrorRecords {
		indexes = append(indexes, e.RelativeOffset)
	}
	return indexes
}

// A compacted topic could never let go of a record without key: it takes none, in any
// version, and says from version 8 on which ones they were.
func TestACompactedTopicTakesNoRecordsWithoutKey(t *testing.T) {
	for _, policy := range []string{"compact", "delete,compact"} {
		f := configured(t, map[string]string{"cleanup.policy": policy})
		c := serve(t, f, nil).dial()
		for v := range int16(14) {
			set := recordBatch("a", "b")
			if v < 3 {
				set = messageSet("a", "b")
			}
			out := c.ask(produceAt(v, f, "events", 0, set)).(*kmsg.ProduceResponse).Topics[0].Partitions[0]
			var want []int32
			if v >= 8 {
				want = []int32{0, 1}
			}
			if out.ErrorCode != kerr.InvalidRecord.Code || !slices.Equal(blamed(out), want) {
				t.Errorf("%s, version %d: code %d, records %v, want INVALID_RECORD and %v", policy, v, out.ErrorCode, blamed(out), want)
			}
		}
		if len(f.appends) > 0 {
			t.Errorf("%s: something was appended", policy)
		}
	}
	c := serve(t, configured(t, nil), nil).dial()
	if out := c.do(produce(-1, "events", 0, "a")).(*kmsg.ProduceResponse).Topics[0].Partitions[0]; out.ErrorCode != 0 {
		t.Errorf("a topic that is not compacted: %+v", out)
	}
}

// timedSet makes a message set of magic 1 with these times.
func timedSet(times ...int64) []byte {
	var set []byte
	for _, at := range times {
		m := kmsg.MessageV1{Magic: 1, Timestamp: at, Key: []byte("k"), Value: []byte("v")}
		raw := m.AppendTo(nil)
		binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
		binary.BigEndian.PutUint32(raw[12:], crc32.ChecksumIEEE(raw[16:]))
		set = append(set, raw...)
	}
	return set
}

// timedBatch makes a record batch with these times.
func timedBatch(times ...int64) []byte {
	batches, _, err := kafkaproto.FromMessageSet(timedSet(times...), kafkaproto.Limits{})
	if err != nil {
		panic(err)
	}
	return batches[0].Bytes()
}

// Times are within the topic's bounds, those of Kafka if it sets none: one that is far
// ahead would keep its segment for ever.
func TestTimestampsAreWithinTheTopicsBounds(t *testing.T) {
	const minute, hour, day = int64(60_000), int64(3_600_000), int64(86_400_000)
	for _, test := range []struct {
		configs, defaults map[string]string
		good, bad         []int64 // from now, ms
	}{
		{nil, nil, []int64{0, 59 * minute, -3650 * day}, []int64{61 * minute, 1_000_000 * day}},
		{map[string]string{"message.timestamp.after.max.ms": "600000"}, nil, []int64{9 * minute, -day}, []int64{11 * minute}},
		{map[string]string{"message.timestamp.after.max.ms": "9223372036854775807"}, nil, []int64{1_000_000 * day}, nil},
		{map[string]string{"message.timestamp.before.max.ms": "600000"}, nil, []int64{-9 * minute, 59 * minute}, []int64{-11 * minute, 2 * hour}},
		{nil, map[string]string{"message.timestamp.after.max.ms": "600000"}, []int64{9 * minute}, []int64{11 * minute}},
		{map[string]string{"message.timestamp.difference.max.ms": "600000"}, nil, []int64{9 * minute, -9 * minute}, []int64{11 * minute, -11 * minute}},
		{map[string]string{"message.timestamp.difference.max.ms": "600000", "message.timestamp.after.max.ms": "7200000"}, nil, []int64{90 * minute, -9 * minute}, []int64{3 * hour, -11 * minute}},
		{map[string]string{"message.timestamp.type": "LogAppendTime", "message.timestamp.before.max.ms": "0"}, nil, []int64{-day, 2 * day}, nil},
	} {
		name := fmt.Sprint(test.configs, test.defaults)
		f := configured(t, test.configs)
		c := serve(t, f, func(cfg *Config) { cfg.TopicDefaults = test.defaults }).dial()
		code := func(version int16, set []byte) (int16, []int32) {
			out := c.ask(produceAt(version, f, "events", 0, set)).(*kmsg.ProduceResponse).Topics[0].Partitions[0]
			return out.ErrorCode, blamed(out)
		}
		for _, from := range test.good {
			at := time.Now().UnixMilli() + from
			if got, _ := code(2, timedSet(at)); got != 0 {
				t.Errorf("%s: a message %d ms from now: code %d", name, from, got)
			}
			if got, _ := code(9, timedBatch(at)); got != 0 {
				t.Errorf("%s: a record %d ms from now: code %d", name, from, got)
			}
		}
		for _, from := range test.bad {
			now := time.Now().UnixMilli()
			if got, _ := code(2, timedSet(now+from)); got != kerr.InvalidTimestamp.Code {
				t.Errorf("%s: a message %d ms from now: code %d, want INVALID_TIMESTAMP", name, from, got)
			}
			if got, records := code(9, timedBatch(now, now+from)); got != kerr.InvalidTimestamp.Code || !slices.Equal(records, []int32{1}) {
				t.Errorf("%s: a record %d ms from now: code %d, records %v, want INVALID_TIMESTAMP of record 1", name, from, got, records)
			}
		}
		if got, _ := code(9, timedBatch(-1)); got != 0 {
			t.Errorf("%s: no time at all: code %d", name, got)
		}
	}
}

// Kafka's own topics do not exist here, and nobody can make them.
func TestKafkasOwnTopicsAreNotCreated(t *testing.T) {
	f := newFake(t)
	c := serve(t, f, func(cfg *Config) { cfg.AutoCreateTopics = true }).dial()
	for _, name := range []string{"__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata"} {
		req := kmsg.NewPtrCreateTopicsRequest()
		req.TimeoutMillis = 10_000
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 1, 3
		req.Topics = append(req.Topics, topic)
		if code := c.do(req).(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode; code != kerr.InvalidTopicException.Code {
			t.Errorf("creating %s: code %d", name, code)
		}
		if code := c.do(metadataOf(name)).(*kmsg.MetadataResponse).Topics[0].ErrorCode; code != kerr.InvalidTopicException.Code {
			t.Errorf("asking for %s where asking creates: code %d", name, code)
		}
	}
	if all := f.Topics().All(); len(all) > 0 {
		t.Errorf("created: %v", all)
	}
}
