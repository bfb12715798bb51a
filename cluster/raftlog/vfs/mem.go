package vfs

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// page is the unit in which a write that was not synced survives a power loss or
// does not.
const page = 512

// Mem is a file system in memory that can lose power. Crash gives what would be
// found afterwards: what was synced, and of the rest a random part. Folder
// changes survive in their order up to some moment, file contents page by page in
// any order, as on a disk with a journal for its metadata.
//
// What it does when a disk fails is what Linux does: see Lose.
type Mem struct {
	// mu guards all below but step, and the nodes and files. step is called without it, and nothing
	// is called or taken under it.
	mu    locks.Mutex[Mem]
	dead  bool
	root  map[string]*memNode // what is seen now; folders, too
	saved map[string]*memNode // what is on stable storage
	// pending are the changes of folders since the last sync of each, in order.
	pending []dirChange
	// Free is what can still be allocated, in bytes; negative for no limit.
	free int64
	// step is called before every operation that changes something. It may call
	// Stop, which makes this and all later operations fail.
	step func(op, name string)
	// lots says which pages a failing disk takes: one bit after the other.
	lots *rand.PCG
}

type dirChange struct {
	dir  string
	name string
	node *memNode // nil: the name is gone
}

type memNode struct {
	dir     bool
	data    sparse // as a reader sees it
	synced  sparse // on stable storage
	pending []memWrite
	open    int      // descriptors
	lost    error    // what the next sync says; nil: nothing was lost, or somebody was told
	locked  *memLock // who has it; nil: nobody
}

// memWrite is a change of a file that was not synced; a nil data is a truncation.
type memWrite struct {
	at   int64
	data []byte
}

// NewMem gives an empty file system; "/" and "." are there.
func NewMem() *Mem {
	m := &Mem{root: map[string]*memNode{}, saved: map[string]*memNode{}, free: -1, lots: rand.NewPCG(1, 1)}
	for _, dir := range []string{"/", "."} {
		n := &memNode{dir: true}
		m.root[dir], m.saved[dir] = n, n
	}
	return m
}

// OnStep sets what is called before every operation that changes something.
func (m *Mem) OnStep(step func(op, name string)) { m.step = step }

// Stop makes every later operation fail, as on a machine without power.
func (m *Mem) Stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
}

// Wipe gives the memory of all files back. Whoever still knows the file system asks nothing of it
// any more.
func (m *Mem) Wipe() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
	for _, names := range []map[string]*memNode{m.root, m.saved} {
		for _, node := range names {
			*node = memNode{dir: node.dir}
		}
	}
	m.root, m.saved, m.pending = nil, nil, nil
}

// SetFree bounds what files may still grow by, in bytes.
func (m *Mem) SetFree(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free = bytes
}

// Lose fails to write what was written to a file and not synced, as a disk does behind the back of
// the program. As on Linux since 4.13 (fsync(2), "Errors"; lib/errseq.c), some of the pages are on
// stable storage, the others never will be unless they are written to again, reads give all of them
// as if nothing had been, the next sync of the file says so, and the one after that succeeds.
// Whoever closes the file before loses the error. It reports whether there was anything to lose.
func (m *Mem) Lose(name string, err error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	node := m.root[filepath.Clean(name)]
	if node == nil || len(node.pending) == 0 {
		return false
	}
	node.lose(m.lots)
	node.lost = err
	return true
}

// Exit closes all files and gives up all locks, as the end of a process does. The file system goes
// on.
func (m *Mem) Exit() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, node := range m.root {
		node.open, node.lost, node.locked = 0, nil, nil
	}
}

// lose makes what was written clean, some of it without having written it. Sizes are kept by the
// file system's own journal.
func (n *memNode) lose(lots *rand.PCG) {
	n.write(func() bool { return lots.Uint64()&1 == 0 })
}

// writeBack brings all pages that were written to to stable storage.
func (n *memNode) writeBack() {
	n.write(func() bool { return true })
}

// write makes what was written clean, and brings those pages of it to stable storage of which
// brought says so.
func (n *memNode) write(brought func() bool) {
	for _, w := range n.pending {
		if w.data == nil {
			n.synced.resize(w.at)
			continue
		}
		for from := w.at / page * page; from < w.at+int64(len(w.data)); from += page {
			if brought() {
				n.writePage(from)
			}
		}
	}
	n.pending = nil
	n.synced.resize(n.data.size)
}

// writePage brings a page to stable storage as it is now.
func (n *memNode) writePage(from int64) {
	if to := min(from+page, n.data.size); from < to {
		n.synced.size = max(n.synced.size, to)
		n.synced.put(from, n.data.page(from))
	}
}

// Copy gives another file system with all that is in this one, on stable storage. Nobody has a file
// of it open.
func (m *Mem) Copy() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	other := NewMem()
	copies := map[*memNode]*memNode{}
	for name, node := range m.root {
		if copies[node] == nil {
			copies[node] = &memNode{dir: node.dir, data: node.data.clone(), synced: node.data.clone()}
		}
		other.root[name], other.saved[name] = copies[node], copies[node]
	}
	return other
}

// Crash gives the file system as it is after the power came back. m must not be
// used any more.
func (m *Mem) Crash(random *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
	names := m.saved
	for _, change := range m.pending[:random.IntN(len(m.pending)+1)] {
		applyChange(names, change)
	}
	after := NewMem()
	copies := map[*memNode]*memNode{}
	for name, node := range names {
		if copies[node] == nil {
			found := node.synced.clone()
			for _, w := range node.pending {
				survive(&found, w, random)
			}
			copies[node] = &memNode{dir: node.dir, data: found, synced: found.clone()}
		}
		after.root[name], after.saved[name] = copies[node], copies[node]
	}
	// What lies in a folder that is not there is not there.
	for name := range after.root {
		for dir := filepath.Dir(name); ; dir = filepath.Dir(dir) {
			if after.root[dir] == nil {
				delete(after.root, name)
				delete(after.saved, name)
				break
			}
			if dir == "/" || dir == "." {
				break
			}
		}
	}
	return after
}

func applyChange(names map[string]*memNode, c dirChange) {
	full := filepath.Join(c.dir, c.name)
	if c.node == nil {
		delete(names, full)
		return
	}
	names[full] = c.node
}

// survive applies a random part of a write, in pages of the file.
func survive(found *sparse, w memWrite, random *rand.Rand) {
	if w.data == nil {
		if random.IntN(2) != 0 {
			found.resize(w.at)
		}
		return
	}
	end := w.at + int64(len(w.data))
	for at := w.at; at < end; {
		next := min(end, (at/page+1)*page)
		if random.IntN(2) == 0 {
			found.write(w.data[at-w.at:next-w.at], at)
		}
		at = next
	}
}

var errNoPower = fmt.Errorf("no power: %w", fs.ErrClosed)

// change begins an operation that changes something; the lock is held when it
// returns nil.
func (m *Mem) change(op, name string) error {
	locks.MayWait(op)
	if m.step != nil {
		m.step(op, name)
	}
	m.mu.Lock()
	if m.dead {
		m.mu.Unlock()
		return errNoPower
	}
	return nil
}

func (m *Mem) link(name string, node *memNode) {
	name = filepath.Clean(name)
	if node == nil {
		delete(m.root, name)
	} else {
		m.root[name] = node
	}
	m.pending = append(m.pending, dirChange{filepath.Dir(name), filepath.Base(name), node})
}

func notThere(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	if err := m.change("create", name); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	if parent := m.root[filepath.Dir(filepath.Clean(name))]; parent == nil || !parent.dir {
		return nil, notThere("create", name)
	}
	node := &memNode{open: 1}
	m.link(name, node)
	return &memFile{fs: m, name: name, node: node}, nil
}

// Open implements FS.
func (m *Mem) Open(name string) (File, error) {
	locks.MayWait("opening a file")
	m.mu.Lock()
	defer m.mu.Unlock()
	node := m.root[filepath.Clean(name)]
	switch {
	case m.dead:
		return nil, errNoPower
	case node == nil || node.dir:
		return nil, notThere("open", name)
	}
	node.open++
	return &memFile{fs: m, name: name, node: node}, nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	if err := m.change("remove", name); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if m.root[filepath.Clean(name)] == nil {
		return notThere("remove", name)
	}
	m.link(name, nil)
	return nil
}

// Rename implements FS. A folder takes along what lies in it.
func (m *Mem) Rename(from, to string) error {
	if err := m.change("rename", from); err != nil {
		return err
	}
	defer m.mu.Unlock()
	from, to = filepath.Clean(from), filepath.Clean(to)
	node := m.root[from]
	if node == nil {
		return notThere("rename", from)
	}
	m.link(from, nil)
	m.link(to, node)
	if node.dir {
		for _, name := range m.below(from) {
			inner := m.root[name]
			m.link(name, nil)
			m.link(to+name[len(from):], inner)
		}
	}
	return nil
}

func (m *Mem) below(dir string) []string {
	var names []string
	for name := range m.root {
		if strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/") && name != dir {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// List implements FS.
func (m *Mem) List(dir string) ([]Entry, error) {
	locks.MayWait("listing a folder")
	m.mu.Lock()
	defer m.mu.Unlock()
	dir = filepath.Clean(dir)
	switch node := m.root[dir]; {
	case m.dead:
		return nil, errNoPower
	case node == nil || !node.dir:
		return nil, notThere("list", dir)
	}
	var entries []Entry
	for _, name := range m.below(dir) {
		if filepath.Dir(name) == dir {
			node := m.root[name]
			entries = append(entries, Entry{Name: filepath.Base(name), Dir: node.dir, Size: node.data.size})
		}
	}
	return entries, nil
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(dir string) error {
	if err := m.change("mkdir", dir); err != nil {
		return err
	}
	defer m.mu.Unlock()
	dir = filepath.Clean(dir)
	var missing []string
	for at := dir; m.root[at] == nil; at = filepath.Dir(at) {
		missing = append(missing, at)
	}
	slices.Reverse(missing)
	for _, at := range missing {
		m.link(at, &memNode{dir: true})
	}
	return nil
}

// RemoveAll implements FS.
func (m *Mem) RemoveAll(dir string) error {
	if err := m.change("removeall", dir); err != nil {
		return err
	}
	defer m.mu.Unlock()
	dir = filepath.Clean(dir)
	names := m.below(dir)
	slices.Reverse(names)
	for _, name := range names {
		m.link(name, nil)
	}
	if m.root[dir] != nil {
		m.link(dir, nil)
	}
	return nil
}

// SyncDir implements FS. As on a file system with one journal, what was done to
// other folders before is kept, too.
func (m *Mem) SyncDir(dir string) error {
	if err := m.change("syncdir", dir); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if m.root[filepath.Clean(dir)] == nil {
		return notThere("sync", dir)
	}
	for _, c := range m.pending {
		applyChange(m.saved, c)
	}
	m.pending = nil
	return nil
}

// Space implements FS.
func (m *Mem) Space(string) (free, total int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.free < 0 {
		return 1 << 50, 1 << 50, nil
	}
	return m.free, 1 << 50, nil
}
