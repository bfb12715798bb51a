package shim

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"testing"

	"github.com/gorilla/websocket"
)

var discard = log.New(io.Discard, "", 0)

// canned is the far end of a connection: it answers the handshake and then sends
// what it was given. Everything written to it after that is kept.
func canned(t testing.TB, sends []byte) (*websocket.Conn, chan []byte) {
	near, far := net.Pipe()
	got := make(chan []byte, 1)
	go func() {
		defer far.Close()
		r := bufio.NewReader(far)
		request, err := http.ReadRequest(r)
		if err != nil {
			got <- nil
			return
		}
		sum := sha1.Sum([]byte(request.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		written := make(chan struct{})
		go func() {
			defer close(written)
			fmt.Fprintf(far, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
			_, _ = far.Write(sends)
		}()
		if sends == nil {
			all, _ := io.ReadAll(r)
			got <- all
		} else {
			go func() { _, _ = io.Copy(io.Discard, r) }()
		}
		<-written
	}()
	//lint:ignore SA1019 it takes a connection that is there, without a dial
	ws, _, err := websocket.NewClient(near, &url.URL{Scheme: "ws", Host: "canned", Path: "/"}, nil, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return ws, got
}

// serverFrame is a WebSocket frame as a server sends it.
func serverFrame(opcode byte, final bool, payload []byte) []byte {
	b := []byte{opcode, 126}
	if final {
		b[0] |= 0x80
	}
	return append(binary.BigEndian.AppendUint16(b, uint16(len(payload))), payload...)
}

// Whatever arrives, a reader gets whole Kafka messages or an error, in bounded
// memory, and Close ends all.
func FuzzRead(f *testing.F) {
	whole := kafkaMessage([]byte("abc"))
	f.Add(serverFrame(websocket.BinaryMessage, true, whole))
	f.Add(append(serverFrame(websocket.BinaryMessage, false, whole[:2]), serverFrame(0, true, whole[2:])...))
	f.Add(serverFrame(websocket.BinaryMessage, true, append(whole, 1)))
	f.Add(serverFrame(websocket.TextMessage, true, whole))
	f.Add(append([]byte{0x89, 2, 'h', 'i', 0x88, 2}, 0x03, 0xe9))
	f.Add([]byte{0x82, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1})
	f.Add([]byte{0x82, 5, 0xff, 0xff, 0xff, 0xff, 0})
	f.Fuzz(func(t *testing.T, sends []byte) {
		if sends == nil {
			sends = []byte{}
		}
		ws, _ := canned(t, sends)
		conn := NewConn(ws, 1<<16)
		for {
			message, err := conn.ReadMessage()
			if err != nil {
				break
			}
			if len(message) < sizePrefix || int(binary.BigEndian.Uint32(message)) != len(message)-sizePrefix || len(message) > 1<<16+sizePrefix {
				t.Fatalf("a message of %d bytes: %x", len(message), message[:min(len(message), 16)])
			}
		}
		conn.Close()
	})
}

// Whatever is written in whatever pieces, only whole messages are sent.
func FuzzWrite(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 7, 0, 0, 0, 0}, 3)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, 1)
	f.Add([]byte{0x16, 0, 0, 0, 1}, 2)
	f.Add(append(kafkaMessage(make([]byte, 900)), 0, 0, 0), 77)
	f.Fuzz(func(t *testing.T, stream []byte, step int) {
		const most = 1 << 10
		var want []byte // the messages that are whole and allowed
		for rest := stream; len(rest) >= sizePrefix; {
			size := int64(int32(binary.BigEndian.Uint32(rest)))
			if size < 0 || size > most || size+sizePrefix > int64(len(rest)) {
				break
			}
			want = append(want, rest[:size+sizePrefix]...)
			rest = rest[size+sizePrefix:]
		}
		ws, got := canned(t, nil)
		conn := NewConn(ws, most)
		step = max(step, 1)
		for rest := stream; len(rest) > 0; {
			n := min(step, len(rest))
			m, err := conn.Write(rest[:n])
			if err != nil {
				if !errors.Is(err, ErrMessageSize) {
					t.Fatal(err)
				}
				break
			}
			if m != n {
				t.Fatalf("wrote %d of %d bytes without an error", m, n)
			}
			if len(conn.unsent) > most+sizePrefix {
				t.Fatalf("%d bytes are kept", len(conn.unsent))
			}
			rest = rest[n:]
		}
		conn.drop() // what was written is at the other end of the pipe
		if sent := payloads(t, <-got); !bytes.Equal(sent, want) {
			t.Fatalf("sent %x, want %x", sent, want)
		}
		conn.Close()
	})
}

// payloads takes the binary messages out of a client's frames, each of which must
// be one Kafka message.
func payloads(t *testing.T, b []byte) (all []byte) {
	var message []byte
	for len(b) >= 6 {
		opcode, final, size := b[0]&0xf, b[0]&0x80 != 0, int(b[1]&0x7f)
		b = b[2:]
		switch size {
		case 126:
			size, b = int(binary.BigEndian.Uint16(b)), b[2:]
		case 127:
			size, b = int(binary.BigEndian.Uint64(b)), b[8:]
		}
		key, payload := b[:4], b[4:4+size]
		b = b[4+size:]
		if opcode != websocket.BinaryMessage && opcode != 0 {
			continue
		}
		for i := range payload {
			message = append(message, payload[i]^key[i%4])
		}
		if final {
			if int(binary.BigEndian.Uint32(message)) != len(message)-sizePrefix {
				t.Fatalf("a WebSocket message that is not one Kafka message: %x", message)
			}
			all, message = append(all, message...), nil
		}
	}
	return all
}
