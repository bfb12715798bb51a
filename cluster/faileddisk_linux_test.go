package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
)

// spoil makes everything fail that this process writes to a file that it has open.
func spoil(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		var fd int
		fmt.Sscan(e.Name(), &fd)
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err != nil || target != path {
			continue
		}
		readOnly, err := os.Open(path)
		if err == nil {
			defer readOnly.Close()
			err = syscall.Dup3(int(readOnly.Fd()), fd, syscall.O_CLOEXEC)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("%s is not open", path)
}

// TestANodeWhoseDiskFailsEndsInOrder: where votes or the catalog cannot be stored, Raft panics by
// itself. The node ends with the reason instead, lets go of all that waits for its groups, and
// nothing is lost that the others acknowledged with it.
func TestANodeWhoseDiskFailsEndsInOrder(t *testing.T) {
	for _, file := range []string{"votes", "catalog/*.log"} {
		runInBubble(t, strings.TrimSuffix(file, "/*.log"), func(t *testing.T) {
			c := newTestCluster(t, 3)
			c.onDisk()
			c.startAll()
			topic := c.topic("events", 3, 3)
			id := fsm.PartitionID{Topic: topic.ID}
			c.mustAppend(0, id, "a")
			found, err := filepath.Glob(filepath.Join(c.nodes[0].cfg.DataDir, file))
			if err != nil || len(found) == 0 {
				t.Fatal(found, err)
			}
			spoil(t, found[len(found)-1])
			other := 0
			eventually(t, "the node ends", func() error {
				select {
				case <-c.nodes[0].Failed():
					return nil
				default:
				}
				// Elections everywhere, and a change of the catalog.
				for _, r := range c.nodes[0].runningReplicas() {
					r.Member.Raft.LeadershipTransfer()
				}
				other++
				// with a leader that has failed it waits for it to be ended
				ctx, cancel := context.WithTimeout(within(t), time.Second)
				defer cancel()
				c.nodes[1].CreateTopic(ctx, fsm.TopicSpec{Name: fmt.Sprint("more-", other), Partitions: 1, ReplicationFactor: 3}, false)
				return errors.New("it goes on")
			})
			t.Log(c.nodes[0].Err())
			began := time.Now()
			c.kill(0)
			t.Logf("stopped within %v", time.Since(began))
			appends := func(node int, value string) {
				eventually(t, "an append", func() error { // leaders move meanwhile
					_, err := c.append(node, id, value)
					return err
				})
			}
			appends(1, "b")
			c.start(0)
			c.ready()
			appends(0, "c")
		})
	}
}
