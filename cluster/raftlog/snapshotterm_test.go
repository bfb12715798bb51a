package raftlog

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

// The term of the snapshot's last entry stands in for the entry where there is a hole, and nowhere
// else.
func TestSnapshotTerm(t *testing.T) {
	for name, test := range map[string]struct {
		entries []uint64 // in the log
		index   uint64
		made    bool
	}{
		"a hole, and entries behind":       {[]uint64{1, 2, 3, 11, 12}, 10, true},
		"nothing before, entries behind":   {[]uint64{11, 12}, 10, true},
		"nothing behind: Raft knows":       {[]uint64{1, 2, 3}, 10, false},
		"the entry in front is there":      {[]uint64{8, 9, 11}, 10, false},
		"another entry of the hole":        {[]uint64{1, 2, 3, 11}, 9, false},
		"behind the log":                   {[]uint64{1, 2, 3, 11}, 12, false},
		"the entry in front of the window": {[]uint64{11, 12, 13}, 9, false},
	} {
		logs, snapshots := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
		for _, i := range test.entries {
			if err := logs.StoreLog(&raft.Log{Index: i, Term: 3, Data: []byte("x")}); err != nil {
				t.Fatal(err)
			}
		}
		sink, err := snapshots.Create(1, 10, 7, raft.Configuration{}, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		sink.Close()
		var got raft.Log
		err = SnapshotTerm{logs, snapshots}.GetLog(test.index, &got)
		if test.made && (err != nil || got.Index != test.index || got.Term != 7 || len(got.Data) > 0) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if !test.made && !errors.Is(err, raft.ErrLogNotFound) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if err := (SnapshotTerm{logs, nil}).GetLog(10, &got); !errors.Is(err, raft.ErrLogNotFound) {
			t.Errorf("%s: without snapshots: %v", name, err)
		}
	}
}
