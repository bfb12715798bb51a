package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/backup"
	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/cluster/tier"
	"github.com/trimaran-io/trimaran/fsm"
)

// TestLostTierThatNamesTooMuch: what a store names is counted before anything is read for it, over
// all partitions of a restore.
func TestLostTierThatNamesTooMuch(t *testing.T) {
	address := "file://" + filepath.ToSlash(t.TempDir())
	store, err := backup.OpenReadBack(address)
	if err != nil {
		t.Fatal(err)
	}
	there, err := tier.Open(t.Context(), tier.Config{
		Store: tierStore{store}, ClusterID: func() string { return "c" }, FS: vfs.NewMem(), Dir: "cache",
	})
	if err != nil {
		t.Fatal(err)
	}
	put := func(partition int32, pieces ...uint32) {
		t.Helper()
		l := &tier.List{Term: 1, Index: 1, End: fsm.Offset(10 * len(pieces))}
		for i, n := range pieces {
			first := fsm.Offset(10 * i)
			l.Segments = append(l.Segments, fsm.TieredSegment{First: first, Next: first + 10, Term: 1, ID: 1, Pieces: n, IndexBytes: 1, Bytes: 1})
		}
		if err := there.PutList(t.Context(), fsm.PartitionID{Topic: fsm.TopicID{1}, Partition: partition}, l, nil); err != nil {
			t.Fatal(err)
		}
	}
	put(0, 1<<20, 1<<20, 1)
	put(1, 1<<20)
	put(2, 1<<20, 1)
	const says = "restore some topics at a time"
	for _, test := range []struct {
		partitions []int32
		refused    bool
	}{{[]int32{0}, true}, {[]int32{1}, false}, {[]int32{1, 2}, true}} {
		remains, err := newTierRemains(address)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range test.partitions {
			_, err = remains.Log(t.Context(), fsm.TopicID{1}, p)
		}
		// There are no indexes, so what is not refused ends with that.
		if err == nil || strings.Contains(err.Error(), says) != test.refused {
			t.Errorf("partitions %v: %v", test.partitions, err)
		}
	}
}
