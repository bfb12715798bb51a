package cluster

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/peer"
	"github.com/trimaran-io/trimaran/cluster/placement"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// catalogGroup is the name of the catalog's Raft group.
const catalogGroup = "catalog"

// catalog is this node's member of the catalog group. Every node has one, as a
// voter or not, so Metadata is answered from memory everywhere.
type catalog struct {
	node *Node

	view atomic.Pointer[fsm.Topics]

	mu      sync.Mutex
	group   *group // nil until the node is in a cluster
	state   *fsm.Catalog
	index   fsm.Index     // of the last entry applied
	newer   error         // what a newer program wrote was met: nothing behind it is applied
	changed chan struct{} // closed and replaced whenever index or the leader moves

	creating chan struct{} // capacity 1: taken by the leader from placement to commit, so that topics created at once do not crowd one node
}

func newCatalog(n *Node) *catalog {
	c := &catalog{node: n, state: fsm.NewCatalog(), changed: make(chan struct{}), creating: make(chan struct{}, 1)}
	c.view.Store(c.state.View())
	return c
}

// raftGroup gives the group, nil before the node is in a cluster.
func (c *catalog) raftGroup() *group {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.group
}

func (c *catalog) wakeLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *catalog) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wakeLocked()
}

// Apply implements raft.FSM. The answer is an fsm.CatalogResult.
func (c *catalog) Apply(entry *raft.Log) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.newer != nil {
		return fsm.CatalogResult{Err: c.newer}
	}
	result := c.state.Apply(fsm.Index(entry.Index), entry.Data)
	if result.Err != nil && errors.Is(result.Err, fsm.ErrNewer) {
		c.newer = fmt.Errorf("catalog, entry %d: %w", entry.Index, result.Err)
		c.node.fail(c.newer)
		return fsm.CatalogResult{Err: c.newer}
	}
	c.index = fsm.Index(entry.Index)
	c.view.Store(c.state.View())
	c.wakeLocked()
	level := c.view.Load().Level()
	if level > fsm.Level {
		// Whatever comes behind this may mean something else from now on.
		c.newer = fmt.Errorf("%w: %w", fsm.ErrNewer, tooOld(level))
	}
	c.node.levelReached(level)
	return result
}

// Snapshot implements raft.FSM.
func (c *catalog) Snapshot() (raft.FSMSnapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.newer != nil {
		return nil, c.newer // Raft takes what came behind it for applied
	}
	return snapshotBytes(c.state.Snapshot()), nil
}

// Restore implements raft.FSM.
func (c *catalog) Restore(source io.ReadCloser) error {
	defer source.Close()
	data, err := io.ReadAll(io.LimitReader(source, maxSnapshotBytes))
	if err != nil {
		return err
	}
	state, err := fsm.RestoreCatalog(data)
	if errors.Is(err, fsm.ErrNewer) {
		c.mu.Lock()
		c.newer = err
		c.mu.Unlock()
		c.node.fail(err) // or its leader would send it for ever
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state, c.index = state, state.LastApplied()
	c.view.Store(state.View())
	c.wakeLocked()
	c.node.levelReached(state.View().Level())
	return nil
}

// catalogReply says at which index a change is in the catalog.
type catalogReply struct {
	Index fsm.Index `json:"index"`
	// FirstProducerID is set by an allocation of producer ids.
	FirstProducerID int64 `json:"first_producer_id,omitempty"`
}

// applyAsLeader proposes an encoded command if this node leads the catalog.
func (c *catalog) applyAsLeader(ctx context.Context, command []byte) ([]byte, error) {
	g := c.raftGroup()
	if g == nil {
		return nil, errNotLeader{}
	}
	if err := c.view.Load().CheckProposal(command); err != nil {
		return nil, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	if !g.proposals.enter(ctx) {
		return nil, errNotLeader{}
	}
	defer g.proposals.leave()
	var future raft.ApplyFuture
	if err := g.ask(ctx, func() raft.Future {
		f := g.raft.Apply(command, callTimeout)
		future = f
		return f
	}); err != nil {
		switch {
		case errors.Is(err, errGroupBusy), errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrLeadershipTransferInProgress):
			identity, term := g.leader()
			return nil, errNotLeader{hint{identity, term}}
		}
		return nil, fmt.Errorf("%w: %w", outcome.ErrUnknownFate, err)
	}
	result, ok := future.Response().(fsm.CatalogResult)
	if !ok {
		return nil, fmt.Errorf("%w: unexpected answer of the catalog", outcome.ErrUnknown)
	} else if result.Err != nil {
		return nil, result.Err
	}
	return json.Marshal(catalogReply{Index: fsm.Index(future.Index()), FirstProducerID: result.FirstProducerID})
}

// indexAsLeader gives the index up to which the catalog is committed, as a
// confirmed leader that has passed its barrier.
func (c *catalog) indexAsLeader(ctx context.Context) ([]byte, error) {
	g := c.raftGroup()
	if g == nil {
		return nil, errNotLeader{}
	}
	// A barrier of this term commits whatever earlier terms left behind.
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := g.ask(ctx, func() raft.Future { return g.raft.Barrier(callTimeout) }); err != nil {
		identity, term := g.leader()
		return nil, errNotLeader{hint{identity, term}}
	}
	c.mu.Lock()
	newer := c.newer
	c.mu.Unlock()
	if newer != nil {
		return nil, newer
	}
	// The last change, not the last entry: after a restart from a snapshot a node
	// knows of entries that changed nothing only as far as it replays them.
	return json.Marshal(catalogReply{Index: c.view.Load().Version()})
}

// atLeader runs a call at the catalog's leader, again as long as nothing
// happened, until ctx ends; then it waits until the result is known here.
func (c *catalog) atLeader(ctx context.Context, kind uint8, payload []byte, local func(context.Context) ([]byte, error)) (catalogReply, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 2*callTimeout)
		defer cancel()
	}
	for {
		c.mu.Lock()
		g, changed := c.group, c.changed
		c.mu.Unlock()
		err := error(outcome.ErrNoLeader)
		if g != nil {
			var reply []byte
			identity, _ := g.leader()
			if members := voters(g); c.node.severed(identity, members) {
				if who, ok := c.node.askWho(catalogGroup, members); ok {
					identity = who.identity
				}
			}
			switch identity {
			case "":
			case c.node.identity:
				reply, err = local(ctx)
			default:
				reply, err = c.node.call(ctx, identity, kind, payload)
			}
			if err == nil {
				var at catalogReply
				if err := json.Unmarshal(reply, &at); err != nil {
					return catalogReply{}, fmt.Errorf("%w: malformed answer of the catalog's leader", outcome.ErrUnknown)
				}
				return at, c.awaitIndex(ctx, at.Index)
			}
		}
		if !outcome.NotAppended(err) {
			return catalogReply{}, err
		}
		select {
		case <-changed:
		case <-time.After(retryPause):
		case <-ctx.Done():
			return catalogReply{}, fmt.Errorf("%w: the catalog: %w", outcome.ErrNoLeader, err)
		case <-c.node.ctx.Done():
			return catalogReply{}, outcome.ErrShuttingDown
		}
	}
}

// apply makes a change to the catalog and returns when it is known here.
func (c *catalog) apply(ctx context.Context, command fsm.CatalogCommand) (catalogReply, error) {
	if err := c.view.Load().CheckLevel(&command); err != nil {
		return catalogReply{}, err
	}
	payload := command.Encode()
	return c.atLeader(ctx, callCatalogApply, payload, func(ctx context.Context) ([]byte, error) {
		return c.applyAsLeader(ctx, payload)
	})
}

// change has the leader make a change that is made once however often it is asked for,
// and returns when it is known here and at all nodes that are connected: whoever asked
// for it may turn to another gateway next.
func (c *catalog) change(ctx context.Context, kind uint8, payload []byte, local func(context.Context) ([]byte, error)) error {
	for {
		at, err := c.atLeader(ctx, kind, payload, local)
		if outcome.Code(err) == outcome.ErrUnknownFate && ctx.Err() == nil {
			continue
		}
		if err == nil {
			c.makeKnown(ctx, at.Index)
		}
		return err
	}
}

// changeBy is change by a command that needs nothing of the leader but to be proposed.
func (c *catalog) changeBy(ctx context.Context, command fsm.CatalogCommand) error {
	if err := c.view.Load().CheckLevel(&command); err != nil {
		return err
	}
	payload := command.Encode()
	return c.change(ctx, callCatalogApply, payload, func(ctx context.Context) ([]byte, error) {
		return c.applyAsLeader(ctx, payload)
	})
}

// makeKnown returns when all nodes that are connected know the catalog as it is at index.
// One that does not say so within makeKnownTimeout, paused or just dead, is not waited for:
// what is changed stays changed without it.
func (c *catalog) makeKnown(ctx context.Context, index fsm.Index) {
	ctx, cancel := context.WithTimeout(ctx, makeKnownTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, node := range c.view.Load().Nodes() {
		identity := node.Identity()
		if identity == c.node.identity || !c.node.connected(identity) {
			continue
		}
		wg.Go(func() {
			if _, err := c.node.call(ctx, identity, callCatalogKnown, binary.BigEndian.AppendUint64(nil, uint64(index))); err != nil {
				c.node.logger.Debug("a node may not know a change of the catalog yet", "node", node.ID, "error", err)
			}
		})
	}
	wg.Wait()
}

// makeKnownTimeout is longer than a commit takes to reach a node that is well, and short for
// who creates a topic while one is not.
const makeKnownTimeout = 500 * time.Millisecond

// catchUp returns when this node knows the catalog as it was, or newer, when
// the call began.
func (c *catalog) catchUp(ctx context.Context) error {
	_, err := c.atLeader(ctx, callCatalogIndex, nil, func(ctx context.Context) ([]byte, error) { return c.indexAsLeader(ctx) })
	return err
}

func (c *catalog) awaitIndex(ctx context.Context, index fsm.Index) error {
	for {
		c.mu.Lock()
		at, changed := c.index, c.changed
		c.mu.Unlock()
		if at >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: the change is made and not yet known here", outcome.ErrTimeout)
		}
	}
}

// open starts the catalog group; voters is non-nil at the node that forms the cluster.
func (c *catalog) open(voters, nonvoters []string) error {
	n := c.node
	config := raftConfig(n.identity, n.cfg.HeartbeatTimeout, n.cfg.CommitTimeout, 10_240, n.raftLogger.Named(catalogGroup))
	config.SnapshotThreshold = 1024
	g, err := openGroup(catalogGroup, boltFiles(n.dir.join("catalog"), config.Logger, n.diskFailed), config, c, n.stable.Group(catalogGroup), n.transport(catalogGroup), voters, nonvoters)
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		return cmp.Or(c.newer, err) // Raft does not say why it cannot restore a snapshot
	}
	if t, ok := g.transport.(*peer.GroupTransport); ok {
		// Raft would go back to an offered snapshot, and to the members in it, also where it is
		// further.
		t.BeforeInstall(func(_ context.Context, _ string, req *raft.InstallSnapshotRequest) error {
			if g.raft.AppliedIndex() >= req.LastLogIndex {
				return peer.ErrInstalled
			}
			return nil
		})
	}
	n.vouch(g)
	c.mu.Lock()
	c.group = g
	c.wakeLocked()
	c.mu.Unlock()
	return nil
}

// lead is run once a second and when leadership changes: what the catalog's
// leader has to do.
func (c *catalog) lead(ctx context.Context) {
	g := c.raftGroup()
	if g == nil || g.raft.State() != raft.Leader {
		return
	}
	n := c.node
	n.idMu.Lock()
	forming := n.id.Forming
	n.idMu.Unlock()
	view := c.view.Load()
	if view.ClusterID() == "" && forming != nil {
		command := fsm.CatalogCommand{FormCluster: &fsm.FormCluster{ClusterID: forming.ClusterID, Nodes: forming.Nodes}}
		if _, err := c.apply(ctx, command); err != nil {
			n.logger.Warn("cannot write the cluster into the catalog yet", "error", err)
			return
		}
		view = c.view.Load()
		n.logger.Info("cluster formed", "cluster", forming.ClusterID, "nodes", len(forming.Nodes))
	}
	c.raiseLevel(ctx, view)
	servers, err := g.servers()
	if err != nil {
		return
	}
	voters := 0
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			voters++
		}
	}
	for _, node := range view.Nodes() {
		id := raft.ServerID(node.Identity())
		// One that leaves gets no vote: it may have given it up already (giveUpVote).
		votes := voters < maxCatalogVoters && node.State != fsm.NodeLeaving
		if i := slices.IndexFunc(servers, func(s raft.Server) bool { return s.ID == id }); i >= 0 && (servers[i].Suffrage == raft.Voter || !votes) {
			continue
		}
		if !n.connected(node.Identity()) {
			continue // it would count for the majority from now on, and it may never have been reached
		}
		if votes && !n.majorityWith(servers, node.Identity()) {
			n.logger.Debug("a node gets no vote in the catalog yet: too few of the others are there", "node", node.ID)
			continue
		}
		var err error
		if votes {
			err = g.change(ctx, func() raft.Future { return g.raft.AddVoter(id, raft.ServerAddress(id), 0, callTimeout) })
			voters++
		} else {
			err = g.change(ctx, func() raft.Future { return g.raft.AddNonvoter(id, raft.ServerAddress(id), 0, callTimeout) })
		}
		if err != nil {
			n.logger.Warn("cannot add a node to the catalog group yet", "node", node.ID, "error", err)
			return
		}
		n.logger.Info("node added to the catalog group", "node", node.ID)
		if servers, err = g.servers(); err != nil {
			return
		}
	}
	c.removeMembers(g, servers, view)
}

// removeMembers takes nodes that have left the cluster out of the catalog group, this node last.
func (c *catalog) removeMembers(g *group, servers []raft.Server, view *fsm.Topics) {
	n := c.node
	registered := func(identity string) bool {
		return slices.ContainsFunc(view.Nodes(), func(node fsm.Node) bool { return node.Identity() == identity })
	}
	if view.ClusterID() == "" {
		return
	}
	surplus := n.leastMissed(servers, func(identity string) bool { return !registered(identity) })
	if len(surplus) == 0 {
		return
	}
	identity := surplus[0]
	var err error
	switch {
	case identity == n.identity:
		err = n.handOverTo(g, registered)
	case !n.majorityWithout(servers, identity):
		n.logger.Debug("a node that has left stays in the catalog group: too few of the others are there", "node", identity)
		return
	default:
		if n.connected(identity) {
			// It is to hear that it has left before nobody tells it anything any more.
			err = g.change(n.ctx, func() raft.Future { return g.raft.Barrier(callTimeout) })
		}
		if err == nil {
			err = g.change(n.ctx, func() raft.Future { return g.raft.RemoveServer(raft.ServerID(identity), 0, callTimeout) })
		}
	}
	if err != nil {
		n.logger.Warn("a node that has left is still in the catalog group", "node", identity, "error", err)
	} else {
		n.logger.Info("a node has left the catalog group", "node", identity)
	}
}

// placing waits for its turn to place replicas, placed ends the turn.
func (c *catalog) placing(ctx context.Context) error {
	select {
	case c.creating <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: something else is being created", outcome.ErrNoLeader)
	}
}

func (c *catalog) placed() { <-c.creating }

// createTopicCall is what a node asks the catalog's leader to do.
type createTopicCall struct {
	Spec         fsm.TopicSpec `json:"spec"`
	ID           fsm.TopicID   `json:"id"` // minted by the asking node, so that asking twice creates once
	ValidateOnly bool          `json:"validate_only,omitempty"`
}

// createTopicAsLeader places and creates a topic.
func (n *Node) createTopicAsLeader(ctx context.Context, call createTopicCall) ([]byte, error) {
	c := n.catalog
	if err := c.placing(ctx); err != nil {
		return nil, err
	}
	defer c.placed()
	// Place on what is committed, not on what an old leader remembers.
	if _, err := c.indexAsLeader(ctx); err != nil {
		return nil, err
	}
	view := c.view.Load()
	if view.ClusterID() == "" {
		return nil, fmt.Errorf("%w: the cluster is being formed", outcome.ErrNoLeader)
	}
	if old, ok := view.Lookup(call.Spec.Name); ok {
		if old.ID == call.ID {
			return json.Marshal(catalogReply{Index: view.Version()})
		}
		return nil, fmt.Errorf("%w: %q", outcome.ErrTopicExists, call.Spec.Name)
	}
	topic := &fsm.Topic{Name: call.Spec.Name, ID: call.ID, Configs: call.Spec.Configs}
	partitions, factor := call.Spec.Partitions, int(call.Spec.ReplicationFactor)
	nodes := view.Nodes()
	if partitions == -1 {
		partitions = n.cfg.DefaultPartitions
	}
	if factor == -1 {
		factor = min(int(n.cfg.DefaultReplicationFactor), len(nodes))
	}
	assignment := call.Spec.Assignment
	if assignment == nil {
		if partitions < 1 || partitions > fsm.MaxPartitions {
			return nil, fmt.Errorf("%w: %d, want 1 to %d", outcome.ErrInvalidPartitions, partitions, fsm.MaxPartitions)
		}
		if factor < 1 || factor > len(nodes) {
			return nil, fmt.Errorf("%w: %d, and the cluster has %d nodes", outcome.ErrInvalidReplicationFactor, factor, len(nodes))
		}
		var err error
		if assignment, err = n.place(view, partitions, factor, call.ID); err != nil {
			return nil, err
		}
	} else if len(assignment) > 0 {
		factor = len(assignment[0])
	}
	topic.ReplicationFactor = factor
	if err := fsm.CheckWish(nil, topic.Configs, factor); err != nil {
		return nil, err
	}
	for _, replicas := range assignment {
		topic.Partitions = append(topic.Partitions, fsm.Partition{Replicas: replicas, Bootstrap: replicas})
	}
	if call.ValidateOnly {
		if err := view.CheckCreate(topic); err != nil {
			return nil, err
		}
		return json.Marshal(catalogReply{Index: view.Version()})
	}
	return c.applyAsLeader(ctx, fsm.CatalogCommand{CreateTopic: &fsm.CreateTopic{Topic: *topic}}.Encode())
}

// place assigns partitions to nodes that are alive, and to absent ones only as
// far as the replication factor needs them: they catch up when they return. A
// majority of every partition's replicas must be alive.
func (n *Node) place(view *fsm.Topics, partitions int32, factor int, seed fsm.TopicID) ([][]fsm.NodeID, error) {
	alive := n.nodesHere(view)
	load := map[fsm.NodeID]*placement.Node{}
	var here, absent []*placement.Node // those who are draining come first among the second choice
	draining := 0
	for _, node := range view.Nodes() {
		candidate := &placement.Node{ID: node.ID, Zone: node.Zone}
		load[node.ID] = candidate
		switch {
		case node.State == fsm.NodeLeaving:
		case alive[node.ID] && node.State == fsm.NodeActive:
			here = append(here, candidate)
		case alive[node.ID]:
			absent = slices.Insert(absent, draining, candidate)
			draining++
		default:
			absent = append(absent, candidate)
		}
	}
	for _, topic := range view.Placed() {
		for _, p := range topic.Partitions {
			for i, id := range p.Replicas {
				if node := load[id]; node != nil {
					node.Replicas++
					if i == 0 {
						node.Leaders++
					}
				}
			}
		}
	}
	for len(here) < factor && len(absent) > 0 {
		here, absent = append(here, absent[0]), absent[1:]
	}
	candidates := make([]placement.Node, len(here))
	for i, node := range here {
		candidates[i] = *node
	}
	assignment, err := placement.Assign(candidates, partitions, factor, seedOf(seed))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", outcome.ErrInvalidReplicationFactor, err)
	}
	for p, replicas := range assignment {
		if !majorityOf(replicas, alive) {
			return nil, fmt.Errorf("%w: %d, and only %d nodes are alive", outcome.ErrInvalidReplicationFactor, factor, len(alive))
		}
		// An absent node cannot lead: the first replica is the preferred leader.
		slices.SortStableFunc(assignment[p], func(a, b fsm.NodeID) int {
			return boolInt(alive[b]) - boolInt(alive[a])
		})
	}
	return assignment, nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func seedOf(id fsm.TopicID) uint64 {
	return binary.BigEndian.Uint64(id[:8]) ^ binary.BigEndian.Uint64(id[8:])
}

// CreateTopic creates a topic and returns when it is known at all connected nodes and all
// its partitions have a leader. If ctx ends before that the error is
// outcome.ErrTimeout and the topic exists. With validateOnly nothing is created.
func (n *Node) CreateTopic(ctx context.Context, spec fsm.TopicSpec, validateOnly bool) error {
	// What no catalog takes may be as large as a request, and is not for other nodes to read.
	if err := fsm.CheckConfigs(spec.Configs); err != nil {
		if _, there := n.Topics().Lookup(spec.Name); there {
			return fmt.Errorf("%w: %q", outcome.ErrTopicExists, spec.Name)
		}
		return err
	}
	call := createTopicCall{Spec: spec, ID: newUUID(), ValidateOnly: validateOnly}
	payload, err := json.Marshal(call)
	if err != nil {
		return fmt.Errorf("%w: %w", outcome.ErrUnknown, err)
	}
	// The same id asked for twice creates once.
	err = n.catalog.change(ctx, callCreateTopic, payload, func(ctx context.Context) ([]byte, error) {
		return n.createTopicAsLeader(ctx, call)
	})
	if err != nil || validateOnly {
		return err
	}
	n.warnOfCompaction(&fsm.Topic{Name: spec.Name}, spec.Configs)
	topic, ok := n.Topics().ByID(call.ID)
	if !ok {
		return nil // deleted again by someone else
	}
	for p := range topic.Partitions {
		err := n.awaitLeader(ctx, fsm.PartitionID{Topic: topic.ID, Partition: int32(p)})
		if err != nil && outcome.Code(err) != outcome.ErrUnknownTopicOrPartition {
			return fmt.Errorf("%w: topic %q exists, partition %d has no leader yet: %w", outcome.ErrTimeout, spec.Name, p, err)
		}
	}
	return nil
}

// DeleteTopic deletes a topic and its records, and returns when that is known at
// all connected nodes. Replicas free their disk on their own.
func (n *Node) DeleteTopic(ctx context.Context, name string) error {
	topic, ok := n.Topics().Lookup(name)
	if !ok {
		if err := n.catalog.catchUp(ctx); err != nil {
			return err
		}
		if topic, ok = n.Topics().Lookup(name); !ok {
			return fmt.Errorf("%w: %q", outcome.ErrUnknownTopicOrPartition, name)
		}
	}
	return n.deleteTopic(ctx, topic)
}

// DeleteTopicByID is DeleteTopic of the topic that has that id.
func (n *Node) DeleteTopicByID(ctx context.Context, id fsm.TopicID) error {
	topic, err := n.topicByID(ctx, id)
	if err != nil {
		return err
	}
	return n.deleteTopic(ctx, topic)
}

func (n *Node) deleteTopic(ctx context.Context, topic *fsm.Topic) error {
	// By id: deleting twice deletes once.
	return n.catalog.changeBy(ctx, fsm.CatalogCommand{DeleteTopic: &fsm.DeleteTopic{Name: topic.Name, ID: topic.ID}})
}
