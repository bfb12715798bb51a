// Package cluster is the node: its Raft groups, the way from a partition to the
// node that leads it, and how nodes find each other.
//
// You are here: below the gateway, which asks Node for partitions and topics
// and does not know where they are; above the state machines (fsm), the log
// (cluster/raftlog), the link between nodes (cluster/peer), gossip
// (cluster/membership) and placement (cluster/placement). This package does not
// speak Kafka's protocol; requests of consumer groups it hands on as they are.
//
// A request's way: route.go finds the partition's leader; partition.go is the
// replica of a partition, shard.go that of a shard of consumer groups, replica.go
// what both are; proposer.go puts records into its Raft group; rafts.go opens groups.
// groups.go is the way from a consumer group to its coordinator.
// catalog.go is the group that knows topics and nodes; reconcile.go runs the
// replicas that the catalog says should be here; formation.go brings the node
// to its cluster; rpc.go is what nodes say to each other.
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
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/trimaran-io/trimaran/cluster/membership"
	"github.com/trimaran-io/trimaran/cluster/peer"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
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
	fs     vfs.FS // of the partitions' logs
}

// Node is one running node. It answers for every partition of the cluster,
// wherever its leader is.
type Node struct {
	cfg         Config
	logger      *slog.Logger
	raftLogger  hclog.InterceptLogger
	dir         *dataDir
	nodeID      fsm.NodeID
	incarnation string
	identity    string // "<node id>.<incarnation>", the name in every Raft group

	stable *raftlog.Stable
	logs   *raftlog.Store // of the partitions

	catchUpLimit *rate.Limiter
	link         *peer.Link
	gossip       *membership.Gossip
	wired        chan struct{} // closed when link and gossip are there: the link is called by others before
	catalog      *catalog
	failover     *failover

	producerIDs *producerIDs
	fresh       freshness
	forwarded   *semaphore.Weighted // requests of consumer groups that wait at other nodes
	unpacking   *semaphore.Weighted // batches that are unpacked to look for a time

	ctx    context.Context // ends when the node stops
	cancel context.CancelFunc
	done   sync.WaitGroup

	served    atomic.Bool // Ready was nil once
	diskHangs atomic.Bool // an append here does not end
	wasCut    atomic.Bool // from some node, and it was not asked since whether this one still belongs to the cluster

	idMu    sync.Mutex
	id      *identityFile // replaced, never changed
	waiting string        // what formation waits for

	tidied struct { // the reconcile loop's own: when it last looked for leftovers
		view *fsm.Topics
		at   time.Time
	}

	mu        sync.Mutex
	replicas  map[fsm.PartitionID]*replica
	broken    map[fsm.PartitionID]error     // replicas that could not be opened
	hints     map[fsm.PartitionID]hint      // leaders of partitions without a replica here, or that the replica does not reach
	askedWho  map[string]time.Time          // when others may be asked again who leads a group
	addresses map[string]string             // peer addresses by identity, of everyone ever met
	reopening map[fsm.PartitionID]bool      // replicas to be closed and opened again
	busy      map[fsm.PartitionID]bool      // replicas that are being opened or closed, see inhand
	rebuilt   map[fsm.PartitionID]time.Time // when that was tried last
	damage    map[fsm.PartitionID]error     // replicas to be rebuilt, and why
	hurt      map[fsm.PartitionID]hurt      // replicas that run with something damaged
	fullNodes map[string]time.Time          // nodes whose disk is full, and until when that holds
	hashing   chan struct{}                 // capacity 1: one check of replicas reads at a time
	caughtUp  bool                          // the catalog here was once as new as the leader's

	creating bool // the topics of the configuration are not all there yet
	stopping bool
	fatal    error
	failed   chan struct{} // closed when fatal is set
}

// Start opens the data directory, listens and begins to look for the cluster.
// It returns before the node is in one: see WaitReady.
func Start(cfg Config) (_ *Node, err error) {
	if cfg.HeartbeatTimeout <= 0 {
		cfg.HeartbeatTimeout = defaultHeartbeatTimeout
	}
	if cfg.CommitTimeout <= 0 {
		cfg.CommitTimeout = defaultCommitTimeout
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
		cfg:       cfg,
		replicas:  map[fsm.PartitionID]*replica{},
		broken:    map[fsm.PartitionID]error{},
		hints:     map[fsm.PartitionID]hint{},
		askedWho:  map[string]time.Time{},
		addresses: map[string]string{},
		reopening: map[fsm.PartitionID]bool{},
		busy:      map[fsm.PartitionID]bool{},
		damage:    map[fsm.PartitionID]error{},
		rebuilt:   map[fsm.PartitionID]time.Time{},
		hurt:      map[fsm.PartitionID]hurt{},
		fullNodes: map[string]time.Time{},
		hashing:   make(chan struct{}, 1),
		wired:     make(chan struct{}),
		creating:  len(cfg.InitialTopics) > 0,
		failed:    make(chan struct{}),
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	var undo []func()
	defer func() {
		if err != nil {
			n.cancel()
			for i := len(undo) - 1; i >= 0; i-- {
				undo[i]()
			}
		}
	}()

	if n.dir, err = openDataDir(cfg.DataDir); err != nil {
		return nil, err
	}
	undo = append(undo, func() { n.dir.close() })
	if n.id, err = n.dir.loadIdentity(cfg.NodeID); err != nil {
		return nil, err
	}
	if n.id.Left {
		return nil, ErrLeft
	}
	n.nodeID, n.incarnation = n.id.NodeID, n.id.Incarnation
	n.identity = fsm.Node{ID: n.nodeID, Incarnation: n.incarnation}.Identity()
	n.logger = slog.New(newBackoffLogs(cfg.Logger.Handler())).With("self", n.nodeID) // lines about another one say node
	n.raftLogger = newRaftLogger(n.logger)
	if n.stable, err = raftlog.OpenStable(n.dir.join("votes.db")); err != nil {
		return nil, err
	}
	n.stable.OnFail(n.diskFailed)
	undo = append(undo, func() { n.stable.Close() })
	if n.logs, err = raftlog.OpenStore(n.dir.path, n.logOptions()); err != nil {
		return nil, err
	}
	undo = append(undo, func() { n.logs.Close() })
	n.producerIDs = newProducerIDs()
	n.forwarded = newForwarded()
	n.unpacking = newUnpacking()
	n.catalog = newCatalog(n)
	n.catchUpLimit = newCatchUpLimit(cfg.CatchUpRate)
	n.failover = newFailover(n)

	listener, err := cfg.Listen(cfg.PeerListen)
	if err != nil {
		return nil, fmt.Errorf("listen for peers: %w", err)
	}
	n.link = peer.New(peer.Config{
		Self:      n.identity,
		ClusterID: n.ClusterID,
		Listener:  listener,
		Dial:      cfg.Dial,
		Resolve:   n.resolve,
		Handler:   n.serve,
		Logger:    n.logger,

		HeartbeatTimeout: cfg.HeartbeatTimeout,
		MaxAppendEntries: maxAppendEntries,
		MaxConnections:   n.cfg.MaxPeerConnections,
		OnOrphans:        n.failover.noticed,
		Answered:         cfg.answered,
	})
	undo = append(undo, func() { n.link.Close() })
	n.link.OnDown(func(string) { n.wasCut.Store(true) })
	if n.cfg.PeerAdvertise == "" {
		n.cfg.PeerAdvertise = listener.Addr().String()
	}
	n.gossip, err = membership.Start(membership.Config{
		Self:          n.member(),
		BindAddr:      cfg.GossipListen,
		AdvertiseAddr: cfg.GossipAdvertise,
		Join:          cfg.Join,
		HintsFile:     n.dir.join("members"),
		SecretKey:     cfg.GossipKey,
		Logger:        n.logger,
	})
	if err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	undo = append(undo, func() { n.gossip.Close() })
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
		n.watchForTwin()
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
		if err := n.findCluster(n.ctx); err != nil {
			n.fail(err)
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
	n.done.Add(1)
	go func() {
		defer n.done.Done()
		n.housekeepingLoop()
	}()
	n.done.Add(1)
	go func() {
		defer n.done.Done()
		n.tellFull()
	}()
	for _, loop := range []func(){n.scrubLoop, n.planLoop, n.leadersLoop, n.stuckLoop} {
		n.done.Add(1)
		go func() {
			defer n.done.Done()
			loop()
		}()
	}
	n.reconcileLoop()
}

// openCatalog starts the catalog group of the cluster that this node is in.
func (n *Node) openCatalog() error {
	n.idMu.Lock()
	forming := n.id.Forming
	n.idMu.Unlock()
	var voters, nonvoters []string
	if forming != nil && forming.Proposer == n.identity && forming.ClusterID == n.ClusterID() {
		for i, node := range forming.Nodes {
			if i < maxCatalogVoters {
				voters = append(voters, node.Identity())
			} else {
				nonvoters = append(nonvoters, node.Identity())
			}
		}
	}
	if err := n.catalog.open(voters, nonvoters); err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	return nil
}

// fail records an error that only the operator can mend.
func (n *Node) fail(err error) {
	if n.ctx.Err() != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fatal == nil {
		n.fatal = err
		close(n.failed)
		if errors.Is(err, ErrLeft) {
			n.logger.Info("the node ends: it has left the cluster, as was asked for")
		} else {
			n.logger.Error("the node cannot go on", "error", err)
		}
	}
}

// diskFailed ends the node: of what was written nobody knows what is on the disk, and only a restart finds out.
func (n *Node) diskFailed(err error) {
	n.fail(fmt.Errorf("the disk has lost what was written: %w", err))
}

// lost gives err, and ends the node if it is that of a sync. The kernel tells it once: whoever tries again is told that all is well.
func (n *Node) lost(err error) error {
	if errors.As(err, new(notSynced)) {
		n.diskFailed(err)
	}
	return err
}

// Failed is closed when the node cannot go on; Err tells why.
func (n *Node) Failed() <-chan struct{} { return n.failed }

// Err is what closed Failed.
func (n *Node) Err() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.fatal
}

// NodeID is the name of this node.
func (n *Node) NodeID() fsm.NodeID { return n.nodeID }

// ClusterID is "" until the node is in a cluster.
func (n *Node) ClusterID() string {
	n.idMu.Lock()
	defer n.idMu.Unlock()
	if n.id == nil {
		return ""
	}
	return n.id.ClusterID
}

// Topics gives the catalog as this node knows it. It must not be changed.
func (n *Node) Topics() *fsm.Topics { return n.catalog.view.Load() }

// Ready is nil when this node serves. The error says what is missing.
func (n *Node) Ready() error {
	n.mu.Lock()
	stopping, caughtUp, creating, fatal := n.stopping, n.caughtUp, n.creating, n.fatal
	running := len(n.replicas)
	n.mu.Unlock()
	switch {
	case fatal != nil:
		return fatal
	case stopping:
		return outcome.ErrShuttingDown
	case n.ClusterID() == "":
		n.idMu.Lock()
		defer n.idMu.Unlock()
		return errors.New("not in a cluster: " + n.waiting)
	case !caughtUp:
		return errors.New("the catalog is not up to date yet")
	}
	if n.Topics().ClusterID() == "" {
		return errors.New("the cluster is being formed")
	}
	if creating { // or a client's first use would create them with other settings
		return errors.New("the topics of --topics are being created")
	}
	// Only the start waits for all. A partition that loses its majority later, or a
	// replica that cannot be opened, must not take the whole node out of service.
	// Nor must one of a topic that has just been created: what was there at the start
	// has been up, and the catalog is known.
	if !n.served.Load() {
		if !n.catalogLed() {
			return errors.New("the catalog has no leader that this node reaches")
		}
		if s := n.shortcomings(); s.starting > 0 {
			return fmt.Errorf("%d of %d replicas are not up yet", s.starting, running+s.closed)
		}
	}
	err := n.serves()
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
		case <-n.failed:
			return n.Err()
		case <-tick.C:
		}
	}
}

// Addresses gives the addresses that other nodes reach this one at.
func (n *Node) Addresses() (peer, gossip string) {
	return n.cfg.PeerAdvertise, n.gossip.Addr()
}

func (n *Node) setWaiting(state string) {
	n.idMu.Lock()
	defer n.idMu.Unlock()
	n.waiting = state
}

// saveIdentity changes node.json.
func (n *Node) saveIdentity(change func(*identityFile)) error {
	n.idMu.Lock()
	defer n.idMu.Unlock()
	next := *n.id
	change(&next)
	if err := n.lost(n.dir.saveIdentity(&next)); err != nil {
		return err
	}
	n.id = &next
	return nil
}

// member is what gossip says of this node.
func (n *Node) member() membership.Member {
	expect := n.cfg.BootstrapExpect
	if n.ClusterID() != "" {
		expect = 0
	}
	return membership.Member{
		Identity: n.identity, NodeID: string(n.nodeID), Incarnation: n.incarnation,
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

// resolve gives the peer address of a node: what gossip says now, else what it
// said last.
func (n *Node) resolve(identity string) (string, bool) {
	if n.isWired() {
		for _, m := range n.gossip.Members() {
			if m.Identity == identity {
				n.mu.Lock()
				n.addresses[identity] = m.PeerAddr
				n.mu.Unlock()
				return m.PeerAddr, true
			}
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	addr, ok := n.addresses[identity]
	return addr, ok
}

func (n *Node) transport(group string) transport {
	return n.link.Transport(group).(transport)
}

func (n *Node) partitionDir(id fsm.PartitionID) string {
	return n.dir.join("partitions", id.String())
}

func (n *Node) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-n.ctx.Done():
	}
}
