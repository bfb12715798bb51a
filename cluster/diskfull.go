package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/outcome"
)

// A full disk is a state, not an accident. Before the disk says so itself, the
// leader refuses records (outcome.ErrStorage, nothing was appended); what is left is
// for Raft's own writes, the catalog, and retention, which makes room. Reads and
// everything else go on. It ends when there is room again.
//
// A leader whose disk is full while others have room gives its leadership away (leaders.go).
//
// A leader with room whose followers have none could commit nothing, and what it
// took would fill their last bytes. So a node whose disk is full tells all others.

const (
	tellFullEvery = time.Second
	fullFor       = 5 * time.Second // what a node said of its disk holds for so long
)

// room is nil if records can be taken.
func (r *replica) room() error {
	n := r.node
	if n == nil || n.logs == nil {
		return nil
	}
	if n.logs.Full() {
		return fmt.Errorf("%w: the disk of the leader is full", outcome.ErrStorage)
	}
	n.mu.Lock()
	some := len(n.fullNodes) > 0
	n.mu.Unlock()
	if !some {
		return nil
	}
	future := r.group.raft.GetConfiguration()
	if future.Error() != nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	voters, full := 0, 0
	for _, s := range future.Configuration().Servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if time.Now().Before(n.fullNodes[string(s.ID)]) {
			full++
		}
	}
	if voters-full <= voters/2 {
		return fmt.Errorf("%w: the disks of %d of %d replicas are full", outcome.ErrStorage, full, voters)
	}
	return nil
}

// tellFull tells the other nodes, once a second, that this node's disk is full, and
// once that it is not any more.
func (n *Node) tellFull() {
	tick := time.NewTicker(tellFullEvery)
	defer tick.Stop()
	told := false
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		n.mu.Lock()
		for identity, until := range n.fullNodes {
			if time.Now().After(until) {
				delete(n.fullNodes, identity)
			}
		}
		n.mu.Unlock()
		full := n.logs.Full()
		if !full && !told {
			continue
		}
		told = full
		payload := []byte{0}
		if full {
			payload[0] = 1
		}
		for _, node := range n.Topics().Nodes() {
			identity := node.Identity()
			if identity == n.identity || !n.connected(identity) {
				continue
			}
			n.done.Add(1)
			go func() {
				defer n.done.Done()
				ctx, cancel := context.WithTimeout(n.ctx, tellFullEvery)
				defer cancel()
				// Said again if it is lost: full every second, and its end by what is not said.
				_, _ = n.call(ctx, identity, callFull, payload)
			}()
		}
	}
}

// saysFull reports whether a node has said just now that its disk is full.
func (n *Node) saysFull(identity string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Now().Before(n.fullNodes[identity])
}

// heardFull answers callFull.
func (n *Node) heardFull(from string, payload []byte) error {
	if len(payload) != 1 || payload[0] > 1 {
		return errMalformed
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if payload[0] == 0 {
		delete(n.fullNodes, from)
	} else {
		n.fullNodes[from] = time.Now().Add(fullFor)
	}
	return nil
}
