package status

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// A check of replicas compares what each has on its own disk: a hash over the
// batches of the same range of offsets. Replicas that differ have not stored what
// was agreed on; nothing here mends that.

// checkPiece is how many bytes of a replica one call compares, about.
const checkPiece = 32 << 20

// wholeRange is more bytes than a range has that is to be hashed to its end; calls.Hash takes no
// more.
const wholeRange = 1 << 40

// errCompacting is the error of a check that compares replicas which are not compacted as far as
// each other.
var errCompacting = fmt.Errorf("%w: its replicas are being compacted, and are not equal before all have done it", outcome.ErrTimeout)

const (
	compactedWithin = 10 * time.Second // a check waits for that long
	compactedPoll   = 250 * time.Millisecond
)

// CheckReplicas is checkOnce, again and again for a moment if the replicas are being compacted:
// each does that in its own time.
func (o *Overview) CheckReplicas(ctx context.Context, id fsm.PartitionID, from fsm.Offset) (*admin.PartitionCheck, error) {
	for began := time.Now(); ; {
		check, err := o.checkOnce(ctx, id, from)
		if !errors.Is(err, errCompacting) || time.Since(began) > compactedWithin {
			return check, err
		}
		select {
		case <-time.After(compactedPoll):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// checkOnce compares what the partition's replicas have on disk from offset
// from on, or from the log start if that is above, some tens of megabytes of it.
// Replicas that do not answer, do not run or are being copied are named and left
// out. How far they are compared is in the answer; who asks goes on from there.
func (o *Overview) checkOnce(ctx context.Context, id fsm.PartitionID, from fsm.Offset) (*admin.PartitionCheck, error) {
	topics := o.cfg.Here.Topics()
	partition, ok := topics.Partition(id)
	if !ok {
		return nil, outcome.ErrUnknownTopicOrPartition
	}
	c := &replicaCheck{o: o, id: id}
	out := &admin.PartitionCheck{Partition: id.Partition, From: max(from, 0), End: -1, DiffersAt: -1, DiffersTo: -1}
	var nodes []fsm.Node
	for _, nodeID := range partition.Replicas {
		if node, ok := topics.Node(nodeID); ok {
			nodes = append(nodes, node)
		}
	}
	reports := o.reports(ctx, nodes)
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
				out.From = max(out.From, r.LogStart, r.LocalStart) // the rest lies in the tier
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
		if all[i].hash, all[i].err = c.ask(ctx, all[i].identity, out.From, out.End, checkPiece); all[i].err == nil {
			done, out.To = i, all[i].hash.UpTo
			break
		}
	}
	if done >= 0 {
		c.askAll(ctx, all[done+1:], out.From, out.To)
	}
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
	if mixed(all) {
		return nil, errCompacting
	}
	if !same(all) {
		c.members = slices.DeleteFunc(all, func(m checkMember) bool { return m.err != nil })
		c.narrow(ctx, out)
	}
	return out, nil
}

// replicaCheck is one comparison.
type replicaCheck struct {
	o       *Overview
	id      fsm.PartitionID
	members []checkMember
}

type checkMember struct {
	identity string
	at       int // in the answer's list
	hash     calls.ReplicaHash
	err      error
}

// compare has all members hash a range.
func (c *replicaCheck) compare(ctx context.Context, from, to fsm.Offset) []checkMember {
	all := slices.Clone(c.members)
	c.askAll(ctx, all, from, to)
	return all
}

// askAll has those members hash a whole range.
func (c *replicaCheck) askAll(ctx context.Context, members []checkMember, from, to fsm.Offset) {
	all := make([]*checkMember, len(members))
	for i := range members {
		all[i] = &members[i]
	}
	calls.AskAll(ctx, all, func(ctx context.Context, m *checkMember) (calls.ReplicaHash, error) {
		return c.ask(ctx, m.identity, from, to, wholeRange)
	}, func(m *checkMember, hash calls.ReplicaHash, err error) bool {
		m.hash, m.err = hash, err
		return false
	})
}

// ask has one member hash a range, up to limit bytes.
func (c *replicaCheck) ask(ctx context.Context, identity string, from, to fsm.Offset, limit int64) (calls.ReplicaHash, error) {
	if identity == c.o.cfg.Self {
		return c.o.cfg.Digest(ctx, c.id, from, to, limit)
	}
	h, err := calls.Hash.Ask(ctx, c.o.cfg.Caller, identity, calls.HashRequest{Partition: c.id, From: from, To: to, MaxBytes: uint64(limit)})
	if err == nil && (h.UpTo < from || h.UpTo > to) {
		err = fmt.Errorf("%w: malformed answer of another node", outcome.ErrUnknown)
	}
	return h, err
}

// mixed reports whether those that could read what they have may differ, since one of them is
// compacted further than another.
func mixed(members []checkMember) bool {
	var first *checkMember
	for i := range members {
		switch m := &members[i]; {
		case m.err != nil:
		case first == nil:
			first = m
		case m.hash.Mark != first.hash.Mark:
			return true
		}
	}
	return false
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
		if mixed(lower) {
			break
		}
		if same(lower) {
			from = middle
		} else {
			to = middle
		}
	}
	out.DiffersAt, out.DiffersTo = from, to
}
