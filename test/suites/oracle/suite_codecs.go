package oracle

import (
	"encoding/binary"
	"strings"
)

// packed is a case of one batch of two records, compressed in an odd way.
func packed(name string, codec int16, pack func(records []byte) []byte) Case {
	return odd(name, func(t *T) []byte {
		return t.batch(pack(join(rec(0, "k", "first"), rec(1, "k", "second"))), 2, set16(atAttributes, codec))
	})
}

// lz4With is a case of an LZ4 frame of one block.
func lz4With(name string, f lz4Frame) Case {
	return packed("lz4: "+name, codecLZ4, func(b []byte) []byte { f.data = [][]byte{b}; return f.bytes() })
}

func lz4Of(parts ...[]byte) []byte { return lz4Frame{data: parts}.bytes() }

func zstdWith(name string, f zstdFrame) Case {
	return packed("zstd: "+name, codecZstd, func(b []byte) []byte { f.data = b; return f.bytes() })
}

func zstdOf(data []byte) []byte { return zstdFrame{data: data}.bytes() }

var codecCases = []Case{
	packed("gzip", codecGzip, gz),
	packed("gzip: two members", codecGzip, func(b []byte) []byte { return join(gz(b[:5]), gz(b[5:])) }),
	packed("gzip: an empty member first", codecGzip, func(b []byte) []byte { return join(gz(nil), gz(b)) }),
	packed("gzip: an empty member behind", codecGzip, func(b []byte) []byte { return join(gz(b), gz(nil)) }),
	packed("gzip: bytes behind", codecGzip, func(b []byte) []byte { return join(gz(b), []byte("garbage")) }),
	packed("gzip: zeros behind", codecGzip, func(b []byte) []byte { return join(gz(b), make([]byte, 30)) }),
	packed("gzip: a wrong CRC", codecGzip, func(b []byte) []byte { b = gz(b); b[len(b)-8]++; return b }),
	packed("gzip: a wrong size", codecGzip, func(b []byte) []byte { b = gz(b); b[len(b)-4]++; return b }),
	packed("gzip: the trailer is cut off", codecGzip, func(b []byte) []byte { b = gz(b); return b[:len(b)-8] }),
	packed("gzip: the trailer is cut", codecGzip, func(b []byte) []byte { b = gz(b); return b[:len(b)-1] }),
	packed("gzip: no data", codecGzip, func([]byte) []byte { return nil }),
	packed("gzip: not gzip", codecGzip, func(b []byte) []byte { return b }),
	packed("gzip: an unknown method", codecGzip, func(b []byte) []byte { b = gz(b); b[2] = 7; return b }),
	packed("gzip: a record too many inside", codecGzip, func(b []byte) []byte { return gz(join(b, rec(2, "k", "third"))) }),
	packed("gzip: a byte too many inside", codecGzip, func(b []byte) []byte { return gz(append(b, 0)) }),

	packed("snappy: xerial framing", codecSnappy, func(b []byte) []byte { return xerial(rawSnappy(b)) }),
	packed("snappy: no framing", codecSnappy, rawSnappy),
	packed("snappy: several blocks", codecSnappy, func(b []byte) []byte { return xerial(rawSnappy(b[:3]), rawSnappy(b[3:])) }),
	packed("snappy: two streams", codecSnappy, func(b []byte) []byte { return join(xerial(rawSnappy(b[:3])), xerial(rawSnappy(b[3:]))) }),
	packed("snappy: a header at the end", codecSnappy, func(b []byte) []byte { return join(xerial(rawSnappy(b)), xerialHeader(1, 1)) }),
	packed("snappy: an empty block first", codecSnappy, func(b []byte) []byte { return xerial(rawSnappy(nil), rawSnappy(b)) }),
	packed("snappy: an empty block behind", codecSnappy, func(b []byte) []byte { return xerial(rawSnappy(b), rawSnappy(nil)) }),
	packed("snappy: a block of no bytes", codecSnappy, func(b []byte) []byte { return xerial(rawSnappy(b), nil) }),
	packed("snappy: version 2", codecSnappy, func(b []byte) []byte {
		b = xerial(rawSnappy(b))
		return join(xerialHeader(2, 1), b[16:])
	}),
	packed("snappy: compatible with version 2", codecSnappy, func(b []byte) []byte {
		b = xerial(rawSnappy(b))
		return join(xerialHeader(2, 2), b[16:])
	}),
	packed("snappy: version 0", codecSnappy, func(b []byte) []byte {
		b = xerial(rawSnappy(b))
		return join(xerialHeader(0, 0), b[16:])
	}),
	packed("snappy: the header is cut", codecSnappy, func(b []byte) []byte { return xerialHeader(1, 1)[:10] }),
	packed("snappy: a header alone", codecSnappy, func(b []byte) []byte { return xerialHeader(1, 1) }),
	packed("snappy: three bytes behind", codecSnappy, func(b []byte) []byte { return join(xerial(rawSnappy(b)), []byte("abc")) }),
	packed("snappy: bytes behind", codecSnappy, func(b []byte) []byte { return join(xerial(rawSnappy(b)), []byte("garbage")) }),
	packed("snappy: block size -1 behind", codecSnappy, func(b []byte) []byte { return join(xerial(rawSnappy(b)), []byte{255, 255, 255, 255}) }),
	packed("snappy: the last block is cut", codecSnappy, func(b []byte) []byte { b = xerial(rawSnappy(b)); return b[:len(b)-1] }),
	packed("snappy: bytes behind the raw block", codecSnappy, func(b []byte) []byte { return append(rawSnappy(b), "abc"...) }),
	packed("snappy: no data", codecSnappy, func([]byte) []byte { return nil }),
	packed("snappy: a length that is too large", codecSnappy, func(b []byte) []byte {
		return join(binary.AppendUvarint(nil, uint64(len(b)+1)), rawSnappy(b)[1:])
	}),

	lz4With("a frame", lz4Frame{}),
	lz4With("compressed blocks", lz4Frame{packed: true}),
	packed("lz4: several blocks", codecLZ4, func(b []byte) []byte { return lz4Of(b[:3], b[3:]) }),
	lz4With("linked blocks", lz4Frame{linked: true}),
	lz4With("block checksums", lz4Frame{sums: true}),
	lz4With("wrong block checksums", lz4Frame{sums: true, badSum: true}),
	lz4With("content checksum", lz4Frame{sum: true}),
	lz4With("a wrong content checksum", lz4Frame{sum: true, badSum: true}),
	lz4With("content size", lz4Frame{size: true}),
	lz4With("a wrong content size", lz4Frame{size: true, badSize: true}),
	lz4With("a dictionary", lz4Frame{dict: true}),
	lz4With("a reserved bit", lz4Frame{reserved: true}),
	lz4With("version 2", lz4Frame{version: 2}),
	lz4With("block size 3", lz4Frame{max: 3}),
	lz4With("block size 7", lz4Frame{max: 7}),
	lz4With("block size 8", lz4Frame{max: 8}),
	lz4With("a wrong header checksum", lz4Frame{badHead: true}),
	lz4With("the header checksum of 0.8", lz4Frame{oldHead: true}),
	lz4With("no end mark", lz4Frame{noEnd: true}),
	packed("lz4: legacy", codecLZ4, lz4Legacy),
	packed("lz4: two frames", codecLZ4, func(b []byte) []byte { return join(lz4Of(b[:12]), lz4Of(b[12:])) }),
	packed("lz4: an empty frame first", codecLZ4, func(b []byte) []byte { return join(lz4Of(), lz4Of(b)) }),
	packed("lz4: an empty frame behind", codecLZ4, func(b []byte) []byte { return join(lz4Of(b), lz4Of()) }),
	packed("lz4: a skippable frame first", codecLZ4, func(b []byte) []byte { return join(skippable("abc"), lz4Of(b)) }),
	packed("lz4: a skippable frame behind", codecLZ4, func(b []byte) []byte { return join(lz4Of(b), skippable("abc")) }),
	packed("lz4: bytes behind", codecLZ4, func(b []byte) []byte { return append(lz4Of(b), "garbage"...) }),
	packed("lz4: a byte behind", codecLZ4, func(b []byte) []byte { return append(lz4Of(b), 0) }),
	packed("lz4: no data", codecLZ4, func([]byte) []byte { return nil }),
	packed("lz4: an empty frame", codecLZ4, func([]byte) []byte { return lz4Of() }),
	packed("lz4: a block of no bytes first", codecLZ4, func(b []byte) []byte { return lz4Of(nil, b) }),
	odd("lz4: a block larger than the frame allows", func(t *T) []byte {
		r := rec(0, "k", strings.Repeat("x", 70<<10))
		return t.batch(lz4Of(r), 1, set16(atAttributes, codecLZ4))
	}),
	odd("lz4: a block larger than the frame allows once unpacked", func(t *T) []byte {
		// 15 literals and one long match: little that becomes much.
		head := rec(0, "k", strings.Repeat("x", 70<<10))
		head = head[:len(head)-(70<<10)-1] // up to the value
		block := append([]byte{byte(len(head)+1)<<4 | 15}, append(head, 'x')...)
		block = append(block, 1, 0) // from one byte before
		n := 70<<10 - 1 - 5 - 19
		for ; n >= 255; n -= 255 {
			block = append(block, 255)
		}
		block = append(block, byte(n))
		block = append(append(block, 6<<4), "xxxxx\x00"...)
		frame := lz4Of()
		frame = frame[:len(frame)-4]
		frame = binary.LittleEndian.AppendUint32(frame, uint32(len(block)))
		return t.batch(append(append(frame, block...), 0, 0, 0, 0), 1, set16(atAttributes, codecLZ4))
	}),

	zstdWith("a frame", zstdFrame{}),
	zstdWith("a window of 1 MiB", zstdFrame{window: 10 << 3}),
	zstdWith("a window of 128 MiB", zstdFrame{window: 17 << 3}),
	zstdWith("a window of 144 MiB", zstdFrame{window: 17<<3 | 1}),
	zstdWith("a window of 256 MiB", zstdFrame{window: 18 << 3}),
	zstdWith("a dictionary", zstdFrame{dict: 7}),
	zstdWith("a wrong content checksum", zstdFrame{badSum: true}),
	zstdWith("a reserved bit", zstdFrame{reserved: true}),
	zstdWith("a wrong content size", zstdFrame{badSize: true}),
	zstdWith("no last block", zstdFrame{noLast: true}),
	zstdWith("a block of the reserved type", zstdFrame{badBlock: true}),
	packed("zstd: two frames", codecZstd, func(b []byte) []byte { return join(zstdOf(b[:5]), zstdOf(b[5:])) }),
	packed("zstd: an empty frame first", codecZstd, func(b []byte) []byte { return join(zstdOf(nil), zstdOf(b)) }),
	packed("zstd: an empty frame behind", codecZstd, func(b []byte) []byte { return join(zstdOf(b), zstdOf(nil)) }),
	packed("zstd: a skippable frame first", codecZstd, func(b []byte) []byte { return join(skippable("abc"), zstdOf(b)) }),
	packed("zstd: a skippable frame behind", codecZstd, func(b []byte) []byte { return join(zstdOf(b), skippable("abc")) }),
	packed("zstd: bytes behind", codecZstd, func(b []byte) []byte { return append(zstdOf(b), "garbage"...) }),
	packed("zstd: a byte behind", codecZstd, func(b []byte) []byte { return append(zstdOf(b), 0) }),
	packed("zstd: the frame is cut", codecZstd, func(b []byte) []byte { b = zstdOf(b); return b[:len(b)-1] }),
	packed("zstd: no data", codecZstd, func([]byte) []byte { return nil }),
	{"zstd: versions", func(t *T) {
		topic := t.Topic()
		for _, v := range []int16{3, 6, 7} {
			t.Produce(v, topic, t.batch(zstdOf(rec(0, "k", "v")), 1, set16(atAttributes, codecZstd)))
		}
	}},
	{"compressed and too large unpacked", func(t *T) {
		topic := t.Topic("max.message.bytes=1000")
		t.Produce(9, topic, t.batch(gz(rec(0, "k", strings.Repeat("x", 100_000))), 1, set16(atAttributes, codecGzip)))
	}},
	{"a codec without compression", func(t *T) {
		for codec := range int16(5) {
			topic := t.Topic()
			t.Produce(9, topic, t.batch(rec(0, "k", "v"), 1, set16(atAttributes, codec)))
		}
	}},
}
