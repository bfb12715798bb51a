package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/cluster/status"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/outcome"
)

// flipRunning changes one byte of a value in the segments of a replica that runs.
func flipRunning(t *testing.T, dir folder, value string) {
	t.Helper()
	for _, path := range find(t, dir.disk, dir.path, "*.log") {
		data := contents(t, dir.disk, path)
		at := bytes.Index(data, []byte(value))
		if at < 0 {
			continue
		}
		overwrite(t, dir.disk, path, []byte{data[at] ^ 0x20}, int64(at))
		return
	}
	t.Fatalf("%q is not on the disk as it was written", value)
}

// gaugeOf gives the value of a metric without labels.
func gaugeOf(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// One byte of the only replica is bad. What it is in cannot be read, with an error that says so;
// everything else of the partition can, records are taken, and the operator sees it. Deleting up to
// it ends it.
func TestOneBadByteOfTheOnlyReplicaIsAllThatFails(t *testing.T) {
	inBubble(t, testOneBadByteOfTheOnlyReplicaIsAllThatFails)
}

func testOneBadByteOfTheOnlyReplicaIsAllThatFails(t *testing.T) {
	c := newTestCluster(t, 1)
	registry := prometheus.NewRegistry()
	c.nodes[0].cfg.Registry = registry
	c.startAll()
	node := c.nodes[0].Node
	id := fsm.PartitionID{Topic: c.topic("a", 1, 1).ID}
	const bad = "a value that is easy to find on the disk"
	values := []string{"before", bad, "behind", "the last"}
	for _, value := range values {
		c.mustAppend(0, id, value)
	}
	flipRunning(t, c.nodes[0].folder(id), bad)
	r := node.replica(id)

	read := func(from fsm.Offset) (string, error) {
		slice, err := node.Read(within(t), id, from, 1<<20, fsm.ReadUncommitted)
		return string(slice.Batches), err
	}
	if got, err := read(0); err != nil || !strings.Contains(got, "before") || strings.Contains(got, "behind") {
		t.Errorf("in front of it: %q, %v", got, err)
	}
	if got, err := read(1); outcome.Code(err) != outcome.ErrCorruptMessage || !strings.Contains(err.Error(), "offsets 1 to 1 ") {
		t.Errorf("the bad one: %q, %v", got, err)
	}
	if got, err := read(2); err != nil || !strings.Contains(got, "behind") || !strings.Contains(got, "the last") {
		t.Errorf("behind it: %q, %v", got, err)
	}
	if got, err := read(3); err != nil || !strings.Contains(got, "the last") {
		t.Errorf("further on: %q, %v", got, err)
	}
	c.mustAppend(0, id, "a new one")
	if got, err := read(4); err != nil || !strings.Contains(got, "a new one") {
		t.Errorf("the new one: %q, %v", got, err)
	}
	if offsets, err := node.ListOffsets(within(t), id, -1, 1); err != nil || len(offsets) != 1 || offsets[0] != 5 {
		t.Errorf("the end: %v, %v", offsets, err)
	}
	if n := gaugeOf(t, registry, "trimaran_damaged_replica_count"); n != 1 {
		t.Errorf("the metric is %v", n)
	}
	status, err := node.Status(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if shown := status.Topics[0].Partitions[0].Replicas[0]; shown.Role != "leader" || !strings.Contains(shown.Error, "offsets 1 to 1 cannot be read") {
		t.Errorf("the status shows %+v", shown)
	}
	if node.replica(id) != r {
		t.Error("the replica was closed")
	}
	if low, err := node.DeleteRecords(within(t), id, 2); err != nil || low != 2 {
		t.Fatalf("%d, %v", low, err)
	}
	eventually(t, "nothing is damaged any more", func() error {
		if n := gaugeOf(t, registry, "trimaran_damaged_replica_count"); n != 0 {
			return fmt.Errorf("the metric is %v", n)
		}
		return nil
	})
	if err := node.Shutdown(within(t)); err != nil {
		t.Error(err)
	}
	c.nodes[0].running = false
}

// Many small records share the distance of two points of the index. Wherever one is damaged, the
// others are found, also in segments that are not written to any more.
func TestEveryRecordButTheDamagedOnesIsRead(t *testing.T) {
	inBubble(t, testEveryRecordButTheDamagedOnesIsRead)
}

func testEveryRecordButTheDamagedOnesIsRead(t *testing.T) {
	c := newTestCluster(t, 1)
	small(c, map[string]string{"segment.bytes": "20000"})
	c.startAll()
	node := c.nodes[0].Node
	id := fsm.PartitionID{Topic: c.topic("a", 1, 1).ID}
	var values []string
	for i := range 150 {
		values = append(values, fmt.Sprintf("record %03d %s", i, strings.Repeat("x", i%7*150)))
		c.mustAppend(0, id, values[i])
	}
	damaged := map[int]bool{}
	for _, i := range []int{0, 60, 99, 149} {
		damaged[i] = true
		flipRunning(t, c.nodes[0].folder(id), values[i][:10])
	}
	got := 0
	for i := range values {
		slice, err := node.Read(within(t), id, fsm.Offset(i), 1, fsm.ReadUncommitted)
		switch {
		case err != nil && outcome.Code(err) != outcome.ErrCorruptMessage:
			t.Errorf("record %d: %v", i, err)
		case damaged[i] && err == nil:
			t.Errorf("record %d is damaged, and given out", i)
		case err == nil && !bytes.Contains(slice.Batches, []byte(values[i][:10])):
			t.Errorf("record %d: another was read", i)
		case err == nil:
			got++
		case !damaged[i]:
			t.Errorf("record %d is whole: %v", i, err)
		}
	}
	if got != len(values)-len(damaged) {
		t.Errorf("%d of %d records were read, with %d damaged", got, len(values), len(damaged))
	}
	// Two side by side hide what is between them and the next point of the index, and nothing
	// further on.
	flipRunning(t, c.nodes[0].folder(id), values[1][:10])
	if _, err := node.Read(within(t), id, 0, 1, fsm.ReadUncommitted); outcome.Code(err) != outcome.ErrCorruptMessage {
		t.Errorf("two damaged records: %v", err)
	}
	if _, err := node.Read(within(t), id, 40, 1, fsm.ReadUncommitted); err != nil {
		t.Errorf("a record behind them: %v", err)
	}
}

// Of two replicas the leader has a bad byte. It hands its leadership over, and is rebuilt: closed
// as it was, it would leave a group without a majority.
func TestALeaderOfTwoWithABadByteIsRebuilt(t *testing.T) {
	inBubble(t, testALeaderOfTwoWithABadByteIsRebuilt)
}

func testALeaderOfTwoWithABadByteIsRebuilt(t *testing.T) {
	c := newTestCluster(t, 2)
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 2).ID}
	const bad = "a value that is easy to find on the disk"
	c.mustAppend(0, id, bad)
	c.mustAppend(0, id, "the next one")
	c.everywhere(id, 2)
	leader := c.leaderOf(id)
	r := c.nodes[leader].replica(id)
	flipRunning(t, c.nodes[leader].folder(id), bad)
	c.nodes[leader].records(id).ReadHere(0, 1<<20, fsm.ReadUncommitted)
	eventually(t, "the replica is replaced", func() error {
		if now := c.nodes[leader].replica(id); now == nil || now == r {
			return errors.New("not yet")
		}
		return nil
	})
	c.rebuilt(leader, id, 2)
	c.wantEverywhere(id, []string{bad, "the next one"})
}

// A replica with a bad byte is not closed while the others could not do without it, and rebuilt
// once they can.
func TestABadByteClosesNothingThatIsNeeded(t *testing.T) {
	inBubble(t, testABadByteClosesNothingThatIsNeeded)
}

func testABadByteClosesNothingThatIsNeeded(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	const bad = "a value that is easy to find on the disk"
	c.mustAppend(0, id, bad)
	c.everywhere(id, 1)
	c.mustAppend(0, id, "the next one")
	c.everywhere(id, 2)
	c.kill(2)
	c.leaderOf(id)
	hurt := c.nodes[1]
	r := hurt.replica(id)
	flipRunning(t, hurt.folder(id), bad)
	if _, _, err := hurt.records(id).ReadHere(0, 1<<20, fsm.ReadUncommitted); err == nil {
		t.Error("a damaged record was read")
	}
	for range 20 {
		c.mustAppend(0, id, "goes on")
	}
	if hurt.replica(id) != r {
		t.Fatal("the replica was closed while it was needed")
	}
	c.start(2)
	c.rebuilt(2, id, 22)
	eventually(t, "the replica is replaced", func() error {
		if now := hurt.replica(id); now == nil || now == r {
			return errors.New("not yet")
		}
		return nil
	})
	c.rebuilt(1, id, 22)
}

// Whatever state a replica is in, every call returns within its context.
func TestEveryCallReturnsInEveryState(t *testing.T) {
	const bad = "a value that is easy to find on the disk"
	states := []struct {
		name  string
		nodes int
		enter func(t *testing.T, c *testCluster, id fsm.PartitionID)
	}{
		{"open", 1, func(*testing.T, *testCluster, fsm.PartitionID) {}},
		{"without a leader", 2, func(t *testing.T, c *testCluster, id fsm.PartitionID) { c.kill(1) }},
		{"something damaged", 1, func(t *testing.T, c *testCluster, id fsm.PartitionID) {
			flipRunning(t, c.nodes[0].folder(id), bad)
		}},
		{"broken when it is opened", 1, func(t *testing.T, c *testCluster, id fsm.PartitionID) {
			dir := c.nodes[0].folder(id)
			c.kill(0)
			flip(t, dir, bad)
			c.start(0)
			eventually(t, "it cannot be opened", func() error { return c.wantBroken(0, id) })
		}},
		{"gone when it is opened", 1, func(t *testing.T, c *testCluster, id fsm.PartitionID) {
			dir := c.nodes[0].folder(id)
			c.kill(0)
			if err := dir.disk.RemoveAll(dir.path); err != nil {
				t.Fatal(err)
			}
			c.start(0)
			eventually(t, "it cannot be opened", func() error { return c.wantBroken(0, id) })
		}},
		{"Raft cannot go on", 1, func(t *testing.T, c *testCluster, id fsm.PartitionID) {
			n := c.nodes[0]
			n.replicas.Damaged(n.replica(id), raftgroup.LostError{Group: id.String()})
			eventually(t, "it is closed", func() error { return c.wantBroken(0, id) })
		}},
		{"being rebuilt", 2, func(t *testing.T, c *testCluster, id fsm.PartitionID) {
			n := c.nodes[0]
			c.kill(1)
			n.replicas.Damaged(n.replica(id), raftgroup.LostError{Group: id.String()})
			eventually(t, "it is closed", func() error { return c.wantBroken(0, id) })
		}},
		{"being opened again", 1, func(t *testing.T, c *testCluster, id fsm.PartitionID) {
			n := c.nodes[0]
			if err := n.replicas.Detach(id).Close(); err != nil {
				t.Fatal(err)
			}
		}},
		{"deleted", 1, func(t *testing.T, c *testCluster, id fsm.PartitionID) {
			if err := c.nodes[0].DeleteTopic(within(t), "a"); err != nil {
				t.Fatal(err)
			}
		}},
		{"the node is stopping", 1, func(t *testing.T, c *testCluster, id fsm.PartitionID) { c.nodes[0].cancel() }},
		{"the node is stopped", 1, func(t *testing.T, c *testCluster, id fsm.PartitionID) { c.kill(0) }},
	}
	for _, state := range states {
		runInBubble(t, state.name, func(t *testing.T) {
			c := newTestCluster(t, state.nodes)
			c.startAll()
			id := fsm.PartitionID{Topic: c.topic("a", 1, int16(state.nodes)).ID}
			for _, value := range []string{"the first", bad, "the last"} {
				c.mustAppend(0, id, value)
			}
			c.everywhere(id, 3)
			state.enter(t, c, id)
			for name, call := range callsOf(c.nodes[0].Node, id) {
				ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
				done := make(chan error, 1)
				go func() { done <- call(ctx) }()
				select {
				case err := <-done:
					t.Logf("%s: %v", name, err)
				case <-within(t).Done():
					t.Errorf("%s does not return", name)
				}
				cancel()
			}
			if c.nodes[0].running {
				c.nodes[0].running = false
				stopped := make(chan error, 1)
				go func() { stopped <- c.nodes[0].Shutdown(within(t)) }()
				select {
				case <-stopped:
				case <-within(t).Done():
					t.Error("the node does not stop")
				}
			}
		})
	}
}

// wantBroken says that a replica runs or is not known to be broken.
func (c *testCluster) wantBroken(node int, id fsm.PartitionID) error {
	replicas := c.nodes[node].replicas
	if r, broken := replicas.Look(id); broken == nil || r != nil || replicas.IsBusy(id) {
		return errors.New("not yet")
	}
	return nil
}

// callsOf are the calls of a node that concern a partition, or may wait for its replica.
func callsOf(n *Node, id fsm.PartitionID) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Append": func(ctx context.Context) error {
			_, err := n.Append(ctx, id, batchList{prototest.Batch("x")})
			return err
		},
		"Read the first": func(ctx context.Context) error { _, err := n.Read(ctx, id, 0, 1<<20, fsm.ReadUncommitted); return err },
		"Read":           func(ctx context.Context) error { _, err := n.Read(ctx, id, 1, 1<<20, fsm.ReadUncommitted); return err },
		"Read the end":   func(ctx context.Context) error { _, err := n.Read(ctx, id, 3, 1<<20, fsm.ReadUncommitted); return err },
		"Read too far": func(ctx context.Context) error {
			_, err := n.Read(ctx, id, 1000, 1<<20, fsm.ReadUncommitted)
			return err
		},
		"Await":       func(ctx context.Context) error { return n.Await(ctx, id, 1000, fsm.ReadUncommitted) },
		"ListOffsets": func(ctx context.Context) error { _, err := n.ListOffsets(ctx, id, -1, 1); return err },
		"OffsetForTime": func(ctx context.Context) error {
			_, _, _, _, err := n.OffsetForTime(ctx, id, 1)
			return err
		},
		"OffsetForTime of the newest": func(ctx context.Context) error {
			_, _, _, _, err := n.OffsetForTime(ctx, id, replica.MaxTimestamp)
			return err
		},
		"EpochEnd":      func(ctx context.Context) error { _, _, err := n.EpochEnd(ctx, id, 0); return err },
		"LeaderEpoch":   func(context.Context) error { n.LeaderEpoch(id); return nil },
		"DeleteRecords": func(ctx context.Context) error { _, err := n.DeleteRecords(ctx, id, 1); return err },
		"Producers":     func(ctx context.Context) error { _, err := n.Producers(ctx, id); return err },
		"CheckReplicas": func(ctx context.Context) error { _, err := n.CheckReplicas(ctx, id, 0); return err },
		"Status":        func(ctx context.Context) error { _, err := n.Status(ctx); return err },
		"Ready":         func(context.Context) error { return n.Ready() },
		"WaitReady":     func(ctx context.Context) error { return n.WaitReady(ctx) },
		"Gateways":      func(context.Context) error { n.Gateways(); return nil },
		"AlterConfigs": func(ctx context.Context) error {
			return n.AlterConfigs(ctx, fsm.AlterConfigs{Topic: id.Topic, Replace: true}, false)
		},
		"AlterACLs": func(ctx context.Context) error {
			_, err := n.AlterACLs(ctx, nil, nil)
			return err
		},
		"AlterCredentials": func(ctx context.Context) error { return n.AlterCredentials(ctx, fsm.AlterCredentials{}) },
		"CatalogChanged":   func(context.Context) error { n.CatalogChanged(); return nil },
		"CreatePartitions": func(ctx context.Context) error { return n.CreatePartitions(ctx, id.Topic, 2, false) },
		"CreateTopic": func(ctx context.Context) error {
			return n.CreateTopic(ctx, fsm.TopicSpec{Name: "b", Partitions: 1, ReplicationFactor: 1}, false)
		},
		"NewProducerID": func(ctx context.Context) error { _, err := n.NewProducerID(ctx); return err },
		"Administer": func(ctx context.Context) error {
			return n.Administer(ctx, admin.Request{Op: admin.OpReplicationFactor, Topic: "a", Factor: 1})
		},
		"Coordinate": func(ctx context.Context) error {
			req := kmsg.NewPtrListGroupsRequest()
			version, _ := coordinator.Version(req.Key())
			req.SetVersion(version)
			_, err := n.Coordinate(ctx, 0, coordinator.Client{}, req)
			return err
		},
		"collect metrics": func(context.Context) error {
			metrics := make(chan prometheus.Metric)
			go func() { status.Collector{Health: n.health}.Collect(metrics); close(metrics) }()
			for range metrics {
			}
			return nil
		},
		"DeleteTopicByID of none": func(ctx context.Context) error { return n.DeleteTopicByID(ctx, fsm.TopicID{1}) },
	}
}
