package oracle

import (
	"encoding/binary"
	"hash/crc32"
	"math"
)

// oddSet is a case of one message set, which producers of versions 0 to 2 send to topics
// of their own, and what the topics hold then.
func oddSet(name string, make func(t *T) []byte, versions ...int16) Case {
	return Case{name, func(t *T) {
		if versions == nil {
			versions = []int16{1}
		}
		for _, v := range versions {
			topic := t.Topic()
			t.Produce(v, topic, make(t))
			t.Records(topic)
		}
	}}
}

// m0 is a message of magic 0.
func m0(value string) []byte { return message(0, 0, 0, 0, nil, []byte(value)) }

// m1 is a message of magic 1, written now.
func (t *T) m1(offset int64, value string) []byte {
	return message(offset, 1, 0, t.Now, []byte("k"), []byte(value))
}

// wrapper0 and wrapper1 hold a message set, compressed.
func wrapper0(codec int8, data []byte) []byte { return message(0, 0, codec, 0, nil, data) }

func (t *T) wrapper1(codec int8, data []byte) []byte { return message(1, 1, codec, t.Now, nil, data) }

// packed0 and packed1 are cases of two messages in a wrapper.
func packed0(name string, codec int8, pack func([]byte) []byte) Case {
	return oddSet(name+", magic 0", func(t *T) []byte { return wrapper0(codec, pack(join(m0("first"), m0("second")))) })
}

func packed1(name string, codec int8, pack func([]byte) []byte) Case {
	return oddSet(name+", magic 1", func(t *T) []byte {
		return t.wrapper1(codec, pack(join(t.m1(0, "first"), t.m1(1, "second"))))
	}, 2)
}

// recut edits a message and writes its CRC anew.
func recut(b []byte, edits ...edit) []byte {
	for _, e := range edits {
		e(b)
	}
	binary.BigEndian.PutUint32(b[12:], crc32.ChecksumIEEE(b[16:]))
	return b
}

var messageSetCases = []Case{
	oddSet("messages of magic 0", func(t *T) []byte { return join(m0("a"), message(0, 0, 0, 0, []byte("k"), nil)) }, 0, 1, 2),
	oddSet("messages of magic 1", func(t *T) []byte { return join(t.m1(0, "a"), t.m1(0, "b")) }, 0, 1, 2),
	oddSet("messages of both magics", func(t *T) []byte { return join(m0("a"), t.m1(0, "b"), m0("c")) }, 0, 1, 2),
	oddSet("an empty set", func(t *T) []byte { return []byte{} }, 0, 1, 2),
	oddSet("no set", func(t *T) []byte { return nil }),
	oddSet("a record batch", func(t *T) []byte { return t.batch(rec(0, "k", "v"), 1) }, 0, 1, 2),
	oddSet("a record batch behind a message", func(t *T) []byte { return join(m0("a"), t.batch(rec(0, "k", "v"), 1)) }, 1, 2),
	oddSet("the last message is cut in its value", func(t *T) []byte { b := join(m0("a"), m0("b")); return b[:len(b)-1] }, 0, 1, 2),
	oddSet("the last message is cut in its CRC", func(t *T) []byte { b := join(m0("a"), m0("b")); return b[:len(b)-len(m0("b"))+14] }),
	oddSet("the last message is cut in its size", func(t *T) []byte { b := join(m0("a"), m0("b")); return b[:len(b)-len(m0("b"))+10] }),
	oddSet("the last message is cut in its offset", func(t *T) []byte { b := join(m0("a"), m0("b")); return b[:len(b)-len(m0("b"))+3] }),
	oddSet("the only message is cut in its value", func(t *T) []byte { b := m0("a"); return b[:len(b)-1] }, 0, 1, 2),
	oddSet("the only message is cut in its size", func(t *T) []byte { return m0("a")[:10] }),
	oddSet("a message cut off behind 17 bytes", func(t *T) []byte { return m0("a")[:17] }),
	oddSet("a wrapper is cut", func(t *T) []byte { b := wrapper0(codecGzip, gz(m0("a"))); return b[:len(b)-1] }),
	oddSet("a wrapper behind a message is cut", func(t *T) []byte {
		b := join(m0("first"), wrapper0(codecGzip, gz(m0("a"))))
		return b[:len(b)-1]
	}),
	oddSet("the last message of magic 1 is cut", func(t *T) []byte { b := join(t.m1(0, "a"), t.m1(1, "b")); return b[:len(b)-1] }, 2),
	oddSet("a byte behind the messages", func(t *T) []byte { return append(m0("a"), 0) }),
	oddSet("zeros behind the messages", func(t *T) []byte { return append(m0("a"), make([]byte, 40)...) }),
	oddSet("a wrong CRC", func(t *T) []byte { b := m0("a"); b[12]++; return b }, 0, 1, 2),
	oddSet("a wrong CRC in the second", func(t *T) []byte { b := m0("b"); b[12]++; return join(m0("a"), b) }),
	oddSet("size 0", func(t *T) []byte { b := m0("a"); set32(8, 0)(b); return b }),
	oddSet("size -1", func(t *T) []byte { b := m0("a"); set32(8, -1)(b); return b }),
	oddSet("size 13", func(t *T) []byte { b := m0(""); set32(8, 13)(b); return b }),
	oddSet("size of the largest number", func(t *T) []byte { b := m0("a"); set32(8, math.MaxInt32)(b); return b }),
	oddSet("magic 3", func(t *T) []byte { return recut(m0("a"), set8(16, 3)) }),
	oddSet("magic -1", func(t *T) []byte { return recut(m0("a"), set8(16, -1)) }),
	oddSet("offsets that are set", func(t *T) []byte {
		return join(message(70, 0, 0, 0, nil, []byte("a")), message(3, 0, 0, 0, nil, []byte("b")))
	}),
	oddSet("negative offsets", func(t *T) []byte {
		return join(message(-1, 0, 0, 0, nil, []byte("a")), message(-9, 0, 0, 0, nil, []byte("b")))
	}),
	oddSet("key length -2", func(t *T) []byte { return recut(m0("a"), set32(18, -2)) }),
	oddSet("key beyond the message", func(t *T) []byte { return recut(m0("a"), set32(18, 50)) }),
	oddSet("value length -2", func(t *T) []byte { return recut(m0("a"), set32(22, -2)) }),
	oddSet("value beyond the message", func(t *T) []byte { return recut(m0("a"), set32(22, 50)) }),
	oddSet("value shorter than the message", func(t *T) []byte { return recut(m0("abc"), set32(22, 1)) }),
	oddSet("attributes of magic 0 with all other bits", func(t *T) []byte { return recut(m0("a"), set8(17, -8)) }),
	oddSet("attributes of magic 1 with all other bits", func(t *T) []byte { return recut(t.m1(0, "a"), set8(17, -16)) }, 2),
	oddSet("log append time", func(t *T) []byte { return recut(t.m1(0, "a"), set8(17, 8)) }, 2),
	oddSet("codec 5", func(t *T) []byte { return recut(m0("a"), set8(17, 5)) }),
	oddSet("codec 7", func(t *T) []byte { return recut(m0("a"), set8(17, 7)) }),
	oddSet("zstd, magic 0", func(t *T) []byte { return wrapper0(codecZstd, zstdOf(m0("a"))) }),
	oddSet("zstd, magic 1", func(t *T) []byte { return t.wrapper1(codecZstd, zstdOf(t.m1(0, "a"))) }, 2),
	oddSet("timestamp -1", func(t *T) []byte { return message(0, 1, 0, -1, nil, []byte("a")) }, 2),
	oddSet("timestamp -2", func(t *T) []byte { return message(0, 1, 0, -2, nil, []byte("a")) }, 2),
	oddSet("timestamp 0", func(t *T) []byte { return message(0, 1, 0, 0, nil, []byte("a")) }, 2),
	oddSet("a timestamp in microseconds", func(t *T) []byte { return message(0, 1, 0, t.Now*1000, nil, []byte("a")) }, 2),
	{"a compacted topic takes no messages without key", func(t *T) {
		topic := t.Topic("cleanup.policy=compact")
		t.Produce(0, topic, m0("a"))
		t.Produce(1, topic, m0("a"))
		t.Produce(2, topic, message(0, 1, 0, t.Now, nil, []byte("a")))
		t.Produce(2, topic, t.wrapper1(codecGzip, gz(message(0, 1, 0, t.Now, nil, []byte("a")))))
		t.Produce(2, topic, t.m1(0, "a"))
		t.Produce(2, topic, t.wrapper1(codecGzip, gz(t.m1(0, "a"))))
		t.Records(topic)
	}},
	oddSet("two wrappers", func(t *T) []byte { return join(wrapper0(codecGzip, gz(m0("a"))), wrapper0(codecGzip, gz(m0("b")))) }),
	oddSet("two wrappers, magic 1", func(t *T) []byte {
		return join(t.wrapper1(codecGzip, gz(t.m1(0, "a"))), t.wrapper1(codecGzip, gz(t.m1(0, "b"))))
	}, 2),
	oddSet("a wrapper behind a message", func(t *T) []byte { return join(m0("a"), wrapper0(codecGzip, gz(m0("b")))) }),
	oddSet("a wrapper with a key", func(t *T) []byte { return message(0, 0, codecGzip, 0, []byte("k"), gz(m0("b"))) }),
	oddSet("a wrapper without value", func(t *T) []byte { return message(0, 0, codecGzip, 0, nil, nil) }),
	oddSet("a wrapper of no bytes", func(t *T) []byte { return wrapper0(codecGzip, []byte{}) }),
	oddSet("a wrapper of no messages", func(t *T) []byte { return wrapper0(codecGzip, gz(nil)) }),
	oddSet("a wrapper in a wrapper", func(t *T) []byte { return wrapper0(codecGzip, gz(wrapper0(codecGzip, gz(m0("a"))))) }),
	oddSet("magic 1 in a wrapper of magic 0", func(t *T) []byte { return wrapper0(codecGzip, gz(t.m1(0, "a"))) }),
	oddSet("magic 0 in a wrapper of magic 1", func(t *T) []byte { return t.wrapper1(codecGzip, gz(m0("a"))) }, 2),
	oddSet("a message in a wrapper is cut", func(t *T) []byte {
		b := join(m0("a"), m0("b"))
		return wrapper0(codecGzip, gz(b[:len(b)-1]))
	}),
	oddSet("a message in a wrapper of magic 1 is cut", func(t *T) []byte {
		b := join(t.m1(0, "a"), t.m1(1, "b"))
		return t.wrapper1(codecGzip, gz(b[:len(b)-1]))
	}, 2),
	oddSet("a byte behind the messages in a wrapper", func(t *T) []byte { return wrapper0(codecGzip, gz(append(m0("a"), 0))) }),
	oddSet("a wrong CRC in a wrapper", func(t *T) []byte { b := m0("a"); b[12]++; return wrapper0(codecGzip, gz(b)) }),
	oddSet("offsets in a wrapper that are not in a row", func(t *T) []byte {
		return t.wrapper1(codecGzip, gz(join(t.m1(0, "a"), t.m1(5, "b"))))
	}, 2),
	oddSet("log append time in a wrapper", func(t *T) []byte {
		return t.wrapper1(codecGzip, gz(recut(t.m1(0, "a"), set8(17, 8))))
	}, 2),
	oddSet("a wrapper that claims log append time", func(t *T) []byte {
		return t.wrapper1(codecGzip|8, gz(t.m1(0, "a")))
	}, 2),
	packed0("gzip", codecGzip, gz),
	packed0("gzip: two members", codecGzip, func(b []byte) []byte { return join(gz(b[:5]), gz(b[5:])) }),
	packed0("gzip: bytes behind", codecGzip, func(b []byte) []byte { return join(gz(b), []byte("garbage")) }),
	packed0("gzip: not gzip", codecGzip, func(b []byte) []byte { return b }),
	packed0("snappy", codecSnappy, rawSnappy),
	packed0("snappy: two streams", codecSnappy, func(b []byte) []byte { return join(xerial(rawSnappy(b[:3])), xerial(rawSnappy(b[3:]))) }),
	packed0("snappy: three bytes behind", codecSnappy, func(b []byte) []byte { return join(xerial(rawSnappy(b)), []byte("abc")) }),
	packed0("snappy: bytes behind", codecSnappy, func(b []byte) []byte { return join(xerial(rawSnappy(b)), []byte("garbage")) }),
	packed0("lz4", codecLZ4, func(b []byte) []byte { return lz4Of(b) }),
	packed1("lz4", codecLZ4, func(b []byte) []byte { return lz4Of(b) }),
	packed0("lz4: the header checksum of 0.8", codecLZ4, func(b []byte) []byte { return lz4Frame{data: [][]byte{b}, oldHead: true}.bytes() }),
	packed1("lz4: the header checksum of 0.8", codecLZ4, func(b []byte) []byte { return lz4Frame{data: [][]byte{b}, oldHead: true}.bytes() }),
	packed0("lz4: a wrong header checksum", codecLZ4, func(b []byte) []byte { return lz4Frame{data: [][]byte{b}, badHead: true}.bytes() }),
	packed1("lz4: a wrong header checksum", codecLZ4, func(b []byte) []byte { return lz4Frame{data: [][]byte{b}, badHead: true}.bytes() }),
	packed0("lz4: linked blocks", codecLZ4, func(b []byte) []byte { return lz4Frame{data: [][]byte{b}, linked: true}.bytes() }),
	packed1("lz4: linked blocks", codecLZ4, func(b []byte) []byte { return lz4Frame{data: [][]byte{b}, linked: true}.bytes() }),
	packed0("lz4: legacy", codecLZ4, lz4Legacy),
	packed1("lz4: legacy", codecLZ4, lz4Legacy),
	packed0("lz4: two frames", codecLZ4, func(b []byte) []byte { return join(lz4Of(b[:5]), lz4Of(b[5:])) }),
	packed1("lz4: two frames", codecLZ4, func(b []byte) []byte { return join(lz4Of(b[:5]), lz4Of(b[5:])) }),
	packed0("lz4: an empty frame first", codecLZ4, func(b []byte) []byte { return join(lz4Of(), lz4Of(b)) }),
	packed0("lz4: a skippable frame first", codecLZ4, func(b []byte) []byte { return join(skippable("abc"), lz4Of(b)) }),
	packed0("lz4: bytes behind", codecLZ4, func(b []byte) []byte { return append(lz4Of(b), "garbage"...) }),
	packed1("lz4: bytes behind", codecLZ4, func(b []byte) []byte { return append(lz4Of(b), "garbage"...) }),
	packed1("lz4: no end mark", codecLZ4, func(b []byte) []byte { return lz4Frame{data: [][]byte{b}, noEnd: true}.bytes() }),
	packed1("lz4: content checksum", codecLZ4, func(b []byte) []byte { return lz4Frame{data: [][]byte{b}, sum: true}.bytes() }),
	packed1("lz4: a wrong content checksum", codecLZ4, func(b []byte) []byte { return lz4Frame{data: [][]byte{b}, sum: true, badSum: true}.bytes() }),
	packed1("lz4: wrong block checksums", codecLZ4, func(b []byte) []byte { return lz4Frame{data: [][]byte{b}, sums: true, badSum: true}.bytes() }),
	packed1("lz4: a content size", codecLZ4, func(b []byte) []byte { return lz4Frame{data: [][]byte{b}, size: true}.bytes() }),
	packed1("lz4: a wrong content size", codecLZ4, func(b []byte) []byte { return lz4Frame{data: [][]byte{b}, size: true, badSize: true}.bytes() }),
	packed1("lz4: a dictionary", codecLZ4, func(b []byte) []byte { return lz4Frame{data: [][]byte{b}, dict: true}.bytes() }),
}
