package catalog

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/identity"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// catalogs are some nodes' catalogs, with Raft's own network in memory and logs that are kept
// nowhere. They are nodes in nothing else: what a Catalog asks of its node is here.
type catalogs struct {
	t     *testing.T
	nodes []*hosted
}

// hosted is a catalog, and its Host.
type hosted struct {
	all   *catalogs
	self  fsm.Node
	c     *Catalog
	wire  *raft.InmemTransport
	alive atomic.Bool
	left  atomic.Bool
	level atomic.Int64
	fatal atomic.Pointer[error]
	stop  context.CancelFunc
	runs  chan struct{}
	votes *raftlog.Stable

	answers calls.Server
}

func (h *hosted) Connected(identity string) bool { return h.all.find(identity) != nil }
func (h *hosted) FeatureLevelReached(level int)  { h.level.Store(int64(level)) }
func (h *hosted) Fail(err error)                 { h.fatal.CompareAndSwap(nil, &err) }
func (h *hosted) Lost() []string                 { return nil }
func (h *hosted) Left()                          { h.left.Store(true) }

func (h *hosted) Elsewhere(string, []string) (string, bool) { return "", false }

func (h *hosted) HandOver(m *raftgroup.Member, suitable func(string) bool) error {
	for _, id := range m.Voters() {
		if id != h.c.self && suitable(id) && h.Connected(id) {
			return m.Raft.LeadershipTransferToServer(raft.ServerID(id), raft.ServerAddress(id)).Error()
		}
	}
	return outcome.ErrNoLeader
}

func (h *hosted) Call(ctx context.Context, identity string, kind uint8, payload ...[]byte) ([]byte, error) {
	other := h.all.find(identity)
	if other == nil {
		return nil, outcome.ErrNoLeader
	}
	return other.answers.Answer(ctx, h.c.self, kind, bytes.Join(payload, nil))
}

func (h *hosted) Members() (ids []string) {
	for _, other := range h.all.nodes {
		if other != h && other.alive.Load() {
			ids = append(ids, other.c.self)
		}
	}
	return ids
}

// find gives a node that runs.
func (a *catalogs) find(identity string) *hosted {
	for _, h := range a.nodes {
		if h.alive.Load() && h.c.self == identity {
			return h
		}
	}
	return nil
}

// wire is a raft.Transport that ends with its member.
type wire struct{ *raft.InmemTransport }

func (wire) Confirm(context.Context) (uint64, error) { return 0, outcome.ErrNoLeader }
func (wire) Ahead([]*raft.Log)                       {}

// memory is a raftlog.Log that is kept nowhere.
type memory struct{ *raft.InmemStore }

func (memory) Scan(uint64, func(*raft.Log) bool) error { return nil }
func (memory) Close() error                            { return nil }

// newCatalogs makes so many nodes, of which the first proposes a cluster of those that form it.
func newCatalogs(t *testing.T, nodes, forming int) *catalogs {
	a := &catalogs{t: t}
	proposal := &identity.Proposal{ClusterID: "c"}
	for i := range nodes {
		h := &hosted{all: a, self: node(fsm.NodeID(fmt.Sprint("n", i+1)))}
		forms := func() *identity.Proposal { return nil }
		if i < forming {
			proposal.Nodes = append(proposal.Nodes, h.self)
			forms = func() *identity.Proposal { return proposal }
		}
		ctx, cancel := context.WithCancel(context.Background())
		h.stop = cancel
		h.c = New(Config{Life: ctx, Self: h.self, Host: h, Logger: slog.New(slog.DiscardHandler), Forming: forms,
			DefaultPartitions: 1, DefaultReplicationFactor: 3, Shards: 16, NoAutoBalance: true})
		h.c.Answers(&h.answers)
		_, h.wire = raft.NewInmemTransport(raft.ServerAddress(h.c.self))
		a.nodes = append(a.nodes, h)
	}
	for _, h := range a.nodes {
		for _, other := range a.nodes {
			h.wire.Connect(raft.ServerAddress(other.c.self), other.wire)
		}
	}
	for i, h := range a.nodes {
		var voters, nonvoters []string
		if i == 0 {
			voters, nonvoters = FirstMembers(proposal)
		}
		h.start(filepath.Join(t.TempDir(), "votes"), voters, nonvoters)
	}
	t.Cleanup(func() {
		for _, h := range a.nodes {
			h.kill()
		}
	})
	return a
}

func (h *hosted) start(votes string, voters, nonvoters []string) {
	h.all.t.Helper()
	stable, err := raftlog.OpenStable(votes, raftlog.Options{})
	if err != nil {
		h.all.t.Fatal(err)
	}
	h.votes = stable
	err = h.c.Open(func(machine raft.FSM) (*raftgroup.Member, error) {
		return raftgroup.Open(raftgroup.Options{
			Ends: h.all.t.Context(),
			Name: Group, Machine: machine, Transport: wire{h.wire}, Stable: stable.Group(Group), Voters: voters, Nonvoters: nonvoters,
			Config: raftgroup.Config(h.c.self, time.Second, 50*time.Millisecond, 100, hclog.NewNullLogger()),
			Files: func(bool) (raftgroup.Files, error) {
				return raftgroup.Files{Log: memory{raft.NewInmemStore()}, Snapshots: raft.NewInmemSnapshotStore(), Serving: func() {}}, nil
			},
		})
	})
	if err != nil {
		h.all.t.Fatal(err)
	}
	h.alive.Store(true)
	h.runs = make(chan struct{})
	life := h.c.cfg.Life
	go func() {
		defer close(h.runs)
		planned := make(chan struct{})
		go func() { defer close(planned); h.c.Plan(life) }()
		h.c.Run(life)
		<-planned
	}()
}

// kill ends a node's catalog for good.
func (h *hosted) kill() {
	if !h.alive.Swap(false) {
		return
	}
	for _, other := range h.all.nodes {
		other.wire.Disconnect(raft.ServerAddress(h.c.self))
	}
	h.stop()
	h.wire.DisconnectAll()
	if err := h.c.Member().Close(); err != nil {
		h.all.t.Error(err)
	}
	<-h.runs
	if err := h.votes.Close(); err != nil {
		h.all.t.Error(err)
	}
}

// eventually waits in virtual time.
func (a *catalogs) eventually(what string, condition func() error) {
	a.t.Helper()
	var err error
	for range 1200 {
		if err = condition(); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	a.t.Fatalf("%s: %v", what, err)
}

// up waits until all that run are up to date and know a cluster of so many nodes at the newest
// level.
func (a *catalogs) up(nodes int) {
	a.t.Helper()
	a.eventually("all know the cluster", func() error {
		for _, h := range a.nodes {
			view := h.c.View()
			if h.alive.Load() && (!h.c.CaughtUp() || len(view.Nodes()) != nodes || view.FeatureLevel() != fsm.FeatureLevel) {
				return fmt.Errorf("%s: %v, %d nodes, level %d", h.c.self, h.c.CaughtUp(), len(view.Nodes()), view.FeatureLevel())
			}
		}
		return nil
	})
}

func (a *catalogs) leader() *hosted {
	var leader *hosted
	a.eventually("one leads", func() error {
		for _, h := range a.nodes {
			if h.alive.Load() && h.c.Member().Raft.State() == raft.Leader {
				leader = h
				return nil
			}
		}
		return outcome.ErrNoLeader
	})
	return leader
}

// What is changed through one node is known at all when that returns, whoever leads; and no change
// is made twice or lost when a leader dies.
func TestAChangeIsKnownEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newCatalogs(t, 3, 3)
		a.up(3)
		var first int64
		for i, h := range a.nodes {
			name := fmt.Sprint("t", i)
			topic, err := h.c.CreateTopic(t.Context(), fsm.TopicSpec{Name: name, Partitions: 2, ReplicationFactor: 3}, false)
			if err != nil || topic == nil {
				t.Fatal(err)
			}
			for _, other := range a.nodes {
				if _, known := other.c.View().Lookup(name); !known {
					t.Errorf("%s does not know %s", other.c.self, name)
				}
			}
			id, err := h.c.NewProducerID(t.Context())
			if err != nil || id < first {
				t.Errorf("producer id %d, %v", id, err)
			}
			first = id + producerIDBlock
		}
		dead := a.leader()
		dead.kill()
		for _, h := range a.nodes {
			if h == dead {
				continue
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if _, err := h.c.CreateTopic(ctx, fsm.TopicSpec{Name: "after " + string(h.self.ID), Partitions: 1, ReplicationFactor: 1}, true); outcome.Code(err) != outcome.ErrInvalidTopicName {
				t.Errorf("%v", err)
			}
			if err := h.c.AlterConfigs(ctx, fsm.AlterConfigs{}, false); outcome.Code(err) != outcome.ErrUnknownTopicOrPartition {
				t.Errorf("%v", err)
			}
			if !h.c.Await(ctx) || !h.c.Refresh() {
				t.Error("it is not up to date")
			}
			cancel()
		}
	})
}

// A change without a majority is not made, and says so.
func TestWithoutAMajorityNothingIsChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newCatalogs(t, 3, 3)
		a.up(3)
		last := a.leader()
		for _, h := range a.nodes {
			if h != last {
				h.kill()
			}
		}
		time.Sleep(10 * time.Second)
		if _, err := last.c.CreateTopic(t.Context(), fsm.TopicSpec{Name: "a", Partitions: 1, ReplicationFactor: 1}, false); !outcome.NotAppended(err) {
			t.Errorf("%v", err)
		}
		if last.c.Refresh() {
			t.Error("it says that it is up to date")
		}
	})
}

// Nodes that join follow, five of them vote; those that leave give up their votes first and hear
// that they have left, also when they were away.
func TestNodesComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newCatalogs(t, 6, 2)
		for _, h := range a.nodes[2:] {
			if _, err := a.nodes[0].c.Change(t.Context(), fsm.CatalogCommand{RegisterNode: &h.self}); err != nil {
				t.Fatal(err)
			}
		}
		a.up(6)
		votes := func(want int) {
			t.Helper()
			a.eventually(fmt.Sprint(want, " vote"), func() error {
				if got := a.leader().c.Member().Voters(); len(got) != want {
					return fmt.Errorf("%v", got)
				}
				return nil
			})
		}
		votes(MaxVoters)
		leave := func(h *hosted) {
			t.Helper()
			if err := a.leader().c.Administer(t.Context(), admin.Request{Op: admin.OpDecommission, Node: h.self.ID}); err != nil {
				t.Fatal(err)
			}
		}
		first := a.nodes[5]
		leave(first)
		a.eventually("it hears that it has left", func() error {
			if !first.left.Load() {
				return fmt.Errorf("%d nodes", len(first.c.View().Nodes()))
			}
			return nil
		})
		first.kill()
		// One that hears nothing asks when its connections have ended.
		second := a.nodes[4]
		for _, h := range a.nodes {
			h.wire.Disconnect(raft.ServerAddress(second.c.self))
		}
		second.wire.DisconnectAll()
		leave(second)
		a.eventually("the others are without it", func() error {
			if n := len(a.leader().c.View().Nodes()); n != 4 {
				return fmt.Errorf("%d nodes", n)
			}
			return nil
		})
		if second.left.Load() {
			t.Error("it knows before it has asked")
		}
		second.c.WasCut()
		a.eventually("it hears that it has left", func() error {
			if !second.left.Load() {
				return fmt.Errorf("%d nodes", len(second.c.View().Nodes()))
			}
			return nil
		})
		votes(4)
		for _, h := range a.nodes {
			if why := h.fatal.Load(); why != nil {
				t.Errorf("%s: %v", h.c.self, *why)
			}
		}
	})
}

// A node that leaves and whose vote is needed keeps it.
func TestAVoteThatIsNeededIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newCatalogs(t, 3, 3)
		a.up(3)
		leader := a.leader()
		var others []*hosted
		for _, h := range a.nodes {
			if h != leader {
				others = append(others, h)
			}
		}
		others[0].kill()
		why, err := leader.c.giveUpVote(t.Context(), others[1].self)
		if err != nil || why == "" {
			t.Errorf("%q, %v", why, err)
		}
		if why, err = leader.c.giveUpVote(t.Context(), leader.self); err != nil || why == "" {
			t.Errorf("the leader itself: %q, %v", why, err)
		}
		if why, err = leader.c.giveUpVote(t.Context(), others[0].self); err != nil || why != "" {
			t.Errorf("the one that is gone: %q, %v", why, err)
		}
		if got := leader.c.Member().Voters(); len(got) != 2 {
			t.Errorf("%v vote", got)
		}
	})
}
