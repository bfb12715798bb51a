package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/election"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
)

// A leadership is given away to a voter whose node answers: it is asked first how it stands. The
// group takes no proposals from then until the other leads, handOverPatience at the longest; if it
// does not lead by then the leadership stays here, and another is tried. hashicorp/raft's transfer
// has no such bound but its election timeout, so it is not used: the message that makes a follower
// stand is sent beside Raft (election.Member.Nominate). When the other stands is its affair, as
// ever: who gets the votes of a majority, with a log that is long enough, leads.

const (
	// handOverPatience bounds how long a group takes no proposals for the sake of one candidate.
	handOverPatience = time.Second
	// lookEvery is how often it is looked whether a leadership has gone.
	lookEvery = 2 * time.Millisecond
	// handOverFor is how long a node that stops looks for a voter that follows: signs of life may
	// be late.
	handOverFor = 2 * time.Second
)

var (
	// errNobodyFollows means that no other voter is known to follow this leader right now.
	errNobodyFollows = errors.New("no other voter follows")
	// errNotTaken means that a voter did not take a leadership in time.
	errNotTaken = errors.New("it did not take the leadership in time")
)

// handovers gives leaderships away. It has no state and may be used by many goroutines.
type handovers struct {
	standings
	stopped   context.Context // ends when the node does
	logger    *slog.Logger
	caller    calls.Caller
	connected func(identity string) bool
	follows   func(identity, group string, term uint64) bool // by the signs of life of that node
}

// handOver gives leadership of a group to a voter that follows now, by the word of its node: one
// that does not would leave the group without service.
func (h *handovers) handOver(g *raftgroup.Member) error {
	for until := time.Now().Add(handOverFor); ; {
		err := h.handOverTo(g, func(string) bool { return true })
		if !errors.Is(err, errNobodyFollows) || time.Now().After(until) || g.Raft.State() != raft.Leader || h.stopped.Err() != nil {
			return err
		}
		sleep(h.stopped, surveyTimeout/3)
	}
}

// handOverTo moves leadership to a voter that is suitable and follows this node, the first after it
// in order that takes it.
func (h *handovers) handOverTo(g *raftgroup.Member, suitable func(identity string) bool) error {
	ids := g.Voters()
	term := g.Raft.CurrentTerm()
	// From the next in order on, so that what one node leads goes to more than one other.
	at := slices.Index(ids, h.self)
	err := errNobodyFollows
	for i := range ids {
		id := ids[(at+1+i)%len(ids)]
		if id == h.self || !suitable(id) || !h.connected(id) || !h.follows(id, g.Name, term) {
			continue
		}
		if err = h.give(g, id, term); err == nil {
			return nil
		}
		h.logger.Debug("a voter does not take a leadership", "group", g.Name, "node", id, "error", err)
	}
	return err
}

// give gives the leadership of that term to one voter; nil when this node does not lead any more.
func (h *handovers) give(g *raftgroup.Member, identity string, term uint64) error {
	if _, err := h.fit(h.stopped, g, identity, term); err != nil {
		return err // asked before anything is held up for it
	}
	ctx, cancel := context.WithTimeout(h.stopped, handOverPatience)
	defer cancel()
	open, ok := g.Proposals.Hold()
	if !ok {
		return fmt.Errorf("%w: somebody gives it away already", errNotTaken)
	}
	defer open()
	over := func() bool { return g.Raft.State() != raft.Leader || g.Raft.CurrentTerm() != term }
	for g.Proposals.Under() > 0 {
		if over() {
			return nil
		}
		if !sleep(ctx, lookEvery) {
			return fmt.Errorf("%w: proposals are under way", errNotTaken)
		}
	}
	for {
		other, err := h.fit(ctx, g, identity, term)
		if over() {
			return nil
		}
		if err != nil {
			return err
		}
		if own := h.of(g, h.self); !other.Behind(own) {
			break
		}
		if !sleep(ctx, lookEvery) {
			return fmt.Errorf("%w: its log is behind", errNotTaken)
		}
	}
	return h.nominate(ctx, g, identity, over)
}

// nominate tells a voter to stand for election, and returns nil when over says that this node's
// leadership is.
func (h *handovers) nominate(ctx context.Context, g *raftgroup.Member, identity string, over func() bool) error {
	t, ok := g.Transport.(*election.Member)
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

// fit asks a node how its member of a group stands, and gives an error if that cannot take the
// leadership of that term.
func (h *handovers) fit(ctx context.Context, g *raftgroup.Member, identity string, term uint64) (standing, error) {
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	all, err := calls.Survey.Ask(ctx, h.caller, identity, []string{g.Name})
	if err != nil {
		return standing{}, err
	}
	if s := all[0]; !s.Here || !s.Voter || !s.Follower || s.Term != term {
		return s, fmt.Errorf("%w: it is no voter that could", errNotTaken)
	}
	return all[0], nil
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
