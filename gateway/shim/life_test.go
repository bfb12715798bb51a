package shim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

func TestPingsAreAnsweredWhileNobodyReads(t *testing.T) {
	pongs := make(chan string, 1)
	dial(t, gateway(t, func(ws *websocket.Conn, _ *http.Request) {
		ws.SetPongHandler(func(data string) error {
			pongs <- data
			return nil
		})
		_ = ws.WriteControl(websocket.PingMessage, []byte("are you there"), time.Now().Add(time.Second))
		_, _, _ = ws.ReadMessage()
	}))
	if got := <-pongs; got != "are you there" {
		t.Errorf("the pong says %q", got)
	}
}

func TestAnotherSideThatFallsSilentIsGivenUp(t *testing.T) {
	over := make(chan struct{})
	defer close(over)
	d := &Dialer{KeepAlive: 50 * time.Millisecond}
	// which reads no ping
	conn, err := d.Dial("tcp", gateway(t, func(*websocket.Conn, *http.Request) { <-over }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, ErrSilent) {
		t.Errorf("read: %v, want %v", err, ErrSilent)
	}
	if _, err := conn.Write(kafkaMessage(nil)); err == nil {
		t.Error("wrote to a connection that was given up")
	}
}

func TestPongsKeepAQuietConnectionAlive(t *testing.T) {
	const keepAlive = 50 * time.Millisecond
	pings := make(chan struct{}, 100)
	d := &Dialer{KeepAlive: keepAlive}
	conn, err := d.Dial("tcp", gateway(t, func(ws *websocket.Conn, r *http.Request) {
		answer := ws.PingHandler()
		ws.SetPingHandler(func(data string) error {
			select {
			case pings <- struct{}{}:
			default:
			}
			return answer(data)
		})
		echo(ws, r)
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 4 * silentTicks { // far longer than keepAlive
		<-pings
	}
	message := kafkaMessage([]byte("still there"))
	if _, err := conn.Write(message); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(message))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, message) {
		t.Errorf("%q, %v", got, err)
	}
}

// A client may leave messages unread for as long as it likes: it is the one that
// is silent then.
func TestAReaderThatTakesItsTimeLosesNothing(t *testing.T) {
	const n = 20
	sent := make(chan struct{})
	d := &Dialer{KeepAlive: time.Hour} // ticks are made by hand
	conn, err := d.Dial("tcp", gateway(t, func(ws *websocket.Conn, r *http.Request) {
		for i := range n {
			if ws.WriteMessage(websocket.BinaryMessage, kafkaMessage([]byte{byte(i)})) != nil {
				break
			}
		}
		close(sent)
		echo(ws, r)
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	<-sent
	c := conn.(*Conn)
	for c.life.reading.Load() { // it waits for a Read with the first message in hand
		c.pause(time.Millisecond)
	}
	for range 10 * silentTicks {
		c.tick()
	}
	got := make([]byte, 5*n)
	if _, err := io.ReadFull(conn, got); err != nil || got[5*n-1] != n-1 {
		t.Errorf("%v: %x", err, got)
	}
}

// Who hears that nothing is there may take its time, too, and hears it behind the last message
// before anybody hears of the end.
func TestWhoIsToldToWaitMayTakeItsTime(t *testing.T) {
	waits, goOn := make(chan struct{}), make(chan struct{})
	d := &Dialer{
		KeepAlive: time.Hour, // ticks are made by hand
		Receive:   func([]byte) {},
		Waiting: func() {
			for _, c := range []chan struct{}{waits, goOn} {
				select {
				case c <- struct{}{}:
				case <-t.Context().Done():
				}
			}
		},
	}
	conn, err := d.DialContext(t.Context(), "tcp", gateway(t, func(ws *websocket.Conn, _ *http.Request) {
		_, _, _ = ws.ReadMessage()
		// The answer and the end come together.
		bytes := append(append([]byte{0x82, 4}, kafkaMessage(nil)...), 0x88, 2, 0x03, 0xe9)
		_, _ = ws.NetConn().Write(bytes)
		_, _, _ = ws.ReadMessage()
	}))
	if err != nil {
		t.Fatal(err)
	}
	c := conn.(*Conn)
	for i := range 2 { // before both, and behind
		select {
		case <-waits:
		case <-c.Ended():
			t.Fatal("nobody was told")
		}
		if i == 0 {
			if err := c.WriteMessage(kafkaMessage(nil)); err != nil {
				t.Fatal(err)
			}
		}
		for range 10 * silentTicks {
			c.tick()
		}
		select {
		case <-c.Ended():
			t.Fatal("the end comes before who is told is done")
		default:
		}
		<-goOn
	}
	if _, err := c.ReadMessage(); !errors.Is(err, io.EOF) {
		t.Errorf("the end is %v", err)
	}
	c.Close()
}

// pause waits for d or the end of the connection.
func (c *Conn) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.closed:
	}
}

// stuck is a gateway that takes nothing, and pings.
func stuck(t *testing.T) string {
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	return gateway(t, func(*websocket.Conn, *http.Request) { <-over })
}

func TestADeadlineEndsAWriteThatIsUnderWay(t *testing.T) {
	conn := dial(t, stuck(t))
	ended := make(chan error, 1)
	large := kafkaMessage(make([]byte, 64<<20)) // more than the sockets hold
	go func() {
		_, err := conn.Write(large)
		ended <- err
	}()
	for { // it has begun
		conn.writeDeadline.mu.Lock()
		sending := conn.writeDeadline.sending
		conn.writeDeadline.mu.Unlock()
		if sending {
			break
		}
		conn.pause(time.Millisecond)
	}
	if err := conn.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the write ends with %v", err)
	}
	_ = conn.SetWriteDeadline(time.Time{})
	if _, err := conn.Write(kafkaMessage(nil)); err == nil {
		t.Error("wrote behind a message that was cut off")
	}
}

func TestADeadlineThatPassedBeforeAMessageSpoilsNothing(t *testing.T) {
	conn := dial(t, gateway(t, echo))
	message := kafkaMessage([]byte("later"))
	_ = conn.SetWriteDeadline(time.Now().Add(-time.Second))
	if n, err := conn.Write(message); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes written, %v", n, err)
	}
	if err := conn.WriteMessage(message); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Time{})
	if _, err := conn.Write(message); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(message))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, message) {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestCloseEndsAWriteThatIsUnderWay(t *testing.T) {
	conn := dial(t, stuck(t))
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Write(kafkaMessage(make([]byte, 64<<20)))
		ended <- err
	}()
	if err := conn.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := <-ended; err == nil {
		t.Error("the write ended without an error")
	}
}

func TestEverythingAtOnce(t *testing.T) {
	conn := dial(t, gateway(t, echo))
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for range 50 {
				if conn.WriteMessage(kafkaMessage(bytes.Repeat([]byte{byte(i)}, 100*i))) != nil {
					return
				}
			}
		})
		all.Go(func() {
			for range 50 {
				if _, err := conn.ReadMessage(); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
					return
				}
			}
		})
		all.Go(func() {
			for range 50 {
				_ = conn.SetDeadline(time.Now().Add(time.Duration(i) * time.Millisecond))
				_ = conn.SetDeadline(time.Time{})
			}
		})
	}
	all.Go(func() {
		conn.pause(5 * time.Millisecond)
		conn.Close()
	})
	all.Wait()
}

func TestWhatAGoodbyeSaid(t *testing.T) {
	conn := dial(t, gateway(t, func(ws *websocket.Conn, _ *http.Request) {
		_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseGoingAway, GoodbyeReason), time.Now().Add(time.Second))
		_, _, _ = ws.ReadMessage()
	}))
	_, err := conn.ReadMessage()
	var closed *websocket.CloseError
	if !errors.Is(err, io.EOF) || !errors.As(err, &closed) || closed.Code != websocket.CloseGoingAway || closed.Text != GoodbyeReason {
		t.Errorf("%v", err)
	}
}

func TestABrokenConnectionIsNotAnOrderlyEnd(t *testing.T) {
	conn := dial(t, gateway(t, func(ws *websocket.Conn, _ *http.Request) { ws.NetConn().Close() }))
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
}

// room counts what messages hold.
type room struct {
	mu   sync.Mutex
	held int
	full error
}

func (r *room) Acquire(_ context.Context, n int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full == nil {
		r.held += n
	}
	return r.full
}

func (r *room) Release(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held -= n
}

func TestMemoryIsAskedForAndGivenBack(t *testing.T) {
	memory := &room{}
	d := &Dialer{Memory: memory}
	conn, err := d.Dial("tcp", gateway(t, func(ws *websocket.Conn, r *http.Request) {
		for range 3 {
			_ = ws.WriteMessage(websocket.BinaryMessage, kafkaMessage(make([]byte, 1000)))
		}
		_ = ws.WriteMessage(websocket.BinaryMessage, []byte{0, 0, 0, 9, 1})
		_, _, _ = ws.ReadMessage()
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, 1004)); err != nil { // gives back by itself
		t.Fatal(err)
	}
	for range 2 {
		message, err := conn.(*Conn).ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		memory.Release(len(message))
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, ErrMessageSize) {
		t.Fatal(err)
	}
	conn.Close()
	if memory.held != 0 {
		t.Errorf("%d bytes are held", memory.held)
	}
	memory.full = errors.New("no room")
	conn, err = d.Dial("tcp", gateway(t, echo))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = conn.Write(kafkaMessage(nil))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, memory.full) {
		t.Errorf("read: %v", err)
	}
}
