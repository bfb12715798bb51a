package peer

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// pipeline sends AppendEntries without waiting for the answer of the one before.
//
// Order: all requests of a pipeline go over one connection, and the other side works
// on one request of a group after the other. A pipeline changes between the control and the bulk
// connection only while nothing is in flight.
//
// A future that failed because the link did is not delivered to Consumer: Raft takes
// every delivered future, failed or not, for contact with the follower (replication.go, pipelineDecode),
// which would stretch the leader's lease. The next AppendEntries, at the latest
// after CommitTimeout, returns the error and ends the pipeline.
type pipeline struct {
	g      *GroupTransport
	id     raft.ServerID
	s      *session
	ctx    context.Context // ends with Close and with the first failure
	cancel context.CancelCauseFunc
	done   chan raft.AppendFuture
	change chan struct{} // capacity 1: something was answered

	sending sync.Mutex // held from a request's place in flight to its place in the queue: answers come in that order

	mu       sync.Mutex // guards what follows
	class    class
	inFlight []*appendFuture // oldest first
	acked    acknowledged
	notice   *time.Timer // nil until the first entry was acknowledged
	notices  int         // how often it has fired since
	err      error
}

// doneSlack is how many answered futures Raft may leave untaken before sending waits for it.
const doneSlack = 64

// AppendEntriesPipeline implements raft.Transport.
func (g *GroupTransport) AppendEntriesPipeline(id raft.ServerID, _ raft.ServerAddress) (raft.AppendPipeline, error) {
	l := g.link
	if l.cfg.MaxInFlight < 2 {
		return nil, raft.ErrPipelineReplicationNotSupported
	}
	select {
	case <-g.done:
		return nil, raft.ErrTransportShutdown
	default:
	}
	ctx, cancel := context.WithTimeoutCause(g.ctx, l.cfg.Timeout, ErrTimeout)
	defer cancel()
	s, _, err := l.peer(string(id)).obtain(ctx, classControl)
	if err != nil {
		return nil, fmt.Errorf("peer: pipeline to %s: %w", id, err)
	}
	p := &pipeline{
		g: g, id: id, s: s, class: classControl,
		done: make(chan raft.AppendFuture, doneSlack+l.cfg.MaxInFlight), change: make(chan struct{}, 1),
	}
	p.ctx, p.cancel = context.WithCancelCause(g.ctx)
	if a, ok := g.takeAppended(id); ok {
		p.mu.Lock()
		p.acked = a
		p.noticeLaterLocked()
		p.mu.Unlock()
	}
	return p, nil
}

// AppendEntries implements raft.AppendPipeline. It waits while MaxInFlight requests are unanswered.
func (p *pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	g := p.g
	if g.link.cfg.HeartbeatTimeout > 0 && p.redundant(args) {
		g.link.stats.appendsSwallowed.Add(1)
		return swallowed(args, resp), nil
	}
	g.noteMember(p.id, args.Term)
	if p.behind(args) {
		p.drain()
		p.fail(errBehind)
		return nil, fmt.Errorf("peer: pipeline to %s: %w", p.id, errBehind)
	}
	p.sending.Lock()
	defer p.sending.Unlock()
	f := &appendFuture{start: time.Now(), args: args, resp: resp, answered: make(chan struct{})}
	f.instance = p.followerInstance(args.Term)
	type frame struct {
		parts [][]byte
		kind  uint8
	}
	parts := splitAppend(args)
	frames := make([]frame, len(parts))
	total := 0
	for i, part := range parts {
		b, kind, size := g.encode(part)
		frames[i] = frame{b, kind}
		total += size
	}
	f.left = len(frames)
	want := classControl
	if total > bulkSize {
		want = classBulk
	}
	release, err := g.link.peer(string(p.id)).holdAppend(int64(total))
	if err != nil {
		p.fail(err)
		return nil, fmt.Errorf("peer: pipeline to %s: %w", p.id, err)
	}
	f.release = release
	cl, err := p.admit(f, want, scaled(g.link.cfg.Timeout, int64(total)))
	if err != nil {
		release()
		p.again()
		return nil, err
	}
	c := p.s.conn(cl)
	if c == nil {
		ctx, cancel := context.WithTimeoutCause(p.ctx, g.link.cfg.Timeout, ErrTimeout)
		var s *session
		s, c, err = g.link.peer(string(p.id)).obtain(ctx, cl)
		cancel()
		if err == nil && s != p.s {
			err = ErrBroken
		}
	}
	for i := 0; i < len(frames) && err == nil; i++ {
		g.link.stats.raftOut.Add(1)
		_, err = p.s.begin(p.ctx, c, frameRaft, frames[i].kind, frames[i].parts, nil, func(r reply) { p.answer(f, r) })
	}
	if err != nil {
		p.fail(err)
		p.again()
		return nil, fmt.Errorf("peer: pipeline to %s: %w", p.id, err)
	}
	return f, nil
}

// admit waits for a place in flight and says which connection to take.
func (p *pipeline) admit(f *appendFuture, want class, limit time.Duration) (class, error) {
	most := p.g.link.cfg.MaxInFlight
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
		free := n < most && len(p.done) < doneSlack && (want == p.class || want == classControl)
		if free {
			p.inFlight = append(p.inFlight, f)
			f.timer = time.AfterFunc(limit, func() { p.fail(fmt.Errorf("%w: no answer to AppendEntries for %v", ErrTimeout, limit)) })
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
		case <-p.g.done:
			p.fail(raft.ErrTransportShutdown)
		}
	}
}

// answer takes one answer, on the reading goroutine: it does not wait.
func (p *pipeline) answer(f *appendFuture, r reply) {
	err := r.err
	if err == nil && r.status == statusRefused {
		err = r.failure()
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
		p.fail(fmt.Errorf("%w: answers out of order", errProto))
		return
	}
	err = r.raft(f.resp)
	f.left--
	if err == nil && f.resp.Success && f.left > 0 {
		p.mu.Unlock()
		return // one part of several
	}
	p.inFlight[0] = nil
	p.inFlight = p.inFlight[1:]
	if err == nil && f.resp.Success {
		p.acked = acknowledged{args: f.args, index: f.args.PrevLogEntry, term: f.args.PrevLogTerm, commit: f.args.LeaderCommitIndex, instance: f.instance}
		if n := len(f.args.Entries); n > 0 {
			p.acked.index, p.acked.term = f.args.Entries[n-1].Index, f.args.Entries[n-1].Term
			p.noticeLaterLocked()
		}
	}
	f.finish(err)
	if !f.own && !(err == nil && p.late(f)) {
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
	if p.notice != nil {
		p.notice.Stop()
	}
	p.cancel(err)
	for _, f := range p.inFlight {
		f.finish(err)
	}
	p.inFlight = nil
}

// Consumer implements raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.done }

// Close implements raft.AppendPipeline.
func (p *pipeline) Close() error {
	p.fail(raft.ErrPipelineShutdown)
	return nil
}

// appendFuture implements raft.AppendFuture. The pipeline's lock guards left; finish is called once.
type appendFuture struct {
	start    time.Time
	args     *raft.AppendEntriesRequest
	resp     *raft.AppendEntriesResponse
	left     int    // answers to come
	own      bool   // of the link, not of Raft: not delivered
	instance uint64 // of the follower's group when this was sent, 0 if unknown
	timer    *time.Timer
	err      error  // valid once answered is closed
	release  func() // gives back what holdAppend took; nil: nothing
	answered chan struct{}
}

func (f *appendFuture) finish(err error) {
	if f.timer != nil {
		f.timer.Stop()
	}
	if f.release != nil {
		f.release()
	}
	f.err = err
	close(f.answered)
}

// Error waits for the answer.
func (f *appendFuture) Error() error {
	<-f.answered
	return f.err
}

func (f *appendFuture) Start() time.Time                      { return f.start }
func (f *appendFuture) Request() *raft.AppendEntriesRequest   { return f.args }
func (f *appendFuture) Response() *raft.AppendEntriesResponse { return f.resp }
