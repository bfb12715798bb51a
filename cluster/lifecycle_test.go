package cluster

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// lifecycle is a cluster whose partitions are filled, emptied by retention and by hand, and whose
// nodes come and go meanwhile, in an order that a seed gives.
type lifecycle struct {
	*testCluster
	random *rand.Rand
	ids    []fsm.PartitionID
	acked  []map[fsm.Offset]string // by partition
	steps  []string
}

// TestRetentionAndRestartsInAnyOrder: whatever state retention has left a partition in, it comes up
// again, goes on, and has what was acknowledged and is not too old. LIFECYCLE_SEED=n and
// LIFECYCLE_STEPS=n try others.
func TestRetentionAndRestartsInAnyOrder(t *testing.T) {
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		}
		return otherwise
	}
	seed := number("LIFECYCLE_SEED", 1)
	for i := range 2 {
		runInBubble(t, fmt.Sprint("seed ", seed+i), func(t *testing.T) {
			runLifecycle(t, uint64(seed+i), number("LIFECYCLE_STEPS", 12))
		})
	}
}

func runLifecycle(t *testing.T, seed uint64, steps int) {
	c := &lifecycle{testCluster: newTestCluster(t, 3), random: rand.New(rand.NewPCG(seed, 9))}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("LIFECYCLE_SEED=%d: %s", seed, strings.Join(c.steps, ", "))
		}
	})
	small(c.testCluster, map[string]string{"segment.bytes": "4000", "retention.ms": "600"})
	c.startAll()
	topic := c.topic("short", 3, 3)
	for p := range int32(3) {
		c.ids = append(c.ids, fsm.PartitionID{Topic: topic.ID, Partition: p})
	}
	c.acked = make([]map[fsm.Offset]string, len(c.ids))
	for p := range c.acked {
		c.acked[p] = map[fsm.Offset]string{}
	}
	for range steps {
		c.step()
	}
	for i := range c.nodes {
		if !c.nodes[i].running {
			c.start(i)
		}
	}
	c.ready()
	for p := range c.ids {
		c.write(p, 1)
	}
	c.compare()
}

func (c *lifecycle) note(format string, args ...any) {
	c.steps = append(c.steps, fmt.Sprintf(format, args...))
}

// running gives the nodes that run.
func (c *lifecycle) running() (up []int) {
	for i, n := range c.nodes {
		if n.running {
			up = append(up, i)
		}
	}
	return up
}

func (c *lifecycle) step() {
	p := c.random.IntN(len(c.ids))
	switch c.random.IntN(8) {
	case 0, 1:
		c.write(p, 1+c.random.IntN(25))
	case 2:
		c.deleteSome(p)
	case 3:
		c.emptied(p)
	case 4, 5: // one goes, or comes back
		if up := c.running(); len(up) == 3 {
			i := c.random.IntN(3)
			c.note("kill node %d", i+1)
			c.kill(i)
		} else {
			c.comeBack()
		}
	case 6: // the one that was away and one of the others are left
		up := c.running()
		if len(up) == 3 {
			c.note("kill node %d", up[0]+1)
			c.kill(up[0])
			c.write(p, 5)
			c.emptied(p)
			up = up[1:]
		}
		i := up[c.random.IntN(len(up))]
		c.note("kill node %d", i+1)
		c.kill(i)
		c.comeBackBut(i)
	case 7:
		c.note("restart all")
		for i := range c.nodes {
			c.kill(i)
		}
		for _, i := range c.random.Perm(3) {
			c.start(i)
		}
	}
	if len(c.running()) >= 2 {
		c.write(c.random.IntN(len(c.ids)), 1)
	}
}

func (c *lifecycle) comeBack() { c.comeBackBut(-1) }

func (c *lifecycle) comeBackBut(away int) {
	for i := range c.nodes {
		if !c.nodes[i].running && i != away {
			c.note("start node %d", i+1)
			c.start(i)
		}
	}
}

// write appends through any node until it is acknowledged.
func (c *lifecycle) write(p, n int) {
	c.t.Helper()
	c.note("write %d to %d", n, p)
	up := c.running()
	for i := range n {
		value := fmt.Sprintf("%d of partition %d %0500d", len(c.acked[p]), p, i)
		eventually(c.t, fmt.Sprintf("append to %v", c.ids[p]), func() error {
			appended, err := c.append(up[c.random.IntN(len(up))], c.ids[p], value)
			if err == nil {
				c.acked[p][appended[0].BaseOffset] = value
			}
			return err // a value may be there twice, where an answer was lost
		})
	}
}

// deleteSome deletes records by hand, sometimes all.
func (c *lifecycle) deleteSome(p int) {
	c.t.Helper()
	up := c.running()
	before := fsm.Offset(-1)
	start, next := fsm.Offset(0), fsm.Offset(0)
	for _, i := range up {
		if r := c.nodes[i].records(c.ids[p]); r != nil {
			start, next = r.Bounds()
		}
	}
	if next > start && c.random.IntN(2) == 0 {
		before = start + fsm.Offset(c.random.Int64N(int64(next-start)))
	}
	c.note("delete up to %d of %d", before, p)
	eventually(c.t, "deletion", func() error {
		_, err := c.nodes[up[0]].DeleteRecords(within(c.t), c.ids[p], before)
		if outcome.Code(err) == outcome.ErrOffsetOutOfRange {
			return nil // freed meanwhile
		}
		return err
	})
}

// emptied waits until a partition is empty on all that run, and has but its snapshot.
func (c *lifecycle) emptied(p int) {
	c.t.Helper()
	c.note("wait until %d is empty", p)
	eventually(c.t, fmt.Sprintf("%v is empty", c.ids[p]), func() error {
		for _, i := range c.running() {
			r := c.nodes[i].records(c.ids[p])
			if r == nil {
				return fmt.Errorf("node %d has no replica yet", i+1)
			}
			held := r.Held() // somebody has copied from it
			if start, next := r.Bounds(); start != next || r.Log.Bytes() > 1000 && !held {
				return fmt.Errorf("node %d: %d to %d, snapshot at %d, segments %+v", i+1, start, next, r.Log.SnapshotIndex(), r.Log.Segments())
			}
		}
		return nil
	})
}

// compare looks at what all replicas have at the end.
func (c *lifecycle) compare() {
	c.t.Helper()
	for p, id := range c.ids {
		var want fsm.Offset
		for offset := range c.acked[p] {
			want = max(want, offset+1)
		}
		for i, n := range c.nodes {
			eventually(c.t, fmt.Sprintf("node %d has %v", i+1, id), func() error {
				if r := n.records(id); r == nil {
					return fmt.Errorf("no replica")
				} else if _, next := r.Bounds(); next < want {
					return fmt.Errorf("it ends at %d, want %d", next, want)
				}
				return nil
			})
			r := n.records(id)
			start, end := r.Bounds()
			for from := start; from < end; {
				slice, ok, err := r.ReadHere(from, 1<<20, fsm.ReadUncommitted)
				if err != nil || !ok {
					if now, _ := r.Bounds(); now > from {
						from = now // freed meanwhile
						continue
					}
					c.t.Fatalf("node %d, %v, offset %d: %v, %v", i+1, id, from, ok, err)
				}
				before := from
				for raw, err := range kafkaproto.Batches(slice.Batches) {
					if err != nil {
						c.t.Fatal(err)
					}
					header := raw.Header()
					if value, ok := c.acked[p][fsm.Offset(header.BaseOffset)]; ok && !strings.Contains(string(raw.Bytes()), value) {
						c.t.Errorf("node %d, %v, offset %d: not what was acknowledged", i+1, id, header.BaseOffset)
					}
					from = fsm.Offset(header.NextOffset())
				}
				if from == before {
					c.t.Fatalf("node %d, %v, offset %d: nothing was read", i+1, id, from)
				}
			}
		}
		for _, piece := range checked(c.t, c.any(), id) {
			if piece.DiffersAt != -1 {
				c.t.Errorf("%v: replicas differ: %+v", id, piece)
			}
		}
	}
}
