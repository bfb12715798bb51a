package shim

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/trimaran-io/trimaran/gateway/internal/frames"
)

// ErrUnauthorized: the gateway does not take the credential or ticket in the header.
var ErrUnauthorized = errors.New("shim: the gateway does not take the credential")

const defaultHandshakeTimeout = 10 * time.Second

// writeBuffers keeps write buffers while connections have nothing to write.
var writeBuffers sync.Pool

// Dialer connects to gateways. The zero value dials ws://addr/. A Dialer may be
// used by many goroutines and must not be changed meanwhile.
type Dialer struct {
	// TLSConfig makes it wss://. The server name defaults to the host dialed.
	TLSConfig *tls.Config
	// Path of the handshake, "/" if empty.
	Path string
	// Header is added to the handshake request.
	Header http.Header
	// Advertise is sent as AdvertiseHeader unless empty.
	Advertise string
	// HandshakeTimeout bounds dialing, from the TCP connection to the end of the
	// WebSocket handshake; 0 means 10 s.
	HandshakeTimeout time.Duration
	// KeepAlive is how long the other side may be silent before the connection is
	// given up (ErrSilent); 0 means DefaultKeepAlive. Pings go out four times as often.
	KeepAlive time.Duration
	// MaxMessageBytes bounds a Kafka message; 0 means DefaultMaxMessageBytes.
	MaxMessageBytes int
	// Memory is asked before a received message takes memory; nil sets no bound but
	// MaxMessageBytes for each connection. The caller of ReadMessage gives back
	// len(message) when it is done with it; Read does so by itself.
	Memory Memory
	// Serving, if set, is called with what the gateway says of itself (ServingHeader): before a
	// dial returns, and then by the connection's reader, which it must not keep. A gateway that
	// does not know the header says nothing.
	Serving func(serves bool)
	// Receive, if set, gets each message in place of ReadMessage and Read: by the
	// connection's reader, which reads no further meanwhile, and reuses the message when it
	// returns. Where Memory is set it gives back len(message).
	Receive func(message []byte)
	// Waiting, if set, is called by who calls Receive, and in between: whenever it is about to wait
	// for more bytes, so that no message is there whole that Receive has not got, and behind the
	// last message, before ReadMessage says why there is no other. Memory may wait, too, and is
	// not announced. While Waiting takes its time, it is not the other side that is silent.
	Waiting func()
	// NetDialContext makes the TCP connection; nil means net.Dialer.
	NetDialContext func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Memory bounds what received messages take, over many connections.
type Memory interface {
	// Acquire returns when a message may take so many bytes; an error, ctx's for
	// instance, ends the connection.
	Acquire(ctx context.Context, bytes int) error
	Release(bytes int)
}

// Dial connects to a gateway at addr (host:port) over network, "tcp" for instance.
func (d *Dialer) Dial(network, addr string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, addr)
}

// DialContext is Dial within ctx, which has no influence on the connection later.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	scheme := "ws"
	if d.TLSConfig != nil {
		scheme = "wss"
	}
	path := d.Path
	if path == "" {
		path = "/"
	}
	conn, err := d.dial(ctx, network, url.URL{Scheme: scheme, Host: addr, Path: path})
	if err != nil {
		return nil, err // a nil *Conn is not a nil net.Conn
	}
	return conn, nil
}

// DialURL connects to a gateway given as ws://host:port or wss://host:port,
// with a path if it has one, else with that of the Dialer.
func (d *Dialer) DialURL(ctx context.Context, rawURL string) (*Conn, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("shim: gateway: %w", err)
	}
	if u.Scheme != "ws" && u.Scheme != "wss" || u.Hostname() == "" {
		return nil, fmt.Errorf("shim: gateway %q: want ws://host:port or wss://host:port", u.Redacted())
	}
	if u.Path == "" {
		if u.Path = d.Path; u.Path == "" {
			u.Path = "/"
		}
	}
	return d.dial(ctx, "tcp", *u)
}

func (d *Dialer) dial(ctx context.Context, network string, u url.URL) (*Conn, error) {
	ws := websocket.Dialer{
		HandshakeTimeout: d.HandshakeTimeout,
		TLSClientConfig:  d.TLSConfig,
		ReadBufferSize:   64 << 10,
		WriteBufferSize:  64 << 10,
		WriteBufferPool:  &writeBuffers,
	}
	if ws.HandshakeTimeout == 0 {
		ws.HandshakeTimeout = defaultHandshakeTimeout
	}
	netDial := d.NetDialContext
	if netDial == nil {
		netDial = new(net.Dialer).DialContext
	}
	var turns *frames.Turns
	var below *told
	watching := func() bool { return true }
	ws.NetDialContext = func(dialCtx context.Context, _, addr string) (net.Conn, error) {
		conn, err := netDial(dialCtx, network, addr)
		if err != nil {
			return nil, err
		}
		// The handshake looks at ctx's deadline and not at its end.
		watching = context.AfterFunc(ctx, func() { conn.Close() })
		if u.Scheme == "ws" {
			turns = frames.NewTurns(conn)
			below = &told{Conn: turns}
		} else {
			below = &told{Conn: conn}
		}
		return below, nil
	}
	header := d.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	if d.Advertise != "" {
		header.Set(AdvertiseHeader, d.Advertise)
	}
	if d.Serving != nil {
		header.Set(ServingHeader, "tell")
	}
	conn, response, err := ws.DialContext(ctx, u.String(), header)
	if !watching() || err != nil && ctx.Err() != nil {
		if err == nil {
			conn.Close()
		}
		return nil, fmt.Errorf("shim: dial %s: %w", u.Redacted(), context.Cause(ctx))
	}
	if err != nil {
		if errors.Is(err, websocket.ErrBadHandshake) && response != nil {
			reason, _ := io.ReadAll(io.LimitReader(response.Body, 256))
			err = fmt.Errorf("%w: status %d: %q", err, response.StatusCode, strings.TrimSpace(string(reason)))
			if response.StatusCode == http.StatusUnauthorized {
				err = fmt.Errorf("%w: %w", ErrUnauthorized, err)
			}
		}
		return nil, fmt.Errorf("shim: dial %s: %w", u.Redacted(), err)
	}
	if turns != nil {
		turns.Upgraded()
	}
	if d.Serving != nil {
		tell(d.Serving, response.Header.Get(ServingHeader))
	}
	return newConn(conn, turns, below, d), nil
}

// tell passes on what a gateway says of itself, if it does.
func tell(serving func(bool), word string) {
	switch word {
	case Serving:
		serving(true)
	case NotServing:
		serving(false)
	}
}

// told is a connection that says when it is read from, once there is somebody to tell: in the
// handshake there is not.
type told struct {
	net.Conn
	rest func()
}

func (c *told) Read(b []byte) (int, error) {
	if c.rest != nil {
		c.rest()
	}
	return c.Conn.Read(b)
}

// CloseWrite ends the sending half, if the transport has halves.
func (c *told) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
