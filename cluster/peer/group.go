package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// laneLength and laneBytes bound what waits for one group; more is refused.
	laneLength = 256
	laneBytes  = 64 << 20
	// heartbeatLane bounds the heartbeats that wait for one group.
	heartbeatLane = 16
	// heartbeatAnswer is how long an answer of the heartbeat handler is awaited after it has returned.
	// hashicorp/raft answers before it returns, or, once shut down, never.
	heartbeatAnswer = time.Second
	// progressEvery is how often the sender of a snapshot hears that it is still being worked on.
	progressEvery = time.Second
)

// received is one Raft request on its way to its group.
type received struct {
	in     *inbound
	c      *conn
	id     uint64
	req    any
	size   int
	stream *inStream // InstallSnapshot only
	fast   func(raft.RPC)
}

// done gives back the request's share of what its session may have waiting.
func (r *received) done() { r.in.appends.Add(-int64(r.size)) }

// lane feeds one group in order, with a goroutine only while there is something to feed.
type lane struct {
	mu      sync.Mutex
	queue   []*received
	bytes   int
	running bool
}

// push queues r and says whether the caller must start the lane; false, false means full.
func (q *lane) push(r *received, most int) (start, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) >= most || (len(q.queue) > 0 && q.bytes+r.size > laneBytes) {
		return false, false
	}
	q.queue = append(q.queue, r)
	q.bytes += r.size
	start = !q.running
	q.running = true
	return start, true
}

func (q *lane) pop() *received {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) == 0 {
		q.running, q.queue = false, nil
		return nil
	}
	r := q.queue[0]
	q.queue[0] = nil
	q.queue = q.queue[1:]
	q.bytes -= r.size
	return r
}

// raftRequest hands one Raft request to its group's lane, or refuses it. It never waits:
// a stuck group must not hold up the others of this connection.
func (in *inbound) raftRequest(c *conn, h frameHeader, body []byte) error {
	l := in.link
	l.stats.raftIn.Add(1)
	n, used := binary.Uvarint(body)
	if used <= 0 || n > uint64(len(body)-used) {
		return fmt.Errorf("%w: group name", errProto)
	}
	name, msg := body[used:used+int(n)], body[used+int(n):]
	l.mu.Lock()
	g := l.groups[string(name)]
	l.mu.Unlock()
	if g == nil {
		l.stats.unknownGroup.Add(1)
		return in.refuse(c, h.id, ErrNoGroup)
	}
	req, err := decodeRequest(h.kind, msg)
	if err != nil {
		return err
	}
	r := &received{in: in, c: c, id: h.id, req: req, size: len(body)}
	most, q, run := laneLength, &g.main, g.runMain
	switch req := req.(type) {
	case *raft.AppendEntriesRequest:
		if r.fast = g.heartbeatHandler(); r.fast != nil && isHeartbeat(req) {
			l.stats.heartbeatsIn.Add(1)
			most, q, run = heartbeatLane, &g.beats, g.runBeats
		}
	case *raft.InstallSnapshotRequest:
		if err := checkConfiguration(req); err != nil {
			return in.refuse(c, h.id, err)
		}
		r.stream = newInStream(in, c, h.id, req.Size)
		if !in.addStream(h.id, r.stream) {
			return errProto
		}
		most, q, run = 1, &g.installs, g.runInstalls
	}
	// Twice what the sender allows itself: it counts an answer that this side has not finished with yet.
	if in.appends.Add(int64(r.size)) > max(2*maxAppends, int64(r.size)) {
		in.appends.Add(-int64(r.size))
		l.stats.groupOverflow.Add(1)
		in.dropStream(r)
		return in.refuse(c, h.id, ErrBusy)
	}
	start, ok := q.push(r, most)
	if !ok {
		r.done()
		l.stats.groupOverflow.Add(1)
		in.dropStream(r)
		return in.refuse(c, h.id, ErrBusy)
	}
	if start {
		l.wg.Go(run)
	}
	return nil
}

// checkConfiguration decodes the configuration as Raft will, because Raft panics where it cannot.
func checkConfiguration(r *raft.InstallSnapshotRequest) (err error) {
	if r.SnapshotVersion == 0 {
		return nil
	}
	defer func() {
		if recover() != nil {
			err = errRaftMessage
		}
	}()
	_ = raft.DecodeConfiguration(r.Configuration)
	return nil
}

func (in *inbound) addStream(id uint64, st *inStream) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed || in.streams[id] != nil {
		return false
	}
	in.streams[id] = st
	return true
}

func (in *inbound) dropStream(r *received) {
	if r.stream == nil {
		return
	}
	in.mu.Lock()
	delete(in.streams, r.id)
	in.mu.Unlock()
	r.stream.fail(errors.New("snapshot transfer is over"))
}

// runMain gives Raft one request after the other, as hashicorp/raft's transport does per connection.
func (g *GroupTransport) runMain() {
	for r := g.main.pop(); r != nil; r = g.main.pop() {
		if r.in.ctx.Err() == nil { // else nobody is left to hear the answer
			g.deliver(r)
		}
		r.done()
	}
}

// runBeats calls the heartbeat handler, which may write the stable store or,
// after Raft's shutdown, not answer: so it has a lane of its own.
func (g *GroupTransport) runBeats() {
	for r := g.beats.pop(); r != nil; r = g.beats.pop() {
		if r.in.ctx.Err() != nil {
			r.done()
			continue
		}
		if !g.beside(r.req.(*raft.AppendEntriesRequest).Term) {
			start, ok := g.main.push(r, laneLength)
			if !ok {
				r.done()
				g.link.stats.groupOverflow.Add(1)
				_ = r.in.refuse(r.c, r.id, ErrBusy)
			} else if start {
				g.link.wg.Go(g.runMain)
			}
			continue
		}
		r.done()
		resp := make(chan raft.RPCResponse, 1)
		r.fast(raft.RPC{Command: r.req, RespChan: resp})
		select {
		case a := <-resp:
			g.respond(r, a)
			continue
		default:
		}
		timer := time.NewTimer(heartbeatAnswer)
		select {
		case a := <-resp:
			g.respond(r, a)
		case <-timer.C:
			g.respond(r, raft.RPCResponse{Error: errors.New("heartbeat not answered: the group is shut down")})
		case <-g.done:
			g.respond(r, raft.RPCResponse{Error: ErrClosed})
		}
		timer.Stop()
	}
}

// beside says whether Raft may take a heartbeat of that term beside its main loop: if it only repeats what the main loop
// holds for true. hashicorp/raft's handler (raft.go, appendEntries) makes a follower of that term out of whatever
// the group is, and the main loop, which is not told, goes on meanwhile with what it was doing:
//
//   - A leader appends the next proposal in the new term, in which another leads. That one has another entry of this term
//     at the same index, Raft takes the two for the same, and the replicas apply different things.
//   - A leader whose configuration entry was on its way to the disk sends to the new member in the new term.
//   - A candidate that has just gone to a newer term goes back, and then may vote twice in it.
//
// What the main loop has to take waits for it: a node that hangs in its disk does not answer the heartbeats of a
// leader that it does not know yet. The group may still change between this look and the handler's own, by its election timer.
// Before Vouch nothing is known of the group, and heartbeats are taken as by Raft's own transport: all of them beside.
func (g *GroupTransport) beside(term uint64) bool {
	r := g.raftState()
	return r == nil || r.CurrentTerm() == term && r.State() == raft.Follower
}

// runInstalls takes snapshots, one at a time, beside the main lane: what BeforeInstall does may take long.
func (g *GroupTransport) runInstalls() {
	for r := g.installs.pop(); r != nil; r = g.installs.pop() {
		if r.in.ctx.Err() == nil {
			g.install(r)
		}
		r.done()
		r.in.dropStream(r)
	}
}

func (g *GroupTransport) install(r *received) {
	req := r.req.(*raft.InstallSnapshotRequest)
	over := make(chan struct{})
	defer close(over)
	hooked := make(chan struct{})
	g.link.wg.Go(func() {
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		hooked := hooked
		// The hook says itself how long it takes; Raft's own part has the time that its size gives it.
		var limit <-chan time.Time
		for {
			select {
			case <-tick.C:
				_ = r.in.urgent(r.c, newMessage(frameProgress, 0, r.id))
			case <-hooked:
				hooked = nil
				timer := time.NewTimer(scaled(g.link.cfg.Timeout, req.Size))
				defer timer.Stop()
				limit = timer.C
			case <-limit:
				return
			case <-over:
				return
			case <-r.in.ctx.Done():
				return
			}
		}
	})
	if hook := g.installHook(); hook != nil {
		ctx, cancel := context.WithCancelCause(r.in.ctx)
		stop := make(chan struct{})
		g.link.wg.Go(func() {
			select {
			case <-g.done:
				cancel(ErrClosed)
			case <-stop:
			}
		})
		err := hook(ctx, r.in.identity, req)
		close(stop)
		cancel(nil)
		if errors.Is(err, ErrInstalled) {
			g.respond(r, raft.RPCResponse{Response: &raft.InstallSnapshotResponse{RPCHeader: req.RPCHeader, Term: req.Term, Success: true}})
			return
		}
		if err != nil {
			g.respond(r, raft.RPCResponse{Error: err})
			return
		}
	}
	close(hooked)
	g.deliver(r)
}

// deliver gives r to Raft and sends back what it says.
func (g *GroupTransport) deliver(r *received) {
	if !g.admitCandidate(r.req) {
		_ = r.in.refuse(r.c, r.id, ErrNoGroup)
		return
	}
	resp := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{Command: r.req, RespChan: resp}
	if r.stream != nil {
		rpc.Reader = r.stream
	}
	timer := time.NewTimer(scaled(g.link.cfg.Timeout, int64(r.size)))
	defer timer.Stop()
	select {
	case g.consumer <- rpc:
	case <-g.done:
		_ = r.in.refuse(r.c, r.id, ErrNoGroup)
		return
	case <-r.in.ctx.Done():
		return
	case <-timer.C:
		_ = r.in.refuse(r.c, r.id, ErrBusy)
		return
	}
	// Raft has it now and answers when it is done; the next one waits, as order demands.
	select {
	case a := <-resp:
		g.respond(r, a)
	case <-g.done:
		g.respond(r, raft.RPCResponse{Error: ErrClosed})
	}
}

// respond sends one response: for an error its text's length, the text and the response, if there is one.
func (g *GroupTransport) respond(r *received, a raft.RPCResponse) {
	g.inOwnTerm(r.req, a.Response)
	if answered := g.link.cfg.Answered; answered != nil {
		answered(g.group, r.req, a.Response)
	}
	e := encoder{}
	status := statusOK
	if a.Error != nil {
		status = statusError
		e.bytes([]byte(a.Error.Error()))
	}
	encodeResponse(&e, a.Response)
	if status == statusOK && len(e.buf) == 0 {
		status = statusError
		e.bytes([]byte("no response"))
	}
	r.in.answer(r.c, r.id, status, e.done()...)
}

// inOwnTerm takes back a yes to entries or a snapshot of another term than the one in which the
// group is by now: it is said only to the leader of one's own term. Whoever asked in an older one
// is told the newer one.
func (g *GroupTransport) inOwnTerm(req, resp any) {
	r := g.raftState()
	if r == nil {
		return
	}
	switch resp := resp.(type) {
	case *raft.AppendEntriesResponse:
		if term := r.CurrentTerm(); resp.Success && req.(*raft.AppendEntriesRequest).Term != term {
			resp.Success, resp.Term = false, term
		}
	case *raft.InstallSnapshotResponse:
		if term := r.CurrentTerm(); resp.Success && req.(*raft.InstallSnapshotRequest).Term != term {
			resp.Success, resp.Term = false, term
		}
	}
}
