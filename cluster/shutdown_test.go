package cluster

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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

func TestInTurns(t *testing.T) {
	const turn = 50 * time.Millisecond
	items := make([]int, 100)
	for i := range items {
		items[i] = i
	}
	for _, test := range []struct {
		name      string
		hang      int // so many of the first do not end
		ends      time.Duration
		took      time.Duration
		most      int32 // at once
		completed int32
	}{
		{"eight at a time", 0, time.Hour, 130 * time.Millisecond, 8, 100},
		{"those that hang keep others for a turn", 16, time.Second, time.Second, 8 + 16, 84},
		{"an end in the middle", 0, 65 * time.Millisecond, 65 * time.Millisecond, 8, 48},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), test.ends)
				defer cancel()
				over := make(chan struct{})
				defer time.Sleep(time.Second) // virtual: what is still under way ends
				defer close(over)
				var running, most, completed atomic.Int32
				began := time.Now()
				inTurns(ctx, 8, turn, items, func(i int) {
					most.Store(max(most.Load(), running.Add(1)))
					defer running.Add(-1)
					if i < test.hang {
						<-over
						return
					}
					time.Sleep(10 * time.Millisecond)
					completed.Add(1)
				})
				if took := time.Since(began); took != test.took || completed.Load() != test.completed || most.Load() > test.most {
					t.Errorf("%s, %d done, %d at once; want %s, %d, at most %d", took, completed.Load(), most.Load(), test.took, test.completed, test.most)
				}
			})
		})
	}
}

// beforeBarrier asks a leader for something while it seems not to be past its barrier, and then, if pass, lets it pass. It
// gives what was answered, and whether that had waited for the barrier.
func beforeBarrier(t *testing.T, r *replica, pass bool, kind uint8, payload []byte) (waited bool, err error) {
	ctx := hold(within(t))
	r.mu.Lock()
	leading := r.leading
	r.leading = nil
	r.mu.Unlock()
	restore := func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.leading = leading
		close(r.changed)
		r.changed = make(chan struct{})
	}
	answered := make(chan error, 1)
	go func() {
		_, err := r.node.answer(ctx, "another", kind, payload)
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

// Other nodes hear of a leader before it has passed its barrier. What they ask of it waits that long, and not for ever.
func TestACallWaitsForTheBarrier(t *testing.T) { inBubble(t, testACallWaitsForTheBarrier) }

func testACallWaitsForTheBarrier(t *testing.T) {
	c := newTestCluster(t, 3)
	for _, node := range c.nodes {
		node.cfg.NoAutoBalance = true
	}
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	r := c.nodes[c.leaderOf(id)].replica(id)
	read := append(appendPartition(nil, id), make([]byte, 12)...)
	for _, pass := range []bool{true, false} {
		eventually(t, "a call that waits", func() error {
			waited, err := beforeBarrier(t, r, pass, callRead, read)
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
