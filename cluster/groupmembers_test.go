package cluster

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/outcome"
)

// join asks to join a group as a consumer of topics would.
func join(ctx context.Context, n *Node, group, member string) (*kmsg.JoinGroupResponse, error) {
	resp, err := n.Coordinate(ctx, coordinator.ShardOf(group), coordinator.Client{ID: "test", Host: "/127.0.0.1", Version: 3}, groupRequest(func(req *kmsg.JoinGroupRequest) {
		req.Group, req.MemberID, req.ProtocolType = group, member, "consumer"
		req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 300_000, 300_000
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
		synced := resp.(*kmsg.SyncGroupResponse)
		if err := kerr.ErrorForCode(synced.ErrorCode); err != nil {
			return err
		}
		if string(synced.MemberAssignment) != "for "+id {
			c.t.Errorf("%s was assigned %q", id, synced.MemberAssignment)
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
func TestAPlannedStopHandsMembersOver(t *testing.T) { inBubble(t, testAPlannedStopHandsMembersOver) }

func testAPlannedStopHandsMembersOver(t *testing.T) {
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
func TestAWaitEndsWithTheLeadersNode(t *testing.T) { inBubble(t, testAWaitEndsWithTheLeadersNode) }

func testAWaitEndsWithTheLeadersNode(t *testing.T) {
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
		if err := <-failed; err == nil || outcome.NotAppended(err) {
			t.Fatalf("a join that waited: %v", err)
		}
	}
	// Its member is known to the next coordinator.
	eventually(t, "the member's heartbeat", func() error {
		return heartbeat(within(t), c.nodes[other].Node, group, id, generation)
	})
}
