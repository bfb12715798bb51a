package election

import (
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// beats are the heartbeats of a member to others, only of the newest term: to whom it leads.
type beats struct {
	changed atomic.Bool // another node or term since run looked

	mu locks.Mutex[beats] // guards to; nothing is called under it
	to map[raft.ServerID]beatTo
}

// beatTo is what is remembered of the heartbeats to one follower.
type beatTo struct {
	term uint64
	last int64 // link clock: when the last one ended
}

// towards says whether this raft group sends heartbeats of that term to that node: it leads, and
// the node is a member.
func (b *beats) towards(id raft.ServerID, term uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	last, ok := b.to[id]
	return ok && last.term == term
}

// first remembers a follower from the first message to it in a term, long before its first
// heartbeat.
func (b *beats) first(id raft.ServerID, term uint64, now int64) {
	if !b.towards(id, term) {
		b.note(id, term, now)
	}
}

func (b *beats) note(id raft.ServerID, term uint64, now int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.to == nil {
		b.to = make(map[raft.ServerID]beatTo)
	}
	if last, ok := b.to[id]; !ok || last.term != term {
		for other, last := range b.to {
			if last.term != term {
				delete(b.to, other)
			}
		}
		b.changed.Store(true)
	}
	b.to[id] = beatTo{term, now}
}

// periodic says whether a heartbeat is one of Raft's timer, which sends one every so often. Those
// that follow the one before sooner than the timer's shortest time were asked for by Raft's
// VerifyLeader, which has somebody waiting.
func (b *beats) periodic(id raft.ServerID, term uint64, now int64, every time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	last, ok := b.to[id]
	return ok && last.term == term && now-last.last >= int64(every)
}
