package peer_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/trimaran-io/trimaran/cluster/peer"
	"github.com/trimaran-io/trimaran/cluster/peer/peertest"
)

// replica is one node's part in one group. Its disk outlives its Raft.
type replica struct {
	node, group string
	disk        *disk

	raft  *raft.Raft // nil: it is not running
	trans *stormy
	fsm   *ledger
}

// chaosCluster is some nodes, of which a part is in the groups at first. The scenario alone starts and stops them.
type chaosCluster struct {
	t       *testing.T
	net     *peertest.Network
	check   *checker
	weather *weather
	nodes   []string
	groups  []string
	voters  int // of the groups, at first

	heartbeat, lease, commit time.Duration
	signs, neverBroken       bool
	maxAppend                int
	trailing, threshold      uint64

	mu       sync.Mutex // guards what follows, also the running parts of the replicas
	stuck    []*replica // see stuckBehind
	links    map[string]*peer.Link
	replicas map[string][]*replica // by group, in the order of nodes
}

// draw makes a cluster by the seed.
func draw(t *testing.T, seed uint64, rng *rand.Rand) *chaosCluster {
	check := newChecker()
	c := &chaosCluster{
		t: t, net: peertest.New(), check: check, weather: newWeather(seed, check),
		links: map[string]*peer.Link{}, replicas: map[string][]*replica{},
		nodes:     []string{"a", "b", "c", "d", "e"}[:3+rng.IntN(3)],
		voters:    3,
		maxAppend: []int{2, 8, 64}[rng.IntN(3)],
		trailing:  []uint64{40, 80}[rng.IntN(2)],
		threshold: uint64(5 + rng.IntN(40)),
		signs:     true, neverBroken: rng.IntN(2) == 0,
	}
	if len(c.nodes) == 5 && rng.IntN(2) == 0 {
		c.voters = 5
	}
	switch rng.IntN(8) {
	case 0: // no signs: plain Raft over the link
		c.heartbeat, c.lease, c.commit, c.signs = 500*time.Millisecond, 250*time.Millisecond, 20*time.Millisecond, false
	case 1, 2, 3, 4:
		c.heartbeat, c.lease, c.commit = 2*time.Second, time.Second, 500*time.Millisecond
	default:
		c.heartbeat, c.lease, c.commit = slowHeartbeat, 4*time.Second, 2*time.Second
	}
	for i := range 2 + rng.IntN(2) {
		group := fmt.Sprintf("g%d", i)
		c.groups = append(c.groups, group)
		for _, node := range c.nodes {
			c.replicas[group] = append(c.replicas[group], &replica{node: node, group: group, disk: newDisk(check, group, node)})
		}
	}
	check.event("%d nodes, %d voters, groups %v, heartbeat %v, signs %v, connections that outlive cuts %v, %d entries in a request, snapshots after %d",
		len(c.nodes), c.voters, c.groups, c.heartbeat, c.signs, c.neverBroken, c.maxAppend, c.threshold)
	return c
}

// mostLate is how long a yes without entries may have taken that the link passes on.
func (c *chaosCluster) mostLate() time.Duration {
	if !c.signs {
		return time.Hour // rule 1 is not in use
	}
	return 300 * time.Millisecond
}

// boot starts everything for the first time.
func (c *chaosCluster) boot() {
	var first raft.Configuration
	for _, node := range c.nodes[:c.voters] {
		first.Servers = append(first.Servers, raft.Server{ID: raft.ServerID(node), Address: raft.ServerAddress(node)})
	}
	for _, node := range c.nodes {
		c.startNode(node)
	}
	for _, rs := range c.replicas {
		for _, r := range rs[:c.voters] {
			if err := r.raft.BootstrapCluster(first).Error(); err != nil {
				c.t.Fatal(err)
			}
		}
	}
}

func (c *chaosCluster) startNode(node string) {
	link := linkOn(c.t, c.net, node, func(p *peer.Config) {
		p.MaxAppendEntries = c.maxAppend
		if c.signs {
			p.HeartbeatTimeout = c.heartbeat
		}
		if c.neverBroken {
			p.PingTimeout, p.SuspectAfter, p.Timeout = time.Hour, time.Hour, time.Minute
		}
	})
	c.mu.Lock()
	c.links[node] = link
	c.mu.Unlock()
	link.Watch(c.nodes)
	for _, group := range c.groups {
		c.startReplica(c.replica(group, node))
	}
}

func (c *chaosCluster) replica(group, node string) *replica {
	return c.replicas[group][slices.Index(c.nodes, node)]
}

// startReplica starts a replica with an empty state machine on its disk.
func (c *chaosCluster) startReplica(r *replica) {
	c.mu.Lock()
	link := c.links[r.node]
	c.mu.Unlock()
	if link == nil {
		return
	}
	cfg := raft.DefaultConfig()
	cfg.LocalID = raft.ServerID(r.node)
	cfg.Logger = hclog.NewNullLogger()
	cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaderLeaseTimeout = c.heartbeat, c.heartbeat, c.lease
	cfg.CommitTimeout, cfg.MaxAppendEntries = c.commit, c.maxAppend
	cfg.TrailingLogs, cfg.SnapshotThreshold, cfg.SnapshotInterval = c.trailing, c.threshold, 3*time.Second
	cfg.ShutdownOnRemove, cfg.NoLegacyTelemetry = false, true
	fsm := &ledger{check: c.check, group: r.group, node: r.node}
	c.check.started(r.group, r.node)
	trans := &stormy{link.Transport(r.group).(*peer.GroupTransport), c.weather, r.group, r.node, func(to string, index uint64) { c.stuckBehind(r.group, to, index) }}
	running, err := raft.NewRaft(cfg, fsm, r.disk, r.disk, &r.disk.snaps, trans)
	if err != nil {
		c.check.fail("%s: %s does not start: %v", r.group, r.node, err)
		_ = trans.Close()
		return
	}
	observe(running, c.check, r.group, r.node)
	trans.Vouch(running)
	c.mu.Lock()
	defer c.mu.Unlock()
	r.raft, r.trans, r.fsm = running, trans, fsm
}

// stopReplica ends a replica as a crash does: nobody is told.
func (c *chaosCluster) stopReplica(r *replica) {
	c.mu.Lock()
	running, trans := r.raft, r.trans
	r.raft = nil
	c.mu.Unlock()
	if running == nil {
		return
	}
	r.disk.hang(false)
	_ = trans.Close() // first: Raft waits for its requests
	_ = running.Shutdown().Error()
}

// stuckBehind notes a replica that gets a snapshot which ends before its own log does: entries of another leader.
// hashicorp/raft does not forget where its log ended (raft.go, installSnapshot), refuses what follows the snapshot, because
// it has no entry at the snapshot's end and looks at the snapshot itself only if the log ends
// there (appendEntries), and is sent the same snapshot again and again until it is started anew.
func (c *chaosCluster) stuckBehind(group, node string, snapshot uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.replica(group, node)
	if r.raft != nil && r.raft.LastIndex() > snapshot && !slices.Contains(c.stuck, r) {
		c.stuck = append(c.stuck, r)
	}
}

// freeStuck starts the replicas anew that stuckBehind has noted.
func (c *chaosCluster) freeStuck() {
	c.mu.Lock()
	stuck := c.stuck
	c.stuck = nil
	c.mu.Unlock()
	for _, r := range stuck {
		c.check.event("%s: %s is started anew, its log was longer than the snapshot", r.group, r.node)
		c.stopReplica(r)
		c.startReplica(r)
	}
}

func (c *chaosCluster) stopNode(node string) {
	c.mu.Lock()
	link := c.links[node]
	c.links[node] = nil
	c.mu.Unlock()
	if link == nil {
		return
	}
	for _, group := range c.groups {
		c.replica(group, node).disk.hang(false)
	}
	_ = link.Close()
	for _, group := range c.groups {
		c.stopReplica(c.replica(group, node))
	}
}

func (c *chaosCluster) stop() {
	for _, node := range c.nodes {
		c.stopNode(node)
	}
	c.weather.wg.Wait()
}

// running is a replica as somebody besides the scenario sees it.
type running struct {
	node  string
	raft  *raft.Raft
	trans *stormy
	fsm   *ledger
}

// running gives the replicas of a group that run.
func (c *chaosCluster) running(group string) (out []running) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.replicas[group] {
		if r.raft != nil {
			out = append(out, running{r.node, r.raft, r.trans, r.fsm})
		}
	}
	return out
}

// leaders gives the replicas that think that they lead, the one in the newest term first.
func (c *chaosCluster) leaders(group string) (out []running) {
	for _, r := range c.running(group) {
		if r.raft.State() == raft.Leader {
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(a, b running) int { return int(b.raft.CurrentTerm()) - int(a.raft.CurrentTerm()) })
	return out
}

// configuration is what a replica takes for the newest configuration.
func (r running) configuration() raft.Configuration {
	f := r.raft.GetConfiguration()
	if f.Error() != nil {
		return raft.Configuration{}
	}
	return f.Configuration()
}

func (r running) suffrage(of string) (raft.ServerSuffrage, bool) {
	for _, s := range r.configuration().Servers {
		if string(s.ID) == of {
			return s.Suffrage, true
		}
	}
	return raft.Nonvoter, false
}

// state says who waits for what.
func (c *chaosCluster) state() string {
	var b strings.Builder
	for _, group := range c.groups {
		for _, r := range c.replicas[group] {
			c.mu.Lock()
			running := r.raft
			c.mu.Unlock()
			if running == nil {
				fmt.Fprintf(&b, "%s: %s is down\n", group, r.node)
				continue
			}
			_, leader := running.LeaderWithID()
			last, _ := r.disk.LastIndex()
			fmt.Fprintf(&b, "%s: %s is %v in term %d, follows %q, log to %d (on disk %d), commit %d, applied %d, heard %v ago, unled %v, members %v\n",
				group, r.node, running.State(), running.CurrentTerm(), leader, running.LastIndex(), last, running.CommitIndex(), running.AppliedIndex(),
				time.Since(running.LastContact()), r.trans.Unled(), running.GetConfiguration().Configuration().Servers)
		}
	}
	for _, node := range c.nodes {
		c.mu.Lock()
		link := c.links[node]
		c.mu.Unlock()
		if link == nil {
			continue
		}
		var gone []string
		for _, other := range c.nodes {
			if link.Gone(other) {
				gone = append(gone, other)
			}
		}
		fmt.Fprintf(&b, "%s holds %v for gone, %+v\n", node, gone, link.Stats())
	}
	return b.String()
}
