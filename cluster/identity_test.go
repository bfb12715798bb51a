package cluster

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/fsm"
)

// A node is who it was, or does not start: one flipped digit would make another node of it.
func TestADamagedIdentityIsRefused(t *testing.T) {
	d, err := openDataDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	minted, err := d.loadIdentity("n1")
	if err != nil {
		t.Fatal(err)
	}
	votes, err := raftlog.OpenStable(d.join("votes"), raftlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := votes.Close(); err != nil {
		t.Fatal(err)
	}
	minted.ClusterID = "0f5c7b1e-6a53-4c2e-9b7a-0d4e3f2a1b6c"
	minted.Forming = &formation{ClusterID: minted.ClusterID, Proposer: "n1-1234", Nodes: []fsm.Node{{ID: "n1", Incarnation: minted.Incarnation}}}
	if err := d.saveIdentity(minted); err != nil {
		t.Fatal(err)
	}
	path := d.join("node.json")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := minted.sum()
	refused := 0
	for at := range good {
		for bit := range 8 {
			b := bytes.Clone(good)
			b[at] ^= 1 << bit
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			file, err := d.loadIdentity("")
			if err != nil {
				refused++
			} else if file.sum() != want {
				t.Errorf("bit %d of byte %d flipped: %+v", bit, at, file)
			}
		}
	}
	if refused < len(good) {
		t.Errorf("%d of %d files are refused", refused, 8*len(good))
	}
	// From before there was a checksum.
	if err := os.WriteFile(path, bytes.Replace(good, []byte(`"checksum"`), []byte(`"nothing"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.loadIdentity("n1"); err != nil {
		t.Error(err)
	}
}

// What a node has voted is not to be lost: it would vote again.
func TestANodeWithoutItsVotesIsRefused(t *testing.T) { inBubble(t, testANodeWithoutItsVotesIsRefused) }

func testANodeWithoutItsVotesIsRefused(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	c.topic("a", 1, 1)
	dir := c.nodes[0].dir
	c.kill(0)
	for _, spoil := range []func(string) error{os.Remove, func(path string) error { return os.WriteFile(path, nil, 0o600) }} {
		if err := spoil(dir.join("votes")); err != nil {
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
