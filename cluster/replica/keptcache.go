package replica

import (
	"container/list"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// keptCacheBytes bounds the transaction indexes of complete segments that a node has in memory.
const keptCacheBytes = 8 << 20

// keptSegment names a complete segment of a replica.
type keptSegment struct {
	partition fsm.PartitionID
	from, to  fsm.Offset
	file      uint64
}

// keptCache has the transaction indexes of segments that were read last.
type keptCache struct {
	// mu guards what follows. Nothing is taken or waited for under it.
	mu    locks.Mutex[keptCache]
	by    map[keptSegment]*list.Element
	order list.List // of *keptEntry, the one used last in front
	bytes int
}

type keptEntry struct {
	segment keptSegment
	index   fsm.TransactionIndex // never changed
}

// size is about how many bytes an entry takes.
func (e *keptEntry) size() int { return 256 + 32*len(e.index.Aborted) + 16*len(e.index.Open) }

// get gives the index of a segment. It must not be changed.
func (c *keptCache) get(s keptSegment) (fsm.TransactionIndex, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.by[s]
	if !ok {
		return fsm.TransactionIndex{}, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*keptEntry).index, true
}

// put keeps the index of a segment, as long as there is room.
func (c *keptCache) put(s keptSegment, x fsm.TransactionIndex) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.by[s]; ok {
		return
	}
	if c.by == nil {
		c.by = map[keptSegment]*list.Element{}
	}
	entry := &keptEntry{s, x}
	c.by[s] = c.order.PushFront(entry)
	for c.bytes += entry.size(); c.bytes > keptCacheBytes; {
		last := c.order.Back()
		old := c.order.Remove(last).(*keptEntry)
		delete(c.by, old.segment)
		c.bytes -= old.size()
	}
}
