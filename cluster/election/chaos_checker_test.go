package election_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// checker watches raft groups from outside and knows nothing of how Raft or the link
// work. What it is told: who claims to lead in a term, what each replica applies, what a
// client was told of its proposals, and when a leader was confirmed. What it holds to:
//
//   - One node at most claims to lead a raft group in a term.
//   - An applied entry never changes: the same index, the same term and bytes, on every
//     replica, and the same chain of hashes over all before it, also where a snapshot
//     replaced them.
//   - What was acknowledged is in the log once, in the order in which it was
//     acknowledged; what was refused is not; what nobody knows of is there once at most.
//   - A member's log does not end below what the member has acknowledged, unless a newer leader has
//     other entries.
//   - Whoever is confirmed as the leader after an acknowledgement is none from before.
type checker struct {
	began time.Time
	show  func(group, node string) string // what a node has, for people

	mu     sync.Mutex
	groups map[string]*checked
	events []string // the last ones
	broken error    // the first thing that cannot be
}

// checked is what is known of a group.
type checked struct {
	leaders   map[uint64]string   // by term
	entries   map[uint64]sum      // applied anywhere, by index
	chains    map[uint64]sum      // behind the entry
	proposals map[string]proposed // by value
	order     []string            // as acknowledged
	ackTerm   uint64              // of the newest that was acknowledged
	sent      sent
	promises  map[string]promise // by node: what it has said yes to last
}

// promise is an entry that a member has acknowledged, and the term of the leader that it told so.
type promise struct {
	term, index uint64
}

// sent is the snapshot that was sent last.
type sent struct {
	to    string
	index uint64
	at    time.Time
	times int
}

type sum [8]byte

type proposed uint8

const (
	unknown proposed = iota
	acknowledged
	refused
)

func newChecker() *checker {
	return &checker{began: time.Now(), show: func(string, string) string { return "" }, groups: map[string]*checked{}}
}

func (c *checker) group(name string) *checked {
	g := c.groups[name]
	if g == nil {
		g = &checked{leaders: map[uint64]string{}, entries: map[uint64]sum{}, chains: map[uint64]sum{}, proposals: map[string]proposed{}, promises: map[string]promise{}}
		c.groups[name] = g
	}
	return g
}

const eventsKept = 100

// note keeps what happened, to be shown when something is wrong.
func (c *checker) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.events) >= eventsKept {
		c.events = c.events[1:]
	}
	c.events = append(c.events, fmt.Sprintf("%8.3f s  ", time.Since(c.began).Seconds())+fmt.Sprintf(format, args...))
}

func (c *checker) wrongLocked(format string, args ...any) {
	if c.broken == nil {
		c.broken = fmt.Errorf("after %.3f s: "+format, append([]any{time.Since(c.began).Seconds()}, args...)...)
	}
}

func (c *checker) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken
}

func (c *checker) history() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.events, "\n")
}

// leads is told that a node speaks as the leader of a term.
func (c *checker) leads(group, node string, term uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.group(group)
	if other, ok := g.leaders[term]; ok && other != node {
		c.wrongLocked("%s: %s and %s lead in term %d", group, other, node, term)
	}
	g.leaders[term] = node
}

// applied is told of an entry, and of the chain of hashes up to it.
func (c *checker) applied(group, node string, index, term uint64, data []byte, chain sum) {
	h := sha256.New()
	binary.Write(h, binary.BigEndian, term)
	h.Write(data)
	entry := sum(h.Sum(nil)[:8])
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.group(group)
	if first, ok := g.entries[index]; ok && first != entry {
		c.wrongLocked("%s: %s applies another entry %d, of term %d: %.40q", group, node, index, term, data)
	}
	g.entries[index] = entry
	c.chainLocked(g, group, node, index, chain)
}

// restored is told of a snapshot that replaced what a replica had.
func (c *checker) restored(group, node string, index uint64, chain sum) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.chainLocked(c.group(group), group, node, index, chain)
}

func (c *checker) chainLocked(g *checked, group, node string, index uint64, chain sum) {
	if first, ok := g.chains[index]; ok && first != chain {
		c.wrongLocked("%s: the log of %s up to entry %d is not that of others", group, node, index)
	}
	g.chains[index] = chain
}

// proposed is told what came of a proposal, one after the other for a group.
func (c *checker) proposed(group, value string, what proposed, term uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.group(group)
	g.proposals[value] = what
	if what == acknowledged {
		g.order = append(g.order, value)
		g.ackTerm = max(g.ackTerm, term)
	}
}

// acknowledgedTerm is the newest term of which something was acknowledged.
func (c *checker) acknowledgedTerm(group string) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.group(group).ackTerm
}

// again is told of a snapshot that is sent, and true if it has been sent too often at one time:
// that would go on for ever.
func (c *checker) again(group, to string, index uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.group(group)
	s := &g.sent
	if now := time.Now(); s.to != to || s.index != index || now.Sub(s.at) > time.Second {
		*s = sent{to: to, index: index, at: now}
	}
	if s.times++; s.times > 50 {
		c.wrongLocked("%s: %s is sent the snapshot of entry %d again and again: %s", group, to, index, c.show(group, to))
		return true
	}
	return false
}

// answered is told of every answer of a member to a request of Raft. One to entries says where the
// log ended when the request came.
func (c *checker) answered(group, node string, req, resp any) {
	asked, ok := req.(*raft.AppendEntriesRequest)
	if !ok || asked.PrevLogEntry == 0 && len(asked.Entries) == 0 {
		return
	}
	answer, ok := resp.(*raft.AppendEntriesResponse)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.group(group)
	was := g.promises[node]
	if answer.LastLog < was.index {
		c.wrongLocked("%s: the log of %s ends at entry %d, it acknowledged entry %d in term %d", group, node, answer.LastLog, was.index, was.term)
	}
	if !answer.Success {
		return
	}
	end := asked.PrevLogEntry + uint64(len(asked.Entries))
	if asked.Term == was.term {
		end = max(end, was.index)
	}
	g.promises[node] = promise{asked.Term, end}
}

// confirmed is told that a node was confirmed as the leader, in that term at most, by a question
// that was asked when acknowledgements of the term since were out.
func (c *checker) confirmed(group, node string, term, since uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if term < since {
		c.wrongLocked("%s: %s is confirmed as the leader of term %d, and term %d has acknowledged something before", group, node, term, since)
	}
}

// final compares what a replica has in the end with what was promised.
func (c *checker) final(group, node string, values []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.group(group)
	at := map[string]int{}
	for i, v := range values {
		if first, twice := at[v]; twice {
			c.wrongLocked("%s: %s has %q at %d and %d", group, node, v, first, i)
		}
		at[v] = i
		if what, was := g.proposals[v]; !was || what == refused {
			c.wrongLocked("%s: %s has %q, which was refused or never proposed", group, node, v)
		}
	}
	last := -1
	for _, v := range g.order {
		i, is := at[v]
		if !is {
			c.wrongLocked("%s: %s has lost %q, which was acknowledged", group, node, v)
		} else if i <= last {
			c.wrongLocked("%s: %s has %q out of order", group, node, v)
		}
		last = i
	}
}

// chained is the state machine of a replica: a list of values and the chain of hashes over them.
type chained struct {
	checker     *checker
	group, node string

	mu    sync.Mutex
	state chainedState
}

type chainedState struct {
	Index  uint64
	Chain  sum
	Values []string
}

func (f *chained) Apply(l *raft.Log) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &f.state
	if l.Index <= s.Index {
		f.checker.note("%s: %s applies entry %d after entry %d", f.group, f.node, l.Index, s.Index)
	}
	h := sha256.New()
	h.Write(s.Chain[:])
	binary.Write(h, binary.BigEndian, []uint64{l.Index, l.Term})
	h.Write(l.Data)
	s.Chain, s.Index = sum(h.Sum(nil)[:8]), l.Index
	s.Values = append(s.Values, string(l.Data))
	f.checker.applied(f.group, f.node, l.Index, l.Term, l.Data, s.Chain)
	return nil
}

func (f *chained) values() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.state.Values...)
}

func (f *chained) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.state
	s.Values = append([]string(nil), s.Values...)
	return s, nil
}

func (f *chained) Restore(r io.ReadCloser) error {
	var s chainedState
	if err := errors.Join(json.NewDecoder(r).Decode(&s), r.Close()); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = s
	if s.Index > 0 {
		f.checker.restored(f.group, f.node, s.Index, s.Chain)
	}
	return nil
}

func (s chainedState) Persist(sink raft.SnapshotSink) error {
	if err := json.NewEncoder(sink).Encode(s); err != nil {
		return err
	}
	return sink.Close()
}

func (s chainedState) Release() {}
