package main

import (
	"math/bits"
	"sync"
)

// Requests of ordinary size are read into buffers that others have had before: new ones would have
// to be cleared, and collected. Their sizes are powers of two, of which these are the smallest and
// the largest, in bits. What does not count in memory (smallMessage) has no more than it needs: a
// client may have maxPending of them.
const (
	leastBuffer = 11
	mostBuffer  = 16
)

// buffers are free ones, by the bits of their size.
var buffers [mostBuffer + 1]sync.Pool

// newBuffer gives an empty buffer for n bytes at least, which is less than twice as large.
func newBuffer(n int) []byte {
	size := bits.Len(uint(n - 1))
	if size < leastBuffer || size > mostBuffer {
		return make([]byte, 0, n)
	}
	if b, ok := buffers[size].Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, 0, 1<<size)
}

// giveBack has the next one use a buffer of newBuffer's. Nobody may use it any more.
func giveBack(b []byte) {
	if size := bits.Len(uint(cap(b) - 1)); leastBuffer <= size && size <= mostBuffer && cap(b) == 1<<size {
		b = b[:0]
		buffers[size].Put(&b)
	}
}
