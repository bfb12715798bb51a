package election

import (
	"fmt"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// inbound is a session of another node, a *link.Inbound; two of them are the same if they are
// equal.
type inbound interface {
	// Boot is the other process's random number.
	Boot() uint64
}

// heardBeacons is what the beacons of one other node have said.
type heardBeacons struct {
	// guards what follows; nothing is called under it, and nobody is waited for
	mu locks.Mutex[heardBeacons]

	sent   uint64           // beacons that were made for that node
	sentAt [sentTimes]int64 // link clock: when the last of them were, by their number

	from   inbound // the session that the rest came over; nil: none, and the rest is empty
	at     int64   // link clock of the last beacon
	seq    uint64  // of the last beacon
	echo   uint64  // the highest of our beacons that it says to have seen
	claims map[string]claim
	// version counts up when claims may be others than before, and when a session to that node ends
	version  uint64
	new      map[string]claim // who has begun to follow since somebody asked
	suspects []string
	waiting  []*confirmation // by what they need, ascending
}

// sentTimes is of how many beacons it is remembered when they were made: those of 1.6 s.
const sentTimes = 16

// confirmation is one heartbeat that waits for a beacon.
type confirmation struct {
	need  uint64 // the first of our beacons that was made after the heartbeat began
	group string
	term  uint64
	got   chan bool // capacity 1
}

// reset forgets everything: beacons of from are what counts now. Whoever waits is told no.
func (h *heardBeacons) reset(from inbound) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.resetLocked(from)
}

func (h *heardBeacons) resetLocked(from inbound) {
	h.refuseLocked()
	h.version++
	h.from, h.at, h.seq, h.echo, h.claims, h.new, h.suspects = from, 0, 0, 0, nil, nil, nil
}

// refuse tells whoever waits no: the session that our beacons went over is over.
func (h *heardBeacons) refuse() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refuseLocked()
	h.version++
}

func (h *heardBeacons) refuseLocked() {
	for _, w := range h.waiting {
		w.got <- false
	}
	h.waiting = nil
}

// ended forgets what came over a session that is over.
func (h *heardBeacons) ended(in inbound) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.from == in {
		h.resetLocked(nil)
	}
}

// take says whether the suspicions of that node have changed.
func (h *heardBeacons) take(in inbound, seq uint64, s *beacon, boot uint64, now int64) (news bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.from != in {
		return false, nil // a newer session has begun
	}
	if seq <= h.seq {
		return false, fmt.Errorf("%w: beacon %d after %d", link.ErrProtocol, seq, h.seq)
	}
	if h.claims == nil {
		h.claims = make(map[string]claim)
	}
	if len(s.withdrawn)+len(s.claims) > 0 {
		h.version++
	}
	for _, group := range s.withdrawn {
		delete(h.claims, group)
	}
	for _, c := range s.claims {
		h.claims[c.group] = c.claim
		if c.kind == claimFollows {
			if h.new == nil {
				h.new = make(map[string]claim)
			}
			h.new[c.group] = c.claim
		}
	}
	if len(h.claims) > maxClaims {
		return false, fmt.Errorf("%w: claims of %d groups", link.ErrProtocol, len(h.claims))
	}
	h.seq, h.at = seq, now
	// What an earlier process here had sent proves nothing to this one.
	if s.echoBoot == boot && s.echoSeq <= h.sent {
		h.echo = max(h.echo, s.echoSeq)
	}
	news = len(h.suspects) != len(s.suspects)
	for i := 0; i < len(s.suspects) && !news; i++ {
		news = h.suspects[i] != s.suspects[i]
	}
	h.suspects = s.suspects
	n := 0
	for ; n < len(h.waiting) && h.waiting[n].need <= h.echo; n++ {
		w := h.waiting[n]
		c := h.claims[w.group]
		w.got <- c.kind == claimFollows && c.term == w.term
		h.waiting[n] = nil
	}
	h.waiting = h.waiting[n:]
	return news, nil
}

// freshLocked says whether the last beacon is at most as old as a beacon may be late.
func (h *heardBeacons) freshLocked(now, limit int64) bool {
	return h.from != nil && h.at != 0 && now-h.at <= limit
}

// last gives what our next beacon echoes: the process and the number of the last beacon of that
// node.
func (h *heardBeacons) last() (boot, seq uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.from == nil {
		return 0, 0
	}
	return h.from.Boot(), h.seq
}

// number gives our next beacon, which is made now, its number.
func (h *heardBeacons) number(now int64) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sent++
	h.sentAt[h.sent%sentTimes] = now
	return h.sent
}

// news gives who has begun to follow since the last call. There are no more than claims.
func (h *heardBeacons) news() map[string]claim {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.new
	h.new = nil
	return n
}

// hearing is what can be made of a node's beacons at a moment. As long as it is the same for a
// node, its claims are.
type hearing struct {
	version uint64
	fresh   bool // as freshLocked says
	// confirms says that the claims are of no more than twice that ago: of after that node had seen
	// a beacon of ours that was made then.
	confirms bool
}

func (h *heardBeacons) hearing(now, fresh int64) hearing {
	h.mu.Lock()
	defer h.mu.Unlock()
	return hearing{h.version, h.freshLocked(now, fresh), h.confirmsLocked(now, 2*fresh)}
}

func (h *heardBeacons) confirmsLocked(now, limit int64) bool {
	return h.freshLocked(now, limit) && h.echo != 0 && h.sent-h.echo < sentTimes && now-h.sentAt[h.echo%sentTimes] <= limit
}
