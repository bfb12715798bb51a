package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/outcome"
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
	return outcome.NotAppended(err) || errors.Is(err, kerr.NotCoordinator) || errors.Is(err, kerr.CoordinatorNotAvailable) ||
		outcome.Code(err) == outcome.ErrUnknownFate
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
	inBubble(t, testCommitsSurviveTheirLeadersAndARestart)
}

func testCommitsSurviveTheirLeadersAndARestart(t *testing.T) {
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

// Offsets of a topic that is deleted count as none, also when there is another of
// its name.
func TestOffsetsOfADeletedTopicCountAsNone(t *testing.T) {
	inBubble(t, testOffsetsOfADeletedTopicCountAsNone)
}

func testOffsetsOfADeletedTopicCountAsNone(t *testing.T) {
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
	inBubble(t, testRequestsForShardsThatAreNotAreRefused)
}

func testRequestsForShardsThatAreNotAreRefused(t *testing.T) {
	c := newTestCluster(t, 1)
	registry := prometheus.NewRegistry()
	c.nodes[0].cfg.Registry = registry
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
	eventually(t, "metrics", func() error {
		families, err := registry.Gather()
		got := map[string]float64{}
		for _, f := range families {
			got[f.GetName()] = f.Metric[0].GetGauge().GetValue()
		}
		if err == nil && (got["trimaran_group_shard_leader_count"] != coordinator.Shards || got["trimaran_group_shard_count"] != coordinator.Shards || got["trimaran_partition_count"] != 0) {
			err = fmt.Errorf("%v", got)
		}
		return err
	})
	id := shardID(0)
	ctx := within(t)
	if _, err := c.any().Append(ctx, id, batchList{prototest.Batch("x")}); outcome.Code(err) != outcome.ErrUnknownTopicOrPartition {
		t.Errorf("append: %v", err)
	}
	if _, err := c.any().Read(ctx, id, 0, 100, fsm.ReadUncommitted); outcome.Code(err) != outcome.ErrUnknownTopicOrPartition {
		t.Errorf("read: %v", err)
	}
	if err := c.any().DeleteTopicByID(ctx, fsm.GroupShardsID); outcome.Code(err) != outcome.ErrUnknownTopicOrPartition {
		t.Errorf("deletion: %v", err)
	}
	for _, kind := range []uint8{calls.Append.Kind, calls.Read.Kind, calls.Await.Kind, calls.ListOffsets.Kind, calls.DeleteRecords.Kind, calls.Producers.Kind, calls.Hash.Kind, calls.OffsetForTime.Kind, calls.EpochEnd.Kind} {
		payload, _ := calls.Hash.Payload(calls.HashRequest{Partition: id}) // the longest
		if kind == calls.Append.Kind {
			payload = payload[:len(payload)-12]
		}
		if _, err := c.any().server.Answer(ctx, "other", kind, payload); err == nil {
			t.Errorf("call %d was answered", kind)
		}
	}
}

// One request finds its way while its shard's leader dies: what is only read is asked
// again by itself.
func TestWhatIsReadIsAskedAgain(t *testing.T) { inBubble(t, testWhatIsReadIsAskedAgain) }

func testWhatIsReadIsAskedAgain(t *testing.T) {
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

// A coordinator on a node that has just started may not know all topics yet. It must say that it
// cannot answer rather than that nothing is committed: consumers begin anew by that.
func TestCommitsAreNotForgottenWhileNodesReturn(t *testing.T) {
	inBubble(t, testCommitsAreNotForgottenWhileNodesReturn)
}

func testCommitsAreNotForgottenWhileNodesReturn(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	for i := range 20 { // the catalog takes a moment to read
		c.topic(fmt.Sprint("other-", i), 1, 3)
	}
	c.topic("a", 1, 3)
	groups := groupNames()
	for i, g := range groups {
		c.commit(i%3, g, "a", 7)
	}
	wrong := make(chan string, 1)
	for round := range 6 {
		victim := round % 3
		c.kill(victim)
		var others []*Node
		for i, n := range c.nodes {
			if i != victim {
				others = append(others, n.Node)
			}
		}
		stop := make(chan struct{})
		var done sync.WaitGroup
		ask := func(n *Node) {
			for k := 0; ; k++ {
				select {
				case <-stop:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				got, err := fetchOffsets(ctx, n, groups[k%len(groups)], "a", 1)
				cancel()
				if err == nil && got[0] != 7 {
					select {
					case wrong <- fmt.Sprintf("group %s: offset %d", groups[k%len(groups)], got[0]):
					default:
					}
				}
			}
		}
		for _, n := range others {
			done.Go(func() { ask(n) })
		}
		n := c.start(victim).Node
		done.Go(func() { ask(n) })
		c.ready()
		for _, g := range groups {
			c.wantCommitted(g, "a", 7)
		}
		close(stop)
		done.Wait()
		select {
		case what := <-wrong:
			t.Fatalf("round %d: %s", round, what)
		default:
		}
	}
}

// A planned move of a shard's leadership is nothing that a client hears of: what the old leader
// refused surely is in no log, and goes to the next one.
func TestCommitsDoNotNoticeAHandOver(t *testing.T) { inBubble(t, testCommitsDoNotNoticeAHandOver) }

func testCommitsDoNotNoticeAHandOver(t *testing.T) {
	c := newTestCluster(t, 3)
	for _, node := range c.nodes {
		node.cfg.NoAutoBalance = true
	}
	c.startAll()
	c.topic("a", 1, 3)
	const group = "readers"
	id := shardID(coordinator.ShardOf(group))
	c.commit(0, group, "a", 0)
	ctx, stop := context.WithCancel(within(t))
	defer stop()
	var committers sync.WaitGroup
	for i := range 8 {
		committers.Go(func() {
			n := c.nodes[i%3].Node
			for offset := int64(0); ctx.Err() == nil; offset++ {
				err := tryCommit(within(t), n, group, "a", offset)
				if err != nil && outcome.Code(err) != outcome.ErrUnknownFate && !errors.Is(err, kerr.CoordinatorNotAvailable) {
					t.Errorf("commit %d at %s: %v", offset, n.nodeID, err)
					return
				}
			}
		})
	}
	for moves := 0; moves < 10; {
		for _, node := range c.nodes {
			if s := node.shard(id); s != nil {
				if _, err := s.Leads(); err == nil && node.handOverTo(s.Member, func(string) bool { return true }) == nil {
					moves++
				}
			}
		}
		eventually(t, "a leader of the shard", func() error {
			return tryCommit(within(t), c.any(), group, "a", 0)
		})
	}
	stop()
	committers.Wait()
}
