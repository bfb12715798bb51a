package kafkaproto

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// benchmarkSet has 1 KiB messages that compress about as text does, 1 MiB in
// all, as one wrapper if there is a codec.
func benchmarkSet(b *testing.B, magic int8, codec Codec) []byte {
	var messages []legacy
	for i := range 1000 {
		var value []byte
		for j := 0; len(value) < 1000; j++ {
			value = fmt.Appendf(value, "%d words and %d numbers, ", i*j, i^j)
		}
		messages = append(messages, legacy{int64(i), magic, 0, 5, nil, value[:1000]})
	}
	set := encodeSet(messages...)
	if codec == None {
		return set
	}
	return legacy{0, magic, int8(codec), 5, nil, pack(b, codec, set)}.encode()
}

func benchmarkCodecs(b *testing.B, run func(b *testing.B, set []byte)) {
	for _, codec := range []Codec{None, Gzip, Snappy, LZ4} {
		set := benchmarkSet(b, 1, codec)
		b.Run(codec.String(), func(b *testing.B) {
			b.SetBytes(1 << 20)
			b.ReportAllocs()
			run(b, set)
		})
	}
}

func BenchmarkFromMessageSet(b *testing.B) {
	benchmarkCodecs(b, func(b *testing.B, set []byte) {
		for b.Loop() {
			if _, _, err := FromMessageSet(set, Limits{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkToMessageSet(b *testing.B) {
	benchmarkCodecs(b, func(b *testing.B, set []byte) {
		batches, _, err := FromMessageSet(set, Limits{})
		if err != nil {
			b.Fatal(err)
		}
		log := join(0, batches)
		var dst []byte
		for b.Loop() {
			if dst, err = ToMessageSet(dst[:0], log, 0, 0, 2<<20); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkCheckBatch(b *testing.B) {
	batches, _, err := FromMessageSet(benchmarkSet(b, 0, None), Limits{})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(batches[0].Size()))
	for b.Loop() {
		if err := checkBatch(batches[0].Bytes()); err != nil {
			b.Fatal(err)
		}
	}
}

// What a producer's batch of a MiB costs, by codec: decompressed once, and looked at.
func BenchmarkCheckProduced(b *testing.B) {
	var records []kmsg.Record
	for i := range int32(1000) {
		records = append(records, value(i, strings.Repeat("Opticks is a book about light. ", 34)))
	}
	for codec := None; codec <= Zstd; codec++ {
		set := modern(0, func(batch *kmsg.RecordBatch) {
			if codec != None {
				batch.Attributes, batch.Records = int16(codec), packAny(b, codec, batch.Records)
			}
		}, records...)
		b.Run(codec.String(), func(b *testing.B) {
			b.SetBytes(1 << 20)
			for b.Loop() {
				if _, err := CheckProduced(set, Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
