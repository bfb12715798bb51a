package peer_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// checker judges what it is told of some Raft groups. It knows nothing of how they work:
//
//   - a term has one leader, and a node votes for one candidate in a term;
//   - what anybody applied at an index is what everybody applies there, and what a replica has applied its log keeps;
//   - replicas that stand at the same index have the same chain of hashes, also where a snapshot brought them there;
//   - an acknowledged proposal is in the log once, in the order of its proposer, a refused one is not;
//   - no leader is confirmed whose successor has acknowledged something before the question.
type checker struct {
	mu     sync.Mutex
	began  time.Time
	groups map[string]*facts
	recent []string // the last events
	// journal gets all events at once, nil: none. What panics in one of raft's goroutines leaves nothing else.
	journal *os.File
	wrong   []string
	// excused counts confirmations that came from an answer which hashicorp/raft accepts although it was
	// asked for before (see stale).
	excused int
	back    int // how often a node went back to an older term (see reached)
}

// facts is what is known of one group.
type facts struct {
	leaders   map[uint64]claimed
	votes     map[nodeTerm]string
	terms     map[string]uint64
	entries   map[uint64]entry
	replicas  map[string]*replicaFacts
	proposals map[string]*proposal
	order     []*proposal // as proposed
	acks      []ack
	confirmed []confirmation
	answers   []answer
}

type nodeTerm struct {
	node string
	term uint64
}

type claimed struct {
	leader, how string
	at          time.Time
}

// entry is what was applied at an index, and the chain of hashes up to it.
type entry struct {
	index, term uint64
	data        string
	chain       chain
	by          string
}

type replicaFacts struct{ applied uint64 }

type outcome int

const (
	unknown outcome = iota
	acknowledged
	refused
)

type proposal struct {
	proposer, value string
	outcome         outcome
	index           uint64
	at              time.Time // when it was acknowledged
}

type ack struct {
	at          time.Time
	index, term uint64
	value       string
}

// confirmation is a VerifyLeader that was answered yes.
type confirmation struct {
	node         string
	term         uint64
	began, ended time.Time
	last         uint64 // the last index in the leader's log after it
}

// answer is a yes to an AppendEntries as the leader got it.
type answer struct {
	node         string
	term         uint64
	began, ended time.Time
	entries      bool
}

// chain is a hash over everything applied so far.
type chain [sha256.Size]byte

func (c chain) next(index, term uint64, data []byte) chain {
	b := make([]byte, 0, len(c)+16+len(data))
	b = append(b, c[:]...)
	b = binary.BigEndian.AppendUint64(b, index)
	b = binary.BigEndian.AppendUint64(b, term)
	return sha256.Sum256(append(b, data...))
}

func newChecker() *checker { return &checker{began: time.Now(), groups: map[string]*facts{}} }

// remembered is how many events a failure shows.
const remembered = 100

func (c *checker) of(group string) *facts {
	f := c.groups[group]
	if f == nil {
		f = &facts{
			leaders: map[uint64]claimed{}, votes: map[nodeTerm]string{}, terms: map[string]uint64{}, entries: map[uint64]entry{},
			replicas: map[string]*replicaFacts{}, proposals: map[string]*proposal{},
		}
		c.groups[group] = f
	}
	return f
}

func (f *facts) replica(node string) *replicaFacts {
	r := f.replicas[node]
	if r == nil {
		r = &replicaFacts{}
		f.replicas[node] = r
	}
	return r
}

// event notes what happened, for the history that a failure shows.
func (c *checker) event(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.eventLocked(format, args...)
}

func (c *checker) eventLocked(format string, args ...any) {
	if len(c.recent) >= 2*remembered {
		c.recent = slices.Clone(c.recent[remembered:])
	}
	line := fmt.Sprintf("%10.4f  ", time.Since(c.began).Seconds()) + fmt.Sprintf(format, args...)
	c.recent = append(c.recent, line)
	if c.journal != nil {
		_, _ = fmt.Fprintln(c.journal, line)
	}
}

// fail notes a violation; the first is the one to look at.
func (c *checker) fail(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failLocked(format, args...)
}

func (c *checker) failLocked(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	c.eventLocked("WRONG: %s", what)
	c.wrong = append(c.wrong, what)
}

func (c *checker) failed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.wrong) > 0
}

// history gives the last events.
func (c *checker) history() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.recent[max(0, len(c.recent)-remembered):], "\n")
}

// claim is told whenever a node shows that it leads in a term.
func (c *checker) claim(group string, term uint64, node, how string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.of(group)
	was, ok := f.leaders[term]
	if !ok {
		f.leaders[term] = claimed{node, how, time.Now()}
		c.eventLocked("%s: %s leads in term %d", group, node, term)
	} else if was.leader != node {
		c.failLocked("%s: two leaders in term %d: %s (%s) and %s (%s)", group, term, was.leader, was.how, node, how)
	}
}

// voted is told what a node wrote down as its vote.
func (c *checker) voted(group, node string, term uint64, candidate string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, at := c.of(group), nodeTerm{node, term}
	if was, ok := f.votes[at]; ok && was != candidate {
		c.failLocked("%s: %s voted for %s and for %s in term %d", group, node, was, candidate, term)
	}
	f.votes[at] = candidate
}

// reached is told what a node wrote down as its term. It may go back: hashicorp/raft takes heartbeats beside its main loop
// (raft.go, appendEntries) and writes the heartbeat's term if the node is a candidate, and between
// the look at the term and the writing the main loop may have gone on to the next. So this is noted and not judged;
// what it could lead to, two votes in a term, is.
func (c *checker) reached(group, node string, term uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.of(group)
	if was := f.terms[node]; term < was {
		c.eventLocked("%s: %s went back from term %d to %d", group, node, was, term)
		c.back++
	}
	f.terms[node] = term
}

// stored is told which entry a node's log has at an index from now on.
func (c *checker) stored(group, node string, index, term uint64, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.of(group)
	if e, ok := f.entries[index]; ok && index <= f.replica(node).applied && (e.term != term || e.data != string(data)) {
		c.failLocked("%s: %s replaces what it applied at %d: %q of term %d by %q of term %d", group, node, index, e.data, e.term, data, term)
	}
}

// truncated is told that a node's log ends before an index from now on.
func (c *checker) truncated(group, node string, from uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.of(group).replica(node); from <= r.applied {
		c.failLocked("%s: %s drops its log from %d on, and has applied %d", group, node, from, r.applied)
	}
}

// started is told that a node begins with an empty state machine.
func (c *checker) started(group, node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of(group).replica(node).applied = 0
}

// applied is told what a replica applied and its chain including that.
func (c *checker) applied(group, node string, index, term uint64, data []byte, sum chain) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.of(group)
	f.replica(node).applied = index
	e, ok := f.entries[index]
	switch {
	case !ok:
		f.entries[index] = entry{index, term, string(data), sum, node}
	case e.term != term || e.data != string(data):
		c.failLocked("%s: at %d %s applied %q of term %d, %s had applied %q of term %d", group, index, node, data, term, e.by, e.data, e.term)
	case e.chain != sum:
		c.failLocked("%s: at %d %s and %s applied the same after different beginnings", group, index, node, e.by)
	}
}

// restored is told what a snapshot brought to a replica.
func (c *checker) restored(group, node string, index uint64, sum chain) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.of(group)
	f.replica(node).applied = index
	if e, ok := f.entries[index]; index > 0 && (!ok || e.chain != sum) {
		c.failLocked("%s: %s has a snapshot up to %d that nobody's applying gave (known: %v)", group, node, index, ok)
	}
}

// propose is told what a proposer is about to propose; its values are unique.
func (c *checker) propose(group, proposer, value string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.of(group)
	p := &proposal{proposer: proposer, value: value}
	if f.proposals[value] != nil {
		c.failLocked("%s: %q was proposed twice: the test is wrong", group, value)
	}
	f.proposals[value] = p
	f.order = append(f.order, p)
}

// settle is told what became of a proposal; index and term are of the entry, if it was acknowledged.
func (c *checker) settle(group, value string, o outcome, index, term uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.of(group)
	p := f.proposals[value]
	p.outcome, p.index, p.at = o, index, time.Now()
	if o != acknowledged {
		return
	}
	f.acks = append(f.acks, ack{time.Now(), index, term, value})
	if e, ok := f.entries[index]; !ok || e.data != value || e.term != term {
		c.failLocked("%s: %q was acknowledged at %d of term %d, applied there is %q of term %d", group, value, index, term, e.data, e.term)
	}
}

// confirm is told of a VerifyLeader that was answered yes.
func (c *checker) confirm(group string, v confirmation) {
	c.claim(group, v.term, v.node, "confirmed")
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.of(group)
	f.confirmed = append(f.confirmed, v)
}

// answered is told of every yes to an AppendEntries.
func (c *checker) answered(group string, a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.of(group)
	f.answers = append(f.answers, a)
}

func (c *checker) isAcknowledged(group, value string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of(group).proposals[value].outcome == acknowledged
}

// summary says how much was checked.
func (c *checker) summary(group string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.of(group)
	return fmt.Sprintf("%s: %d terms with leaders, %d proposed, %d acknowledged, %d confirmed", group, len(f.leaders), len(f.order), len(f.acks), len(f.confirmed))
}
