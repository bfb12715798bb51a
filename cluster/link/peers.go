package link

import "github.com/trimaran-io/trimaran/internal/locks"

// maxPeers bounds the nodes that are remembered: anybody can say a new name.
const maxPeers = 4096

// peers are the other nodes that this link has had to do with.
type peers struct {
	base *base

	// mu guards byName. Where it is full Observer.Forgotten is called under it, and locks of peers
	// are tried, never waited for: the order is the other way round.
	mu     locks.Mutex[peers]
	byName map[string]*Peer
}

// named gives the node with that identity, which is remembered from now on.
func (s *peers) named(identity string) *Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.byName[identity]
	if p == nil {
		if len(s.byName) >= maxPeers {
			s.forgetLocked()
		}
		p = &Peer{base: s.base, identity: identity}
		s.byName[identity] = p
	}
	return p
}

// forgetLocked forgets nodes that have no session. Whoever is busy is not idle.
func (s *peers) forgetLocked() {
	for id, p := range s.byName {
		if !p.mu.TryLock() {
			continue
		}
		if p.in == nil && p.out == nil && p.dialing == [2]*dialAttempt{} {
			delete(s.byName, id)
			s.base.observer.Forgotten(id)
		}
		p.mu.Unlock()
	}
}

// known gives the node with that identity, nil if this link has had nothing to do with it.
func (s *peers) known(identity string) *Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byName[identity]
}

func (s *peers) all() []*Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*Peer, 0, len(s.byName))
	for _, p := range s.byName {
		out = append(out, p)
	}
	return out
}

// Peer gives what this link knows of the node with that identity, and remembers it from now on.
func (l *Link) Peer(identity string) *Peer { return l.peers.named(identity) }

// Known is Peer for a node that this link has had to do with, else nil.
func (l *Link) Known(identity string) *Peer { return l.peers.known(identity) }

// All gives the nodes that this link has had to do with, in no order.
func (l *Link) All() []*Peer { return l.peers.all() }
