package kafkaproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/iotest"
)

// frameOf is a frame with that API key and size, its prefix included.
func frameOf(key int16, size int) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(size))
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	for i := 2; i < size; i++ {
		b = append(b, byte(i))
	}
	return b
}

func TestReadFrame(t *testing.T) {
	for _, size := range []int{8, 9, 100, frameStep, frameStep + 1, 3*frameStep + 5, 1 << 20} {
		sent := append(frameOf(0, size), "next"...)
		for name, r := range map[string]io.Reader{
			"at once":       bytes.NewReader(sent),
			"in halves":     iotest.HalfReader(bytes.NewReader(sent)),
			"end with data": iotest.DataErrReader(bytes.NewReader(sent[:4+size])),
		} {
			got, err := ReadFrame(r, 1<<20)
			if err != nil || !bytes.Equal(got, sent[4:4+size]) {
				t.Fatalf("%d bytes %s: got %d, %v", size, name, len(got), err)
			}
			if rest, _ := io.ReadAll(r); name != "end with data" && string(rest) != "next" {
				t.Fatalf("%d bytes %s: %q is left", size, name, rest)
			}
		}
	}
}

func TestFrameSizesThatCannotBe(t *testing.T) {
	for _, c := range []struct {
		name  string
		start []byte
		max   int
	}{
		{"negative", []byte{0xff, 0xff, 0xff, 0xff}, 1 << 30},
		{"zero", []byte{0, 0, 0, 0}, 1 << 30},
		{"too small for a header", []byte{0, 0, 0, 7}, 1 << 30},
		{"above the limit", []byte{0, 0, 4, 1}, 1024},
		{"a TLS record", []byte{0x16, 3, 1, 2}, 1 << 30},
		{"the lowest TLS record", []byte{0x16, 0, 0, 0}, 1 << 30},
		{"HTTP", []byte("GET "), 1 << 30},
	} {
		if _, err := ReadFrame(bytes.NewReader(c.start), c.max); !errors.Is(err, ErrFrameSize) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestFrameThatEnds(t *testing.T) {
	sent := frameOf(0, 3*frameStep)
	if _, err := ReadFrame(bytes.NewReader(nil), 1<<20); err != io.EOF {
		t.Errorf("before a frame: %v, want io.EOF itself", err)
	}
	for _, n := range []int{1, 3, 4, 5, 11, 12, 13, frameStep, len(sent) - 1} {
		if _, err := ReadFrame(bytes.NewReader(sent[:n]), 1<<20); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
	broken := errors.New("broken")
	if _, err := ReadFrame(io.MultiReader(bytes.NewReader(sent[:100]), iotest.ErrReader(broken)), 1<<20); !errors.Is(err, broken) {
		t.Errorf("a reader's own error: %v", err)
	}
}

// A size prefix of 300 MB with nothing behind it takes no more than one step.
func TestFrameMemoryFollowsTheBytesThatArrive(t *testing.T) {
	start := binary.BigEndian.AppendUint32(nil, 300<<20)
	start = append(start, make([]byte, 100)...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := ReadFrame(bytes.NewReader(start), 350<<20); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 4*frameStep {
		t.Errorf("took %d bytes", took)
	}
}

// A request of a producer's largest size by default is read into one piece of memory, beside the
// first step.
func TestFrameOfOrdinarySizeIsNotCopiedAround(t *testing.T) {
	sent := frameOf(0, 1<<20+1000)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := ReadFrame(bytes.NewReader(sent), 350<<20); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > OrdinaryFrame+4*frameStep {
		t.Errorf("took %d bytes for %d", took, len(sent))
	}
}

func TestFrameOf(t *testing.T) {
	message := frameOf(0, 100)
	if frame, err := FrameOf(message, 100); err != nil || !bytes.Equal(frame, message[4:]) {
		t.Errorf("%x, %v", frame, err)
	}
	for name, m := range map[string][]byte{
		"empty":                   nil,
		"a prefix alone":          message[:4],
		"shorter than its prefix": message[:103],
		"longer than its prefix":  append(bytes.Clone(message), 0),
		"two requests":            append(bytes.Clone(message), message...),
		"above the limit":         frameOf(0, 101),
		"negative":                append([]byte{0xff, 0xff, 0xff, 0xff}, message[4:]...),
	} {
		if _, err := FrameOf(m, 100); !errors.Is(err, ErrFrameSize) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
