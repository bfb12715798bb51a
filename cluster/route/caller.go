package route

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// Two nodes may not reach each other while a third reaches both. What clients ask at one of them
// then goes to the leader through the third node: one hop more, never two.

// RelayFeatureLevel is the level of the cluster from which on all nodes know calls.Relay and
// calls.Who.
const RelayFeatureLevel = 3

// Link takes the bytes of a call to a node and those of its answer back (link.Link).
type Link interface {
	Call(ctx context.Context, identity string, kind uint8, payload ...[]byte) ([]byte, error)
	// SuspectedBy gives the nodes that the named node holds for gone; known is false if that is not
	// known.
	SuspectedBy(identity string) (suspects []string, known bool)
}

// Presence says which nodes are reached (liveness.Nodes).
type Presence interface {
	Reached(identity string) bool
	Severed(leader string, members []string) bool
}

// Caller takes calls to other nodes. It has no state and may be used by many goroutines.
type Caller struct {
	Self     string // this node's identity
	Link     Link
	Presence Presence
	Topics   func() *fsm.Topics
	// Serve answers a call that was relayed to this node itself.
	Serve func(ctx context.Context, from string, kind uint8, payload []byte) []byte
}

// Call implements calls.Caller: through a third node if the node is not reached directly and the
// call may be relayed.
func (c *Caller) Call(ctx context.Context, identity string, kind uint8, payload ...[]byte) ([]byte, error) {
	if row, _ := calls.ByKind(kind); row.Relayed && !c.Presence.Reached(identity) {
		if reply, err, asked := c.through(ctx, identity, kind, payload); asked {
			return reply, err
		}
	}
	return c.directly(ctx, identity, kind, payload)
}

func (c *Caller) directly(ctx context.Context, identity string, kind uint8, payload [][]byte) ([]byte, error) {
	reply, err := c.Link.Call(ctx, identity, kind, payload...)
	if err != nil {
		return nil, linkError(ctx, err)
	}
	return calls.DecodeReply(reply)
}

// linkError says what a call that got no answer means.
func linkError(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, link.ErrNotSent):
		return fmt.Errorf("%w: %w", outcome.ErrNoLeader, err)
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", outcome.ErrTimeout, err)
	default:
		return fmt.Errorf("%w: %w", outcome.ErrUnknownFate, err)
	}
}

// through makes a call through nodes that are reached, one after the other as long as surely
// nothing was asked. asked is false if no node could hand it on.
func (c *Caller) through(ctx context.Context, identity string, kind uint8, payload [][]byte) (reply []byte, err error, asked bool) {
	topics := c.Topics()
	if topics.FeatureLevel() < RelayFeatureLevel {
		return nil, nil, false
	}
	relayed := calls.RelayRequest{Kind: kind, Identity: identity, Payload: payload}
	for _, node := range topics.Nodes() {
		third := node.Identity()
		if third == c.Self || third == identity || !c.Presence.Reached(third) {
			continue
		}
		if suspects, known := c.Link.SuspectedBy(third); known && slices.Contains(suspects, identity) {
			continue
		}
		reply, err := calls.Relay.Ask(ctx, direct{c}, third, relayed)
		if err == nil {
			reply, err = calls.DecodeReply(reply) // of the node that was meant
			return reply, err, true
		}
		if !outcome.NotAppended(err) || ctx.Err() != nil {
			return nil, err, true
		}
	}
	return nil, nil, false
}

// direct is a Caller that makes no detour.
type direct struct{ *Caller }

func (d direct) Call(ctx context.Context, identity string, kind uint8, payload ...[]byte) ([]byte, error) {
	return d.directly(ctx, identity, kind, payload)
}

// Relay answers calls.Relay: it hands a call on to a node that is reached from here, and its
// answer back.
func (c *Caller) Relay(ctx context.Context, from string, q calls.RelayRequest) ([]byte, error) {
	switch q.Identity {
	case from:
		return nil, calls.ErrMalformed
	case c.Self:
		return c.Serve(ctx, from, q.Kind, slices.Concat(q.Payload...)), nil
	}
	reply, err := c.Link.Call(ctx, q.Identity, q.Kind, q.Payload...)
	if err != nil {
		return nil, linkError(ctx, err)
	}
	return reply, nil
}
