package bolt

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// TestTheLogsAgree does to both kinds of log what Raft does, at random, and compares what they
// have.
func TestTheLogsAgree(t *testing.T) {
	for seed := range uint64(3) {
		random := rand.New(rand.NewPCG(seed, 5))
		reference, err := OpenLog(filepath.Join(t.TempDir(), "raft.db"), nil)
		if err != nil {
			t.Fatal(err)
		}
		mem := vfs.NewMem()
		mem.MkdirAll("/data")
		st, err := raftlog.OpenStore("/data", raftlog.Options{FS: mem, JournalBytes: 8 << 10, ReserveBytes: -1})
		if err != nil {
			t.Fatal(err)
		}
		opts := migrated
		opts.Fresh = true
		log, err := st.OpenWholeLog("/data/catalog", opts)
		if err != nil {
			t.Fatal(err)
		}
		both := []raft.LogStore{reference, log}
		last, applied := uint64(0), uint64(0)
		for step := range 150 {
			switch what := random.IntN(10); {
			case what < 6:
				var entries []*raft.Log
				for range 1 + random.IntN(5) {
					last++
					entries = append(entries, boltEntry(last))
				}
				for _, l := range both {
					err = errors.Join(err, l.StoreLogs(entries))
				}
			case what < 7 && last > applied:
				from := applied + 1 + random.Uint64N(last-applied)
				for _, l := range both {
					err = errors.Join(err, l.DeleteRange(from, last))
				}
				last = from - 1
			case what < 9 && last > applied:
				for to := applied + random.Uint64N(last-applied); applied < to; {
					applied++
					if log.Crosses(applied) {
						log.Cross(applied, nil)
					}
					log.Applied(applied, int64(applied)+1, math.MinInt64, 1)
				}
			case applied > 0:
				if first, _ := reference.FirstIndex(); first > 0 && first <= applied {
					to := first + random.Uint64N(applied-first+1)
					for _, l := range both {
						err = errors.Join(err, l.DeleteRange(first, to))
					}
				}
			}
			if err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
			compare(t, reference, log, last+1)
		}
		if err := errors.Join(reference.Close(), log.Close(), st.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// compare holds one log against another, up to an index.
func compare(t *testing.T, want, got raft.LogStore, upTo uint64) {
	t.Helper()
	first, _ := want.FirstIndex()
	last, _ := want.LastIndex()
	f, _ := got.FirstIndex()
	if l, _ := got.LastIndex(); f != first || l != last {
		t.Fatalf("entries %d to %d, want %d to %d", f, l, first, last)
	}
	for index := first; index <= upTo; index++ {
		var a, b raft.Log
		if werr, gerr := want.GetLog(index, &a), got.GetLog(index, &b); !errors.Is(gerr, werr) {
			t.Fatalf("entry %d: %v, want %v", index, gerr, werr)
		}
		if a.Term != b.Term || a.Type != b.Type || !bytes.Equal(a.Data, b.Data) ||
			!bytes.Equal(a.Extensions, b.Extensions) || !a.AppendedAt.Equal(b.AppendedAt) {
			t.Fatalf("entry %d: %+v, want %+v", index, b, a)
		}
	}
}
