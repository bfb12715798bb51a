package cluster

import (
	"archive/zip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/trimaran-io/trimaran/cluster/catalog"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/raftlog/bolt"
	"github.com/trimaran-io/trimaran/fsm"
)

// unpack makes a data directory of a zip file in testdata.
func unpack(t *testing.T, name, dir string) {
	t.Helper()
	z, err := zip.OpenReader(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for _, f := range z.File {
		path := filepath.Join(dir, filepath.FromSlash(f.Name))
		r, err := f.Open()
		if err == nil {
			err = os.MkdirAll(filepath.Dir(path), 0o700)
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close(), os.WriteFile(path, b, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestADataDirectoryOfAProgramWithBoltFiles: bolt.zip is what commit c9914e5 left of a node alone:
// topics events, with two records in each partition, and later, behind a snapshot of the catalog;
// the last producer id given out is 1120000. It goes on with all of that, and no older program
// opens the directory any more.
func TestADataDirectoryOfAProgramWithBoltFiles(t *testing.T) {
	inBubble(t, testADataDirectoryOfAProgramWithBoltFiles)
}

// TestADirectoryThatWasNotBroughtOver: what a start that was cut short has left is not shown as
// what the node has voted; the older program may have gone on since.
func TestADirectoryThatWasNotBroughtOver(t *testing.T) {
	dir := t.TempDir()
	unpack(t, "bolt.zip", dir)
	st, err := raftlog.OpenStore(dir, raftlog.Options{ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(bolt.Migrate(st, dir, dir, catalogLogOptions(catalogTrailing)), st.Close(), os.WriteFile(filepath.Join(dir, "LOCK"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if d, err := OpenLogDir(filepath.Join(dir, "catalog")); !errors.Is(err, errOldFiles) {
		t.Errorf("the catalog's log: %v, %v", d, err)
	}
	d, err := OpenLogDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if votes, err := d.Votes(); !errors.Is(err, errOldFiles) {
		t.Errorf("votes of %d groups, %v", len(votes), err)
	}
	if bad := d.VerifyOwn(); len(bad) > 0 {
		t.Error(bad)
	}
	if names, _, err := d.Partitions(); len(names) != 3 || err != nil {
		t.Errorf("%v, %v", names, err)
	}
}

func testADataDirectoryOfAProgramWithBoltFiles(t *testing.T) {
	c := newTestCluster(t, 1)
	c.onDisk()
	dir := c.nodes[0].cfg.DataDir
	unpack(t, "bolt.zip", dir)
	const term = 2
	for start := range 3 {
		c.startAll()
		node := c.nodes[0].Node
		if node.ClusterID() != "5a4c50aaf21a4a798caa14828981d102" || node.identity != "n1.28890b72" {
			t.Errorf("start %d: %s of cluster %s", start, node.identity, node.ClusterID())
		}
		for _, group := range []string{catalog.Group, "03463be5cd404d0e8ef5e04ad56ad7ed-0"} {
			g := node.stable.Group(group)
			now, err := g.GetUint64([]byte("CurrentTerm"))
			voted, verr := g.GetUint64([]byte("LastVoteTerm"))
			created, cerr := g.Created()
			if now <= term || voted <= term || !created || errors.Join(err, verr, cerr) != nil {
				t.Errorf("start %d: %s is in term %d, has voted in term %d, %v, %v", start, group, now, voted, created, errors.Join(err, verr, cerr))
			}
		}
		events, ok := node.Topics().Lookup("events")
		if _, later := node.Topics().Lookup("later"); !ok || !later {
			t.Fatalf("start %d: the topics are not there", start)
		}
		want := []string{"a", "b"}
		for range start {
			want = append(want, "more")
		}
		for p := range int32(2) {
			id := fsm.PartitionID{Topic: events.ID, Partition: p}
			c.wantEverywhere(id, want)
			c.mustAppend(0, id, "more")
		}
		if id, err := node.NewProducerID(within(t)); err != nil || id <= 1120000 {
			t.Errorf("start %d: producer id %d, %v", start, id, err)
		}
		c.kill(0)
		if d, err := OpenLogDir(dir); err != nil {
			t.Error(err)
		} else {
			votes, err := d.Votes()
			if bad := d.VerifyOwn(); len(bad) > 0 || len(votes) < 4 || err != nil {
				t.Errorf("start %d: %d groups have voted, %v, %v", start, len(votes), bad, err)
			}
			d.Close()
		}
		var identity struct{ Format int }
		b, err := os.ReadFile(filepath.Join(dir, "node.json"))
		if err == nil {
			err = json.Unmarshal(b, &identity)
		}
		if identity.Format != 2 || err != nil {
			t.Errorf("start %d: node.json is of format %d, which older programs open; %v", start, identity.Format, err)
		}
		for _, name := range []string{"votes.db", "catalog/raft.db", "catalog/snapshots"} {
			if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("start %d: %s is there", start, name)
			}
		}
	}
}
