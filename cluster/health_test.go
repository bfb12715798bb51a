package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
)

// watched is a cluster whose nodes have metrics.
type watched struct {
	*testCluster
	registries []*prometheus.Registry
	shards     int // of consumer groups that are asked
}

func newWatched(t *testing.T, n int) *watched {
	w := &watched{testCluster: newTestCluster(t, n)}
	for range n {
		w.observe()
	}
	return w
}

// observe gives the next node metrics.
func (w *watched) observe() {
	r := prometheus.NewRegistry()
	w.nodes[len(w.registries)].cfg.Registry = r
	w.nodes[len(w.registries)].cfg.NoAutoBalance = true
	w.registries = append(w.registries, r)
}

func (w *watched) gauge(i int, name string) (float64, error) {
	families, err := w.registries[i].Gather()
	if err != nil {
		return 0, err
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.Metric[0].GetGauge().GetValue(), nil
		}
	}
	return 0, fmt.Errorf("node %d has no metric %s", i+1, name)
}

// sees is what a client is served through a node: how many of each kind of group are not.
type sees struct{ partitions, shards, catalog int }

// ask uses every partition, every shard and the catalog through a node.
func (w *watched) ask(i int) (failed, all sees) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	n := w.nodes[i].Node
	var mu sync.Mutex
	var wg sync.WaitGroup
	try := func(count, of *int, use func() error) {
		*of++
		wg.Go(func() {
			if err := use(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				*count++
			}
		})
	}
	for _, topic := range n.Topics().All() {
		for p := range topic.Partitions {
			try(&failed.partitions, &all.partitions, func() error {
				_, err := n.Append(ctx, fsm.PartitionID{Topic: topic.ID, Partition: int32(p)}, batchList{prototest.Batch("x")})
				return err
			})
		}
	}
	for s := range w.shards {
		try(&failed.shards, &all.shards, func() error {
			_, err := n.Coordinate(ctx, s, testClient, commitOf(fmt.Sprint("g", s), "everywhere", 1))
			return err
		})
	}
	try(&failed.catalog, &all.catalog, func() error { return n.catalog.CatchUp(ctx) })
	wg.Wait()
	return failed, all
}

// agree waits until the metrics and the readiness of every node that runs are what a client sees
// through it; and those that lead count as many groups with a voter away as under says, nil for any
// number.
func (w *watched) agree(what string, under *sees, cutOff ...int) {
	w.t.Helper()
	eventually(w.t, what, func() error {
		for i, node := range w.nodes {
			if !node.running {
				continue
			}
			failed, all := w.ask(i)
			said := sees{}
			for name, to := range map[string]*int{
				"trimaran_offline_partitions_count": &said.partitions, "trimaran_offline_group_shards_count": &said.shards,
				"trimaran_offline_catalog_count": &said.catalog,
			} {
				v, err := w.gauge(i, name)
				if err != nil {
					return err
				}
				*to = int(v)
			}
			if said != failed {
				return fmt.Errorf("node %d says that %+v are offline, and through it %+v are", i+1, said, failed)
			}
			err := node.Ready()
			if failed == (sees{}) && err != nil {
				return fmt.Errorf("everything is served through node %d, and it says %w", i+1, err)
			}
			if failed == all && err == nil {
				return fmt.Errorf("nothing is served through node %d, and it is ready", i+1)
			}
		}
		for _, i := range cutOff {
			if err := w.nodes[i].Ready(); err == nil {
				return fmt.Errorf("node %d is cut off, and ready", i+1)
			}
		}
		if under == nil {
			return nil
		}
		counted := sees{}
		for i, node := range w.nodes {
			if !node.running {
				continue
			}
			for name, to := range map[string]*int{
				"trimaran_under_replicated_partitions": &counted.partitions, "trimaran_under_replicated_group_shards": &counted.shards,
				"trimaran_under_replicated_catalog": &counted.catalog,
			} {
				v, err := w.gauge(i, name)
				if err != nil {
					return err
				}
				*to += int(v)
			}
		}
		if counted != *under {
			return fmt.Errorf("%+v are under-replicated, want %+v", counted, *under)
		}
		return nil
	})
}

// TestMetricsAndReadinessTellWhatClientsSee holds what monitoring is told against what is served,
// through faults.
func TestMetricsAndReadinessTellWhatClientsSee(t *testing.T) {
	inBubble(t, testMetricsAndReadinessTellWhatClientsSee)
}

func testMetricsAndReadinessTellWhatClientsSee(t *testing.T) {
	w := newWatched(t, 3)
	w.shards = coordinator.Shards
	w.startAll()
	w.topic("everywhere", 3, 3)
	w.topic("single", 3, 1) // one on each node
	well, oneAway := &sees{}, &sees{partitions: 3, shards: coordinator.Shards, catalog: 1}
	w.agree("all is well", well)

	w.kills(0, 1, 2, oneAway)
	w.net.isolate(0, len(w.nodes), true)
	w.agree("one is cut off", nil, 0)
	w.net.isolate(0, len(w.nodes), false)
	w.agree("it is not any more", well)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	w.nodes[1].running = false
	if err := w.nodes[1].Shutdown(ctx); err != nil {
		t.Error(err)
	}
	w.agree("one is stopped", oneAway)
	w.start(1)
	w.ready()
	w.agree("it is started", well)
}

// kills one node, and then another, of three.
func (w *watched) kills(a, b, c int, oneAway *sees) {
	w.t.Helper()
	w.kill(c)
	w.agree("one is killed", oneAway)
	w.kill(b)
	eventually(w.t, "they are missed", func() error {
		if n := w.nodes[a].Node; n.connected(w.nodes[b].identity) || n.connected(w.nodes[c].identity) {
			return errors.New("not yet")
		}
		return nil
	})
	// At once, and not when Raft's timers have run out.
	if v, err := w.gauge(a, "trimaran_offline_catalog_count"); err != nil || v != 1 {
		w.t.Errorf("the catalog has no majority, and %v of it is offline: %v", v, err)
	}
	if err := w.nodes[a].Ready(); err == nil {
		w.t.Error("nobody else is there, and the node is ready")
	}
	w.agree("two are killed", nil, a)
	w.start(b)
	w.start(c)
	w.ready()
	w.agree("all are back", &sees{})
}

// TestMetricsTellWhatClientsSeeWhenAllNodesWereReplaced: none is left that the groups were formed
// with.
func TestMetricsTellWhatClientsSeeWhenAllNodesWereReplaced(t *testing.T) {
	inBubble(t, testMetricsTellWhatClientsSeeWhenAllNodesWereReplaced)
}

func testMetricsTellWhatClientsSeeWhenAllNodesWereReplaced(t *testing.T) {
	w := newWatched(t, 3)
	w.startAll()
	w.topic("everywhere", 2, 3)
	for old := range 3 {
		next := w.add(0)
		w.observe()
		w.start(next)
		w.ready()
		w.administer(next, admin.Request{Op: admin.OpReplace, Node: w.nodes[old].NodeID(), Successor: w.nodes[next].NodeID()})
		w.ends(old)
	}
	w.agree("all are replaced", &sees{})
	w.kills(3, 4, 5, &sees{partitions: 2, catalog: 1})
}

// TestADeadVoterThatLeavesCounts: until it is out of the group, what is left of it is one death
// from nothing.
func TestADeadVoterThatLeavesCounts(t *testing.T) { inBubble(t, testADeadVoterThatLeavesCounts) }

func testADeadVoterThatLeavesCounts(t *testing.T) {
	w := newWatched(t, 3)
	w.startAll()
	w.allKnow()
	id := fsm.PartitionID{Topic: w.topic("leaving", 1, 3).ID}
	leader := w.leaderOf(id)
	dead := (leader + 1) % 3
	w.kill(dead)
	n := w.nodes[leader].Node
	r := n.replica(id)
	eventually(t, "the leader misses it", func() error {
		p, _ := n.Topics().Partition(id)
		rest := *p
		rest.Replicas, rest.Leaving = nil, []fsm.NodeID{w.nodes[dead].NodeID()}
		for _, node := range p.Replicas {
			if node != w.nodes[dead].NodeID() {
				rest.Replicas = append(rest.Replicas, node)
			}
		}
		if !n.health.UnderReplicated(n.Topics(), &rest, seenMember{r.Member}) {
			return errors.New("all who shall hold it vote, and the one that leaves does not count")
		}
		return nil
	})
}
