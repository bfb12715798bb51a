package election

import (
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlink"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// Member is what Beacons.Open gives: the transport of this node's member of one Raft group, for
// which beacons speak.
type Member struct {
	*raftlink.Transport
	common *common
	remove func() // what Close does
	once   sync.Once
	// instance tells this from another raft group of the same name, before or after it in this
	// process.
	instance uint64

	beats    beats
	confirms confirms
	newcomer atomic.Bool // as Newcomer says
	unled    atomic.Bool // as Unled says
	feeding  atomic.Bool // a heartbeat is being given to the raft group
	leaving  atomic.Bool // it is being asked who follows, and stepped down if nobody does
	polled   polled      // owned by run
}

var (
	_ raft.Transport   = (*Member)(nil)
	_ raft.WithPreVote = (*Member)(nil)
	_ raft.WithClose   = (*Member)(nil)
)

// Unled says that the leader this raft group follows is on a node that is alive and has not said
// for a while that it leads.
func (m *Member) Unled() bool { return m.unled.Load() }

// Claim lets beacons say of this raft group what r says, the raft group's Raft here. Until it is
// called every message of the raft group goes on the wire, and every heartbeat is taken beside
// Raft's main loop.
func (m *Member) Claim(r raftlink.Raft) { m.Attach(r) }

// Close ends this raft group's part of the link. Raft calls it when its shutdown is awaited.
func (m *Member) Close() error {
	m.once.Do(m.remove)
	return nil
}

// AppendEntries implements raft.Transport.
func (m *Member) AppendEntries(id raft.ServerID, addr raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	switch {
	case !m.common.beaconing():
		return m.Transport.AppendEntries(id, addr, args, resp)
	case !raftlink.IsHeartbeat(args):
		m.beats.first(id, args.Term, m.common.link.Now())
		return m.Transport.AppendEntries(id, addr, args, resp)
	}
	defer func() { m.beats.note(id, args.Term, m.common.link.Now()) }()
	if m.heartbeat(id, args, resp) {
		return nil
	}
	return m.timelyHeartbeat(id, addr, args, resp)
}

// AppendEntriesPipeline implements raft.Transport.
func (m *Member) AppendEntriesPipeline(id raft.ServerID, addr raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := m.Transport.AppendEntriesPipeline(id, addr)
	if err != nil || !m.common.beaconing() {
		return p, err
	}
	return &pipeline{p, m, id}, nil
}

// pipeline notes to whom its member sends.
type pipeline struct {
	raft.AppendPipeline
	m  *Member
	id raft.ServerID
}

// AppendEntries implements raft.AppendPipeline.
func (p *pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.m.beats.first(p.id, args.Term, p.m.common.link.Now())
	return p.AppendPipeline.AppendEntries(args, resp)
}

// instances numbers the raft groups that are opened in this process.
var instances atomic.Uint64

// members are the raft groups of this node that beacons may speak for.
type members struct {
	// mu guards what follows. Transports are opened and closed under it, which waits for nothing.
	mu     locks.Mutex[members]
	byName map[string]*Member
	// For run: byName has changed since it looked, and which were closed since.
	changed bool
	leaving []*Member
}

// Open gives the member of that raft group here, opening its transport where it is not open: from
// then on the raft group's messages are taken here. Between Close and the next Open with that name
// they are refused. The name goes with every message: keep it short. Nobody else may open
// transports among those that New was given.
func (b *Beacons) Open(group string) *Member {
	s := &b.members
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.byName[group]; m != nil {
		return m
	}
	m := &Member{common: b.common, instance: instances.Add(1)}
	m.remove = func() { s.close(m, m.common.beaconing()) }
	b.rafts.Open(group, func(t *raftlink.Transport) {
		// From here on messages may come, and m must not change any more.
		m.Transport = t
		t.OnRequest(m.admitCandidate)
	})
	s.byName[group] = m
	s.changed = true
	return m
}

// close ends m. Whoever opens the raft group anew gets another one. polled says that run looks.
func (s *members) close(m *Member, polled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byName, m.RaftGroup())
	s.changed = true
	if polled {
		s.leaving = append(s.leaving, m)
	}
	_ = m.Transport.Close()
}

// look gives all members into all, if they have changed, and those that were closed since the last
// look.
func (s *members) look(all []*Member) (now, closed []*Member, changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if changed = s.changed; changed {
		all, s.changed = all[:0], false
		for _, m := range s.byName {
			all = append(all, m)
		}
	}
	closed, s.leaving = s.leaving, nil
	return all, closed, changed
}
