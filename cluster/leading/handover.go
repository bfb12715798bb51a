package leading

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/calls"
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
	// farBehind is by how many entries a log may be behind: what is more is not got within
	// handOverPatience, and is got while proposals are taken as well.
	farBehind = 4096
)

var (
	// errNobodyFollows means that no other voter is known to follow this leader right now.
	errNobodyFollows = errors.New("no other voter follows")
	// errNotTaken means that a voter did not take a leadership in time.
	errNotTaken = errors.New("it did not take the leadership in time")
	// errBusy means that the leadership is being given away already, perhaps to somebody else.
	errBusy = fmt.Errorf("%w: somebody gives it away already", errNotTaken)
)

// Handovers gives leaderships away. It has no state and may be used by many goroutines.
type Handovers struct {
	Standings
	Stopped   context.Context // ends when the node does
	Logger    *slog.Logger
	Caller    calls.Caller
	Connected func(identity string) bool
	Follows   func(identity, group string, term uint64) bool // by the signs of life of that node
}

// Give gives leadership of a group to a voter that follows now, by the word of its node: one
// that does not would leave the group without service. The group is held up for each one once. It
// returns nil, too, when this node does not lead any more.
func (h *Handovers) Give(g Member) error {
	heldUp := map[string]bool{}
	var why error
	for until := time.Now().Add(handOverFor); ; {
		err := h.giveTo(g, func(identity string) bool { return !heldUp[identity] }, heldUp)
		if err == nil {
			return nil
		}
		if why == nil || !errors.Is(err, errNobodyFollows) {
			why = err
		}
		if g.State() != raft.Leader {
			return nil
		}
		all := len(heldUp) >= len(g.Voters())-1
		if all || time.Now().After(until) || h.Stopped.Err() != nil {
			return why
		}
		sleep(h.Stopped, surveyTimeout/3)
	}
}

// GiveTo moves leadership to a voter that is suitable and follows this node, the first after it
// in order that takes it.
func (h *Handovers) GiveTo(g Member, suitable func(identity string) bool) error {
	return h.giveTo(g, suitable, map[string]bool{})
}

// giveTo puts those into heldUp for whom the group took no proposals for a while.
func (h *Handovers) giveTo(g Member, suitable func(identity string) bool, heldUp map[string]bool) error {
	ids := g.Voters()
	term := g.Term()
	// From the next in order on, so that what one node leads goes to more than one other.
	at := slices.Index(ids, h.Self)
	err := errNobodyFollows
	for i := range ids {
		id := ids[(at+1+i)%len(ids)]
		if id == h.Self || !suitable(id) || !h.Connected(id) || !h.Follows(id, g.Group(), term) {
			continue
		}
		// Asked before anything is held up for it.
		var s calls.Standing
		if s, err = h.fit(h.Stopped, g, id, term); err == nil {
			if own := h.Of(g, h.Self); s.LastIndex+farBehind < own.LastIndex {
				err = fmt.Errorf("%w: its log is %d entries behind", errNotTaken, own.LastIndex-s.LastIndex)
			}
		}
		if err == nil {
			if err = h.give(g, id, term); !errors.Is(err, errBusy) {
				heldUp[id] = true
			}
		}
		if err == nil {
			return nil
		}
		h.Logger.Debug("a voter does not take a leadership", "group", g.Group(), "node", id, "error", err)
		err = fmt.Errorf("node %s: %w", id, err)
	}
	return err
}

// give gives the leadership of that term to one voter; nil when this node does not lead any more.
func (h *Handovers) give(g Member, identity string, term uint64) error {
	ctx, cancel := context.WithTimeout(h.Stopped, handOverPatience)
	defer cancel()
	open, ok := g.Hold()
	if !ok {
		return errBusy
	}
	defer open()
	over := func() bool { return g.State() != raft.Leader || g.Term() != term }
	for g.Proposing() > 0 {
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
		if own := h.Of(g, h.Self); !other.Behind(own) {
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
func (h *Handovers) nominate(ctx context.Context, g Member, identity string, over func() bool) error {
	told := make(chan error, 1)
	go func() { told <- g.Nominate(ctx, identity) }()
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

// Offer tells the voter that follows and has the longest log to stand for election. Nothing is held
// up for it: nothing gets on here. It reports whether that one follows no more.
func (h *Handovers) Offer(g Member) bool {
	ctx, cancel := context.WithTimeout(h.Stopped, handOverPatience)
	defer cancel()
	term := g.Term()
	follow := slices.DeleteFunc(g.Voters(), func(id string) bool { return id == h.Self || !h.Follows(id, g.Group(), term) })
	var best string
	var longest calls.Standing
	calls.AskAll(ctx, follow, func(ctx context.Context, id string) (calls.Standing, error) {
		return h.fit(ctx, g, id, term)
	}, func(id string, s calls.Standing, err error) bool {
		if err != nil {
			h.Logger.Debug("a voter cannot lead in place of this one", "group", g.Group(), "node", id, "error", err)
		} else if best == "" || longest.Behind(s) {
			best, longest = id, s
		}
		return false
	})
	if best == "" {
		return false
	}
	// Raft here may not hear of it before the disk moves: it is the others who do.
	over := func() bool { return g.Term() != term || !h.Follows(best, g.Group(), term) }
	if err := h.nominate(ctx, g, best, over); err != nil {
		h.Logger.Debug("a leadership of a disk that hangs was not taken", "group", g.Group(), "node", best, "error", err)
		return false
	}
	h.Logger.Warn("the disk hangs: another replica stands for election", "group", g.Group(), "node", best)
	return true
}

// fit asks a node how its member of a group stands, and gives an error if that cannot take the
// leadership of that term.
func (h *Handovers) fit(ctx context.Context, g Member, identity string, term uint64) (calls.Standing, error) {
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	all, err := calls.Survey.Ask(ctx, h.Caller, identity, []string{g.Group()})
	if err != nil {
		return calls.Standing{}, err
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
