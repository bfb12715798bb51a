package shim

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gateway is the other side of the rule, written with nothing but the WebSocket
// library: handle gets the raw connection.
func gateway(t testing.TB, handle func(*websocket.Conn, *http.Request)) string {
	upgrader := websocket.Upgrader{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		ws, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		handle(ws, r)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// echo sends every message back as it is.
func echo(ws *websocket.Conn, _ *http.Request) {
	for {
		kind, message, err := ws.ReadMessage()
		if err != nil || ws.WriteMessage(kind, message) != nil {
			return
		}
	}
}

func dial(t testing.TB, addr string) *Conn {
	t.Helper()
	conn, err := (&Dialer{}).DialContext(context.Background(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*Conn)
}

func kafkaMessage(body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func TestAnySplitOfAnyMessagesArrivesWhole(t *testing.T) {
	var got []byte
	seen := make(chan []byte, 1)
	addr := gateway(t, func(ws *websocket.Conn, r *http.Request) {
		for {
			kind, message, err := ws.ReadMessage()
			if err != nil {
				return
			}
			if kind != websocket.BinaryMessage {
				t.Errorf("message of type %d", kind)
			}
			seen <- message
			if ws.WriteMessage(kind, message) != nil {
				return
			}
		}
	})
	conn := dial(t, addr)
	rapid.Check(t, func(t *rapid.T) {
		bodies := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 300), 1, 6).Draw(t, "bodies")
		var stream []byte
		for _, body := range bodies {
			stream = append(stream, kafkaMessage(body)...)
		}
		written := make(chan error, 1)
		cuts := rapid.SliceOfN(rapid.IntRange(1, 40), 1, 50).Draw(t, "cuts")
		go func() {
			rest := stream
			for i := 0; len(rest) > 0; i++ {
				n := min(cuts[i%len(cuts)], len(rest))
				if m, err := conn.Write(rest[:n]); err != nil || m != n {
					written <- err
					return
				}
				rest = rest[n:]
			}
			written <- nil
		}()
		for i, body := range bodies {
			if message := <-seen; !bytes.Equal(message, kafkaMessage(body)) {
				t.Fatalf("message %d arrived as %x, want %x", i, message, kafkaMessage(body))
			}
		}
		got = make([]byte, len(stream))
		if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, stream) {
			t.Fatalf("read back %x, %v", got, err)
		}
		if err := <-written; err != nil {
			t.Fatal(err)
		}
	})
}

func TestAReadThatTimedOutMayBeRepeated(t *testing.T) {
	conn := dial(t, gateway(t, echo))
	for range 3 {
		if err := conn.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read past the deadline: %v", err)
		}
		var netErr net.Error
		if _, err := conn.Read(make([]byte, 1)); !errors.As(err, &netErr) || !netErr.Timeout() {
			t.Fatalf("the error does not say that it is a timeout: %v", err)
		}
	}
	// A read that waits is ended by a deadline that is set meanwhile.
	ended := make(chan error, 1)
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := conn.Read(make([]byte, 1))
		ended <- err
	}()
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		// The read may have begun before the deadline was cleared and set again.
		t.Fatalf("waiting read: %v", err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	message := kafkaMessage([]byte("after"))
	if _, err := conn.Write(message); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(message))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, message) {
		t.Fatalf("after timeouts: %q, %v", got, err)
	}
}

func TestWhatBreaksTheRuleEndsTheConnection(t *testing.T) {
	for name, test := range map[string]struct {
		kind    int
		message []byte
		want    error
		code    int
	}{
		"text":                {websocket.TextMessage, kafkaMessage([]byte("x")), ErrMessageType, websocket.CloseUnsupportedData},
		"larger than allowed": {websocket.BinaryMessage, []byte{0x7f, 0, 0, 0, 1}, ErrMessageSize, websocket.CloseMessageTooBig},
		"much behind":         {websocket.BinaryMessage, append(kafkaMessage([]byte("a")), make([]byte, 8<<20)...), ErrMessageSize, websocket.CloseProtocolError},
		"too short":           {websocket.BinaryMessage, []byte{0, 0}, ErrMessageSize, websocket.CloseProtocolError},
		"prefix larger":       {websocket.BinaryMessage, []byte{0, 0, 0, 9, 1}, ErrMessageSize, websocket.CloseProtocolError},
		"two in one":          {websocket.BinaryMessage, append(kafkaMessage([]byte("a")), kafkaMessage([]byte("b"))...), ErrMessageSize, websocket.CloseProtocolError},
		"negative":            {websocket.BinaryMessage, []byte{0xff, 0xff, 0xff, 0xff}, ErrMessageSize, websocket.CloseProtocolError},
	} {
		t.Run(name, func(t *testing.T) {
			code := make(chan int, 1)
			conn := dial(t, gateway(t, func(ws *websocket.Conn, _ *http.Request) {
				_ = ws.WriteMessage(test.kind, test.message)
				_, _, err := ws.ReadMessage()
				var closed *websocket.CloseError
				if errors.As(err, &closed) {
					code <- closed.Code
				} else {
					code <- 0
				}
			}))
			if n, err := conn.Read(make([]byte, 10)); !errors.Is(err, test.want) || n != 0 {
				t.Errorf("read gives %d bytes, %v; want %v", n, err, test.want)
			}
			if got := <-code; got != test.code {
				t.Errorf("the gateway saw close code %d, want %d", got, test.code)
			}
		})
	}
}

func TestBadSizesAreNotSent(t *testing.T) {
	conn := dial(t, gateway(t, echo))
	if err := conn.WriteMessage([]byte{0, 0, 0, 5, 1}); !errors.Is(err, ErrMessageSize) {
		t.Errorf("disagreeing prefix: %v", err)
	}
	if err := conn.WriteMessage(nil); !errors.Is(err, ErrMessageSize) {
		t.Errorf("an empty message: %v", err)
	}
	if _, err := conn.Write([]byte{0x80, 0, 0, 0, 1, 2, 3}); !errors.Is(err, ErrMessageSize) {
		t.Errorf("negative size: %v", err)
	}
	if _, err := conn.Write(kafkaMessage(nil)); !errors.Is(err, ErrMessageSize) {
		t.Errorf("behind a bad size there is no next message: %v", err)
	}
}

func TestAGoodbyeIsTheEndOfTheStream(t *testing.T) {
	conn := dial(t, gateway(t, func(ws *websocket.Conn, _ *http.Request) {
		_ = ws.WriteMessage(websocket.BinaryMessage, kafkaMessage([]byte("last")))
		_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseGoingAway, "stopping"), time.Now().Add(time.Second))
		_, _, _ = ws.ReadMessage()
	}))
	all, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(all, kafkaMessage([]byte("last"))) {
		t.Fatalf("%q, %v", all, err)
	}
}

func TestCloseEndsAWaitingRead(t *testing.T) {
	conn := dial(t, gateway(t, echo))
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		ended <- err
	}()
	for range 2 {
		if err := conn.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if err := <-ended; err == nil {
		t.Error("the read ended without an error")
	}
	if _, err := conn.Write(kafkaMessage(nil)); err == nil {
		t.Error("wrote to a closed connection")
	}
}

func TestTheHandshakeIsPlain(t *testing.T) {
	headers := make(chan http.Header, 2)
	addr := gateway(t, func(ws *websocket.Conn, r *http.Request) {
		headers <- r.Header.Clone()
		echo(ws, r)
	})
	dial(t, addr)
	header := <-headers
	if header.Get("Origin") != "" || header.Get(AdvertiseHeader) != "" {
		t.Errorf("headers that nobody asked for: %v", header)
	}
	d := &Dialer{Advertise: "shim.example:9092"}
	conn, err := d.DialURL(context.Background(), "ws://"+addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := (<-headers).Get(AdvertiseHeader); got != "shim.example:9092" {
		t.Errorf("%s: %q", AdvertiseHeader, got)
	}
}

func TestARefusedHandshakeSaysWhy(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "host not allowed", http.StatusForbidden)
	}))
	defer server.Close()
	_, err := (&Dialer{}).Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
	if err == nil || !strings.Contains(err.Error(), "403") || !strings.Contains(err.Error(), "host not allowed") {
		t.Fatalf("%v", err)
	}
	for _, bad := range []string{"http://x", "ws://", "://", "x:1"} {
		if _, err := (&Dialer{}).DialURL(context.Background(), bad); err == nil {
			t.Errorf("%q was dialed", bad)
		}
	}
}
