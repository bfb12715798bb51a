package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
)

// bbolt trusts its file: a page that is not what was written ends the process, some in a goroutine
// of its own, and so does a file that is too short for what is mapped of it. So the file is looked
// through before it is opened. What bbolt keeps in it has no CRC of its own; that of what this
// package writes is in the values.

const (
	boltMagic       = 0xED0CDAED
	boltPageHeader  = 16
	boltMetaSize    = 64
	boltElement     = 16
	boltBranch      = 1
	boltLeaf        = 2
	boltBucketFlag  = 1
	boltMinPage     = 512
	boltMaxPage     = 64 << 10
	boltBucketBytes = 16
)

// check gives an error that wraps raftlog.ErrDamaged if the bbolt file at path cannot be used. A
// file that is not there or empty is good.
func check(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	c := boltFile{f: f, size: info.Size(), seen: map[uint64]bool{}, left: info.Size() / boltElement}
	root, err := c.meta()
	if err == nil {
		err = c.pages(root, nil, nil)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

type boltFile struct {
	f    io.ReaderAt
	size int64
	page int64           // bytes
	used uint64          // pages in use
	seen map[uint64]bool // pages
	left int64           // elements that the file has room for besides those that were looked at
}

// meta finds the newest good one of the two, and gives the first page of the tree.
func (c *boltFile) meta() (root uint64, err error) {
	le := binary.LittleEndian
	newest, found := uint64(0), false
	try := func(at int64) bool {
		b := make([]byte, boltPageHeader+boltMetaSize)
		if _, err := c.f.ReadAt(b, at); err != nil {
			return false
		}
		m := b[boltPageHeader:]
		sum := fnv.New64a()
		sum.Write(m[:boltMetaSize-8])
		if le.Uint32(m) != boltMagic || le.Uint64(m[boltMetaSize-8:]) != sum.Sum64() {
			return false
		}
		if txid := le.Uint64(m[48:]); !found || txid > newest {
			newest, found = txid, true
			c.page, root, c.used = int64(le.Uint32(m[8:])), le.Uint64(m[16:]), le.Uint64(m[40:])
		}
		return true
	}
	if try(0) {
		try(c.page)
	} else {
		for at := int64(boltMinPage); at <= boltMaxPage && !found; at *= 2 {
			try(at)
		}
	}
	switch {
	case !found:
		return 0, fmt.Errorf("%w: it does not begin as a bbolt file", raftlog.ErrDamaged)
	case c.page < boltMinPage || c.page > boltMaxPage, c.used > uint64(c.size/c.page):
		return 0, fmt.Errorf("%w: it has %d bytes, want %d pages of %d", raftlog.ErrDamaged, c.size, c.used, c.page)
	}
	return root, nil
}

// pages checks the tree of pages that begins with one, whose keys are from low up to, but not,
// high; nil: any.
func (c *boltFile) pages(id uint64, low, high []byte) error {
	le := binary.LittleEndian
	bad := func(what string) error { return fmt.Errorf("%w: page %d: %s", raftlog.ErrDamaged, id, what) }
	if id < 2 || id >= c.used || c.seen[id] {
		return bad("it is out of place")
	}
	head := make([]byte, boltPageHeader)
	if _, err := c.f.ReadAt(head, int64(id)*c.page); err != nil {
		return err
	}
	more := uint64(le.Uint32(head[12:]))
	if le.Uint64(head) != id || id+more >= c.used {
		return bad("it is another one")
	}
	for i := range more + 1 {
		if c.seen[id+i] {
			return bad("it is in use twice")
		}
		c.seen[id+i] = true
	}
	b := make([]byte, (int64(more)+1)*c.page)
	if _, err := c.f.ReadAt(b, int64(id)*c.page); err != nil {
		return err
	}
	return c.elements(id, b, low, high)
}

// elements checks the elements of a page, or of a bucket within one.
func (c *boltFile) elements(id uint64, b, low, high []byte) error {
	le := binary.LittleEndian
	bad := func(what string) error { return fmt.Errorf("%w: page %d: %s", raftlog.ErrDamaged, id, what) }
	flags, count := le.Uint16(b[8:]), int(le.Uint16(b[10:]))
	if flags != boltBranch && flags != boltLeaf || flags == boltBranch && count == 0 || boltPageHeader+count*boltElement > len(b) {
		return bad(fmt.Sprintf("%d elements of kind %d", count, flags))
	}
	// Buckets that lie in one another's bytes would be looked at once for each way that leads to
	// them.
	if c.left -= int64(count); c.left < 0 {
		return bad("more elements than the file has room for")
	}
	type element struct {
		bucket     bool
		key, value []byte
		page       uint64
	}
	list := make([]element, count)
	for i := range list {
		at := boltPageHeader + i*boltElement
		e := b[at : at+boltElement]
		// A branch: position, key size, page. A leaf: flags, position, key size, value size.
		kind, pos, keySize, valueSize := uint32(0), le.Uint32(e), le.Uint32(e[4:]), uint32(0)
		if flags == boltLeaf {
			kind, pos, keySize, valueSize = le.Uint32(e), le.Uint32(e[4:]), le.Uint32(e[8:]), le.Uint32(e[12:])
		}
		from := uint64(at) + uint64(pos)
		if kind > boltBucketFlag || pos < boltElement || from+uint64(keySize)+uint64(valueSize) > uint64(len(b)) {
			return bad(fmt.Sprintf("element %d reaches beyond it", i))
		}
		key, value := b[from:from+uint64(keySize)], b[from+uint64(keySize):][:valueSize]
		if i > 0 && bytes.Compare(list[i-1].key, key) >= 0 || bytes.Compare(key, low) < 0 || high != nil && bytes.Compare(key, high) >= 0 {
			return bad(fmt.Sprintf("element %d is out of order", i))
		}
		list[i] = element{kind == boltBucketFlag, key, value, le.Uint64(e[8:])}
	}
	for i, e := range list {
		var err error
		switch {
		case flags == boltBranch:
			below := high
			if i+1 < count {
				below = list[i+1].key
			}
			err = c.pages(e.page, e.key, below)
		case !e.bucket:
		case len(e.value) < boltBucketBytes:
			err = bad(fmt.Sprintf("bucket %d has %d bytes", i, len(e.value)))
		default:
			inner := e.value[boltBucketBytes:]
			if root := le.Uint64(e.value); root != 0 {
				err = c.pages(root, nil, nil)
			} else if len(inner) < boltPageHeader || le.Uint16(inner[8:]) != boltLeaf {
				err = bad(fmt.Sprintf("bucket %d is no leaf", i))
			} else {
				err = c.elements(id, inner, nil, nil)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
