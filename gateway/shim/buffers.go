package shim

import "sync"

// Where messages are received by a function that keeps none (Dialer.Receive), they are in buffers
// that others have had before: large new ones would have to be cleared, and collected. There are
// those sizes that a message has while it grows (next).
var (
	bufferSizes = [...]int{firstAlloc, 4 * firstAlloc, 16 * firstAlloc}
	buffers     [len(bufferSizes)]sync.Pool
)

// smallMessage is the size up to which messages are in memory of their own, in bytes.
const smallMessage = 4 << 10

// buffer gives an empty buffer for n bytes at least. Memory counts n, so it is at most twice as
// large, or of the smallest size, which is that of what the connection is read through.
func (c *Conn) buffer(n int) []byte {
	if c.receive != nil && n > smallMessage {
		for i, size := range bufferSizes {
			if n > size {
				continue
			}
			if i > 0 && n < size/2 {
				break
			}
			if b, ok := buffers[i].Get().(*[]byte); ok {
				return *b
			}
			return make([]byte, 0, size)
		}
	}
	return make([]byte, 0, n)
}

// recycle takes a buffer that nobody uses any more.
func (c *Conn) recycle(b []byte) {
	if c.receive == nil {
		return
	}
	for i, size := range bufferSizes {
		if cap(b) == size {
			b = b[:0]
			buffers[i].Put(&b)
		}
	}
}
