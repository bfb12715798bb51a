package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/cluster"
	"github.com/trimaran-io/trimaran/fsm"
)

func newDev() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run one or more nodes in this process, for development",
		Long: `Run a cluster in one process, on loopback, until Ctrl-C. Its nodes are real ones, with
a data directory each; the data is kept for the next time.`,
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
	cmd.MarkFlagsMutuallyExclusive("data", "ephemeral")
	addStorageFlags(cmd)
	addGroupFlags(cmd)
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
	groups, err := groupsOf(cmd)
	if err != nil {
		return err
	}
	all, err := devOptions(dir, listen, count)
	if err != nil {
		return err
	}
	var nodes []*node
	defer func() {
		if serr := stopAll(nodes); err == nil {
			err = serr
		}
	}()
	divide(log, all)
	for _, o := range all {
		o.log, o.logDropped = log, lines.Dropped
		o.topics = topics
		o.storage = storage
		o.groups = groups
		n, err := startNode(o)
		if errors.Is(err, cluster.ErrLeft) && (len(nodes) > 0 || o.id != all[count-1].id) {
			fmt.Fprintf(cmd.ErrOrStderr(), "node %s has left the cluster and is not started\n", o.id)
			continue
		}
		if err != nil {
			return err
		}
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		if err := n.cluster.WaitReady(cmd.Context()); err != nil {
			if cmd.Context().Err() != nil {
				return nil
			}
			return err
		}
	}
	where := dir + " (kept)"
	if ephemeral {
		where = "a temporary directory"
	}
	devBanner(cmd.OutOrStdout(), nodes, where)
	return firstToFail(cmd.Context(), nodes)
}

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
	if err != nil || perr != nil || port < 0 || port+count+200 > 65535 {
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

func devBanner(out io.Writer, nodes []*node, where string) {
	var addrs []string
	for _, n := range nodes {
		addrs = append(addrs, n.addr)
	}
	flag := ""
	if addrs[0] != defaultBroker {
		flag = " --brokers " + addrs[0]
	}
	fmt.Fprintf(out, `Trimaran runs: %d node(s), data in %s

  Kafka clients  %s
  WebSocket      ws://%s
  Status         trimaran cluster status%s

  echo hello | trimaran produce greetings%s
  trimaran consume greetings%s

Ctrl-C stops it.
`, len(nodes), where, strings.Join(addrs, ","), addrs[0], flag, flag, flag)
}

// firstToFail waits until ctx ends, for nil, or a node cannot go on. Those that leave the cluster
// are none.
func firstToFail(ctx context.Context, nodes []*node) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, len(nodes))
	for _, n := range nodes {
		go func() { ended <- n.wait(ctx) }()
	}
	for range nodes {
		if err := <-ended; !errors.Is(err, cluster.ErrLeft) {
			return err
		}
	}
	return nil
}

// stopAll stops the nodes at once: the last ones could hand their leaderships to
// nobody anyway.
func stopAll(nodes []*node) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, len(nodes))
	for i, n := range nodes {
		wg.Go(func() { errs[i] = n.stop(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
