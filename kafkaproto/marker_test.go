package kafkaproto

import (
	"encoding/hex"
	"errors"
	"testing"
)

// The bytes are those of kafka-clients 4.4.0:
// MemoryRecords.withEndTransactionMarker(0, 1700000000123, 7, 4242, 3, marker), with
// new EndTransactionMarker(COMMIT, 17) and (ABORT, -2).
var goldenMarkers = []struct {
	marker Marker
	hex    string
}{
	{Marker{Commit: true, CoordinatorEpoch: 17}, "00000000000000000000004200000007024670d3570030000000000000018bcfe5687b0000018bcf" +
		"e5687b00000000000010920003ffffffff000000012000000008000000010c00000000001100"},
	{Marker{CoordinatorEpoch: -2}, "000000000000000000000042000000070237067d540030000000000000018bcfe5687b0000018bcf" +
		"e5687b00000000000010920003ffffffff000000012000000008000000000c0000fffffffe00"},
}

func TestMarkersAreKafkas(t *testing.T) {
	for _, g := range goldenMarkers {
		want, err := hex.DecodeString(g.hex)
		if err != nil {
			t.Fatal(err)
		}
		b := NewMarker(g.marker, 4242, 3, 1_700_000_000_123)
		b.Stamp(0, 7)
		if got := b.Bytes(); hex.EncodeToString(got) != g.hex {
			t.Errorf("got  %x\nwant %s", got, g.hex)
		}
		read, err := ParseBatch(want)
		if err != nil || read.CheckCRC() != nil || read.Header() != b.Header() {
			t.Fatalf("%v, %+v, %+v", err, read.Header(), b.Header())
		}
		if m, err := ParseMarker(read); err != nil || m != g.marker {
			t.Errorf("%+v, %v", m, err)
		}
	}
}

// Control batches that end no transaction are told from markers, and nothing of a hostile one is
// believed.
func TestWhatIsNoMarker(t *testing.T) {
	good := func() []byte { return NewMarker(Marker{Commit: true}, 1, 1, 0).Bytes() }
	keyAt := BatchHeaderSize + 5 // behind length, attributes, two deltas and the key's length
	for name, spoil := range map[string]func(b []byte){
		"no control batch":   func(b []byte) { b[batchAttributesAt+1] &^= attrControl },
		"no transaction":     func(b []byte) { b[batchAttributesAt+1] &^= attrTransactional },
		"compressed":         func(b []byte) { b[batchAttributesAt+1] |= byte(Gzip) },
		"no producer":        func(b []byte) { b[43] = 0xff },
		"no epoch":           func(b []byte) { b[51] = 0xff },
		"a leader change":    func(b []byte) { b[keyAt+3] = 2 },
		"a negative version": func(b []byte) { b[keyAt] = 0x80 },
		"a short key":        func(b []byte) { b[keyAt-1] = 2 * 3 },
		"a long key":         func(b []byte) { b[keyAt-1] = 2 * 60 },
		"a long record":      func(b []byte) { b[BatchHeaderSize] = 2 * 60 },
		"no records":         func(b []byte) { b[60] = 0 },
	} {
		b := good()
		spoil(b)
		batch, err := ParseBatch(b)
		if err != nil {
			t.Fatal(name, err)
		}
		if _, err := ParseMarker(batch); !errors.Is(err, ErrInvalidRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
	later := good() // of a later version, which says no less
	later[keyAt+1] = 1
	batch, err := ParseBatch(later)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := ParseMarker(batch); err != nil || !m.Commit {
		t.Error(m, err)
	}
}

func FuzzParseMarker(f *testing.F) {
	f.Add(NewMarker(Marker{Commit: true, CoordinatorEpoch: 5}, 1, 1, 0).Bytes())
	f.Add(NewMarker(Marker{CoordinatorEpoch: -5}, 1<<40, 32767, 1).Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		batch, err := ParseBatch(b)
		if err != nil {
			return
		}
		m, err := ParseMarker(batch)
		if err != nil {
			if !errors.Is(err, ErrInvalidRecord) {
				t.Fatal(err)
			}
			return
		}
		h := batch.Header()
		again, err := ParseMarker(NewMarker(m, h.ProducerID, h.ProducerEpoch, h.BaseTimestamp))
		if err != nil || again != m {
			t.Fatalf("%+v is read as %+v, %v", m, again, err)
		}
	})
}
