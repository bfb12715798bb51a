package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/outcome"
)

// smallDisk mounts a file system of some megabytes as the data directory of a
// node, or skips the test where that is not allowed.
func (c *testCluster) smallDisk(node int, megabytes int) {
	c.t.Helper()
	dir := c.nodes[node].cfg.DataDir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	if err := syscall.Mount("trimaran-test", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", megabytes)); err != nil {
		c.t.Skipf("a small file system cannot be mounted here (it takes root): %v", err)
	}
	c.t.Cleanup(func() {
		c.kill(node)
		if err := syscall.Unmount(dir, 0); err != nil {
			c.t.Errorf("unmount %s: %v", dir, err)
			syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	})
}

// ballast takes all of the disk of a node but some bytes.
func (c *testCluster) ballast(node int, leave int64) (path string) {
	c.t.Helper()
	path = filepath.Join(c.nodes[node].cfg.DataDir, "ballast")
	var s syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(path), &s); err != nil {
		c.t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		c.t.Fatal(err)
	}
	if more := int64(s.Bavail)*s.Bsize - leave; more > 0 {
		if err := syscall.Fallocate(int(f.Fd()), 0, 0, info.Size()+more); err != nil && !errors.Is(err, syscall.ENOSPC) {
			c.t.Fatal(err)
		}
	}
	return path
}

func (c *testCluster) allRun() {
	c.t.Helper()
	for i, n := range c.nodes {
		if !n.running {
			continue
		}
		if err := n.Err(); err != nil {
			c.t.Errorf("node %d has ended: %v", i+1, err)
		}
	}
}

// A full disk refuses records and nothing else, loses nothing, and is over when
// there is room.
func TestAFullDiskIsAState(t *testing.T) { inBubble(t, testAFullDiskIsAState) }

func testAFullDiskIsAState(t *testing.T) {
	c := newTestCluster(t, 3)
	c.onDisk()
	registry := prometheus.NewRegistry()
	c.nodes[0].cfg.Registry = registry
	for i := range c.nodes {
		c.smallDisk(i, 96)
	}
	c.startAll()
	full := func() (gauge float64) {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "trimaran_disk_full" {
				gauge = f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		return gauge
	}
	if full() != 0 {
		t.Error("the gauge says that the empty disk is full")
	}
	ballast, kept := c.topic("ballast", 1, 3), c.topic("kept", 1, 3)
	id := fsm.PartitionID{Topic: kept.ID}
	value := strings.Repeat("x", 700<<10)
	for range 30 {
		c.mustAppend(0, fsm.PartitionID{Topic: ballast.ID}, value)
	}
	acknowledged := 0
	for {
		_, err := c.nodes[acknowledged%3].Append(within(t), id, batchList{prototest.Batch(value)})
		if err != nil {
			if outcome.Code(err) != outcome.ErrStorage {
				t.Fatalf("record %d: %v, want a storage error", acknowledged, err)
			}
			break
		}
		if acknowledged++; acknowledged > 200 {
			t.Fatal("the disk does not get full")
		}
	}
	t.Logf("%d records until the disk was full", acknowledged)
	eventually(t, "the gauge", func() error {
		if full() != 1 {
			return errors.New("0")
		}
		return nil
	})
	everywhere := func() {
		t.Helper()
		for i, n := range c.nodes {
			eventually(t, "all that was acknowledged is there", func() error {
				if got, err := valuesFrom(within(t), n.Node, id); err != nil || len(got) != acknowledged {
					return fmt.Errorf("node %d serves %d records, want %d: %v", i+1, len(got), acknowledged, err)
				}
				return nil
			})
		}
	}
	everywhere()
	// A node must also come back on a full disk.
	c.kill(1)
	c.start(1)
	c.ready()
	c.topic("admin", 1, 3)
	everywhere()
	if _, err := c.nodes[1].Append(within(t), id, batchList{prototest.Batch(value)}); outcome.Code(err) != outcome.ErrStorage {
		t.Errorf("still full: %v", err)
	}
	c.allRun()

	if err := c.nodes[2].DeleteTopic(within(t), "ballast"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "records are taken again", func() error {
		_, err := c.nodes[0].Append(within(t), id, batchList{prototest.Batch(value)})
		if err != nil && outcome.Code(err) != outcome.ErrStorage {
			t.Fatal(err)
		}
		return err
	})
	acknowledged++
	everywhere()
	if full() != 0 {
		t.Error("the gauge says that the disk is full")
	}
	c.allRun()
}

// What the followers cannot store is not taken by a leader that could, and ends
// when they can.
func TestFollowersWithFullDisks(t *testing.T) { inBubble(t, testFollowersWithFullDisks) }

func testFollowersWithFullDisks(t *testing.T) {
	c := newTestCluster(t, 3)
	c.onDisk()
	c.smallDisk(1, 96)
	c.smallDisk(2, 96)
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	c.mustAppend(0, id, "the first")
	c.lead(0, id)
	ballast := []string{c.ballast(1, 3<<20), c.ballast(2, 3<<20)}
	eventually(t, "the leader refuses", func() error {
		_, err := c.nodes[0].Append(within(t), id, batchList{prototest.Batch("small")})
		if outcome.Code(err) != outcome.ErrStorage {
			return fmt.Errorf("%v", err)
		}
		return nil
	})
	// One with room is enough for a majority.
	if err := os.Remove(ballast[0]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "two of three take records", func() error {
		_, err := c.nodes[0].Append(within(t), id, batchList{prototest.Batch("small")})
		return err
	})
	c.allRun()
}

// lead makes a node the leader of a partition.
func (c *testCluster) lead(node int, id fsm.PartitionID) {
	c.t.Helper()
	eventually(c.t, "the leadership moves", func() error {
		leader := c.leaderOf(id)
		if leader == node {
			return nil
		}
		to := c.nodes[node].identity
		c.nodes[leader].records(id).Member.Raft.LeadershipTransferToServer(raft.ServerID(to), raft.ServerAddress(to))
		return errors.New("not yet")
	})
}

// When not a byte is left, votes cannot be stored. Raft would panic; here it waits.
func TestNotAByteLeft(t *testing.T) { inBubble(t, testNotAByteLeft) }

func testNotAByteLeft(t *testing.T) {
	c := newTestCluster(t, 3)
	c.onDisk()
	for i := range c.nodes {
		c.smallDisk(i, 32)
	}
	c.startAll()
	topic := c.topic("a", 4, 3)
	var want [4]int
	for p := range want {
		id := fsm.PartitionID{Topic: topic.ID, Partition: int32(p)}
		c.mustAppend(0, id, "before")
		eventually(t, "all have it", func() error {
			for i, n := range c.nodes {
				if _, next := n.records(id).Bounds(); next != 1 {
					return fmt.Errorf("node %d: %d", i+1, next)
				}
			}
			return nil
		})
	}
	fill := func(node int) (path string) {
		eventually(t, "the disk is full to the last byte", func() error {
			path = c.ballast(node, 0)
			var s syscall.Statfs_t
			if err := syscall.Statfs(path, &s); err != nil || s.Bavail > 0 {
				return fmt.Errorf("%d blocks free, %v", s.Bavail, err)
			}
			return nil
		})
		return path
	}
	ballast := []string{fill(1), fill(2)}
	c.kill(0) // elections, where it led
	for _, i := range []int{1, 2} {
		for p := range want {
			id := fsm.PartitionID{Topic: topic.ID, Partition: int32(p)}
			if slice, ok, err := c.nodes[i].records(id).ReadHere(0, 1000, fsm.ReadUncommitted); err != nil || !ok || len(slice.Batches) == 0 {
				t.Errorf("node %d, partition %d: %v, %v", i+1, p, ok, err)
			}
		}
	}
	c.allRun()
	for _, path := range ballast {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for p := range want {
		eventually(t, "records are taken again", func() error {
			_, err := c.nodes[1+p%2].Append(within(t), fsm.PartitionID{Topic: topic.ID, Partition: int32(p)}, batchList{prototest.Batch("after")})
			return err
		})
	}
	c.allRun()
}

// Something else fills the disk in a moment, between two looks at it, while records are written.
func TestADiskFillsInAMoment(t *testing.T) { inBubble(t, testADiskFillsInAMoment) }

func testADiskFillsInAMoment(t *testing.T) {
	c := newTestCluster(t, 1)
	c.onDisk()
	c.smallDisk(0, 64)
	c.startAll()
	topic := c.topic("a", 1, 1)
	id := fsm.PartitionID{Topic: topic.ID}
	acknowledged := 0
	for range 20 {
		c.mustAppend(0, id, strings.Repeat("x", 100))
		acknowledged++
	}
	ballast := c.ballast(0, 0)
	refused := false
	for range 2000 {
		if _, err := c.nodes[0].Append(within(t), id, batchList{prototest.Batch(strings.Repeat("y", 100))}); err != nil {
			refused = true
			t.Logf("record %d: %v", acknowledged, err)
			break
		}
		acknowledged++
	}
	if !refused {
		t.Fatal("all was taken")
	}
	c.allRun()
	if slice, ok, err := c.nodes[0].records(id).ReadHere(0, 1000, fsm.ReadUncommitted); err != nil || !ok || len(slice.Batches) == 0 {
		t.Errorf("%v, %v", ok, err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, "records are taken again", func() error {
		_, err := c.nodes[0].Append(within(t), id, batchList{prototest.Batch("after")})
		return err
	})
	c.allRun()
	got, err := valuesFrom(within(t), c.nodes[0].Node, id)
	if err != nil || len(got) < acknowledged+1 {
		t.Errorf("%d records, want %d at least: %v", len(got), acknowledged+1, err)
	}
}

// A leader with a full disk gives its leadership to a node that has room, and gets it back when it
// has room itself.
func TestALeaderWithAFullDiskHandsOver(t *testing.T) { inBubble(t, testALeaderWithAFullDiskHandsOver) }

func testALeaderWithAFullDiskHandsOver(t *testing.T) {
	c := newTestCluster(t, 3)
	c.onDisk()
	c.smallDisk(0, 96)
	for i := range c.nodes {
		c.nodes[i].cfg.NoAutoBalance = true
	}
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	c.mustAppend(0, id, "before")
	c.lead(0, id)
	c.ballast(0, 3<<20)
	eventually(t, "records are taken", func() error {
		if !c.nodes[0].logs.Full() {
			return errors.New("it is not full yet")
		}
		_, err := c.nodes[0].Append(within(t), id, batchList{prototest.Batch("while the disk is full")})
		if err != nil && outcome.Code(err) != outcome.ErrStorage && !outcome.NotAppended(err) {
			t.Fatal(err)
		}
		return err
	})
	if leader := c.leaderOf(id); leader == 0 {
		t.Error("it leads with a full disk")
	}
	if got, err := valuesFrom(within(t), c.nodes[0].Node, id); err != nil || strings.Join(got, ",") != "before,while the disk is full" {
		t.Errorf("%q, %v", got, err)
	}
}
