package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"sync"
)

// Behind a torn write something good may begin anywhere, and what clients sent may look like it
// anywhere. So such a place is searched in one pass that takes time in proportion to its bytes,
// whatever they are.

// claim is a range of bytes that begins at a position and says which CRC it has.
type claim struct {
	at   int64  // where its header is
	to   int64  // where what the CRC is over ends
	tag  uint64 // the caller's
	crc  uint32 // what it should be
	skip uint8  // bytes of the header that the CRC is not over
}

// sweep looks for claims between from and limit. At each multiple of 8 bytes behind from, look is
// given the bytes there, size of them unless the file ends before, and says whether they are a
// claim; one that ends beyond limit counts as none. good is given those whose CRC is right, in the
// order in which they end, and says whether to go on. No claim begins with eight zeros: most of
// what is swept was allocated ahead, and look need not be given that.
//
// A CRC over some bytes follows from that of all bytes up to their first and that of all up to
// their last. So each byte is hashed once, but for what skip names, however many claims reach over
// it. hashed is how many were.
func sweep(r io.ReaderAt, from, limit int64, size int, look func(at int64, b []byte) (claim, bool), good func(claim) bool) (hashed int64, err error) {
	var (
		open claims
		crc  uint32 // of the bytes from where the first open claim begins to done
		done int64
		base = from // position of buf[0]
		buf  = make([]byte, min(walkChunk+int64(size), max(limit-from, 0)))
	)
	advance := func(to int64) {
		crc = crc32.Update(crc, castagnoli, buf[done-base:to-base])
		hashed += to - done
		done = to
	}
	for base < limit {
		want := min(int64(len(buf)), limit-base)
		n, err := r.ReadAt(buf[:want], base)
		if err != nil && !errors.Is(err, io.EOF) {
			return hashed, err
		}
		if int64(n) < want {
			limit = base + int64(n)
		}
		end := min(base+walkChunk, limit)
		for at := base; at < end; at += frameAlign {
			for len(open) > 0 && open[0].to <= at {
				c := open.pop()
				if advance(c.to); c.crc == crc && !good(c) {
					return hashed, nil
				}
			}
			if next := at + zeroStep; (at-base)%zeroStep == 0 && next <= end && (len(open) == 0 || open[0].to > next) && bytes.Equal(buf[at-base:next-base], zeros[:]) {
				at = next - frameAlign
				continue
			}
			c, ok := look(at, buf[at-base:min(at-base+int64(size), int64(n))])
			if !ok || c.to > limit || c.to < at+int64(c.skip) {
				continue
			}
			if len(open) == 0 {
				crc, done = 0, at
			}
			advance(at)
			before := crc32.Update(crc, castagnoli, buf[at-base:][:c.skip])
			hashed += int64(c.skip)
			c.crc ^= shiftSum(before, c.to-at-int64(c.skip)) // what crc is at its end if it is good
			open.push(c)
		}
		for len(open) > 0 && open[0].to <= end {
			c := open.pop()
			if advance(c.to); c.crc == crc && !good(c) {
				return hashed, nil
			}
		}
		if len(open) > 0 {
			advance(end)
		}
		base = end
	}
	return hashed, nil
}

// zeroStep is in how large steps zeros are passed over: a multiple of frameAlign.
const zeroStep = 1 << 10

var zeros [zeroStep]byte

// claims is a heap: the one that ends first is the first.
type claims []claim

func (h *claims) push(c claim) {
	*h = append(*h, c)
	list := *h
	for i := len(list) - 1; i > 0; {
		up := (i - 1) / 2
		if list[up].to <= list[i].to {
			break
		}
		list[up], list[i] = list[i], list[up]
		i = up
	}
}

func (h *claims) pop() claim {
	list := *h
	first, last := list[0], len(list)-1
	list[0] = list[last]
	list = list[:last]
	for i := 0; ; {
		down := 2*i + 1
		if down+1 < last && list[down+1].to < list[down].to {
			down++
		}
		if down >= last || list[i].to <= list[down].to {
			break
		}
		list[i], list[down] = list[down], list[i]
		i = down
	}
	*h = list
	return first
}

// CRC-32C as polynomials over GF(2), the highest bit being that of x^0.

// timesMod gives a times b modulo the polynomial.
func timesMod(a, b uint32) (product uint32) {
	for range 32 {
		product ^= b & -(a >> 31)
		a <<= 1
		b = b>>1 ^ crc32.Castagnoli&-(b&1)
	}
	return product
}

const shiftBits = 14

// shifts gives x^8n modulo the polynomial, for n below 2^shiftBits and for multiples of that up to
// the largest entry.
var shifts = sync.OnceValue(func() (s struct{ low, high []uint32 }) {
	fill := func(n int, step uint32) []uint32 {
		list := make([]uint32, n)
		list[0] = 1 << 31
		for i := 1; i < n; i++ {
			list[i] = timesMod(list[i-1], step)
		}
		return list
	}
	s.low = fill(1<<shiftBits+1, 1<<23)
	s.high = fill((maxPayload+maxExtra+1<<shiftBits)>>shiftBits+1, s.low[1<<shiftBits])
	return s
})

// shiftSum gives what a CRC adds to that of what it is of and n bytes more, at most those of the
// largest entry.
func shiftSum(crc uint32, n int64) uint32 {
	s := shifts()
	return timesMod(timesMod(s.low[n&(1<<shiftBits-1)], s.high[n>>shiftBits]), crc)
}

// isZeroWord reports whether b begins with eight zeros, or fewer if it ends before.
func isZeroWord(b []byte) bool {
	if len(b) >= frameAlign {
		return binary.LittleEndian.Uint64(b) == 0
	}
	return allZero(b)
}
