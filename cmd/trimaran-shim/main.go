// Command trimaran-shim is a TCP proxy around package gateway/shim: Kafka
// clients connect to it as to a broker, and it carries their messages to a
// gateway over WebSocket, to another gateway when that one is gone.
//
// You are here: beside the clients, at the very edge. The command knows of
// Kafka's protocol what it needs to keep a client through the loss of a gateway:
// where a message ends, whether a request is answered, whether it may be asked
// twice. It keeps no record, invents no answer and changes no byte.
//
//	main.go      the process           session.go   one client: requests, order, what moves
//	settings.go  flags, env, file      upstream.go  one gateway connection
//	proxy.go     accepting, stopping   gateways.go  which gateways are there
//	request.go   a request's head      client.go    reading from and writing to a client
//	budget.go    memory in all         metrics.go   what an operator sees
//	buffers.go   memory used again     ticket.go    logins that outlive gateways
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/cmd/internal/collector"
	"github.com/trimaran-io/trimaran/cmd/internal/descriptors"
	"github.com/trimaran-io/trimaran/cmd/internal/logs"
	"github.com/trimaran-io/trimaran/cmd/internal/monitor"
)

const (
	// mostGarbage is how much Go's collector may leave a shim, in bytes.
	mostGarbage = 64 << 20
	// leastPercent: a shim has a few MB alive, and by Go's default would collect whenever as many
	// have passed.
	leastPercent = 400
	// lastLines is how long the end of the process waits for who reads its log.
	lastLines = time.Second
)

// version is set by the linker: -ldflags "-X main.version=…".
var version = "dev"

func main() {
	monitor.Relax() // first of all: it starts the program once more
	ctx, stop := signal.NotifyContext(context.Background(), endings()...)
	// A second signal ends the process at once: the first one restores the default.
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// endings are the signals that ask for an end in good order, that of a closed terminal
// among them, unless who started this wants it to survive that (nohup).
func endings() []os.Signal {
	all := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		all = append(all, syscall.SIGHUP)
	}
	return all
}

// run is the whole program but for the process: 0 is success, 1 a failure that
// errOut explains, 2 settings that were not understood.
func run(ctx context.Context, args []string, env func(string) (string, bool), out, errOut io.Writer) int {
	cmd := newCommand(env, serve)
	cmd.SetArgs(doubleDashes(args))
	cmd.SetOut(out)
	cmd.SetErr(errOut)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(errOut, "trimaran-shim: %v\n", err)
	if usage := (*usageError)(nil); errors.As(err, &usage) {
		fmt.Fprintln(errOut, "Run 'trimaran-shim --help' for what it takes.")
		return 2
	}
	return 1
}

// newCommand reads the settings and hands them to run.
func newCommand(env func(string) (string, bool), run func(context.Context, settings, *slog.Logger) error) *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "trimaran-shim --gateways ws://host:port,…",
		Short: "Lets Kafka clients reach Trimaran over WebSocket",
		Long: `trimaran-shim lets Kafka clients reach Trimaran over WebSocket.

Clients connect to --listen as to any Kafka broker. The loss of a gateway stays
behind the shim: it goes on with another one, and Metadata names the shim. Only a
client with a produce under way whose fate nobody knows is told, by the end of
its connection.

Every flag can also be given as an environment variable (--tls-ca is
TRIMARAN_SHIM_TLS_CA) or in a YAML, TOML or JSON file named with --config, with the
flag's name as the key. A flag wins over the environment, the environment over
the file. Flags may be written with one dash, too.`,
		Example: `  # three gateways on this machine; clients connect to 127.0.0.1:9092
  trimaran-shim --gateways ws://127.0.0.1:9093,ws://127.0.0.1:9094,ws://127.0.0.1:9095

  # over TLS, with a certificate authority of one's own
  trimaran-shim --gateways wss://kafka.example.org
  trimaran-shim --gateways 10.0.0.5:9092 -tls -tls-ca ca.pem -tls-server-name kafka.internal

  # for clients on other machines, which reach this one by that name
  trimaran-shim --listen :9092 --advertise shim.example.org:9092 --gateways ws://10.0.0.5:9092

  # settings from the environment
  TRIMARAN_SHIM_GATEWAYS=ws://127.0.0.1:9093 trimaran-shim --listen 127.0.0.1:19092`,
		Version:           version,
		Args:              cobra.NoArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := loadSettings(cmd, env); err != nil {
				return &usageError{err}
			}
			if err := s.check(); err != nil {
				return &usageError{err}
			}
			lines := logs.New(cmd.ErrOrStderr())
			defer lines.Close(lastLines)
			logger := slog.New(slog.NewTextHandler(lines, &slog.HandlerOptions{Level: s.logLevel}))
			lines.OnDropped(func(n uint64) { logger.Warn("lines of this log are missing: nobody read them", "lines", n) })
			logs.Survive()
			s.logDropped = lines.Dropped
			return run(cmd.Context(), s, logger)
		},
	}
	cmd.SetVersionTemplate("trimaran-shim {{.Version}}\n")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	noArgs := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if err := noArgs(cmd, args); err != nil {
			return &usageError{fmt.Errorf("unexpected argument %q", args[0])}
		}
		return nil
	}
	s.register(cmd.Flags())
	return cmd
}

// usageError marks an error in the settings.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// serve runs the shim until ctx ends.
func serve(ctx context.Context, s settings, logger *slog.Logger) error {
	each, shown, err := s.gatewayTLS()
	if err != nil {
		return err
	}
	clients, served, err := s.listenTLS()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", s.listen)
	if err != nil {
		return err
	}
	var web net.Listener
	if s.metricsListen != "" {
		if web, err = net.Listen("tcp", s.metricsListen); err != nil {
			listener.Close()
			return err
		}
	}
	limit := descriptors.Limit()
	if most := descriptors.OfShim(limit, len(s.gateways)); most < s.maxConnections {
		logger.Warn("fewer clients than --max-connections are taken: two files for each are more than the process may have open", "open_files", limit, "clients", most)
		s.maxConnections = most
	}
	p := newProxy(s, each, logger)
	p.clientTLS = clients
	names := s.advertise
	if names == "" {
		names = "the address that each client connected to"
		if tcp, ok := listener.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
			logger.Warn("listening beyond this machine without --advertise: Metadata will name the address that each client connected to, which is wrong behind address translation", "listen", listener.Addr().String())
		}
	}
	logger.Info("shim started", "version", version, "listen", listener.Addr().String(), "metadata_names", names, "gateways", p.gateways.names())
	if web != nil {
		logger.Info("metrics", "url", "http://"+web.Addr().String()+"/metrics")
		defer p.serveWeb(web)()
	}
	tuning, stop := context.WithCancel(ctx)
	defer stop()
	go collector.Tune(tuning, mostGarbage, leastPercent)
	go shown.Follow(tuning, logger)
	if served != nil {
		go served.Follow(tuning, logger)
	}
	return p.serve(ctx, listener)
}
