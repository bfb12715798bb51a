package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"net"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"

	"github.com/trimaran-io/trimaran/gateway/shim"
)

// defaultBroker is where `trimaran serve`, `trimaran dev` and the shim of
// scripts/cluster.sh listen unless told otherwise.
const defaultBroker = "127.0.0.1:9092"

// broker is one address of --brokers.
type broker struct {
	scheme string // "tcp", "tls", "ws", "wss" or "unix"
	addr   string // host:port; for unix one that is made up, since clients need one
	path   string // of the WebSocket handshake, for ws and wss; of the socket, for unix
}

// String gives the address as one would type it.
func (b broker) String() string {
	switch b.scheme {
	case "tcp":
		return b.addr
	case "unix":
		return "unix:" + b.path
	}
	return b.scheme + "://" + b.addr + b.path
}

// parseBroker understands host:port, host, tcp://…, tls://…, ws://…, wss://… and unix:path.
func parseBroker(s string) (broker, error) {
	s = strings.TrimSpace(s)
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		path = strings.TrimPrefix(path, "//") // a URL without a host
		if path == "" {
			return broker{}, usagef("--brokers %q: want unix: and the path of a node's data directory, or of the socket in it", s)
		}
		port := 1 + crc32.ChecksumIEEE([]byte(path))%65535
		return broker{scheme: "unix", addr: fmt.Sprintf("local:%d", port), path: path}, nil
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "tcp", s
	}
	b := broker{scheme: strings.ToLower(scheme)}
	port := "9092"
	switch b.scheme {
	case "tcp", "tls":
	case "unix": // its address is a name, so that clients have one to ask for
		if !strings.HasPrefix(rest, "/") {
			return broker{}, usagef("--brokers %q: want unix:///path/of/the/socket", s)
		}
		b.path, b.addr = rest, "localhost:"+port
		return b, nil
	case "ws", "wss":
		u, err := url.Parse(s)
		if err != nil {
			return broker{}, usagef("--brokers %q: %v", s, err)
		}
		rest, b.path = u.Host, u.Path
		if port = "80"; b.scheme == "wss" {
			port = "443"
		}
	default:
		return broker{}, usagef("--brokers %q: want host:port, tls://host:port, ws://host:port, wss://host:port or unix:path", s)
	}
	host, given, err := net.SplitHostPort(rest)
	if err != nil { // no port
		host, given = strings.Trim(rest, "[]"), port
	}
	if host == "" || strings.ContainsAny(host, "/ ") {
		return broker{}, usagef("--brokers %q: no host in it", s)
	}
	b.addr = net.JoinHostPort(host, given)
	return b, nil
}

// brokers is how a client-side command reaches the cluster.
type brokers struct {
	list      []broker
	tls       *tls.Config
	mechanism sasl.Mechanism // nil: it does not log in

	answered atomic.Int64 // index of who answered last (inTurn)
}

// addBrokerFlags gives a client-side command the flags that brokersOf reads.
func addBrokerFlags(cmd *cobra.Command) {
	cmd.Flags().StringSlice("brokers", []string{defaultBroker},
		"nodes or shims, tried in turn: host:port, tls://host:port, ws://host:port, wss://host:port, or unix:path of a node's data directory here")
	cmd.Flags().String("tls-ca", "", "`file` with the certificates to trust for tls:// and wss:// (default: the system's)")
	cmd.Flags().String("tls-server-name", "", "`name` expected in the server's certificate (default: the broker's host)")
	addCredentialFlags(cmd)
	cmd.Flags().Duration("timeout", 15*time.Second, "how long to wait for an answer")
}

// clientOf gives a client made of the command's flags, which the caller closes.
func clientOf(cmd *cobra.Command) (*brokers, *kgo.Client, error) {
	b, err := brokersOf(cmd)
	if err != nil {
		return nil, nil, err
	}
	cl, err := b.client()
	return b, cl, err
}

func brokersOf(cmd *cobra.Command) (*brokers, error) {
	given, _ := cmd.Flags().GetStringSlice("brokers")
	b := &brokers{}
	for _, s := range given {
		one, err := parseBroker(s)
		if err != nil {
			return nil, err
		}
		b.list = append(b.list, one)
	}
	if len(b.list) == 0 {
		return nil, usagef("--brokers is empty")
	}
	b.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	b.tls.ServerName, _ = cmd.Flags().GetString("tls-server-name")
	if ca, _ := cmd.Flags().GetString("tls-ca"); ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("--tls-ca: %w", err)
		}
		b.tls.RootCAs = x509.NewCertPool()
		if !b.tls.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--tls-ca %s: no certificate in it", ca)
		}
	}
	cert, _ := cmd.Flags().GetString("tls-cert")
	key, _ := cmd.Flags().GetString("tls-key")
	if (cert == "") != (key == "") {
		return nil, usagef("--tls-cert and --tls-key go together")
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("--tls-cert %s, --tls-key %s: %w", cert, key, err)
		}
		b.tls.Certificates = []tls.Certificate{pair}
	}
	var err error
	b.mechanism, err = credentialOf(cmd, b)
	return b, err
}

// String lists the brokers for an error message.
func (b *brokers) String() string {
	var all []string
	for _, one := range b.list {
		all = append(all, one.String())
	}
	return strings.Join(all, ", ")
}

// leastTurn is more than a node takes that waits for another one, which hangs, to tell its status.
const leastTurn = 3 * time.Second

// turn is the time that one of several brokers has to answer: its share of what is
// left, so that one that hangs does not keep the others from being asked.
func (b *brokers) turn(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok || len(b.list) < 2 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, max(leastTurn, time.Until(deadline)/time.Duration(len(b.list))))
}

// inTurn gives the indexes of n brokers, first that of the last one that answered: one that hangs
// costs its turn once, and not with every request.
func (b *brokers) inTurn(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		first := b.answered.Load()
		for i := range n {
			if !yield(int((first + int64(i)) % int64(n))) {
				return
			}
		}
	}
}

// dial opens a connection to host:port in the way --brokers says. Metadata names
// the cluster's one broker by the address that the client used, so an address
// that is not in the list is reached as the first of the list is. The name asked
// for in the TLS handshake (--tls-server-name) need mean nothing to DNS: with
// that one, any broker of the list is meant.
func (b *brokers) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	for _, one := range b.list {
		if one.addr == addr {
			return b.dialOne(ctx, network, one)
		}
	}
	if host, _, err := net.SplitHostPort(addr); err != nil || b.tls == nil || host != b.tls.ServerName {
		one := b.list[0]
		one.addr = addr
		return b.dialOne(ctx, network, one)
	}
	var conn net.Conn
	var err error
	for _, one := range b.list {
		if conn, err = b.dialOne(ctx, network, one); err == nil {
			break
		}
	}
	return conn, err
}

func (b *brokers) dialOne(ctx context.Context, network string, one broker) (net.Conn, error) {
	switch one.scheme {
	case "unix":
		return dialLocal(ctx, one.path)
	case "tls":
		return (&tls.Dialer{Config: b.tls}).DialContext(ctx, network, one.addr)
	case "ws":
		return (&shim.Dialer{Path: one.path}).DialContext(ctx, network, one.addr)
	case "wss":
		return (&shim.Dialer{Path: one.path, TLSConfig: b.tls}).DialContext(ctx, network, one.addr)
	}
	return (&net.Dialer{}).DialContext(ctx, network, one.addr)
}

// client gives a franz-go client. It asks the brokers which versions they serve.
// Writes are idempotent, so that what is sent again is there once.
func (b *brokers) client(opts ...kgo.Opt) (*kgo.Client, error) {
	var seeds []string
	for _, one := range b.list {
		seeds = append(seeds, one.addr)
	}
	if b.mechanism != nil {
		opts = append(opts, kgo.SASL(b.mechanism))
	}
	return kgo.NewClient(append([]kgo.Opt{
		kgo.ClientID("trimaran"),
		kgo.SeedBrokers(seeds...),
		kgo.Dialer(b.dial),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.RetryBackoffFn(func(tries int) time.Duration {
			return min(time.Duration(tries)*100*time.Millisecond, time.Second)
		}),
	}, opts...)...)
}

// unreachable explains an error of a connection attempt.
func (b *brokers) unreachable(err error) error {
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted")
	}
	hint := "Is a node running there? 'trimaran dev' starts one; --brokers names another place"
	if wrong := (*tls.CertificateVerificationError)(nil); errors.As(err, &wrong) {
		hint = "--tls-ca names a file with the certificates to trust, --tls-server-name the name in the server's"
	}
	if timedOut(err) && b.reachable() {
		hint = "A node is there and has no answer: perhaps too many nodes are down. 'trimaran cluster status' shows them"
	}
	return fmt.Errorf("no answer from %s: %w\n%s", b, err, hint)
}

// reachable says whether any of the addresses takes a connection.
func (b *brokers) reachable() bool {
	for _, one := range b.list {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		c, err := b.dial(ctx, "tcp", one.addr)
		cancel()
		if err == nil {
			c.Close()
			return true
		}
	}
	return false
}
