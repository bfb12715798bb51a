package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/election"
)

// A leadership is given away to a voter whose node answers: it is asked first how it stands. The group takes no
// proposals from then until the other leads, handOverPatience at the longest; if it does not lead by then the
// leadership stays here, and another is tried. hashicorp/raft's transfer has no such bound but its election
// timeout, so it is not used: the message that makes a follower stand is sent beside Raft (election.Member.Nominate).
// When the other stands is its affair, as ever: who gets the votes of a majority, with a log that is
// long enough, leads.

const (
	// handOverPatience bounds how long a group takes no proposals for the sake of one candidate.
	handOverPatience = time.Second
	// lookEvery is how often it is looked whether a leadership has gone.
	lookEvery = 2 * time.Millisecond
	// handOverFor is how long a node that stops looks for a voter that follows: signs of life may be late.
	handOverFor = 2 * time.Second
)

var (
	// errNobodyFollows means that no other voter is known to follow this leader right now.
	errNobodyFollows = errors.New("no other voter follows")
	// errNotTaken means that a voter did not take a leadership in time.
	errNotTaken = errors.New("it did not take the leadership in time")
)

// turnstile counts what a group's leader has proposed, and holds up who wants to propose.
type turnstile struct {
	under atomic.Int64                  // proposals whose fate is not known
	held  atomic.Pointer[chan struct{}] // closed when proposals are taken again; nil: they are
}

// enter waits until a proposal may be made; leave must be called when its fate is known. false: ctx has ended.
func (t *turnstile) enter(ctx context.Context) bool {
	for {
		t.under.Add(1)
		held := t.held.Load()
		if held == nil {
			return true
		}
		t.under.Add(-1)
		select {
		case <-*held:
		case <-ctx.Done():
			return false
		}
	}
}

func (t *turnstile) leave() { t.under.Add(-1) }

// hold keeps proposals from being made until open is called. false: somebody else does already.
func (t *turnstile) hold() (open func(), ok bool) {
	over := make(chan struct{})
	if !t.held.CompareAndSwap(nil, &over) {
		return nil, false
	}
	return func() {
		t.held.Store(nil)
		close(over)
	}, true
}

// handOver gives leadership of a group to a voter that follows now, by the word of its node: one that does
// not would leave the group without service.
func (n *Node) handOver(g *group) error {
	for until := time.Now().Add(handOverFor); ; {
		err := n.handOverTo(g, func(string) bool { return true })
		if !errors.Is(err, errNobodyFollows) || time.Now().After(until) || g.raft.State() != raft.Leader || n.ctx.Err() != nil {
			return err
		}
		n.pause(surveyTimeout / 3)
	}
}

// handOverTo moves leadership to a voter that is suitable and follows this node, the first after it in order that takes it.
func (n *Node) handOverTo(g *group, suitable func(identity string) bool) error {
	ids := voters(g)
	term := g.raft.CurrentTerm()
	// From the next in order on, so that what one node leads goes to more than one other.
	at := slices.Index(ids, n.identity)
	err := errNobodyFollows
	for i := range ids {
		id := ids[(at+1+i)%len(ids)]
		if id == n.identity || !suitable(id) || !n.connected(id) || !n.election.Follows(id, g.name, term) {
			continue
		}
		if err = n.give(g, id, term); err == nil {
			return nil
		}
		n.logger.Debug("a voter does not take a leadership", "group", g.name, "node", id, "error", err)
	}
	return err
}

// give gives the leadership of that term to one voter; nil when this node does not lead any more.
func (n *Node) give(g *group, identity string, term uint64) error {
	if _, err := n.fit(n.ctx, g, identity, term); err != nil {
		return err // asked before anything is held up for it
	}
	ctx, cancel := context.WithTimeout(n.ctx, handOverPatience)
	defer cancel()
	open, ok := g.proposals.hold()
	if !ok {
		return fmt.Errorf("%w: somebody gives it away already", errNotTaken)
	}
	defer open()
	over := func() bool { return g.raft.State() != raft.Leader || g.raft.CurrentTerm() != term }
	for g.proposals.under.Load() > 0 {
		if over() {
			return nil
		}
		if !sleep(ctx, lookEvery) {
			return fmt.Errorf("%w: proposals are under way", errNotTaken)
		}
	}
	for {
		other, err := n.fit(ctx, g, identity, term)
		if over() {
			return nil
		}
		if err != nil {
			return err
		}
		if own := n.standingOf(g, n.identity); !other.behind(own) {
			break
		}
		if !sleep(ctx, lookEvery) {
			return fmt.Errorf("%w: its log is behind", errNotTaken)
		}
	}
	return n.nominate(ctx, g, identity, over)
}

// nominate tells a voter to stand for election, and returns nil when over says that this node's leadership is.
func (n *Node) nominate(ctx context.Context, g *group, identity string, over func() bool) error {
	t, ok := g.transport.(*election.Member)
	if !ok {
		return errNobodyFollows
	}
	told := make(chan error, 1)
	go func() { told <- t.Nominate(ctx, identity) }()
	for {
		if over() {
			return nil
		}
		select {
		case err := <-told:
			if err != nil {
				if over() {
					return nil
				}
				return err
			}
			told = nil
		default:
		}
		if !sleep(ctx, lookEvery) {
			return errNotTaken
		}
	}
}

// fit asks a node how its member of a group stands, and gives an error if that cannot take the leadership of that term.
func (n *Node) fit(ctx context.Context, g *group, identity string, term uint64) (standing, error) {
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	reply, err := n.call(ctx, identity, callSurvey, encodeSurvey([]*candidacy{{Orphan: election.Orphan{Group: g.name}}}))
	if err != nil {
		return standing{}, err
	}
	all, err := decodeStandings(reply, 1)
	if err != nil {
		return standing{}, err
	}
	if s := all[0]; !s.here || !s.voter || !s.follower || s.term != term {
		return s, fmt.Errorf("%w: it is no voter that could", errNotTaken)
	}
	return all[0], nil
}

// behind says whether this log could lose an election against that one (Raft, section 5.4.1).
func (s standing) behind(other standing) bool {
	return s.lastTerm < other.lastTerm || s.lastTerm == other.lastTerm && s.lastIndex < other.lastIndex
}

// sleep returns false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
