package kafkaproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func packAny(t testing.TB, codec Codec, b []byte) []byte {
	t.Helper()
	if codec != Zstd {
		return pack(t, codec, b)
	}
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(b, nil)
}

// good is what a producer sends: times 1000 to 1020, headers.
func good(t testing.TB, codec Codec) []byte {
	headed := value(1, "b")
	headed.Headers = []kmsg.Header{{Key: "trace", Value: []byte("7")}, {Key: "", Value: nil}}
	return modern(0, func(b *kmsg.RecordBatch) {
		b.MaxTimestamp = 1020
		b.ProducerID, b.ProducerEpoch, b.FirstSequence = 7, 1, 12
		if codec != None {
			b.Attributes, b.Records = int16(codec), packAny(t, codec, b.Records)
		}
	}, value(0, "a"), headed, value(2, "c"))
}

func TestProducedBatchesAreTakenAsTheyAre(t *testing.T) {
	for codec := None; codec <= Zstd; codec++ {
		b := good(t, codec)
		before := bytes.Clone(b)
		taken, err := CheckProduced(b, Limits{MaxMessageBytes: len(b), MaxDecompressed: 200})
		h := taken.Header()
		if err != nil || !bytes.Equal(b, before) {
			t.Errorf("%v: changed %v, %v", codec, !bytes.Equal(b, before), err)
		}
		if h.Records != 3 || h.ProducerID != 7 || h.ProducerEpoch != 1 || h.BaseSequence != 12 || h.Codec() != codec {
			t.Errorf("%v: %+v", codec, h)
		}
	}
}

func TestProducedMaxTimestampIsPutRight(t *testing.T) {
	b := modern(0, nil, value(0, "a"), value(1, "b")) // says 2000
	taken, err := CheckProduced(b, Limits{})
	if err != nil || taken.Header().MaxTimestamp != 1010 {
		t.Fatalf("%+v, %v", taken.Header(), err)
	}
	if err := checkAgainst(taken); err != nil {
		t.Error(err)
	}
	none := modern(0, func(b *kmsg.RecordBatch) { b.FirstTimestamp, b.MaxTimestamp = -1, -1 }, value(0, "a"))
	if taken, err := CheckProduced(none, Limits{}); err != nil || taken.Header().MaxTimestamp != -1 {
		t.Errorf("%+v, %v", taken.Header(), err)
	}
}

func TestProducedBatchesThatBreakARule(t *testing.T) {
	change := func(f func(b []byte)) []byte {
		b := good(t, None)
		f(b)
		return resealBatch(b)
	}
	with := func(f func(b *kmsg.RecordBatch), records ...kmsg.Record) []byte { return modern(0, f, records...) }
	header := func(key string, cut int) []byte {
		r := value(0, "a")
		r.Headers = []kmsg.Header{{Key: key, Value: []byte("v")}}
		return with(func(b *kmsg.RecordBatch) {
			b.Records = b.Records[:len(b.Records)-cut]
			b.Records[0] -= byte(2 * cut) // its length
		}, r)
	}
	for name, c := range map[string]struct {
		set  []byte
		want error
	}{
		"nothing":                {nil, ErrInvalidRecord},
		"a message set":          {encodeSet(legacy{0, 1, 0, 5, []byte("key"), []byte(strings.Repeat("v", 99))}), ErrInvalidRecord},
		"cut":                    {good(t, None)[:70], ErrInvalidRecord},
		"two batches":            {append(good(t, None), good(t, None)...), ErrInvalidRecord},
		"a byte more":            {append(good(t, None), 0), ErrInvalidRecord},
		"length 0":               {change(func(b []byte) { binary.BigEndian.PutUint32(b[8:], 0) }), ErrCorrupt},
		"negative length":        {change(func(b []byte) { binary.BigEndian.PutUint32(b[8:], 0xffffffff) }), ErrCorrupt},
		"wrong CRC":              {func() []byte { b := good(t, None); b[len(b)-1]++; return b }(), ErrCorrupt},
		"base offset 1":          {modern(1, nil, value(0, "a")), ErrInvalidRecord},
		"no records":             {with(nil), ErrInvalidRecord},
		"more offsets":           {change(func(b []byte) { b[26] = 3 }), ErrInvalidRecord},
		"fewer offsets":          {change(func(b []byte) { b[26] = 1 }), ErrInvalidRecord},
		"negative count":         {change(func(b []byte) { b[57] = 0xff }), ErrInvalidRecord},
		"control":                {with(func(b *kmsg.RecordBatch) { b.Attributes = attrControl }, value(0, "a")), ErrInvalidRecord},
		"transactional":          {with(func(b *kmsg.RecordBatch) { b.Attributes = attrTransactional }, value(0, "a")), ErrTransactional},
		"log append time":        {with(func(b *kmsg.RecordBatch) { b.Attributes = attrLogAppendTime }, value(0, "a")), ErrInvalidTimestamp},
		"a negative time":        {with(func(b *kmsg.RecordBatch) { b.FirstTimestamp = -2 }, value(0, "a")), ErrInvalidTimestamp},
		"a producer, no number":  {with(func(b *kmsg.RecordBatch) { b.ProducerID = 3 }, value(0, "a")), ErrInvalidRecord},
		"a producer, no epoch":   {with(func(b *kmsg.RecordBatch) { b.ProducerID, b.FirstSequence = 3, 0 }, value(0, "a")), ErrInvalidRecord},
		"codec 5":                {with(func(b *kmsg.RecordBatch) { b.Attributes = 5 }, value(0, "a")), ErrUnsupportedCompression},
		"not compressed at all":  {with(func(b *kmsg.RecordBatch) { b.Attributes = int16(Gzip) }, value(0, "a")), ErrInvalidRecord},
		"a record too many":      {with(func(b *kmsg.RecordBatch) { b.NumRecords, b.LastOffsetDelta = 1, 0 }, value(0, "a"), value(1, "b")), ErrInvalidRecord},
		"a record too few":       {with(func(b *kmsg.RecordBatch) { b.NumRecords, b.LastOffsetDelta = 2, 1 }, value(0, "a")), ErrInvalidRecord},
		"deltas 0 and 2":         {with(func(b *kmsg.RecordBatch) { b.LastOffsetDelta = 1 }, value(0, "a"), value(2, "b")), ErrInvalidRecord},
		"deltas 0 and 0":         {with(func(b *kmsg.RecordBatch) { b.LastOffsetDelta = 1 }, value(0, "a"), value(0, "b")), ErrInvalidRecord},
		"a header cut":           {header("key", 1), ErrInvalidRecord},
		"a header value cut off": {header("key", 2), ErrInvalidRecord},
		"a billion records":      {change(func(b []byte) { copy(b[23:], "\x3f\xff\xff\xff"); copy(b[57:], "\x40\x00\x00\x00") }), ErrInvalidRecord},
	} {
		_, err := CheckProduced(c.set, Limits{MaxMessageBytes: 1 << 20})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := CheckProduced(good(t, None), Limits{MaxMessageBytes: 90}); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
}

func TestInvalidRecordIsNamed(t *testing.T) {
	_, err := CheckProduced(modern(0, func(b *kmsg.RecordBatch) { b.LastOffsetDelta = 2 }, value(0, "a"), value(1, "b"), value(1, "c")), Limits{})
	var found *InvalidRecords
	if !errors.As(err, &found) || len(found.Records) != 1 || found.Records[0].Index != 2 || found.Records[0].Reason == "" {
		t.Errorf("%+v, %v", found, err)
	}
}

// What decompresses to much more than it is takes no more memory than allowed.
func TestProducedBombsAreBounded(t *testing.T) {
	bomb := value(0, strings.Repeat("\x00", 32<<20))
	for codec := Gzip; codec <= Zstd; codec++ {
		b := modern(0, func(b *kmsg.RecordBatch) {
			b.Attributes, b.Records = int16(codec), packAny(t, codec, b.Records)
		}, bomb)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := CheckProduced(b, Limits{MaxDecompressed: 1 << 20}); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%v: %v", codec, err)
		}
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 12<<20 {
			t.Errorf("%v took %d bytes", codec, took)
		}
	}
}

func TestStampLogAppendTime(t *testing.T) {
	b, err := CheckProduced(good(t, Gzip), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	b.StampLogAppendTime(5555)
	if err := checkAgainst(b); err != nil {
		t.Fatal(err)
	}
	if h := b.Header(); !h.LogAppendTime() || h.MaxTimestamp != 5555 || h.Codec() != Gzip || h.ProducerID != 7 {
		t.Errorf("%+v", h)
	}
	set, err := ToMessageSet(nil, b.Bytes(), 1, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	wrapper, _ := decodeSet(t, set)
	if wrapper[0].timestamp != 5555 || wrapper[0].attributes&attrLogAppendTime == 0 {
		t.Errorf("%+v", wrapper[0])
	}
}

func TestOffsetsByTime(t *testing.T) {
	at := func(delta int32, time int64) kmsg.Record {
		return kmsg.Record{OffsetDelta: delta, TimestampDelta64: time - 1000, Value: []byte("v")}
	}
	for codec := None; codec <= Zstd; codec++ {
		b, err := ParseBatch(modern(50, func(b *kmsg.RecordBatch) {
			b.MaxTimestamp, b.PartitionLeaderEpoch = 3000, 4
			if codec != None {
				b.Attributes, b.Records = int16(codec), packAny(t, codec, b.Records)
			}
		}, at(0, 1500), at(1, 3000), at(2, 2000), at(3, 3000)))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			from, timestamp int64
			offset          int64 // -1: none
		}{
			{0, 0, 50}, {0, 1500, 50}, {0, 1501, 51}, {0, 3000, 51}, {0, 3001, -1}, {52, 0, 52}, {52, 2001, 53}, {54, 0, -1},
		} {
			got, ok, err := b.FirstAtOrAfter(c.from, c.timestamp)
			if err != nil || ok != (c.offset >= 0) || ok && (got.Offset != c.offset || got.Timestamp < c.timestamp || got.LeaderEpoch != 4) {
				t.Errorf("%v, from %d, time %d: %+v %v, %v", codec, c.from, c.timestamp, got, ok, err)
			}
		}
		if got, ok, err := b.Latest(0); err != nil || !ok || got != (TimestampedOffset{51, 3000, 4}) {
			t.Errorf("%v: %+v %v, %v", codec, got, ok, err)
		}
		if got, ok, err := b.Latest(52); err != nil || !ok || got != (TimestampedOffset{53, 3000, 4}) {
			t.Errorf("%v: %+v %v, %v", codec, got, ok, err)
		}
		b.StampLogAppendTime(7000)
		if got, ok, _ := b.FirstAtOrAfter(51, 6000); !ok || got != (TimestampedOffset{51, 7000, 4}) {
			t.Errorf("%v: %+v %v", codec, got, ok)
		}
	}
	none, err := ParseBatch(modern(0, func(b *kmsg.RecordBatch) { b.FirstTimestamp, b.MaxTimestamp = -1, -1 }, at(0, 1000)))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := none.Latest(0); ok || err != nil {
		t.Errorf("a batch without times: %v, %v", ok, err)
	}
}

func FuzzCheckProduced(f *testing.F) {
	for codec := None; codec <= Zstd; codec++ {
		f.Add(good(f, codec), true)
	}
	f.Add(unhex(f, goldenBatch), false)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, b []byte, reseal bool) {
		b = bytes.Clone(b)
		if reseal && len(b) >= BatchHeaderSize {
			binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12)) // to get behind length and CRC
			resealBatch(b)
		}
		before := bytes.Clone(b)
		taken, err := CheckProduced(b, Limits{MaxMessageBytes: 1 << 20, MaxDecompressed: 1 << 20})
		if err != nil {
			if !bytes.Equal(b, before) {
				t.Fatal("changed, and refused")
			}
			return
		}
		h := taken.Header()
		if err := checkAgainst(taken); err != nil || taken.Size() != len(b) || h.Records < 1 {
			t.Fatalf("%+v, %v", h, err)
		}
		// Whatever is taken can be given out in every format, and found by its time.
		taken.Stamp(100, 3)
		for magic := range int8(2) {
			if _, err := ToMessageSet(nil, b, magic, 0, 1<<22); err != nil {
				t.Fatal(err)
			}
		}
		last, ok, err := taken.Latest(0)
		if err != nil || ok != (h.MaxTimestamp >= 0) || ok && last.Timestamp != h.MaxTimestamp {
			t.Fatalf("%+v %v, %v", last, ok, err)
		}
		if ok {
			if first, ok, err := taken.FirstAtOrAfter(0, h.MaxTimestamp); err != nil || !ok || first != last {
				t.Fatalf("%+v %v, %v", first, ok, err)
			}
		}
	})
}
