package kafkaproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pierrec/lz4/v4"
	"pgregory.net/rapid"
)

const (
	// Three messages of magic 0, as a client sends them.
	goldenSet0 = `
		0000000000000007          // offset, which means nothing in a produce
		00000014                  // size: 20 bytes follow
		a4cdab3a                  // CRC-32 of what follows
		00 00                     // magic 0, attributes: no codec
		00000001 6b               // key "k"
		00000005 68656c6c6f       // value "hello"
		0000000000000008 0000000e a7ec6803 00 00
		ffffffff ffffffff         // null key, null value
		0000000000000009 0000000e e38a6876 00 00
		00000000 00000000         // empty key, empty value`
	// The same as a record batch.
	goldenBatch0 = `
		0000000000000000          // base offset
		0000004c                  // batch length: 76 bytes follow
		ffffffff 02               // no leader epoch, magic 2
		d52796a7                  // CRC-32C from attributes on
		0000                      // attributes
		00000002                  // last offset delta
		ffffffffffffffff          // base timestamp: none
		ffffffffffffffff          // max timestamp: none
		ffffffffffffffff ffff ffffffff // no producer id, epoch, sequence
		00000003                  // 3 records
		18 00 00 00 02 6b 0a 68656c6c6f 00  // length 12, attributes, deltas 0 0, key "k", value "hello", no headers
		0c 00 00 02 01 01 00      // length 6, offset delta 1, null, null
		0c 00 00 04 00 00 00      // length 6, offset delta 2, empty, empty`
	// Two messages of magic 1, 250 ms apart.
	goldenSet1 = `
		0000000000000005 0000001c 3b3ff067
		01 00                     // magic 1, attributes: create time
		0000015d3ef79800          // timestamp 1500000000000
		00000001 6b 00000005 68656c6c6f
		0000000000000005 00000016 4d79f9af 01 00
		0000015d3ef798fa ffffffff 00000000`
	goldenBatch1 = `
		0000000000000000 00000046 ffffffff 02 ed9dad62 0000 00000001
		0000015d3ef79800          // base timestamp: the first's
		0000015d3ef798fa          // max timestamp
		ffffffffffffffff ffff ffffffff 00000002
		18 00 00 00 02 6b 0a 68656c6c6f 00
		0e 00 f403 02 01 00 00    // timestamp delta 250`
)

func TestMessageSetsBecomeRecordBatches(t *testing.T) {
	for _, c := range []struct {
		name, set, batch string
		records          int
	}{
		{"magic 0", goldenSet0, goldenBatch0, 3},
		{"magic 1", goldenSet1, goldenBatch1, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			batches, records, err := FromMessageSet(unhex(t, c.set), Limits{})
			if err != nil || len(batches) != 1 || records != c.records {
				t.Fatalf("got %d batches, %d records, %v", len(batches), records, err)
			}
			if want := unhex(t, c.batch); !bytes.Equal(batches[0].Bytes(), want) {
				t.Errorf("got  %x\nwant %x", batches[0].Bytes(), want)
			}
			if err := checkAgainst(batches[0]); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRecordBatchesBecomeMessageSets(t *testing.T) {
	stamped := func(batch string, base int64) []byte {
		b, err := ParseBatch(unhex(t, batch))
		if err != nil {
			t.Fatal(err)
		}
		b.Stamp(base, 12)
		return b.Bytes()
	}
	got, err := ToMessageSet([]byte("before"), stamped(goldenBatch0, 7), 0, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if want := append([]byte("before"), unhex(t, goldenSet0)...); !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}

	got, err = ToMessageSet(nil, stamped(goldenBatch1, 5), 1, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	want := unhex(t, goldenSet1)
	binary.BigEndian.PutUint64(want[40:], 6) // the second message has the next offset
	if !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}

func TestEmptySetGivesNoBatches(t *testing.T) {
	for _, set := range [][]byte{nil, {}} {
		if batches, records, err := FromMessageSet(set, Limits{}); len(batches) != 0 || records != 0 || err != nil {
			t.Errorf("got %d batches, %d records, %v", len(batches), records, err)
		}
	}
	for _, maxBytes := range []int{0, 1, 1 << 20} {
		if set, err := ToMessageSet(nil, nil, 0, 0, maxBytes); len(set) != 0 || err != nil {
			t.Errorf("got %x, %v", set, err)
		}
	}
}

// A codec that magic 0 and 1 have stays what it was on the way in and out.
func TestCompressedSetsKeepTheirCodec(t *testing.T) {
	for _, magic := range []int8{0, 1} {
		for _, codec := range []Codec{Gzip, Snappy, LZ4} {
			t.Run(fmt.Sprintf("magic %d %v", magic, codec), func(t *testing.T) {
				timestamp := int64(-1)
				if magic == 1 {
					timestamp = 1234
				}
				var inner []legacy
				for i := range 1000 {
					inner = append(inner, legacy{int64(i), magic, 0, timestamp + int64(i)*int64(magic), []byte("key"), fmt.Appendf(nil, "value %d", i)})
				}
				wrapper := legacy{999, magic, int8(codec), timestamp, nil, pack(t, codec, encodeSet(inner...))}
				batches, records, err := FromMessageSet(wrapper.encode(), Limits{})
				if err != nil || len(batches) != 1 || records != 1000 {
					t.Fatalf("got %d batches, %d records, %v", len(batches), records, err)
				}
				if err := checkAgainst(batches[0]); err != nil {
					t.Fatal(err)
				}
				h := batches[0].Header()
				if h.Codec() != codec || h.LastOffsetDelta != 999 || h.Records != 1000 || h.BaseTimestamp != timestamp || h.ProducerID != -1 {
					t.Fatalf("batch header %+v", h)
				}
				_, got := decodeBatch(t, batches[0].Bytes())
				for i, r := range got {
					if string(r.Key) != "key" || string(r.Value) != fmt.Sprintf("value %d", i) || r.OffsetDelta != int32(i) {
						t.Fatalf("record %d: %+v", i, r)
					}
				}

				// And out again, from offset 5010 on, the batch standing at 5000.
				set, err := ToMessageSet(nil, join(5000, batches), magic, 5010, 1<<20)
				if err != nil {
					t.Fatal(err)
				}
				out, cut := decodeSet(t, set)
				if cut != nil {
					t.Fatal("cut")
				}
				relative := int64(0)
				if codec == LZ4 && magic == 0 {
					if len(out) != 990 {
						t.Fatalf("%d messages", len(out))
					}
				} else {
					if len(out) != 1 || Codec(out[0].attributes) != codec || out[0].offset != 5999 || out[0].key != nil {
						t.Fatalf("%d messages, the first %+v", len(out), out[0])
					}
					if magic == 1 {
						relative = 5010
						if out[0].timestamp != 1234+999 {
							t.Errorf("wrapper's timestamp %d, want its messages' highest", out[0].timestamp)
						}
					}
					out, _ = decodeSet(t, unpack(t, codec, out[0].value))
				}
				for i, m := range out {
					want := legacy{int64(5010+i) - relative, magic, 0, timestamp + int64(i+10)*int64(magic), []byte("key"), fmt.Appendf(nil, "value %d", i+10)}
					if !same(m, want) {
						t.Fatalf("message %d: got %+v, want %+v", i, m, want)
					}
				}
			})
		}
	}
}

func same(a, b legacy) bool {
	return a.offset == b.offset && a.magic == b.magic && a.attributes == b.attributes && a.timestamp == b.timestamp &&
		bytes.Equal(a.key, b.key) && (a.key == nil) == (b.key == nil) &&
		bytes.Equal(a.value, b.value) && (a.value == nil) == (b.value == nil)
}

func TestSnappyFramings(t *testing.T) {
	inner := encodeSet(legacy{0, 0, 0, -1, nil, bytes.Repeat([]byte("snappy "), 10000)})
	block := func(b []byte) []byte {
		packed := pack(t, Snappy, b)
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(packed))), packed...)
	}
	for name, value := range map[string][]byte{
		"raw":                pack(t, Snappy, inner),
		"xerial, one block":  append([]byte(xerialHeader), block(inner)...),
		"xerial, two blocks": append(append([]byte(xerialHeader), block(inner[:5000])...), block(inner[5000:])...),
		"two streams":        append(append([]byte(xerialHeader), block(inner[:9])...), append([]byte(xerialHeader), block(inner[9:])...)...),
	} {
		t.Run(name, func(t *testing.T) {
			batches, records, err := FromMessageSet(legacy{0, 0, int8(Snappy), -1, nil, value}.encode(), Limits{})
			if err != nil || records != 1 {
				t.Fatalf("%d records, %v", records, err)
			}
			if _, got := decodeBatch(t, batches[0].Bytes()); len(got[0].Value) != 70000 {
				t.Errorf("value of %d bytes", len(got[0].Value))
			}
		})
	}
}

// Java's producers of magic 0 computed the checksum of an LZ4 frame's header
// from the frame's start (KAFKA-3160).
func TestLZ4HeaderChecksumOfMagic0IsIgnored(t *testing.T) {
	frame := pack(t, LZ4, encodeSet(legacy{0, 0, 0, -1, nil, []byte("v")}))
	frame[6]++ // magic 4, FLG, BD, then the checksum
	batches, records, err := FromMessageSet(legacy{0, 0, int8(LZ4), -1, nil, frame}.encode(), Limits{})
	if err != nil || records != 1 || len(batches) != 1 {
		t.Errorf("magic 0: %d records, %v", records, err)
	}
	var out bytes.Buffer
	withSize := lz4.NewWriter(&out)
	if err := withSize.Apply(lz4.SizeOption(27)); err != nil {
		t.Fatal(err)
	}
	_, err = withSize.Write(encodeSet(legacy{0, 0, 0, -1, nil, []byte("v")}))
	if err := errors.Join(err, withSize.Close()); err != nil {
		t.Fatal(err)
	}
	frame = out.Bytes()
	frame[14]++ // eight bytes of content size stand before it
	if _, _, err := FromMessageSet(legacy{0, 0, int8(LZ4), -1, nil, frame}.encode(), Limits{}); err != nil {
		t.Errorf("magic 0 with content size: %v", err)
	}
	frame = pack(t, LZ4, encodeSet(legacy{0, 1, 0, -1, nil, []byte("v")}))
	frame[6]++
	if _, _, err := FromMessageSet(legacy{0, 1, int8(LZ4), -1, nil, frame}.encode(), Limits{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("magic 1: %v", err)
	}
}

func TestUncompressedMessagesShareBatchesUpToTheLimit(t *testing.T) {
	var messages []legacy
	for i := range 100 {
		// 100 bytes each
		messages = append(messages, legacy{0, 0, 0, -1, nil, bytes.Repeat([]byte{byte(i)}, 74)})
	}
	batches, records, err := FromMessageSet(encodeSet(messages...), Limits{MaxMessageBytes: 1000})
	if err != nil || records != 100 {
		t.Fatalf("%d records, %v", records, err)
	}
	n := 0
	for _, b := range batches {
		if b.Size() > 1000 {
			t.Errorf("batch of %d bytes", b.Size())
		}
		_, got := decodeBatch(t, b.Bytes())
		for _, r := range got {
			if r.Value[0] != byte(n) {
				t.Errorf("record %d holds %d", n, r.Value[0])
			}
			n++
		}
	}
	if n != 100 || len(batches) != 12 {
		t.Errorf("%d records in %d batches, want 9 in each", n, len(batches))
	}
}

func TestBatchesEndWhereMagicOrCompressionChanges(t *testing.T) {
	plain0, plain1 := legacy{0, 0, 0, -1, nil, []byte("0")}, legacy{0, 1, 0, 9, nil, []byte("1")}
	wrapper := legacy{0, 0, int8(Gzip), -1, nil, pack(t, Gzip, encodeSet(plain0, plain0))}
	batches, records, err := FromMessageSet(encodeSet(plain0, plain0, plain1, wrapper, plain0), Limits{})
	if err != nil || records != 6 {
		t.Fatalf("%d records, %v", records, err)
	}
	var got []string
	for _, b := range batches {
		h := b.Header()
		got = append(got, fmt.Sprintf("%d %v %d", h.Records, h.Codec(), h.BaseTimestamp))
	}
	if want := "2 none -1, 1 none 9, 2 gzip -1, 1 none -1"; strings.Join(got, ", ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
	set, err := ToMessageSet(nil, join(0, batches), 0, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	out, _ := decodeSet(t, set)
	var offsets []int64
	for _, m := range out {
		offsets = append(offsets, m.offset)
	}
	if fmt.Sprint(offsets) != "[0 1 2 4 5]" {
		t.Errorf("offsets %v: a wrapper has its last message's", offsets)
	}
}

// A last message that is cut off is left out, wherever it is cut, in the set and in a
// wrapper; what stands before it is taken.
func TestACutLastMessageIsLeftOut(t *testing.T) {
	for magic := range int8(2) {
		first := legacy{0, magic, 0, -1, []byte("key"), []byte("value")}.encode()
		second := legacy{0, magic, 0, -1, nil, []byte("second")}.encode()
		wrapper := legacy{0, magic, int8(Gzip), -1, nil, pack(t, Gzip, second)}.encode()
		for _, last := range [][]byte{second, wrapper} {
			for n := range len(last) {
				cut := append(bytes.Clone(first), last[:n]...)
				if batches, records, err := FromMessageSet(cut, Limits{}); err != nil || records != 1 || len(batches) != 1 {
					t.Errorf("magic %d, %d bytes of the last: %d batches, %d records, %v", magic, n, len(batches), records, err)
				}
				if batches, records, err := FromMessageSet(last[:n], Limits{}); err != nil || records != 0 || len(batches) != 0 {
					t.Errorf("magic %d, %d bytes of the only one: %d batches, %d records, %v", magic, n, len(batches), records, err)
				}
			}
		}
		for n := range len(second) {
			inside := legacy{0, magic, int8(Gzip), -1, nil, pack(t, Gzip, append(bytes.Clone(first), second[:n]...))}.encode()
			if batches, records, err := FromMessageSet(inside, Limits{}); err != nil || records != 1 || len(batches) != 1 {
				t.Errorf("magic %d, %d bytes of the last in a wrapper: %d batches, %d records, %v", magic, n, len(batches), records, err)
			}
		}
	}
}

func TestBadMessageSets(t *testing.T) {
	good := legacy{0, 0, 0, -1, []byte("key"), []byte("value")}.encode()
	change := func(at int, to ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], to)
		return b
	}
	resealed := func(at int, to ...byte) []byte {
		b := change(at, to...)
		return sealKmsg(b)
	}
	wrap := func(magic int8, codec Codec, value []byte) []byte {
		return legacy{0, magic, int8(codec), 5, nil, value}.encode()
	}
	inner := func(m ...legacy) []byte { return pack(t, Gzip, encodeSet(m...)) }
	plain := legacy{0, 0, 0, -1, nil, []byte("v")}
	lim := Limits{MaxMessageBytes: 10_000, MaxDecompressed: 100_000}
	for _, c := range []struct {
		name string
		set  []byte
		want error
	}{
		{"size negative", change(8, 0xff, 0xff, 0xff, 0xff), ErrCorrupt},
		{"size zero", change(8, 0, 0, 0, 0), ErrCorrupt},
		{"size below the least", change(8, 0, 0, 0, 13), ErrCorrupt},
		{"message above the limit", legacy{0, 0, 0, -1, nil, make([]byte, 10_000-26+1)}.encode(), ErrTooLarge},
		{"CRC", change(12, good[12]^1), ErrCorrupt},
		{"value flipped", change(len(good)-1, 'x'), ErrCorrupt},
		{"magic 2", resealed(16, 2), ErrUnknownMagic},
		{"magic negative", resealed(16, 0xff), ErrUnknownMagic},
		{"key length -2", resealed(18, 0xff, 0xff, 0xff, 0xfe), ErrCorrupt},
		{"key length beyond the end", resealed(18, 0, 0, 1, 0), ErrCorrupt},
		{"key length over the value's", resealed(18, 0, 0, 0, 4), ErrCorrupt},
		{"value length -2", resealed(25, 0xff, 0xff, 0xff, 0xfe), ErrCorrupt},
		{"value length short", resealed(25, 0, 0, 0, 4), ErrCorrupt},
		{"value length long", resealed(25, 0, 0, 0, 6), ErrCorrupt},
		{"magic 1 without room for a timestamp", sealKmsg(append(make([]byte, 16), 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)), ErrCorrupt},
		{"log append time", legacy{0, 1, 8, 5, nil, nil}.encode(), ErrInvalidTimestamp},
		{"negative timestamp", legacy{0, 1, 0, -2, nil, nil}.encode(), ErrInvalidTimestamp},
		{"zstd", wrap(1, Zstd, inner(plain)), ErrUnsupportedCompression},
		{"codec 7", wrap(0, 7, inner(plain)), ErrUnsupportedCompression},
		{"wrapper without value", wrap(0, Gzip, nil), ErrCorrupt},
		{"wrapper with log append time", wrap(1, Gzip|8, inner(plain)), ErrInvalidTimestamp},
		{"gzip that is none", wrap(0, Gzip, []byte("hello")), ErrCorrupt},
		{"gzip cut", wrap(0, Gzip, inner(plain)[:20]), ErrCorrupt},
		{"snappy that is none", wrap(0, Snappy, []byte("\xff\xff\xff\xff")), ErrCorrupt},
		{"snappy empty", wrap(0, Snappy, []byte{}), ErrCorrupt},
		{"xerial header cut", wrap(0, Snappy, []byte(xerialHeader[:10])), ErrCorrupt},
		{"xerial block size cut", wrap(0, Snappy, []byte(xerialHeader+"\x00\x00")), ErrCorrupt},
		{"xerial block size beyond the end", wrap(0, Snappy, []byte(xerialHeader+"\x7f\xff\xff\xff")), ErrCorrupt},
		{"xerial without blocks", wrap(0, Snappy, []byte(xerialHeader)), ErrCorrupt},
		{"lz4 that is none", wrap(1, LZ4, []byte("hello, I am no frame")), ErrCorrupt},
		{"lz4 of magic 0 that is short", wrap(0, LZ4, []byte{4, 0x22, 0x4d, 0x18, 0x48}), ErrCorrupt},
		{"wrapper of nothing", wrap(0, Gzip, inner()), ErrCorrupt},
		{"inner CRC", wrap(0, Gzip, pack(t, Gzip, change(12, good[12]^1))), ErrCorrupt},
		{"inner message cut", wrap(0, Gzip, pack(t, Gzip, good[:len(good)-1])), ErrCorrupt},
		{"wrapper in a wrapper", wrap(0, Gzip, inner(legacy{0, 0, int8(Gzip), -1, nil, inner(plain)})), ErrCorrupt},
		{"inner magic above", wrap(0, Gzip, inner(legacy{0, 1, 0, 5, nil, nil})), ErrCorrupt},
		{"inner magic below", wrap(1, Gzip, inner(plain)), ErrCorrupt},
		{"gzip bomb", wrap(0, Gzip, pack(t, Gzip, make([]byte, 1<<20))), ErrTooLarge},
		{"snappy bomb", wrap(0, Snappy, pack(t, Snappy, make([]byte, 200_000))), ErrTooLarge},
		{"snappy with a bad copy", wrap(0, Snappy, []byte{40, 0xfe, 0xff, 0xff}), ErrCorrupt},
		{"snappy that declares more than it can hold", wrap(0, Snappy, binary.AppendUvarint(nil, 90_000)), ErrCorrupt},
		{"lz4 bomb", wrap(1, LZ4, pack(t, LZ4, make([]byte, 1<<20))), ErrTooLarge},
		{"bombs that are small one by one", bytes.Repeat(wrap(0, Gzip, inner(legacy{0, 0, 0, -1, nil, make([]byte, 40_000)})), 3), ErrTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			batches, records, err := FromMessageSet(c.set, lim)
			if !errors.Is(err, c.want) || batches != nil || records != 0 {
				t.Errorf("got %d batches, %d records, %v; want %v", len(batches), records, err, c.want)
			}
		})
	}
}

func TestMessageOfExactlyTheLimitIsTaken(t *testing.T) {
	set := legacy{0, 0, 0, -1, nil, make([]byte, 10_000-26)}.encode()
	batches, _, err := FromMessageSet(set, Limits{MaxMessageBytes: 10_000})
	if err != nil || len(batches) != 1 || batches[0].Size() > 10_000+formatGrowth {
		t.Error(len(batches), err)
	}
}

// Only what the wrapper says about timestamps counts, as in Kafka.
func TestInnerLogAppendTimeIsIgnored(t *testing.T) {
	set := legacy{0, 1, int8(Gzip), 7, nil, pack(t, Gzip, legacy{0, 1, 8, 5, nil, nil}.encode())}.encode()
	batches, _, err := FromMessageSet(set, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if h := batches[0].Header(); h.LogAppendTime() || h.MaxTimestamp != 5 {
		t.Errorf("%+v", h)
	}
}

// Whatever a client puts into a message set of magic 0, including the bits of
// the attributes that mean nothing, comes back the same but for the offset.
func TestMagic0RoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		optional := rapid.Custom(func(t *rapid.T) []byte {
			if rapid.Bool().Draw(t, "null") {
				return nil
			}
			return rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes")
		})
		var messages []legacy
		for range rapid.IntRange(0, 40).Draw(t, "count") {
			messages = append(messages, legacy{
				rapid.Int64().Draw(t, "offset"), 0, int8(rapid.Byte().Draw(t, "attributes") &^ 7), -1,
				optional.Draw(t, "key"), optional.Draw(t, "value"),
			})
		}
		base := rapid.Int64Range(0, 1<<40).Draw(t, "base")
		lim := Limits{MaxMessageBytes: rapid.IntRange(700, 5000).Draw(t, "limit")}
		batches, records, err := FromMessageSet(encodeSet(messages...), lim)
		if err != nil || records != len(messages) {
			t.Fatal(records, err)
		}
		for i := range messages {
			messages[i].offset = base + int64(i)
		}
		want := encodeSet(messages...)
		got, err := ToMessageSet(nil, join(base, batches), 0, base, len(want))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("got %x %v\nwant %x", got, err, want)
		}
		// From any offset and cut anywhere, it is that piece of the whole.
		skip := rapid.IntRange(0, len(messages)).Draw(t, "skip")
		want = want[len(encodeSet(messages[:skip]...)):]
		cut := rapid.IntRange(0, len(want)).Draw(t, "cut")
		got, err = ToMessageSet(nil, join(base, batches), 0, base+int64(skip), cut)
		if err != nil || !bytes.Equal(got, want[:cut]) {
			t.Fatalf("from %d cut at %d: got %x %v\nwant %x", skip, cut, got, err, want[:cut])
		}
	})
}

func TestMagic1RoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		codec := rapid.SampledFrom([]Codec{None, Gzip, Snappy, LZ4}).Draw(t, "codec")
		var messages []legacy
		for i := range rapid.IntRange(1, 30).Draw(t, "count") {
			messages = append(messages, legacy{
				int64(i), 1, 0, rapid.Int64Min(-1).Draw(t, "timestamp"),
				rapid.SliceOf(rapid.Byte()).Draw(t, "key"), rapid.SliceOf(rapid.Byte()).Draw(t, "value"),
			})
		}
		set := encodeSet(messages...)
		if codec != None {
			packed, err := compress(codec, nil, set)
			if err != nil {
				t.Fatal(err)
			}
			set = legacy{0, 1, int8(codec), 0, nil, packed}.encode()
		}
		batches, _, err := FromMessageSet(set, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := ToMessageSet(nil, join(0, batches), 1, 0, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if codec != None {
			m, err := nextMessage(got, 0)
			if err != nil || m.size != len(got) || m.codec() != codec {
				t.Fatal(m, err)
			}
			if got, err = decompress(codec, fromSet1, nil, m.value, 1<<20); err != nil {
				t.Fatal(err)
			}
		}
		if want := encodeSet(messages...); !bytes.Equal(got, want) {
			t.Fatalf("got %x\nwant %x", got, want)
		}
	})
}
