package raftlog

import (
	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// cache holds the newest entries of all raft groups of a node, bounded in bytes: what
// was just stored is sent to followers and applied a moment later. The oldest go
// first, whosever they are.
type cache struct {
	limit int64

	// mu guards all below. Nothing is taken or waited for under it.
	mu    locks.Mutex[cache]
	bytes int64
	queue []cached // a ring: head is the oldest
	head  int
	count int
}

type cached struct {
	of    *memberCache
	index uint64
	size  int64
}

// memberCache is the part of one group.
type memberCache struct {
	node *cache

	// mu guards entries. Nothing is taken or waited for under it.
	mu      locks.RWMutex[memberCache]
	entries map[uint64]*raft.Log
}

// entryOverhead is what an entry takes beside its data, about.
const entryOverhead = 160

func newCache(limit int64) *cache {
	return &cache{limit: limit, queue: make([]cached, 1024)}
}

func (c *cache) group() *memberCache {
	return &memberCache{node: c, entries: map[uint64]*raft.Log{}}
}

// add keeps entries. Their data must not change any more.
func (g *memberCache) add(entries []*raft.Log) {
	c := g.node
	g.mu.Lock()
	for _, entry := range entries {
		g.entries[entry.Index] = entry
	}
	g.mu.Unlock()
	c.mu.Lock()
	for _, entry := range entries {
		size := int64(len(entry.Data)+len(entry.Extensions)) + entryOverhead
		if c.count == len(c.queue) {
			bigger := make([]cached, 2*len(c.queue))
			for i := range c.count {
				bigger[i] = c.queue[(c.head+i)%len(c.queue)]
			}
			c.queue, c.head = bigger, 0
		}
		c.queue[(c.head+c.count)%len(c.queue)] = cached{g, entry.Index, size}
		c.count++
		c.bytes += size
	}
	var out []cached
	for c.bytes > c.limit && c.count > 0 {
		oldest := c.queue[c.head]
		c.queue[c.head] = cached{}
		c.head = (c.head + 1) % len(c.queue)
		c.count--
		c.bytes -= oldest.size
		out = append(out, oldest)
	}
	c.mu.Unlock()
	for _, o := range out {
		o.of.mu.Lock()
		delete(o.of.entries, o.index)
		o.of.mu.Unlock()
	}
}

func (g *memberCache) get(index uint64) *raft.Log {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.entries[index]
}

// forget drops the entries from index from on. They still count until they would
// have been dropped anyway.
func (g *memberCache) forget(from uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for index := range g.entries {
		if index >= from {
			delete(g.entries, index)
		}
	}
}
