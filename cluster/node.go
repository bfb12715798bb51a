// Package cluster is the node: its Raft groups, the way from a partition to the
// node that leads it, and how nodes find each other.
//
// You are here: below the gateway, which asks Node for partitions and topics
// and does not know where they are; above the catalog (cluster/catalog), replicas (cluster/replica), who
// the node is and how it comes to its cluster (cluster/identity, cluster/formation), the log
// (cluster/raftlog), the link between nodes (cluster/peer) and gossip (cluster/membership). This
// package does not speak Kafka's protocol; requests of consumer groups it hands on as they are.
//
// A request's way: route.go finds the partition's leader, and the replica there (cluster/replica)
// answers; groups.go is the way from a consumer group to its coordinator.
// topics.go asks the catalog, and cataloghost.go is what that needs of the node; reconcile.go has the
// replicas run that the catalog says should be here, and replicahost.go is what they need; forming.go
// connects formation with the node; ending.go is why a node ends; rpc.go is what nodes say to each other.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/trimaran-io/trimaran/cluster/backofflog"
	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/catalog"
	"github.com/trimaran-io/trimaran/cluster/formation"
	"github.com/trimaran-io/trimaran/cluster/identity"
	"github.com/trimaran-io/trimaran/cluster/liveness"
	"github.com/trimaran-io/trimaran/cluster/membership"
	"github.com/trimaran-io/trimaran/cluster/peer"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/cluster/route"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
)

// Config says how a node starts. Addresses are host:port.
type Config struct {
	DataDir string
	NodeID  fsm.NodeID // "" takes the one kept in DataDir, or one made of the host's name at first start
	Zone    string
	Version string // shown in status

	PeerListen      string // node to node traffic, TCP
	PeerAdvertise   string // "" for the address listened on
	GossipListen    string // TCP and UDP
	GossipAdvertise string // "" for the address listened on
	GossipKey       []byte // 16, 24 or 32 bytes encrypt gossip; nil for none
	ClientAddress   string // shown in status
	// MaxPeerConnections bounds the connections with other nodes; 0 means 4096.
	MaxPeerConnections int

	Join            []string // gossip addresses of any live nodes
	BootstrapExpect int      // form the first cluster when this many nodes without one see each other; 0 only joins

	DefaultPartitions        int32           // 0 means 1
	DefaultReplicationFactor int16           // 0 means 3; never more than the cluster has nodes
	InitialTopics            []fsm.TopicSpec // created once, when the cluster is formed with this node in it

	// TopicDefaults are topic configurations, Kafka's names, for topics that do not
	// set them; nil for Kafka's defaults.
	TopicDefaults map[string]string
	// RetentionInterval is the time between two looks for what may be deleted; 0
	// means 30 s.
	RetentionInterval time.Duration
	// MaxDiskShare is the part of the disk, 0 to 1, above which partitions that this
	// node leads let go of their oldest segments whatever their retention says. 0:
	// never.
	MaxDiskShare float64
	// CatchUpRate bounds, in bytes a second, what this node copies from others for
	// replicas that are far behind. 0 means 100 MiB.
	CatchUpRate int64
	// ScrubRate is how fast, in bytes a second, what replicas here keep is checked in
	// the background. 0 means 4 MiB; negative: never.
	ScrubRate int64

	// ReplaceAfter is how long a node must be away before its replicas go to others. 0 means 30
	// minutes; negative: never.
	ReplaceAfter time.Duration
	// NoAutoBalance leaves replicas and leaders where they are unless a node leaves or is drained.
	NoAutoBalance bool
	steadyFor     time.Duration // 0: defaultSteadyFor
	twinFor       time.Duration // 0: twinFor
	// Seams for tests; nil: nothing happens there.
	beforeApply func(id fsm.PartitionID, index uint64)
	onCopy      func(id fsm.PartitionID, step string)
	answered    func(group string, req, resp any) // peer.Config.Answered
	level       int                               // what the node says its program knows; 0: fsm.Level
	// Groups are the settings of consumer groups; the zero value is Kafka's defaults
	// but for the initial rebalance delay, which is none.
	Groups coordinator.Settings

	HeartbeatTimeout time.Duration // of every Raft group; 0 means 15 s. The death of a node is noticed sooner
	CommitTimeout    time.Duration // of every Raft group; 0 means 4 s

	Logger   *slog.Logger
	Registry prometheus.Registerer // nil for no metrics

	// Seams for tests; nil for the real network and disk.
	Dial   func(ctx context.Context, addr string) (net.Conn, error)
	Listen func(addr string) (net.Listener, error)
	fs     vfs.FS // of the data directory
}

// disk is where the data directory is.
func (c *Config) disk() vfs.FS {
	if c.fs != nil {
		return c.fs
	}
	return vfs.OS
}

// Node is one running node. It answers for every partition of the cluster,
// wherever its leader is.
type Node struct {
	cfg        Config
	logger     *slog.Logger
	raftLogger hclog.InterceptLogger
	dir        *identity.Dir
	who        *identity.Identity
	nodeID     fsm.NodeID
	identity   string // "<node id>.<incarnation>", the name in every Raft group
	formation  *formation.Formation

	stable *raftlog.Stable
	logs   *raftlog.Store // of all groups

	link      *peer.Link
	gossip    *membership.Gossip
	nodes     *liveness.Nodes // who is there
	caller    *route.Caller   // calls to other nodes
	server    *calls.Server   // and their answers
	router    *route.Router   // from a partition to its leader
	groups    *route.Groups   // from a consumer group to its coordinator
	room      *diskRoom
	health    *health
	handovers *handovers
	wired     chan struct{} // closed when link and gossip are there: the link is called by others before
	catalog   *catalog.Catalog
	initial   *catalog.InitialTopics
	replicas  *replica.Set
	failover  *failover

	ctx    context.Context // ends when the node stops
	cancel context.CancelFunc
	done   sync.WaitGroup
	ending *ending

	served atomic.Bool // Ready was nil once
}

// Start opens the data directory, listens and begins to look for the cluster.
// It returns before the node is in one: see WaitReady.
func Start(cfg Config) (_ *Node, err error) {
	if cfg.HeartbeatTimeout <= 0 {
		cfg.HeartbeatTimeout = raftgroup.DefaultHeartbeatTimeout
	}
	if cfg.CommitTimeout <= 0 {
		cfg.CommitTimeout = raftgroup.DefaultCommitTimeout
	}
	if cfg.DefaultPartitions <= 0 {
		cfg.DefaultPartitions = 1
	}
	if cfg.DefaultReplicationFactor <= 0 {
		cfg.DefaultReplicationFactor = 3
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Listen == nil {
		cfg.Listen = func(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }
	}
	n := &Node{
		cfg:   cfg,
		wired: make(chan struct{}),
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.ending = newEnding(n.ctx)
	var undo []func()
	defer func() {
		if err != nil {
			n.cancel()
			for i := len(undo) - 1; i >= 0; i-- {
				undo[i]()
			}
		}
	}()

	if n.dir, err = identity.Open(cfg.disk(), cfg.DataDir); err != nil {
		return nil, err
	}
	undo = append(undo, func() { n.dir.Close() })
	if n.who, err = identity.Load(n.dir, cfg.NodeID); err != nil {
		return nil, err
	}
	if n.who.HasLeft() {
		return nil, ErrLeft
	}
	n.nodeID, n.identity = n.who.NodeID(), n.who.String()
	n.logger = slog.New(backofflog.New(cfg.Logger.Handler())).With("self", n.nodeID) // lines about another one say node
	n.ending.logger = n.logger
	n.raftLogger = raftgroup.NewLogger(n.logger)
	if n.logs, err = raftlog.OpenStore(n.dir.Path(), n.logOptions()); err != nil {
		return nil, err
	}
	undo = append(undo, func() { n.logs.Close() })
	if err = n.openVotes(); err != nil {
		return nil, err
	}
	undo = append(undo, func() { n.stable.Close() })
	n.catalog = catalog.New(n.catalogConfig())
	n.initial = n.newInitialTopics()
	n.replicas = replica.New(n.ctx, n.replicaConfig())
	n.wire()

	listener, err := cfg.Listen(cfg.PeerListen)
	if err != nil {
		return nil, fmt.Errorf("listen for peers: %w", err)
	}
	n.link = peer.New(peer.Config{
		Self:      n.identity,
		ClusterID: n.ClusterID,
		Listener:  listener,
		Dial:      cfg.Dial,
		Resolve:   n.nodes.Resolve,
		Handler:   n.serve,
		Logger:    n.logger,

		HeartbeatTimeout: cfg.HeartbeatTimeout,
		MaxAppendEntries: raftgroup.MaxAppendEntries,
		MaxConnections:   n.cfg.MaxPeerConnections,
		OnOrphans:        n.failover.noticed,
		Answered:         cfg.answered,
	})
	undo = append(undo, func() { n.link.Close() })
	n.link.OnDown(func(string) { n.catalog.WasCut() })
	if n.cfg.PeerAdvertise == "" {
		n.cfg.PeerAdvertise = listener.Addr().String()
	}
	n.gossip, err = membership.Start(membership.Config{
		Self:          n.member(),
		BindAddr:      cfg.GossipListen,
		AdvertiseAddr: cfg.GossipAdvertise,
		Join:          cfg.Join,
		HintsFile:     n.dir.Join("members"),
		SecretKey:     cfg.GossipKey,
		Logger:        n.logger,
	})
	if err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	undo = append(undo, func() { n.gossip.Close() })
	n.formation = n.newFormation()
	close(n.wired)
	if n.ClusterID() != "" {
		if err := n.openCatalog(); err != nil {
			return nil, err
		}
	}
	if cfg.Registry != nil {
		if err := cfg.Registry.Register(collector{n}); err != nil {
			return nil, err
		}
	}
	n.logger.Info("node started", "identity", n.identity, "cluster", n.ClusterID(), "data", cfg.DataDir, "peers", n.cfg.PeerAdvertise)
	n.done.Add(3)
	go func() {
		defer n.done.Done()
		n.run()
	}()
	go func() {
		defer n.done.Done()
		if err := n.who.WatchForTwin(n.ctx, n.gossip, cfg.twinFor); err != nil {
			n.fail(err)
		}
	}()
	go func() {
		defer n.done.Done()
		n.failover.run(n.ctx)
	}()
	return n, nil
}

// run is the life of the node after its start.
func (n *Node) run() {
	if n.ClusterID() == "" {
		if err := n.formation.Run(n.ctx); err != nil {
			n.fail(n.lost(err))
			return
		}
		if err := n.openCatalog(); err != nil {
			n.fail(err)
			return
		}
	}
	n.done.Add(1)
	go func() {
		defer n.done.Done()
		n.createInitialTopics()
	}()
	n.replicas.Run()
	n.done.Add(1)
	go func() {
		defer n.done.Done()
		n.room.run(n.ctx)
	}()
	for _, loop := range []func(){
		func() { n.newLeaderships().run(n.ctx) }, func() { n.newStuckGroups().run(n.ctx) },
		func() { n.catalog.Run(n.ctx) }, func() { n.catalog.Plan(n.ctx) },
	} {
		n.done.Add(1)
		go func() {
			defer n.done.Done()
			loop()
		}()
	}
	n.reconcileLoop()
}

func (n *Node) fail(err error)       { n.ending.fail(err) }
func (n *Node) diskFailed(err error) { n.ending.diskFailed(err) }
func (n *Node) lost(err error) error { return n.ending.lost(err) }

// Failed is closed when the node cannot go on; Err tells why.
func (n *Node) Failed() <-chan struct{} { return n.ending.failed }

// Err is what closed Failed.
func (n *Node) Err() error {
	return n.ending.err()
}

// NodeID is the name of this node.
func (n *Node) NodeID() fsm.NodeID { return n.nodeID }

// ClusterID is "" until the node is in a cluster.
func (n *Node) ClusterID() string {
	return n.who.ClusterID()
}

// Ready is nil when this node serves. The error says what is missing.
func (n *Node) Ready() error {
	if err := n.ending.serving(); err != nil {
		return err
	}
	switch {
	case n.ClusterID() == "":
		return errors.New("not in a cluster: " + n.formation.Waiting())
	case !n.catalog.CaughtUp():
		return errors.New("the catalog is not up to date yet")
	}
	if n.Topics().ClusterID() == "" {
		return errors.New("the cluster is being formed")
	}
	if n.initial.Pending() { // or a client's first use would create them with other settings
		return errors.New("the topics of --topics are being created")
	}
	// Only the start waits for all. A partition that loses its majority later, or a
	// replica that cannot be opened, must not take the whole node out of service.
	// Nor must one of a topic that has just been created: what was there at the start
	// has been up, and the catalog is known.
	if !n.served.Load() {
		if !n.health.catalogLed() {
			return errors.New("the catalog has no leader that this node reaches")
		}
		if s := n.health.shortcomings(); s.starting > 0 {
			return fmt.Errorf("%d of %d replicas are not up yet", s.starting, n.replicas.Count()+s.closed)
		}
	}
	err := n.health.serves()
	if elsewhere, cut := n.cutOff(); err == nil && elsewhere {
		err = cut
	}
	if err == nil {
		n.served.Store(true)
	}
	return err
}

// WaitReady returns when Ready is nil, or with the last answer when ctx ends.
func (n *Node) WaitReady(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := n.Ready()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-n.ending.failed:
			return n.Err()
		case <-tick.C:
		}
	}
}

// Addresses gives the addresses that other nodes reach this one at.
func (n *Node) Addresses() (peer, gossip string) {
	return n.cfg.PeerAdvertise, n.gossip.Addr()
}

// member is what gossip says of this node.
func (n *Node) member() membership.Member {
	expect := n.cfg.BootstrapExpect
	if n.ClusterID() != "" {
		expect = 0
	}
	return membership.Member{
		Identity: n.identity, NodeID: string(n.nodeID), Incarnation: n.who.Incarnation(),
		ClusterID: n.ClusterID(), PeerAddr: n.cfg.PeerAdvertise, ClientAddr: n.cfg.ClientAddress,
		Zone: n.cfg.Zone, Version: n.cfg.Version, Expect: expect,
	}
}

// announce tells the others what has changed here. What was said before stays if
// it does not fit, and the others find this node all the same.
func (n *Node) announce() {
	if err := n.gossip.Update(n.member()); err != nil {
		n.logger.Warn("gossip was not told the news", "error", err)
	}
}

// isWired reports whether this node is far enough in its start to answer other nodes.
func (n *Node) isWired() bool {
	select {
	case <-n.wired:
		return true
	default:
		return false
	}
}

func (n *Node) transport(group string) raftgroup.Transport {
	return n.link.Transport(group).(raftgroup.Transport)
}

func (n *Node) partitionDir(id fsm.PartitionID) string {
	return n.dir.Join("partitions", id.String())
}

func (n *Node) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-n.ctx.Done():
	}
}
