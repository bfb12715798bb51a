// Command trimaran is a node and the command line that goes with it.
//
// You are here: at the very top. This package reads flags, environment and
// config files, puts a node together out of package cluster and package gateway
// (the only place that knows both), and holds small clients for people and
// scripts. The clients reach a node or a shim over its client port like any
// other client does; only "log" and "recover" look into a data directory, of a stopped node.
// What a node does is written below, not here.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/cluster"
	"github.com/trimaran-io/trimaran/cmd/internal/monitor"
	"github.com/trimaran-io/trimaran/cmd/internal/terminal"
)

// version is set by the linker: -ldflags "-X main.version=…".
var version = "dev"

func main() {
	if len(os.Args) > 1 && (os.Args[1] == "serve" || os.Args[1] == "dev") {
		monitor.Relax() // first of all: it starts the program once more
	}
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program but for the process: 0 is success, 1 a failure that
// stderr explains, 2 settings that were not understood, 3 that a node was started which has
// left its cluster, or was left out when that was recovered, so that starting it once more is in
// vain, too. Where nobody reads what it
// prints it ends without a word, with the code that the signal would give.
func run(args []string, in io.Reader, out, errOut io.Writer) int {
	root := newRoot()
	ctx, stop := signal.NotifyContext(context.Background(), endings(root, args)...)
	defer stop()
	// A second signal ends the process at once: the first one restores the default.
	context.AfterFunc(ctx, stop)

	root.SetArgs(args)
	root.SetIn(in)
	// Whatever is printed may hold what a client or a server made up.
	errOut = terminal.Writer{Raw: errOut}
	root.SetOut(terminal.Writer{Raw: out})
	root.SetErr(errOut)
	cmd, err := root.ExecuteContextC(ctx)
	switch unread := (*fs.PathError)(nil); {
	case err == nil:
		return 0
	case errors.As(err, &unread) && errors.Is(unread, syscall.EPIPE):
		return 128 + int(syscall.SIGPIPE)
	}
	// Further lines of an error are set off, so that what is inside it cannot pass for a line of
	// this program.
	fmt.Fprintf(errOut, "%s: %s\n", cmd.CommandPath(), strings.ReplaceAll(err.Error(), "\n", "\n  "))
	if usage := (*usageError)(nil); errors.As(err, &usage) {
		fmt.Fprintf(errOut, "Run '%s --help' for what it takes.\n", cmd.CommandPath())
		return 2
	}
	if errors.Is(err, cluster.ErrLeft) || errors.Is(err, cluster.ErrLeftOut) {
		return 3
	}
	return 1
}

// endings are the signals that ask for an end in good order, that of a closed terminal
// among them, unless who started this wants it to survive that (nohup), and unless it is a node,
// which reads its certificates and keys again.
func endings(root *cobra.Command, args []string) []os.Signal {
	all := []os.Signal{os.Interrupt, syscall.SIGTERM}
	cmd, _, err := root.Find(args)
	if isNode := err == nil && cmd.Name() == serveName; !isNode && !signal.Ignored(syscall.SIGHUP) {
		all = append(all, syscall.SIGHUP)
	}
	return all
}

// usageError marks an error in the command line itself.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "trimaran",
		Short: "A Kafka-compatible log: several nodes that clients see as one broker",
		Long: `Trimaran is a log that Kafka clients can use: a set of nodes that its clients
see as one Kafka broker, replicated with Raft.

Every flag can also be given as an environment variable (--log-level is
TRIMARAN_LOG_LEVEL) or in a YAML, TOML or JSON file named with --config, with the
flag's name as the key. A flag wins over the environment, the environment over
the file.`,
		Example: `  # one node, or three, in this terminal; the data is kept
  trimaran dev
  trimaran dev --nodes 3

  # write and read
  echo hello | trimaran produce greetings
  trimaran consume greetings`,
		Args:              cobra.NoArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := loadSettings(cmd, os.LookupEnv); err != nil {
				return &usageError{err}
			}
			if err := cmd.ValidateFlagGroups(); err != nil {
				return &usageError{err}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().String("config", "", "YAML, TOML or JSON `file` with settings; keys are the flags' names")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(
		newServe(), newDev(),
		newTopic(), newProduce(), newConsume(), newGroup(), newTransaction(), newUser(), newACL(), newToken(), newCluster(), newNode(), newBackup(), newLog(), newRecover(), newCert(),
		newVersion(),
	)
	markArgErrors(root)
	return root
}

// markArgErrors makes a wrong number of arguments a usageError, for cmd and below.
func markArgErrors(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return &usageError{err}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		markArgErrors(sub)
	}
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  trimaran version",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "trimaran", version)
			return err
		},
	}
}
