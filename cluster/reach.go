package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/trimaran-io/trimaran/cluster/peer"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// Two nodes may not reach each other while a third reaches both. What clients ask at one of them
// then goes to the leader through the third node: one hop more, never two. And a node that does
// not reach a majority says so, since others may serve its clients meanwhile.

// relayLevel is the level of the cluster from which on all nodes know callRelay and callWho.
const relayLevel = 3

// relayed are the calls that may go through a third node: those of clients' requests, which are
// answered alike whoever asks.
var relayed = map[uint8]bool{
	callAppend: true, callRead: true, callAwait: true, callListOffsets: true,
	callOffsetForTime: true, callEpochEnd: true, callDeleteRecords: true, callProducers: true,
	callCatalogApply: true, callCreateTopic: true, callCatalogIndex: true, callCatalogKnown: true,
	callCreatePartitions: true, callAdminister: true, callCreateShards: true,
	callCoordinate: true, callHash: true, callReplicaStatus: true,
}

// callThrough makes a call through nodes that are reached, one after the other as long as surely
// nothing was asked. asked is false if no node could hand it on.
func (n *Node) callThrough(ctx context.Context, identity string, kind uint8, payload [][]byte) (reply []byte, err error, asked bool) {
	topics := n.Topics()
	if topics.Level() < relayLevel {
		return nil, nil, false
	}
	head := append([]byte{kind, byte(len(identity))}, identity...)
	through := append([][]byte{head}, payload...)
	for _, node := range topics.Nodes() {
		third := node.Identity()
		if third == n.identity || third == identity || n.link.Reach(third) != peer.Reached {
			continue
		}
		if suspects, known := n.link.SuspectedBy(third); known && slices.Contains(suspects, identity) {
			continue
		}
		reply, err := n.link.Call(ctx, third, callRelay, through...)
		if err == nil {
			reply, err = decodeReply(reply)
		} else {
			err = callError(ctx, err)
		}
		if err == nil {
			reply, err = decodeReply(reply) // of the node that was meant
			return reply, err, true
		}
		if !outcome.NotAppended(err) || ctx.Err() != nil {
			return nil, err, true
		}
	}
	return nil, nil, false
}

// relay answers callRelay: it hands a call on to a node that is reached from here, and its answer back.
func (n *Node) relay(ctx context.Context, from string, payload []byte) ([]byte, error) {
	r := reader{b: payload}
	kind := r.uint8()
	identity := string(r.bytes(int(r.uint8())))
	if r.bad || !relayed[kind] || identity == from {
		return nil, errMalformed
	}
	if identity == n.identity {
		return n.serve(ctx, from, kind, r.b), nil
	}
	reply, err := n.link.Call(ctx, identity, kind, r.b)
	if err != nil {
		return nil, callError(ctx, err)
	}
	return reply, nil
}

const (
	// askWhoEvery is how often a group is asked about, askWhoTimeout how long that may take.
	askWhoEvery   = 100 * time.Millisecond
	askWhoTimeout = 300 * time.Millisecond
)

// severed says whether other members of a group may know of a leader that its member here cannot
// hear of: what it knows, "" for none, tells no more.
func (n *Node) severed(leader string, members []string) bool {
	if leader == n.identity || n.Topics().Level() < relayLevel {
		return false
	}
	if leader != "" && n.link.Reach(leader) != peer.Unheard {
		return false
	}
	reached, unheard := false, false
	for _, identity := range members {
		if identity == n.identity {
			continue
		}
		switch n.link.Reach(identity) {
		case peer.Reached:
			reached = true
		case peer.Unheard:
			unheard = true
		}
	}
	return reached && unheard
}

// askWho asks the members of a group that are reached who leads it. A group is asked about by one
// request at a time; the others come back.
func (n *Node) askWho(group string, members []string) (hint, bool) {
	now := time.Now()
	n.mu.Lock()
	if now.Before(n.askedWho[group]) {
		n.mu.Unlock()
		return hint{}, false
	}
	n.askedWho[group] = now.Add(askWhoTimeout + askWhoEvery)
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.askedWho[group] = time.Now().Add(askWhoEvery)
	}()
	ctx, cancel := context.WithTimeout(n.ctx, askWhoTimeout)
	defer cancel()
	for _, identity := range members {
		if identity == n.identity || n.link.Reach(identity) != peer.Reached {
			continue
		}
		_, err := n.ask(ctx, identity, callWho, []byte(group))
		var who errNotLeader
		if errors.As(err, &who) && who.hint.identity != "" && who.hint.identity != n.identity {
			return who.hint, true
		}
	}
	return hint{}, false
}

// answerWho answers callWho as soon as the member here follows a leader that it reaches.
func (n *Node) answerWho(ctx context.Context, group string) error {
	tick := time.NewTicker(retryPause)
	defer tick.Stop()
	for {
		g := n.groupNamed(group)
		if g == nil {
			return errNotLeader{}
		}
		if identity, term := g.leader(); identity == n.identity || identity != "" && n.link.Reach(identity) == peer.Reached {
			return errNotLeader{hint{identity, term}}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return outcome.ErrNoLeader
		}
	}
}

func identitiesOf(topics *fsm.Topics, ids []fsm.NodeID) (out []string) {
	for _, id := range ids {
		if node, ok := topics.Node(id); ok {
			out = append(out, node.Identity())
		}
	}
	return out
}

// Serving is nil while this node serves clients as well as any. elsewhere says that others may serve
// them meanwhile: this node does not reach a majority of the catalog's voters, and those that it does
// not hear may be one. Nodes whose address refuses connections are not: nobody is served there.
func (n *Node) Serving() (elsewhere bool, err error) {
	n.mu.Lock()
	stopping, fatal := n.stopping, n.fatal
	n.mu.Unlock()
	switch {
	case fatal != nil:
		return false, fatal
	case stopping:
		return false, outcome.ErrShuttingDown
	case !n.served.Load():
		return false, n.Ready()
	}
	return n.cutOff()
}

// cutOff is Serving for a node that has served.
func (n *Node) cutOff() (elsewhere bool, err error) {
	g := n.catalog.raftGroup()
	if g == nil {
		return false, errors.New("the catalog is not open yet")
	}
	all := voters(g)
	reached, unheard := 0, 0
	for _, identity := range all {
		switch {
		case identity == n.identity:
			reached++
		case n.link.Reach(identity) == peer.Reached:
			reached++
		case n.link.Reach(identity) == peer.Unheard:
			unheard++
		}
	}
	majority := len(all)/2 + 1
	if reached >= majority {
		return false, nil
	}
	return unheard >= majority, fmt.Errorf("of the catalog's %d voters this node reaches %d", len(all), reached)
}
