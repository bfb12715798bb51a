package link

import (
	"bytes"
	"errors"
	"io"
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestFramesComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.SliceOf(rapid.Byte())).Draw(t, "parts")
		typ, kind, id := rapid.Byte().Draw(t, "type"), rapid.Byte().Draw(t, "kind"), rapid.Uint64().Draw(t, "id")
		m := newMessage(typ, kind, id, parts...)
		wire := bytes.Join(m.parts, nil)
		if int64(len(wire)) != m.size {
			t.Fatalf("size %d, %d bytes", m.size, len(wire))
		}
		h, body, err := readFrame(bytes.NewReader(wire), 1<<20)
		if err != nil || h.typ != typ || h.kind != kind || h.id != id || !bytes.Equal(body, bytes.Join(parts, nil)) {
			t.Fatalf("%+v %x %v", h, body, err)
		}
		flip := rapid.IntRange(0, len(wire)*8-1).Draw(t, "flip")
		wire[flip/8] ^= 1 << (flip % 8)
		if _, _, err := readFrame(bytes.NewReader(wire), 1<<20); err == nil {
			t.Fatalf("bit %d flipped unnoticed", flip)
		}
	})
}

func TestFrameSizeIsBoundedBeforeAllocation(t *testing.T) {
	head := appendHeader(nil, frameCall, 0, 1, nil)
	head[0], head[1] = 0x0f, 0xff // 256 MiB announced, nothing sent
	if _, _, err := readFrame(bytes.NewReader(head), 100<<20); !errors.Is(err, errFrameSize) {
		t.Errorf("above the limit: %v", err)
	}
	got := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := readFrame(bytes.NewReader(head), 256<<20); !errors.Is(err, io.ErrUnexpectedEOF) {
				b.Fatal(err)
			}
		}
	})
	if got.AllocedBytesPerOp() > 2*trustedSize {
		t.Errorf("%d bytes allocated for a frame that never came", got.AllocedBytesPerOp())
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add(bytes.Join(newMessage(frameRequest, 0, 1, []byte("\x01gmessage")).parts, nil))
	f.Add([]byte{255, 255, 255, 255, 1, 1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, body, err := readFrame(bytes.NewReader(b), 1<<16)
		if err == nil && (int(h.length) != len(body) || len(body) > 1<<16) {
			t.Fatalf("%+v with %d bytes", h, len(body))
		}
	})
}

func TestHelloComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(0, 20, maxIdentity)
		low := rapid.Uint16().Draw(t, "low")
		h := hello{
			versionMin: low, versionMax: rapid.Uint16Range(low, math.MaxUint16).Draw(t, "high"), class: Class(rapid.Byte().Draw(t, "class")),
			boot: rapid.Uint64().Draw(t, "boot"), generation: rapid.Uint64().Draw(t, "generation"),
			identity: "x" + rapid.StringN(0, 20, maxIdentity-1).Draw(t, "identity"), target: text.Draw(t, "target"), clusterID: text.Draw(t, "cluster"),
		}
		var wire bytes.Buffer
		if err := writeHello(&wire, append(h.encode(), "of a later version"...)); err != nil {
			t.Fatal(err)
		}
		wire.WriteString("frames")
		body, err := readHello(&wire)
		if err != nil || wire.String() != "frames" {
			t.Fatalf("%v, left %q", err, wire.String())
		}
		if got, err := decodeHello(body); err != nil || got != h {
			t.Fatalf("%+v, want %+v: %v", got, h, err)
		}
		a := helloAnswer{version: low, reason: rapid.Byte().Draw(t, "reason"), identity: h.identity, clusterID: h.clusterID, text: h.target, boot: h.boot}
		if got, err := decodeHelloAnswer(a.encode()); err != nil || got != a {
			t.Fatalf("%+v, want %+v: %v", got, a, err)
		}
	})
}

func TestVersionsAreNegotiated(t *testing.T) {
	for _, c := range []struct {
		low, high, want uint16
		ok              bool
	}{{1, 1, 1, true}, {1, 9, 2, true}, {0, 1, 1, true}, {2, 9, 2, true}, {3, 9, 0, false}, {0, 0, 0, false}} {
		v, ok := chooseVersion(c.low, c.high)
		if ok != c.ok || (ok && v != c.want) {
			t.Errorf("%d to %d: %d %v", c.low, c.high, v, ok)
		}
	}
}

func FuzzHello(f *testing.F) {
	var b bytes.Buffer
	_ = writeHello(&b, hello{versionMin: 1, versionMax: 1, identity: "n1.0000abcd", target: "n2.00000000", clusterID: "c"}.encode())
	f.Add(b.Bytes())
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		body, err := readHello(bytes.NewReader(b))
		if err != nil {
			body = b
		}
		if h, err := decodeHello(body); err == nil {
			if got, err := decodeHello(h.encode()); err != nil || got != h {
				t.Fatalf("%+v became %+v, %v", h, got, err)
			}
		}
		_, _ = decodeHelloAnswer(body)
	})
}
