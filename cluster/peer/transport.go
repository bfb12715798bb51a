package peer

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// timeoutScale is raft.DefaultTimeoutScale: a message gets one more timeout for so many bytes.
	timeoutScale = raft.DefaultTimeoutScale
	// maxAppend is about how many bytes of entries go into one message. What Raft gives in one
	// AppendEntries can be 1024 entries of any size; beyond this it is sent as several, each
	// beginning where the one before ended, which is what a leader with a smaller batch would send.
	maxAppend = 4 << 20
)

// GroupTransport is what Link.Transport gives: raft.Transport, raft.WithPreVote
// and raft.WithClose of one group. It names nodes by ServerID and ignores ServerAddress.
type GroupTransport struct {
	link  *Link
	group string
	// instance tells this from another group of the same name, before or after it in this process.
	instance uint64

	consumer chan raft.RPC
	done     chan struct{} // closed by Close
	once     sync.Once

	ctx    context.Context // of requests to others: ends with done, so that a node that hangs holds up no shutdown
	cancel context.CancelCauseFunc

	main, beats, installs lane
	confirms              confirms

	mu        sync.Mutex // guards what follows
	beat      func(raft.RPC)
	onInstall func(ctx context.Context, from string, req *raft.InstallSnapshotRequest) error
	vouched   RaftState
	newcomer  bool                           // as Newcomer says
	beatsTo   map[raft.ServerID]beatTo       // only of the newest term
	appended  map[raft.ServerID]acknowledged // the last entries that a follower took without a pipeline, until there is one

	polled         polled       // owned by the pulse
	unled          atomic.Bool  // as Unled says
	feeding        atomic.Bool  // a heartbeat is being given to the group
	wokenAt        atomic.Int64 // link clock: when a broken pipeline last had the group woken
	membersChanged atomic.Bool  // beatsTo has another node or term since the pulse looked
}

var (
	_ raft.Transport   = (*GroupTransport)(nil)
	_ raft.WithPreVote = (*GroupTransport)(nil)
	_ raft.WithClose   = (*GroupTransport)(nil)
)

// Transport gives the transport of one group, a *GroupTransport, opening it where
// it is not open: from then on the group's messages are taken here. Between Close and
// the next Transport with that name they are refused. The name goes with every message: keep it short.
func (l *Link) Transport(group string) raft.Transport {
	l.mu.Lock()
	defer l.mu.Unlock()
	if g := l.groups[group]; g != nil {
		return g
	}
	g := &GroupTransport{link: l, group: group, instance: instances.Add(1), consumer: make(chan raft.RPC), done: make(chan struct{})}
	g.ctx, g.cancel = context.WithCancelCause(l.ctx)
	if l.closed {
		close(g.done)
		g.once.Do(func() {})
		return g
	}
	l.groups[group] = g
	l.regrouped = true
	return g
}

// Close ends this group's part of the link. Raft calls it when its shutdown is awaited.
func (g *GroupTransport) Close() error {
	g.once.Do(func() {
		g.link.mu.Lock()
		delete(g.link.groups, g.group)
		g.link.regrouped = true
		if g.link.cfg.HeartbeatTimeout > 0 {
			g.link.leaving = append(g.link.leaving, g)
		}
		close(g.done)
		g.link.mu.Unlock()
		g.cancel(raft.ErrTransportShutdown)
	})
	return nil
}

// BeforeInstall sets what happens when another node wants to install a snapshot here,
// before Raft sees it: fetching by other means what the snapshot stands for. It may take as long as it
// likes, for as long as ctx lives: the sender is told that work goes on, Raft's main loop stays free
// and heartbeats are answered meanwhile. An error is the answer to the sender, and Raft never sees the request;
// with ErrInstalled the sender is told that the snapshot is installed.
func (g *GroupTransport) BeforeInstall(hook func(ctx context.Context, from string, req *raft.InstallSnapshotRequest) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.onInstall = hook
}

func (g *GroupTransport) installHook() func(context.Context, string, *raft.InstallSnapshotRequest) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.onInstall
}

// SetHeartbeatHandler implements raft.Transport.
func (g *GroupTransport) SetHeartbeatHandler(cb func(rpc raft.RPC)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.beat = cb
}

func (g *GroupTransport) heartbeatHandler() func(raft.RPC) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.beat
}

// Consumer implements raft.Transport.
func (g *GroupTransport) Consumer() <-chan raft.RPC { return g.consumer }

// LocalAddr implements raft.Transport: the identity, which the address book of every node resolves.
func (g *GroupTransport) LocalAddr() raft.ServerAddress { return raft.ServerAddress(g.link.cfg.Self) }

// EncodePeer implements raft.Transport.
func (g *GroupTransport) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte {
	return []byte(addr)
}

// DecodePeer implements raft.Transport.
func (g *GroupTransport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// AppendEntries implements raft.Transport.
func (g *GroupTransport) AppendEntries(id raft.ServerID, _ raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if g.link.cfg.HeartbeatTimeout > 0 && isHeartbeat(args) {
		defer func() { g.noteBeat(id, args.Term) }()
		if g.heartbeat(id, args, resp) {
			return nil
		}
		return g.timelyHeartbeat(id, args, resp)
	} else {
		g.noteMember(id, args.Term)
	}
	for _, part := range splitAppend(args) {
		if err := g.request(id, part, resp); err != nil || !resp.Success {
			return err
		}
	}
	g.noteAppended(id, args)
	return nil
}

// RequestVote implements raft.Transport.
func (g *GroupTransport) RequestVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return g.request(id, args, resp)
}

// RequestPreVote implements raft.WithPreVote.
func (g *GroupTransport) RequestPreVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return g.request(id, args, resp)
}

// TimeoutNow implements raft.Transport.
func (g *GroupTransport) TimeoutNow(id raft.ServerID, _ raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return g.request(id, args, resp)
}

// encode gives the parts of a request's body, its kind and its size.
func (g *GroupTransport) encode(args any) (parts [][]byte, kind uint8, size int) {
	e := encoder{buf: make([]byte, 0, 192)}
	e.buf = binary.AppendUvarint(e.buf, uint64(len(g.group)))
	e.buf = append(e.buf, g.group...)
	kind = encodeRequest(&e, args)
	parts = e.done()
	return parts, kind, sizeOf(parts)
}

// request is one Raft request and its answer.
func (g *GroupTransport) request(id raft.ServerID, args, resp any) error {
	l := g.link
	select {
	case <-g.done:
		return fmt.Errorf("peer: group %s: %w", g.group, raft.ErrTransportShutdown)
	default:
	}
	parts, kind, size := g.encode(args)
	if a, ok := args.(*raft.AppendEntriesRequest); ok {
		p := l.peer(string(id))
		release, err := p.holdAppend(int64(size))
		if err != nil {
			return fmt.Errorf("peer: %s: %w", id, err)
		}
		defer release()
		p.park(g.done, func() bool { return !isHeartbeat(a) && g.replicatesTo(id, a.Term) })
	}
	ctx, cancel := context.WithTimeoutCause(g.ctx, scaled(l.cfg.Timeout, int64(size)), ErrTimeout)
	defer cancel()
	return g.roundTrip(ctx, id, parts, kind, size, resp)
}

// exchange is request within ctx, at once or not at all.
func (g *GroupTransport) exchange(ctx context.Context, id raft.ServerID, args, resp any) error {
	parts, kind, size := g.encode(args)
	return g.roundTrip(ctx, id, parts, kind, size, resp)
}

func (g *GroupTransport) roundTrip(ctx context.Context, id raft.ServerID, parts [][]byte, kind uint8, size int, resp any) error {
	l := g.link
	l.stats.raftOut.Add(1)
	cl := classControl
	if size > bulkSize {
		cl = classBulk
	}
	s, c, err := l.peer(string(id)).obtain(ctx, cl)
	if err == nil {
		var r reply
		if r, err = s.roundTrip(ctx, c, frameRaft, kind, parts); err == nil {
			err = r.raft(resp)
		}
	}
	if err != nil {
		return fmt.Errorf("peer: %s: %w", id, err)
	}
	return nil
}

// raft fills resp from an answer to a Raft request.
func (r reply) raft(resp any) error {
	switch r.status {
	case statusOK:
		return decodeResponse(r.body, resp)
	case statusError:
		d := decoder{b: r.body}
		text := d.bytes()
		if d.bad {
			return errRaftMessage
		}
		if len(d.b) > 0 {
			if err := decodeResponse(d.b, resp); err != nil {
				return err
			}
		}
		return fmt.Errorf("%w: %s", errRemote, text)
	default:
		return r.failure()
	}
}

// scaled gives a message of that size its time, as hashicorp/raft's network transport scales snapshots.
func scaled(timeout time.Duration, size int64) time.Duration {
	return timeout * time.Duration(max(1, size/timeoutScale))
}

// splitAppend cuts a request whose entries are larger than maxAppend into several that say the same.
func splitAppend(args *raft.AppendEntriesRequest) []*raft.AppendEntriesRequest {
	size := 0
	for _, e := range args.Entries {
		size += len(e.Data) + len(e.Extensions)
	}
	if size <= maxAppend || len(args.Entries) < 2 {
		return []*raft.AppendEntriesRequest{args}
	}
	var out []*raft.AppendEntriesRequest
	from := 0
	size = 0
	cut := func(to int) {
		part := *args
		part.Entries = args.Entries[from:to:to]
		if from > 0 {
			before := args.Entries[from-1]
			part.PrevLogEntry, part.PrevLogTerm = before.Index, before.Term
		}
		out = append(out, &part)
		from, size = to, 0
	}
	for i, e := range args.Entries {
		n := len(e.Data) + len(e.Extensions)
		if i > from && size+n > maxAppend {
			cut(i)
		}
		size += n
	}
	cut(len(args.Entries))
	return out
}
