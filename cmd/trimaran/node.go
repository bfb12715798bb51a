package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/trimaran-io/trimaran/cluster"
	"github.com/trimaran-io/trimaran/cmd/internal/descriptors"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/gateway"
)

// nodeOptions is what `serve` and `dev` know about a node.
type nodeOptions struct {
	data string
	id   fsm.NodeID // "": the one in data, else the host's name
	zone string

	listen, advertise             string
	peerListen, peerAdvertise     string
	gossipListen, gossipAdvertise string
	peers                         peerOptions
	join                          []string
	expect                        int // 0: never form a cluster, only join one

	topics                     []fsm.TopicSpec
	autoCreate                 bool
	showReplicas, listGateways bool
	console                    bool
	replaceAfter               time.Duration // 0: the default, negative: never
	autoBalance                bool
	partitions                 int32
	replication                int16

	storage      storageOptions
	coordinators coordinatorSettings
	backup       backupOptions
	tier         tierOptions

	maxClients   int // connections; 0: the gateway's default
	maxPeers     int // connections with other nodes; 0: the default
	maxRequest   int
	maxInflight  int64       // 0: the gateway's default
	tls          *tls.Config // nil: no TLS
	login        loginOptions
	allowHosts   []string
	allowOrigins []string

	access gateway.Access

	log        *slog.Logger
	audit      *slog.Logger  // nil: log
	logDropped func() uint64 // lines of log that nobody read; nil: not counted
}

// node is a running one: the cluster's half and the clients' half, introduced to
// each other.
type node struct {
	cluster *cluster.Node
	gateway *gateway.Server
	addr    string     // where clients connect
	failed  chan error // gets an error when the gateway stops serving by itself
	log     *slog.Logger
	// of what else a node has
	closeAudit, stopWatching func()
}

// auditTo is the log that denials are written to; a node that has none for them writes them to its
// own.
func (o *nodeOptions) auditTo(log *slog.Logger, self fsm.NodeID) *slog.Logger {
	if o.audit == nil {
		return log
	}
	return o.audit.With("self", string(self))
}

// wait returns when ctx ends, with nil, or when the node cannot go on.
func (n *node) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-n.failed:
		return err
	case <-n.cluster.Failed():
		return n.cluster.Err()
	}
}

// mostClients and mostPeers bound connections where the process may have more files open than they
// could take.
const (
	mostClients = 10_000
	mostPeers   = 4096
)

// divide gives nodes in one process their parts of the files that it may have open, and says so.
func divide(log *slog.Logger, nodes []nodeOptions) {
	limit := descriptors.Limit()
	clients, peers := descriptors.OfNode(limit, len(nodes))
	clients, peers = min(clients, mostClients), min(peers, mostPeers)
	say := log.Info
	if clients < mostClients/len(nodes) {
		say = log.Warn
	}
	say("connections are bounded by the files that the process may have open", "open_files", limit, "clients", clients, "peers", peers)
	for i := range nodes {
		nodes[i].maxClients, nodes[i].maxPeers = clients, peers
	}
}

// gateway is the configuration of the clients' half, without what comes with a running node.
func (o nodeOptions) gateway() gateway.Config {
	return gateway.Config{
		Advertise: o.advertise, AllowHosts: o.allowHosts, AllowOrigins: o.allowOrigins,
		TLS: o.tls, MaxConnections: o.maxClients, MaxRequestBytes: o.maxRequest, MaxInflightBytes: o.maxInflight, AutoCreateTopics: o.autoCreate,
		ListGateways: o.listGateways, ShowReplicas: o.showReplicas,
		TopicDefaults: o.storage.topicDefaults, Version: version, Console: o.console,
		BrokerConfigs: o.brokerConfigs(), Access: o.access,
	}
}

// brokerConfigs are the settings of the node that Kafka has as configurations of a broker, for who
// looks at them with its tools.
func (o nodeOptions) brokerConfigs() map[string]string {
	configs := map[string]string{
		"num.partitions":             strconv.Itoa(int(o.partitions)),
		"default.replication.factor": strconv.Itoa(int(o.replication)),
	}
	for _, g := range coordinatorFlags {
		configs[strings.ReplaceAll(g.flag, "-", ".")] = strconv.FormatInt(g.standard(o.coordinators), 10)
	}
	return configs
}

// startNode returns when the node listens; it serves once the cluster is formed.
func startNode(o nodeOptions) (*node, error) {
	// The client port first: that it is taken is the commonest reason to fail.
	listener, err := net.Listen("tcp", o.listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("client port: %w; --listen names another", err)
	} else if err != nil {
		return nil, fmt.Errorf("client port: %w", err)
	}
	started := false
	defer func() {
		if !started {
			listener.Close()
		}
	}()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if o.logDropped != nil {
		registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "trimaran_log_lines_dropped_total", Help: "Lines of the process's log that were dropped since nobody read them.",
		}, func() float64 { return float64(o.logDropped()) }))
	}
	o.register(registry)
	var saves *backups // nil: none
	if o.backup.url != "" {
		if saves, err = newBackups(o.backup, o.data, o.log); err != nil {
			return nil, err
		}
		registry.MustRegister(saves)
	}
	shown := o.advertise
	if shown == "" {
		shown = listener.Addr().String()
	}
	tierTo, err := o.tier.open()
	if err != nil {
		return nil, err
	}
	c, err := cluster.Start(cluster.Config{
		DataDir: o.data, NodeID: o.id, Zone: o.zone, Version: version,
		PeerListen: o.peerListen, PeerAdvertise: o.peerAdvertise,
		GossipListen: o.gossipListen, GossipAdvertise: o.gossipAdvertise,
		GossipKeys: o.peers.gossipKeys, GossipPlaintext: o.peers.gossipPlaintext, PeerTLS: o.peers.tls,
		ClientAddress: shown, MaxPeerConnections: o.maxPeers, Join: o.join, BootstrapExpect: o.expect,
		DefaultPartitions: o.partitions, DefaultReplicationFactor: o.replication, InitialTopics: o.topics,
		TopicDefaults: o.storage.topicDefaults, RetentionInterval: o.storage.retentionInterval,
		MaxDiskShare: o.storage.maxDiskShare, CatchUpRate: o.storage.catchUpRate, ScrubRate: o.storage.scrubRate,
		CompactionRate: o.storage.compactionRate, CompactionMemory: o.storage.compactionMemory,
		TierTo: tierTo, TierCacheBytes: o.tier.cacheBytes, TierUploadRate: o.tier.uploadRate,
		ReplaceAfter: o.replaceAfter, NoAutoBalance: !o.autoBalance,
		Groups: o.coordinators.groups, Transactions: o.coordinators.transactions,
		Backup: saves.reported(),
		Logger: o.log, Registry: registry,
	})
	if err != nil {
		return nil, err
	}
	log := o.log.With("self", string(c.NodeID()))
	config := o.gateway()
	config.Cluster, config.Logger, config.Registry = c, log, registry
	closeAudit, err := o.login.login(&config, c, o.auditTo(log, c.NodeID()))
	var g *gateway.Server
	if err == nil {
		g, err = gateway.New(config)
	}
	if err != nil {
		closeAudit()
		ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
		defer cancel()
		return nil, errors.Join(err, c.Shutdown(ctx))
	}
	local, err := listenLocal(o.data)
	if err != nil {
		// Nothing that clients need: the node serves without.
		log.Warn("there is no Unix socket for the super user", "error", err)
	}
	started = true
	n := &node{cluster: c, gateway: g, addr: listener.Addr().String(), failed: make(chan error, 1), log: log, closeAudit: closeAudit}
	watching, stopWatching := context.WithCancel(context.Background())
	n.stopWatching = stopWatching
	o.login.begin(watching, c, log)
	go func() {
		if err := g.Serve(listener); err != nil && !errors.Is(err, net.ErrClosed) {
			n.failed <- fmt.Errorf("client port: %w", err)
		}
	}()
	if local != nil {
		go func() {
			if err := g.Serve(local); err != nil && !errors.Is(err, net.ErrClosed) {
				log.Error("the Unix socket for the super user does not serve any more", "error", err)
			}
		}()
	}
	if saves != nil {
		if local == nil {
			log.Error("no backups are made: they go over the Unix socket")
		} else {
			saves.leads, saves.log = c.LeadsCatalog, log
			saved := make(chan struct{})
			n.stopWatching = func() { stopWatching(); <-saved }
			go func() {
				defer close(saved)
				saves.run(watching)
			}()
		}
	}
	peer, gossip := c.Addresses()
	log.Info("node listens", "version", version, "clients", n.addr, "peers", peer, "gossip", gossip, "data", o.data)
	return n, nil
}

// stop lets clients have the answers to what they have asked, takes no more,
// hands leaderships over and ends. When ctx ends first, the rest is cut off.
func (n *node) stop(ctx context.Context) error {
	n.log.Info("node is stopping")
	defer n.closeAudit()
	defer n.stopWatching()
	err := n.gateway.Shutdown(ctx)
	if err != nil {
		err = fmt.Errorf("stop serving clients: %w", err)
	}
	if cerr := n.cluster.Shutdown(ctx); cerr != nil {
		err = errors.Join(err, fmt.Errorf("leave the cluster: %w", cerr))
	}
	return err
}
