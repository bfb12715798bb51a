package listen

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// What is written in parts arrives as it is, in order, whatever the parts' sizes, and the parts
// stay as they were: whoever gave them counts them afterwards.
func TestPartsArriveInOrderAndStayWhatTheyWere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	in, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	o := newOutput(peek(accepted))
	if o.tcp == nil {
		t.Fatal("the TCP connection is not seen")
	}
	sizes := [][]int{{10}, {0, 5, 0}, {20, gatherFrom, 0}, {1, writePiece - 1, 1}, {3, 5*writePiece + 7, 0, 9}, {writePiece}, {0}}
	var want []byte
	go func() {
		defer accepted.Close()
		for i, frame := range sizes {
			var parts [][]byte
			for j, size := range frame {
				parts = append(parts, bytes.Repeat([]byte{byte(16*i + j)}, size))
			}
			if err := o.write(i%2 == 0 && i < len(sizes)-1, parts...); err != nil {
				t.Error(err)
			}
			for j, size := range frame {
				if len(parts[j]) != size {
					t.Errorf("frame %d, part %d has %d bytes afterwards, not %d", i, j, len(parts[j]), size)
				}
			}
		}
	}()
	for i, frame := range sizes {
		for j, size := range frame {
			want = append(want, bytes.Repeat([]byte{byte(16*i + j)}, size)...)
		}
	}
	got, err := io.ReadAll(in)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes arrive, want %d, %v", len(got), len(want), err)
	}
}

// taken is a connection that notes how much it was given.
type taken struct {
	net.Conn
	bytes int
}

func (c *taken) Write(b []byte) (int, error) {
	c.bytes += len(b)
	return len(b), nil
}

func (c *taken) SetWriteDeadline(time.Time) error { return nil }

// What the connection was given ends where a frame ends, whatever is kept back: a ping of a
// WebSocket may go out behind it, and in the middle of a frame it would be taken for a part of it.
func TestNothingIsSentInTheMiddleOfAFrame(t *testing.T) {
	for _, sizes := range [][]int{{70}, {4, 1500}, {gatherFrom - 1, 1}, {1, gatherFrom}, {100, 3 * gatherFrom}} {
		conn := &taken{}
		o := newOutput(conn)
		ends, end := map[int]bool{0: true}, 0
		for range 200 {
			var parts [][]byte
			for _, size := range sizes {
				parts = append(parts, make([]byte, size))
				end += size
			}
			ends[end] = true
			if err := o.write(true, parts...); err != nil {
				t.Fatal(err)
			}
			if !ends[conn.bytes] {
				t.Fatalf("frames of %v bytes: %d bytes are sent, which is in the middle of one", sizes, conn.bytes)
			}
		}
		if err := o.flush(); err != nil || conn.bytes != end {
			t.Errorf("frames of %v bytes: %d bytes are sent in the end, want %d, %v", sizes, conn.bytes, end, err)
		}
	}
}
