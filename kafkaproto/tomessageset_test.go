package kafkaproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// modern builds a batch with kmsg, as a client of magic 2 would.
func modern(base int64, change func(*kmsg.RecordBatch), records ...kmsg.Record) []byte {
	var raw []byte
	lastDelta := int32(0)
	for _, r := range records {
		body := r
		body.Length = 0
		r.Length = int32(len(body.AppendTo(nil)) - 1)
		raw = r.AppendTo(raw)
		lastDelta = r.OffsetDelta
	}
	b := kmsg.RecordBatch{
		FirstOffset: base, Magic: 2, LastOffsetDelta: lastDelta, FirstTimestamp: 1000, MaxTimestamp: 2000,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: int32(len(records)), Records: raw,
	}
	if change != nil {
		change(&b)
	}
	out := b.AppendTo(nil)
	binary.BigEndian.PutUint32(out[8:], uint32(len(out)-12))
	return resealBatch(out)
}

func resealBatch(b []byte) []byte {
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func value(delta int32, v string) kmsg.Record {
	return kmsg.Record{OffsetDelta: delta, TimestampDelta64: int64(delta) * 10, Value: []byte(v)}
}

// describe writes a message set as "offset value offset value ...".
func describe(t *testing.T, set []byte) string {
	t.Helper()
	messages, cut := decodeSet(t, set)
	s := ""
	for _, m := range messages {
		s += fmt.Sprintf("%d %s ", m.offset, m.value)
	}
	if cut != nil {
		s += fmt.Sprintf("cut after %d ", len(cut))
	}
	return s
}

func TestOffsetsMayHaveGaps(t *testing.T) {
	log := modern(10, nil, value(0, "a"), value(3, "b"), value(4, "c"))
	log = append(log, modern(100, nil, value(2, "d"))...)
	for from, want := range map[int64]string{
		0:   "10 a 13 b 14 c 102 d ",
		11:  "13 b 14 c 102 d ",
		14:  "14 c 102 d ",
		15:  "102 d ",
		101: "102 d ",
		102: "102 d ",
		103: "",
	} {
		set, err := ToMessageSet(nil, log, 0, from, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if got := describe(t, set); got != want {
			t.Errorf("from %d: got %q, want %q", from, got, want)
		}
	}
}

// Compaction can take the last records of a batch, which keeps its offsets.
func TestBatchWithoutItsLastRecords(t *testing.T) {
	short := func(b *kmsg.RecordBatch) { b.LastOffsetDelta = 9 }
	gzipped := func(b *kmsg.RecordBatch) { short(b); b.Attributes = 1; b.Records = pack(t, Gzip, b.Records) }
	for _, change := range []func(*kmsg.RecordBatch){short, gzipped} {
		log := append(modern(10, change, value(0, "a")), modern(20, nil, value(0, "b"))...)
		set, err := ToMessageSet(nil, log, 0, 15, 1000)
		if err != nil || describe(t, set) != "20 b " {
			t.Errorf("%q, %v", describe(t, set), err)
		}
	}
	empty := modern(10, func(b *kmsg.RecordBatch) { b.LastOffsetDelta = 9 })
	if set, err := ToMessageSet(nil, empty, 0, 0, 1000); err != nil || len(set) != 0 {
		t.Errorf("empty batch: %q, %v", describe(t, set), err)
	}
}

func TestControlBatchesAreLeftOut(t *testing.T) {
	log := modern(0, nil, value(0, "a"))
	log = append(log, modern(1, func(b *kmsg.RecordBatch) { b.Attributes = 0x30 }, value(0, "marker"))...)
	log = append(log, modern(2, func(b *kmsg.RecordBatch) { b.Attributes = 0x10 }, value(0, "b"))...)
	set, err := ToMessageSet(nil, log, 0, 0, 1000)
	if err != nil || describe(t, set) != "0 a 2 b " {
		t.Errorf("%q, %v", describe(t, set), err)
	}
}

func TestHeadersAndTimestampsAreLeftOutOfMagic0(t *testing.T) {
	r := value(0, "v")
	r.Key = []byte("k")
	r.Headers = []kmsg.Header{{Key: "h", Value: []byte("x")}, {Key: "", Value: nil}}
	set, err := ToMessageSet(nil, modern(5, nil, r), 0, 0, 1000)
	if want := (legacy{5, 0, 0, -1, []byte("k"), []byte("v")}).encode(); err != nil || !bytes.Equal(set, want) {
		t.Errorf("got %x, %v\nwant %x", set, err, want)
	}
}

func TestTimestampsOfMagic1(t *testing.T) {
	set, err := ToMessageSet(nil, modern(0, nil, value(0, "a"), value(1, "b")), 1, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if m, _ := decodeSet(t, set); m[0].timestamp != 1000 || m[1].timestamp != 1010 || m[1].attributes != 0 {
		t.Errorf("create time: %+v", m)
	}
	set, err = ToMessageSet(nil, modern(0, func(b *kmsg.RecordBatch) { b.Attributes = 8 }, value(0, "a"), value(1, "b")), 1, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if m, _ := decodeSet(t, set); m[0].timestamp != 2000 || m[1].timestamp != 2000 || m[1].attributes != 8 {
		t.Errorf("log append time: %+v", m)
	}
}

func TestCodecsThatMagic0HasNotComeUncompressed(t *testing.T) {
	zstdPack := func(b []byte) []byte {
		w, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		return w.EncodeAll(b, nil)
	}
	for codec, packed := range map[Codec]func([]byte) []byte{
		LZ4:  func(b []byte) []byte { return pack(t, LZ4, b) },
		Zstd: zstdPack,
	} {
		b := modern(3, func(b *kmsg.RecordBatch) { b.Attributes = int16(codec); b.Records = packed(b.Records) }, value(0, "a"), value(1, "b"))
		set, err := ToMessageSet(nil, b, 0, 0, 1000)
		if err != nil || describe(t, set) != "3 a 4 b " {
			t.Errorf("%v: %q, %v", codec, describe(t, set), err)
		}
	}
}

// A wrapper that stands alone and does not fit would stop its reader for ever,
// though each of its messages may fit.
func TestWrapperThatDoesNotFitIsGivenAsMessages(t *testing.T) {
	noise := make([]byte, 3000)
	for i, x := 0, uint32(1); i < len(noise); i++ {
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	var records []kmsg.Record
	for i := range int32(3) {
		records = append(records, kmsg.Record{OffsetDelta: i, Value: noise[i*1000 : i*1000+1000]})
	}
	gzipped := modern(0, func(b *kmsg.RecordBatch) { b.Attributes = 1; b.Records = pack(t, Gzip, b.Records) }, records...)
	set, err := ToMessageSet(nil, gzipped, 0, 1, 1500)
	if err != nil {
		t.Fatal(err)
	}
	m, cut := decodeSet(t, set)
	if len(set) != 1500 || len(m) != 1 || m[0].offset != 1 || !bytes.Equal(m[0].value, noise[1000:2000]) || len(cut) != 1500-1026 {
		t.Errorf("%d bytes, %d messages, cut %d", len(set), len(m), len(cut))
	}
	// Behind another message it is a wrapper, and cut.
	log := append(modern(0, nil, value(0, "a")), modern(1, func(b *kmsg.RecordBatch) { b.Attributes = 1; b.Records = pack(t, Gzip, b.Records) }, records...)...)
	if set, err = ToMessageSet(nil, log, 0, 0, 1500); err != nil {
		t.Fatal(err)
	}
	m, cut = decodeSet(t, set)
	if len(set) != 1500 || len(m) != 1 || len(cut) != 1500-27 || cut[17] != 1 {
		t.Errorf("%d bytes, %d messages, cut %d", len(set), len(m), len(cut))
	}
}

func TestDamagedBatchesAreErrors(t *testing.T) {
	good := modern(0, nil, value(0, "a"), value(1, "b"))
	damage := func(at int, to byte) []byte { b := bytes.Clone(good); b[at] = to; return b }
	for name, b := range map[string][]byte{
		"cut header":               good[:40],
		"cut batch":                good[:len(good)-1],
		"flipped bit":              damage(len(good)-2, good[len(good)-2]^1),
		"magic":                    damage(16, 1),
		"length":                   damage(8, 0xff),
		"codec 5":                  resealBatch(damage(22, 5)),
		"gzip that is none":        resealBatch(damage(22, 1)),
		"snappy that is none":      resealBatch(damage(22, 2)),
		"lz4 that is none":         resealBatch(damage(22, 3)),
		"zstd that is none":        resealBatch(damage(22, 4)),
		"more records than stored": modern(0, func(b *kmsg.RecordBatch) { b.NumRecords, b.LastOffsetDelta = 3, 2 }, value(0, "a"), value(1, "b")),
		"fewer records":            modern(0, func(b *kmsg.RecordBatch) { b.NumRecords = 1 }, value(0, "a"), value(1, "b")),
		"offsets that fall":        modern(0, nil, value(1, "a"), value(1, "b")),
		"offset beyond the last":   modern(0, func(b *kmsg.RecordBatch) { b.LastOffsetDelta = 1 }, value(0, "a"), value(2, "b")),
		"record length":            resealBatch(damage(61, 0x7e)),
		"record length negative":   resealBatch(damage(61, 0x01)),
		"record empty":             resealBatch(damage(61, 0x00)),
		"key length":               resealBatch(damage(65, 0x7e)),
		"key length -2":            resealBatch(damage(65, 0x03)),
		"value length":             resealBatch(damage(66, 0x7e)),
		"offset delta negative":    resealBatch(damage(64, 0x01)),
	} {
		t.Run(name, func(t *testing.T) {
			set, err := ToMessageSet([]byte("before"), b, 0, 0, 1000)
			if err == nil || string(set) != "before" {
				t.Fatalf("%x, %v", set, err)
			}
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnknownMagic) && !errors.Is(err, ErrUnsupportedCompression) {
				t.Error(err)
			}
			// What stands before it is given first.
			log := append(modern(0, nil, value(0, "good")), b...)
			if set, err = ToMessageSet(nil, log, 0, 0, 1000); err != nil || describe(t, set) != "0 good " {
				t.Errorf("%q, %v", describe(t, set), err)
			}
		})
	}
	if _, err := ToMessageSet(nil, good, 2, 0, 1000); !errors.Is(err, ErrUnknownMagic) {
		t.Error(err)
	}
}

// A small batch can hold records that make a huge message set.
func TestBatchThatUnpacksToTooMuchForAWrapper(t *testing.T) {
	megabyte := make([]byte, 1<<20)
	var records []kmsg.Record
	for i := range int32(maxWrapped>>20 + 3) {
		records = append(records, kmsg.Record{OffsetDelta: i, Value: megabyte})
	}
	packed := modern(0, func(b *kmsg.RecordBatch) { b.Attributes = 2; b.Records = pack(t, Snappy, b.Records) }, records...)
	set, err := ToMessageSet(nil, packed, 0, 2, 3<<20)
	if err != nil {
		t.Fatal(err)
	}
	m, cut := decodeSet(t, set)
	if len(m) != 2 || m[0].offset != 2 || m[0].attributes != 0 || len(m[0].value) != 1<<20 || len(cut) == 0 {
		t.Errorf("%d messages, cut after %d", len(m), len(cut))
	}
}

// A set that is cut at any byte is the beginning of the whole set, and a message that
// is cut takes no more memory than what is given of it.
func TestACutSetIsTheBeginningOfAWholeOne(t *testing.T) {
	key := func(delta int32, k []byte, v string) kmsg.Record {
		r := value(delta, v)
		r.Key = k
		return r
	}
	log := modern(7, nil, key(0, nil, "first"), key(1, []byte{}, ""), key(2, []byte("a key"), "and a value"))
	for _, magic := range []int8{0, 1} {
		whole, err := ToMessageSet(nil, log, magic, 0, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for n := range len(whole) + 1 {
			set, err := ToMessageSet([]byte("before"), log, magic, 0, n)
			if want := append([]byte("before"), whole[:n]...); err != nil || !bytes.Equal(set, want) {
				t.Fatalf("magic %d, %d of %d bytes: %x, %v, want %x", magic, n, len(whole), set, err, want)
			}
		}
	}
	for name, codec := range map[string]Codec{"none": None, "gzip": Gzip} {
		const large = 20 << 20
		log := modern(0, func(b *kmsg.RecordBatch) {
			if codec != None {
				b.Attributes, b.Records = int16(codec), pack(t, codec, b.Records)
			}
		}, value(0, string(make([]byte, large))))
		set, err := ToMessageSet(nil, log, 0, 0, 1000)
		if err != nil || len(set) != 1000 {
			t.Fatalf("%s: %d bytes, %v", name, len(set), err)
		}
		if size := binary.BigEndian.Uint32(set[8:]); size != large+minMessage0 {
			t.Errorf("%s: the message says it has %d bytes", name, size)
		}
		if cap(set) > 64<<10 {
			t.Errorf("%s: 1000 bytes of a message of 20 MiB take %d", name, cap(set))
		}
	}
}
