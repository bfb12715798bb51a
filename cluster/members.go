package cluster

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

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

// reconcileMembers takes at most one step for a group that this node leads. It reports whether there
// is none to take, or another node leads.
func (n *Node) reconcileMembers(r *replica) bool {
	p, err := r.leads()
	if err != nil {
		return r.group.raft.State() != raft.Leader
	}
	topics := n.Topics()
	partition, ok := topics.Partition(r.id)
	if !ok {
		return false
	}
	select {
	case r.changing <- struct{}{}:
		defer func() { <-r.changing }()
	default:
		return false
	}
	future := r.group.raft.GetConfiguration()
	if future.Error() != nil {
		return false
	}
	servers := future.Configuration().Servers
	suffrage := map[string]raft.ServerSuffrage{}
	for _, s := range servers {
		suffrage[string(s.ID)] = s.Suffrage
	}
	complete := true
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
		complete = false
		if identity == n.identity {
			continue
		}
		ctx, cancel := context.WithTimeout(n.ctx, membersTimeout)
		applied, err := n.appliedAt(ctx, identity, r.id)
		cancel()
		if err != nil {
			continue // not there, or not ready
		}
		server, address := raft.ServerID(identity), raft.ServerAddress(identity)
		switch {
		case !member:
			err = r.group.change(n.ctx, func() raft.Future { return r.group.raft.AddNonvoter(server, address, 0, membersTimeout) })
			n.logger.Log(n.ctx, levelOf(err), "a replica joins its group as a non-voter", "partition", r.id, "node", id, "error", err)
		case !n.majorityWith(servers, identity):
			n.logger.Debug("a replica gets no vote yet: too few of the others are there", "partition", r.id, "node", id)
		case applied+caughtUpEntries >= r.group.raft.AppliedIndex():
			err = r.group.change(n.ctx, func() raft.Future { return r.group.raft.AddVoter(server, address, 0, membersTimeout) })
			n.logger.Log(n.ctx, levelOf(err), "a replica has caught up and votes", "partition", r.id, "node", id, "error", err)
		}
		return false
	}
	if !complete {
		return false
	}
	if len(servers) == len(wanted) && len(partition.Leaving) == 0 {
		return true
	}
	n.removeMembers(r, p, partition, wanted, servers)
	return false
}

// removeMembers takes out of the group who is no longer wanted, one at a time and this node last, by handing
// leadership over; when nobody is left of them the catalog hears of it.
func (n *Node) removeMembers(r *replica, p leadership, partition *fsm.Partition, wanted map[string]bool, servers []raft.Server) {
	surplus := n.leastMissed(servers, func(identity string) bool { return !wanted[identity] })
	for _, identity := range surplus {
		if identity == n.identity {
			continue
		}
		if !n.majorityWithout(servers, identity) {
			n.logger.Debug("a replica cannot leave its group yet: too few of the others are there", "partition", r.id, "node", identity)
			return
		}
		err := r.group.change(n.ctx, func() raft.Future { return r.group.raft.RemoveServer(raft.ServerID(identity), 0, membersTimeout) })
		n.logger.Log(n.ctx, levelOf(err), "a replica has left its group", "partition", r.id, "node", identity, "error", err)
		return
	}
	if len(surplus) > 0 {
		if err := n.handOverTo(r.group, func(identity string) bool { return wanted[identity] }); err != nil {
			n.logger.Debug("leadership was not handed over", "partition", r.id, "error", err)
		}
		return
	}
	if len(partition.Leaving) == 0 {
		return
	}
	// They let go of their records when they hear of it, so the configuration without them must be
	// committed.
	if err := r.settled(p); err != nil {
		n.logger.Debug("it is not certain yet that replicas have left", "partition", r.id, "error", err)
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, membersTimeout)
	defer cancel()
	settle := &fsm.Settle{Topic: r.id.Topic, Partition: r.id.Partition, Nodes: partition.Leaving}
	if n.Topics().Level() >= 3 {
		settle.Replicas = partition.Replicas
	}
	if _, err := n.catalog.apply(ctx, fsm.CatalogCommand{Settle: settle}); err != nil {
		n.logger.Warn("cannot tell the catalog that replicas have left yet", "partition", r.id, "error", err)
	}
}

// settled returns nil when the configuration that this replica had when it was called, as the
// leader p, is committed. One that is not, or that of a leader that was deposed, says nothing of
// who is in the group.
func (r *replica) settled(p leadership) error {
	if err := r.group.change(r.node.ctx, func() raft.Future { return r.group.raft.Barrier(membersTimeout) }); err != nil {
		return err
	}
	if fsm.Term(r.group.raft.CurrentTerm()) != p.inTerm() {
		return outcome.ErrNotLeader
	}
	return nil
}

// leastMissed gives the members of a group that are to go: those first that are not there, since while they are members
// the others need more of each other, and this node last.
func (n *Node) leastMissed(servers []raft.Server, goes func(identity string) bool) (out []string) {
	for _, s := range servers {
		if goes(string(s.ID)) {
			out = append(out, string(s.ID))
		}
	}
	missed := func(identity string) int {
		if identity == n.identity {
			return 2
		}
		return boolInt(n.connected(identity))
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Or(missed(a)-missed(b), strings.Compare(a, b)) })
	return out
}

// errTooFew means that a group could not go on without a member that is to leave it.
var errTooFew = errors.New("too few of the other members are there")

// appliedAt asks a node how far its replica is.
func (n *Node) appliedAt(ctx context.Context, identity string, id fsm.PartitionID) (uint64, error) {
	reply, err := n.ask(ctx, identity, callApplied, appendPartition(nil, id))
	if err != nil {
		return 0, err
	}
	r := reader{b: reply}
	applied := r.uint64()
	if r.bad {
		return 0, errMalformed
	}
	return applied, nil
}

// release answers callLeave: a replica that may have lost acknowledged records or
// votes leaves its group (invariant 7). The answer is this node's term, in which
// that replica must not vote any more. A group that could not go on without it
// keeps it as it is: what is left of its majority must not shrink.
func (n *Node) release(ctx context.Context, r *replica, identity string) ([]byte, error) {
	p, err := r.leads()
	if err != nil {
		return nil, err
	}
	// Who else goes is to be seen: two that are judged by the same configuration may be one too many.
	select {
	case r.changing <- struct{}{}:
		defer func() { <-r.changing }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: another member comes or goes", outcome.ErrNoLeader)
	}
	future := r.group.raft.GetConfiguration()
	if err := future.Error(); err != nil {
		return nil, fmt.Errorf("%w: %w", outcome.ErrNoLeader, err)
	}
	servers := future.Configuration().Servers
	if slices.ContainsFunc(servers, func(s raft.Server) bool { return string(s.ID) == identity }) {
		if !n.majorityWithout(servers, identity) {
			return nil, fmt.Errorf("%w: %w", outcome.ErrNoLeader, errTooFew)
		}
		if err := r.group.change(ctx, func() raft.Future { return r.group.raft.RemoveServer(raft.ServerID(identity), 0, membersTimeout) }); err != nil {
			return nil, fmt.Errorf("%w: %w", outcome.ErrNoLeader, err)
		}
		n.logger.Warn("a replica has left its group to be rebuilt", "partition", r.id, "node", identity)
	} else if err := r.settled(p); err != nil {
		return nil, fmt.Errorf("%w: %w", outcome.ErrNoLeader, err)
	}
	return binary.BigEndian.AppendUint64(nil, r.group.raft.CurrentTerm()), nil // not below that of the configuration
}

// levelOf is the level of a line about a step that is tried again if it fails.
func levelOf(err error) slog.Level {
	if err != nil {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}
