package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/formation"
	"github.com/trimaran-io/trimaran/cluster/identity"
	"github.com/trimaran-io/trimaran/cluster/peer"
	"github.com/trimaran-io/trimaran/fsm"
)

// newFormation connects package formation with this node: gossip, the peer link and the catalog.
func (n *Node) newFormation() *formation.Formation {
	return formation.New(formation.Config{
		Identity: n.who,
		Self:     n.self(),
		Expect:   n.cfg.BootstrapExpect,
		Told:     n.toldOfOthers(),
		Gossip:   n.gossip,
		Propose: func(ctx context.Context, identity string, proposal []byte) error {
			_, err := n.caller.Call(ctx, identity, calls.Form.Kind, proposal)
			return err
		},
		Join: func(ctx context.Context, addr string, node []byte) ([]byte, error) {
			_, reply, err := n.link.CallAddr(ctx, addr, calls.Join.Kind, node)
			if errors.Is(err, peer.ErrNotSent) {
				err = fmt.Errorf("%w: %w", fsm.ErrNoLeader, err)
			}
			if err != nil {
				return nil, err
			}
			return calls.DecodeReply(reply)
		},
		Adopted: func(string) { n.announce() },
		Logger:  n.logger,
	})
}

// toldOfOthers reports whether --join names another address than this node's.
func (n *Node) toldOfOthers() bool {
	return slices.ContainsFunc(n.cfg.Join, func(addr string) bool {
		return addr != n.gossip.Addr() && addr != n.cfg.GossipAdvertise && addr != n.cfg.GossipListen
	})
}

// grant answers a proposal to form a cluster (calls.Form).
func (n *Node) grant(payload []byte) error { return n.lost(n.formation.Grant(payload)) }

// admit registers a new node in the catalog (calls.Join). The catalog's leader then adds it to the
// catalog's Raft group.
func (n *Node) admit(ctx context.Context, from string, payload []byte) ([]byte, error) {
	return n.formation.Admit(ctx, from, payload, func(ctx context.Context, node fsm.Node) error {
		_, err := n.catalog.Change(ctx, fsm.CatalogCommand{RegisterNode: &node})
		return err
	})
}

func newUUID() [16]byte { return identity.NewUUID() }
