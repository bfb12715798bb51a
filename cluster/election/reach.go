package election

import "slices"

// Watch names the nodes to which a session is kept open and whose silence is
// noticed, whether or not anything is asked of them. It replaces what it named before.
func (b *Beacons) Watch(identities []string) {
	watched := make(map[string]bool, len(identities))
	for _, id := range identities {
		if id != b.link.Self() {
			watched[id] = true
		}
	}
	before := *b.watched.Swap(&watched)
	same := len(watched) == len(before)
	for id := range watched {
		same = same && before[id]
	}
	if !same {
		for id := range watched {
			b.link.Peer(id)
		}
		b.nodes.roundSoon()
	}
}

// Gone says whether this node holds that one for gone: nothing was heard of it
// for Config.SuspectAfter, or its sessions ended and its address refuses
// connections. It is this node's view alone and may be wrong.
func (b *Beacons) Gone(identity string) bool { return b.nodes.Gone(identity) }

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

// Reach says how far that node is reached right now, within SuspectAfter and a BeaconInterval or
// two.
func (b *Beacons) Reach(identity string) Reach {
	peer := b.link.Known(identity)
	if peer == nil {
		return Unheard
	}
	v := peer.Look()
	switch {
	case v.Refused:
		return Refused
	case v.Out == nil && v.In == nil || b.Gone(identity):
		return Unheard
	}
	if suspects, known := b.SuspectedBy(identity); known && slices.Contains(suspects, b.link.Self()) {
		return Unheard
	}
	return Reached
}

// SuspectedBy gives the nodes that the named node holds for gone, by its last
// beacon; known is false if there is none that is fresh.
func (b *Beacons) SuspectedBy(identity string) (suspects []string, known bool) {
	n := b.nodes.known(identity)
	if n == nil {
		return nil, false
	}
	return b.nodes.suspectedBy(n)
}

// Follows says whether that node's last beacon says that the raft group there follows this node in
// that term.
func (b *Beacons) Follows(identity, group string, term uint64) bool {
	n := b.nodes.known(identity)
	if n == nil {
		return false
	}
	c, _ := b.nodes.claimed(n, group)
	return c.kind == claimFollows && c.term == term
}
