package replica

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/outcome"
)

// maxEntryBytes bounds an entry: what waits is put together up to this.
const maxEntryBytes = 1 << 20

// pump is the way from those who want something in the log to Raft, while its replica leads in one
// term. It gathers what waits (S) into few entries (E), proposes them, and has each decided in the
// order of the log. It has no lock: one goroutine runs propose, another one decides, and what is
// between them is in a channel.
type pump[S submitted, E any] struct {
	*leadership
	what string // in errors: "partition", "shard"

	// form makes an entry of what was taken. Without data nothing has to be proposed: its fate is
	// told in its turn all the same.
	form func(taken []S) (entry E, data []byte)
	// decide tells those in an entry their fate: by what the state machine answered, or by what
	// Raft said. Both are nil for an entry that was not proposed.
	decide func(entry E, proposed bool, response any, err error)
	// extensions are what the entry is marked with in the log; nil: none ever is.
	extensions func(entry E) []byte
	// refusal is what those are told that are not proposed since the leadership is over.
	refusal func() error

	// order is what puts them in order before they are proposed; nil: they go as they come.
	order    arranger[S]
	arranged []S // in order, and not taken yet; owned by propose

	queue    chan S
	inFlight chan pumped[E] // proposed, in order, not yet decided
}

// arranger puts what is submitted in order. All of it is called by propose.
type arranger[S any] interface {
	// arrange takes s, and adds what may be proposed now, in order: s, others, or nothing yet. What
	// must not be proposed it refuses.
	arrange(ready []S, s S) []S
	// check says why s, which arrange gave, must not be proposed any more, at the last moment.
	check(s S) error
	// gone is told that s, which arrange gave, was refused since nobody waits for it any more.
	gone(s S)
	// overdue has an element when expire is to be called.
	overdue() <-chan time.Time
	// expire refuses what has waited too long.
	expire()
	// end refuses what still waits.
	end()
}

// submitted is one call of somebody who wants something in the log.
type submitted interface {
	// caller is the context of who waits.
	caller() context.Context
	// size is what it takes in an entry, in bytes.
	size() int
	// refuse tells the caller that nothing was proposed.
	refuse(err error)
}

// pumped is an entry on its way.
type pumped[E any] struct {
	entry  E
	future raft.ApplyFuture // nil: it needed no proposal
}

// submit puts s into the queue. An error means that it will not be proposed.
func (p *pump[S, E]) submit(ctx context.Context, s S) error {
	locks.MayWait("the proposer")
	select {
	case p.queue <- s:
		return nil
	case <-p.ctx.Done():
		return p.refusal()
	case <-ctx.Done():
		return fmt.Errorf("%w: the %s's queue was full", outcome.ErrNoLeader, p.what)
	}
}

// awaitFate waits for what became of something that was submitted.
func awaitFate[F any](ctx context.Context, t *leadership, fate <-chan F) (f F, err error) {
	locks.MayWait("what becomes of a proposal")
	select {
	case f = <-fate:
		return f, nil
	case <-t.abandoned:
		return f, fmt.Errorf("%w: the leader's disk hangs", outcome.ErrUnknownFate)
	case <-ctx.Done():
		// It may be in the log by now or come there.
		return f, fmt.Errorf("%w: %w", outcome.ErrTimeout, ctx.Err())
	}
}

// propose turns what is submitted into entries until the leadership is over. The barrier must be
// behind it.
func (p *pump[S, E]) propose() {
	defer p.refuseRest()
	for {
		taken := p.gather()
		if taken == nil {
			return
		}
		proposals := &p.replica.Member.Proposals
		entered := proposals.Enter(p.ctx)
		if !entered || p.ctx.Err() != nil {
			// Failed meanwhile, or the leadership has gone: none of these was stamped.
			if entered {
				proposals.Leave()
			}
			p.arranged = append(taken, p.arranged...)
			return
		}
		wanted := p.wanted(taken)
		if len(wanted) == 0 {
			proposals.Leave()
			continue
		}
		entry, data := p.form(wanted)
		on := pumped[E]{entry: entry}
		if data != nil {
			log := raft.Log{Data: data}
			if p.extensions != nil {
				log.Extensions = p.extensions(entry)
			}
			on.future = p.replica.Member.Raft.ApplyLog(log, 0)
		}
		p.inFlight <- on
	}
}

// refuseRest refuses what was submitted and is not proposed.
func (p *pump[S, E]) refuseRest() {
	err := p.refusal()
	for _, s := range p.arranged {
		s.refuse(err)
	}
	p.arranged = nil
	if p.order != nil {
		p.order.end()
	}
}

// wanted leaves out what is not to be proposed any more, and refuses it.
func (p *pump[S, E]) wanted(taken []S) []S {
	wanted := taken[:0]
	for _, s := range taken {
		if p.order != nil {
			if err := p.order.check(s); err != nil {
				s.refuse(err)
				continue
			}
		}
		if err := s.caller().Err(); err != nil {
			// Nobody waits any more, and a request that came later over a newer connection may be
			// in the log already.
			s.refuse(fmt.Errorf("%w: %w", outcome.ErrNoLeader, err))
			if p.order != nil {
				p.order.gone(s)
			}
			continue
		}
		wanted = append(wanted, s)
	}
	return wanted
}

// gather waits for something, and takes with it what waits already and fits. taken is nil when the
// leadership is over.
func (p *pump[S, E]) gather() (taken []S) {
	var overdue <-chan time.Time
	if p.order != nil {
		overdue = p.order.overdue()
	}
	for len(p.arranged) == 0 {
		select {
		case s := <-p.queue:
			p.arrange(s)
		case <-overdue:
			p.order.expire()
		case <-p.ctx.Done():
			return nil
		}
	}
	n, size := 1, p.arranged[0].size()
	for size < maxEntryBytes {
		if n == len(p.arranged) {
			select {
			case s := <-p.queue:
				p.arrange(s)
				continue
			default:
			}
			break
		}
		if size += p.arranged[n].size(); size > maxEntryBytes {
			break
		}
		n++
	}
	taken = slices.Clone(p.arranged[:n])
	p.arranged = slices.Delete(p.arranged, 0, n) // which lets go of what is in them, too
	return taken
}

// arrange puts s where it belongs.
func (p *pump[S, E]) arrange(s S) {
	if p.order == nil {
		p.arranged = append(p.arranged, s)
		return
	}
	p.arranged = p.order.arrange(p.arranged, s)
}

// decideAll has all entries decided, in the order of the log, until propose has ended.
func (p *pump[S, E]) decideAll() {
	for on := range p.inFlight {
		var response any
		var err error
		if on.future != nil {
			if err = p.replica.Member.Await(on.future); err == nil {
				response = on.future.Response()
			}
		}
		p.replica.Member.Proposals.Leave()
		p.decide(on.entry, on.future != nil, response, err)
	}
}

// start runs the pump until the leadership is over: lead passes the barrier, begins what the leader
// does and calls propose.
func (p *pump[S, E]) start(lead func()) {
	p.done.Go(func() {
		defer close(p.inFlight)
		lead()
	})
	p.done.Go(p.decideAll)
}

// end takes nothing more and waits until all that was proposed has its fate.
func (p *pump[S, E]) end() {
	p.cancel()
	p.done.Wait()
}
