package cluster

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/fsm"
)

// TestRequestsGoThroughAThirdNodeWhereALinkIsCut: one of two nodes leads, and both reach the third.
// The other one takes records, reads them, waits for them and tells the end, now and when its
// replica knows of no leader any more.
func TestRequestsGoThroughAThirdNodeWhereALinkIsCut(t *testing.T) {
	inBubble(t, testRequestsGoThroughAThirdNodeWhereALinkIsCut)
}

func testRequestsGoThroughAThirdNodeWhereALinkIsCut(t *testing.T) {
	c := newTestCluster(t, 3)
	for _, n := range c.nodes {
		n.cfg.HeartbeatTimeout = 3 * time.Second // it is to forget its leader soon
		n.cfg.NoAutoBalance = true
	}
	c.startAll()
	c.allKnow()
	id := fsm.PartitionID{Topic: c.topic("through", 1, 3).ID}
	c.mustAppend(0, id, "before")
	leader := c.leaderOf(id)
	other := (leader + 1) % 3
	n := c.nodes[other]
	c.net.pair(leader, other, true)

	var want []string
	serves := func(value string) {
		t.Helper()
		end := c.mustAppend(other, id, value) + 1
		want = append(want, value)
		offsets, err := n.ListOffsets(within(t), id, -1, 1)
		if err != nil || offsets[0] != end {
			t.Fatalf("the end is %v, %v; want %d", offsets, err, end)
		}
		if err := n.Await(within(t), id, end-1, fsm.ReadUncommitted); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is read", func() error {
			slice, err := n.Read(within(t), id, end-1, 1<<20, fsm.ReadUncommitted)
			if err == nil && len(slice.Batches) == 0 {
				err = errors.New("nothing")
			}
			return err
		})
	}
	serves("while the replica still knows its leader")
	eventually(t, "its replica knows of no leader", func() error {
		if h, _ := n.replica(id).Leader(); h.Identity != "" {
			return fmt.Errorf("it knows %s", h.Identity)
		}
		return nil
	})
	serves("while it knows none")
	if now := c.leaderOf(id); now != leader {
		t.Errorf("node %d leads, which was not to change", now+1)
	}
	if elsewhere, err := n.Serving(); elsewhere || err != nil {
		t.Errorf("a node that reaches a majority says %v, %v", elsewhere, err)
	}
	c.net.pair(leader, other, false)
	c.wantEverywhere(id, append([]string{"before"}, want...))
}

// TestANodeThatIsCutOffSaysSo: others may serve its clients. One that is left over says so as well,
// but that nobody does.
func TestANodeThatIsCutOffSaysSo(t *testing.T) { inBubble(t, testANodeThatIsCutOffSaysSo) }

func testANodeThatIsCutOffSaysSo(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	said := func(what string, node int, wantElsewhere bool, wantErr bool) {
		t.Helper()
		eventually(t, what, func() error {
			elsewhere, err := c.nodes[node].Serving()
			if elsewhere != wantElsewhere || (err != nil) != wantErr {
				return fmt.Errorf("node %d says %v, %v", node+1, elsewhere, err)
			}
			if ready := c.nodes[node].Ready(); wantErr && ready == nil {
				return errors.New("it is ready")
			}
			return nil
		})
	}
	said("all serve", 0, false, false)
	c.net.isolate(0, 3, true)
	said("cut off", 0, true, true)
	said("of the majority", 1, false, false)
	c.net.isolate(0, 3, false)
	said("back", 0, false, false)
	c.kill(1)
	said("one is dead", 0, false, false)
	c.kill(2)
	said("both others are dead", 0, false, true)
}

// TestACallIsRelayedOnce: a node hands on what clients ask and nothing else, and never to a further
// node.
func TestACallIsRelayedOnce(t *testing.T) { inBubble(t, testACallIsRelayedOnce) }

func testACallIsRelayedOnce(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.allKnow()
	n := c.nodes[0]
	for _, call := range []calls.Row{calls.Relay.Row, calls.Who.Row, calls.Leave.Row, calls.Stand.Row, calls.Survey.Row,
		calls.Full.Row, calls.Join.Row, calls.Form.Row, calls.Member.Row, calls.Entries.Row} {
		payload, _ := calls.Relay.Payload(calls.RelayRequest{Kind: call.Kind, Identity: c.nodes[1].identity})
		if _, err := n.server.Answer(context.Background(), c.nodes[2].identity, calls.Relay.Kind, payload); !errors.Is(err, calls.ErrMalformed) {
			t.Errorf("%s: %v", call.Name, err)
		}
	}
}
