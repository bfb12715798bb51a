package wire

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"hash/crc32"
	"io"
	"testing"
)

// zeros is an endless source of them.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// gzipOfZeros packs n zero bytes, a multiple of 16 MiB, a thousandth of that on
// the wire. It packs 16 MiB once, and repeats what came out: with the race
// detector on a busy machine a gigabyte takes the packer more than a minute.
func gzipOfZeros(t *testing.T, n int64) []byte {
	t.Helper()
	const step = 16 << 20
	if n%step != 0 || n < 2*step {
		t.Fatalf("%d bytes", n)
	}
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	part := func(end func() error) []byte {
		packed.Reset()
		if _, err := io.CopyN(w, zeros{}, step); err != nil {
			t.Fatal(err)
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		return bytes.Clone(packed.Bytes())
	}
	// What comes after the first part refers back to nothing but zeros.
	first, again, last := part(w.Flush), part(w.Flush), part(w.Close)
	b := []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff} // RFC 1952, section 2.3
	b = append(b, first...)
	b = append(b, bytes.Repeat(again, int(n/step)-2)...)
	b = append(b, last...)
	sum, zero := crc32.NewIEEE(), make([]byte, step)
	for range n / step {
		sum.Write(zero)
	}
	b = binary.LittleEndian.AppendUint32(b, sum.Sum32())
	return binary.LittleEndian.AppendUint32(b, uint32(n))
}

func TestGzipOfZeros(t *testing.T) {
	const n = 64 << 20
	r, err := gzip.NewReader(bytes.NewReader(gzipOfZeros(t, n)))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.Copy(io.Discard, r); got != n || err != nil {
		t.Fatalf("%d bytes, %v", got, err)
	}
}

func gzipBytes(t *testing.T, p []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(p)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
