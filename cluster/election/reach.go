package election

import "slices"

// Watch names the nodes to which a session is kept open and whose silence is
// noticed, whether or not anything is asked of them. It replaces what it named before.
func (p *Pulse) Watch(identities []string) {
	watched := make(map[string]bool, len(identities))
	for _, id := range identities {
		if id != p.link.Self() {
			watched[id] = true
		}
	}
	before := *p.watched.Swap(&watched)
	same := len(watched) == len(before)
	for id := range watched {
		same = same && before[id]
	}
	if !same {
		for id := range watched {
			p.link.Peer(id)
		}
		p.nodes.pulseSoon()
	}
}

// Gone says whether this node holds that one for gone: nothing was heard of it
// for Config.SuspectAfter, or its sessions ended and its address refuses
// connections. It is this node's view alone and may be wrong.
func (p *Pulse) Gone(identity string) bool { return p.nodes.Gone(identity) }

// Reach is what this node can say of its way to another one.
type Reach int

const (
	// Unheard: nothing is heard of it, which is the network's fault or its own, or it hears nothing
	// of this node.
	Unheard Reach = iota
	// Reached: a session is open, and both hear each other.
	Reached
	// Refused: its address refuses connections, so that no process runs there.
	Refused
)

// Reach says how far that node is reached right now, within SuspectAfter and a SignInterval or two.
func (p *Pulse) Reach(identity string) Reach {
	peer := p.link.Known(identity)
	if peer == nil {
		return Unheard
	}
	v := peer.Look()
	switch {
	case v.Refused:
		return Refused
	case v.Out == nil && v.In == nil || p.Gone(identity):
		return Unheard
	}
	if suspects, known := p.SuspectedBy(identity); known && slices.Contains(suspects, p.link.Self()) {
		return Unheard
	}
	return Reached
}

// SuspectedBy gives the nodes that the named node holds for gone, by its last
// sign; known is false if there is none that is fresh.
func (p *Pulse) SuspectedBy(identity string) (suspects []string, known bool) {
	n := p.nodes.known(identity)
	if n == nil {
		return nil, false
	}
	return p.nodes.suspectedBy(n)
}

// Follows says whether that node's last sign says that the group there follows this node in that
// term.
func (p *Pulse) Follows(identity, group string, term uint64) bool {
	n := p.nodes.known(identity)
	if n == nil {
		return false
	}
	c, _ := p.nodes.claimed(n, group)
	return c.kind == claimFollows && c.term == term
}
