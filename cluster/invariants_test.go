package cluster

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// The log's invariant 8 (docs/architecture.md, "What the log holds to"). Those about
// identities are tested with damage and with wiped nodes.

// The end of a partition is told only by a leader that has applied what the leaders
// before it acknowledged, and that a majority confirmed: whoever is asked while leaders
// die, it never goes back.
func TestInvariant8TheEndNeverGoesBack(t *testing.T) { inBubble(t, testInvariant8TheEndNeverGoesBack) }

func testInvariant8TheEndNeverGoesBack(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	var acknowledged atomic.Int64
	for range 3 {
		victim := c.leaderOf(id)
		asking, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		answers := atomic.Int64{}
		for i := range c.nodes {
			if i == victim {
				continue
			}
			wg.Go(func() {
				for asking.Err() == nil {
					at := acknowledged.Load()
					if end, err := c.nodes[i].ListOffsets(asking, id, -1, 1); err == nil {
						answers.Add(1)
						if int64(end[0]) < at {
							t.Errorf("node %d says that the log ends at %d, %d were acknowledged before", i, end[0], at)
							return
						}
					}
				}
			})
		}
		for range 20 {
			c.mustAppend(victim, id, "v")
			acknowledged.Add(1)
		}
		c.kill(victim)
		before := answers.Load()
		eventually(t, "the others answer", func() error {
			if answers.Load() < before+100 {
				return outcome.ErrNoLeader
			}
			return nil
		})
		stop()
		wg.Wait()
		c.start(victim)
		c.ready()
	}
}
