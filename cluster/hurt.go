package cluster

import (
	"context"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// A replica in which a reader finds a damaged byte has all else, and Raft does not need that byte. So it serves
// and votes on, and what is damaged is refused, until the others can do without it; then it leaves their group, and is
// closed and rebuilt from them (rebuild.go), one replica of a group at a time. With one replica that is never: the
// operator is told where the log goes on, and may delete what is in front of that.

// hurt is what is known of such a replica.
type hurt struct {
	replica *replica
	err     error
	end     fsm.Offset // behind what cannot be read; 0: the scrub found it
	leaving bool       // its leader is asked to let it go
}

// unreadable is the error of a reader that could not read, which ends behind what it could not; 0: not known.
func (r *records) unreadable(err error, end fsm.Offset) error {
	code := error(outcome.ErrStorage)
	if isDamage(err) {
		r.node.readFailed(r.replica, err, end)
		if !r.node.canDoWithout(r.replica) {
			code = outcome.ErrCorruptMessage // to ask again does not help
		}
	}
	return fmt.Errorf("%w: %w", code, err)
}

// passDamage has a reader go on behind an entry that it could not give, on its way to the batches from offset from on. The
// error says that from is among what cannot be read.
func (r *records) passDamage(reader *raftlog.Reader, from fsm.Offset, err error) error {
	if !isDamage(err) {
		return fmt.Errorf("%w: %w", outcome.ErrStorage, err)
	}
	bad := fsm.Offset(reader.Expected())
	if serr := reader.Skip(claimedOffset); serr != nil {
		return r.unreadable(fmt.Errorf("%w; and %w", err, serr), 0)
	}
	end := fsm.Offset(reader.Expected())
	if from >= end {
		return nil
	}
	return r.unreadable(fmt.Errorf("offsets %d to %d cannot be read: %w", bad, end-1, err), end)
}

// claimedOffset is the offset that an entry's first batch was stamped with.
func claimedOffset(entry *raft.Log) (int64, bool) {
	if entry.Type != raft.LogCommand || !fsm.IsRecords(entry.Data) {
		return 0, false
	}
	header, err := kafkaproto.ParseBatchHeader(entry.Data)
	return header.BaseOffset, err == nil
}

// readFailed is told that something a replica keeps cannot be read, and behind which offset it can; 0: not known. It does not wait.
func (n *Node) readFailed(r *replica, err error, end fsm.Offset) {
	if !isDamage(err) {
		return
	}
	n.mu.Lock()
	old, known := n.hurt[r.id]
	known = known && old.replica == r
	if n.replicas[r.id] == r && (!known || end > old.end) {
		n.hurt[r.id] = hurt{r, err, max(end, old.end), known && old.leaving}
	}
	n.mu.Unlock()
	if known {
		return
	}
	n.logger.Error("a replica has something damaged; it is rebuilt when the others can do without it", "partition", r.id, "readable_from", end, "error", err)
	n.catalog.wake()
}

// healed is told that the scrub found nothing damaged in a replica.
func (n *Node) healed(r *replica) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.hurt[r.id]; h.replica == r && h.end == 0 {
		delete(n.hurt, r.id)
	}
}

// canDoWithout reports whether a majority of the other voters of a replica's group is there.
func (n *Node) canDoWithout(r *replica) bool {
	future := r.group.raft.GetConfiguration()
	return future.Error() == nil && n.majorityWithout(future.Configuration().Servers, n.identity)
}

// othersVote reports whether all other replicas of a partition have a vote: none of them is just being rebuilt, or joins.
func (n *Node) othersVote(r *replica) bool {
	topics := n.Topics()
	partition, ok := topics.Partition(r.id)
	if !ok {
		return false
	}
	vote := voters(r.group)
	return !slices.ContainsFunc(partition.Replicas, func(id fsm.NodeID) bool {
		node, ok := topics.Node(id)
		return id != n.nodeID && (!ok || !slices.Contains(vote, node.Identity()))
	})
}

// rebuildHurt has those replicas closed that the others can do without, if somebody else leads: two replicas, of which
// the leader is closed, have none.
func (n *Node) rebuildHurt() {
	n.mu.Lock()
	all := make([]hurt, 0, len(n.hurt))
	for id, h := range n.hurt {
		if n.replicas[id] != h.replica {
			delete(n.hurt, id)
			continue
		}
		all = append(all, h)
	}
	n.mu.Unlock()
	for _, h := range all {
		r := h.replica
		if start, _ := r.bounds(); h.end > 0 && start >= h.end {
			n.mu.Lock()
			delete(n.hurt, r.id) // deleted
			n.mu.Unlock()
			continue
		}
		if !n.canDoWithout(r) || !n.othersVote(r) {
			continue
		}
		leader, _ := r.leader()
		switch leader.identity {
		case "":
		case n.identity:
			n.done.Add(1)
			go func() {
				defer n.done.Done()
				if err := n.handOver(r.group); err != nil {
					n.logger.Debug("the leadership of a damaged replica stays", "partition", r.id, "error", err)
				}
			}()
		default:
			n.leaveHurt(r, leader.identity)
		}
	}
}

// leaveHurt has a replica leave its group while it still runs, and then be closed. Two that were found damaged at once, and
// closed first, would be missed by a leader that then could let neither of them go, and so would never come back.
func (n *Node) leaveHurt(r *replica, leader string) {
	n.mu.Lock()
	h := n.hurt[r.id]
	begins := h.replica == r && !h.leaving
	if begins {
		h.leaving = true
		n.hurt[r.id] = h
	}
	n.mu.Unlock()
	if !begins {
		return
	}
	n.done.Add(1)
	go func() {
		defer n.done.Done()
		ctx, cancel := context.WithTimeout(n.ctx, rebuildTimeout)
		defer cancel()
		_, err := n.ask(ctx, leader, callLeave, appendPartition(nil, r.id))
		n.mu.Lock()
		if h := n.hurt[r.id]; h.replica == r && err == nil && n.replicas[r.id] == r {
			n.damage[r.id] = h.err
			delete(n.hurt, r.id)
		} else if h.replica == r {
			h.leaving = false
			n.hurt[r.id] = h
		}
		n.mu.Unlock()
		if err != nil {
			n.logger.Debug("a damaged replica stays in its group", "partition", r.id, "error", err)
			return
		}
		n.catalog.wake()
	}()
}
