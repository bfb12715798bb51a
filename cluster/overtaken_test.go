package cluster

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/trimaran-io/trimaran/fsm"
)

// Leadership moves while a follower copies from the leader, at each step of the copy. The next
// leader still has all that the follower lacks, feeds it, and its majority is the two of them:
// whatever was acknowledged then is there when the new leader dies.
func TestLeadershipMovesDuringACopy(t *testing.T) {
	for _, step := range []string{"piece", "all", "finished"} {
		runInBubble(t, step, func(t *testing.T) { leadershipMovesDuringACopy(t, step) })
	}
}

func leadershipMovesDuringACopy(t *testing.T, step string) {
	c := newTestCluster(t, 3)
	reached, goOn := make(chan fsm.PartitionID, 1), make(chan struct{})
	var once sync.Once
	release := sync.OnceFunc(func() { close(goOn) })
	for _, node := range c.nodes {
		node.cfg.onCopy = func(id fsm.PartitionID, at string) {
			if at == step && id.Topic != fsm.GroupShardsID {
				once.Do(func() {
					reached <- id
					<-goOn
				})
			}
		}
	}
	t.Cleanup(release) // before the nodes end
	// Only the first node takes snapshots: the others keep all for Raft.
	c.nodes[0].cfg.TopicDefaults = map[string]string{"segment.bytes": "20000"}
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	want := c.fill(0, id, "before", 10)
	lead := func(to int) {
		t.Helper()
		eventually(t, fmt.Sprintf("node %d leads", to+1), func() error {
			from := c.leaderOf(id)
			if from == to {
				return nil
			}
			n := c.nodes[from]
			if err := n.handOverTo(n.replica(id).group, func(identity string) bool { return identity == c.nodes[to].identity }); err != nil {
				return err
			}
			return errors.New("not yet")
		})
	}
	lead(0)
	const next, away = 1, 2
	c.kill(away)
	want = append(want, c.fill(0, id, "meanwhile", 100)...)
	c.outOfWindow([]int{0}, id, 40)
	c.net.pair(next, away, true)
	c.start(away)
	select {
	case <-reached:
	case <-within(t).Done():
		t.Fatalf("no copy came to step %q", step)
	}
	c.net.pair(next, away, false)
	lead(next)
	r := c.nodes[away].records(id)
	eventually(t, "the new leader feeds the follower", func() error {
		if _, end := r.bounds(); end < fsm.Offset(len(want)) {
			return fmt.Errorf("it has %d records", end)
		}
		return nil
	})
	c.net.pair(0, next, true)
	c.net.pair(0, away, true)
	want = append(want, c.fill(next, id, "afterwards", 30)...)
	c.net.pair(0, away, false)
	release()
	eventually(t, "the copy is over", func() error {
		now := c.nodes[away].records(id)
		if now == nil {
			return errors.New("it is opened again")
		}
		if r.catchUp.status() != nil || step == "finished" && now == r {
			return errors.New("it goes on")
		}
		return nil
	})
	c.kill(next)
	c.mustAppend(away, id, "the last one")
	want = append(want, "the last one")
	c.wantEverywhere(id, want)
	c.start(next)
	c.net.pair(0, next, false)
	c.rebuilt(next, id, fsm.Offset(len(want)))
}
