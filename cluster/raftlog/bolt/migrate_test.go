package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// oldCatalog is what an older program has of the catalog.
type oldCatalog struct {
	name     string
	entries  [][2]uint64 // from and to
	snapshot uint64      // 0: none
	last     uint64      // what is there afterwards
	first    uint64
}

var oldCatalogs = []oldCatalog{
	{name: "new", entries: nil, last: 0},
	{name: "without a snapshot", entries: [][2]uint64{{1, 60}}, last: 60, first: 1},
	{name: "with a snapshot", entries: [][2]uint64{{10, 60}}, snapshot: 40, last: 60, first: 10},
	{name: "ends with its snapshot", entries: [][2]uint64{{10, 40}}, snapshot: 40, last: 40, first: 10},
	{name: "an installed snapshot", entries: nil, snapshot: 40, last: 0},
	{name: "behind an installed snapshot", entries: [][2]uint64{{41, 60}}, snapshot: 40, last: 60, first: 41},
	{name: "a hole up to an installed snapshot", entries: [][2]uint64{{3, 12}, {41, 60}}, snapshot: 40, last: 60, first: 41},
	{name: "below an installed snapshot", entries: [][2]uint64{{3, 12}}, snapshot: 40, last: 0},
}

var oldMembers = raft.Configuration{Servers: []raft.Server{{ID: "n1.00", Address: "n1.00"}, {ID: "n2.00", Address: "n2.00", Suffrage: raft.Nonvoter}}}

// write makes the data directory of an older program.
func (c oldCatalog) write(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	catalog := filepath.Join(dir, "catalog")
	if err := os.MkdirAll(catalog, 0o700); err != nil {
		t.Fatal(err)
	}
	oldVotes(t, filepath.Join(dir, VotesFile), someVotes(10), true)
	log, err := OpenLog(filepath.Join(catalog, "raft.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range c.entries {
		for i := part[0]; i <= part[1]; i++ {
			err = errors.Join(err, log.StoreLog(boltEntry(i)))
		}
	}
	files, serr := raft.NewFileSnapshotStoreWithLogger(catalog, 2, hclog.NewNullLogger())
	err = errors.Join(err, log.Close(), serr)
	if c.snapshot != 0 && err == nil {
		_, transport := raft.NewInmemTransport("n1.00")
		for _, index := range []uint64{c.snapshot / 2, c.snapshot} {
			sink, serr := files.Create(1, index, boltEntry(index).Term, oldMembers, 7, transport)
			if serr != nil {
				t.Fatal(serr)
			}
			_, werr := io.WriteString(sink, fmt.Sprint("state of ", index))
			err = errors.Join(err, werr, sink.Close())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var migrated = raftlog.LogOptions{
	Group: "catalog", Trailing: 1000, SegmentBytes: func() int64 { return 8000 },
	Span: func(entry *raft.Log, next int64) (int64, int64) {
		if entry.Type == raft.LogCommand {
			next = int64(entry.Index) + 1
		}
		return next, math.MinInt64
	},
}

// newNode is a node of this program on a file system in memory, which has what is on the disk at
// old.
type newNode struct {
	old    string
	st     *raftlog.Store
	stable *raftlog.Stable
	log    raftlog.WholeLog
}

const markFile = "/data/mark"

func has(fs vfs.FS, path string) bool {
	f, err := fs.Open(path)
	if err == nil {
		f.Close()
	}
	return err == nil
}

// start does what a node does, with a file in place of node.json.
func (n *newNode) start(fs vfs.FS) (err error) {
	if n.st, err = raftlog.OpenStore("/data", raftlog.Options{FS: fs, JournalBytes: 8 << 10, ReserveBytes: -1}); err != nil {
		return err
	}
	if !has(fs, markFile) {
		if err := Migrate(n.st, n.old, "/data", migrated); err != nil {
			return err
		}
		f, err := fs.Create(markFile + ".new")
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
		if err := fs.Rename(markFile+".new", markFile); err != nil {
			return err
		}
		if err := fs.SyncDir("/data"); err != nil {
			return err
		}
	}
	if err := Clean(n.st, "/data"); err != nil {
		return err
	}
	if n.stable, err = n.st.OpenStable(); err != nil {
		return err
	}
	n.log, err = n.st.OpenWholeLog("/data/catalog", migrated)
	return err
}

func (n *newNode) close() {
	if n.log.PartitionLog != nil {
		n.log.Close()
	}
	if n.stable != nil {
		n.stable.Close()
	}
	if n.st != nil {
		n.st.Close()
	}
	*n = newNode{old: n.old}
}

// holds compares what the node has with what the older program had.
func (n *newNode) holds(c oldCatalog) error {
	for name, kept := range someVotes(10) {
		g := n.stable.Group(name)
		for key, want := range kept {
			if got, err := g.Get([]byte(key)); err != nil || !bytes.Equal(got, want) {
				return fmt.Errorf("%s: %s is %q, %v", name, key, got, err)
			}
		}
		if created, err := g.Created(); !created || err != nil {
			return fmt.Errorf("%s: %v, %v", name, created, err)
		}
	}
	first, _ := n.log.FirstIndex()
	last, _ := n.log.LastIndex()
	if first != c.first || last != c.last {
		return fmt.Errorf("entries %d to %d, want %d to %d", first, last, c.first, c.last)
	}
	for i := c.first; i <= c.last && c.last > 0; i++ {
		var got raft.Log
		if err := n.log.GetLog(i, &got); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if want := boltEntry(i); got.Term != want.Term || got.Type != want.Type || !bytes.Equal(got.Data, want.Data) ||
			!bytes.Equal(got.Extensions, want.Extensions) || !got.AppendedAt.Equal(want.AppendedAt) {
			return fmt.Errorf("entry %d is %+v", i, got)
		}
	}
	list, err := n.log.Snapshots().List()
	if err != nil || len(list) != int(min(c.snapshot, 1)) {
		return fmt.Errorf("%d snapshots, %w", len(list), err)
	}
	for _, meta := range list {
		_, content, err := n.log.Snapshots().Open(meta.ID)
		if err != nil {
			return err
		}
		state, err := io.ReadAll(content)
		if meta.Index != c.snapshot || meta.Term != boltEntry(c.snapshot).Term || string(state) != fmt.Sprint("state of ", c.snapshot) ||
			!slices.Equal(meta.Configuration.Servers, oldMembers.Servers) || meta.ConfigurationIndex != 7 || err != nil {
			return fmt.Errorf("the snapshot is %q, %+v, %w", state, meta, err)
		}
	}
	return nil
}

// memOf gives a file system in memory that has the files of a folder.
func memOf(t *testing.T, dir string) (mem *vfs.Mem, files map[string][]byte) {
	t.Helper()
	mem, files = vfs.NewMem(), map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		name := filepath.Join("/data", strings.TrimPrefix(path, dir))
		if err != nil || d.IsDir() {
			return errors.Join(err, mem.MkdirAll(name), mem.SyncDir(filepath.Dir(name)))
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := mem.Create(name)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(b, 0)
		files[name] = b
		return errors.Join(err, f.Sync(), f.Close(), mem.SyncDir(filepath.Dir(name)))
	})
	if err != nil {
		t.Fatal(err)
	}
	return mem, files
}

// TestAMigrationThatACrashCutsShort takes the power at each operation. Until it is said that the
// new files count, the old ones are as they were, for the older program; and the next start has
// everything.
func TestAMigrationThatACrashCutsShort(t *testing.T) {
	for _, c := range oldCatalogs {
		t.Run(c.name, func(t *testing.T) {
			old := c.write(t)
			if c.name == "new" {
				c.first, c.last = 0, 0
			}
			steps := int64(0)
			for stop, over := int64(1), false; !over; stop++ {
				mem, files := memOf(t, old)
				var left atomic.Int64
				left.Store(stop)
				mem.OnStep(func(string, string) {
					if left.Add(-1) == 0 {
						mem.Stop()
					}
				})
				n := &newNode{old: old}
				err := n.start(mem)
				if over = left.Load() > 0; over && err != nil {
					t.Fatal(err)
				}
				steps = stop
				n.close()
				for seed := range uint64(2) {
					mem.Exit()
					mem = mem.Crash(rand.New(rand.NewPCG(seed, uint64(stop))))
					if !has(mem, markFile) {
						for name, want := range files {
							f, err := mem.Open(name)
							if err != nil {
								t.Fatalf("stopped at operation %d: %v", stop, err)
							}
							b := make([]byte, len(want))
							if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(b, want) {
								t.Fatalf("stopped at operation %d: %s was changed, %v", stop, name, err)
							}
							f.Close()
						}
					}
					if err := n.start(mem); err != nil {
						t.Fatalf("stopped at operation %d: %v", stop, err)
					}
					if err := n.holds(c); err != nil {
						t.Fatalf("stopped at operation %d: %v", stop, err)
					}
					for _, name := range []string{"/data/votes.db", "/data/catalog/raft.db"} {
						if has(mem, name) {
							t.Fatalf("stopped at operation %d: %s is there", stop, name)
						}
					}
				}
				// What comes behind is good, too.
				next := max(c.last, c.snapshot) + 1
				g := n.stable.Group("group-03")
				if err := errors.Join(n.log.StoreLog(boltEntry(next)), g.SetUint64([]byte("CurrentTerm"), 7777)); err != nil {
					t.Fatal(err)
				}
				mem.Exit()
				mem = mem.Crash(rand.New(rand.NewPCG(9, uint64(stop))))
				n = &newNode{old: old}
				if err := n.start(mem); err != nil {
					t.Fatal(err)
				}
				term, err := n.stable.Group("group-03").GetUint64([]byte("CurrentTerm"))
				if last, _ := n.log.LastIndex(); last != next || term != 7777 || err != nil {
					t.Fatalf("the log ends at %d, not at %d; term %d, %v", last, next, term, err)
				}
				n.close()
			}
			t.Logf("%d operations", steps)
		})
	}
}

// TestAMigrationOfWhatADeadLeaderLeft: where another term stands in the log than the snapshot's
// last entry has, the snapshot was installed and a crash kept the log. None of it was committed.
func TestAMigrationOfWhatADeadLeaderLeft(t *testing.T) {
	c := oldCatalog{entries: [][2]uint64{{3, 60}}, snapshot: 55}
	old := c.write(t)
	path := filepath.Join(old, "catalog", "raft.db")
	log, err := OpenLog(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(50); i <= 60; i++ { // they are overwritten
		e := boltEntry(i)
		e.Term = 1
		err = errors.Join(err, log.StoreLog(e))
	}
	if err := errors.Join(err, log.Close()); err != nil {
		t.Fatal(err)
	}
	mem, _ := memOf(t, old)
	n := &newNode{old: old}
	if err := n.start(mem); err != nil {
		t.Fatal(err)
	}
	defer n.close()
	if err := n.holds(oldCatalog{snapshot: 55}); err != nil {
		t.Error(err)
	}
	if err := n.log.StoreLog(boltEntry(56)); err != nil {
		t.Error(err)
	}
}

// What is not what was written is not taken over, and what is not known of a raft group stays
// unknown.
func TestAMigrationOfDamagedFiles(t *testing.T) {
	c := oldCatalogs[2]
	for _, file := range []string{"votes.db", "catalog/raft.db"} {
		old := c.write(t)
		path := filepath.Join(old, file)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		clear(b[len(b)/4:])
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		mem, _ := memOf(t, old)
		n := &newNode{old: old}
		if err := n.start(mem); !errors.Is(err, raftlog.ErrDamaged) {
			t.Errorf("%s: %v", file, err)
		}
		if has(mem, markFile) {
			t.Errorf("%s: the new files count", file)
		}
	}
	old := c.write(t)
	path := filepath.Join(old, VotesFile)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.ReplaceAll(b, []byte("node-3"), []byte("node-4"))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	mem, _ := memOf(t, old)
	n := &newNode{old: old}
	for range 2 { // as it is migrated, and as it is read again
		if err := n.start(mem); err != nil {
			t.Fatal(err)
		}
		for name := range maps.Keys(someVotes(10)) {
			if err := n.stable.Group(name).Check(); errors.Is(err, raftlog.ErrDamaged) != (name == "group-03") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if known, err := n.stable.Group("group-03").Known(); !known || err != nil {
			t.Errorf("it is known: %v, %v", known, err)
		}
		n.close()
	}
}

// TestAMigrationOfNothing: a node that had no cluster yet has no votes, and perhaps no file.
func TestAMigrationOfNothing(t *testing.T) {
	mem := vfs.NewMem()
	mem.MkdirAll("/data")
	mem.SyncDir("/")
	n := &newNode{old: t.TempDir()}
	if err := n.start(mem); !errors.Is(err, raftlog.ErrLost) || n.stable == nil {
		t.Errorf("without a catalog: %v", err)
	}
}
