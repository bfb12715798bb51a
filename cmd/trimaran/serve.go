package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os/signal"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/cluster"
	"github.com/trimaran-io/trimaran/cmd/internal/collector"
	"github.com/trimaran-io/trimaran/cmd/internal/logs"
	"github.com/trimaran-io/trimaran/fsm"
)

// mostGarbage is how much Go's collector may leave a busy node, in bytes.
const mostGarbage = 256 << 20

const serveName = "serve"

func newServe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   serveName,
		Short: "Run a node",
		Long: `Run a node until it is told to stop (SIGTERM or Ctrl-C).

A node listens on three ports: for clients (Kafka, WebSocket and HTTP on one), for
other nodes, and for gossip. The data directory keeps the node's id and its
cluster's; a node started without --join, with nothing in its directory, forms a
cluster of its own.`,
		Example: `  # a cluster of one
  trimaran serve --data /var/lib/trimaran

  # three nodes on three machines; the same line on each, with its own address
  trimaran serve --listen 0.0.0.0:9092 --advertise kafka-1:9092 --join kafka-1:9292,kafka-2:9292 --bootstrap-expect 3

  # the same from a file, or from the environment
  trimaran serve --config /etc/trimaran.yaml
  TRIMARAN_DATA=/var/lib/trimaran TRIMARAN_TOPICS=events:6,audit:1 trimaran serve`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd) },
	}
	f := cmd.Flags()
	f.String("data", "trimaran-data", "data `directory`")
	f.String("node-id", "", "`name` of the node: a-z, 0-9 and '-' (default: the one in the data directory, else the host's name)")
	f.String("listen", defaultBroker, "`address` for clients: Kafka, WebSocket and HTTP")
	f.String("advertise", "", "`host:port` that plain Kafka clients are told to use (default: the one they used)")
	f.String("peer-listen", "", "`address` for other nodes (default: the client port + 100)")
	f.String("peer-advertise", "", "`host:port` that other nodes use (default: --peer-listen)")
	f.String("gossip-listen", "", "`address` for gossip, TCP and UDP (default: the client port + 200)")
	f.String("gossip-advertise", "", "`host:port` that others gossip to (default: --gossip-listen)")
	f.StringSlice("join", nil, "gossip `addresses` of any live nodes")
	f.Int("bootstrap-expect", 0, "form the first cluster when so many new nodes see each other (default: 1, or with --join never)")
	f.String("zone", "", "`name` of what fails together, such as a rack; replicas are spread over zones")
	f.StringSlice("topics", nil, "topics to create at the cluster's first start: `name:partitions[:replication-factor]`,…")
	f.Bool("auto-create-topics", true, "create a topic when a client first uses it")
	f.Duration("replace-after", 30*time.Minute, "replicas of a node that is away for so long go to others; 0: never")
	f.Bool("auto-balance", true, "move replicas and leaders so that nodes have even numbers")
	f.Bool("show-replicas", false, "show clients the nodes as brokers, and where replicas are, for tools that look at these; the same on all nodes")
	f.Bool("list-gateways", false, "show clients the nodes as brokers, for those that forget their bootstrap list; the same on all nodes")
	f.Int32("default-partitions", 1, "partitions of a topic whose creator does not say")
	f.Int16("default-replication-factor", 3, "replicas of a topic whose creator does not say; at most the number of nodes")
	f.Int("max-request-bytes", 100<<20, "largest request accepted from a client")
	f.Int64("max-inflight-bytes", 1<<30, "memory for clients' larger requests, and as much again for fetched records on their way")
	f.String("tls-cert", "", "PEM `file` with the certificate chain; clients then use TLS, except on loopback")
	f.String("tls-key", "", "PEM `file` with the certificate's key")
	addServeLoginFlags(cmd)
	f.StringSlice("allow-host", nil, "further `names` that HTTP and WebSocket clients may call this node by; loopback names always may")
	f.StringSlice("allow-origin", nil, "web `origins`, such as https://example.org or http://localhost:*, whose pages may connect; this node's own may")
	f.Bool("console", true, "browsers get a console at the client port")
	addPeerFlags(cmd)
	addAccessFlags(cmd)
	addStorageFlags(cmd)
	addCoordinatorFlags(cmd)
	addNodeBackupFlags(cmd)
	addTierFlags(cmd)
	addLogFlags(cmd, "info")
	return cmd
}

func addLogFlags(cmd *cobra.Command, level string) {
	cmd.Flags().String("log-level", level, "debug, info, warn or error")
	cmd.Flags().String("log-format", "text", "text or json")
}

func serve(cmd *cobra.Command) error {
	log, lines, err := loggerOf(cmd)
	if err != nil {
		return err
	}
	defer lines.Close(lastLines)
	hangup := hangups()
	defer signal.Stop(hangup)
	o, err := serveOptions(cmd)
	if err != nil {
		return err
	}
	if o.peers, err = peersOf(cmd, log); err != nil {
		return err
	}
	o.log, o.logDropped = log, lines.Dropped
	peerHost, _, _ := net.SplitHostPort(o.peerListen)
	clientHost, _, _ := net.SplitHostPort(o.listen)
	o.warnOpen(log, !isLoopback(clientHost), !isLoopback(peerHost))
	o.peers.warn(log)
	// Whatever the log's format: what was denied is read by programs.
	level, _ := cmd.Flags().GetString("log-level")
	if o.audit, err = newLogger(lines, level, "json"); err != nil {
		return err
	}
	if o.access.Authorize && len(o.access.SuperUsers) == 0 {
		log.Warn("there are no super users: who may create ACLs has to be in ACLs already")
	}
	if !isLoopback(clientHost) && o.advertise == "" {
		log.Warn("listening beyond loopback without --advertise: plain TCP clients that come through NAT or a port forward " +
			"are told the address that this node sees, and cannot use it; WebSocket and TLS clients can")
	}
	go collector.Tune(cmd.Context(), mostGarbage, collector.GoPercent)
	one := []nodeOptions{o}
	divide(log, one)
	n, err := startNode(one[0])
	if err != nil {
		return err
	}
	go o.peers.reread(cmd.Context(), hangup, n.cluster, n.log)
	return n.run(cmd.Context())
}

// serveOptions turns the flags into what startNode takes.
func serveOptions(cmd *cobra.Command) (nodeOptions, error) {
	f := cmd.Flags()
	text := func(name string) string { s, _ := f.GetString(name); return s }
	list := func(name string) []string { s, _ := f.GetStringSlice(name); return s }
	o := nodeOptions{
		data: text("data"), id: fsm.NodeID(text("node-id")), zone: text("zone"),
		listen: text("listen"), advertise: text("advertise"),
		peerListen: text("peer-listen"), peerAdvertise: text("peer-advertise"),
		gossipListen: text("gossip-listen"), gossipAdvertise: text("gossip-advertise"),
		join: list("join"), allowHosts: list("allow-host"), allowOrigins: list("allow-origin"),
	}
	var err error
	if o.peerListen, err = besides(o.peerListen, o.listen, 100); err != nil {
		return o, err
	}
	if o.gossipListen, err = besides(o.gossipListen, o.listen, 200); err != nil {
		return o, err
	}
	if o.peerAdvertise == "" {
		o.peerAdvertise = reachable(o.peerListen, o.advertise)
	}
	if o.topics, err = parseTopics(list("topics")); err != nil {
		return o, err
	}
	o.expect, _ = f.GetInt("bootstrap-expect")
	if !f.Changed("bootstrap-expect") && len(o.join) == 0 {
		o.expect = 1
	}
	o.autoCreate, _ = f.GetBool("auto-create-topics")
	o.replaceAfter, _ = f.GetDuration("replace-after")
	if o.replaceAfter == 0 {
		o.replaceAfter = -1
	}
	o.autoBalance, _ = f.GetBool("auto-balance")
	o.showReplicas, _ = f.GetBool("show-replicas")
	o.listGateways, _ = f.GetBool("list-gateways")
	o.console, _ = f.GetBool("console")
	o.partitions, _ = f.GetInt32("default-partitions")
	o.replication, _ = f.GetInt16("default-replication-factor")
	o.maxRequest, _ = f.GetInt("max-request-bytes")
	if o.expect < 0 || o.partitions < 1 || o.replication < 1 {
		return o, usagef("--bootstrap-expect, --default-partitions and --default-replication-factor must be positive")
	}
	// The first byte of a Kafka frame's size must not look like a TLS record's (0x16).
	if o.maxRequest < 1<<10 || o.maxRequest >= 0x16000000 {
		return o, usagef("--max-request-bytes %d: want at least 1024 and less than %d", o.maxRequest, 0x16000000)
	}
	o.maxInflight, _ = f.GetInt64("max-inflight-bytes")
	if o.maxInflight < int64(o.maxRequest) {
		return o, usagef("--max-inflight-bytes %d: want at least --max-request-bytes, %d", o.maxInflight, o.maxRequest)
	}
	if o.storage, err = storageOf(cmd); err != nil {
		return o, err
	}
	if o.coordinators, err = coordinatorSettingsOf(cmd); err != nil {
		return o, err
	}
	if o.backup, err = nodeBackupsOf(cmd); err != nil {
		return o, err
	}
	if o.tier, err = tierOf(cmd); err != nil {
		return o, err
	}
	if o.access, err = accessOf(cmd); err != nil {
		return o, err
	}
	if o.login, err = serveLogin(cmd); err != nil {
		return o, err
	}
	if o.login.certificates != nil {
		o.tls = o.login.certificates.Server(!o.login.certRequired)
	}
	if host, _, _ := net.SplitHostPort(o.listen); (o.listGateways || o.showReplicas) && o.advertise == "" && isUnspecified(host) {
		return o, usagef("--list-gateways and --show-replicas name each node to clients of all: give its --advertise, since --listen is all addresses of this machine")
	}
	// Now, and not when the node may have formed a cluster already.
	if err := o.gateway().Check(); err != nil {
		return o, &usageError{err}
	}
	return o, nil
}

// besides gives an address as it is, or one at the same host as listen with a
// port that is higher by add. Port 0, any free one, stays 0.
func besides(addr, listen string, add int) (string, error) {
	if addr != "" {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return "", usagef("listen address %q: want host:port", addr)
		}
		return addr, nil
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", usagef("--listen %q: want host:port", listen)
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 0 || n+add > 65535 {
		return "", usagef("--listen %q: port %s has no room for the two others at +100 and +200; give --peer-listen and --gossip-listen", listen, port)
	}
	if n > 0 {
		n += add
	}
	return net.JoinHostPort(host, strconv.Itoa(n)), nil
}

// reachable gives what other nodes can call when a node listens on all of its
// addresses: the advertised host, else the machine's first address that is not
// loopback; "", the address listened on, in all other cases.
func reachable(listen, advertise string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil || port == "0" {
		return ""
	}
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		return ""
	}
	if host, _, err := net.SplitHostPort(advertise); err == nil && host != "" {
		return net.JoinHostPort(host, port)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return net.JoinHostPort(n.IP.String(), port)
		}
	}
	return ""
}

// isUnspecified: "" and the addresses that mean all of a machine's.
func isUnspecified(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// loggerOf gives the log of a command that runs for long, which outlives who reads what it prints,
// and its writer, which the caller closes.
func loggerOf(cmd *cobra.Command) (*slog.Logger, *logs.Writer, error) {
	level, _ := cmd.Flags().GetString("log-level")
	format, _ := cmd.Flags().GetString("log-format")
	w := logs.New(raw(cmd.ErrOrStderr()))
	log, err := newLogger(w, level, format)
	if err != nil {
		w.Close(0)
		return nil, nil, err
	}
	w.OnDropped(func(lines uint64) { log.Warn("lines of this log are missing: nobody read them", "lines", lines) })
	logs.Survive()
	return log, w, nil
}

// lastLines is how long the end of a process waits for who reads its log.
const lastLines = time.Second

func newLogger(out io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usagef("--log-level %q: want debug, info, warn or error", level)
	}
	o := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(out, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(out, o)), nil
	}
	return nil, usagef("--log-format %q: want text or json", format)
}

// stopWithin is how long a node has to answer what it has begun and to hand over
// its leaderships before it ends anyway.
const stopWithin = 20 * time.Second

// run serves until ctx ends or the node cannot go on, and then stops it. That the node has left the
// cluster is an end as it was asked for.
func (n *node) run(ctx context.Context) error {
	failed := n.wait(ctx)
	stopping, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	if err := n.stop(stopping); failed == nil || errors.Is(failed, cluster.ErrLeft) {
		return err
	}
	return failed // what happened while stopping is its consequence, and logged
}
