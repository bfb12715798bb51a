package link

import (
	"fmt"
	"sort"
	"time"
)

// PeerStats is what the link knows about one other node.
type PeerStats struct {
	Identity string
	// Connected: a session from or to that node is open.
	Connected bool
	// LastHeard is when the last byte of that node arrived; zero if never.
	LastHeard time.Time
	// LastError is why the last attempt to reach it failed; "" if it did not.
	LastError string
}

func (p *Peer) snapshot() PeerStats {
	s := PeerStats{Identity: p.identity}
	if at := p.heard.Load(); at != 0 {
		s.LastHeard = p.base.At(at)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Connected = p.out != nil || p.in != nil
	if p.lastErr != nil {
		s.LastError = p.lastErr.Error()
	}
	return s
}

// Peers lists the nodes this link has had to do with, by identity.
func (l *Link) Peers() []PeerStats {
	var out []PeerStats
	for _, p := range l.All() {
		out = append(out, p.snapshot())
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Identity < out[j].Identity })
	return out
}

// Drop closes all sessions with that node and forgets its back-off: it was removed, or its address
// changed.
func (l *Link) Drop(identity string) {
	p := l.Known(identity)
	if p == nil {
		return
	}
	p.mu.Lock()
	out, in := p.out, p.in
	p.fails, p.retryAt, p.lastErr, p.refused = 0, 0, nil, false
	p.mu.Unlock()
	err := fmt.Errorf("%w: dropped", ErrBroken)
	if out != nil {
		out.fail(err)
	}
	if in != nil {
		in.close(err)
	}
}
