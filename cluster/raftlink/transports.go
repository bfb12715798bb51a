package raftlink

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// Config says how Raft's messages are sent.
type Config struct {
	// Timeout of a message, scaled up by its size. Default 10 s.
	Timeout time.Duration
	// MaxInFlight bounds the unanswered AppendEntries of one pipeline. Default 2, which
	// keeps the follower busy; more makes batches smaller and commits slower (see
	// hashicorp/raft's NetworkTransportConfig.MaxRPCsInFlight).
	MaxInFlight int
	// MaxAppendEntries is raft.Config.MaxAppendEntries of the groups. With it a pipeline gives way
	// where more than that many entries wait for a follower. 0: never.
	MaxAppendEntries int
	// StoreFirst has Ahead send nothing. For measuring only.
	StoreFirst bool
	// Answered is told of every answer of a raft group here to a request of Raft, before it leaves,
	// resp nil for an error: tests hold them against each other. It must not block or change
	// anything.
	Answered func(group string, req, resp any)
}

const (
	defaultTimeout  = 10 * time.Second
	defaultInFlight = 2
)

// Host is what is known of other nodes.
type Host interface {
	// Gone says whether this node holds that one for gone.
	Gone(node string) bool
	// Instance tells the raft group on that node which follows this one in that term now, as the
	// process of that boot says, from one that was closed or opened since. 0: it says nothing of
	// the kind.
	Instance(node string, boot uint64, group string, term uint64) uint64
}

// alone is the host of who is told nothing of other nodes.
type alone struct{}

func (alone) Gone(string) bool                               { return false }
func (alone) Instance(string, uint64, string, uint64) uint64 { return 0 }

// Raft is what a transport must see of its raft group's Raft here; *raft.Raft is one.
type Raft interface {
	State() raft.RaftState
	CurrentTerm() uint64
	LeaderWithID() (raft.ServerAddress, raft.ServerID)
	CommitIndex() uint64
	LastIndex() uint64
	GetConfiguration() raft.ConfigurationFuture
	Barrier(timeout time.Duration) raft.Future
}

// common is what the transports of a node share.
type common struct {
	link       *link.Link
	cfg        Config
	stats      counters
	unanswered budgets

	// Set before the link is started.
	host Host
	// fresh is how old a yes may be to count as contact with who said it. 0: nodes send no beacons,
	// and nothing is left out.
	fresh time.Duration
}

// Transports are the transports of all raft groups of a node. All methods are safe for concurrent
// use.
type Transports struct {
	*common

	mu     locks.Mutex[Transports] // guards what follows; only prepare of Open is called under it
	closed bool
	groups map[string]*Transport
}

// New makes the transports of a node over its link. It must be called before the link is started.
func New(l *link.Link, cfg Config) *Transports {
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.MaxInFlight <= 0 {
		cfg.MaxInFlight = defaultInFlight
	}
	s := &Transports{common: &common{link: l, cfg: cfg, host: alone{}}, groups: make(map[string]*Transport)}
	l.Serve(s.take)
	l.OnClose(s.close)
	return s
}

// Consult names who knows other nodes, by beacons of which none older than fresh counts; 0:
// there are none. It must be called before the link is started.
func (s *Transports) Consult(h Host, fresh time.Duration) { s.host, s.fresh = h, fresh }

// Timeout is Config.Timeout.
func (s *Transports) Timeout() time.Duration { return s.cfg.Timeout }

// Open gives the transport of one raft group, opening it where it is not open: from then on the
// raft group's messages are taken here. Between Close and the next Open with that name they are
// refused. The name goes with every message: keep it short. prepare, if not nil, is called before
// the first message is taken; it must not block nor call the Transports.
func (s *Transports) Open(group string, prepare func(*Transport)) *Transport {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.groups[group]; t != nil {
		return t
	}
	l := &local{group: group, consumer: make(chan raft.RPC), done: make(chan struct{}), timeout: s.cfg.Timeout}
	t := &Transport{common: s.common, local: l, inbox: inbox{common: s.common, local: l}}
	t.ctx, t.cancel = context.WithCancelCause(s.link.Context())
	t.remove = func() { s.remove(t) }
	if prepare != nil {
		prepare(t)
	}
	if s.closed {
		t.local.close()
		t.once.Do(func() {})
		return t
	}
	s.groups[group] = t
	return t
}

// remove makes t refuse what comes.
func (s *Transports) remove(t *Transport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.groups[t.group] == t {
		delete(s.groups, t.group)
	}
	t.local.close()
}

// close ends all transports.
func (s *Transports) close() {
	s.mu.Lock()
	s.closed = true
	all := make([]*Transport, 0, len(s.groups))
	for _, t := range s.groups {
		all = append(all, t)
	}
	s.mu.Unlock()
	for _, t := range all {
		_ = t.Close()
	}
}

func (s *Transports) named(group []byte) *Transport {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.groups[string(group)]
}

// take hands one request to its raft group, or refuses it. It never waits: a stuck raft group must
// not hold up the others of this connection.
func (s *Transports) take(r *link.Request) error {
	s.stats.in.Add(1)
	n, used := binary.Uvarint(r.Body)
	if used <= 0 || n > uint64(len(r.Body)-used) {
		return fmt.Errorf("%w: group name", link.ErrProtocol)
	}
	name, msg := r.Body[used:used+int(n)], r.Body[used+int(n):]
	t := s.named(name)
	if t == nil {
		s.stats.noMember.Add(1)
		return r.Refuse(link.ErrNoMember)
	}
	return t.inbox.take(r, msg)
}

type counters struct {
	out, in, heartbeatsIn, overflow, noMember atomic.Uint64
	swallowed, parked, barriers               atomic.Uint64
	pipelinesEnded                            atomic.Uint64
	ahead, aheadUsed                          atomic.Uint64
}

// Stats are counters since New, for metrics.
type Stats struct {
	// Out and In count requests, HeartbeatsIn those of them that took the fast path.
	Out, In, HeartbeatsIn uint64
	// Overflow counts requests refused because a raft group's queue was full, NoMember those for
	// raft groups that are not here.
	Overflow, NoMember uint64
	// Swallowed counts empty AppendEntries that were left out, Parked requests that waited for a
	// node that is gone, Barriers those proposed where a leader waited for a commit.
	Swallowed, Parked, Barriers uint64
	// Ahead counts AppendEntries that were sent before the leader had stored their entries,
	// AheadUsed those of them that Raft then asked for.
	Ahead, AheadUsed uint64
	Groups           int
}

// PipelinesEnded counts the pipelines that have ended, of all raft groups.
func (s *Transports) PipelinesEnded() uint64 { return s.stats.pipelinesEnded.Load() }

// Stats reads all counters.
func (s *Transports) Stats() Stats {
	c := &s.stats
	s.mu.Lock()
	groups := len(s.groups)
	s.mu.Unlock()
	return Stats{
		Out: c.out.Load(), In: c.in.Load(), HeartbeatsIn: c.heartbeatsIn.Load(),
		Overflow: c.overflow.Load(), NoMember: c.noMember.Load(),
		Swallowed: c.swallowed.Load(), Parked: c.parked.Load(), Barriers: c.barriers.Load(),
		Ahead: c.ahead.Load(), AheadUsed: c.aheadUsed.Load(), Groups: groups,
	}
}
