package raftlink

//lint:file-ignore SA1019 raft still fills the deprecated field Leader, so it is carried as it is

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// pipeline sends AppendEntries without waiting for the answer of the one before.
//
// What it sends is what Raft asks for, or what Raft is about to ask for (ahead.go).
//
// Order: all requests of a pipeline go over one connection, and the other side works
// on one request of a raft group after the other. A pipeline changes between the control and the
// bulk connection only while nothing is in flight.
//
// A future that failed because the link did is not delivered to Consumer: Raft takes every
// delivered future, failed or not, for contact with the follower (replication.go, pipelineDecode),
// which would stretch the leader's lease. The next AppendEntries, at the latest after
// CommitTimeout, returns the error and ends the pipeline.
type pipeline struct {
	t      *Transport
	id     raft.ServerID
	s      *link.Session
	ctx    context.Context // ends with Close and with the first failure
	cancel context.CancelCauseFunc
	done   chan raft.AppendFuture
	change chan struct{} // capacity 1: something was answered

	// sending is held from a request's place in flight to its place in the queue, so that answers
	// come in that order. Whoever holds it may wait for both places, and take mu: only who sends
	// takes it, and answers do not.
	sending locks.Slow[pipelineSending]

	mu       locks.Mutex[pipeline] // guards what follows; nothing is waited for under it
	class    link.Class
	inFlight []*appendFuture // oldest first
	early    []*appendFuture // sent ahead, and not asked for yet; oldest first
	reach    reach           // of what was sent
	acked    acknowledged
	follower uint64      // the instance that agreed to something here; owned by Replicates
	notice   *time.Timer // nil until the first entry was acknowledged
	notices  int         // how often it has fired since
	err      error
}

// pipelineSending is the class of a pipeline's sending.
type pipelineSending struct{}

// doneSlack is how many answered futures Raft may leave untaken before sending waits for it.
const doneSlack = 64

// AppendEntriesPipeline implements raft.Transport.
func (t *Transport) AppendEntriesPipeline(id raft.ServerID, _ raft.ServerAddress) (raft.AppendPipeline, error) {
	if t.cfg.MaxInFlight < 2 {
		return nil, raft.ErrPipelineReplicationNotSupported
	}
	select {
	case <-t.done:
		return nil, raft.ErrTransportShutdown
	default:
	}
	ctx, cancel := context.WithTimeoutCause(t.ctx, t.cfg.Timeout, link.ErrTimeout)
	defer cancel()
	s, err := t.link.Peer(string(id)).Open(ctx, link.Control)
	if err != nil {
		return nil, fmt.Errorf("peer: pipeline to %s: %w", id, err)
	}
	p := &pipeline{
		t: t, id: id, s: s, class: link.Control,
		done: make(chan raft.AppendFuture, doneSlack+2*t.cfg.MaxInFlight), change: make(chan struct{}, 1),
	}
	p.ctx, p.cancel = context.WithCancelCause(t.ctx)
	t.newest.note(p)
	if a, ok := t.appended.take(id); ok {
		p.mu.Lock()
		p.acked = a
		p.reach = reach{a.args.RPCHeader, a.args.Leader, a.args.Term, a.index, a.term}
		p.noticeLaterLocked()
		p.mu.Unlock()
	}
	return p, nil
}

// AppendEntries implements raft.AppendPipeline. It waits while MaxInFlight requests are unanswered.
func (p *pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	t := p.t
	if p.redundant(args) {
		t.stats.swallowed.Add(1)
		return swallowed(args, resp), nil
	}
	if p.behind(args) {
		p.drain()
		p.fail(errBehind)
		return nil, fmt.Errorf("peer: pipeline to %s: %w", p.id, errBehind)
	}
	p.sending.Lock()
	defer p.sending.Unlock()
	f, more := p.attach(args, resp)
	if f != nil {
		return f, nil
	}
	f = &appendFuture{start: time.Now(), args: args, resp: resp, commit: args.LeaderCommitIndex, answered: make(chan struct{})}
	f.instance = p.followerInstance(args.Term)
	frames, total := t.frames(more)
	f.left = len(frames)
	release, err := t.unanswered.hold(string(p.id), int64(total))
	if err != nil {
		p.fail(err)
		return nil, fmt.Errorf("peer: pipeline to %s: %w", p.id, err)
	}
	f.release = release
	cl, err := p.admit(f, link.ClassFor(total), scaled(t.cfg.Timeout, int64(total)))
	if err != nil {
		release()
		p.again()
		return nil, err
	}
	if err := p.send(f, cl, frames); err != nil {
		p.fail(err)
		p.again()
		return nil, fmt.Errorf("peer: pipeline to %s: %w", p.id, err)
	}
	return f, nil
}

// frame is one request on its way out.
type frame struct {
	parts [][]byte
	kind  uint8
}

// frames encodes a request, a large one in several, and gives their size in all.
func (t *Transport) frames(args *raft.AppendEntriesRequest) (frames []frame, total int) {
	parts := splitAppend(args)
	frames = make([]frame, len(parts))
	for i, part := range parts {
		b, kind, size := t.encode(part)
		frames[i] = frame{b, kind}
		total += size
	}
	return frames, total
}

// send puts the frames of f, which has its place in flight, on the connection of that class.
func (p *pipeline) send(f *appendFuture, cl link.Class, frames []frame) error {
	if !p.s.Has(cl) {
		ctx, cancel := context.WithTimeoutCause(p.ctx, p.t.cfg.Timeout, link.ErrTimeout)
		s, err := p.t.link.Peer(string(p.id)).Open(ctx, cl)
		cancel()
		if err == nil && s != p.s {
			err = link.ErrBroken
		}
		if err != nil {
			return err
		}
	}
	for _, x := range frames {
		p.t.stats.out.Add(1)
		if err := p.s.Begin(p.ctx, cl, x.kind, x.parts, func(r link.Reply) { p.answer(f, r) }); err != nil {
			return err
		}
	}
	return nil
}

// admit waits for a place in flight and says which connection to take.
func (p *pipeline) admit(f *appendFuture, want link.Class, limit time.Duration) (link.Class, error) {
	locks.MayWait("a place in flight")
	for {
		p.mu.Lock()
		n := len(p.inFlight)
		switch {
		case p.err != nil:
			err := p.err
			p.mu.Unlock()
			return 0, err
		case n == 0:
			p.class = want
		}
		if p.freeLocked(want) {
			p.placeLocked(f, limit)
			// An empty one may come behind what was sent ahead of it.
			if to := reachOf(f.args); to.term != p.reach.term || to.index >= p.reach.index {
				p.reach = to
			}
			cl := p.class
			p.mu.Unlock()
			return cl, nil
		}
		p.mu.Unlock()
		var again <-chan time.Time
		if n == 0 { // Raft is slow in taking what was answered, and says nothing when it does
			again = time.After(time.Millisecond)
		}
		select {
		case <-p.change:
		case <-again:
		case <-p.ctx.Done():
		case <-p.t.done:
			p.fail(raft.ErrTransportShutdown)
		}
	}
}

// freeLocked says whether one more request of that class may be in flight.
func (p *pipeline) freeLocked(want link.Class) bool {
	n := len(p.inFlight)
	return n < p.t.cfg.MaxInFlight && len(p.done) < doneSlack && (n == 0 || want == p.class || want == link.Control)
}

// placeLocked gives f its place in flight.
func (p *pipeline) placeLocked(f *appendFuture, limit time.Duration) {
	p.inFlight = append(p.inFlight, f)
	f.timer = time.AfterFunc(limit, func() { p.fail(fmt.Errorf("%w: no answer to AppendEntries for %v", link.ErrTimeout, limit)) })
}

// answer takes one answer, on the reading goroutine: it does not wait.
func (p *pipeline) answer(f *appendFuture, r link.Reply) {
	err := r.Err
	if err == nil && r.Status == link.StatusRefused {
		err = r.Failure()
	}
	if err != nil {
		p.fail(err)
		return
	}
	p.mu.Lock()
	if p.err != nil {
		p.mu.Unlock()
		return
	}
	if len(p.inFlight) == 0 || p.inFlight[0] != f {
		p.mu.Unlock()
		p.fail(fmt.Errorf("%w: answers out of order", link.ErrProtocol))
		return
	}
	err = decodeReply(r, f.resp)
	f.left--
	if err == nil && f.resp.Success && f.left > 0 {
		p.mu.Unlock()
		return // one part of several
	}
	p.inFlight[0] = nil
	p.inFlight = p.inFlight[1:]
	if err == nil && f.resp.Success {
		p.agreedLocked(f)
	}
	f.finish(err)
	f.at = time.Now()
	if (!f.own || f.ahead && !f.resp.Success) && !(err == nil && p.late(f)) {
		p.done <- f // never waits: admit leaves room for all in flight
	}
	if err != nil || !f.resp.Success {
		// Whatever was sent behind it cannot match. Raft ends the pipeline when it takes f.
		p.endLocked(raft.ErrPipelineShutdown)
	}
	p.mu.Unlock()
	p.poke()
}

func (p *pipeline) poke() {
	select {
	case p.change <- struct{}{}:
	default:
	}
}

// fail ends the pipeline: what is in flight fails and is not delivered.
func (p *pipeline) fail(err error) {
	p.mu.Lock()
	p.endLocked(err)
	p.mu.Unlock()
	p.poke()
}

func (p *pipeline) endLocked(err error) {
	if p.err != nil {
		return
	}
	p.err = err
	p.t.stats.pipelinesEnded.Add(1)
	if p.notice != nil {
		p.notice.Stop()
	}
	p.cancel(err)
	for _, f := range p.inFlight {
		f.finish(err)
	}
	p.inFlight, p.early = nil, nil
}

// Consumer implements raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.done }

// Close implements raft.AppendPipeline.
func (p *pipeline) Close() error {
	p.fail(raft.ErrPipelineShutdown)
	p.t.newest.forget(p)
	return nil
}
