package cluster

import (
	"context"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/identity"
)

// process is this one, for who asks whether there is another one of its identity.
func (n *Node) process() identity.Process {
	return identity.Process{Boot: n.link.Boot(), Started: uint64(n.started.UnixMilli())}
}

// twins is how a copy of this node's data directory is found.
func (n *Node) twins() identity.Twins {
	return identity.Twins{Self: n.process(), Addresses: n.gossip.Twins, Ask: n.askTwin, Logger: n.logger}
}

func (n *Node) askTwin(ctx context.Context, addr string, nonce [16]byte) (a identity.Answer, err error) {
	request, err := calls.Twin.Payload(nonce)
	if err != nil {
		return a, err
	}
	from, reply, err := n.link.CallAddr(ctx, addr, calls.Twin.Kind, request)
	if err == nil {
		reply, err = calls.DecodeReply(reply)
	}
	if err != nil {
		return a, err
	}
	said, err := calls.Twin.Read(nonce, reply)
	return identity.Answer{
		Identity: from, Process: identity.Process{Boot: said.Boot, Started: said.Started}, Proof: said.Proof,
	}, err
}

// answerTwin is asked by anybody who reaches the peer link, and tells him nothing that he could use
// elsewhere.
func (n *Node) answerTwin(_ context.Context, _ string, nonce calls.Nonce) (calls.TwinReply, error) {
	p := n.process()
	return calls.TwinReply{Boot: p.Boot, Started: p.Started, Proof: n.who.Prove(nonce, p)}, nil
}
