// Package cluster is the node: wiring and lifetime of the parts that make one.
//
// You are here: below the gateway, which asks Node for partitions and topics and does not know
// where they are; above the packages in this folder, each of which has its job, its locks and its
// tests. This package does not speak Kafka's protocol; requests of consumer groups it hands on as
// they are.
//
//	node.go        what a node has, how it is started, its loops
//	wiring.go      what the parts are given of each other
//	config.go      Config; ready.go: when the node serves; ending.go: why it ends; shutdown.go: how
//	topics.go      front: what a gateway asks goes to the catalog; route.go: to package route
//	rpc.go         what other nodes ask (package calls) is answered by which part
//	recovery.go    a stopped node's part in a recovery of its cluster without a majority
//	successor.go   ends a node that such a recovery has left out
//	presence.go    who is there (package liveness); twin.go whether somebody else is this node
//	reconcile.go   has the replicas run that the catalog says should be here
//	cataloghost.go, replicahost.go, statushere.go, forming.go: what those parts need of the node
//
// Node has no lock: what changes belongs to the parts, each of which says beside its lock what may
// be done under it (package internal/locks): diskRoom, failover and ending here, each with one
// under which nothing is called. None of them calls another one while it holds its own.
package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/trimaran-io/trimaran/cluster/backofflog"
	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/catalog"
	"github.com/trimaran-io/trimaran/cluster/diskroom"
	"github.com/trimaran-io/trimaran/cluster/election"
	"github.com/trimaran-io/trimaran/cluster/formation"
	"github.com/trimaran-io/trimaran/cluster/identity"
	"github.com/trimaran-io/trimaran/cluster/leading"
	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/membership"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/cluster/raftlink"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/cluster/route"
	"github.com/trimaran-io/trimaran/cluster/status"
	"github.com/trimaran-io/trimaran/cluster/tier"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/transaction"
)

// Node is one running node. It answers for every partition of the cluster,
// wherever its leader is.
type Node struct {
	front // what is asked of it

	cfg        Config
	started    time.Time
	logger     *slog.Logger
	raftLogger hclog.InterceptLogger
	dir        *identity.Dir
	who        *identity.Identity
	nodeID     fsm.NodeID
	identity   string // "<node id>.<incarnation>", the name in every Raft group
	formation  *formation.Formation

	stable *raftlog.Stable
	logs   *raftlog.Store // of all groups

	outbox    link.Outbox // what the logs send before they go to the disk
	link      *link.Link
	rafts     *raftlink.Transports
	election  *election.Beacons // beacons: who is gone, who leads
	gossip    *membership.Gossip
	caller    *route.Caller // calls to other nodes
	server    *calls.Server // and their answers
	room      *diskroom.Room
	health    *status.Health
	metrics   *metrics
	handovers *leading.Handovers
	// transactionCounters are of the coordinators here.
	transactionCounters transaction.Counters
	compactionCounters  replica.CompactionCounters
	tier                *tier.Tier // nil: there is none
	// closed when link and gossip are there: the link is called by others before
	wired    chan struct{}
	initial  *catalog.InitialTopics
	failover *leading.Failover

	ctx    context.Context // ends when the node stops
	cancel context.CancelFunc
	done   sync.WaitGroup
	ending *ending

	served atomic.Bool // Ready was nil once

	// successors are peer addresses of nodes that gossip says are of what became of this cluster
	successors chan string // capacity 1
}

// hintsName is the file with the addresses at which other nodes gossiped.
const hintsName = "members"

// Start opens the data directory, listens and begins to look for the cluster.
// It returns before the node is in one: see WaitReady.
func Start(cfg Config) (_ *Node, err error) {
	cfg.setDefaults()
	n := &Node{cfg: cfg, started: time.Now(), wired: make(chan struct{}), successors: make(chan string, 1)}
	n.defaults = cfg.TopicDefaults
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
	n.metrics = newMetrics(n)
	if n.cfg.fs == nil && cfg.Registry != nil {
		n.cfg.fs = vfs.Observed(n.metrics.synced)
	}
	if err := n.openFiles(&undo); err != nil {
		return nil, err
	}
	if err := n.openTier(); err != nil {
		return nil, err
	}
	catalogs, replicas := &catalogHost{}, &replicaHost{}
	n.catalog = catalog.New(n.catalogConfig(catalogs))
	n.initial = n.newInitialTopics()
	n.replicas = replica.New(n.ctx, n.replicaConfig(replicas))
	n.wire(catalogs, replicas)
	if err := n.listen(&undo); err != nil {
		return nil, err
	}
	n.formation = n.newFormation()
	close(n.wired)
	if n.ClusterID() != "" {
		if err := n.openCatalog(); err != nil {
			return nil, err
		}
	}
	if cfg.Registry != nil {
		if err := n.metrics.register(cfg.Registry); err != nil {
			return nil, err
		}
	}
	n.logger.Info("node started", "identity", n.identity, "cluster", n.who.ClusterID(), "data", cfg.DataDir, "peers", n.cfg.PeerAdvertise)
	n.done.Go(n.run)
	n.done.Go(func() {
		if err := n.who.WatchForTwin(n.ctx, n.twins()); err != nil {
			n.fail(err)
		}
	})
	n.done.Go(func() { n.failover.Run(n.ctx) })
	n.done.Go(n.watchForSuccessor)
	return n, nil
}

// openFiles opens the data directory and finds out who this node is. undo is what closes it again.
func (n *Node) openFiles(undo *[]func()) (err error) {
	if n.dir, err = identity.Open(n.cfg.disk(), n.cfg.DataDir); err != nil {
		return err
	}
	*undo = append(*undo, func() { n.dir.Close() })
	if n.who, err = identity.Load(n.dir, n.cfg.NodeID); err != nil {
		return err
	}
	if n.who.HasLeft() {
		return ErrLeft
	}
	n.nodeID, n.identity = n.who.NodeID(), n.who.String()
	if g := n.cfg.PeerTLS; g != nil {
		if err := g.CheckNode(string(n.nodeID)); err != nil {
			return err
		}
	}
	// lines about another one say node
	n.logger = slog.New(backofflog.New(n.cfg.Logger.Handler())).With("self", n.nodeID)
	n.ending.logger = n.logger
	n.raftLogger = raftgroup.NewLogger(n.logger)
	if n.logs, err = raftlog.OpenStore(n.dir.Path(), n.logOptions()); err != nil {
		return err
	}
	*undo = append(*undo, func() { n.logs.Close() })
	if err := n.openVotes(); err != nil {
		return err
	}
	*undo = append(*undo, func() { n.stable.Close() })
	return nil
}

// listen opens the way to other nodes, and tells them where this one is.
func (n *Node) listen(undo *[]func()) error {
	listener, err := n.cfg.Listen(n.cfg.PeerListen)
	if err != nil {
		return fmt.Errorf("listen for peers: %w", err)
	}
	dial := n.cfg.Dial
	if g := n.cfg.PeerTLS; g != nil {
		listener, dial = g.Listener(listener), g.Dialer(dial)
	}
	n.link = link.New(link.Config{
		Self:           n.identity,
		ClusterID:      n.who.ClusterID,
		Listener:       listener,
		Dial:           dial,
		Resolve:        n.nodes.Resolve,
		Elsewhere:      n.nodes.Elsewhere,
		Reached:        n.nodes.ReachedAt,
		Handler:        n.server.Serve,
		Outbox:         &n.outbox,
		Logger:         n.logger,
		MaxConnections: n.cfg.MaxPeerConnections,
	})
	rafts := raftlink.Config{MaxAppendEntries: raftgroup.MaxAppendEntries, Answered: n.cfg.answered}
	linksForMeasuring(&rafts)
	n.rafts = raftlink.New(n.link, rafts)
	n.election = election.New(n.link, n.rafts, election.Config{
		HeartbeatTimeout: n.cfg.HeartbeatTimeout,
		ElectionTimeout:  raftgroup.LeaderLease(n.cfg.HeartbeatTimeout),
		OnOrphans:        n.failover.Noticed,
	})
	n.link.Start()
	*undo = append(*undo, func() { n.link.Close() })
	n.link.OnDown(func(string) { n.catalog.WasCut() })
	if n.cfg.PeerAdvertise == "" {
		n.cfg.PeerAdvertise = listener.Addr().String()
	}
	n.gossip, err = membership.Start(membership.Config{
		Self:          n.member(),
		BindAddr:      n.cfg.GossipListen,
		AdvertiseAddr: n.cfg.GossipAdvertise,
		Join:          n.cfg.Join,
		Hints:         vfs.Small{FS: n.cfg.disk(), Path: n.dir.Join(hintsName)},
		Keys:          n.cfg.GossipKeys,
		Plaintext:     n.cfg.GossipPlaintext,
		Foreign:       n.foreign,
		Transport:     n.cfg.gossip,
		Logger:        n.logger,
	})
	if err != nil {
		return fmt.Errorf("start gossip: %w", err)
	}
	*undo = append(*undo, func() { n.gossip.Close() })
	return nil
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
	n.done.Go(n.createInitialTopics)
	n.done.Go(func() { n.room.Run(n.ctx) })
	n.done.Go(func() { n.newPreferred().Run(n.ctx) })
	n.done.Go(func() { n.newStuckMembers().Run(n.ctx) })
	n.done.Go(func() { n.catalog.Run(n.ctx) })
	n.done.Go(func() { n.catalog.Plan(n.ctx) })
	n.done.Go(n.sweepTier)
	n.replicas.Run()
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

// ClusterID is "" until the node is in a cluster. It is what clients know that by; a cluster that
// was recovered has another name among nodes (package identity).
func (n *Node) ClusterID() string {
	return identity.Formed(n.who.ClusterID())
}

// Addresses gives the addresses that other nodes reach this one at.
func (n *Node) Addresses() (peer, gossip string) {
	return n.cfg.PeerAdvertise, n.gossip.Addr()
}

// SetGossipKeys replaces the keys of gossip while the node runs. The first one encrypts from now
// on.
func (n *Node) SetGossipKeys(keys [][]byte) error { return n.gossip.SetKeys(keys) }

// member is what gossip says of this node.
func (n *Node) member() membership.Member {
	expect := n.cfg.BootstrapExpect
	if n.ClusterID() != "" {
		expect = 0
	}
	return membership.Member{
		Identity: n.identity, NodeID: string(n.nodeID), Incarnation: n.who.Incarnation(),
		ClusterID: n.who.ClusterID(), PeerAddr: n.cfg.PeerAdvertise, ClientAddr: n.cfg.ClientAddress,
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
