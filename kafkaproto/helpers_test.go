package kafkaproto

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// unhex takes golden bytes in lines, each with what it means behind "//".
func unhex(t testing.TB, lines string) []byte {
	t.Helper()
	var digits strings.Builder
	for line := range strings.SplitSeq(lines, "\n") {
		line, _, _ = strings.Cut(line, "//")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// legacy is a message as the tests see it: kmsg encodes and decodes it, so that
// what is tested meets an implementation it shares nothing with.
type legacy struct {
	offset     int64
	magic      int8
	attributes int8
	timestamp  int64
	key, value []byte
}

func (m legacy) encode() []byte {
	if m.magic == 1 {
		k := kmsg.MessageV1{Offset: m.offset, Magic: 1, Attributes: m.attributes, Timestamp: m.timestamp, Key: m.key, Value: m.value}
		return sealKmsg(k.AppendTo(nil))
	}
	k := kmsg.MessageV0{Offset: m.offset, Magic: m.magic, Attributes: m.attributes, Key: m.key, Value: m.value}
	return sealKmsg(k.AppendTo(nil))
}

func sealKmsg(b []byte) []byte {
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	binary.BigEndian.PutUint32(b[12:], crc32.ChecksumIEEE(b[16:]))
	return b
}

func encodeSet(messages ...legacy) []byte {
	var set []byte
	for _, m := range messages {
		set = append(set, m.encode()...)
	}
	return set
}

// decodeSet reads a whole message set with kmsg and checks the CRCs; a cut last
// message is given as cut.
func decodeSet(t testing.TB, set []byte) (messages []legacy, cut []byte) {
	t.Helper()
	for len(set) > 0 {
		if len(set) < 12 || len(set)-12 < int(binary.BigEndian.Uint32(set[8:])) {
			return messages, set
		}
		b := set[:12+int(binary.BigEndian.Uint32(set[8:]))]
		set = set[len(b):]
		if binary.BigEndian.Uint32(b[12:]) != crc32.ChecksumIEEE(b[16:]) {
			t.Fatalf("message %x: wrong CRC", b)
		}
		switch b[16] {
		case 0:
			var m kmsg.MessageV0
			if err := m.ReadFrom(b); err != nil {
				t.Fatal(err)
			}
			messages = append(messages, legacy{m.Offset, 0, m.Attributes, -1, m.Key, m.Value})
		case 1:
			var m kmsg.MessageV1
			if err := m.ReadFrom(b); err != nil {
				t.Fatal(err)
			}
			messages = append(messages, legacy{m.Offset, 1, m.Attributes, m.Timestamp, m.Key, m.Value})
		default:
			t.Fatalf("message %x: magic %d", b, b[16])
		}
	}
	return messages, nil
}

// decodeBatch reads an uncompressed or compressed record batch with kmsg.
func decodeBatch(t testing.TB, b []byte) (kmsg.RecordBatch, []kmsg.Record) {
	t.Helper()
	var batch kmsg.RecordBatch
	if err := batch.ReadFrom(b); err != nil {
		t.Fatal(err)
	}
	raw := batch.Records
	if codec := Codec(batch.Attributes & 7); codec != None {
		raw = unpack(t, codec, raw)
	}
	var records []kmsg.Record
	for len(raw) > 0 {
		length, n := binary.Varint(raw)
		size := n + int(length)
		var r kmsg.Record
		if err := r.ReadFrom(raw[:size]); err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
		raw = raw[size:]
	}
	return batch, records
}

// pack and unpack are the codecs as clients implement them.
func pack(t testing.TB, codec Codec, b []byte) []byte {
	t.Helper()
	switch codec {
	case Gzip:
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	case Snappy:
		return snappy.Encode(nil, b)
	}
	out, err := compress(codec, nil, b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func unpack(t testing.TB, codec Codec, b []byte) []byte {
	t.Helper()
	switch codec {
	case Gzip:
		r, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if _, err := out.ReadFrom(r); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	case Snappy:
		// Output is always xerial: 16 bytes of header, then sized blocks.
		if string(b[:16]) != "\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01" {
			t.Fatalf("snappy without xerial header: %x", b[:16])
		}
		var out []byte
		for b = b[16:]; len(b) > 0; {
			n := int(binary.BigEndian.Uint32(b))
			block, err := snappy.Decode(nil, b[4:4+n])
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, block...)
			b = b[4+n:]
		}
		return out
	}
	out, err := decompress(codec, fromSet1, nil, b, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// checkBatch reports whether b is exactly one whole batch with the right CRC.
func checkBatch(b []byte) error {
	batch, err := ParseBatch(b)
	if err != nil {
		return err
	}
	return batch.CheckCRC()
}

// checkAgainst reports whether the batch's bytes are as its header says, all of it.
func checkAgainst(b Batch) error {
	again, err := ParseBatch(b.Bytes())
	if err == nil && again.Header() != b.Header() {
		err = fmt.Errorf("%+v in the bytes, %+v told", again.Header(), b.Header())
	}
	if err == nil {
		err = b.CheckCRC()
	}
	return err
}

// join puts batches one after another, stamped with consecutive offsets from base.
func join(base int64, batches []Batch) []byte {
	var all []byte
	for _, b := range batches {
		b.Stamp(base, 3)
		base = b.Header().NextOffset()
		all = append(all, b.Bytes()...)
	}
	return all
}
