package tier

import (
	"container/list"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"sync/atomic"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// cache has pieces that were fetched. The last few are in memory. Of those that have to go from
// there a file gets what was not read to its end yet, as what is fetched ahead, and what is
// fetched again before as many bytes have gone as there is room for in files. What is read once
// from end to end is never written: that would be work for the disk that the logs wait for, and
// nobody would read it.
//
// Nothing in it is needed. What is in a file is checked batch by batch when it is read; what is in
// memory has just been checked.
type cache struct {
	fs    vfs.FS
	dir   string
	limit int64 // bytes of files
	files atomic.Uint64

	// mu guards what follows. Nothing is taken or waited for, and no file touched, under it.
	mu       locks.Mutex[cache]
	by       map[string]*list.Element // of *cached
	order    list.List                // the one used last in front
	bytes    int64                    // of files
	inMemory []*cached                // the one used last at the end
	gone     gone
}

const (
	// memoryPieces is how many pieces are kept in memory: of two readers what each is at, what is
	// ahead of it, and what it has just left, where it may ask for an offset behind the last batch.
	memoryPieces = 2 * (1 + readAhead + 1)
	// memoryBytes bounds what they take together, but for one that is larger by itself.
	memoryBytes = memoryPieces * defaultPiece
	// maxGone bounds the keys that are remembered of what has gone: of 1 TiB in pieces of the
	// default size, with about 45 MB.
	maxGone = 128 << 10
)

// cached is a piece in the cache.
type cached struct {
	key    string
	size   int64
	places []place

	// The cache's mu guards these. One of data and file is there at least, and what file is does
	// not change when data is nil.
	file  string // "": in memory alone
	data  []byte // nil: not in memory
	ended bool   // who used it last read it to its end
}

// gone are the keys of pieces that went from memory without a file, as many as are together as
// large as all files may be, and maxGone at most.
type gone struct {
	by    map[string]*list.Element // of goneKey
	order list.List                // the one that has just gone in front
	bytes int64
}

type goneKey struct {
	key  string
	size int64
}

// add notes one; limit is of the bytes of all.
func (g *gone) add(key string, size, limit int64) {
	g.take(key)
	g.by[key] = g.order.PushFront(goneKey{key, size})
	for g.bytes += size; g.bytes > limit || len(g.by) > maxGone; {
		g.take(g.order.Back().Value.(goneKey).key)
	}
}

// take takes one out, and reports whether it was there.
func (g *gone) take(key string) bool {
	e, ok := g.by[key]
	if ok {
		g.bytes -= g.order.Remove(e).(goneKey).size
		delete(g.by, key)
	}
	return ok
}

// place is where a batch stands in a piece: one every placeEvery bytes.
type place struct {
	offset fsm.Offset // first of the batch
	pos    int64
}

const placeEvery = 64 << 10

func newCache(fs vfs.FS, dir string, limit int64) *cache {
	return &cache{fs: fs, dir: dir, limit: limit, by: map[string]*list.Element{}, gone: gone{by: map[string]*list.Element{}}}
}

// get gives a piece, and what it has in memory; nil: not there.
func (c *cache) get(key string) (p *cached, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.by[key]
	if !ok {
		return nil, nil
	}
	c.order.MoveToFront(e)
	p = e.Value.(*cached)
	p.ended = false // until this reader is at its end, too
	if i := slices.Index(c.inMemory, p); i >= 0 {
		c.inMemory = append(slices.Delete(c.inMemory, i, i+1), p)
	}
	return p, p.data
}

// ended notes that a piece was read to its end.
func (c *cache) ended(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.by[key]; ok {
		e.Value.(*cached).ended = true
	}
}

// has reports whether a piece is there.
func (c *cache) has(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.by[key]
	return ok
}

// put keeps a piece. disk: files may be written. Its bytes must not be changed any more.
func (c *cache) put(key string, data []byte, places []place, disk bool) {
	p := &cached{key: key, size: int64(len(data)), places: places, data: data}
	var remove []string
	for _, s := range c.insert(p) {
		file := ""
		if disk && s.p.size <= c.limit {
			file = filepath.Join(c.dir, strconv.FormatUint(c.files.Add(1), 10)+".piece")
			if c.write(file, s.data) != nil {
				_ = c.fs.Remove(file)
				file = ""
			}
		}
		remove = append(remove, c.spill(s.p, file)...)
	}
	for _, file := range remove {
		_ = c.fs.Remove(file)
	}
}

func (c *cache) write(file string, data []byte) error {
	f, err := c.fs.Create(file)
	if err != nil {
		return err
	}
	err = vfs.WriteOnce(f, data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// spilled is a piece that has to go into a file, and its data, which spill may take from it.
type spilled struct {
	p    *cached
	data []byte
}

// insert puts a piece in front of all, and gives those that have to go from memory into files; they
// keep their data until spill is called.
func (c *cache) insert(p *cached) (spills []spilled) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by[p.key] != nil {
		return nil // two have fetched it
	}
	c.by[p.key] = c.order.PushFront(p)
	c.inMemory = append(c.inMemory, p)
	if c.gone.take(p.key) {
		spills = append(spills, spilled{p, p.data})
	}
	for len(c.inMemory) > memoryPieces || len(c.inMemory) > 1 && c.memoryLocked() > memoryBytes {
		// First what needs no file: else what is ahead were written, and what was read stayed.
		i := slices.IndexFunc(c.inMemory[:len(c.inMemory)-1], func(m *cached) bool { return m.ended || m.file != "" })
		i = max(i, 0)
		old := c.inMemory[i]
		c.inMemory = slices.Delete(c.inMemory, i, i+1)
		switch {
		case old.file != "":
			old.data = nil
		case old.ended:
			c.removeLocked(c.by[old.key])
			c.gone.add(old.key, old.size, c.limit)
		default:
			spills = append(spills, spilled{old, old.data})
		}
	}
	return spills
}

// memoryLocked is how many bytes are in memory.
func (c *cache) memoryLocked() (n int64) {
	for _, p := range c.inMemory {
		n += p.size
	}
	return n
}

// spill notes that a piece has a file, "" if it could not get one, and gives the files that have no
// place any more.
func (c *cache) spill(p *cached, file string) (remove []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.by[p.key]
	stays := slices.Contains(c.inMemory, p)
	switch {
	case e == nil || e.Value.(*cached) != p || p.file != "":
		if file != "" {
			remove = append(remove, file) // it was taken out meanwhile, or has one
		}
		return remove
	case file != "":
		p.file, c.bytes = file, c.bytes+p.size
	case !stays:
		c.removeLocked(e)
	}
	if !stays {
		p.data = nil
	}
	for c.bytes > c.limit {
		e := c.order.Back()
		for e != nil && (e.Value.(*cached).file == "" || e.Value.(*cached) == p) {
			e = e.Prev()
		}
		if e == nil {
			break
		}
		remove = append(remove, c.removeLocked(e)...)
	}
	return remove
}

func (c *cache) removeLocked(e *list.Element) (remove []string) {
	if e == nil {
		return nil
	}
	p := c.order.Remove(e).(*cached)
	if c.by[p.key] == e {
		delete(c.by, p.key)
	}
	c.inMemory = slices.DeleteFunc(c.inMemory, func(m *cached) bool { return m == p })
	if p.data = nil; p.file == "" {
		return nil
	}
	c.bytes -= p.size
	return []string{p.file}
}

// drop takes a piece out. p: that one, which get gave, and none that was fetched since; nil: any.
func (c *cache) drop(key string, p *cached) {
	c.mu.Lock()
	var remove []string
	if e := c.by[key]; e != nil && (p == nil || e.Value.(*cached) == p) {
		remove = c.removeLocked(e)
	}
	c.mu.Unlock()
	for _, file := range remove {
		_ = c.fs.Remove(file)
	}
}

// giveUp takes out all that is in files.
func (c *cache) giveUp() {
	c.mu.Lock()
	var remove []string
	for e := c.order.Front(); e != nil; {
		next := e.Next()
		if e.Value.(*cached).file != "" {
			remove = append(remove, c.removeLocked(e)...)
		}
		e = next
	}
	c.mu.Unlock()
	for _, file := range remove {
		_ = c.fs.Remove(file)
	}
}

// size gives the bytes of all files.
func (c *cache) size() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}

// placesOf goes over the batches of a piece, which must have offsets from first to the one in front
// of next, and gives places of them. The error wraps ErrDamaged.
func placesOf(data []byte, first, next fsm.Offset) (places []place, err error) {
	pos, since := int64(0), int64(placeEvery)
	for batch, err := range kafkaproto.Batches(data) {
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		h := batch.Header()
		base, end := fsm.Offset(h.BaseOffset), fsm.Offset(h.NextOffset())
		if end <= first && len(places) > 0 || end > next || end <= base {
			return nil, fmt.Errorf("%w: a batch of offsets %d to %d between %d and %d", ErrDamaged, base, end, first, next)
		}
		if since >= placeEvery {
			places, since = append(places, place{base, pos}), 0
		}
		pos, since, first = pos+int64(batch.Size()), since+int64(batch.Size()), end
	}
	return places, nil
}

// from gives the position from which a batch that has an offset, or the first behind it, is to be
// looked for.
func (p *cached) from(offset fsm.Offset) int64 {
	i := sort.Search(len(p.places), func(i int) bool { return p.places[i].offset > offset })
	if i == 0 {
		return 0
	}
	return p.places[i-1].pos
}

// read reads bytes of a piece from a position on, n at most.
func (c *cache) read(p *cached, data []byte, pos int64, n int) ([]byte, error) {
	n = int(min(int64(n), p.size-pos))
	if data != nil {
		return data[pos : pos+int64(n)], nil
	}
	f, err := c.fs.Open(p.file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, n)
	if got, err := f.ReadAt(b, pos); got < n {
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return b, nil
}
