package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/trimaran-io/trimaran/gateway/shim"
	"github.com/trimaran-io/trimaran/security/certs"
)

// settings are what the flags say.
type settings struct {
	listen, advertise, metricsListen string
	gateways                         []string // URLs after check
	useTLS                           bool
	tlsCA, tlsServerName             string
	// certificate that gateways are shown
	tlsCert, tlsKey string
	// certificate that clients are shown, and the CA of theirs
	listenCert, listenKey, listenCA string
	maxRequestBytes, maxConnections int
	maxMemoryBytes                  int64
	dialTimeout, handshakeTimeout   time.Duration
	gatewayTimeout, grace           time.Duration
	logLevel                        slog.Level
	// lines of the log that nobody read; nil: not counted
	logDropped func() uint64
}

func (s *settings) register(fs *pflag.FlagSet) {
	fs.SortFlags = false
	fs.StringVar(&s.listen, "listen", "127.0.0.1:9092", "`host:port` to take Kafka clients at")
	fs.StringSliceVar(&s.gateways, "gateways", nil, "gateways, separated by commas or given several times: ws://host:port, wss://host:port or `host:port`")
	fs.StringVar(&s.advertise, "advertise", "", "`host:port` that Metadata names (default: the address that the client connected to)")
	fs.BoolVar(&s.useTLS, "tls", false, "reach gateways that are given as host:port by TLS (wss)")
	fs.StringVar(&s.tlsCA, "tls-ca", "", "`file` of PEM certificates that sign the gateways' certificates (default: the system's)")
	fs.StringVar(&s.tlsServerName, "tls-server-name", "", "`name` in the gateways' certificates (default: the host of the gateway's address)")
	fs.StringVar(&s.tlsCert, "tls-cert", "", "PEM `file` with the certificate that gateways are shown")
	fs.StringVar(&s.tlsKey, "tls-key", "", "PEM `file` with its key")
	fs.StringVar(&s.listenCert, "listen-tls-cert", "", "PEM `file` with the certificate that clients are shown; they have to use TLS then")
	fs.StringVar(&s.listenKey, "listen-tls-key", "", "PEM `file` with its key")
	fs.StringVar(&s.listenCA, "listen-tls-client-ca", "", "PEM `file` with the CA of the certificates that clients have to show (default: they need none)")
	fs.DurationVar(&s.gatewayTimeout, "gateway-timeout", 1200*time.Millisecond, "a gateway that shows no sign of life for so long is taken for dead")
	fs.DurationVar(&s.handshakeTimeout, "handshake-timeout", 3*time.Second, "how long one gateway may take to accept a connection before the next is tried")
	fs.DurationVar(&s.dialTimeout, "dial-timeout", 30*time.Second, "how long a client's request waits for a gateway before its connection is closed")
	fs.DurationVar(&s.grace, "shutdown-grace", 5*time.Second, "how long a stop waits for answers that are under way")
	fs.IntVar(&s.maxRequestBytes, "max-request-bytes", 100<<20, "largest request taken from a client")
	fs.Int64Var(&s.maxMemoryBytes, "max-memory-bytes", 1<<30, "memory for requests of all clients, and as much again for answers")
	fs.IntVar(&s.maxConnections, "max-connections", 10_000, "client connections at a time")
	fs.StringVar(&s.metricsListen, "metrics-listen", "", "`host:port` for /healthz, /readyz and /metrics over HTTP (default: none)")
	fs.TextVar(&s.logLevel, "log-level", slog.LevelInfo, "debug, info, warn or error")
	fs.String("config", "", "YAML, TOML or JSON `file` with settings; keys are the flags' names")
	fs.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(flagName(name))
	})
}

// flagName makes --gateway, which reads better when it is repeated, a word for --gateways.
func flagName(name string) string {
	if name == "gateway" {
		return "gateways"
	}
	return name
}

// doubleDashes lets flags be written with one dash, as the flag package of the
// standard library has them: there are no one-letter flags but -h and -v.
func doubleDashes(args []string) []string {
	args = append([]string{}, args...) // never nil: that would mean the process's own
	for i, arg := range args {
		if arg == "--" {
			break
		}
		if len(arg) > 2 && arg[0] == '-' && arg[1] != '-' {
			args[i] = "-" + arg
		}
	}
	return args
}

func envName(flag string) string {
	return "TRIMARAN_SHIM_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// loadSettings fills the flags that the command line does not give from the
// environment and then from the config file. A key of the file that is no flag is
// refused: a typo would otherwise go unnoticed for ever.
func loadSettings(cmd *cobra.Command, env func(string) (string, bool)) error {
	flags := cmd.Flags()
	settable := func(name string) bool {
		return flags.Lookup(name) != nil && name != "config" && name != "help" && name != "version"
	}
	path := flags.Lookup("config").Value.String()
	if value, ok := env(envName("config")); ok && path == "" {
		path = value
	}
	v := viper.New()
	if path != "" {
		v.SetConfigFile(path)
		if err := v.ReadInConfig(); err != nil {
			return fmt.Errorf("config file %s: %w", path, err)
		}
		for _, key := range v.AllKeys() {
			if !settable(key) {
				return fmt.Errorf("config file %s: unknown key %s", path, key)
			}
		}
	}
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed || !settable(f.Name) {
			return
		}
		if value, ok := env(envName(f.Name)); ok && value != "" {
			if err := flags.Set(f.Name, value); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", envName(f.Name), err))
			}
			return
		}
		for _, key := range v.AllKeys() {
			if flagName(key) != f.Name {
				continue
			}
			value := v.GetString(key)
			if list, ok := v.Get(key).([]any); ok {
				value = strings.Join(v.GetStringSlice(key)[:len(list)], ",")
			}
			if err := flags.Set(f.Name, value); err != nil {
				errs = append(errs, fmt.Errorf("config file %s: %s: %w", path, key, err))
			}
		}
	})
	return errors.Join(errs...)
}

// check refuses what cannot work and makes URLs of the gateways.
func (s *settings) check() error {
	var urls []string
	secure := false
	for _, g := range s.gateways {
		if g = strings.TrimSpace(g); g == "" {
			continue
		}
		u, err := s.gatewayURL(g)
		if err != nil {
			return err
		}
		secure = secure || strings.HasPrefix(u, "wss://")
		if !slices.Contains(urls, u) {
			urls = append(urls, u)
		}
	}
	if len(urls) == 0 {
		return errors.New("no gateway given: --gateways ws://host:port,…")
	}
	s.gateways = urls
	if (s.tlsCert == "") != (s.tlsKey == "") {
		return errors.New("--tls-cert and --tls-key go together")
	}
	if (s.listenCert == "") != (s.listenKey == "") || s.listenCA != "" && s.listenCert == "" {
		return errors.New("--listen-tls-cert and --listen-tls-key go together, and --listen-tls-client-ca with them")
	}
	if !secure && (s.tlsCA != "" || s.tlsServerName != "" || s.tlsCert != "") {
		return errors.New("--tls-ca, --tls-server-name or --tls-cert are given, but no gateway is reached by TLS: give --tls or wss://")
	}
	if s.advertise != "" {
		if !hostPort(s.advertise) {
			return fmt.Errorf("--advertise %q: want host:port", s.advertise)
		}
	}
	if s.maxRequestBytes < minRequest || s.maxRequestBytes > shim.DefaultMaxMessageBytes {
		return fmt.Errorf("--max-request-bytes %d: want %d to %d", s.maxRequestBytes, minRequest, shim.DefaultMaxMessageBytes)
	}
	if s.maxMemoryBytes < int64(s.maxRequestBytes)+4 {
		return fmt.Errorf("--max-memory-bytes %d: less than one request may have (--max-request-bytes)", s.maxMemoryBytes)
	}
	if s.maxConnections < 1 {
		return errors.New("--max-connections: want at least 1")
	}
	for name, d := range map[string]time.Duration{"dial-timeout": s.dialTimeout, "handshake-timeout": s.handshakeTimeout, "gateway-timeout": s.gatewayTimeout} {
		if d < 10*time.Millisecond {
			return fmt.Errorf("--%s %v: want at least 10ms", name, d)
		}
	}
	if s.grace < 0 {
		return errors.New("--shutdown-grace: want 0 or more")
	}
	return nil
}

// hostPort reports whether s may be a host and a port from 1 to 65535.
func hostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	n, portErr := strconv.ParseUint(port, 10, 16)
	odd := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/@?#", r) }
	return err == nil && portErr == nil && n > 0 && host != "" && !strings.ContainsFunc(host, odd)
}

func (s *settings) gatewayURL(g string) (string, error) {
	want := fmt.Errorf("gateway %q: want ws://host:port, wss://host:port or host:port", redacted(g))
	if !strings.Contains(g, "://") {
		if !hostPort(g) {
			return "", want
		}
		if s.useTLS {
			return "wss://" + g, nil
		}
		return "ws://" + g, nil
	}
	u, err := url.Parse(g)
	if err != nil || u.Scheme != "ws" && u.Scheme != "wss" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return "", want
	}
	if s.useTLS && u.Scheme == "ws" {
		return "", fmt.Errorf("gateway %q is without TLS, and --tls asks for it: give wss:// or host:port", redacted(g))
	}
	return g, nil
}

// redacted keeps a password in a URL out of logs.
func redacted(g string) string {
	if !strings.Contains(g, "://") {
		return g
	}
	u, err := url.Parse(g)
	if err != nil {
		return "…"
	}
	return u.Redacted()
}

// gatewayTLS is for the gateways that are reached by wss: what each connection to one takes, and
// the files that it follows.
func (s *settings) gatewayTLS() (each func() *tls.Config, files *certs.Watched, err error) {
	files, err = certs.WatchParts(certs.Files{Cert: s.tlsCert, Key: s.tlsKey, CA: s.tlsCA})
	if err != nil {
		return nil, nil, fmt.Errorf("--tls-ca, --tls-cert, --tls-key: %w", err)
	}
	return func() *tls.Config { return files.Client(s.tlsServerName) }, files, nil
}

// listenTLS is for clients; nil: they do not use TLS.
func (s *settings) listenTLS() (*tls.Config, *certs.Watched, error) {
	if s.listenCert == "" {
		return nil, nil, nil
	}
	source, err := certs.WatchParts(certs.Files{Cert: s.listenCert, Key: s.listenKey, CA: s.listenCA})
	if err != nil {
		return nil, nil, fmt.Errorf("--listen-tls-cert, --listen-tls-key, --listen-tls-client-ca: %w", err)
	}
	return source.Server(false), source, nil
}
