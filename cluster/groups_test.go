package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
)

var testClient = coordinator.Client{ID: "test", Host: "/127.0.0.1", Version: 8}

// groupRequest makes a request in the version that coordinators take.
func groupRequest[R kmsg.Request](fill func(R)) R {
	var zero R
	req := kmsg.RequestForKey(zero.Key()).(R)
	version, _ := coordinator.Version(req.Key())
	req.SetVersion(version)
	fill(req)
	return req
}

func commitOf(group, topic string, offsets ...int64) *kmsg.OffsetCommitRequest {
	return groupRequest(func(req *kmsg.OffsetCommitRequest) {
		req.Group, req.Generation = group, -1
		t := kmsg.NewOffsetCommitRequestTopic()
		t.Topic = topic
		for p, o := range offsets {
			tp := kmsg.NewOffsetCommitRequestTopicPartition()
			tp.Partition, tp.Offset = int32(p), o
			t.Partitions = append(t.Partitions, tp)
		}
		req.Topics = append(req.Topics, t)
	})
}

// tryCommit commits offsets of a group's partitions 0 and up.
func tryCommit(ctx context.Context, n *Node, group, topic string, offsets ...int64) error {
	resp, err := n.Coordinate(ctx, coordinator.ShardOf(group), testClient, commitOf(group, topic, offsets...))
	if err != nil {
		return err
	}
	for _, t := range resp.(*kmsg.OffsetCommitResponse).Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("partition %d: %w", p.Partition, err)
			}
		}
	}
	return nil
}

func retriable(err error) bool {
	return fsm.NotAppended(err) || errors.Is(err, kerr.NotCoordinator) || errors.Is(err, kerr.CoordinatorNotAvailable) ||
		fsm.Code(err) == fsm.ErrUnknownFate
}

// commit is tryCommit as clients do it: again, while they are told to.
func (c *testCluster) commit(node int, group, topic string, offsets ...int64) {
	c.t.Helper()
	eventually(c.t, "a commit of "+group, func() error {
		err := tryCommit(within(c.t), c.nodes[node].Node, group, topic, offsets...)
		if err != nil && !retriable(err) {
			c.t.Fatalf("commit of %s: %v", group, err)
		}
		return err
	})
}

// fetchOffsets gives what a group has committed of a topic's partitions 0 to n-1.
func fetchOffsets(ctx context.Context, n *Node, group, topic string, count int) ([]int64, error) {
	resp, err := n.Coordinate(ctx, coordinator.ShardOf(group), testClient, groupRequest(func(req *kmsg.OffsetFetchRequest) {
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = group
		t := kmsg.NewOffsetFetchRequestGroupTopic()
		t.Topic = topic
		for p := range count {
			t.Partitions = append(t.Partitions, int32(p))
		}
		g.Topics = append(g.Topics, t)
		req.Groups = append(req.Groups, g)
	}))
	if err != nil {
		return nil, err
	}
	g := resp.(*kmsg.OffsetFetchResponse).Groups[0]
	if err := kerr.ErrorForCode(g.ErrorCode); err != nil {
		return nil, err
	}
	offsets := make([]int64, count)
	for _, p := range g.Topics[0].Partitions {
		offsets[p.Partition] = p.Offset
	}
	return offsets, nil
}

// wantCommitted waits until every running node tells these offsets of a group.
func (c *testCluster) wantCommitted(group, topic string, want ...int64) {
	c.t.Helper()
	for i, node := range c.nodes {
		if !node.running {
			continue
		}
		eventually(c.t, fmt.Sprintf("offsets of %s at node %d", group, i+1), func() error {
			got, err := fetchOffsets(within(c.t), node.Node, group, topic, len(want))
			if err == nil && !slices.Equal(got, want) {
				err = fmt.Errorf("%d, want %d", got, want)
			}
			return err
		})
	}
}

// groupNames gives one group for each shard.
func groupNames() []string {
	names := make([]string, coordinator.Shards)
	for i, left := 0, len(names); left > 0; i++ {
		name := fmt.Sprintf("group-%d", i)
		if s := coordinator.ShardOf(name); names[s] == "" {
			names[s] = name
			left--
		}
	}
	return names
}

// What was committed is there after the death of the shards' leaders, and after a
// restart of everything; and what is internal stays out of sight.
func TestCommitsSurviveTheirLeadersAndARestart(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.topic("a", 2, 3)
	before := c.any().Topics()
	if _, ok := before.GroupShards(); ok {
		t.Error("there are shards before the first use")
	}
	groups := groupNames()
	for i, g := range groups {
		c.commit(i%3, g, "a", int64(i), int64(100+i))
	}
	for i, g := range groups {
		c.wantCommitted(g, "a", int64(i), int64(100+i))
	}
	status, err := c.any().Status(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if all := c.any().Topics().All(); len(all) != 1 || len(status.Topics) != 1 {
		t.Errorf("%d topics are known, %d shown", len(all), len(status.Topics))
	}
	leaders, first := map[fsm.NodeID]int{}, map[fsm.NodeID]int{}
	for _, s := range status.GroupShards {
		if len(s.Replicas) != 3 {
			t.Fatalf("shard %d has %d replicas", s.Partition, len(s.Replicas))
		}
		first[s.Replicas[0].Node]++
		leaders[s.Leader]++
	}
	if len(status.GroupShards) != coordinator.Shards || leaders[""] > 0 {
		t.Errorf("%d shards, led by %v", len(status.GroupShards), leaders)
	}
	for node, n := range first {
		if n < 5 || n > 6 {
			t.Errorf("node %s is preferred by %d shards", node, n)
		}
	}
	for _, n := range status.Nodes {
		if n.Replicas != 2 {
			t.Errorf("node %s is said to have %d replicas", n.ID, n.Replicas)
		}
	}

	c.kill(0)
	for i, g := range groups {
		c.wantCommitted(g, "a", int64(i), int64(100+i))
		c.commit(1+i%2, g, "a", int64(1000+i))
		c.wantCommitted(g, "a", int64(1000+i), int64(100+i))
	}
	c.start(0)
	c.ready()
	for i := range c.nodes {
		c.kill(i)
	}
	c.startAll()
	for i, g := range groups {
		c.wantCommitted(g, "a", int64(1000+i), int64(100+i))
	}
}

// join asks to join a group as a consumer of topics would.
func join(ctx context.Context, n *Node, group, member string) (*kmsg.JoinGroupResponse, error) {
	resp, err := n.Coordinate(ctx, coordinator.ShardOf(group), coordinator.Client{ID: "test", Host: "/127.0.0.1", Version: 3}, groupRequest(func(req *kmsg.JoinGroupRequest) {
		req.Group, req.MemberID, req.ProtocolType = group, member, "consumer"
		req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 30_000, 300_000
		p := kmsg.NewJoinGroupRequestProtocol()
		p.Name, p.Metadata = "range", []byte("subscription of "+member)
		req.Protocols = append(req.Protocols, p)
	}))
	if err != nil {
		return nil, err
	}
	return resp.(*kmsg.JoinGroupResponse), nil
}

// member joins and syncs until it has its assignment, as clients do.
func (c *testCluster) member(node int, group, member string) (id string, generation int32) {
	c.t.Helper()
	id = member
	eventually(c.t, "a member of "+group, func() error {
		joined, err := join(within(c.t), c.nodes[node].Node, group, id)
		if err != nil {
			return err
		}
		switch err := kerr.ErrorForCode(joined.ErrorCode); {
		case errors.Is(err, kerr.UnknownMemberID):
			id = ""
			return err
		case err != nil:
			return err
		}
		id, generation = joined.MemberID, joined.Generation
		resp, err := c.nodes[node].Coordinate(within(c.t), coordinator.ShardOf(group), testClient, groupRequest(func(req *kmsg.SyncGroupRequest) {
			req.Group, req.Generation, req.MemberID = group, joined.Generation, joined.MemberID
			for _, m := range joined.Members {
				a := kmsg.NewSyncGroupRequestGroupAssignment()
				a.MemberID, a.MemberAssignment = m.MemberID, []byte("for "+m.MemberID)
				req.GroupAssignment = append(req.GroupAssignment, a)
			}
		}))
		if err != nil {
			return err
		}
		sync := resp.(*kmsg.SyncGroupResponse)
		if err := kerr.ErrorForCode(sync.ErrorCode); err != nil {
			return err
		}
		if string(sync.MemberAssignment) != "for "+id {
			c.t.Errorf("%s was assigned %q", id, sync.MemberAssignment)
		}
		return nil
	})
	return id, generation
}

func heartbeat(ctx context.Context, n *Node, group, member string, generation int32) error {
	resp, err := n.Coordinate(ctx, coordinator.ShardOf(group), testClient, groupRequest(func(req *kmsg.HeartbeatRequest) {
		req.Group, req.MemberID, req.Generation = group, member, generation
	}))
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.(*kmsg.HeartbeatResponse).ErrorCode)
}

// shardLeader waits until a running node coordinates a group.
func (c *testCluster) shardLeader(group string) int {
	c.t.Helper()
	return c.leaderOf(shardID(coordinator.ShardOf(group)))
}

// A planned stop hands shards over: members go on as members of the same generation.
// A join that waits at the node is told to look for the next coordinator, and does
// not hold up the stop.
func TestAPlannedStopHandsMembersOver(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	const group = "g"
	c.commit(0, group, "none") // creates the shards
	leader := c.shardLeader(group)
	other := (leader + 1) % 3
	id, generation := c.member(other, group, "")
	if err := heartbeat(within(t), c.nodes[other].Node, group, id, generation); err != nil {
		t.Fatal(err)
	}
	// A second member's join waits for the first, which only beats.
	waiting := make(chan error, 1)
	go func() {
		resp, err := join(within(t), c.nodes[other].Node, group, "")
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		waiting <- err
	}()
	eventually(t, "the join waits", func() error {
		if err := heartbeat(within(t), c.nodes[other].Node, group, id, generation); !errors.Is(err, kerr.RebalanceInProgress) {
			return fmt.Errorf("heartbeat: %v", err)
		}
		return nil
	})
	c.nodes[leader].running = false
	if err := c.nodes[leader].Shutdown(within(t)); err != nil {
		t.Error(err)
	}
	if err := <-waiting; !errors.Is(err, kerr.NotCoordinator) {
		t.Errorf("the join that waited: %v", err)
	}
	if next := c.shardLeader(group); next == leader {
		t.Error("it still leads")
	}
	eventually(t, "the member's heartbeat", func() error {
		return heartbeat(within(t), c.nodes[other].Node, group, id, generation)
	})
	if again, _ := c.member(other, group, id); again != id {
		t.Errorf("member %s became %s", id, again)
	}
}

// Whoever waits at a node that dies is told so at once, and others' requests are not
// held up by those that wait.
func TestAWaitEndsWithTheLeadersNode(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	const group = "g"
	c.commit(0, group, "none")
	leader := c.shardLeader(group)
	other := (leader + 1) % 3
	id, generation := c.member(other, group, "")
	const waits = 50
	failed := make(chan error, waits)
	for range waits {
		go func() {
			_, err := join(context.Background(), c.nodes[other].Node, group, "")
			failed <- err
		}()
	}
	eventually(t, "joins wait", func() error {
		if err := heartbeat(within(t), c.nodes[other].Node, group, id, generation); !errors.Is(err, kerr.RebalanceInProgress) {
			return fmt.Errorf("heartbeat: %v", err)
		}
		return nil
	})
	// One whose client has gone ends there and here.
	ctx, cancel := context.WithCancel(within(t))
	gone := make(chan error)
	go func() {
		_, err := join(ctx, c.nodes[other].Node, group, "")
		gone <- err
	}()
	cancel()
	if err := <-gone; err == nil {
		t.Error("a join without a client was answered")
	}
	c.net.isolate(leader, len(c.nodes), true)
	for range waits {
		if err := <-failed; err == nil || fsm.NotAppended(err) {
			t.Fatalf("a join that waited: %v", err)
		}
	}
	// Its member is known to the next coordinator.
	eventually(t, "the member's heartbeat", func() error {
		return heartbeat(within(t), c.nodes[other].Node, group, id, generation)
	})
}

// offsetsEach is how many partitions a commit of commitMany is for.
const offsetsEach = 10

// commitMany commits at a shard's own node, so that what is measured is the log.
func (c *testCluster) commitMany(group string, workers, each int) {
	c.t.Helper()
	leader := c.nodes[c.shardLeader(group)].Node
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range each {
				// Groups of one shard: one group writes one command at a time.
				if err := tryCommit(within(c.t), leader, siblings(group, workers)[w], "a", slices.Repeat([]int64{int64(i + 1)}, offsetsEach)...); err != nil {
					c.t.Errorf("worker %d, commit %d: %v", w, i, err)
					return
				}
			}
		})
	}
	all.Wait()
}

var siblingsOf sync.Map

// siblings gives groups of the same shard as a group.
func siblings(group string, n int) []string {
	if known, ok := siblingsOf.Load(group); ok && len(known.([]string)) >= n {
		return known.([]string)
	}
	var names []string
	for i := 0; len(names) < n; i++ {
		if name := fmt.Sprintf("%s-%d", group, i); coordinator.ShardOf(name) == coordinator.ShardOf(group) {
			names = append(names, name)
		}
	}
	siblingsOf.Store(group, names)
	return names
}

func bytesOf(t *testing.T, dir string) (sum int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // freed this moment
		}
		if info, err := d.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// The log of a shard stays small however much is committed, since snapshots stand
// for it; a node that starts from one, and one that was away meanwhile and one that
// has nothing get everything.
func TestALogOfCommitsStaysSmall(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.topic("a", 1, 3)
	const group, workers = "g", 100
	each := 200 // 200,000 offsets
	if testing.Short() {
		each = 50
	}
	c.commit(0, group, "a", 1)
	id := shardID(coordinator.ShardOf(group))
	c.commitMany(group, workers, 10)
	leader := c.shardLeader(group)
	away := (leader + 1) % 3
	there := (leader + 2) % 3
	c.kill(away)
	began := time.Now()
	c.commitMany(group, workers, each)
	took := time.Since(began)
	entries := c.nodes[leader].replica(id).group.raft.LastIndex()
	t.Logf("%d commits of %d offsets in %d entries, %v", workers*each, offsetsEach, entries, took)
	if entries > uint64(workers*each/2) {
		t.Errorf("%d commits took %d entries: too few share one", workers*each, entries)
	}
	const most = 4 << 20 // four segments of tests
	for _, i := range []int{leader, there} {
		dir := c.nodes[i].partitionDir(id)
		eventually(t, "a small log", func() error {
			if size := bytesOf(t, dir); size > most {
				return fmt.Errorf("node %d: %d bytes", i+1, size)
			}
			if first := c.nodes[i].replica(id).log.Segments()[0].Base; first == 1 {
				return errors.New("nothing was freed")
			}
			return nil
		})
	}
	c.start(away)
	c.ready()
	want := siblings(group, workers)
	caughtUp := func(i int) {
		t.Helper()
		eventually(t, fmt.Sprintf("node %d has what was committed", i+1), func() error {
			s := c.nodes[i].shard(id)
			if s == nil {
				return errors.New("not there")
			}
			if _, next := s.bounds(); next != mustBounds(c.nodes[there].shard(id)) {
				return fmt.Errorf("at %d", next)
			}
			return nil
		})
	}
	caughtUp(away)
	if a, b := stateOf(c.nodes[away].shard(id)), stateOf(c.nodes[there].shard(id)); a != b {
		t.Error("two replicas differ")
	}
	// After a restart from snapshots, the one that was away and one other have it all.
	for _, i := range []int{leader, there, away} {
		c.kill(i)
	}
	c.start(away)
	c.start(there)
	c.ready()
	for _, name := range []string{want[0], want[workers-1]} {
		c.wantCommitted(name, "a", slices.Repeat([]int64{int64(each)}, offsetsEach)...)
	}
	c.start(leader)
	c.ready()
	// Damaged: rebuilt from the others.
	caughtUp(leader)
	n := c.nodes[leader].Node
	hurt := n.replica(id)
	n.damaged(hurt, fmt.Errorf("%w: by the test", raftlog.ErrDamaged))
	eventually(t, "it is rebuilt", func() error {
		if r := n.replica(id); r == nil || r == hurt {
			return errors.New("not there")
		}
		return nil
	})
	caughtUp(leader)
	if a, b := stateOf(c.nodes[leader].shard(id)), stateOf(c.nodes[there].shard(id)); a != b {
		t.Error("the rebuilt replica differs")
	}
}

func mustBounds(s *shard) fsm.Offset {
	_, next := s.bounds()
	return next
}

func stateOf(s *shard) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.state.Snapshot())
}

// Offsets of a topic that is deleted count as none, also when there is another of
// its name.
func TestOffsetsOfADeletedTopicCountAsNone(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	c.topic("a", 1, 1)
	c.commit(0, "g", "a", 7)
	c.wantCommitted("g", "a", 7)
	if err := c.any().DeleteTopic(within(t), "a"); err != nil {
		t.Fatal(err)
	}
	c.wantCommitted("g", "a", -1)
	if err := tryCommit(within(t), c.any(), "g", "a", 8); !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("commit for a topic that is gone: %v", err)
	}
	c.topic("a", 1, 1)
	c.wantCommitted("g", "a", -1)
	c.commit(0, "g", "a", 9)
	c.wantCommitted("g", "a", 9)
}

func TestRequestsForShardsThatAreNotAreRefused(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	for _, index := range []int{-1, coordinator.Shards} {
		if _, err := c.any().Coordinate(within(t), index, testClient, commitOf("g", "a")); err == nil {
			t.Errorf("shard %d answered", index)
		}
	}
	if _, ok := c.any().Topics().GroupShards(); ok {
		t.Error("they created the shards")
	}
	// Shards are no partitions of records, whoever asks.
	c.commit(0, "g", "none")
	id := shardID(0)
	ctx := within(t)
	if _, err := c.any().Append(ctx, id, [][]byte{batchOf("x")}); fsm.Code(err) != fsm.ErrUnknownTopicOrPartition {
		t.Errorf("append: %v", err)
	}
	if _, err := c.any().Read(ctx, id, 0, 100); fsm.Code(err) != fsm.ErrUnknownTopicOrPartition {
		t.Errorf("read: %v", err)
	}
	if err := c.any().DeleteTopicByID(ctx, fsm.GroupShardsID); fsm.Code(err) != fsm.ErrUnknownTopicOrPartition {
		t.Errorf("deletion: %v", err)
	}
	for _, kind := range []uint8{callAppend, callRead, callAwait, callListOffsets, callDeleteRecords, callProducers, callHash, callOffsetForTime, callEpochEnd} {
		payload := append(appendPartition(nil, id), make([]byte, 24)...)
		if kind == callAppend {
			payload = payload[:len(payload)-12]
		}
		if _, err := c.any().answer(ctx, "other", kind, payload); err == nil {
			t.Errorf("call %d was answered", kind)
		}
	}
}

func TestWhatIsAskedOfACoordinatorTravels(t *testing.T) {
	id := shardID(3)
	client := coordinator.Client{ID: "c", Host: "/1.2.3.4", Version: 5}
	payload, err := encodeCoordinate(id, client, commitOf("g", "a", 1, 2))
	if err != nil {
		t.Fatal(err)
	}
	gotID, gotClient, req, err := decodeCoordinate(payload)
	if err != nil || gotID != id || gotClient != client {
		t.Fatalf("%v, %v, %v", gotID, gotClient, err)
	}
	if c := req.(*kmsg.OffsetCommitRequest); c.Group != "g" || len(c.Topics) != 1 || c.Topics[0].Partitions[1].Offset != 2 {
		t.Errorf("%+v", c)
	}
	for n := range payload {
		if _, _, _, err := decodeCoordinate(payload[:n]); err == nil {
			t.Errorf("%d of %d bytes were understood", n, len(payload))
		}
	}
	if _, err := encodeCoordinate(id, coordinator.Client{ID: strings.Repeat("x", 1<<16)}, commitOf("g", "a")); err == nil {
		t.Error("a client's id of 64 KiB was taken")
	}
	// Another version, another key: refused rather than misread.
	for _, at := range []int{20, 22} {
		other := slices.Clone(payload)
		other[at+1]++
		if _, _, _, err := decodeCoordinate(other); err == nil {
			t.Errorf("changed at %d, it was understood", at)
		}
	}
}

// Any bytes may come from another node.
func FuzzDecodeCoordinate(f *testing.F) {
	for _, req := range []kmsg.Request{
		commitOf("g", "a", 1, 2),
		groupRequest(func(req *kmsg.JoinGroupRequest) { req.Group = "g" }),
		groupRequest(func(req *kmsg.ListGroupsRequest) { req.StatesFilter = []string{"Stable"} }),
	} {
		payload, err := encodeCoordinate(shardID(1), testClient, req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		id, client, req, err := decodeCoordinate(payload)
		if err != nil {
			return
		}
		if id.Topic != fsm.GroupShardsID {
			t.Fatal("no shard")
		}
		if _, err := encodeCoordinate(id, client, req); err != nil {
			t.Fatal(err)
		}
	})
}

// Any bytes may be on disk, or come from another node, as a snapshot.
func FuzzParseShardSnapshot(f *testing.F) {
	f.Add(appendShardSnapshot(5, 3, coordinator.NewState().Snapshot()))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		applied, next, state, err := parseShardSnapshot(data)
		if err != nil {
			return
		}
		if next < 0 || uint64(next) > uint64(applied) {
			t.Fatalf("%d entries up to %d", next, applied)
		}
		if again := appendShardSnapshot(applied, next, state.Snapshot()); len(again) != len(data) {
			t.Fatalf("%d bytes became %d", len(data), len(again))
		}
	})
}

// One request finds its way while its shard's leader dies: what is only read is asked
// again by itself.
func TestWhatIsReadIsAskedAgain(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.topic("a", 1, 3)
	c.commit(0, "g", "a", 5)
	leader := c.shardLeader("g")
	other := (leader + 1) % 3
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := fetchOffsets(ctx, c.nodes[other].Node, "g", "a", 1); err != nil {
		t.Fatal(err)
	}
	c.nodes[leader].running = false
	stopped := make(chan error, 1)
	go func() { stopped <- c.nodes[leader].Shutdown(within(t)) }()
	for asked := false; !asked; {
		select {
		case err := <-stopped:
			if err != nil {
				t.Error(err)
			}
			asked = true
		default:
		}
		if got, err := fetchOffsets(ctx, c.nodes[other].Node, "g", "a", 1); err != nil || got[0] != 5 {
			t.Fatalf("while the leader stops: %d, %v", got, err)
		}
	}
}

// The files of a stopped node are checked as those of partitions are.
func TestLogDirKnowsShards(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	c.topic("a", 1, 1)
	for i := range 50 {
		c.commit(0, "g", "a", int64(i))
	}
	id := shardID(coordinator.ShardOf("g"))
	if err := c.nodes[0].replica(id).group.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	c.commit(0, "g", "a", 50)
	c.kill(0)
	d, err := OpenLogDir(c.nodes[0].cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	found, bad := d.Verify(id.String(), nil)
	if len(bad) > 0 || found.Entries < 51 {
		t.Errorf("%d entries, %v", found.Entries, bad)
	}
	groups := 0
	err = d.Entries(id.String(), 1, false, func(e DumpedEntry) error {
		if e.Kind == "groups" {
			groups++
		}
		return nil
	})
	if err != nil || groups != 51 {
		t.Errorf("%d entries of commands, %v", groups, err)
	}
}
