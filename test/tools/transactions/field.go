package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/trimaran-io/trimaran/test/harness/hostnet"
)

// field is the network between the hosts of the nodes and that of the clients, which is this
// process and the shim.
type field struct {
	net     *hostnet.Network
	nodes   []netip.Addr
	clients netip.Addr
}

func hostAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 93, 19, byte(i)}) }

// newField makes one. This process must have come through hostnet.Own.
func newField(nodes int, seed uint64) (*field, error) {
	f := &field{net: hostnet.New(fmt.Sprintf("trt%d", os.Getpid()), rand.New(rand.NewPCG(seed, 2))), clients: hostAddr(200)}
	if err := f.net.PlugHere(f.clients); err != nil {
		return f, err
	}
	for i := range nodes {
		f.nodes = append(f.nodes, hostAddr(i+1))
		if err := f.net.Plug(fmt.Sprintf("n%d", i+1), f.nodes[i]); err != nil {
			return f, err
		}
	}
	return f, nil
}

// hosts is where the nodes run.
func (f *field) hosts() (hosts []harness.Host) {
	for i, addr := range f.nodes {
		hosts = append(hosts, harness.Host{Addr: addr.String(), Enter: []string{"nsenter", "--net=/var/run/netns/" + f.net.NS(fmt.Sprintf("n%d", i+1))}})
	}
	return hosts
}

// cut loses what each of one side sends the other.
func cut(one, other netip.Addr) []*hostnet.Rule {
	return []*hostnet.Rule{{From: one, To: other, Lose: 1}, {From: other, To: one, Lose: 1}}
}
