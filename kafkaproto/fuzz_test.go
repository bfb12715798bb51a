package kafkaproto

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func FuzzFromMessageSet(f *testing.F) {
	f.Add([]byte{}, false)
	f.Add(unhex(f, goldenSet0), false)
	f.Add(unhex(f, goldenSet1), false)
	for _, codec := range []Codec{Gzip, Snappy, LZ4} {
		for magic := range int8(2) {
			inner := encodeSet(legacy{0, magic, 0, 5, []byte("k"), []byte("v")}, legacy{1, magic, 0, 7, nil, nil})
			f.Add(legacy{1, magic, int8(codec), 7, nil, pack(f, codec, inner)}.encode(), true)
		}
	}
	f.Add(legacy{0, 0, int8(Snappy), 0, nil, append([]byte(xerialHeader), 0, 0, 0, 1, 0)}.encode(), true)
	f.Fuzz(func(t *testing.T, set []byte, reseal bool) {
		if reseal && len(set) > 16 {
			set = bytes.Clone(set) // one message with a right size and CRC, to get behind them
			sealKmsg(set)
		}
		lim := Limits{MaxMessageBytes: 1 << 20, MaxDecompressed: 1 << 20}
		batches, records, err := FromMessageSet(set, lim)
		if err != nil {
			if batches != nil || records != 0 {
				t.Fatal("an error and something else")
			}
			return
		}
		got := 0
		for _, b := range batches {
			if err := checkAgainst(b); err != nil {
				t.Fatal(err)
			}
			if b.Size() > lim.MaxMessageBytes+formatGrowth {
				t.Fatalf("batch of %d bytes", b.Size())
			}
			got += int(b.Header().Records)
		}
		if got != records {
			t.Fatalf("%d records in the batches, %d said", got, records)
		}
		for magic := range int8(2) {
			if _, err := ToMessageSet(nil, join(0, batches), magic, 0, 1<<22); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzToMessageSet(f *testing.F) {
	f.Add([]byte{}, int64(0), 100, false)
	f.Add(unhex(f, goldenBatch0), int64(1), 40, false)
	f.Add(unhex(f, goldenBatch), int64(0), 1000, true)
	for _, codec := range []Codec{Gzip, Snappy, LZ4} {
		f.Add(modern(3, func(b *kmsg.RecordBatch) { b.Attributes = int16(codec); b.Records = pack(f, codec, b.Records) }, value(0, "a"), value(2, "b")), int64(4), 1000, true)
	}
	f.Fuzz(func(t *testing.T, batches []byte, from int64, maxBytes int, reseal bool) {
		if reseal && len(batches) >= BatchHeaderSize {
			batches = bytes.Clone(batches) // one batch with a right length and CRC
			binary.BigEndian.PutUint32(batches[8:], uint32(len(batches)-12))
			resealBatch(batches)
		}
		maxBytes = min(maxBytes, 1<<20)
		for magic := range int8(2) {
			before := bytes.Clone(batches)
			set, err := ToMessageSet([]byte("before"), batches, magic, from, maxBytes)
			if err != nil && len(set) != 6 || !bytes.HasPrefix(set, []byte("before")) || len(set)-6 > max(maxBytes, 0) {
				t.Fatalf("%d bytes of %d, %v", len(set)-6, maxBytes, err)
			}
			if !bytes.Equal(before, batches) {
				t.Fatal("the batches were changed")
			}
			decodeSet(t, set[6:])
		}
	})
}

func FuzzCheckBatch(f *testing.F) {
	f.Add([]byte{})
	f.Add(unhex(f, goldenBatch))
	f.Add(append(unhex(f, goldenBatch0), unhex(f, goldenBatch1)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		size := 0
		for batch, err := range Batches(b) {
			if err != nil {
				break
			}
			size += batch.Size()
			if batch.CheckCRC() == nil {
				batch.Stamp(7, 1)
				if err := checkAgainst(batch); err != nil {
					t.Fatal(err)
				}
			}
		}
		if size > len(b) {
			t.Fatal("batches of more bytes than there are")
		}
		if checkBatch(b) == nil && size != len(b) {
			t.Fatal("a good batch is not found")
		}
	})
}

func FuzzParseHeader(f *testing.F) {
	f.Add([]byte("\x00\x03\x00\x00\x00\x00\x00\x01\x00\x04test\x00\x00\x00\x00"))
	f.Add([]byte("\x00\x12\x00\x03\x00\x00\x00\x01\xff\xff\x01\x00\x02aa\x01\x01\x00"))
	f.Add([]byte("\x00\x07\x00\x00\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		h, body, err := ParseHeader(frame)
		if err == nil && !bytes.HasSuffix(frame, body) {
			t.Fatal("the body is not the frame's end")
		}
		if n := len(AppendResponseHeader(nil, h)); n != 4 && n != 5 {
			t.Fatal(n)
		}
	})
}

func FuzzDecodeRequest(f *testing.F) {
	for _, api := range Served {
		for v := api.Min; v <= api.Max; v++ {
			f.Add(int16(api.Key), v, example(int16(api.Key), v).AppendTo(nil))
		}
	}
	f.Fuzz(func(t *testing.T, key, version int16, body []byte) {
		req, err := DecodeRequest(Header{Key: key, Version: version}, body, nil)
		if err != nil {
			return
		}
		// A body that was taken says no more than kmsg understood.
		if again := req.AppendTo(nil); len(again) > len(body) && len(body) > 0 {
			t.Fatalf("%x came back as %x", body, again)
		}
	})
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{}, 100)
	f.Add(frameOf(0, 20), 100)
	f.Add(frameOf(3, 8), 8)
	f.Add([]byte("GET / HTTP/1.1\r\n"), 1<<30)
	f.Add([]byte{0x16, 3, 1, 2, 0, 1}, 1<<30)
	f.Fuzz(func(t *testing.T, sent []byte, max int) {
		frame, err := ReadFrame(bytes.NewReader(sent), max)
		if err == nil && (len(frame) > max || !bytes.HasPrefix(sent[4:], frame)) {
			t.Fatalf("frame %x of %x", frame, sent)
		}
		if message, err2 := FrameOf(sent, max); err2 == nil && (err != nil || !bytes.Equal(message, frame)) {
			t.Fatalf("frame %x, %v; message %x", frame, err, message)
		}
	})
}
