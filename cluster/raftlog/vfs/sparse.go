package vfs

import (
	"bytes"
	"slices"
)

// sparse is what a file of a Mem has: its size, and pages. Files have mostly zeros, as whoever
// writes allocates ahead, and mostly what is on stable storage, too: pages that are zero take no
// memory, and two contents share those that are the same. For that a page never changes; whoever
// writes to it makes a new one.
type sparse struct {
	size  int64
	pages []*[page]byte // nil, and what is behind the last: zeros, as all behind size
}

var zeroPage [page]byte

// clone gives the same content.
func (c *sparse) clone() sparse { return sparse{c.size, slices.Clone(c.pages)} }

// page gives the page that begins at from, a multiple of page; nil: it is zero.
func (c *sparse) page(from int64) *[page]byte {
	if i := from / page; i < int64(len(c.pages)) {
		return c.pages[i]
	}
	return nil
}

// put makes p the page that begins at from.
func (c *sparse) put(from int64, p *[page]byte) {
	i := int(from / page)
	if i >= len(c.pages) {
		if p == nil {
			return
		}
		c.pages = append(c.pages, make([]*[page]byte, i+1-len(c.pages))...)
	}
	c.pages[i] = p
}

// read gives bytes from at on, and how many there were.
func (c *sparse) read(b []byte, at int64) (n int) {
	b = b[:max(0, min(int64(len(b)), c.size-at))]
	for n < len(b) {
		from := (at + int64(n)) / page * page
		within := at + int64(n) - from
		if p := c.page(from); p != nil {
			n += copy(b[n:], p[within:])
		} else {
			zeros := min(len(b)-n, int(page-within))
			clear(b[n : n+zeros])
			n += zeros
		}
	}
	return n
}

// write puts bytes at a position; the file grows if they end behind it.
func (c *sparse) write(b []byte, at int64) {
	c.size = max(c.size, at+int64(len(b)))
	for len(b) > 0 {
		from := at / page * page
		n := min(len(b), int(from+page-at))
		if was := c.page(from); n == page && bytes.Equal(b[:n], zeroPage[:]) {
			c.put(from, nil)
		} else {
			next := new([page]byte)
			if was != nil && n < page {
				*next = *was
			}
			copy(next[at-from:], b[:n])
			c.put(from, next)
		}
		b, at = b[n:], at+int64(n)
	}
}

// resize sets the size. When the file grows again, it has zeros there.
func (c *sparse) resize(size int64) {
	if size < c.size {
		whole := size / page
		if from := whole * page; from < size {
			if was := c.page(from); was != nil {
				next := new([page]byte)
				copy(next[:size-from], was[:])
				c.put(from, next)
			}
			whole++
		}
		if whole < int64(len(c.pages)) {
			clear(c.pages[whole:])
			c.pages = c.pages[:whole]
		}
	}
	c.size = size
}
