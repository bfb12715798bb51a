package kafkaproto

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// compressedBatch makes a batch of n records with keys at offset 100, a millisecond apart.
func compressedBatch(t *testing.T, codec Codec, n int) Batch {
	t.Helper()
	var records []byte
	for i := range n {
		r := record{timestampDelta: int64(i), offsetDelta: int32(i), key: fmt.Append(nil, "key-", i%7), value: bytes.Repeat(fmt.Append(nil, "value ", i, " "), 20)}
		if i%5 == 4 {
			r.value = nil
		}
		records = appendRecord(records, r)
	}
	b := make([]byte, BatchHeaderSize)
	if codec == None {
		b = append(b, records...)
	} else if codec == Zstd {
		b = append(b, zstdWriters.Get().(*zstd.Encoder).EncodeAll(records, nil)...)
	} else {
		var err error
		if b, err = compress(codec, b, records); err != nil {
			t.Fatal(err)
		}
	}
	batch := sealBatch(b, codec, n, 5000, 5000+int64(n)-1)
	batch.Stamp(100, 3)
	return batch
}

// TestRetain holds what is left of a batch, byte for byte: replicas that run other versions of the
// program must come to the same. If a library gives other bytes, fsm.CompactionAlgorithm needs
// another number.
func TestRetain(t *testing.T) {
	for codec, want := range map[Codec]string{
		None: "f3baa63c4dafe48c", Gzip: "c34c37ac4b0a29b5", Snappy: "6c157bec4b2a3966", LZ4: "7888771760020956",
		Zstd: "e9937f17eb09d4ed",
	} {
		batch := compressedBatch(t, codec, 40)
		all, kept, err := batch.Retain(func(Record) bool { return true })
		if err != nil || kept != 40 || !bytes.Equal(all.Bytes(), batch.Bytes()) {
			t.Errorf("%v: all: %d, %v", codec, kept, err)
		}
		odd := func(r Record) bool { return r.Offset%2 == 1 }
		rest, kept, err := batch.Retain(odd)
		if err != nil || kept != 20 {
			t.Fatalf("%v: %d, %v", codec, kept, err)
		}
		again, err := ParseBatch(rest.Bytes())
		if err != nil || again.CheckCRC() != nil || again.Header() != rest.Header() {
			t.Fatalf("%v: %v", codec, err)
		}
		h := rest.Header()
		if h.BaseOffset != 100 || h.NextOffset() != 140 || h.MaxTimestamp != 5039 || h.Codec() != codec || h.LeaderEpoch != 3 {
			t.Errorf("%v: %+v", codec, h)
		}
		offset := int64(101)
		err = again.Records(func(r Record) bool {
			if r.Offset != offset || string(r.Key) != fmt.Sprint("key-", (offset-100)%7) || r.Timestamp != 5000+offset-100 || r.Null != ((offset-100)%5 == 4) {
				t.Errorf("%v: %+v at %d", codec, r, offset)
			}
			offset += 2
			return true
		})
		if err != nil || offset != 141 {
			t.Errorf("%v: it ends at %d, %v", codec, offset, err)
		}
		sum := sha256.Sum256(rest.Bytes())
		if got := hex.EncodeToString(sum[:8]); got != want {
			t.Errorf("%v: %q, want %q", codec, got, want)
		}
		none, kept, err := rest.Retain(func(Record) bool { return false })
		if h := none.Header(); err != nil || kept != 0 || none.Size() != BatchHeaderSize || h.NextOffset() != 140 || h.Codec() != None || none.CheckCRC() != nil {
			t.Errorf("%v: none: %+v, %v", codec, h, err)
		}
	}
}

// TestRetainInSteps: what is left does not depend on the steps that led there.
func TestRetainInSteps(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 2))
		batch := compressedBatch(t, []Codec{None, Gzip, Snappy, LZ4, Zstd}[seed%5], 1+random.IntN(30))
		if random.IntN(4) == 0 {
			batch.StampLogAppendTime(7000)
		}
		gone := map[int64]bool{}
		steps := batch
		for range 3 {
			for o := int64(100); o < batch.Header().NextOffset(); o++ {
				if random.IntN(4) == 0 {
					gone[o] = true
				}
			}
			var err error
			if steps, _, err = steps.Retain(func(r Record) bool { return !gone[r.Offset] }); err != nil {
				t.Fatal(err)
			}
		}
		once, _, err := batch.Retain(func(r Record) bool { return !gone[r.Offset] })
		if err != nil || !bytes.Equal(once.Bytes(), steps.Bytes()) || once.Header() != steps.Header() {
			t.Fatalf("seed %d: in one step %x\nin three %x, %v", seed, once.Bytes(), steps.Bytes(), err)
		}
	}
}

// FuzzRetain takes any bytes for a batch: there is an error or a batch that is one.
func FuzzRetain(f *testing.F) {
	f.Add(compressedBatch(&testing.T{}, Gzip, 3).Bytes())
	f.Add(compressedBatch(&testing.T{}, None, 3).Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		batch, err := ParseBatch(b)
		if err != nil {
			return
		}
		rest, kept, err := batch.Retain(func(r Record) bool { return r.Offset%2 == 0 })
		if err != nil {
			return
		}
		again, err := ParseBatch(rest.Bytes())
		if err != nil || int(again.Header().Records) != kept {
			t.Fatalf("%d records: %v", kept, err)
		}
	})
}

// TestRecordsOutOfOrderAreCorrupt: what no producer can have sent must not be taken for records
// that have their place.
func TestRecordsOutOfOrderAreCorrupt(t *testing.T) {
	for name, deltas := range map[string][]int32{"twice": {0, 0}, "back": {1, 0}, "behind the batch": {0, 2}} {
		b := make([]byte, BatchHeaderSize)
		for _, d := range deltas {
			b = appendRecord(b, record{offsetDelta: d, key: []byte("k"), value: []byte("v")})
		}
		batch := sealBatch(b, None, len(deltas), 5, 5)
		if err := batch.Records(func(Record) bool { return true }); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: they are read: %v", name, err)
		}
		if _, _, err := batch.Retain(func(Record) bool { return false }); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: they are left out: %v", name, err)
		}
	}
}
