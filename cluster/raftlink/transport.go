package raftlink

import (
	"context"
	"encoding/binary"
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
	*local
	inbox  inbox
	remove func() // what Close does about who opened it
	once   sync.Once

	// ctx is of requests to others: it ends with done, so that a node that hangs holds up no
	// shutdown.
	ctx    context.Context
	cancel context.CancelCauseFunc

	appended appended
	newest   newest
	wokenAt  atomic.Int64 // link clock: when a broken pipeline last had the raft group woken
}

var (
	_ raft.Transport   = (*Transport)(nil)
	_ raft.WithPreVote = (*Transport)(nil)
	_ raft.WithClose   = (*Transport)(nil)
)

// Close ends this raft group's part of the link. Raft calls it when its shutdown is awaited.
func (t *Transport) Close() error {
	t.once.Do(func() {
		t.remove()
		t.cancel(raft.ErrTransportShutdown)
	})
	return nil
}

// Context ends with Close, and with the link.
func (t *Transport) Context() context.Context { return t.ctx }

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
