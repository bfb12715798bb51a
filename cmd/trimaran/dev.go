package main

import (
	"context"
	"fmt"
	"io"
	golog "log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/trimaran-io/trimaran/cmd/internal/drill"
	"github.com/trimaran-io/trimaran/fsm"
)

func newDev() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run one or more nodes in this terminal, for development",
		Long: `Run a cluster on loopback until Ctrl-C. Its nodes are real ones, with a data directory
each; the data is kept for the next time. Several nodes are a process each, and there is a page that
kills, pauses and restarts them.`,
		Example: `  trimaran dev
  trimaran dev --nodes 3
  trimaran dev --ephemeral --topics events:3`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return dev(cmd) },
	}
	f := cmd.Flags()
	f.Int("nodes", 1, "number of nodes (default: as many as the data directory has, else 1)")
	f.String("data", "", "data `directory` (default: trimaran/dev in $XDG_DATA_HOME or ~/.local/share)")
	f.Bool("ephemeral", false, "keep the data in a temporary directory that is deleted at the end")
	f.String("listen", defaultBroker, "`address` for clients of the first node; the others follow, port by port")
	f.StringSlice("topics", nil, "topics to create at first start: `name:partitions[:replication-factor]`,…")
	f.String(oneOfThem, "", "be this `node` of several, until stdin ends; for 'trimaran dev' itself")
	_ = f.MarkHidden(oneOfThem)
	cmd.MarkFlagsMutuallyExclusive("data", "ephemeral")
	addStorageFlags(cmd)
	addCoordinatorFlags(cmd)
	addLogFlags(cmd, "error")
	return cmd
}

func dev(cmd *cobra.Command) (err error) {
	log, lines, err := loggerOf(cmd)
	if err != nil {
		return err
	}
	defer lines.Close(lastLines)
	f := cmd.Flags()
	dir, err := devDir(cmd)
	if err != nil {
		return err
	}
	ephemeral, _ := f.GetBool("ephemeral")
	if ephemeral {
		defer os.RemoveAll(dir)
	}
	wanted, _ := f.GetInt("nodes")
	count, err := devNodes(dir, wanted, f.Changed("nodes"))
	if err != nil {
		return err
	}
	listen, _ := f.GetString("listen")
	given, _ := f.GetStringSlice("topics")
	topics, err := parseTopics(given)
	if err != nil {
		return err
	}
	storage, err := storageOf(cmd)
	if err != nil {
		return err
	}
	coordinators, err := coordinatorSettingsOf(cmd)
	if err != nil {
		return err
	}
	all, err := devOptions(dir, listen, count)
	if err != nil {
		return err
	}
	where := dir + " (kept)"
	if ephemeral {
		where = "a temporary directory"
	}
	one, _ := f.GetString(oneOfThem)
	if one == "" && count > 1 {
		return devProcesses(cmd, log, dir, where, all)
	}
	at := max(0, slices.IndexFunc(all, func(o nodeOptions) bool { return string(o.id) == one }))
	mine := all[at : at+1]
	divide(log, mine)
	o := mine[0]
	o.log, o.logDropped = log, lines.Dropped
	o.topics, o.storage, o.coordinators = topics, storage, coordinators
	if o.tier, err = devTier(dir); err != nil {
		return err
	}
	n, err := startNode(o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	if one != "" {
		go func() {
			_, _ = io.Copy(io.Discard, cmd.InOrStdin())
			cancel() // who runs this node is gone, or wants it to end
		}()
	}
	go func() {
		if n.cluster.WaitReady(ctx) != nil {
			return // how it ends says why
		}
		if one != "" {
			fmt.Fprintln(cmd.OutOrStdout(), drill.Ready)
		} else {
			devBanner(cmd.OutOrStdout(), []string{n.addr}, where, "")
		}
	}()
	return n.run(ctx)
}

// oneOfThem is the flag with which dev starts a process for each node.
const oneOfThem = "one-of-them"

// devProcesses runs a process for each node, and the page that ends them.
func devProcesses(cmd *cobra.Command, log *slog.Logger, dir, where string, all []nodeOptions) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	args, err := devArgs(cmd, dir, len(all))
	if err != nil {
		return err
	}
	var nodes []drill.Node
	var addrs []string
	for _, o := range all {
		nodes = append(nodes, drill.Node{ID: string(o.id), Address: o.listen})
		addrs = append(addrs, o.listen)
	}
	stderr := raw(cmd.ErrOrStderr())
	processes := drill.New(nodes, func(id string) *exec.Cmd {
		c := exec.Command(program, append(slices.Clone(args), "--"+oneOfThem, id)...)
		c.Stderr = stderr
		// All settings are in the arguments.
		c.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TRIMARAN_") })
		return c
	}, func(line string) { log.Error(line) })
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopWithin+time.Second)
		defer cancel()
		processes.Stop(ctx)
	}()
	if err := processes.StartAll(cmd.Context()); err != nil {
		if cmd.Context().Err() != nil {
			return nil
		}
		return err
	}
	page, closePage, err := serveDrill(processes, all[0].listen)
	if err != nil {
		log.Error("there is no page for fault drills", "error", err)
	}
	defer closePage()
	devBanner(cmd.OutOrStdout(), addrs, where, page)
	select {
	case err := <-processes.Failed():
		return err
	case <-cmd.Context().Done():
		return nil
	}
}

// devArgs are the arguments of a node's process: all that is set here, wherever from.
func devArgs(cmd *cobra.Command, dir string, count int) ([]string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	args := []string{cmd.Name(), "--data=" + dir, "--nodes=" + strconv.Itoa(count)}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Changed || slices.Contains([]string{"data", "ephemeral", "nodes", "config"}, f.Name) {
			return
		}
		if many, ok := f.Value.(pflag.SliceValue); ok {
			for _, value := range many.GetSlice() {
				args = append(args, "--"+f.Name+"="+value)
			}
			return
		}
		args = append(args, "--"+f.Name+"="+f.Value.String())
	})
	return args, nil
}

// serveDrill serves the page on loopback, at the port of the first node and 300.
func serveDrill(nodes *drill.Nodes, first string) (url string, closePage func(), err error) {
	_, port, err := net.SplitHostPort(first)
	if err != nil {
		return "", func() {}, err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return "", func() {}, err
	}
	port = strconv.Itoa(n + drillPort)
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return "", func() {}, err
	}
	at := l.Addr().String()
	s := &http.Server{
		Handler:           drill.Handler(nodes, []string{at, "localhost:" + port}),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: golog.New(io.Discard, "", 0),
	}
	go func() { _ = s.Serve(l) }()
	return "http://" + at + drill.Path, func() { _ = s.Close() }, nil
}

// drillPort is added to the first node's port.
const drillPort = 300

// devDir gives the directory that holds the nodes' data directories.
func devDir(cmd *cobra.Command) (string, error) {
	if ephemeral, _ := cmd.Flags().GetBool("ephemeral"); ephemeral {
		return os.MkdirTemp("", "trimaran-dev-")
	}
	if dir, _ := cmd.Flags().GetString("data"); dir != "" {
		return dir, nil
	}
	// XDG Base Directory Specification: $XDG_DATA_HOME counts only if absolute.
	if base := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "trimaran", "dev"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no place for the data: %w; name one with --data", err)
	}
	return filepath.Join(home, ".local", "share", "trimaran", "dev"), nil
}

// devNodes gives the number of nodes to run. Fewer than the directory has would
// be a cluster that waits for its majority.
func devNodes(dir string, wanted int, given bool) (int, error) {
	old, err := filepath.Glob(filepath.Join(dir, "n[0-9]*"))
	if err != nil {
		return 0, err
	}
	switch {
	case !given && len(old) > 0:
		return len(old), nil
	case wanted < 1 || wanted > 99:
		return 0, usagef("--nodes %d: want 1 to 99", wanted)
	case wanted < len(old):
		return 0, fmt.Errorf("%s holds a cluster of %d nodes: run it with --nodes %d, or another one with --data or --ephemeral",
			dir, len(old), len(old))
	}
	return wanted, nil
}

// devOptions gives the nodes n1, n2, … on successive ports.
func devOptions(dir, listen string, count int) ([]nodeOptions, error) {
	host, portText, err := net.SplitHostPort(listen)
	port, perr := strconv.Atoi(portText)
	if err != nil || perr != nil || port < 0 || port+count+drillPort > 65535 {
		return nil, usagef("--listen %q: want host:port with room for %d nodes", listen, count)
	}
	at := func(add int) string { return net.JoinHostPort(host, strconv.Itoa(port+add)) }
	if port == 0 {
		if count > 1 {
			return nil, usagef("--listen %q: several nodes need a port to count from", listen)
		}
		at = func(int) string { return listen }
	}
	var all []nodeOptions
	for i := range count {
		o := nodeOptions{
			id: fsm.NodeID(fmt.Sprintf("n%d", i+1)), data: filepath.Join(dir, fmt.Sprintf("n%d", i+1)),
			listen: at(i), peerListen: at(100 + i), gossipListen: at(200 + i),
			expect: count, autoCreate: true, autoBalance: true, partitions: 1, replication: 3, maxRequest: 100 << 20, console: true,
			// a page that is being developed on this machine
			allowOrigins: []string{"http://localhost:*", "http://127.0.0.1:*"},
		}
		for j := range count {
			if j != i {
				o.join = append(o.join, at(200+j))
			}
		}
		all = append(all, o)
	}
	return all, nil
}

func devBanner(out io.Writer, addrs []string, where, drills string) {
	flag := ""
	if addrs[0] != defaultBroker {
		flag = " --brokers " + addrs[0]
	}
	if drills != "" {
		drills = "\n  Fault drill    " + drills
	}
	fmt.Fprintf(out, `Trimaran runs: %d node(s), data in %s

  Kafka clients  %s
  WebSocket      ws://%s
  Console        http://%s/%s
  Status         trimaran cluster status%s

  echo hello | trimaran produce greetings%s
  trimaran consume greetings%s

Ctrl-C stops it.
`, len(addrs), where, strings.Join(addrs, ","), addrs[0], addrs[0], drills, flag, flag, flag)
}
