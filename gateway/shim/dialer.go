// Package shim lets Kafka clients reach a gateway over WebSocket: a net.Conn
// that carries each Kafka message in one binary WebSocket message, and dialers
// for clients that take one.
//
// You are here: at the client's end of the WebSocket door. The package knows the
// framing and nothing else of Kafka's protocol, and imports nothing else of this
// module. The rule is that of kafka-websocket-shim, in both directions: a plain
// handshake on path /, each Kafka message with its 4-byte size in exactly one
// binary message.
//
//	franz-go:  kgo.Dialer((&shim.Dialer{}).DialContext)
//	sarama:    config.Net.Proxy.Enable = true; config.Net.Proxy.Dialer = &shim.Dialer{}
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
	"time"

	"github.com/gorilla/websocket"
)

// AdvertiseHeader is the request header in which a client of the gateway may
// say the host:port that Metadata answers on this connection should name. The
// proxy puts its own address there, so that its clients come back to it.
const AdvertiseHeader = "Trimaran-Advertise"

const defaultHandshakeTimeout = 10 * time.Second

// Dialer connects to gateways. The zero value dials ws://addr/.
type Dialer struct {
	// TLSConfig makes it wss://. The server name defaults to the host dialed.
	TLSConfig *tls.Config
	// Path of the handshake, "/" if empty.
	Path string
	// Header is added to the handshake request.
	Header http.Header
	// Advertise is sent as AdvertiseHeader unless empty.
	Advertise string
	// HandshakeTimeout bounds the WebSocket handshake; 0 means 10 s.
	HandshakeTimeout time.Duration
	// MaxMessageBytes bounds a Kafka message; 0 means DefaultMaxMessageBytes.
	MaxMessageBytes int
	// NetDialContext makes the TCP connection; nil means net.Dialer.
	NetDialContext func(ctx context.Context, network, addr string) (net.Conn, error)
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
// with a path if it has one.
func (d *Dialer) DialURL(ctx context.Context, rawURL string) (*Conn, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("shim: gateway %q: %w", rawURL, err)
	}
	if u.Scheme != "ws" && u.Scheme != "wss" || u.Host == "" {
		return nil, fmt.Errorf("shim: gateway %q: want ws://host:port or wss://host:port", rawURL)
	}
	if u.Path == "" {
		u.Path = "/"
	}
	return d.dial(ctx, "tcp", *u)
}

func (d *Dialer) dial(ctx context.Context, network string, u url.URL) (*Conn, error) {
	ws := websocket.Dialer{
		HandshakeTimeout: d.HandshakeTimeout,
		TLSClientConfig:  d.TLSConfig,
		ReadBufferSize:   64 << 10,
		WriteBufferSize:  64 << 10,
	}
	if ws.HandshakeTimeout == 0 {
		ws.HandshakeTimeout = defaultHandshakeTimeout
	}
	netDial := d.NetDialContext
	if netDial == nil {
		netDial = new(net.Dialer).DialContext
	}
	ws.NetDialContext = func(ctx context.Context, _, addr string) (net.Conn, error) { return netDial(ctx, network, addr) }
	header := d.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	if d.Advertise != "" {
		header.Set(AdvertiseHeader, d.Advertise)
	}
	conn, response, err := ws.DialContext(ctx, u.String(), header)
	if err != nil {
		if errors.Is(err, websocket.ErrBadHandshake) && response != nil {
			reason, _ := io.ReadAll(io.LimitReader(response.Body, 256))
			err = fmt.Errorf("%w: %s: %s", err, response.Status, strings.TrimSpace(string(reason)))
		}
		return nil, fmt.Errorf("shim: dial %s: %w", u.Redacted(), err)
	}
	return NewConn(conn, d.MaxMessageBytes), nil
}
