package cluster

import (
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// What a node has voted is not to be lost: it would vote again.
func TestANodeWithoutItsVotesIsRefused(t *testing.T) { inBubble(t, testANodeWithoutItsVotesIsRefused) }

func testANodeWithoutItsVotesIsRefused(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	c.topic("a", 1, 1)
	dir, disk := c.nodes[0].dir, c.nodes[0].on()
	c.kill(0)
	for _, spoil := range []func(string) error{disk.Remove, func(path string) error { return vfs.ReplaceFile(disk, path, nil) }} {
		if err := spoil(dir.Join("votes")); err != nil {
			t.Fatal(err)
		}
		if n, err := Start(c.nodes[0].cfg); err == nil || !strings.Contains(err.Error(), "has lost votes") {
			t.Errorf("the node starts: %v", err)
			if err == nil {
				n.stop()
			}
		}
	}
}
