package cluster

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// A check of replicas compares what each has on its own disk: a hash over the
// batches of the same range of offsets. Replicas that differ have not stored what
// was agreed on; nothing here mends that.

// checkPiece is how many bytes of a replica one call compares, about.
const checkPiece = 32 << 20

// CheckReplicas compares what the partition's replicas have on disk from offset
// from on, or from the log start if that is above, some tens of megabytes of it.
// Replicas that do not answer, do not run or are being copied are named and left
// out. How far they are compared is in the answer; who asks goes on from there.
func (n *Node) CheckReplicas(ctx context.Context, id fsm.PartitionID, from fsm.Offset) (*admin.PartitionCheck, error) {
	topics := n.Topics()
	partition, ok := topics.Partition(id)
	if !ok {
		return nil, outcome.ErrUnknownTopicOrPartition
	}
	c := &replicaCheck{n: n, id: id}
	out := &admin.PartitionCheck{Partition: id.Partition, From: max(from, 0), End: -1, DiffersAt: -1, DiffersTo: -1}
	var nodes []fsm.Node
	for _, nodeID := range partition.Replicas {
		if node, ok := topics.Node(nodeID); ok {
			nodes = append(nodes, node)
		}
	}
	reports := n.reports(ctx, nodes)
	for i, node := range nodes {
		replica := admin.ReplicaCheck{Node: node.ID, State: "offline"}
		if reports[i] != nil {
			r, running := reports[i].Replicas[id.String()]
			broken, isBroken := reports[i].Broken[id.String()]
			switch {
			case running && r.CatchUp != nil:
				replica.State = "copying"
			case running:
				replica.State = "checked"
				c.members = append(c.members, checkMember{identity: node.Identity(), at: i})
				out.From = max(out.From, r.LogStart)
				if out.End < 0 || r.Applied < out.End {
					out.End = r.Applied
				}
			case isBroken:
				replica.State, replica.Error = "damaged", broken
			}
		}
		out.Replicas = append(out.Replicas, replica)
	}
	out.End = max(out.End, out.From)
	out.To = out.From
	if len(c.members) == 0 {
		return out, nil
	}
	// The first one that can read says how far the others go.
	all := slices.Clone(c.members)
	done := -1
	for i := range all {
		if c.ask(ctx, &all[i], out.From, out.End, checkPiece); all[i].err == nil {
			done, out.To = i, all[i].hash.UpTo
			break
		}
	}
	var asked sync.WaitGroup
	for i := range all {
		if i > done && done >= 0 {
			asked.Go(func() { c.ask(ctx, &all[i], out.From, out.To, 1<<40) })
		}
	}
	asked.Wait()
	for _, m := range all {
		r := &out.Replicas[m.at]
		r.Bytes, r.Hash = m.hash.Bytes, hex.EncodeToString(m.hash.Sum[:])
		if m.err != nil {
			if outcome.Code(m.err) == outcome.ErrOffsetOutOfRange {
				return nil, m.err // retention was faster: asked again, it begins further on
			}
			r.State, r.Error, r.Hash = "damaged", m.err.Error(), ""
			if outcome.Code(m.err) != outcome.ErrStorage {
				r.State = "offline"
			}
		}
	}
	if !same(all) {
		c.members = slices.DeleteFunc(all, func(m checkMember) bool { return m.err != nil })
		c.narrow(ctx, out)
	}
	return out, nil
}

// replicaCheck is one comparison.
type replicaCheck struct {
	n       *Node
	id      fsm.PartitionID
	members []checkMember
}

type checkMember struct {
	identity string
	at       int // in the answer's list
	hash     replica.Digest
	err      error
}

// compare has all members hash a range.
func (c *replicaCheck) compare(ctx context.Context, from, to fsm.Offset) []checkMember {
	all := slices.Clone(c.members)
	var asked sync.WaitGroup
	for i := range all {
		asked.Go(func() { c.ask(ctx, &all[i], from, to, 1<<40) })
	}
	asked.Wait()
	return all
}

// ask has one member hash a range, up to limit bytes.
func (c *replicaCheck) ask(ctx context.Context, m *checkMember, from, to fsm.Offset, limit int64) {
	if m.identity == c.n.identity {
		r := c.n.records(c.id)
		if r == nil {
			m.err = outcome.ErrNoLeader
			return
		}
		m.hash, m.err = r.Digest(ctx, from, to, limit)
		return
	}
	h, err := calls.Hash.Ask(ctx, c.n.caller, m.identity, calls.HashRequest{Partition: c.id, From: from, To: to, MaxBytes: uint64(limit)})
	m.hash = replica.Digest(h)
	if m.err = err; err == nil && (m.hash.UpTo < from || m.hash.UpTo > to) {
		m.err = fmt.Errorf("%w: malformed answer of another node", outcome.ErrUnknown)
	}
}

// same reports whether all that could be read is the same.
func same(members []checkMember) bool {
	var first *checkMember
	for i := range members {
		switch m := &members[i]; {
		case m.err != nil:
		case first == nil:
			first = m
		case m.hash != first.hash:
			return false
		}
	}
	return true
}

// narrow finds a small range in which they differ, as far as there is time.
func (c *replicaCheck) narrow(ctx context.Context, out *admin.PartitionCheck) {
	from, to := out.From, out.To
	for to-from > 1 && ctx.Err() == nil {
		middle := from + (to-from)/2
		lower := c.compare(ctx, from, middle)
		for _, m := range lower {
			if m.err != nil {
				out.DiffersAt, out.DiffersTo = from, to
				return
			}
		}
		if same(lower) {
			from = middle
		} else {
			to = middle
		}
	}
	out.DiffersAt, out.DiffersTo = from, to
}
