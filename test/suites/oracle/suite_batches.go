package oracle

import (
	"math"
	"slices"
	"strings"
)

// Suites are all there are.
var Suites = []Suite{
	{Name: "batches", Kafka: "4.3.1", Cases: batchCases},
	{Name: "codecs", Kafka: "4.3.1", Cases: codecCases},
	{Name: "messagesets", Kafka: "3.9.1", Cases: messageSetCases},
	{Name: "times", Kafka: "4.3.1", Cases: timeCases},
	{Name: "topics", Kafka: "4.3.1", Cases: topicCases},
	{Name: "configs", Kafka: "4.3.1", Cases: configCases},
	{Name: "offsets", Kafka: "4.3.1", Cases: offsetCases},
	{Name: "groups", Kafka: "4.3.1", Cases: groupCases},
	{Name: "acls", Kafka: "4.4.0", Secured: true, Cases: aclCases},
	{Name: "users", Kafka: "4.4.0", Secured: true, Cases: userCases},
	{Name: "rights", Kafka: "4.4.0", Secured: true, Cases: slices.Concat(rightCases, adminRightCases)},
	{Name: "logins", Kafka: "4.4.0", Secured: true, Cases: loginCases},
	{Name: "transactions", Kafka: "4.4.0", Cases: transactionCases},
}

// odd is a case of one batch, which a producer of version 9 sends to a topic of its own,
// and what the topic holds then.
func odd(name string, make func(t *T) []byte, configs ...string) Case {
	return Case{name, func(t *T) {
		topic := t.Topic(configs...)
		t.Produce(9, topic, make(t))
		t.Records(topic)
	}}
}

// one makes a batch of one record that is edited.
func one(edits ...edit) func(t *T) []byte {
	return func(t *T) []byte { return t.batch(rec(0, "k", "v"), 1, edits...) }
}

// holding makes a batch of these records.
func holding(count int, records ...[]byte) func(t *T) []byte {
	return func(t *T) []byte { return t.batch(join(records...), count) }
}

var batchCases = []Case{
	odd("a batch", holding(2, rec(0, "k", "v"), rec(1, "k", "w"))),
	odd("nulls, empty fields and headers", holding(3,
		recAt(0, 0, nothing, nothing), recAt(0, 1, field(""), field("")),
		sized([]byte{0}, vi(0), vi(2), field("k"), field("v"), vi(3), field("h"), field("1"), field("h"), nothing, field(""), field("")))),
	odd("no records at all", func(*T) []byte { return []byte{} }),
	odd("null records", func(*T) []byte { return nil }),
	odd("less than a header", func(t *T) []byte { return one()(t)[:40] }),
	odd("less than a length", func(t *T) []byte { return one()(t)[:10] }),
	odd("the end is cut off", func(t *T) []byte { b := one()(t); return b[:len(b)-1] }),
	odd("a byte behind the batch", func(t *T) []byte { return append(one()(t), 0) }),
	odd("a header's worth behind the batch", func(t *T) []byte { return append(one()(t), make([]byte, 61)...) }),
	odd("two batches", func(t *T) []byte { return join(one()(t), one()(t)) }),
	odd("base offset 5", one(set64(atBaseOffset, 5))),
	odd("base offset -1", one(set64(atBaseOffset, -1))),
	odd("leader epoch 7", one(set32(atLeaderEpoch, 7))),
	odd("a wrong CRC", func(t *T) []byte { b := one()(t); b[atCRC]++; return b }),
	odd("magic 0", one(set8(atMagic, 0))),
	odd("magic 1", one(set8(atMagic, 1))),
	odd("magic 3", one(set8(atMagic, 3))),
	odd("magic -1", one(set8(atMagic, -1))),
	odd("length 0", one(set32(atLength, 0))),
	odd("length -1", one(set32(atLength, -1))),
	odd("length of the largest number", one(set32(atLength, math.MaxInt32))),
	odd("length smaller than a header", one(set32(atLength, 48))),
	odd("length one smaller", func(t *T) []byte { b := one()(t); set32(atLength, int32(len(b)-13))(b); return b }),
	odd("an empty batch", holding(0)),
	odd("an empty batch that says 1", holding(1)),
	odd("count 0 of 1", one(set32(atCount, 0))),
	odd("count 2 of 1", one(set32(atCount, 2), set32(atLastOffsetDelta, 1))),
	odd("count 1 of 2", holding(1, rec(0, "k", "v"), rec(1, "k", "v"))),
	odd("count -1", one(set32(atCount, -1))),
	odd("count and last offset delta differ", one(set32(atLastOffsetDelta, 1))),
	odd("last offset delta -1", one(set32(atLastOffsetDelta, -1))),
	odd("the largest last offset delta", one(set32(atLastOffsetDelta, math.MaxInt32))),
	odd("offset deltas 0, 2", holding(2, rec(0, "k", "v"), rec(2, "k", "v"))),
	odd("offset deltas 0, 0", holding(2, rec(0, "k", "v"), rec(0, "k", "v"))),
	odd("offset deltas 1, 0", holding(2, rec(1, "k", "v"), rec(0, "k", "v"))),
	odd("offset delta -1", holding(1, rec(-1, "k", "v"))),
	odd("offset deltas wrong twice", holding(3, rec(0, "k", "v"), rec(5, "k", "v"), rec(7, "k", "v"))),
	odd("record length one larger", holding(1, join(vi(9), rec(0, "k", "v")[1:]))),
	odd("record length one smaller", holding(1, join(vi(7), rec(0, "k", "v")[1:]))),
	odd("record length 0", holding(1, vi(0))),
	odd("record length -1", holding(1, join(vi(-1), rec(0, "k", "v")[1:]))),
	odd("bytes behind the headers of a record", holding(1, sized([]byte{0}, vi(0), vi(0), field("k"), field("v"), vi(0), []byte("x")))),
	odd("bytes behind the last record", holding(1, rec(0, "k", "v"), []byte("x"))),
	odd("no header count", holding(1, sized([]byte{0}, vi(0), vi(0), field("k"), field("v")))),
	odd("header count -1", holding(1, sized([]byte{0}, vi(0), vi(0), field("k"), field("v"), vi(-1)))),
	odd("header count 2 of 1", holding(1, sized([]byte{0}, vi(0), vi(0), field("k"), field("v"), vi(2), field("h"), field("x")))),
	odd("a null header key", holding(1, sized([]byte{0}, vi(0), vi(0), field("k"), field("v"), vi(1), nothing, field("x")))),
	odd("header key length -2", holding(1, sized([]byte{0}, vi(0), vi(0), field("k"), field("v"), vi(1), vi(-2), field("x")))),
	odd("header key beyond the record", holding(1, sized([]byte{0}, vi(0), vi(0), field("k"), field("v"), vi(1), vi(50), []byte("h")))),
	odd("header value length -2", holding(1, sized([]byte{0}, vi(0), vi(0), field("k"), field("v"), vi(1), field("h"), vi(-2)))),
	odd("a header key that is not UTF-8", holding(1, sized([]byte{0}, vi(0), vi(0), field("k"), field("v"), vi(1), field("\xff\xfe"), field("x")))),
	odd("key length -2", holding(1, recAt(0, 0, vi(-2), field("v")))),
	odd("key beyond the record", holding(1, recAt(0, 0, vi(50), field("v")))),
	odd("value length -2", holding(1, recAt(0, 0, field("k"), vi(-2)))),
	odd("value beyond the record", holding(1, recAt(0, 0, field("k"), vi(50)))),
	odd("a long varint for the record length", holding(1, join(long(8, 1), rec(0, "k", "v")[1:]))),
	odd("a varint of 5 bytes for the key length", holding(1, recAt(0, 0, join(long(1, 4), []byte("k")), field("v")))),
	odd("a varint of 6 bytes for the key length", holding(1, recAt(0, 0, join(long(1, 5), []byte("k")), field("v")))),
	odd("a long varint for the offset delta", holding(1, sized([]byte{0}, vi(0), long(0, 1), field("k"), field("v"), vi(0)))),
	odd("a varint of 6 bytes for the offset delta", holding(1, sized([]byte{0}, vi(0), long(0, 5), field("k"), field("v"), vi(0)))),
	odd("a varint of 10 bytes for the timestamp delta", holding(1, sized([]byte{0}, long(0, 9), vi(0), field("k"), field("v"), vi(0)))),
	odd("a varint of 11 bytes for the timestamp delta", holding(1, sized([]byte{0}, long(0, 10), vi(0), field("k"), field("v"), vi(0)))),
	odd("an offset delta above 32 bits", holding(1, sized([]byte{0}, vi(0), vi(1<<32), field("k"), field("v"), vi(0)))),
	odd("a key length above 32 bits", holding(1, recAt(0, 0, join(vi(1<<32+1), []byte("k")), field("v")))),
	odd("record attributes with all bits", holding(1, sized([]byte{0xff}, vi(0), vi(0), field("k"), field("v"), vi(0)))),
	odd("attributes: bit 7", one(set16(atAttributes, 0x80))),
	odd("attributes: the highest bit", one(set16(atAttributes, math.MinInt16))),
	odd("attributes: delete horizon", one(set16(atAttributes, 0x40))),
	odd("attributes: log append time", one(set16(atAttributes, 0x08))),
	odd("attributes: log append time, compressed", func(t *T) []byte {
		return t.batch(gz(rec(0, "k", "v")), 1, set16(atAttributes, codecGzip|8))
	}),
	odd("offset deltas 0, 2, compressed", func(t *T) []byte {
		return t.batch(gz(join(rec(0, "k", "v"), rec(2, "k", "v"))), 2, set16(atAttributes, codecGzip))
	}),
	odd("attributes: transactional without a producer", one(set16(atAttributes, 0x10))),
	odd("attributes: transactional", one(set16(atAttributes, 0x10), set64(atProducerID, 4000), set16(atProducerEpoch, 0), set32(atBaseSequence, 0))),
	odd("attributes: control", one(set16(atAttributes, 0x20))),
	odd("attributes: control and transactional", one(set16(atAttributes, 0x30), set64(atProducerID, 4000), set16(atProducerEpoch, 0), set32(atBaseSequence, 0))),
	odd("codec 5", one(set16(atAttributes, 5))),
	odd("codec 6", one(set16(atAttributes, 6))),
	odd("codec 7", one(set16(atAttributes, 7))),
	odd("a producer that was never given out", one(set64(atProducerID, 4000), set16(atProducerEpoch, 3), set32(atBaseSequence, 7))),
	odd("a producer without sequence number", one(set64(atProducerID, 4000), set16(atProducerEpoch, 0))),
	odd("a producer without epoch", one(set64(atProducerID, 4000), set32(atBaseSequence, 0))),
	odd("producer -5", one(set64(atProducerID, -5), set16(atProducerEpoch, 0), set32(atBaseSequence, 0))),
	odd("a sequence number without producer", one(set32(atBaseSequence, 3))),
	odd("max timestamp too small", func(t *T) []byte {
		return t.batch(join(rec(0, "k", "v"), recAt(7, 1, field("k"), field("v"))), 2, t.times(0, 3))
	}),
	odd("max timestamp too large", one(set64(atMaxTimestamp, math.MaxInt64))),
	odd("max timestamp -1", one(set64(atMaxTimestamp, -1))),
	odd("no timestamp", one(set64(atBaseTimestamp, -1), set64(atMaxTimestamp, -1))),
	odd("timestamp 0", one(set64(atBaseTimestamp, 0), set64(atMaxTimestamp, 0))),
	odd("timestamp -2", one(set64(atBaseTimestamp, -2), set64(atMaxTimestamp, -2))),
	odd("a timestamp delta below -1", func(t *T) []byte {
		return t.batch(recAt(-t.Now-5, 0, field("k"), field("v")), 1)
	}),
	odd("a timestamp that overflows", func(t *T) []byte {
		return t.batch(recAt(math.MaxInt64, 0, field("k"), field("v")), 1)
	}),
	{"larger than the topic allows", func(t *T) {
		topic := t.Topic("max.message.bytes=1000")
		for _, n := range []int{1000, 1001} {
			b := t.batch(rec(0, "k", strings.Repeat("x", 900)), 1)
			b = t.batch(rec(0, "k", strings.Repeat("x", 900+n-len(b))), 1)
			t.Say("%d bytes:", len(b))
			t.Produce(9, topic, b)
		}
	}},
	{"versions and what they tell", func(t *T) {
		topic := t.Topic()
		for _, v := range []int16{0, 2, 3, 5, 7, 8, 9, 12, 13} {
			t.Produce(v, topic, holding(1, vi(0))(t))
		}
	}},
	{"acks", func(t *T) {
		topic := t.Topic()
		for _, acks := range []int16{-2, -1, 1, 2} {
			t.Say("acks %d", acks)
			t.ProduceAcks(9, acks, topic, 0, one()(t))
		}
	}},
	{"partitions that are not there", func(t *T) {
		topic := t.Topic()
		for _, p := range []int32{-1, 1, math.MaxInt32} {
			t.ProduceAcks(9, -1, topic, p, one()(t))
		}
		t.ProduceAcks(9, -1, "no-such-topic", 0, one()(t))
		t.ProduceAcks(9, -1, "no such topic", 0, one()(t))
		t.ProduceAcks(9, -1, "", 0, one()(t))
	}},
	{"a compacted topic takes no records without key", func(t *T) {
		topic := t.Topic("cleanup.policy=compact")
		keyless := recAt(0, 0, nothing, field("v"))
		for _, v := range []int16{3, 7, 8, 9, 12} {
			t.Produce(v, topic, holding(1, keyless)(t))
		}
		t.Produce(9, topic, holding(1, recAt(0, 0, field(""), field("v")))(t))
		t.Produce(9, topic, holding(1, recAt(0, 0, field("k"), nothing))(t))
		t.Produce(9, topic, holding(4, rec(0, "k", "v"), recAt(0, 1, nothing, field("v")), rec(2, "k", "v"), recAt(0, 3, nothing, nothing))(t))
		t.Produce(9, topic, t.batch(gz(keyless), 1, set16(atAttributes, codecGzip)))
		both := t.Topic("cleanup.policy=compact,delete")
		t.Produce(9, both, holding(1, keyless)(t))
		other := t.Topic()
		t.Produce(9, other, holding(1, keyless)(t))
	}},
	{"a compacted topic: many records without key", func(t *T) {
		topic := t.Topic("cleanup.policy=compact")
		var all []byte
		for i := range 20 {
			all = append(all, recAt(0, int64(i), nothing, field("v"))...)
		}
		t.Produce(9, topic, t.batch(all, 20))
	}},
	{"a record without key and one that is damaged", func(t *T) {
		topic := t.Topic("cleanup.policy=compact")
		t.Produce(9, topic, holding(2, recAt(0, 0, nothing, field("v")), recAt(0, 1, vi(-2), field("v")))(t))
		t.Produce(9, topic, holding(2, recAt(0, 0, nothing, field("v")), rec(5, "k", "v"))(t))
	}},
}
