package election

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/raftlink"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// A leader that is to answer for its raft group must know that nobody has been elected after it.
// hashicorp/raft's VerifyLeader does not prove that: any answer counts that arrives after it was
// asked, also one that was given long before; and so does that of a member without a vote. So the
// question is asked here, by heartbeats of its own on the wire. Only their own answers count, of
// voters, in the leader's term (docs/peer-link.md, "Who leads").

const (
	// confirmFor is how long one round waits for a majority. Whoever still wants to know asks
	// again.
	confirmFor = 2 * time.Second
	// confirmAgain is the pause before a voter that could not be asked is asked again.
	confirmAgain = 25 * time.Millisecond
)

// ErrNotConfirmed: this node does not lead the raft group, as far as it knows, or no majority of
// the voters says so.
var ErrNotConfirmed = errors.New("leadership is not confirmed")

// confirms are the rounds of a raft group: one at most is under way, and one at most waits for it.
type confirms struct {
	// mu guards what follows. A goroutine is started under it, nothing is waited for.
	mu      locks.Mutex[confirms]
	running bool
	next    *round // nil: nobody waits
}

// round is one question to the voters, for all who asked before it began.
type round struct {
	done chan struct{}
	// Valid once done is closed.
	term uint64
	err  error
}

// Confirm gives the term in which this node leads the group. After it was called a majority of the
// voters, this node among them if it is one, were in that term, and so none of them had voted in a
// later one: whatever was committed before the call was committed in that term or before. Those who
// ask at once share a round trip. The error is ErrNotConfirmed, or that of ctx.
func (m *Member) Confirm(ctx context.Context) (term uint64, err error) {
	locks.MayWait("leadership to be confirmed")
	c := &m.confirms
	c.mu.Lock()
	r := c.next
	if r == nil {
		r = &round{done: make(chan struct{})}
		c.next = r
	}
	if !c.running {
		c.running = m.common.link.Go(m.runConfirms)
		if !c.running {
			c.next = nil
			c.mu.Unlock()
			return 0, fmt.Errorf("%w: %w", ErrNotConfirmed, link.ErrClosed)
		}
	}
	c.mu.Unlock()
	select {
	case <-r.done:
		return r.term, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// runConfirms asks as long as somebody wants to know.
func (m *Member) runConfirms() {
	c := &m.confirms
	for {
		c.mu.Lock()
		r := c.next
		c.next, c.running = nil, r != nil
		c.mu.Unlock()
		if r == nil {
			return
		}
		r.term, r.err = m.confirmOnce()
		if r.err != nil {
			r.err = fmt.Errorf("%w: group %s: %w", ErrNotConfirmed, m.RaftGroup(), r.err)
		}
		close(r.done)
	}
}

var (
	errNoLeader  = errors.New("another node may lead")
	errNewerTerm = errors.New("a voter is in a newer term")
)

// confirmOnce is one round. It gives the term.
func (m *Member) confirmOnce() (uint64, error) {
	r := m.Raft()
	if r == nil {
		return 0, link.ErrClosed
	}
	// Nobody leads twice in a term: it led in this one when the configuration was read.
	term := r.CurrentTerm()
	voters, needed := m.otherVoters(r)
	if r.State() != raft.Leader || r.CurrentTerm() != term {
		return 0, errNoLeader
	}
	if needed == 0 {
		return term, nil
	}
	ctx, cancel := context.WithTimeoutCause(m.Context(), confirmFor, link.ErrTimeout)
	defer cancel()
	answers := make(chan error, len(voters))
	for _, id := range voters {
		if !m.common.link.Go(func() { answers <- m.saysThatWeLead(ctx, id, term) }) {
			return 0, link.ErrClosed
		}
	}
	for range voters {
		if err := <-answers; err != nil {
			return 0, err // the round is over, or the term is
		}
		if needed--; needed == 0 {
			return term, nil
		}
	}
	return 0, errNoLeader
}

// otherVoters gives the voters of the newest configuration here but this node, and how many of them
// make a majority with it.
func (m *Member) otherVoters(r raftlink.Raft) (others []string, needed int) {
	votes, own := 0, 0
	for _, s := range r.GetConfiguration().Configuration().Servers {
		switch {
		case s.Suffrage != raft.Voter:
		case string(s.ID) == m.common.link.Self():
			votes, own = votes+1, 1
		default:
			votes++
			others = append(others, string(s.ID))
		}
	}
	return others, votes/2 + 1 - own
}

// saysThatWeLead asks a voter until it says that it is in that term. It gives an error when ctx
// ends, or when a newer term has begun.
func (m *Member) saysThatWeLead(ctx context.Context, id string, term uint64) error {
	pause := time.NewTimer(confirmAgain)
	defer pause.Stop()
	for {
		var resp raft.AppendEntriesResponse
		header := m.ownHeader()
		err := m.Exchange(ctx, raft.ServerID(id), &raft.AppendEntriesRequest{RPCHeader: header, Term: term}, &resp)
		switch {
		case err != nil:
		case resp.Term > term:
			return errNewerTerm
		case resp.Success && resp.Term == term:
			return nil
		}
		pause.Reset(confirmAgain)
		select {
		case <-pause.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
