// Command trimaran-shim is a TCP proxy around package gateway/shim: Kafka
// clients connect to it as to a broker, and it carries their messages to a
// gateway over WebSocket, to another gateway when that one is gone.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// version is set when the program is built.
var version = "dev"

const usage = `trimaran-shim lets Kafka clients reach Trimaran over WebSocket.

Clients connect to --listen as to any Kafka broker. The loss of a gateway stays
behind the shim: it goes on with another one, and Metadata names the shim.

Examples:
  trimaran-shim --gateways ws://127.0.0.1:9093,ws://127.0.0.1:9094
  trimaran-shim --listen 127.0.0.1:19092 --gateways wss://kafka.example.org
  trimaran-shim --gateways 10.0.0.5:9092 -tls -tls-ca ca.pem -tls-server-name kafka.internal
  TRIMARAN_SHIM_GATEWAYS=ws://127.0.0.1:9093 trimaran-shim

Every flag can be given in the environment as TRIMARAN_SHIM_ and its name in
capitals, with _ for -; the command line comes first.

Flags:
`

type settings struct {
	listen, gateways, advertise          string
	useTLS                               bool
	tlsCA, tlsServerName                 string
	maxRequestBytes, maxConnections      int
	dialTimeout, handshakeTimeout, grace time.Duration
	logLevel                             slog.Level
	showVersion                          bool
}

func parse(args []string, getenv func(string) string) (settings, error) {
	var s settings
	fs := flag.NewFlagSet("trimaran-shim", flag.ContinueOnError)
	fs.StringVar(&s.listen, "listen", "127.0.0.1:9092", "host:port to take Kafka clients at")
	fs.StringVar(&s.gateways, "gateways", "", "gateways, separated by commas: ws://host:port, wss://host:port or host:port")
	fs.StringVar(&s.advertise, "advertise", "", "host:port that Metadata names; the address that the client connected to if empty")
	fs.BoolVar(&s.useTLS, "tls", false, "reach gateways that are given as host:port by TLS (wss)")
	fs.StringVar(&s.tlsCA, "tls-ca", "", "file of PEM certificates that sign the gateways' certificates; the system's if empty")
	fs.StringVar(&s.tlsServerName, "tls-server-name", "", "name in the gateways' certificates; the host of the gateway's address if empty")
	fs.IntVar(&s.maxRequestBytes, "max-request-bytes", 100<<20, "largest request taken from a client")
	fs.IntVar(&s.maxConnections, "max-connections", 10_000, "client connections at a time")
	fs.DurationVar(&s.dialTimeout, "dial-timeout", 30*time.Second, "how long a client waits for a gateway before its connection is closed")
	fs.DurationVar(&s.handshakeTimeout, "handshake-timeout", 3*time.Second, "how long one gateway may take to answer before the next is tried")
	fs.DurationVar(&s.grace, "shutdown-grace", 5*time.Second, "how long a stop waits for answers that are under way")
	fs.TextVar(&s.logLevel, "log-level", slog.LevelInfo, "debug, info, warn or error")
	fs.BoolVar(&s.showVersion, "version", false, "print the version and end")
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), usage)
		fs.PrintDefaults()
	}
	var err error
	fs.VisitAll(func(f *flag.Flag) {
		name := "TRIMARAN_SHIM_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if value := getenv(name); value != "" && err == nil {
			if serr := fs.Set(f.Name, value); serr != nil {
				err = fmt.Errorf("%s: %w", name, serr)
			}
		}
	})
	if err != nil {
		return s, err
	}
	if err := fs.Parse(args); err != nil {
		return s, err
	}
	if fs.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q; see --help", fs.Arg(0))
	}
	if !s.showVersion && s.gateways == "" {
		return s, errors.New("no gateway given: --gateways ws://host:port,…")
	}
	return s, nil
}

// gatewayURLs turns the --gateways list into WebSocket URLs.
func (s settings) gatewayURLs() ([]string, error) {
	var urls []string
	for _, g := range strings.Split(s.gateways, ",") {
		g = strings.TrimSpace(g)
		switch {
		case g == "":
			continue
		case strings.HasPrefix(g, "ws://"), strings.HasPrefix(g, "wss://"):
		case strings.Contains(g, "://"):
			return nil, fmt.Errorf("gateway %q: want ws://host:port, wss://host:port or host:port", g)
		default:
			if _, _, err := net.SplitHostPort(g); err != nil {
				return nil, fmt.Errorf("gateway %q: %w", g, err)
			}
			if s.useTLS {
				g = "wss://" + g
			} else {
				g = "ws://" + g
			}
		}
		urls = append(urls, g)
	}
	if len(urls) == 0 {
		return nil, errors.New("no gateway given: --gateways ws://host:port,…")
	}
	return urls, nil
}

func (s settings) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{ServerName: s.tlsServerName, MinVersion: tls.VersionTLS12}
	if s.tlsCA != "" {
		pem, err := os.ReadFile(s.tlsCA)
		if err != nil {
			return nil, fmt.Errorf("--tls-ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--tls-ca: no certificate in %s", s.tlsCA)
		}
	}
	return config, nil
}

func main() {
	s, err := parse(os.Args[1:], os.Getenv)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "trimaran-shim:", err)
		os.Exit(2)
	case s.showVersion:
		fmt.Println("trimaran-shim", version)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: s.logLevel}))); err != nil {
		fmt.Fprintln(os.Stderr, "trimaran-shim:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings, logger *slog.Logger) error {
	urls, err := s.gatewayURLs()
	if err != nil {
		return err
	}
	config, err := s.tlsConfig()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", s.listen)
	if err != nil {
		return err
	}
	if host, _, err := net.SplitHostPort(listener.Addr().String()); err == nil && s.advertise == "" {
		if ip := net.ParseIP(host); ip != nil && !ip.IsLoopback() {
			logger.Warn("listening beyond this machine without --advertise: Metadata names the address that each client connected to, which is wrong behind address translation", "listen", listener.Addr())
		}
	}
	logger.Info("shim started", "listen", listener.Addr().String(), "gateways", urls)
	p := newProxy(s, urls, config, logger)
	return p.serve(ctx, listener)
}
