package peertls_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/peertls"
	"github.com/trimaran-io/trimaran/security/certs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal is a log that tests can read.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// authority is a CA and the folder of the files that it signed.
type authority struct {
	t   *testing.T
	ca  *certs.CA
	dir string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	ca, err := certs.NewCA(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t, ca, t.TempDir()}
	a.save("ca", ca.Pair)
	return a
}

func (a *authority) save(name string, pair certs.Pair) {
	a.t.Helper()
	if _, _, err := pair.Save(a.dir, name, true); err != nil {
		a.t.Fatal(err)
	}
}

// node signs a certificate and gives its files.
func (a *authority) node(id string) certs.Files {
	a.t.Helper()
	pair, err := a.ca.Node(id, []string{"localhost"}, time.Hour)
	if err != nil {
		a.t.Fatal(err)
	}
	a.save(id, pair)
	return a.files(id)
}

func (a *authority) files(name string) certs.Files {
	return certs.Files{
		Cert: filepath.Join(a.dir, name+".crt"), Key: filepath.Join(a.dir, name+".key"), CA: filepath.Join(a.dir, "ca.crt"),
	}
}

func guard(t *testing.T, cfg peertls.Config) *peertls.Guard {
	t.Helper()
	g, err := peertls.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// host is a link with its address; g is nil for one that knows no TLS.
type host struct {
	*link.Link
	addr string
	log  journal
}

// names are the addresses of hosts by identity, shared by those of a test.
type names struct {
	mu sync.Mutex
	at map[string]string
}

func (n *names) resolve(identity string) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	addr, ok := n.at[identity]
	return addr, ok
}

func (n *names) start(t *testing.T, identity string, g *peertls.Guard) *host {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{addr: ln.Addr().String()}
	n.mu.Lock()
	if n.at == nil {
		n.at = map[string]string{}
	}
	n.at[identity] = h.addr
	n.mu.Unlock()
	cfg := link.Config{
		Self: identity, Listener: ln, Resolve: n.resolve, Logger: slog.New(slog.NewTextHandler(&h.log, nil)),
		Handler: func(_ context.Context, from string, _ uint8, b []byte) []byte { return append([]byte(from+":"), b...) },
	}
	if g != nil {
		cfg.Listener, cfg.Dial = g.Listener(ln), g.Dialer(nil)
	}
	h.Link = link.New(cfg)
	h.Start()
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// call asks, and gives the answer or why there is none.
func call(t *testing.T, from *host, to string, payload string) (string, error) {
	t.Helper()
	// For 40 MB over TLS, with the race detector, on a busy machine.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, err := from.Call(ctx, to, 1, []byte(payload))
	return string(got), err
}

func hears(t *testing.T, from *host, to, payload string) {
	t.Helper()
	if got, err := call(t, from, to, payload); err != nil || got != from.Self()+":"+payload {
		t.Errorf("%s asks %s: %.80q, %v\n%s", from.Self(), to, got, err, from.log.text())
	}
}

func TestNodesOfOneCATalk(t *testing.T) {
	a := newAuthority(t)
	var n names
	one := n.start(t, "n1.0000aaaa", guard(t, peertls.Config{Files: a.node("n1"), RequireIdentity: true}))
	two := n.start(t, "n2.0000bbbb", guard(t, peertls.Config{Files: a.node("n2"), RequireIdentity: true}))
	for _, size := range []int{0, 1, 1000, 20_000, 64 << 10, 3 << 20, 40 << 20} {
		hears(t, one, "n2.0000bbbb", strings.Repeat("x", size))
		hears(t, two, "n1.0000aaaa", strings.Repeat("y", size))
	}
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() { hears(t, one, "n2.0000bbbb", strings.Repeat("z", i*997)) })
	}
	wg.Wait()
}

// TestWhoHasNoCertificateIsNotHeard: each is refused, by both sides, and the node's own session
// lives on.
func TestWhoHasNoCertificateIsNotHeard(t *testing.T) {
	a, foreign := newAuthority(t), newAuthority(t)
	client, err := a.ca.Client("n1", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	a.save("client", client)
	var n names
	two := n.start(t, "n2.0000bbbb", guard(t, peertls.Config{Files: a.node("n2"), RequireIdentity: true}))
	three := n.start(t, "n3.0000cccc", guard(t, peertls.Config{Files: a.node("n3"), RequireIdentity: true}))
	hears(t, three, "n2.0000bbbb", "first")
	before := two.Stats().SessionsLost
	for what, g := range map[string]*peertls.Guard{
		"plaintext":               nil,
		"plaintext, by its mode":  guard(t, peertls.Config{Files: a.node("n3"), Mode: peertls.Accept}),
		"another CA's":            guard(t, peertls.Config{Files: foreign.node("n3")}),
		"another node's":          guard(t, peertls.Config{Files: a.node("n1")}),
		"nobody with that prefix": guard(t, peertls.Config{Files: a.node("n33")}),
	} {
		evil := n.start(t, "n3.0000cccc", g) // from here on others find this one at n3's name
		if got, err := call(t, evil, "n2.0000bbbb", "evil"); err == nil || !errors.Is(err, link.ErrNotSent) {
			t.Errorf("%s: %q, %v", what, got, err)
		}
		if strings.HasSuffix(what, "mode") {
			_ = evil.Close() // its certificate is good: only what it says in plaintext is not heard
			continue
		}
		// And nobody tells it anything.
		one := n.start(t, "n1.0000aaaa", guard(t, peertls.Config{Files: a.node("n1"), RequireIdentity: true}))
		if got, err := call(t, one, "n3.0000cccc", "secret"); err == nil || !errors.Is(err, link.ErrNotSent) {
			t.Errorf("%s is told a secret: %q, %v", what, got, err)
		}
		_ = one.Close()
		_ = evil.Close()
	}
	if _, err := peertls.New(peertls.Config{Files: a.files("client")}); err == nil {
		t.Error("a node with a client's certificate starts")
	}
	hears(t, three, "n2.0000bbbb", "last")
	if after := two.Stats().SessionsLost; after != before || strings.Contains(two.log.text(), "took over") {
		t.Errorf("%d sessions were lost\n%s", after-before, two.log.text())
	}
}

// TestAClientOfTheCAIsNoNode speaks as a client with a certificate would that knows the protocol.
func TestAClientOfTheCAIsNoNode(t *testing.T) {
	a := newAuthority(t)
	client, err := a.ca.Client("n1", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(client.Cert, client.Key)
	if err != nil {
		t.Fatal(err)
	}
	var n names
	n.start(t, "n2.0000bbbb", guard(t, peertls.Config{Files: a.node("n2"), RequireIdentity: true}))
	for _, protocols := range [][]string{nil, {"h2"}, {peertls.ALPN}} {
		evil := link.New(link.Config{Self: "n1.0000aaaa", Resolve: n.resolve, Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			return (&tls.Dialer{Config: &tls.Config{
				InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}, NextProtos: protocols,
			}}).DialContext(ctx, "tcp", addr)
		}})
		evil.Start()
		_, err := evil.Call(t.Context(), "n2.0000bbbb", 1)
		if err == nil {
			t.Errorf("with ALPN %v it is heard", protocols)
		}
		if protocols != nil && protocols[0] == peertls.ALPN && !errors.Is(err, link.ErrUnproven) {
			t.Errorf("refused for another reason: %v", err)
		}
		_ = evil.Close()
	}
}

// TestFromPlaintextToTLS goes through the modes node by node; all hear each other all the time.
func TestFromPlaintextToTLS(t *testing.T) {
	a := newAuthority(t)
	ids := []string{"n1.0000aaaa", "n2.0000bbbb", "n3.0000cccc"}
	var n names
	hosts := map[string]*host{}
	start := func(id string, mode peertls.Mode, secured bool) {
		t.Helper()
		var g *peertls.Guard
		if secured {
			g = guard(t, peertls.Config{Files: a.node(id[:2]), Mode: mode, RequireIdentity: true})
		}
		if h := hosts[id]; h != nil {
			_ = h.Close()
		}
		hosts[id] = n.start(t, id, g)
	}
	all := func(step string) {
		t.Helper()
		for _, from := range ids {
			for _, to := range ids {
				if from == to {
					continue
				}
				// The first call may find the end of a session to the process before.
				got, err := call(t, hosts[from], to, step)
				for range 100 {
					if err == nil {
						break
					}
					time.Sleep(20 * time.Millisecond)
					got, err = call(t, hosts[from], to, step)
				}
				if err != nil || got != from+":"+step {
					t.Errorf("%s: %s to %s: %q, %v", step, from, to, got, err)
				}
			}
		}
	}
	for _, id := range ids {
		start(id, 0, false)
	}
	all("plaintext")
	// And straight from plaintext to prefer, which no runbook says and somebody will do.
	for _, modes := range [][]peertls.Mode{{peertls.Accept, peertls.Prefer, peertls.Require}, {peertls.Prefer, peertls.Require}} {
		for _, mode := range modes {
			for _, id := range ids {
				start(id, mode, true)
				all(id[:2] + " has " + mode.String())
			}
		}
		if strings.Contains(hosts[ids[2]].log.text(), "plaintext") {
			t.Errorf("in the end:\n%s", hosts[ids[2]].log.text())
		}
		for _, id := range ids {
			start(id, peertls.Prefer, true) // and back
		}
		for _, id := range ids {
			start(id, 0, false)
		}
		all("plaintext again")
	}
}

// TestCertificatesAreReloaded: a new CA, and with it new certificates, in the steps of the runbook.
func TestCertificatesAreReloaded(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	var n names
	ids := []string{"n1.0000aaaa", "n2.0000bbbb"}
	guards := map[string]*peertls.Guard{}
	hosts := map[string]*host{}
	for _, id := range ids {
		guards[id] = guard(t, peertls.Config{Files: a.node(id[:2]), RequireIdentity: true})
		hosts[id] = n.start(t, id, guards[id])
	}
	fresh := func(step string) {
		t.Helper()
		for _, id := range ids {
			guards[id].Reload()
			// A call to an address opens a connection.
			to := ids[0]
			if id == to {
				to = ids[1]
			}
			if from, _, err := hosts[id].CallAddr(t.Context(), hosts[to].addr, 1); err != nil || from != to {
				t.Errorf("%s: %s to %s: %q, %v", step, id, to, from, err)
			}
		}
	}
	write := func(file string, data []byte) {
		t.Helper()
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fresh("as it was")
	ca := filepath.Join(a.dir, "ca.crt")
	write(ca, append(bytes.Clone(a.ca.Cert), b.ca.Cert...))
	fresh("two CAs")
	for _, id := range ids {
		pair, err := b.ca.Node(id[:2], nil, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		a.save(id[:2], pair)
		fresh(id + " has one of the new CA")
	}
	write(ca, b.ca.Cert)
	fresh("the old CA goes")
	// Who has one of the old CA is out now.
	old := newAuthority(t)
	old.ca, old.dir = a.ca, t.TempDir()
	old.save("ca", certs.Pair{Cert: append(bytes.Clone(a.ca.Cert), b.ca.Cert...), Key: a.ca.Key})
	evil := n.start(t, ids[0], guard(t, peertls.Config{Files: old.node("n1")}))
	if got, err := call(t, evil, ids[1], "evil"); err == nil {
		t.Errorf("heard with a certificate of the old CA: %q", got)
	}
}

func TestBeforeTheHello(t *testing.T) {
	a := newAuthority(t)
	var n names
	two := n.start(t, "n2.0000bbbb", guard(t, peertls.Config{Files: a.node("n2")}))
	one := n.start(t, "n1.0000aaaa", guard(t, peertls.Config{Files: a.node("n1")}))
	endless := append([]byte{0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff}, make([]byte, 1<<20)...)
	for _, input := range [][]byte{{0x16}, {'T'}, {'T', 'R', 'M', 'P'}, {0}, {0x16, 3, 1, 0, 0}, endless, bytes.Repeat([]byte{0x16, 3, 3, 0, 1, 0}, 100_000)} {
		c, err := net.Dial("tcp", two.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(input)
		if len(input) > 8 || input[0] == 'T' || input[0] == 0 {
			// Less than the time for a handshake.
			_ = c.SetReadDeadline(time.Now().Add(4 * time.Second))
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("after %d bytes %.4x it is still listened to", len(input), input)
			}
		}
		_ = c.Close()
		hears(t, one, "n2.0000bbbb", "x")
	}
}

func TestAnotherNodesCertificateIsNoticedAtStart(t *testing.T) {
	g := guard(t, peertls.Config{Files: newAuthority(t).node("n1"), RequireIdentity: true})
	if err := g.CheckNode("n1"); err != nil {
		t.Error(err)
	}
	if err := g.CheckNode("n2"); !errors.Is(err, peertls.ErrName) {
		t.Errorf("%v", err)
	}
}

// FuzzAccept throws first bytes at a listener: it neither panics nor waits for more than there is.
func FuzzAccept(f *testing.F) {
	dir := f.TempDir()
	ca, err := certs.NewCA(time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	pair, err := ca.Node("n1", nil, time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	for name, p := range map[string]certs.Pair{"ca": ca.Pair, "n1": pair} {
		if _, _, err := p.Save(dir, name, false); err != nil {
			f.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	var guards []*peertls.Guard
	for _, mode := range []peertls.Mode{peertls.Accept, peertls.Require} {
		g, err := peertls.New(peertls.Config{Files: certs.Files{Cert: at("n1.crt"), Key: at("n1.key"), CA: at("ca.crt")}, Mode: mode})
		if err != nil {
			f.Fatal(err)
		}
		guards = append(guards, g)
	}
	f.Add([]byte("TRMP\x00\x02xx\x00\x00\x00\x00"))
	f.Add([]byte{0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, input []byte) {
		for _, g := range guards {
			in, out := net.Pipe()
			go func() {
				_, _ = in.Write(input)
				_ = in.Close()
			}()
			ln := g.Listener(&oneConn{conn: out})
			nc, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(nc)
			plain := len(input) > 0 && input[0] != 0x16
			if g.Mode() == peertls.Accept && plain && (err != nil || !bytes.Equal(got, input)) {
				t.Errorf("%q is read as %q, %v", input, got, err)
			}
			if (g.Mode() == peertls.Require || !plain) && len(got) > 0 {
				t.Errorf("%q gives %q", input, got)
			}
			_ = nc.Close()
			_ = in.Close()
		}
	})
}

// oneConn is a listener that has one connection to give.
type oneConn struct {
	net.Listener
	conn net.Conn
}

func (o *oneConn) Accept() (net.Conn, error) { return o.conn, nil }
