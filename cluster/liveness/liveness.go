package liveness

import (
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/membership"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// Way is what a node can say of its way to another one.
type Way int

const (
	// Unheard: nothing is heard of it, which is the network's fault or its own.
	Unheard Way = iota
	// Reached: a session is open, and both hear each other.
	Reached
	// Refused: its address refuses connections, so that no process runs there.
	Refused
)

// Config is where the answers come from. The functions are called from many goroutines.
type Config struct {
	Self string // this node's identity
	// Connected reports whether a session with a node is open.
	Connected func(identity string) bool
	// Way gives this node's way to another.
	Way func(identity string) Way
	// Members is what gossip says; nil while gossip is not there yet.
	Members func() []membership.Member
	// Said are the addresses at which gossip says that a node listens for others, the newest first.
	// Anybody may have said so.
	Said func(identity string) []string
}

// Nodes answers who is there. All methods are safe for concurrent use.
type Nodes struct {
	cfg Config

	mu        locks.Mutex[Nodes] // guards what follows; nothing else is done under it
	addresses map[string]string  // peer addresses by identity, of everyone ever met
	reached   map[string]bool    // those of them at which the node itself has answered
}

// New gives the answers of one node.
func New(cfg Config) *Nodes {
	return &Nodes{cfg: cfg, addresses: map[string]string{}, reached: map[string]bool{}}
}

// Connected reports whether the node is reached right now. A node reaches itself.
func (n *Nodes) Connected(identity string) bool {
	return identity == n.cfg.Self || n.cfg.Connected(identity)
}

// Reached reports whether another node is reached, and hears this one.
func (n *Nodes) Reached(identity string) bool { return n.cfg.Way(identity) == Reached }

// Unheard reports whether nothing is heard of another node, which may serve all the same.
func (n *Nodes) Unheard(identity string) bool { return n.cfg.Way(identity) == Unheard }

// Here are the registered nodes that are reached right now, this one among them if it is
// registered.
func (n *Nodes) Here(view *fsm.Topics) map[fsm.NodeID]bool {
	here := map[fsm.NodeID]bool{}
	for _, node := range view.Nodes() {
		if n.Connected(node.Identity()) {
			here[node.ID] = true
		}
	}
	return here
}

// MajorityHere reports whether a majority of a group's voters is there.
func (n *Nodes) MajorityHere(servers []raft.Server) bool { return n.MajorityWithout(servers, "") }

// MajorityWithout reports whether a majority of the voters that are left without a member is
// there. If not it must not go: a configuration counts from the moment at which it is in the
// leader's log, and such a one could neither be committed nor taken back, so that the group would
// be without a leader until others return.
func (n *Nodes) MajorityWithout(servers []raft.Server, identity string) bool {
	return raftgroup.MajorityWithout(servers, identity, n.Connected)
}

// MajorityWith is MajorityWithout for one more voter, which must be there itself: it counts for
// the majority from now on.
func (n *Nodes) MajorityWith(servers []raft.Server, identity string) bool {
	return raftgroup.MajorityWith(servers, identity, n.Connected)
}

// CutOff gives an error while this node does not reach a majority of those voters. elsewhere says
// that those that it does not hear may be one, and serve. Nodes whose address refuses
// connections are not: nobody is served there.
func (n *Nodes) CutOff(voters []string) (elsewhere bool, err error) {
	reached, unheard := 0, 0
	for _, identity := range voters {
		switch {
		case identity == n.cfg.Self || n.Reached(identity):
			reached++
		case n.Unheard(identity):
			unheard++
		}
	}
	majority := len(voters)/2 + 1
	if reached >= majority {
		return false, nil
	}
	return unheard >= majority, fmt.Errorf("of the catalog's %d voters this node reaches %d", len(voters), reached)
}

// Severed says whether other members of a group may know of a leader that its member here cannot
// hear of: what it knows, "" for none, tells no more.
func (n *Nodes) Severed(leader string, members []string) bool {
	if leader == n.cfg.Self || leader != "" && !n.Unheard(leader) {
		return false
	}
	reached, unheard := false, false
	for _, identity := range members {
		if identity == n.cfg.Self {
			continue
		}
		switch n.cfg.Way(identity) {
		case Reached:
			reached = true
		case Unheard:
			unheard = true
		}
	}
	return reached && unheard
}

// Members are the nodes that gossip knows, with what they say of themselves.
func (n *Nodes) Members() []membership.Member { return n.cfg.Members() }

// Resolve gives the peer address of a node: where it was reached last, else what gossip says. What
// gossip says moves no node: Elsewhere has it, for who does not find the node where it was. It does
// not block.
func (n *Nodes) Resolve(identity string) (addr string, ok bool) {
	n.mu.Lock()
	addr, ok = n.addresses[identity]
	reached := n.reached[identity]
	n.mu.Unlock()
	if reached {
		return addr, true
	}
	for _, m := range n.cfg.Members() {
		if m.Identity == identity {
			n.note(identity, m.PeerAddr, false)
			return m.PeerAddr, true
		}
	}
	return addr, ok
}

// ReachedAt notes where a node has answered, having proved that it is the one as far as it has to.
func (n *Nodes) ReachedAt(identity, addr string) { n.note(identity, addr, true) }

func (n *Nodes) note(identity, addr string, reached bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if reached || !n.reached[identity] {
		n.addresses[identity], n.reached[identity] = addr, reached
	}
}

// Elsewhere gives the addresses at which gossip says that a node is. It does not block.
func (n *Nodes) Elsewhere(identity string) []string {
	if n.cfg.Said == nil {
		return nil
	}
	return n.cfg.Said(identity)
}

// ClientAddresses gives the addresses, host:port, at which the registered nodes that are there
// take clients; "" for one that has not said so.
func (n *Nodes) ClientAddresses(view *fsm.Topics) map[fsm.NodeID]string {
	out := map[fsm.NodeID]string{}
	for id := range n.Here(view) {
		out[id] = ""
	}
	for _, m := range n.cfg.Members() {
		id := fsm.NodeID(m.NodeID)
		if node, ok := view.Node(id); ok && node.Identity() == m.Identity && n.Connected(m.Identity) {
			out[id] = m.ClientAddr
		}
	}
	return out
}
