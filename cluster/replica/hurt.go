package replica

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// A replica in which a reader finds a damaged byte has all else, and Raft does not need that byte.
// So it serves and votes on, and what is damaged is refused, until the others can do without it;
// then it leaves their group, and is closed and rebuilt from them (rebuild.go), one replica of a
// group at a time. With one replica that is never: the operator is told where the log goes on, and
// may delete what is in front of that.

// hurt is what is known of such a replica.
type hurt struct {
	replica *Replica
	err     error
	end     fsm.Offset // behind what cannot be read; 0: the scrub found it
	leaving bool       // its leader is asked to let it go
	giving  bool       // it leads, and gives that away or has just done so in vain
}

// giveHurtPause is the pause before the leadership of a damaged replica that stayed is given away
// again: its group takes no proposals while it is.
const giveHurtPause = 5 * time.Second

// unreadable is the error of a reader that could not read, which ends behind what it could not; 0:
// not known.
func (r *Records) unreadable(err error, end fsm.Offset) error {
	code := error(outcome.ErrStorage)
	if isDamage(err) {
		r.keeper.ReadFailed(r.Replica, err, end)
		if !r.canDoWithout() {
			code = outcome.ErrCorruptMessage // to ask again does not help
		}
	}
	return fmt.Errorf("%w: %w", code, err)
}

// passDamage has a reader go on behind an entry that it could not give, on its way to the batches
// from offset from on. The error says that from is among what cannot be read.
func (r *Records) passDamage(reader *raftlog.Reader, from fsm.Offset, err error) error {
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
	if entry.Type != raft.LogCommand || !fsm.IsRecords(entry.Data) || raftlog.Compacted(entry).Compacted {
		return 0, false
	}
	header, err := kafkaproto.ParseBatchHeader(entry.Data)
	return header.BaseOffset, err == nil
}

// ReadFailed is told that something a replica keeps cannot be read, and behind which offset it can;
// 0: not known. It does not wait.
func (s *Set) ReadFailed(r *Replica, err error, end fsm.Offset) {
	if !isDamage(err) {
		return
	}
	s.mu.Lock()
	old, known := s.hurt[r.ID]
	known = known && old.replica == r
	if s.open[r.ID] == r && (!known || end > old.end) {
		s.hurt[r.ID] = hurt{r, err, max(end, old.end), known && old.leaving, known && old.giving}
	}
	s.mu.Unlock()
	if known {
		return
	}
	s.env.Logger.Error("a replica has something damaged; it is rebuilt when the others can do without it", "partition", r.ID, "readable_from", end, "error", err)
	s.env.Host.Wake()
}

// healed is told that the scrub found nothing damaged in a replica.
func (s *Set) healed(r *Replica) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.hurt[r.ID]; h.replica == r && h.end == 0 {
		delete(s.hurt, r.ID)
	}
}

// canDoWithout reports whether a majority of the other voters of a replica's group is there.
func (r *Replica) canDoWithout() bool {
	future := r.Member.Raft.GetConfiguration()
	return future.Error() == nil && raftgroup.MajorityWithout(future.Configuration().Servers, r.env.Identity, r.env.Host.Connected)
}

// othersVote reports whether all other replicas of a partition have a vote: none of them is just
// being rebuilt, or joins.
func (r *Replica) othersVote() bool {
	topics := r.env.Host.Topics()
	partition, ok := topics.Partition(r.ID)
	if !ok {
		return false
	}
	vote := r.Member.Voters()
	return !slices.ContainsFunc(partition.Replicas, func(id fsm.NodeID) bool {
		node, ok := topics.Node(id)
		return id != r.env.NodeID && (!ok || !slices.Contains(vote, node.Identity()))
	})
}

// rebuildHurt has those replicas closed that the others can do without, if somebody else leads: two
// replicas, of which the leader is closed, have none.
func (s *Set) rebuildHurt() {
	s.mu.Lock()
	all := make([]hurt, 0, len(s.hurt))
	for id, h := range s.hurt {
		if s.open[id] != h.replica {
			delete(s.hurt, id)
			continue
		}
		all = append(all, h)
	}
	s.mu.Unlock()
	for _, h := range all {
		r := h.replica
		if start, _ := r.Bounds(); h.end > 0 && start >= h.end {
			s.mu.Lock()
			delete(s.hurt, r.ID) // deleted
			s.mu.Unlock()
			continue
		}
		if !r.canDoWithout() {
			continue
		}
		leader, _ := r.Leader()
		switch leader.Identity {
		case "":
		case s.env.Identity:
			// Also while another one joins: that one cannot be given what its leader cannot read.
			s.giveHurt(r)
		default:
			if r.othersVote() {
				s.leaveHurt(r, leader.Identity)
			}
		}
	}
}

// giveHurt gives the leadership of a damaged replica away, unless that is being done.
func (s *Set) giveHurt(r *Replica) {
	giving := func(now bool) (changed bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		h := s.hurt[r.ID]
		if h.replica != r || h.giving == now {
			return false
		}
		h.giving = now
		s.hurt[r.ID] = h
		return true
	}
	if !giving(true) {
		return
	}
	s.done.Add(1)
	go func() {
		defer s.done.Done()
		defer giving(false)
		err := s.env.Host.HandOver(r.Member)
		if err == nil {
			return
		}
		s.env.Logger.Debug("the leadership of a damaged replica stays", "partition", r.ID, "error", err)
		select {
		case <-time.After(giveHurtPause):
		case <-s.env.ctx.Done():
		}
	}()
}

// leaveHurt has a replica leave its group while it still runs, and then be closed. Two that were
// found damaged at once, and closed first, would be missed by a leader that then could let neither
// of them go, and so would never come back.
func (s *Set) leaveHurt(r *Replica, leader string) {
	s.mu.Lock()
	h := s.hurt[r.ID]
	begins := h.replica == r && !h.leaving
	if begins {
		h.leaving = true
		s.hurt[r.ID] = h
	}
	s.mu.Unlock()
	if !begins {
		return
	}
	s.done.Add(1)
	go func() {
		defer s.done.Done()
		ctx, cancel := context.WithTimeout(s.env.ctx, rebuildTimeout)
		defer cancel()
		_, err := s.env.Host.Leave(ctx, leader, r.ID)
		s.mu.Lock()
		if h := s.hurt[r.ID]; h.replica == r && err == nil && s.open[r.ID] == r {
			s.damage[r.ID] = h.err
			delete(s.hurt, r.ID)
		} else if h.replica == r {
			h.leaving = false
			s.hurt[r.ID] = h
		}
		s.mu.Unlock()
		if err != nil {
			s.env.Logger.Debug("a damaged replica stays in its group", "partition", r.ID, "error", err)
			return
		}
		s.env.Host.Wake()
	}()
}
