package raftlog

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

func TestStableKeepsGroupsApartAndSurvivesReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "votes")
	stable, err := OpenStable(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	a, b := stable.Group("a"), stable.Group("b")
	if _, err := a.GetUint64([]byte("CurrentTerm")); err == nil || err.Error() != "not found" {
		t.Fatalf("missing key: %v; raft compares the text", err)
	}
	if created, _ := a.Created(); created {
		t.Fatal("created before anything was stored")
	}
	var writers sync.WaitGroup
	for i, group := range []*MemberStable{a, b} {
		writers.Add(1)
		go func() {
			defer writers.Done()
			if err := group.SetUint64([]byte("CurrentTerm"), uint64(7+i)); err != nil {
				t.Error(err)
			}
		}()
	}
	writers.Wait()
	for _, group := range []*MemberStable{a, b} {
		if created, err := group.Created(); created || err != nil {
			t.Fatalf("a vote alone must not count as created: %v, %v", created, err)
		}
		if err := group.MarkCreated(); err != nil {
			t.Fatal(err)
		}
	}
	if err := stable.Close(); err != nil {
		t.Fatal(err)
	}
	if stable, err = OpenStable(path, Options{}); err != nil {
		t.Fatal(err)
	}
	defer stable.Close()
	for name, want := range map[string]uint64{"a": 7, "b": 8} {
		group := stable.Group(name)
		if got, err := group.GetUint64([]byte("CurrentTerm")); err != nil || got != want {
			t.Errorf("group %s: term %d, %v; want %d", name, got, err, want)
		}
		if created, err := group.Created(); !created || err != nil {
			t.Errorf("group %s: created %v, %v", name, created, err)
		}
	}
	if err := stable.Delete("a"); err != nil {
		t.Fatal(err)
	}
	if created, _ := stable.Group("a").Created(); created {
		t.Error("a deleted group is still there")
	}
	if err := stable.Delete("a"); err != nil {
		t.Errorf("deleting twice: %v", err)
	}
}

// TestVotesOfManyGroupsShareTheirSyncs: an election writes twice per voter, and a thousand
// raft groups elect at once when a node dies.
func TestVotesOfManyGroupsShareTheirSyncs(t *testing.T) {
	var syncs atomic.Uint64
	fs := vfs.Failing{FS: vfs.OS, Fail: func(op, _ string) error {
		if op == "sync" {
			syncs.Add(1)
		}
		return nil
	}}
	stable, err := OpenStable(filepath.Join(t.TempDir(), "votes"), Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	defer stable.Close()
	const groups = 1000
	before := syncs.Load()
	var elections sync.WaitGroup
	for i := range groups {
		elections.Go(func() {
			g := stable.Group(fmt.Sprintf("group-%d", i))
			for _, err := range []error{g.SetUint64([]byte("CurrentTerm"), 2), g.SetUint64([]byte("LastVoteTerm"), 2), g.Set([]byte("LastVoteCand"), []byte("n1"))} {
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	elections.Wait()
	if n := syncs.Load() - before; n > groups {
		t.Errorf("%d writes took %d syncs", 3*groups, n)
	} else {
		t.Logf("%d writes took %d syncs", 3*groups, n)
	}
}
