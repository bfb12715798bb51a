package catalog

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/identity"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/ticks"
)

const (
	// Group is the name of the catalog's Raft group.
	Group = "catalog"
	// MaxVoters is the number of nodes that vote in the group; the others follow it.
	MaxVoters = 5
	// callTimeout bounds calls that have no deadline of their own.
	callTimeout = 5 * time.Second

	// turnEvery is how often the loop looks, if nothing changes before.
	turnEvery      = time.Second
	catchUpTimeout = 3 * time.Second
)

// Host is what the catalog needs of its node. All may be called at any time, by any goroutine.
type Host interface {
	// Connected reports whether a node is reached right now; a node reaches itself.
	Connected(identity string) bool
	// Call takes a call to another node.
	calls.Caller
	// Elsewhere gives who leads the group by the word of its other voters, "" for nobody, where the
	// member here cannot hear of it: it knows of the leader that is given, "" for none. ok false:
	// it is to be believed.
	Elsewhere(leader string, voters []string) (identity string, ok bool)
	// HandOver gives leadership of the group to a voter that is suitable and follows.
	HandOver(m *raftgroup.Member, suitable func(identity string) bool) error
	// Members gives the other nodes of this cluster that gossip names.
	Members() []string
	// Lost gives the identities of nodes that this node was recovered without: they are gone for
	// good.
	Lost() []string
	// FeatureLevelReached is told the cluster's feature level, again and again. It must not wait
	// for anything.
	FeatureLevelReached(level int)
	// Fail ends the node for a reason that only the operator can mend. It must not wait for
	// anything.
	Fail(error)
	// Left ends the node for good: it was taken out of the cluster.
	Left()
}

// Config says what a Catalog works with.
type Config struct {
	Life   context.Context // of the node: when it ends, whoever waits here hears of it
	Self   fsm.Node        // as this node registers
	Host   Host
	Logger *slog.Logger
	// Forming gives the cluster that this node has proposed or agreed to form; nil: none.
	Forming func() *identity.Proposal

	DefaultPartitions        int32
	DefaultReplicationFactor int16
	Shards                   int32 // of consumer groups

	// HasTier: the node was told of a store for old records.
	HasTier bool

	// ReplaceAfter is how long a node must be away before its replicas go to others. 0 means 30
	// minutes; negative: never.
	ReplaceAfter time.Duration
	// NoAutoBalance leaves replicas where they are unless a node leaves.
	NoAutoBalance bool
}

// Catalog is this node's member of the catalog's group. It has no lock of its own: see the package
// comment.
type Catalog struct {
	cfg      Config
	self     string // this node's identity
	machine  *machine
	placer   *placer
	ids      *producerIDs
	fresh    *freshness
	member   atomic.Pointer[raftgroup.Member] // nil until the node is in a cluster
	caughtUp atomic.Bool                      // the catalog here was once as new as the leader's
	cut      atomic.Bool                      // see departure.go
	placing  chan struct{}                    // capacity 1: see placed
}

// New makes a catalog that is empty until Open.
func New(cfg Config) *Catalog {
	c := &Catalog{cfg: cfg, self: cfg.Self.Identity(), placing: make(chan struct{}, 1)}
	c.machine = newMachine(cfg.Host.Fail, cfg.Host.FeatureLevelReached)
	c.placer = &placer{
		partitions: cfg.DefaultPartitions, factor: cfg.DefaultReplicationFactor, shards: cfg.Shards, hasTier: cfg.HasTier,
		connected: cfg.Host.Connected, voters: c.voters, lost: c.lost,
	}
	c.ids = newProducerIDs(func(ctx context.Context) (int64, error) {
		reply, err := c.Change(ctx, fsm.CatalogCommand{AllocateProducerIDs: &fsm.AllocateProducerIDs{Count: producerIDBlock}})
		return reply.FirstProducerID, err
	}, func() int64 { return c.View().ProducerFloor() })
	c.fresh = newFreshness(c.CatchUp)
	return c
}

// Open opens this node's member of the group by start, which is given the state machine.
func (c *Catalog) Open(start func(raft.FSM) (*raftgroup.Member, error)) error {
	m, err := start(c.Machine())
	if err != nil {
		// Raft does not say why it cannot restore a snapshot.
		return cmp.Or(c.machine.outgrown(), err)
	}
	c.member.Store(m)
	c.machine.wake()
	return nil
}

// Machine is the group's state machine. It belongs to Raft.
func (c *Catalog) Machine() raft.FSM { return c.machine }

// FirstMembers gives who votes in the group when it is formed, and who only follows.
func FirstMembers(p *identity.Proposal) (voters, nonvoters []string) {
	for i, node := range p.Nodes {
		if i < MaxVoters {
			voters = append(voters, node.Identity())
		} else {
			nonvoters = append(nonvoters, node.Identity())
		}
	}
	return voters, nonvoters
}

// Member gives the group's member here, nil before the node is in a cluster.
func (c *Catalog) Member() *raftgroup.Member { return c.member.Load() }

// View gives the catalog as this node knows it. It must not be changed.
func (c *Catalog) View() *fsm.Topics { return c.machine.view.Load() }

// Changed gives a channel that is closed when the catalog here or its leader changes, or at Wake.
func (c *Catalog) Changed() <-chan struct{} {
	_, changed := c.machine.now()
	return changed
}

// Wake lets everybody look again who waits for Changed.
func (c *Catalog) Wake() { c.machine.wake() }

// CaughtUp says whether the catalog here was once as new as the leader's since this node has
// started.
func (c *Catalog) CaughtUp() bool { return c.caughtUp.Load() }

// Run does what has to be done again and again, until ctx ends: it brings the catalog up to date at
// the start, has this node registered as it is, leads where this node leads, and ends the node when
// it was taken out of the cluster. Open must have returned.
func (c *Catalog) Run(ctx context.Context) {
	tick := ticks.New(turnEvery)
	defer tick.Stop()
	var d departure
	for ctx.Err() == nil {
		changed := c.Changed()
		c.lead(ctx)
		if !c.CaughtUp() {
			c.catchUpFirst(ctx)
		}
		if c.CaughtUp() {
			c.register(ctx)
			c.depart(ctx, &d)
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-c.Member().Observations: // this loop is the group's observer
			c.Wake()
		case <-tick.C:
		}
	}
}

// catchUpFirst brings the catalog up to date after the start, or finds out why that cannot be.
func (c *Catalog) catchUpFirst(ctx context.Context) {
	within, cancel := context.WithTimeout(ctx, catchUpTimeout)
	err := c.CatchUp(within)
	cancel()
	switch {
	case err == nil:
		c.caughtUp.Store(true)
		c.Wake()
	case ctx.Err() != nil:
	default:
		if left, _ := c.hasLeft(ctx); left {
			c.cfg.Host.Left()
		}
	}
}

// here are the registered nodes that are reached right now, this one among them if it is
// registered.
func (c *Catalog) here(view *fsm.Topics) map[fsm.NodeID]bool {
	return nodesHere(view, c.cfg.Host.Connected)
}

func nodesHere(view *fsm.Topics, connected func(identity string) bool) map[fsm.NodeID]bool {
	here := map[fsm.NodeID]bool{}
	for _, node := range view.Nodes() {
		if connected(node.Identity()) {
			here[node.ID] = true
		}
	}
	return here
}

// voters gives the identities of the group's voters; nil before there is a group.
func (c *Catalog) voters() ([]string, error) {
	return c.members(func(s raft.Server) bool { return s.Suffrage == raft.Voter })
}

// members gives the identities of those members of the group; nil before there is a group.
func (c *Catalog) members(are func(raft.Server) bool) ([]string, error) {
	m := c.Member()
	if m == nil {
		return nil, nil
	}
	servers, err := m.Servers()
	if err != nil {
		return nil, err
	}
	members := []string{}
	for _, s := range servers {
		if are(s) {
			members = append(members, string(s.ID))
		}
	}
	return members, nil
}

// lost gives the nodes that the cluster was recovered without, as they can be told from any other
// node: they are leaving, are not there and, with all that they hold, are no members of the group
// (dropLost).
func (c *Catalog) lost(view *fsm.Topics) map[fsm.NodeID]bool {
	members, err := c.members(func(raft.Server) bool { return true })
	if members == nil || err != nil {
		return nil
	}
	lost := map[fsm.NodeID]bool{}
	for _, node := range view.Nodes() {
		if node.State == fsm.NodeLeaving && !c.cfg.Host.Connected(node.Identity()) && !slices.Contains(members, node.Identity()) {
			lost[node.ID] = true
		}
	}
	return lost
}
