package harness

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/gorilla/websocket"
)

// WSConn makes a WebSocket connection look like a byte stream to Wire: each
// Write must be whole frames with one request; each Kafka answer must be exactly
// one binary message with its size prefix. It follows nothing but that rule (a
// plain handshake on "/"), which is how clients of kafka-websocket-shim talk.
type WSConn struct {
	*websocket.Conn
	rest []byte
}

// DialWS connects to ws:// or wss:// by the plain rule above.
func DialWS(d *websocket.Dialer, url string) (*WSConn, error) {
	ws, resp, err := d.Dial(url, nil)
	if err != nil {
		if resp != nil {
			return nil, fmt.Errorf("%w: status %d", err, resp.StatusCode)
		}
		return nil, err
	}
	return &WSConn{Conn: ws}, nil
}

// Read implements net.Conn.
func (c *WSConn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		kind, b, err := c.ReadMessage()
		if err != nil {
			return 0, err
		}
		if kind != websocket.BinaryMessage {
			return 0, fmt.Errorf("a WebSocket message of type %d came", kind)
		}
		if len(b) < 4 || int(binary.BigEndian.Uint32(b)) != len(b)-4 {
			return 0, fmt.Errorf("a WebSocket message of %d bytes has the size prefix %x", len(b), b[:min(4, len(b))])
		}
		c.rest = b
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// Write implements net.Conn.
func (c *WSConn) Write(p []byte) (int, error) {
	if err := c.WriteMessage(websocket.BinaryMessage, bytes.Clone(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// SetDeadline implements net.Conn.
func (c *WSConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}
