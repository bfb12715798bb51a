package leading

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/election"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
)

// Member is this node's member of a Raft group, as far as who leads it matters. Two of the same
// member are equal. Its methods are called from any goroutine.
type Member interface {
	Seen
	Candidate
	Giver
}

// Seen is what is seen of a member. Nothing in it waits.
type Seen interface {
	Group() string    // its name
	Voters() []string // identities, in the order of the configuration; nil: it is not known
	State() raft.RaftState
	Term() uint64
	Leader() (identity string, term uint64) // that it knows, "" for none
	LastEntry() (index, term uint64)        // of its log, or of the snapshot that stands for it
	Voteless() bool                         // a newcomer that knows nothing yet
	// its leader's node is alive and does not say that it leads
	Unled() bool
	Stuck() bool // an append does not end
	// the number of the append that is under way; 0: none is
	Appending() uint64
	SetStuck(append uint64) // that append takes too long
}

// Candidate is a member that is made to stand for election.
type Candidate interface {
	LastContact() time.Time // with its leader
	// Stand has it stand at once, whatever others know (election.Member.Stand).
	Stand() error
	// Yield ends its candidacy of that term (election.Member.Yield).
	Yield(as string, term uint64) error
	// Expire has a follower look at once whether its leader has been silent for the heartbeat
	// timeout, and stand if so.
	Expire(heartbeat time.Duration) error
}

// Giver is a member whose leadership is given away.
type Giver interface {
	// Hold keeps proposals from being made until open is called; false: somebody else does.
	// Proposing is how many have no fate yet.
	Hold() (open func(), ok bool)
	Proposing() int64
	// Nominate tells a voter on another node to stand at once (election.Member.Nominate).
	Nominate(ctx context.Context, identity string) error
}

// Of gives a member that runs here.
func Of(m *raftgroup.Member) Member {
	signs, _ := m.Transport.(*election.Member)
	return member{m, signs}
}

// member is a raftgroup.Member as this package knows it.
type member struct {
	*raftgroup.Member
	signs *election.Member // nil: no signs of life speak for the group
}

// errUnsigned means that a member cannot be told to stand.
var errUnsigned = errors.New("no signs of life speak for the group")

func (m member) Group() string                { return m.Name }
func (m member) State() raft.RaftState        { return m.Raft.State() }
func (m member) Term() uint64                 { return m.Raft.CurrentTerm() }
func (m member) Voteless() bool               { return m.signs != nil && m.signs.Voteless() }
func (m member) Unled() bool                  { return m.signs != nil && m.signs.Unled() }
func (m member) LastContact() time.Time       { return m.Raft.LastContact() }
func (m member) Hold() (open func(), ok bool) { return m.Proposals.Hold() }
func (m member) Proposing() int64             { return m.Proposals.Under() }

// LastEntry implements Seen.
func (m member) LastEntry() (index, term uint64) {
	stats := m.Raft.Stats()
	number := func(key string) uint64 {
		v, _ := strconv.ParseUint(stats[key], 10, 64)
		return v
	}
	index, term = number("last_log_index"), number("last_log_term")
	if snapshot := number("last_snapshot_index"); snapshot > index {
		index, term = snapshot, number("last_snapshot_term")
	}
	return index, term
}

// Stand implements Candidate.
func (m member) Stand() error {
	if m.signs == nil {
		return errUnsigned
	}
	return m.signs.Stand()
}

// Yield implements Candidate.
func (m member) Yield(as string, term uint64) error {
	if m.signs == nil {
		return errUnsigned
	}
	return m.signs.Yield(as, term)
}

// Expire implements Candidate: hashicorp/raft looks when the timeout is made shorter.
func (m member) Expire(heartbeat time.Duration) error {
	config := m.Raft.ReloadableConfig()
	if config.HeartbeatTimeout < heartbeat {
		config.HeartbeatTimeout, config.ElectionTimeout = heartbeat, heartbeat
		if err := m.Raft.ReloadConfig(config); err != nil {
			return err
		}
	}
	config.HeartbeatTimeout = heartbeat - heartbeat/1000
	return m.Raft.ReloadConfig(config)
}

// Nominate implements Giver.
func (m member) Nominate(ctx context.Context, identity string) error {
	if m.signs == nil {
		return errUnsigned
	}
	return m.signs.Nominate(ctx, identity)
}
