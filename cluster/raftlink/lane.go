package raftlink

import (
	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/internal/locks"
)

const (
	// laneLength and laneBytes bound what waits for one raft group; more is refused.
	laneLength = 256
	laneBytes  = 64 << 20
	// heartbeatLane bounds the heartbeats that wait for one group.
	heartbeatLane = 16
)

// received is one Raft request on its way to its group.
type received struct {
	*link.Request
	req  any
	fast func(raft.RPC) // takes a heartbeat
}

func (r *received) size() int { return len(r.Body) }

// lane feeds one raft group in order, with a goroutine only while there is something to feed.
type lane struct {
	mu      locks.Mutex[lane] // guards what follows; nothing is called under it
	queue   []*received
	bytes   int
	running bool
}

// push queues r and says whether the caller must start the lane; false, false means full.
func (q *lane) push(r *received, most int) (start, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) >= most || (len(q.queue) > 0 && q.bytes+r.size() > laneBytes) {
		return false, false
	}
	q.queue = append(q.queue, r)
	q.bytes += r.size()
	start = !q.running
	q.running = true
	return start, true
}

func (q *lane) pop() *received {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) == 0 {
		q.running, q.queue = false, nil
		return nil
	}
	r := q.queue[0]
	q.queue[0] = nil
	q.queue = q.queue[1:]
	q.bytes -= r.size()
	return r
}
