package kafkaproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// lz4Frame is a frame of blocks that are not compressed, with the flags given.
func lz4Frame(flags byte, blocks ...[]byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, lz4Magic)
	b = append(b, 1<<6|flags, 4<<4)
	b = append(b, byte(shortXXH32(b[4:])>>8))
	for _, block := range blocks {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(block))|lz4Stored)
		b = append(b, block...)
	}
	return append(b, 0, 0, 0, 0)
}

func skippable() []byte { return []byte("\x50\x2a\x4d\x18\x03\x00\x00\x00abc") }

// concat puts bytes behind each other, in memory of their own.
func concat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// oddFrames are what some readers take and others do not, of the same content.
func oddFrames(t testing.TB, content []byte) map[Codec]map[string][]byte {
	half := len(content) / 2
	all := map[Codec]map[string][]byte{LZ4: {
		"linked blocks":             lz4Frame(0, content),
		"an empty frame first":      concat(lz4Frame(lz4Independent), lz4Frame(lz4Independent, content)),
		"an empty frame behind":     concat(lz4Frame(lz4Independent, content), lz4Frame(lz4Independent)),
		"a skippable frame first":   concat(skippable(), lz4Frame(lz4Independent, content)),
		"a skippable frame behind":  concat(lz4Frame(lz4Independent, content), skippable()),
		"two frames":                concat(lz4Frame(lz4Independent, content[:half]), lz4Frame(lz4Independent, content[half:])),
		"an empty block first":      lz4Frame(lz4Independent, nil, content),
		"the format before frames":  concat([]byte("\x02\x21\x4c\x18"), binary.LittleEndian.AppendUint32(nil, uint32(len(content)+2)), []byte{0xf0, byte(len(content) - 15)}, content),
		"compressed, nothing in it": slices.Insert(lz4Frame(lz4Independent, content), 7, 1, 0, 0, 0, 0),
	}}
	for _, codec := range []Codec{Gzip, Snappy, Zstd} {
		framed := func(b []byte) []byte {
			if codec == Snappy {
				return appendXerial(nil, b)
			}
			return packAny(t, codec, b)
		}
		all[codec] = map[string][]byte{
			"two of them":         concat(framed(content[:half]), framed(content[half:])),
			"an empty one behind": concat(framed(content), framed(nil)),
		}
	}
	all[Zstd]["a skippable frame first"] = concat(skippable(), packAny(t, Zstd, content))
	all[Zstd]["a skippable frame behind"] = concat(packAny(t, Zstd, content), skippable())
	return all
}

// What any consumer would stop at is not taken from a producer, though it could be read here;
// what an older program took is read.
func TestOddFramesAreRefusedAndReadFromTheLog(t *testing.T) {
	records := value(0, "as long as a block of LZ4 needs")
	content := modern(0, nil, records)[BatchHeaderSize:]
	for codec, frames := range oddFrames(t, content) {
		for name, frame := range frames {
			b := modern(0, func(b *kmsg.RecordBatch) { b.Attributes, b.Records = int16(codec), frame }, records)
			if _, err := CheckProduced(b, Limits{}); !errors.Is(err, ErrInvalidRecord) {
				t.Errorf("%v, %s: %v, want it refused", codec, name, err)
			}
			if got, err := decompress(codec, fromLog, nil, frame, 1<<20); err != nil && name != "compressed, nothing in it" || err == nil && !bytes.Equal(got, content) {
				t.Errorf("%v, %s: %d bytes of %d from the log, %v", codec, name, len(got), len(content), err)
			}
		}
		b := modern(0, func(b *kmsg.RecordBatch) { b.Attributes, b.Records = int16(codec), packAny(t, codec, content) }, records)
		if _, err := CheckProduced(b, Limits{}); err != nil {
			t.Errorf("%v: %v", codec, err)
		}
		for _, tail := range []string{"\x00", "abc", "garbage", "\x00\x00\x00\x00\x00\x00\x00\x00"} {
			b = modern(0, func(b *kmsg.RecordBatch) {
				b.Attributes, b.Records = int16(codec), append(packAny(t, codec, content), tail...)
			}, records)
			if _, err := CheckProduced(b, Limits{}); !errors.Is(err, ErrInvalidRecord) {
				t.Errorf("%v with %q behind: %v", codec, tail, err)
			}
		}
	}
}

// In message sets Java's LZ4 decides as well, as in Kafka; what is compressed anew may have
// been several streams.
func TestOddFramesInMessageSets(t *testing.T) {
	for magic := range int8(2) {
		inner := encodeSet(legacy{0, magic, 0, -1, nil, []byte("value")})
		for codec, frames := range oddFrames(t, inner) {
			for name, frame := range frames {
				batches, records, err := FromMessageSet(legacy{0, magic, int8(codec), -1, nil, frame}.encode(), Limits{})
				switch {
				case codec == Gzip || codec == Snappy:
					if err != nil || records != 1 {
						t.Errorf("magic %d, %v, %s: %d records, %v", magic, codec, name, records, err)
					} else if _, err := CheckProduced(batches[0].Bytes(), Limits{}); err != nil {
						t.Errorf("magic %d, %v, %s: what is stored: %v", magic, codec, name, err)
					}
				case err == nil:
					t.Errorf("magic %d, %v, %s: taken", magic, codec, name)
				}
			}
		}
	}
}

// A varint that other consumers do not read to its end is not taken.
func TestProducedVarintsAreThoseOfKafka(t *testing.T) {
	plain := modern(0, nil, kmsg.Record{Key: []byte("k"), Value: []byte("v"), Headers: []kmsg.Header{{Key: "h", Value: []byte("x")}}})[BatchHeaderSize:]
	// length, attributes, timestamp delta, offset delta, key length, key, value length, value,
	// header count, key length, key, value length, value
	for _, at := range []int{3, 4, 6, 8, 9, 11} {
		for more, want := range map[int]error{1: nil, 4: nil, 5: ErrInvalidRecord} {
			long := bytes.Repeat([]byte{0x80}, more)
			long[0] |= plain[at]
			long = append(long, 0)
			body := slices.Concat(plain[1:at], long, plain[at+1:])
			b := modern(0, func(b *kmsg.RecordBatch) {
				b.NumRecords, b.LastOffsetDelta = 1, 0
				b.Records = append(binary.AppendVarint(nil, int64(len(body))), body...)
			})
			if _, err := CheckProduced(b, Limits{}); !errors.Is(err, want) {
				t.Errorf("the varint at byte %d with %d bytes more: %v, want %v", at, more, err, want)
			}
		}
	}
}

func FuzzCheckCompressed(f *testing.F) {
	content := modern(0, nil, value(0, "as long as a block of LZ4 needs"))[BatchHeaderSize:]
	for codec, frames := range oddFrames(f, content) {
		f.Add(int8(codec), packAny(f, codec, content))
		for _, frame := range frames {
			f.Add(int8(codec), frame)
		}
	}
	f.Fuzz(func(t *testing.T, codec int8, src []byte) {
		c := Codec(codec)
		if c < Gzip || c > Zstd {
			return
		}
		strict, err := decompress(c, fromBatch, nil, src, 1<<20)
		if err != nil {
			return
		}
		if lenient, err := decompress(c, fromLog, nil, src, 1<<20); err != nil || !bytes.Equal(strict, lenient) {
			t.Fatalf("%v: what a producer may send is read in another way from the log: %v", c, err)
		}
		if _, err := decompress(c, fromBatch, nil, append(bytes.Clone(src), 0), 1<<20); err == nil {
			t.Fatalf("%v: a byte behind the frame is taken", c)
		}
	})
}

// The frames are walked over before they are decompressed: that takes nothing.
func TestCheckingFramesAllocatesNothing(t *testing.T) {
	for _, codec := range []Codec{LZ4, Zstd} {
		frame := packAny(t, codec, bytes.Repeat([]byte("Opticks "), 100_000))
		if n := testing.AllocsPerRun(10, func() {
			if err := checkCompressed(codec, fromBatch, frame); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%v: %v allocations", codec, n)
		}
	}
}

func TestRecordsThatATopicDoesNotTakeAreNamed(t *testing.T) {
	keyed := func(delta int32, timestamp int64, key []byte) kmsg.Record {
		return kmsg.Record{OffsetDelta: delta, TimestampDelta64: timestamp, Key: key, Value: []byte("v")}
	}
	k := []byte("k")
	lim := Limits{NeedKeys: true, Earliest: 500, Latest: 2000} // the batch begins at 1000
	for name, test := range map[string]struct {
		records []kmsg.Record
		cause   error
		want    []int32
	}{
		"all is well":                      {[]kmsg.Record{keyed(0, 0, k), keyed(1, 1000, k), keyed(2, -500, []byte{})}, nil, nil},
		"no key":                           {[]kmsg.Record{keyed(0, 0, nil), keyed(1, 0, k), keyed(2, 0, nil)}, ErrInvalidRecord, []int32{0, 2}},
		"too late":                         {[]kmsg.Record{keyed(0, 0, k), keyed(1, 1001, k)}, ErrInvalidTimestamp, []int32{1}},
		"too early":                        {[]kmsg.Record{keyed(0, -501, k), keyed(1, 0, k)}, ErrInvalidTimestamp, []int32{0}},
		"no time":                          {[]kmsg.Record{keyed(0, -1001, k)}, nil, nil},
		"negative":                         {[]kmsg.Record{keyed(0, -1002, k)}, ErrInvalidTimestamp, []int32{0}},
		"one without key and one too late": {[]kmsg.Record{keyed(0, 0, nil), keyed(1, 5000, k)}, ErrInvalidTimestamp, []int32{0, 1}},
		"no key, and too late":             {[]kmsg.Record{keyed(0, 5000, nil)}, ErrInvalidRecord, []int32{0}},
	} {
		_, err := CheckProduced(modern(0, nil, test.records...), lim)
		var found *InvalidRecords
		var got []int32
		if errors.As(err, &found) {
			for _, r := range found.Records {
				got = append(got, r.Index)
			}
		}
		if !errors.Is(err, test.cause) || !slices.Equal(got, test.want) {
			t.Errorf("%s: records %v, %v; want %v, %v", name, got, err, test.want, test.cause)
		}
	}
	var many []kmsg.Record
	for i := range int32(1000) {
		many = append(many, keyed(i, 0, nil))
	}
	_, err := CheckProduced(modern(0, nil, many...), lim)
	var found *InvalidRecords
	if !errors.As(err, &found) || len(found.Records) != maxBlamed {
		t.Errorf("of 1000 records without key %v", err)
	}
}

// Old message sets are held to the same.
func TestMessagesThatATopicDoesNotTake(t *testing.T) {
	lim := Limits{NeedKeys: true, Earliest: 500, Latest: 2000}
	for magic := range int8(2) {
		for name, test := range map[string]struct {
			m    legacy
			want error
		}{
			"a key":   {legacy{0, magic, 0, 1000, []byte("k"), nil}, nil},
			"no key":  {legacy{0, magic, 0, 1000, nil, nil}, ErrInvalidRecord},
			"no time": {legacy{0, magic, 0, -1, []byte("k"), nil}, nil},
			"late":    {legacy{0, magic, 0, 2001, []byte("k"), nil}, ErrInvalidTimestamp},
			"early":   {legacy{0, magic, 0, 499, []byte("k"), nil}, ErrInvalidTimestamp},
		} {
			want := test.want
			if magic == 0 && want == ErrInvalidTimestamp {
				want = nil // these have none
			}
			for _, set := range [][]byte{test.m.encode(), legacy{0, magic, int8(Gzip), 1000, nil, pack(t, Gzip, test.m.encode())}.encode()} {
				if _, _, err := FromMessageSet(set, lim); !errors.Is(err, want) {
					t.Errorf("magic %d, %s: %v, want %v", magic, name, err, want)
				}
			}
		}
	}
}
