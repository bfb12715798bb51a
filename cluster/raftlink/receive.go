package raftlink

import (
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/link/wire"
)

// heartbeatAnswer is how long an answer of the heartbeat handler is awaited after it has returned.
// hashicorp/raft answers before it returns, or, once shut down, never.
const heartbeatAnswer = time.Second

// inbox is the receiving side of one group.
type inbox struct {
	*common
	*local
	main, beats, installs lane
}

// take puts a request for this raft group into its lane, or refuses it. It never waits.
func (b *inbox) take(in *link.Request, msg []byte) error {
	req, err := decodeRequest(in.Kind, msg)
	if err != nil {
		return err
	}
	r := &received{Request: in, req: req}
	most, q, run := laneLength, &b.main, b.runMain
	switch req := req.(type) {
	case *raft.AppendEntriesRequest:
		if r.fast = b.HeartbeatHandler(); r.fast != nil && IsHeartbeat(req) {
			b.stats.heartbeatsIn.Add(1)
			most, q, run = heartbeatLane, &b.beats, b.runBeats
		}
	case *raft.InstallSnapshotRequest:
		if err := checkConfiguration(req); err != nil {
			return r.Refuse(err)
		}
		if err := r.Expect(req.Size); err != nil {
			return err
		}
		most, q, run = 1, &b.installs, b.runInstalls
	}
	// Twice what the sender allows itself: it counts an answer that this side has not finished with
	// yet.
	if !r.Hold(2 * maxAppends) {
		b.stats.overflow.Add(1)
		r.EndStream()
		return r.Refuse(link.ErrBusy)
	}
	start, ok := q.push(r, most)
	if !ok {
		r.Release()
		b.stats.overflow.Add(1)
		r.EndStream()
		return r.Refuse(link.ErrBusy)
	}
	if start {
		b.link.Go(run)
	}
	return nil
}

// runMain gives Raft one request after the other, as hashicorp/raft's transport does per
// connection.
func (b *inbox) runMain() {
	for r := b.main.pop(); r != nil; r = b.main.pop() {
		if r.Context().Err() == nil { // else nobody is left to hear the answer
			b.deliver(r)
		}
		r.Release()
	}
}

// runBeats calls the heartbeat handler, which may write the stable store or,
// after Raft's shutdown, not answer: so it has a lane of its own.
func (b *inbox) runBeats() {
	for r := b.beats.pop(); r != nil; r = b.beats.pop() {
		if r.Context().Err() != nil {
			r.Release()
			continue
		}
		if !b.beside(r.req.(*raft.AppendEntriesRequest).Term) {
			start, ok := b.main.push(r, laneLength)
			if !ok {
				r.Release()
				b.stats.overflow.Add(1)
				_ = r.Refuse(link.ErrBusy)
			} else if start {
				b.link.Go(b.runMain)
			}
			continue
		}
		r.Release()
		resp := make(chan raft.RPCResponse, 1)
		r.fast(raft.RPC{Command: r.req, RespChan: resp})
		select {
		case a := <-resp:
			b.respond(r, a)
			continue
		default:
		}
		timer := time.NewTimer(heartbeatAnswer)
		select {
		case a := <-resp:
			b.respond(r, a)
		case <-timer.C:
			b.respond(r, raft.RPCResponse{Error: errors.New("heartbeat not answered: the group is shut down")})
		case <-b.done:
			b.respond(r, raft.RPCResponse{Error: link.ErrClosed})
		}
		timer.Stop()
	}
}

// beside says whether Raft may take a heartbeat of that term beside its main loop: if it only
// repeats what the main loop holds for true. hashicorp/raft's handler (raft.go, appendEntries)
// makes a follower of that term out of whatever the raft group is, and the main loop, which is not
// told, goes on meanwhile with what it was doing:
//
//   - A leader appends the next proposal in the new term, in which another leads. That one has
//     another entry of this term at the same index, Raft takes the two for the same, and the
//     replicas apply different things.
//   - A leader whose configuration entry was on its way to the disk sends to the new member in the
//     new term.
//   - A candidate that has just gone to a newer term goes back, and then may vote twice in it.
//
// What the main loop has to take waits for it: a node that hangs in its disk does not answer the
// heartbeats of a leader that it does not know yet. The raft group may still change between this
// look and the handler's own, by its election timer. Before Attach nothing is known of the raft
// group, and heartbeats are taken as by Raft's own transport: all of them beside.
func (b *inbox) beside(term uint64) bool {
	r := b.Raft()
	return r == nil || r.CurrentTerm() == term && r.State() == raft.Follower
}

// deliver gives r to Raft and sends back what it says.
func (b *inbox) deliver(r *received) {
	if b.admit != nil && !b.admit(r.req) {
		_ = r.Refuse(link.ErrNoMember)
		return
	}
	resp := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{Command: r.req, RespChan: resp}
	if data := r.Data(); data != nil {
		rpc.Reader = data
	}
	timer := time.NewTimer(scaled(b.timeout, int64(r.size())))
	defer timer.Stop()
	select {
	case b.consumer <- rpc:
	case <-b.done:
		_ = r.Refuse(link.ErrNoMember)
		return
	case <-r.Context().Done():
		return
	case <-timer.C:
		_ = r.Refuse(link.ErrBusy)
		return
	}
	// Raft has it now and answers when it is done; the next one waits, as order demands.
	select {
	case a := <-resp:
		b.respond(r, a)
	case <-b.done:
		b.respond(r, raft.RPCResponse{Error: link.ErrClosed})
	}
}

// respond sends one response: for an error its text's length, the text and the response, if there
// is one.
func (b *inbox) respond(r *received, a raft.RPCResponse) {
	b.inOwnTerm(r.req, a.Response)
	if answered := b.cfg.Answered; answered != nil {
		answered(b.group, r.req, a.Response)
	}
	e := wire.Encoder{}
	ok := a.Error == nil
	if !ok {
		e.Bytes([]byte(a.Error.Error()))
	}
	encodeResponse(&e, a.Response)
	if ok && len(e.Buf) == 0 {
		ok = false
		e.Bytes([]byte("no response"))
	}
	r.Answer(ok, e.Done()...)
}

// inOwnTerm takes back a yes to entries or a snapshot of another term than the one in which the
// raft group is by now: it is said only to the leader of one's own term. Whoever asked in an older
// one is told the newer one.
func (b *inbox) inOwnTerm(req, resp any) {
	r := b.Raft()
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
