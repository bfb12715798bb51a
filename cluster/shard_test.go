package cluster

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
)

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
				commit := func() error {
					return tryCommit(within(c.t), leader, siblings(group, workers)[w], "a", slices.Repeat([]int64{int64(i + 1)}, offsetsEach)...)
				}
				err := commit()
				for n := 0; errors.Is(err, kerr.NotCoordinator) && n < 3000; n++ {
					// a busy machine: another node leads for a while
					time.Sleep(10 * time.Millisecond)
					err = commit()
				}
				if err != nil {
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

func bytesOf(t *testing.T, dir folder) (sum int64) {
	t.Helper()
	files, err := dir.disk.List(dir.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		sum += f.Size
	}
	return sum
}

// The log of a shard stays small however much is committed, since snapshots stand
// for it; a node that starts from one, and one that was away meanwhile and one that
// has nothing get everything.
func TestALogOfCommitsStaysSmall(t *testing.T) { inBubble(t, testALogOfCommitsStaysSmall) }

func testALogOfCommitsStaysSmall(t *testing.T) {
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
	entries := c.nodes[leader].replica(id).Member.Raft.LastIndex()
	t.Logf("%d commits of %d offsets in %d entries, %v", workers*each, offsetsEach, entries, took)
	if entries > uint64(workers*each/2) {
		t.Errorf("%d commits took %d entries: too few share one", workers*each, entries)
	}
	const most = 4 << 20 // four segments of tests
	for _, i := range []int{leader, there} {
		dir := c.nodes[i].folder(id)
		eventually(t, "a small log", func() error {
			if size := bytesOf(t, dir); size > most {
				return fmt.Errorf("node %d: %d bytes", i+1, size)
			}
			if first := c.nodes[i].replica(id).Log.Segments()[0].Base; first == 1 {
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
			if _, next := s.Bounds(); next != mustBounds(c.nodes[there].shard(id)) {
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
	n.replicas.Damaged(hurt, fmt.Errorf("%w: by the test", raftlog.ErrDamaged))
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

func mustBounds(s *replica.Shard) fsm.Offset {
	_, next := s.Bounds()
	return next
}

func stateOf(s *replica.Shard) string {
	return string(s.State())
}

// The files of a stopped node are checked as those of partitions are.
func TestLogDirKnowsShards(t *testing.T) { inBubble(t, testLogDirKnowsShards) }

func testLogDirKnowsShards(t *testing.T) {
	c := newTestCluster(t, 1)
	c.onDisk()
	c.startAll()
	c.topic("a", 1, 1)
	for i := range 50 {
		c.commit(0, "g", "a", int64(i))
	}
	id := shardID(coordinator.ShardOf("g"))
	if err := c.nodes[0].replica(id).Member.Raft.Snapshot().Error(); err != nil {
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
