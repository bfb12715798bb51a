package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// The leader of a partition's group makes the group's configuration what the
// catalog says: a replica that should be there and is not comes in as a
// non-voter, and gets a vote once it has caught up. When all that should be there
// vote, those that should not go, and the catalog is told so (fsm/moves.go). One step
// at a time.

const (
	membersTimeout = 5 * time.Second
	// caughtUpEntries is how far behind a non-voter may be to get a vote.
	caughtUpEntries = 64
)

// reconcileMembers takes at most one step for a group that this node leads. It reports whether
// there is none to take, or another node leads.
func (r *Replica) reconcileMembers() bool {
	host, logger := r.env.Host, r.env.Logger
	p, err := r.Leads()
	if err != nil {
		return r.Member.Raft.State() != raft.Leader
	}
	topics := host.Topics()
	partition, ok := topics.Partition(r.ID)
	if !ok {
		return false
	}
	select {
	case r.changing <- struct{}{}:
		defer func() { <-r.changing }()
	default:
		return false
	}
	future := r.Member.Raft.GetConfiguration()
	if future.Error() != nil {
		return false
	}
	servers := future.Configuration().Servers
	suffrage := map[string]raft.ServerSuffrage{}
	for _, s := range servers {
		suffrage[string(s.ID)] = s.Suffrage
	}
	complete, lost := true, false
	wanted := map[string]bool{}
	for _, id := range partition.Replicas {
		node, ok := topics.Node(id)
		if !ok {
			complete = false
			continue
		}
		identity := node.Identity()
		wanted[identity] = true
		voter, member := suffrage[identity]
		if member && voter == raft.Voter {
			continue
		}
		if node.State == fsm.NodeLeaving && !host.Connected(identity) {
			lost = true
			continue
		}
		complete = false
		if identity == r.env.Identity {
			continue
		}
		ctx, cancel := context.WithTimeout(r.env.ctx, membersTimeout)
		applied, err := host.Applied(ctx, identity, r.ID)
		cancel()
		if err != nil {
			continue // not there, or not ready
		}
		server, address := raft.ServerID(identity), raft.ServerAddress(identity)
		switch {
		case !member:
			err = r.Member.Change(r.env.ctx, func() raft.Future { return r.Member.Raft.AddNonvoter(server, address, 0, membersTimeout) })
			logger.Log(r.env.ctx, levelOf(err), "a replica joins its group as a non-voter", "partition", r.ID, "node", id, "error", err)
		case !raftgroup.MajorityWith(servers, identity, host.Connected):
			logger.Debug("a replica gets no vote yet: too few of the others are there", "partition", r.ID, "node", id)
		case applied+caughtUpEntries >= r.Member.Raft.AppliedIndex():
			err = r.Member.Change(r.env.ctx, func() raft.Future { return r.Member.Raft.AddVoter(server, address, 0, membersTimeout) })
			logger.Log(r.env.ctx, levelOf(err), "a replica has caught up and votes", "partition", r.ID, "node", id, "error", err)
		}
		return false
	}
	// One that is lost comes back to nobody: its place goes to another with a move of its own, and
	// this one ends without it. But all who are in the group stay until then.
	surplus := slices.ContainsFunc(servers, func(s raft.Server) bool { return !wanted[string(s.ID)] })
	if !complete || lost && surplus {
		return false
	}
	if len(servers) == len(wanted) && len(partition.Leaving) == 0 {
		return true
	}
	r.removeMembers(p, partition, wanted, servers)
	return false
}

// removeMembers takes out of the group who is no longer wanted, one at a time and this node last,
// by handing leadership over; when nobody is left of them the catalog hears of it.
func (r *Replica) removeMembers(p Leader, partition *fsm.Partition, wanted map[string]bool, servers []raft.Server) {
	host, logger := r.env.Host, r.env.Logger
	surplus := raftgroup.LeastMissed(servers, r.env.Identity, host.Connected, func(identity string) bool { return !wanted[identity] })
	for _, identity := range surplus {
		if identity == r.env.Identity {
			continue
		}
		if !raftgroup.MajorityWithout(servers, identity, r.env.Host.Connected) {
			logger.Debug("a replica cannot leave its group yet: too few of the others are there", "partition", r.ID, "node", identity)
			return
		}
		err := r.Member.Change(r.env.ctx, func() raft.Future { return r.Member.Raft.RemoveServer(raft.ServerID(identity), 0, membersTimeout) })
		logger.Log(r.env.ctx, levelOf(err), "a replica has left its group", "partition", r.ID, "node", identity, "error", err)
		return
	}
	if len(surplus) > 0 {
		if err := host.HandOverTo(r.Member, func(identity string) bool { return wanted[identity] }); err != nil {
			logger.Debug("leadership was not handed over", "partition", r.ID, "error", err)
		}
		return
	}
	if len(partition.Leaving) == 0 {
		return
	}
	// They let go of their records when they hear of it, so the configuration without them must be
	// committed.
	if err := r.settled(p); err != nil {
		logger.Debug("it is not certain yet that replicas have left", "partition", r.ID, "error", err)
		return
	}
	ctx, cancel := context.WithTimeout(r.env.ctx, membersTimeout)
	defer cancel()
	settle := &fsm.Settle{Topic: r.ID.Topic, Partition: r.ID.Partition, Nodes: partition.Leaving}
	if host.Topics().FeatureLevel() >= 3 {
		settle.Replicas = partition.Replicas
	}
	if err := host.Settle(ctx, settle); err != nil {
		logger.Warn("cannot tell the catalog that replicas have left yet", "partition", r.ID, "error", err)
	}
}

// settled returns nil when the configuration that this replica had when it was called, as the
// leader p, is committed. One that is not, or that of a leader that was deposed, says nothing of
// who is in the group.
func (r *Replica) settled(p Leader) error {
	if err := r.Member.Change(r.env.ctx, func() raft.Future { return r.Member.Raft.Barrier(membersTimeout) }); err != nil {
		return err
	}
	if fsm.Term(r.Member.Raft.CurrentTerm()) != p.InTerm() {
		return outcome.ErrNotLeader
	}
	return nil
}

// errTooFew means that a group could not go on without a member that is to leave it.
var errTooFew = errors.New("too few of the other members are there")

// Release lets another member go: a replica that may have lost acknowledged records or
// votes leaves its group (invariant 7). The answer is this node's term, in which
// that replica must not vote any more. A group that could not go on without it
// keeps it as it is: what is left of its majority must not shrink.
func (r *Replica) Release(ctx context.Context, identity string) (term uint64, err error) {
	p, err := r.Leads()
	if err != nil {
		return 0, err
	}
	// Who else goes is to be seen: two that are judged by the same configuration may be one too
	// many.
	select {
	case r.changing <- struct{}{}:
		defer func() { <-r.changing }()
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: another member comes or goes", outcome.ErrNoLeader)
	}
	future := r.Member.Raft.GetConfiguration()
	if err := future.Error(); err != nil {
		return 0, fmt.Errorf("%w: %w", outcome.ErrNoLeader, err)
	}
	servers := future.Configuration().Servers
	if slices.ContainsFunc(servers, func(s raft.Server) bool { return string(s.ID) == identity }) {
		if !raftgroup.MajorityWithout(servers, identity, r.env.Host.Connected) {
			return 0, fmt.Errorf("%w: %w", outcome.ErrNoLeader, errTooFew)
		}
		if err := r.Member.Change(ctx, func() raft.Future { return r.Member.Raft.RemoveServer(raft.ServerID(identity), 0, membersTimeout) }); err != nil {
			return 0, fmt.Errorf("%w: %w", outcome.ErrNoLeader, err)
		}
		r.env.Logger.Warn("a replica has left its group to be rebuilt", "partition", r.ID, "node", identity)
	} else if err := r.settled(p); err != nil {
		return 0, fmt.Errorf("%w: %w", outcome.ErrNoLeader, err)
	}
	return r.Member.Raft.CurrentTerm(), nil // not below that of the configuration
}

// levelOf is the level of a line about a step that is tried again if it fails.
func levelOf(err error) slog.Level {
	if err != nil {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}
