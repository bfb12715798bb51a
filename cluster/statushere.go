package cluster

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/catalog"
	"github.com/trimaran-io/trimaran/cluster/leading"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/cluster/status"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// seenHere is what runs on this node as package status sees it.
type seenHere struct {
	self     string // this node's identity
	catalog  *catalog.Catalog
	replicas *replica.Set
	*raftlog.Store
}

// Topics implements status.Here.
func (h seenHere) Topics() *fsm.Topics { return h.catalog.View() }

// Catalog implements status.Here.
func (h seenHere) Catalog() status.CatalogMember {
	if m := h.catalog.Member(); m != nil {
		return seenMember{m}
	}
	return nil
}

// Replica implements status.Here.
func (h seenHere) Replica(id fsm.PartitionID) status.Replica {
	if r := h.replicas.Replica(id); r != nil {
		return seenReplica{r, h.replicas.Records(id), h.self}
	}
	return nil
}

// Running implements status.Here.
func (h seenHere) Running() (all []status.Replica) {
	for _, r := range h.replicas.Running() {
		all = append(all, seenReplica{r, h.replicas.Records(r.ID), h.self})
	}
	return all
}

// Broken implements status.Here.
func (h seenHere) Broken(id fsm.PartitionID) bool { return h.replicas.WhyBroken(id) != nil }

// Troubles implements status.Here.
func (h seenHere) Troubles() (broken, hurt map[fsm.PartitionID]error) { return h.replicas.Troubles() }

// digest is status.Config.Digest.
func (h seenHere) digest(ctx context.Context, id fsm.PartitionID, from, to fsm.Offset, limit int64) (calls.ReplicaHash, error) {
	r := h.replicas.Records(id)
	if r == nil {
		return calls.ReplicaHash{}, outcome.ErrNoLeader
	}
	digest, err := r.Digest(ctx, from, to, limit)
	return calls.ReplicaHash(digest), err
}

// seenMember is a member of a group as package status sees it.
type seenMember struct{ *raftgroup.Member }

// Denied implements status.Member.
func (m seenMember) Denied() bool {
	return leading.Of(m.Member).Unled()
}

// Leads implements status.CatalogMember.
func (m seenMember) Leads() bool { return m.Raft.State() == raft.Leader }

// Term implements status.CatalogMember.
func (m seenMember) Term() uint64 { return m.Raft.CurrentTerm() }

// End implements status.CatalogMember.
func (m seenMember) End() int64 { return int64(m.Raft.LastIndex()) + 1 }

// seenReplica is a replica as package status sees it.
type seenReplica struct {
	*replica.Replica
	records *replica.Records // nil: it is a shard's
	self    string
}

// ID implements status.Replica.
func (r seenReplica) ID() fsm.PartitionID { return r.Replica.ID }

// Member implements status.Replica.
func (r seenReplica) Member() status.Member { return seenMember{r.Replica.Member} }

// ThinksItLeads implements status.Replica.
func (r seenReplica) ThinksItLeads() bool {
	h, _ := r.Leader()
	return h.Identity == r.self
}

// ServesAsLeader implements status.Replica.
func (r seenReplica) ServesAsLeader() bool {
	_, err := r.Leads()
	return err == nil
}

// Transactions implements status.Replica.
func (r seenReplica) Transactions() (t status.Transactions) {
	if r.records == nil {
		return t // a shard has none
	}
	var oldest fsm.OpenTransaction
	if t.Open, oldest, t.Behind = r.records.Transactions(); t.Open > 0 {
		t.Oldest = max(time.Since(time.UnixMilli(oldest.Since)), 0)
		t.Late = r.records.Late(t.Oldest)
	}
	return t
}

// Compaction implements status.Replica.
func (r seenReplica) Compaction() status.Compaction {
	if r.records == nil {
		return status.Compaction{}
	}
	return status.Compaction(r.records.CompactionStatus())
}

// Tier implements status.Replica.
func (r seenReplica) Tier() *admin.TierStatus {
	if r.records == nil {
		return nil
	}
	t := r.records.TierStatus()
	if !t.Tiered && t.Segments == 0 && t.Gone == 0 {
		return nil
	}
	return &admin.TierStatus{
		Segments: t.Segments, Bytes: t.Bytes, Waiting: t.Waiting, LocalStart: t.Local, End: t.End, ToDelete: t.Gone, Dirty: t.Dirty, Error: t.Err,
	}
}

// Unseen implements status.Replica.
func (r seenReplica) Unseen() string {
	if r.records == nil {
		return ""
	}
	return r.records.Unseen()
}

// Bytes implements status.Replica.
func (r seenReplica) Bytes() int64 { return r.Log.Bytes() }

// compacted is status.Config.Compaction.
func (n *Node) compacted() *admin.NodeCompaction {
	c := &n.compactionCounters
	if c.Rounds.Load() == 0 && c.Bytes.Load() == 0 {
		return nil
	}
	return &admin.NodeCompaction{Rounds: c.Rounds.Load(), LastMs: c.Last.Load() * 1000, Bytes: c.Bytes.Load(), Saved: c.Saved.Load()}
}
