package cluster

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/fsm"
)

// memDisk is the disk of one node, in memory. It outlives the node's processes and what becomes of
// them: one that is killed leaves what it wrote, one that loses power what it synced.
type memDisk struct {
	full atomic.Bool // no segment can grow; for the rest there is the reserve
	fuse atomic.Pointer[fuse]

	mu   sync.Mutex // guards the fields below; nothing is done under it
	mem  *vfs.Mem
	dice *rand.Rand // what a power loss takes
	run  *process   // the node's newest; nil: there was none
}

// diskBytes is the size of such a disk: the journal and the reserve are as small as they can be.
const diskBytes = 64 << 20

func newMemDisk(seed uint64) *memDisk {
	return &memDisk{mem: vfs.NewMem(), dice: rand.New(rand.NewPCG(seed, 77))}
}

// fuse is what happens at one of the next operations on a disk. Time stands still in a bubble while
// anybody works: who only waits for a moment never meets a write that is half done.
type fuse struct {
	left atomic.Int64 // operations until then
	blow func()       // called once, in the middle of what the node does: it must not wait
}

// light lights a fuse: blow is called before the operation that comes behind so many others.
func (d *memDisk) light(operations int, blow func()) {
	f := &fuse{blow: blow}
	f.left.Store(int64(operations) + 1)
	d.fuse.Store(f)
}

// boot gives the disk to a new process.
func (d *memDisk) boot() vfs.FS {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := &process{disk: d}
	p.Failing = vfs.Failing{FS: d.mem, Fail: p.fail}
	d.run = p
	return p
}

// die takes the disk from the process, before the node is ended: what that still does changes
// nothing.
func (d *memDisk) die(power bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.run.gone.Store(true)
	if power {
		d.mem.Stop()
	}
}

// dead is told that nothing of the process is left.
func (d *memDisk) dead(power bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if power {
		was := d.mem
		d.mem = was.Crash(d.dice)
		was.Wipe()
	} else {
		d.mem.Exit()
	}
}

// files is what is on the disk, beside whoever runs.
func (d *memDisk) files() *vfs.Mem {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mem
}

// process is the disk as one process has it.
type process struct {
	vfs.Failing
	disk *memDisk
	gone atomic.Bool
}

var errGone = fmt.Errorf("the process is gone: %w", fs.ErrClosed)

func (p *process) fail(op, name string) error {
	if f := p.disk.fuse.Load(); f != nil && op != "read" && op != "open" && !p.gone.Load() && f.left.Add(-1) == 0 {
		f.blow()
	}
	switch {
	case p.gone.Load():
		return errGone
	case p.disk.full.Load() && op == "allocate" && strings.Contains(name, "/partitions/"):
		return fmt.Errorf("%s: %w", name, vfs.ErrNoSpace)
	}
	return nil
}

// List implements vfs.FS.
func (p *process) List(dir string) ([]vfs.Entry, error) {
	if p.gone.Load() {
		return nil, errGone
	}
	return p.FS.List(dir)
}

// MkdirAll implements vfs.FS.
func (p *process) MkdirAll(dir string) error {
	if p.gone.Load() {
		return errGone
	}
	return p.FS.MkdirAll(dir)
}

// RemoveAll implements vfs.FS.
func (p *process) RemoveAll(dir string) error {
	if p.gone.Load() {
		return errGone
	}
	return p.FS.RemoveAll(dir)
}

// Lock implements vfs.FS.
func (p *process) Lock(name string) (io.Closer, error) {
	if p.gone.Load() {
		return nil, errGone
	}
	return p.FS.Lock(name)
}

// Space implements vfs.FS.
func (p *process) Space(string) (free, total int64, err error) {
	if p.disk.full.Load() {
		return 0, diskBytes, nil
	}
	return diskBytes / 2, diskBytes, nil
}

// The rest is what tests do to files while nobody looks.

// find gives the files and folders in dir whose name matches, sorted.
func find(t *testing.T, disk vfs.FS, dir, pattern string) (paths []string) {
	t.Helper()
	entries, err := disk.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if ok, err := filepath.Match(pattern, e.Name); err != nil {
			t.Fatal(err)
		} else if ok {
			paths = append(paths, filepath.Join(dir, e.Name))
		}
	}
	return paths
}

// contents reads a whole file.
func contents(t *testing.T, disk vfs.FS, path string) []byte {
	t.Helper()
	data, err := vfs.ReadFile(disk, path, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// overwrite writes into a file that is there.
func overwrite(t *testing.T, disk vfs.FS, path string, data []byte, at int64) {
	t.Helper()
	f, err := disk.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(data, at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// truncate cuts a file that is there.
func truncate(t *testing.T, disk vfs.FS, path string, size int64) {
	t.Helper()
	f, err := disk.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// damage flips one bit in the older half of a log that the dice choose, and says which; "": there
// is none that has enough. What was appended last is left alone: damage there is taken for an
// append that a crash has torn.
func (d *memDisk) damage(t *testing.T, dir string, dice *rand.Rand) string {
	t.Helper()
	disk := d.files()
	var logs []string
	for _, group := range find(t, disk, dir, "*-*") {
		if !strings.HasSuffix(group, ".deleted") {
			logs = append(logs, find(t, disk, group, "*.log")...)
		}
	}
	for _, i := range dice.Perm(len(logs)) {
		data := contents(t, disk, logs[i])
		end := len(data)
		for end > 0 && data[end-1] == 0 {
			end--
		}
		if end < 4000 {
			continue
		}
		at := 64 + dice.IntN(end/2-64)
		overwrite(t, disk, logs[i], []byte{data[at] ^ 1<<dice.IntN(8)}, int64(at))
		return fmt.Sprintf("%s at %d of %d", logs[i], at, end)
	}
	return ""
}

// folder is a folder on a disk.
type folder struct {
	disk vfs.FS
	path string
}

// on gives the machine's disk, or the node's own if it has one in memory.
func (n *testNode) on() vfs.FS {
	if n.disk == nil {
		return vfs.OS
	}
	return n.disk.files()
}

// folder is where the node's replica of a partition is.
func (n *testNode) folder(id fsm.PartitionID) folder { return folder{n.on(), n.partitionDir(id)} }

// onDisk has the nodes keep what they have on the machine's disk, for tests of what only that has.
func (c *testCluster) onDisk() {
	c.t.Helper()
	c.base = c.t.TempDir()
	for _, n := range c.nodes {
		n.disk, n.cfg.fs = nil, nil
		n.cfg.DataDir = filepath.Join(c.base, string(n.cfg.NodeID))
	}
}

// copyFolder copies a folder with all that is in it.
func copyFolder(t *testing.T, from vfs.FS, dir string, to vfs.FS, as string) {
	t.Helper()
	if err := to.MkdirAll(as); err != nil {
		t.Fatal(err)
	}
	entries, err := from.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		old, made := filepath.Join(dir, e.Name), filepath.Join(as, e.Name)
		if e.Dir {
			copyFolder(t, from, old, to, made)
		} else if err := vfs.ReplaceFile(to, made, contents(t, from, old)); err != nil {
			t.Fatal(err)
		}
	}
}
