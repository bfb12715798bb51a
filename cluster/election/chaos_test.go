package election_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/link/peertest"
	"github.com/trimaran-io/trimaran/cluster/raftlink"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
)

// Groups of Raft over the link, in virtual time, on a network where everything happens
// that may: messages of Raft are lost, late, out of order and doubled, bytes are held back
// one way or both, connections break, nodes end and come back, members are added,
// promoted and removed while all that goes on. The steps come from a seed; the order in
// which goroutines run does not, so a seed repeats what was done, not always what came of it.

const (
	chaosRuns  = 8
	chaosSteps = 80

	// chaosTrailing entries below its snapshot a member keeps: more than a leader can have under
	// way to it without an answer. With fewer Raft may send it the same snapshot for ever.
	chaosTrailing = 100
)

func fromEnv(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestChaos(t *testing.T) {
	runs := fromEnv(t, "CHAOS_RUNS", chaosRuns)
	if testing.Short() {
		runs = 2
	}
	start := fromEnv(t, "CHAOS_SEED", 1)
	for seed := start; seed < start+runs; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newChaos(t, seed).run() })
		})
	}
}

type chaos struct {
	t       *testing.T
	dice    *dice
	net     *peertest.Network
	c       *checker
	timeout time.Duration // heartbeat
	nodes   []*chaosNode
	groups  []string

	quiet chan struct{} // no more proposals
	ended chan struct{} // no more questions
	wg    sync.WaitGroup
}

// chaosNode is a node with a member of each group. Logs, votes and snapshots outlive it.
type chaosNode struct {
	id    string
	disks map[string]*chaosDisk

	mu      sync.Mutex
	link    *node // nil: the node is down
	members map[string]*chaosMember
	stop    chan struct{}
	wg      *sync.WaitGroup
}

type chaosDisk struct {
	logs  *raft.InmemStore
	snaps *keptSnapshots
}

type chaosMember struct {
	raft  *raft.Raft
	trans *faulty
	fsm   *chained
}

func newChaos(t *testing.T, seed uint64) *chaos {
	c := &chaos{
		t: t, dice: newDice(seed), net: peertest.New(), c: newChecker(), quiet: make(chan struct{}), ended: make(chan struct{}),
		groups: []string{"g1", "g2", "g3"},
	}
	c.c.show = c.show
	c.timeout = []time.Duration{time.Second, 3 * time.Second, slowHeartbeat}[c.dice.n(3)]
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		n := &chaosNode{id: id, disks: map[string]*chaosDisk{}}
		for _, g := range c.groups {
			n.disks[g] = &chaosDisk{raft.NewInmemStore(), new(keptSnapshots)}
		}
		c.nodes = append(c.nodes, n)
	}
	return c
}

// show tells what the disks have.
func (c *chaos) show(group, _ string) (text string) {
	for _, n := range c.nodes {
		d := n.disks[group]
		first, _ := d.logs.FirstIndex()
		last, _ := d.logs.LastIndex()
		var snapshot, missing uint64
		if list, _ := d.snaps.List(); len(list) > 0 {
			snapshot = list[0].Index
		}
		for i := first; i < last; i++ {
			if d.logs.GetLog(i, new(raft.Log)) != nil {
				missing++
			}
		}
		text += fmt.Sprintf(" %s: entries %d to %d, %d not there, snapshot %d;", n.id, first, last, missing, snapshot)
	}
	return text
}

func (c *chaos) start(n *chaosNode) {
	c.t.Helper()
	ln, err := c.net.Listen(n.id, n.id)
	if err != nil {
		c.t.Fatal(err)
	}
	l := start(config{
		linkConfig: link.Config{
			Self: n.id, Listener: ln, Dial: c.net.Dial(n.id),
			Resolve: func(id string) (string, bool) { return id, true },
		},
		electionConfig: electionConfig{HeartbeatTimeout: c.timeout},
		Answered:       func(group string, req, resp any) { c.c.answered(group, n.id, req, resp) },
	})
	members, stop, wg := map[string]*chaosMember{}, make(chan struct{}), new(sync.WaitGroup)
	for _, g := range c.groups {
		trans := &faulty{Member: l.Open(g), node: n.id, group: g, c: c.c, dice: c.dice, stop: stop, wg: wg}
		m := &chaosMember{trans: trans, fsm: &chained{checker: c.c, group: g, node: n.id}}
		cfg := raft.DefaultConfig()
		cfg.LocalID, cfg.Logger = raft.ServerID(n.id), hclog.NewNullLogger()
		cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaderLeaseTimeout = c.timeout, c.timeout, c.timeout*2/5
		cfg.CommitTimeout = c.timeout / 5
		cfg.SnapshotInterval, cfg.SnapshotThreshold, cfg.TrailingLogs, cfg.MaxAppendEntries = 5*time.Second, 30, chaosTrailing, 4
		cfg.ShutdownOnRemove = false
		disk := n.disks[g]
		if m.raft, err = raft.NewRaft(cfg, m.fsm, raftlog.SnapshotTerm{LogStore: &slowLogs{disk.logs, trans}, Snapshots: disk.snaps}, disk.logs, disk.snaps, trans); err != nil {
			c.t.Fatal(err)
		}
		// As partitions do: what is here already is not installed again.
		trans.BeforeInstall(func(_ context.Context, _ string, req *raft.InstallSnapshotRequest) error {
			if m.raft.AppliedIndex() >= req.LastLogIndex {
				return raftlink.ErrInstalled
			}
			return nil
		})
		trans.Claim(m.raft)
		members[g] = m
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.link, n.members, n.stop, n.wg = &l, members, stop, wg
}

// end takes a node away, without a word.
func (n *chaosNode) end() {
	n.mu.Lock()
	l, members, stop, wg := n.link, n.members, n.stop, n.wg
	n.link, n.members = nil, nil
	n.mu.Unlock()
	if l == nil {
		return
	}
	close(stop)
	_ = l.Close()
	for _, m := range members {
		_ = m.trans.Close()
		_ = m.raft.Shutdown().Error()
	}
	wg.Wait()
}

func (n *chaosNode) member(group string) *chaosMember {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.members[group]
}

// leader gives a node that believes to lead the raft group; nil: there is none.
func (c *chaos) leader(group string) (*chaosNode, *chaosMember) {
	offset := c.dice.n(len(c.nodes))
	for i := range c.nodes {
		n := c.nodes[(i+offset)%len(c.nodes)]
		if m := n.member(group); m != nil && m.raft.State() == raft.Leader {
			return n, m
		}
	}
	return nil, nil
}

func (c *chaos) run() {
	began := time.Now()
	quiet := sync.OnceFunc(func() { close(c.quiet) })
	defer func() {
		quiet()
		close(c.ended)
		for _, n := range c.nodes {
			n.end()
		}
		c.wg.Wait()
		if err := c.c.err(); err != nil {
			c.t.Errorf("%v\n%s", err, c.c.history())
		}
	}()
	for _, n := range c.nodes {
		c.start(n)
	}
	var first raft.Configuration
	for _, n := range c.nodes[:3] {
		first.Servers = append(first.Servers, raft.Server{ID: raft.ServerID(n.id), Address: raft.ServerAddress(n.id)})
	}
	for _, n := range c.nodes[:3] {
		for _, g := range c.groups {
			if err := n.member(g).raft.BootstrapCluster(first).Error(); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	for _, g := range c.groups {
		c.wg.Go(func() { c.propose(g) })
		c.wg.Go(func() { c.confirm(g) })
	}
	for range chaosSteps {
		c.step()
		time.Sleep(c.dice.upTo(c.timeout))
		if c.c.err() != nil {
			return
		}
	}
	c.c.note("all is well again")
	c.net.HealAll()
	// Nobody proposes anything any more: what is not committed yet must be without being pushed.
	quiet()
	for _, n := range c.nodes {
		if n.member(c.groups[0]) == nil {
			c.start(n)
		}
		for _, g := range c.groups {
			n.member(g).trans.set(rates{})
		}
	}
	for _, g := range c.groups {
		c.settle(g)
	}
	c.c.mu.Lock()
	defer c.c.mu.Unlock()
	for _, g := range c.groups {
		c.t.Logf("%s: heartbeat %v, %d acknowledged of %d, %d terms, %v", g, c.timeout, len(c.c.groups[g].order), len(c.c.groups[g].proposals), len(c.c.groups[g].leaders), time.Since(began).Round(time.Second))
	}
}

// propose is a client: one value after the other, at whoever seems to lead.
func (c *chaos) propose(group string) {
	for i := 0; ; i++ {
		select {
		case <-c.quiet:
			return
		case <-time.After(time.Millisecond + c.dice.upTo(200*time.Millisecond)):
		}
		_, m := c.leader(group)
		if m == nil {
			continue
		}
		value := fmt.Sprintf("%s-%d", group, i)
		c.c.proposed(group, value, unknown, 0)
		future := m.raft.Apply([]byte(value), time.Second)
		err := c.wait(future)
		switch {
		case err == nil:
			// The term of an entry is that of the leader that took it.
			c.c.proposed(group, value, acknowledged, c.termOf(m, future.Index()))
		case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrLeadershipTransferInProgress):
			c.c.proposed(group, value, refused, 0)
		}
	}
}

// termOf gives the term of an entry as its node has it, 0 if it is not known any more.
func (c *chaos) termOf(m *chaosMember, index uint64) uint64 {
	var entry raft.Log
	for _, n := range c.nodes {
		if n.id == m.trans.node && n.disks[m.trans.group].logs.GetLog(index, &entry) == nil {
			return entry.Term
		}
	}
	return 0
}

// wait waits for a future, which Raft forgets when it is shut down at the wrong moment.
func (c *chaos) wait(f raft.Future) error {
	done := make(chan error, 1)
	c.wg.Go(func() { done <- f.Error() })
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		return errLost
	}
}

// confirm asks leaders whether they are.
func (c *chaos) confirm(group string) {
	for {
		select {
		case <-c.ended:
			return
		case <-time.After(time.Millisecond + c.dice.upTo(300*time.Millisecond)):
		}
		n, m := c.leader(group)
		if m == nil {
			continue
		}
		since := c.c.acknowledgedTerm(group)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		if term, err := m.trans.Confirm(ctx); err == nil {
			c.c.confirmed(group, n.id, term, since)
		}
		cancel()
	}
}

// settle wants the raft group to serve soon, and all its members to have the same.
func (c *chaos) settle(group string) {
	var waiting string
	serves := func() bool {
		_, m := c.leader(group)
		if m == nil {
			waiting = "a leader"
			return false
		}
		config := m.raft.GetConfiguration()
		if last, applied := m.raft.LastIndex(), m.raft.AppliedIndex(); config.Error() != nil || applied < last {
			waiting = fmt.Sprintf("the commit of entries %d to %d", applied+1, last)
			return false
		}
		want := m.fsm.values()
		for _, s := range config.Configuration().Servers {
			for _, n := range c.nodes {
				if n.id == string(s.ID) && len(n.member(group).fsm.values()) < len(want) {
					waiting = fmt.Sprintf("%s, which has %d of %d", n.id, len(n.member(group).fsm.values()), len(want))
					return false
				}
			}
		}
		return true
	}
	for end := time.Now().Add(30*time.Second + 10*c.timeout); !serves(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			var states []string
			for _, n := range c.nodes {
				m := n.member(group)
				states = append(states, fmt.Sprintf("%s: %v, term %d, last %d, applied %d, %v", n.id, m.raft.State(), m.raft.CurrentTerm(), m.raft.LastIndex(), m.raft.AppliedIndex(), m.raft.GetConfiguration().Configuration().Servers))
			}
			c.t.Fatalf("%s waits for %s\n%s\n%s", group, waiting, strings.Join(states, "\n"), c.c.history())
		}
	}
	_, m := c.leader(group)
	if m == nil || c.wait(m.raft.Barrier(10*time.Second)) != nil {
		c.t.Fatalf("%s has a leader, and it commits nothing\n%s", group, c.c.history())
	}
	for _, s := range m.raft.GetConfiguration().Configuration().Servers {
		i := slices.IndexFunc(c.nodes, func(n *chaosNode) bool { return n.id == string(s.ID) })
		c.c.final(group, c.nodes[i].id, c.nodes[i].member(group).fsm.values())
	}
}
