package link

import (
	"fmt"
	"sort"
)

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
