package raftlink

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/link/wire"
)

// timeoutScale is raft.DefaultTimeoutScale: a message gets one more timeout for so many bytes.
const timeoutScale = raft.DefaultTimeoutScale

// Transport is what Transports.Open gives: raft.Transport, raft.WithPreVote and raft.WithClose of
// one group. It names nodes by ServerID and ignores ServerAddress.
type Transport struct {
	*common
	group  string
	remove func() // what Close does about who opened it
	admit  func(req any) bool

	consumer chan raft.RPC
	done     chan struct{} // closed by Close
	once     sync.Once

	ctx    context.Context // of requests to others: ends with done, so that a node that hangs holds up no shutdown
	cancel context.CancelCauseFunc

	main, beats, installs lane
	hooks                 hooks
	appended              appended
	wokenAt               atomic.Int64 // link clock: when a broken pipeline last had the group woken
}

// hooks are what was set at a transport.
type hooks struct {
	mu      sync.Mutex // guards what follows; nothing is called under it
	beat    func(raft.RPC)
	install InstallHook
	raft    Raft
}

// InstallHook is what Transport.BeforeInstall takes.
type InstallHook = func(ctx context.Context, from string, req *raft.InstallSnapshotRequest) error

// ErrInstalled is what an InstallHook returns when the replica has all that the snapshot stands
// for.
var ErrInstalled = errors.New("the snapshot is installed")

var (
	_ raft.Transport   = (*Transport)(nil)
	_ raft.WithPreVote = (*Transport)(nil)
	_ raft.WithClose   = (*Transport)(nil)
)

// Close ends this group's part of the link. Raft calls it when its shutdown is awaited.
func (t *Transport) Close() error {
	t.once.Do(func() {
		t.remove()
		t.cancel(raft.ErrTransportShutdown)
	})
	return nil
}

// Group is the group's name.
func (t *Transport) Group() string { return t.group }

// Done is closed by Close.
func (t *Transport) Done() <-chan struct{} { return t.done }

// Context ends with Close, and with the link.
func (t *Transport) Context() context.Context { return t.ctx }

// OnRequest sets what looks at each request before Raft does, except at heartbeats that are taken
// beside its main loop; false refuses it. It must be called by what Transports.Open prepares with.
func (t *Transport) OnRequest(admit func(req any) bool) { t.admit = admit }

// Attach tells the transport of the group's Raft here. Until then every message goes on the wire,
// and every heartbeat is taken beside Raft's main loop.
func (t *Transport) Attach(r Raft) {
	t.hooks.mu.Lock()
	defer t.hooks.mu.Unlock()
	t.hooks.raft = r
}

// Raft is what Attach was told of, nil once the group is closed.
func (t *Transport) Raft() Raft {
	select {
	case <-t.done:
		return nil
	default:
	}
	t.hooks.mu.Lock()
	defer t.hooks.mu.Unlock()
	return t.hooks.raft
}

// BeforeInstall sets what happens when another node wants to install a snapshot here, before Raft
// sees it: fetching by other means what the snapshot stands for. It may take as long as it likes,
// for as long as ctx lives: the sender is told that work goes on, Raft's main loop stays free and
// heartbeats are answered meanwhile. An error is the answer to the sender, and Raft never sees the
// request; with ErrInstalled the sender is told that the snapshot is installed.
func (t *Transport) BeforeInstall(hook InstallHook) {
	t.hooks.mu.Lock()
	defer t.hooks.mu.Unlock()
	t.hooks.install = hook
}

func (t *Transport) installHook() InstallHook {
	t.hooks.mu.Lock()
	defer t.hooks.mu.Unlock()
	return t.hooks.install
}

// SetHeartbeatHandler implements raft.Transport.
func (t *Transport) SetHeartbeatHandler(cb func(rpc raft.RPC)) {
	t.hooks.mu.Lock()
	defer t.hooks.mu.Unlock()
	t.hooks.beat = cb
}

// HeartbeatHandler is what takes heartbeats beside Raft's main loop; nil: nothint.
func (t *Transport) HeartbeatHandler() func(raft.RPC) {
	t.hooks.mu.Lock()
	defer t.hooks.mu.Unlock()
	return t.hooks.beat
}

// Consumer implements raft.Transport.
func (t *Transport) Consumer() <-chan raft.RPC { return t.consumer }

// LocalAddr implements raft.Transport: the identity, which the address book of every node resolves.
func (t *Transport) LocalAddr() raft.ServerAddress { return raft.ServerAddress(t.link.Self()) }

// EncodePeer implements raft.Transport.
func (t *Transport) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte {
	return []byte(addr)
}

// DecodePeer implements raft.Transport.
func (t *Transport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// AppendEntries implements raft.Transport.
func (t *Transport) AppendEntries(id raft.ServerID, _ raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if IsHeartbeat(args) {
		return t.request(id, args, resp)
	}
	for _, part := range splitAppend(args) {
		if err := t.request(id, part, resp); err != nil || !resp.Success {
			return err
		}
	}
	t.noteAppended(id, args)
	return nil
}

// RequestVote implements raft.Transport.
func (t *Transport) RequestVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return t.request(id, args, resp)
}

// RequestPreVote implements raft.WithPreVote.
func (t *Transport) RequestPreVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return t.request(id, args, resp)
}

// TimeoutNow implements raft.Transport.
func (t *Transport) TimeoutNow(id raft.ServerID, _ raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.request(id, args, resp)
}

// InstallSnapshot implements raft.Transport. There is no limit to how long it takes as long as the
// other side says that it goes on.
func (t *Transport) InstallSnapshot(id raft.ServerID, _ raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	t.stats.out.Add(1)
	t.park(string(id), func() bool { return t.replicatesTo(id, args.Term) })
	parts, kind, _ := t.encode(args)
	r, err := t.link.Stream(t.ctx, string(id), kind, parts, args.Size, data)
	if err == nil {
		err = decodeReply(r, resp)
	}
	if err != nil {
		return fmt.Errorf("peer: snapshot to %s: %w", id, err)
	}
	return nil
}

// encode gives the parts of a request's body, its kind and its size.
func (t *Transport) encode(args any) (parts [][]byte, kind uint8, size int) {
	e := wire.Encoder{Buf: make([]byte, 0, 192)}
	e.Buf = binary.AppendUvarint(e.Buf, uint64(len(t.group)))
	e.Buf = append(e.Buf, t.group...)
	kind = encodeRequest(&e, args)
	parts = e.Done()
	return parts, kind, link.Size(parts)
}

// request is one Raft request and its answer.
func (t *Transport) request(id raft.ServerID, args, resp any) error {
	select {
	case <-t.done:
		return fmt.Errorf("peer: group %s: %w", t.group, raft.ErrTransportShutdown)
	default:
	}
	parts, kind, size := t.encode(args)
	if a, ok := args.(*raft.AppendEntriesRequest); ok {
		release, err := t.unanswered.hold(string(id), int64(size))
		if err != nil {
			return fmt.Errorf("peer: %s: %w", id, err)
		}
		defer release()
		t.park(string(id), func() bool { return !IsHeartbeat(a) && t.replicatesTo(id, a.Term) })
	}
	ctx, cancel := context.WithTimeoutCause(t.ctx, scaled(t.cfg.Timeout, int64(size)), link.ErrTimeout)
	defer cancel()
	return t.roundTrip(ctx, id, parts, kind, resp)
}

// Exchange is one request and its answer within ctx, at once or not at all: it waits for no node
// that is gone.
func (t *Transport) Exchange(ctx context.Context, id raft.ServerID, args, resp any) error {
	parts, kind, _ := t.encode(args)
	return t.roundTrip(ctx, id, parts, kind, resp)
}

func (t *Transport) roundTrip(ctx context.Context, id raft.ServerID, parts [][]byte, kind uint8, resp any) error {
	t.stats.out.Add(1)
	r, err := t.link.Request(ctx, string(id), kind, parts)
	if err == nil {
		err = decodeReply(r, resp)
	}
	if err != nil {
		return fmt.Errorf("peer: %s: %w", id, err)
	}
	return nil
}

// Inject gives the group here a request of this node, and waits for Raft's answer, within
// Confit.Timeout.
func (t *Transport) Inject(req any) error {
	resp := make(chan raft.RPCResponse, 1)
	timer := time.NewTimer(t.cfg.Timeout)
	defer timer.Stop()
	select {
	case t.consumer <- raft.RPC{Command: req, RespChan: resp}:
	case <-t.done:
		return raft.ErrTransportShutdown
	case <-timer.C:
		return fmt.Errorf("%w: the group does not take messages", link.ErrBusy)
	}
	select {
	case a := <-resp:
		return a.Error
	case <-t.done:
		return raft.ErrTransportShutdown
	case <-timer.C:
		return fmt.Errorf("%w: the group does not answer", link.ErrBusy)
	}
}

// decodeReply fills resp from an answer to a Raft request.
func decodeReply(r link.Reply, resp any) error {
	switch r.Status {
	case link.StatusOK:
		return decodeResponse(r.Body, resp)
	case link.StatusError:
		d := wire.Decoder{B: r.Body}
		text := d.Bytes()
		if d.Bad {
			return errRaftMessage
		}
		if len(d.B) > 0 {
			if err := decodeResponse(d.B, resp); err != nil {
				return err
			}
		}
		return fmt.Errorf("%w: %s", link.ErrRemote, text)
	default:
		return r.Failure()
	}
}

// scaled gives a message of that size its time, as hashicorp/raft's network transport scales
// snapshots.
func scaled(timeout time.Duration, size int64) time.Duration {
	return timeout * time.Duration(max(1, size/timeoutScale))
}
