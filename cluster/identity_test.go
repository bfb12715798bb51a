package cluster

import (
	"os"
	"strings"
	"testing"
)

// What a node has voted is not to be lost: it would vote again.
func TestANodeWithoutItsVotesIsRefused(t *testing.T) { inBubble(t, testANodeWithoutItsVotesIsRefused) }

func testANodeWithoutItsVotesIsRefused(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	c.topic("a", 1, 1)
	dir := c.nodes[0].dir
	c.kill(0)
	for _, spoil := range []func(string) error{os.Remove, func(path string) error { return os.WriteFile(path, nil, 0o600) }} {
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
