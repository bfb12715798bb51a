package gateway

import (
	"context"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/gateway/listen"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/internal/ticks"
)

// neighbours remembers where the registered nodes take clients. What is known of a node ends when
// it is away, and a console that came from it goes on here just then.
type neighbours struct {
	catalog Catalog
	nodes   Nodes

	mu   locks.Mutex[neighbours] // guards last; nothing is taken and nobody waits under it
	last map[fsm.NodeID]string
}

const neighboursTick = time.Second

// watch looks until ctx ends.
func (n *neighbours) watch(ctx context.Context) {
	tick := ticks.New(neighboursTick)
	defer tick.Stop()
	for {
		n.addresses()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// addresses gives those of registered nodes, by id, as they were last heard of. It asks nobody.
func (n *neighbours) addresses() []listen.Address {
	here := n.nodes.Gateways()
	registered := n.catalog.Topics().Nodes()
	n.mu.Lock()
	defer n.mu.Unlock()
	known := make(map[fsm.NodeID]string, len(registered))
	var all []listen.Address
	for _, node := range registered {
		address := here[node.ID]
		if address == "" {
			address = n.last[node.ID]
		}
		if address == "" {
			continue
		}
		known[node.ID] = address
		if at, err := listen.ParseAddress(address); err == nil {
			all = append(all, at)
		}
	}
	n.last = known
	return all
}
