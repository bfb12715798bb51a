package listen

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/trimaran-io/trimaran/gateway/login"
	"github.com/trimaran-io/trimaran/gateway/session"
)

// listening is a node that serves, and shows the framers of the sessions that clients get.
type listening struct{ framers chan session.Framer }

func (listening) Ready() error               { return nil }
func (listening) Serving() (bool, error)     { return false, nil }
func (listening) Refused(string)             {}
func (listening) Connection(string, float64) {}

func (l listening) session(_ Client, f session.Framer) Session {
	over := make(chan struct{})
	l.framers <- f
	return held{f, over}
}

// held is a session that reads nothing until it is drained.
type held struct {
	framer session.Framer
	over   chan struct{}
}

func (h held) Drain() { close(h.over) }

func (h held) Run() {
	<-h.over
	h.framer.Close(nil)
}

// serveHeld serves l until the test ends.
func serveHeld(t *testing.T, l net.Listener, with *tls.Config) listening {
	t.Helper()
	to := listening{make(chan session.Framer, 1)}
	logins, err := login.New(login.Config{})
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	s, err := New(Config{
		TLS: with, Login: logins, MaxRequestBytes: 1 << 20, MaxConnections: 10,
		Node: to, Metrics: to, Registry: prometheus.NewRegistry(), Refusals: NewRefusals(logger), Logger: logger, Session: to.session,
	})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		if err := s.Shutdown(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		<-served
	})
	return to
}

func selfSigned(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// That a client has closed its side is known while what it sent before is not read, whatever way it
// came: what a server lays around a connection does not hide it.
func TestAClientThatIsGone(t *testing.T) {
	request := []byte{0, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8}
	trusting := &tls.Config{InsecureSkipVerify: true}
	open := func(t *testing.T, l net.Listener) net.Conn {
		c, err := net.Dial(l.Addr().Network(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	plain := func(t *testing.T, c net.Conn) net.Conn {
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		return c
	}
	webSocket := func(t *testing.T, c net.Conn) net.Conn {
		d := websocket.Dialer{NetDial: func(string, string) (net.Conn, error) { return c, nil }}
		ws, resp, err := d.Dial("ws://localhost/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if err := ws.WriteMessage(websocket.BinaryMessage, request); err != nil {
			t.Fatal(err)
		}
		return c
	}
	encrypted := func(t *testing.T, c net.Conn) net.Conn { return tls.Client(c, trusting) }
	for name, transport := range map[string]struct {
		network string
		tls     bool
		speak   func(t *testing.T, c net.Conn) net.Conn
	}{
		"tcp":                {"tcp", false, plain},
		"unix":               {"unix", false, plain},
		"tls":                {"tcp", true, func(t *testing.T, c net.Conn) net.Conn { return plain(t, encrypted(t, c)) }},
		"websocket":          {"tcp", false, webSocket},
		"websocket over tls": {"tcp", true, func(t *testing.T, c net.Conn) net.Conn { return webSocket(t, encrypted(t, c)) }},
	} {
		// Who closes its half, or all of it.
		for how, leave := range map[string]func(net.Conn) error{
			"half":  func(c net.Conn) error { return c.(interface{ CloseWrite() error }).CloseWrite() },
			"whole": func(c net.Conn) error { return c.Close() },
		} {
			t.Run(name+"/"+how, func(t *testing.T) {
				at := "127.0.0.1:0"
				if transport.network == "unix" {
					at = filepath.Join(t.TempDir(), "s")
				}
				l, err := net.Listen(transport.network, at)
				if err != nil {
					t.Fatal(err)
				}
				var with *tls.Config
				if transport.tls {
					with = selfSigned(t)
				}
				to := serveHeld(t, l, with)
				below := open(t, l)
				defer below.Close()
				transport.speak(t, below)
				f := <-to.framers
				if f.Gone() {
					t.Error("the client is there")
				}
				if err := leave(below); err != nil {
					t.Fatal(err)
				}
				for deadline := time.Now().Add(10 * time.Second); !f.Gone(); time.Sleep(time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatal("nothing is known of the end of the connection")
					}
				}
				if frame, err := f.ReadFrame(func(int) error { return nil }); err != nil || len(frame) != 8 {
					t.Errorf("what came before its end is read as %q, %v", frame, err)
				}
			})
		}
	}
}
