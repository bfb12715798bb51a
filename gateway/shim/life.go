package shim

import (
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

const (
	// DefaultKeepAlive is how long the other side may be silent. Gateways ping every
	// 2 s, also when they are too busy to answer pings.
	DefaultKeepAlive = 6 * time.Second

	// silentTicks of KeepAlive/silentTicks each without a sign of life are the end.
	// Ticks are counted instead of time, so that a process that stood still itself
	// does not blame the other side.
	silentTicks = 4

	// controlTimeout bounds the write of a ping or pong. It is long, since a control
	// frame that times out breaks the connection, and a gateway that takes no
	// requests for a while is not gone.
	controlTimeout = time.Minute

	// closeGrace is how long Close waits for the other side to take its goodbye and
	// to answer it.
	closeGrace = 250 * time.Millisecond
)

// life is how a Conn knows that the other side is there.
type life struct {
	heard   atomic.Bool // bytes came since the last tick
	reading atomic.Bool // the reader waits for the other side, and not for a Read
	silent  int         // ticks in a row; only tick uses it
	every   time.Duration
	timer   *time.Timer
	pings   chan struct{}
	pongs   chan string
}

func (c *Conn) live(keepAlive time.Duration, serving func(bool)) {
	if keepAlive <= 0 {
		keepAlive = DefaultKeepAlive
	}
	l := &c.life
	l.every = max(keepAlive/silentTicks, time.Millisecond)
	l.pings = make(chan struct{}, 1)
	l.pongs = make(chan string, 1)
	l.reading.Store(true)
	c.ws.SetPongHandler(func(string) error {
		l.heard.Store(true)
		return nil
	})
	// Only the reader calls this, and it must not wait for a writer. Of many pings
	// the last one is answered (RFC 6455, section 5.5.3).
	c.ws.SetPingHandler(func(data string) error {
		l.heard.Store(true)
		if serving != nil {
			tell(serving, data)
		}
		select {
		case <-l.pongs:
		default:
		}
		l.pongs <- data
		return nil
	})
	c.ws.SetCloseHandler(func(int, string) error { return nil }) // ended answers
	go c.control()
	armed := make(chan struct{})
	l.timer = time.AfterFunc(l.every, func() {
		<-armed
		c.tick()
	})
	close(armed) // l.timer is set
}

// tick asks for a sign of life and counts how often none came.
func (c *Conn) tick() {
	select {
	case <-c.closed:
		return
	case <-c.readDone:
		return
	default:
	}
	l := &c.life
	if l.heard.Swap(false) || !l.reading.Load() {
		l.silent = 0
	} else if l.silent++; l.silent >= silentTicks {
		err := error(ErrSilent)
		c.cause.Store(&err)
		c.drop()
		return
	}
	select {
	case l.pings <- struct{}{}:
	default: // the last one is not sent yet
	}
	l.timer.Reset(l.every)
}

// control writes pings and pongs, which may have to wait for a message that is
// being sent.
func (c *Conn) control() {
	defer c.goroutines.Done()
	for {
		kind, data := websocket.PingMessage, ""
		select {
		case <-c.life.pings:
		case data = <-c.life.pongs:
			kind = websocket.PongMessage
		case <-c.closed:
			return
		}
		// Where it fails, messages fail, too, or the reader sees why.
		_ = c.ws.WriteControl(kind, []byte(data), time.Now().Add(controlTimeout))
	}
}

// Close says goodbye, waits a moment for the other side to answer it, so that
// what was written arrives, and ends the connection. Reads and Writes that are
// under way fail. It may be called more than once.
func (c *Conn) Close() error {
	err := c.closeWith(websocket.CloseNormalClosure)
	c.goroutines.Wait()
	return err
}

func (c *Conn) closeWith(code int) (err error) {
	c.closeOnce.Do(func() {
		close(c.closed)
		c.cancel()
		var data []byte // codes that must not be sent (RFC 6455, section 7.4.1) are left out
		if code != websocket.CloseNoStatusReceived && code != websocket.CloseAbnormalClosure {
			data = websocket.FormatCloseMessage(code, "")
		}
		until := time.Now().Add(closeGrace)
		if c.ws.WriteControl(websocket.CloseMessage, data, until) == nil {
			c.letArrive(until)
			grace := time.NewTimer(time.Until(until))
			select {
			case <-c.readDone:
			case <-grace.C:
			}
			grace.Stop()
		}
		err = c.ws.Close()
		c.life.timer.Stop()
	})
	return err
}

// letArrive lets a goodbye arrive that this side says because of what it read: bytes
// that nobody read would make the close a reset, which may overtake it.
func (c *Conn) letArrive(until time.Time) {
	select {
	case <-c.readDone:
	default:
		return // the reader goes on
	}
	if !errors.Is(c.readErr, ErrMessageSize) && !errors.Is(c.readErr, ErrMessageType) {
		return
	}
	if conn, ok := c.ws.NetConn().(interface{ CloseWrite() error }); ok {
		_ = conn.CloseWrite()
	}
	_ = c.ws.NetConn().SetReadDeadline(until)
	_, _ = io.Copy(io.Discard, c.ws.NetConn())
}

// drop ends the connection without a word: nobody would hear it.
func (c *Conn) drop() {
	c.closeOnce.Do(func() {
		close(c.closed)
		c.cancel()
		_ = c.ws.Close()
	})
}
