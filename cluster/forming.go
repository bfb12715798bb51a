package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/formation"
	"github.com/trimaran-io/trimaran/cluster/identity"
	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// newFormation connects package formation with this node: gossip, the peer link and the catalog.
func (n *Node) newFormation() *formation.Formation {
	return formation.New(formation.Config{
		Identity: n.who,
		Self:     n.self(),
		Expect:   n.cfg.BootstrapExpect,
		Told:     n.toldOfOthers(),
		Gossip:   n.gossip,
		Propose: func(ctx context.Context, to string, p *identity.Proposal) error {
			_, err := calls.Form.Ask(ctx, n.caller, to, calls.Formation(*p))
			return err
		},
		Join:    n.askToJoin,
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

// askToJoin asks the node at a peer address to register this one; its identity is not known before.
func (n *Node) askToJoin(ctx context.Context, addr string, node fsm.Node) (clusterID string, err error) {
	request, err := calls.Join.Payload(node)
	if err != nil {
		return "", err
	}
	_, reply, err := n.link.CallAddr(ctx, addr, calls.Join.Kind, request)
	if errors.Is(err, link.ErrNotSent) {
		err = fmt.Errorf("%w: %w", outcome.ErrNoLeader, err)
	}
	if err == nil {
		reply, err = calls.DecodeReply(reply)
	}
	if err != nil {
		return "", err
	}
	joined, err := calls.Join.Read(node, reply)
	return joined.ClusterID, err
}

// answerFormation gives the calls of nodes without a cluster their functions.
func (n *Node) answerFormation(s *calls.Server) {
	calls.Handle(s, calls.Form, func(_ context.Context, _ string, q calls.Formation) (calls.Nothing, error) {
		p := identity.Proposal(q)
		return calls.Nothing{}, n.lost(n.formation.Grant(&p))
	})
	// A new node is registered in the catalog, whose leader then adds it to the catalog's Raft
	// group.
	calls.Handle(s, calls.Join, func(ctx context.Context, from string, node fsm.Node) (calls.JoinReply, error) {
		id, err := n.formation.Admit(ctx, from, node, func(ctx context.Context, node fsm.Node) error {
			_, err := n.catalog.Change(ctx, fsm.CatalogCommand{RegisterNode: &node})
			return err
		})
		return calls.JoinReply{ClusterID: id}, err
	})
}
