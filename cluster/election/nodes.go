package election

import (
	"sync/atomic"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// nodes is what is known of the other nodes by their beacons. It observes the link.
type nodes struct {
	boot  uint64       // of this process
	now   func() int64 // link clock
	fresh int64        // nanoseconds that a beacon may be old
	poke  chan struct{}
	heard atomic.Uint64 // beacons

	// mu guards byName. It is a leaf: the link calls in here under locks of its own.
	mu     locks.Mutex[nodes]
	byName map[string]*node
}

// node is what is known of one other node.
type node struct {
	identity string
	gone     atomic.Bool // as Beacons.Gone says
	beacons  heardBeacons

	// Owned by run.
	wantedSince int64 // link clock; 0: no session is kept for its own sake
	told        told
}

// named gives the node with that identity, which is remembered until the link forgets it.
func (s *nodes) named(identity string) *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.byName[identity]
	if n == nil {
		n = &node{identity: identity}
		s.byName[identity] = n
	}
	return n
}

// known gives the node with that identity, nil if nothing is known of it.
func (s *nodes) known(identity string) *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byName[identity]
}

// roundSoon makes the next round of beacons begin now.
func (s *nodes) roundSoon() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// all gives the nodes that are known.
func (s *nodes) all() []*node {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*node, 0, len(s.byName))
	for _, n := range s.byName {
		out = append(out, n)
	}
	return out
}

// Accepted implements link.Observer.
func (s *nodes) Accepted(in *link.Inbound) { s.named(in.Node()).beacons.reset(in) }

// Ended implements link.Observer.
func (s *nodes) Ended(in *link.Inbound) {
	if n := s.known(in.Node()); n != nil {
		n.beacons.ended(in)
	}
}

// Lost implements link.Observer.
func (s *nodes) Lost(identity string) {
	if n := s.known(identity); n != nil {
		n.beacons.refuse()
	}
}

// Forgotten implements link.Observer.
func (s *nodes) Forgotten(identity string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byName, identity)
}

// Changed implements link.Observer.
func (s *nodes) Changed() { s.roundSoon() }

// Beacon implements link.Observer: it takes one beacon, on the reading goroutine.
func (s *nodes) Beacon(in *link.Inbound, seq uint64, body []byte) error {
	said, err := decodeBeacon(body)
	if err != nil {
		return err
	}
	s.heard.Add(1)
	n := s.known(in.Node())
	if n == nil {
		return nil // forgotten: its session is over
	}
	news, err := n.beacons.take(in, seq, &said, s.boot, s.now())
	if news {
		s.roundSoon()
	}
	return err
}

// Gone implements raftlink.Host.
func (s *nodes) Gone(identity string) bool {
	n := s.known(identity)
	return n != nil && n.gone.Load()
}

// Instance implements raftlink.Host.
func (s *nodes) Instance(identity string, boot uint64, group string, term uint64) uint64 {
	n := s.known(identity)
	if n == nil {
		return 0
	}
	c, by := s.claimed(n, group)
	if by != boot || c.kind != claimFollows || c.term != term {
		return 0
	}
	return c.instance
}

// claimed gives what that node claims of a raft group, the zero claim if its beacons
// are late. boot is the process that claims it.
func (s *nodes) claimed(n *node, group string) (c claim, boot uint64) {
	h := &n.beacons
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.freshLocked(s.now(), s.fresh) {
		return claim{}, 0
	}
	return h.claims[group], h.from.Boot()
}

// expect enters a heartbeat that waits for a beacon; nil if it is already known that it would wait
// in vain.
func (s *nodes) expect(identity, group string, term uint64) *confirmation {
	n := s.known(identity)
	if n == nil {
		return nil
	}
	h := &n.beacons
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.claims[group]; !h.freshLocked(s.now(), s.fresh) || c.kind != claimFollows || c.term != term || len(h.waiting) >= maxClaims {
		return nil
	}
	w := &confirmation{need: h.sent + 1, group: group, term: term, got: make(chan bool, 1)}
	h.waiting = append(h.waiting, w)
	return w
}

// suspectedBy gives the nodes that n holds for gone, by its last beacon; known is false if there is
// none that is fresh.
func (s *nodes) suspectedBy(n *node) (suspects []string, known bool) {
	h := &n.beacons
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.suspects, h.freshLocked(s.now(), s.fresh)
}
