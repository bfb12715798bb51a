package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/cluster/identity"
	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
)

// hangs is a disk on which some operations do not end until that is over.
type hangs struct {
	mu   sync.Mutex
	is   func(op, name string) bool // nil: none
	over chan struct{}
}

// disk gives a node a disk that can hang.
func (c *testCluster) disk(node int) *hangs {
	h := &hangs{over: make(chan struct{})}
	close(h.over)
	c.nodes[node].cfg.fs = vfs.Failing{FS: vfs.OS, Fail: func(op, name string) error {
		h.mu.Lock()
		is, over := h.is, h.over
		h.mu.Unlock()
		if is != nil && is(op, name) {
			<-over
		}
		return nil
	}}
	c.t.Cleanup(h.end)
	return h
}

func (h *hangs) begin(is func(op, name string) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.is, h.over = is, make(chan struct{})
}

func (h *hangs) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.is != nil {
		h.is = nil
		close(h.over)
	}
}

// A group whose snapshot does not end keeps no other from being looked after: retention goes on
// there, which is what makes room on a full disk.
func TestHousekeepingWaitsForNoGroup(t *testing.T) { inRealTime(t, testHousekeepingWaitsForNoGroup) }

func testHousekeepingWaitsForNoGroup(t *testing.T) {
	c := newTestCluster(t, 1)
	small(c, map[string]string{"segment.bytes": "20000", "retention.bytes": "1"})
	disk := c.disk(0)
	c.startAll()
	topic := c.topic("a", 8, 1)
	node := c.nodes[0].Node
	stuck := map[string]bool{}
	for p := range int32(7) {
		stuck[node.partitionDir(fsm.PartitionID{Topic: topic.ID, Partition: p})] = true
	}
	var tried sync.Map
	disk.begin(func(op, name string) bool {
		if op != "create" || !stuck[filepath.Dir(name)] || !strings.HasPrefix(filepath.Base(name), "manifest") {
			return false
		}
		tried.Store(filepath.Dir(name), true)
		return true
	})
	// What is appended while a group's own snapshot hangs waits for it.
	var filling sync.WaitGroup
	for p := range int32(7) {
		filling.Go(func() {
			for range 25 {
				_, _ = c.append(0, fsm.PartitionID{Topic: topic.ID, Partition: p}, strings.Repeat("x", 1000))
			}
		})
	}
	eventually(t, "snapshots hang", func() error {
		for dir := range stuck {
			if _, ok := tried.Load(dir); !ok {
				return errors.New("not all")
			}
		}
		return nil
	})
	id := fsm.PartitionID{Topic: topic.ID, Partition: 7}
	c.fill(0, id, "goes on", 60)
	eventually(t, "retention goes on", func() error {
		segments := node.replica(id).Log.Segments()
		if segments[0].Base <= 1 {
			return fmt.Errorf("%d segments from entry %d on", len(segments), segments[0].Base)
		}
		return nil
	})
	disk.end()
	filling.Wait()
}

// A replica whose closing does not end keeps no other from being opened.
func TestReconcilingWaitsForNoReplica(t *testing.T) { inRealTime(t, testReconcilingWaitsForNoReplica) }

func testReconcilingWaitsForNoReplica(t *testing.T) {
	c := newTestCluster(t, 1)
	disk := c.disk(0)
	c.startAll()
	topic := c.topic("a", 1, 1)
	id := fsm.PartitionID{Topic: topic.ID}
	c.mustAppend(0, id, "x")
	node := c.nodes[0].Node
	dir := node.partitionDir(id)
	disk.begin(func(op, name string) bool { return filepath.Dir(name) == dir })
	if err := node.DeleteTopic(within(t), "a"); err != nil {
		t.Fatal(err)
	}
	next := fsm.PartitionID{Topic: c.topic("b", 1, 1).ID}
	c.mustAppend(0, next, "y")
	eventually(t, "the other is not opened twice", func() error {
		if node.replica(id) != nil || !node.replicas.IsBusy(id) {
			return errors.New("it is not being closed")
		}
		return nil
	})
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("the files of a replica that is not closed: %v", err)
	}
	disk.end()
	eventually(t, "its files are deleted", func() error {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%v", err)
		}
		return nil
	})
}

// A disk that hangs does not keep a node from being told to stop: its process may end.
func TestAStopDoesNotWaitForTheDiskForEver(t *testing.T) {
	inRealTime(t, testAStopDoesNotWaitForTheDiskForEver)
}

func testAStopDoesNotWaitForTheDiskForEver(t *testing.T) {
	c := newTestCluster(t, 1)
	disk := c.disk(0)
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 1).ID}
	c.mustAppend(0, id, "x")
	disk.begin(func(op, name string) bool { return true })
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	node := c.nodes[0].Node
	node.Append(ctx, id, batchList{prototest.Batch("y")})
	c.nodes[0].running = false
	if err := node.Shutdown(ctx); !errors.Is(err, errNotStopped) {
		t.Errorf("%v", err)
	}
	disk.end()
	eventually(t, "it stops in the end", func() error {
		lock, err := identity.Open(vfs.OS, c.nodes[0].cfg.DataDir)
		if err != nil {
			return err
		}
		lock.Close()
		return nil
	})
}

// A replica in which nothing happens is left alone by the housekeeping, and looked at as soon as
// something does.
func TestAnIdleReplicaIsLeftAlone(t *testing.T) { inBubble(t, testAnIdleReplicaIsLeftAlone) }

func testAnIdleReplicaIsLeftAlone(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 1).ID}
	node := c.nodes[0].Node
	r := node.replica(id)
	eventually(t, "it rests", func() error {
		if !r.Quiet(node.Topics(), time.Now()) {
			return errors.New("not yet")
		}
		return nil
	})
	c.mustAppend(0, id, "x")
	if r.Quiet(node.Topics(), time.Now()) {
		t.Error("it rests though something was written")
	}
	eventually(t, "it rests again", func() error {
		if !r.Quiet(node.Topics(), time.Now()) {
			return errors.New("not yet")
		}
		return nil
	})
	c.topic("b", 1, 1)
	if r.Quiet(node.Topics(), time.Now()) {
		t.Error("it rests though the catalog has changed")
	}
}
