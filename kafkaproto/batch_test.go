package kafkaproto

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const goldenBatch = `
	0000000000000102          // base offset 258
	0000003a                  // batch length: 58 bytes follow
	00000007                  // partition leader epoch
	02                        // magic
	4ad20947                  // CRC-32C from attributes on
	0018                      // attributes: transactional, log append time
	00000001                  // last offset delta
	0000015d3ef79800          // base timestamp
	0000015d3ef798fa          // max timestamp
	0000000000001092          // producer id 4242
	0003                      // producer epoch
	00000009                  // base sequence
	00000001                  // 1 record: compaction took the other
	10 00 00 02 01 04 6869 00 // offset delta 1, null key, value "hi"`

func TestParseBatchHeader(t *testing.T) {
	b := unhex(t, goldenBatch)
	if err := checkBatch(b); err != nil {
		t.Fatal(err)
	}
	h, err := ParseBatchHeader(b[:BatchHeaderSize])
	want := BatchHeader{
		BaseOffset: 258, Length: 58, LeaderEpoch: 7, Magic: 2, CRC: 0x4ad20947, Attributes: 0x18, LastOffsetDelta: 1,
		BaseTimestamp: 1500000000000, MaxTimestamp: 1500000000250, ProducerID: 4242, ProducerEpoch: 3, BaseSequence: 9, Records: 1,
	}
	if err != nil || h != want {
		t.Errorf("got %+v, %v", h, err)
	}
	if h.Size() != len(b) || h.LastOffset() != 259 || h.NextOffset() != 260 || h.Codec() != None ||
		h.Control() || !h.Transactional() || !h.LogAppendTime() {
		t.Errorf("size %d, last %d, next %d, codec %v", h.Size(), h.LastOffset(), h.NextOffset(), h.Codec())
	}
}

func TestStampingKeepsTheCRC(t *testing.T) {
	b, err := ParseBatch(unhex(t, goldenBatch))
	if err != nil {
		t.Fatal(err)
	}
	b.Stamp(math.MaxInt64-100, math.MaxInt32)
	if err := checkAgainst(b); err != nil {
		t.Fatal(err)
	}
	if h := b.Header(); h.BaseOffset != math.MaxInt64-100 || h.LeaderEpoch != math.MaxInt32 {
		t.Errorf("%+v", h)
	}
}

func TestCheckBatchRefuses(t *testing.T) {
	good := modern(0, nil, value(0, "a"), value(1, "b"))
	change := func(at int, to ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], to)
		return resealBatch(b)
	}
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"nothing", nil, ErrCorrupt},
		{"a header cut", good[:60], ErrCorrupt},
		{"a batch cut", good[:len(good)-1], ErrCorrupt},
		{"a byte too many", append(bytes.Clone(good), 0), ErrCorrupt},
		{"two batches", append(bytes.Clone(good), good...), ErrCorrupt},
		{"magic 0", change(16, 0), ErrUnknownMagic},
		{"magic 3", change(16, 3), ErrUnknownMagic},
		{"a length below the header's", change(8, 0, 0, 0, 48), ErrCorrupt},
		{"a negative length", change(8, 0xff, 0xff, 0xff, 0xff), ErrCorrupt},
		{"a length that overflows", change(8, 0x7f, 0xff, 0xff, 0xff), ErrCorrupt},
		{"a negative base offset", change(0, 0x80), ErrCorrupt},
		{"a last offset that overflows", change(0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), ErrCorrupt},
		{"a negative last offset delta", change(23, 0xff, 0xff, 0xff, 0xff), ErrCorrupt},
		{"the highest last offset delta", change(23, 0x7f, 0xff, 0xff, 0xff), ErrCorrupt},
		{"a negative count", change(57, 0xff, 0xff, 0xff, 0xff), ErrCorrupt},
		{"more records than offsets", change(57, 0, 0, 0, 3), ErrCorrupt},
		{"a wrong CRC", append(bytes.Clone(good[:len(good)-1]), good[len(good)-1]^1), ErrCorrupt},
	} {
		if err := checkBatch(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestBatches(t *testing.T) {
	one, two := modern(0, nil, value(0, "a")), modern(1, func(b *kmsg.RecordBatch) { b.ProducerID = 1 }, value(0, "bb"))
	split := func(b []byte) (got [][]byte, failed error) {
		for batch, err := range Batches(b) {
			if err != nil {
				if batch.Bytes() != nil || failed != nil {
					t.Error("an error comes alone and last")
				}
				failed = err
				continue
			}
			got = append(got, batch.Bytes())
		}
		return got, failed
	}
	both := append(bytes.Clone(one), two...)
	if got, err := split(both); err != nil || len(got) != 2 || !bytes.Equal(got[0], one) || !bytes.Equal(got[1], two) || cap(got[0]) != len(one) {
		t.Errorf("%x, %v", got, err)
	}
	if got, err := split(nil); err != nil || got != nil {
		t.Errorf("%x, %v", got, err)
	}
	for _, cut := range []int{1, 60, 61, len(two) - 1} {
		if got, err := split(both[:len(one)+cut]); !errors.Is(err, ErrCorrupt) || len(got) != 1 {
			t.Errorf("cut at %d: %x, %v", cut, got, err)
		}
	}
	for range Batches(both) {
		break // leaving early is allowed
	}
}
