package election

import (
	"context"
	"maps"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlink"
)

// A leader that no majority follows must not go on for ever: what is proposed there is answered
// when it steps down. Raft's own lease is long, since each raft group pays for each look at it, and
// for the heartbeats between two of them. So the node looks for all its raft groups: beacons say
// who follows, and where they do not speak for a majority for a while the leader asks the voters
// themselves (Confirm). Only if that fails, too, it steps down, as with Raft's lease: it becomes a
// follower of nobody in its term. Nothing else rests on it (docs/peer-link.md, "Who leads").

const (
	// leaseTick is how often leaders here are looked at.
	leaseTick = time.Second
	// attendEvery is how often it is looked at those, too, for whom nothing seems to have changed
	// since all followed and were sent to.
	attendEvery = 10 * time.Second
	// unfollowedFor is how long no majority may follow by the beacons before the leader asks, or
	// steps down at once where none is there to be asked: about 5 s after it was cut off.
	unfollowedFor = 4 * time.Second
	// introduceAfter is how long after its election a leader expects all to follow; after that it
	// sends a heartbeat to those that do not, every introduceEvery.
	introduceAfter = 500 * time.Millisecond
	introduceEvery = 2 * time.Second
)

// attend looks after the leaders here: those that no majority follows ask, and step down, and
// followers that do not say that they follow hear of their leader. To those that do something is
// sent if no pipeline is open to them.
func (b *Beacons) attend(groups []*Member, now int64) {
	if now-b.attended < int64(leaseTick) {
		return
	}
	b.attended = now
	heard := make(map[string]hearing)
	for _, n := range b.nodes.all() {
		heard[n.identity] = n.beacons.hearing(now, int64(b.cfg.fresh()))
	}
	if ended := b.rafts.PipelinesEnded(); ended != b.ended || !maps.Equal(heard, b.heard) || now-b.attendedAll >= int64(attendEvery) {
		b.ended, b.heard, b.attendedAll = ended, heard, now
		b.epoch++
	}
	for i, m := range groups {
		v, g := &m.polled, &b.glances[i]
		if g.calm && g.settled == b.epoch {
			continue
		}
		r := m.Raft()
		if r == nil {
			v.unfollowed = 0
			continue
		}
		majority, all := true, true
		if v.state == raft.Leader {
			majority, all = b.followed(m, r, heard, now)
		}
		if all {
			g.settled = b.epoch
		}
		if majority {
			v.unfollowed = 0
			continue
		}
		if v.unfollowed == 0 {
			v.unfollowed = now
		}
		// A process that stood still has not heard anybody meanwhile.
		since := max(v.unfollowed, b.still.awake)
		if now-since < int64(unfollowedFor) || !m.leaving.CompareAndSwap(false, true) {
			continue
		}
		term := v.term
		if !b.link.Go(func() {
			defer m.leaving.Store(false)
			b.askOrStepDown(m, term)
		}) {
			m.leaving.Store(false)
		}
	}
}

// followed says whether a majority of the voters follows the leader here, by beacons, and whether
// all members do and are sent to.
func (b *Beacons) followed(m *Member, r raftlink.Raft, heard map[string]hearing, now int64) (majority, all bool) {
	votes, follow := 0, 0
	all = true
	for _, s := range r.GetConfiguration().Configuration().Servers {
		id := string(s.ID)
		follows := id == b.link.Self()
		if n := b.nodes.known(id); !follows && n != nil {
			c, boot := b.nodes.claimed(n, m.RaftGroup())
			claims := c.kind == claimFollows && c.term == m.polled.term
			if follows = claims && heard[id].confirms; follows {
				all = b.replicating(m, id, c, now) && all
			}
			if boot != 0 && !claims && now-m.polled.since >= int64(introduceAfter) {
				b.introduce(m, id, now)
			}
		}
		all = all && follows
		if s.Suffrage == raft.Voter {
			votes++
			if follows {
				follow++
			}
		}
	}
	return follow > votes/2, all
}

// introduce sends a heartbeat to a follower that does not say that it follows, as one that was
// restarted: Raft's own come seldom. Its claim is news then (greet).
func (b *Beacons) introduce(m *Member, id string, now int64) {
	v := &m.polled
	if last := v.introduced[id]; last != 0 && now-last < int64(introduceEvery) {
		return
	}
	if v.introduced == nil {
		v.introduced = make(map[string]int64)
	}
	v.introduced[id] = now
	term := v.term
	b.link.Go(func() {
		ctx, cancel := context.WithTimeout(m.Context(), introduceEvery)
		defer cancel()
		var resp raft.AppendEntriesResponse
		err := m.Exchange(ctx, raft.ServerID(id), &raft.AppendEntriesRequest{RPCHeader: m.ownHeader(), Term: term}, &resp)
		if err == nil && resp.Term > term {
			m.Wake() // Raft looks at the terms of answers to entries only
		}
	})
}

// askOrStepDown makes a follower of the leader here if no majority says that it still leads.
func (b *Beacons) askOrStepDown(m *Member, term uint64) {
	r := m.Raft()
	if r == nil {
		return
	}
	others, needed := m.otherVoters(r)
	for _, id := range others {
		if !b.Gone(id) {
			needed--
		}
	}
	if needed <= 0 {
		ctx, cancel := context.WithTimeout(m.Context(), confirmFor)
		defer cancel()
		if _, err := m.Confirm(ctx); err == nil || m.Context().Err() != nil {
			return
		}
	}
	if r.State() != raft.Leader || r.CurrentTerm() != term {
		return
	}
	b.link.Logger().Warn("no majority follows: stepping down", "group", m.RaftGroup(), "term", term)
	b.stats.steppedDown.Add(1)
	// In Raft's main loop an AppendEntries of a leader's own term makes a follower of it, as its
	// lease does; one that names no leader leaves none known, and without entries nothing else
	// changes. If a newer term has begun meanwhile it is ignored.
	if err := m.Inject(&raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}, Term: term}); err != nil {
		b.link.Logger().Debug("a leader did not step down", "group", m.RaftGroup(), "error", err)
	}
}

// adjustable is what *raft.Raft lets change while it runs.
type adjustable interface {
	ReloadableConfig() raft.ReloadableConfig
	ReloadConfig(raft.ReloadableConfig) error
}

// hurry gives a candidate that knows a leader a shorter election timer, and takes it back: by a
// TimeoutNow it lost to that one, and Raft leaves it a candidate until the timer has run out.
func (m *Member) hurry(r any, waits bool) {
	cfg := m.common.cfg
	a, ok := r.(adjustable)
	if !ok || cfg.ElectionTimeout <= 0 || cfg.ElectionTimeout >= cfg.HeartbeatTimeout || waits == m.polled.hurried {
		return
	}
	m.polled.hurried = waits
	limit := cfg.HeartbeatTimeout
	if waits {
		limit = cfg.ElectionTimeout
	}
	config := a.ReloadableConfig()
	config.HeartbeatTimeout, config.ElectionTimeout = limit, limit
	if err := a.ReloadConfig(config); err != nil {
		m.common.link.Logger().Warn("Raft's timeouts stay as they are", "group", m.RaftGroup(), "error", err)
	}
}
