package cluster

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/fsm"
)

func TestAPlannedStopHandsLeadershipOver(t *testing.T) {
	inBubble(t, testAPlannedStopHandsLeadershipOver)
}

func testAPlannedStopHandsLeadershipOver(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("a", 4, 3)
	leader := c.leaderOf(fsm.PartitionID{Topic: topic.ID})
	other := (leader + 1) % 3
	load := c.load(fsm.PartitionID{Topic: topic.ID}, "load", other)
	load.more(t, 10)
	c.nodes[leader].running = false
	if err := c.nodes[leader].Shutdown(within(t)); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	load.more(t, 10)
	load.check(c, fsm.PartitionID{Topic: topic.ID})
}

// heldContext is held up by its test when its end is first looked for.
type heldContext struct {
	context.Context
	once            sync.Once
	looked, proceed chan struct{}
}

func hold(ctx context.Context) *heldContext {
	return &heldContext{Context: ctx, looked: make(chan struct{}), proceed: make(chan struct{})}
}

func (h *heldContext) look() {
	h.once.Do(func() {
		close(h.looked)
		<-h.proceed
	})
}

// Err implements context.Context.
func (h *heldContext) Err() error {
	h.look()
	return h.Context.Err()
}

// Done implements context.Context.
func (h *heldContext) Done() <-chan struct{} {
	h.look()
	return h.Context.Done()
}

// A node that stops hands over a few groups at a time. The others are served meanwhile.
func TestAGroupIsServedUntilItIsHandedOver(t *testing.T) {
	inBubble(t, testAGroupIsServedUntilItIsHandedOver)
}

func testAGroupIsServedUntilItIsHandedOver(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	leader := c.leaderOf(id)
	other := (leader + 1) % 3
	c.mustAppend(other, id, "before")
	c.nodes[leader].running = false
	ctx := hold(within(t))
	stopped := make(chan error, 1)
	go func() { stopped <- c.nodes[leader].Shutdown(ctx) }()
	<-ctx.looked
	appended, err := c.append(other, id, "before its turn")
	close(ctx.proceed)
	if err != nil || appended[0].BaseOffset != 1 {
		t.Errorf("an append while the node stops: %v, %v", appended, err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if base := c.mustAppend(other, id, "after"); base != 2 {
		t.Errorf("offset %d, want 2", base)
	}
}

// beforeBarrier asks a leader for something while it seems not to be past its barrier, and then, if
// pass, lets it pass. It gives what was answered, and whether that had waited for the barrier.
func beforeBarrier(t *testing.T, n *Node, r *replica.Replica, pass bool, kind uint8, payload []byte) (waited bool, err error) {
	ctx := hold(within(t))
	restore := r.HoldBack()
	answered := make(chan error, 1)
	go func() {
		_, err := n.server.Answer(ctx, "another", kind, payload)
		answered <- err
	}()
	select {
	case <-ctx.looked:
	case err := <-answered:
		restore()
		return false, err
	}
	if pass {
		restore()
		close(ctx.proceed)
		return true, <-answered
	}
	close(ctx.proceed)
	err = <-answered
	restore()
	return true, err
}

// Other nodes hear of a leader before it has passed its barrier. What they ask of it waits that
// long, and not for ever.
func TestACallWaitsForTheBarrier(t *testing.T) { inBubble(t, testACallWaitsForTheBarrier) }

func testACallWaitsForTheBarrier(t *testing.T) {
	c := newTestCluster(t, 3)
	for _, node := range c.nodes {
		node.cfg.NoAutoBalance = true
	}
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	n := c.nodes[c.leaderOf(id)].Node
	r := n.replica(id)
	read, _ := calls.Read.Payload(calls.ReadRequest{Partition: id})
	for _, pass := range []bool{true, false} {
		eventually(t, "a call that waits", func() error {
			waited, err := beforeBarrier(t, n, r, pass, calls.Read.Kind, read)
			var notLeader errNotLeader
			switch {
			case !waited && err == nil:
				return errors.New("Raft had news just then, and the leader passed its barrier again")
			case !waited:
				t.Fatalf("it did not wait: %v", err)
			case pass && err != nil:
				t.Errorf("the barrier is behind it: %v", err)
			case !pass && !errors.As(err, &notLeader):
				t.Errorf("the barrier is not behind it: %v", err)
			}
			return nil
		})
	}
}
