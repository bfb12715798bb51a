package raftlink_test

//lint:file-ignore SA1019 raft still fills the deprecated fields Leader and Candidate, so they are carried as they are

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/link/peertest"
	"github.com/trimaran-io/trimaran/cluster/raftlink"
)

// serve answers a raft group's requests with f until ctx ends, as Raft's main loop would.
func serve(ctx context.Context, tr raft.Transport, f func(raft.RPC)) {
	for {
		select {
		case r := <-tr.Consumer():
			f(r)
		case <-ctx.Done():
			return
		}
	}
}

func accept(r raft.RPC) {
	req := r.Command.(*raft.AppendEntriesRequest)
	last := req.PrevLogEntry
	if n := len(req.Entries); n > 0 {
		last = req.Entries[n-1].Index
	}
	r.Respond(&raft.AppendEntriesResponse{Term: req.Term, LastLog: last, Success: true}, nil)
}

func entries(from, count, size int) []*raft.Log {
	var out []*raft.Log
	for i := range count {
		out = append(out, &raft.Log{Index: uint64(from + i), Term: 1, Data: bytes.Repeat([]byte{byte(from + i)}, size)})
	}
	return out
}

func heartbeat() *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("a"), Addr: []byte("a")}, Term: 1, Leader: []byte("a")}
}

func TestUnknownGroupIsAnsweredAtOnce(t *testing.T) {
	n := peertest.New()
	a, b := linkOn(t, n, "a"), linkOn(t, n, "b")
	tr := a.Transport("g")
	start := time.Now()
	err := tr.AppendEntries("b", "b", heartbeat(), &raft.AppendEntriesResponse{})
	if !errors.Is(err, link.ErrNoMember) || time.Since(start) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	there := b.Transport("g")
	go serve(ctx, there, accept)
	if err := tr.AppendEntries("b", "b", heartbeat(), &raft.AppendEntriesResponse{}); err != nil {
		t.Error(err)
	}
	_ = there.(raft.WithClose).Close()
	if err := tr.AppendEntries("b", "b", heartbeat(), &raft.AppendEntriesResponse{}); !errors.Is(err, link.ErrNoMember) {
		t.Errorf("after Close: %v", err)
	}
}

// TestStuckGroupHoldsUpNobody fills one raft group whose Raft takes nothing, over the connection of
// another that works.
func TestStuckGroupHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		a, b := linkOn(t, n, "a"), linkOn(t, n, "b")
		ctx, cancel := context.WithCancel(t.Context())
		stuck := b.Transport("stuck")
		var beats atomic.Int32
		// as after Raft's shutdown, or with a disk that hangs
		stuck.SetHeartbeatHandler(func(raft.RPC) {
			beats.Add(1)
			<-ctx.Done()
		})
		go serve(ctx, b.Transport("works"), accept)
		var busy, other atomic.Int32
		var wg sync.WaitGroup
		for i := range 400 {
			wg.Go(func() {
				req := heartbeat()
				if i%2 == 0 {
					req.PrevLogEntry, req.PrevLogTerm = 1, 1
				}
				err := a.Transport("stuck").AppendEntries("b", "b", req, &raft.AppendEntriesResponse{})
				if errors.Is(err, link.ErrBusy) {
					busy.Add(1)
				} else if err != nil {
					other.Add(1)
				}
			})
		}
		for i := range 100 {
			start := time.Now()
			req := &raft.AppendEntriesRequest{Term: 1, PrevLogEntry: uint64(i), Entries: entries(i+1, 1, 100)}
			if err := a.Transport("works").AppendEntries("b", "b", req, &raft.AppendEntriesResponse{}); err != nil || time.Since(start) > time.Second {
				t.Errorf("a group that works: %v after %v", err, time.Since(start))
			}
		}
		wg.Wait()
		if busy.Load()+other.Load() != 400 || busy.Load() < 100 {
			t.Errorf("%d refused, %d failed, of 400", busy.Load(), other.Load())
		}
		if beats.Load() != 1 {
			t.Errorf("%d heartbeats at once", beats.Load())
		}
		cancel()
		closeAll(a, b)
	})
}

// TestCloseEndsRequestsUnderWay has a request wait at a node that never answers: the raft group
// here can end all the same.
func TestCloseEndsRequestsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		a, b := linkOn(t, n, "a"), linkOn(t, n, "b")
		b.Transport("g") // nobody takes what arrives
		tr := a.Transport("g")
		ended := make(chan error, 1)
		go func() { ended <- tr.AppendEntries("b", "b", heartbeat(), &raft.AppendEntriesResponse{}) }()
		synctest.Wait()
		start := time.Now()
		_ = tr.(raft.WithClose).Close()
		if err := <-ended; err == nil || time.Since(start) > time.Second {
			t.Errorf("the request ended with %v after %v", err, time.Since(start))
		}
		closeAll(a, b)
	})
}

func TestHeartbeatsDoNotWaitForTheMainLoop(t *testing.T) {
	n := peertest.New()
	a, b := linkOn(t, n, "a"), linkOn(t, n, "b")
	tr := b.Transport("g") // nobody takes from its Consumer
	tr.SetHeartbeatHandler(func(r raft.RPC) {
		if r.Command.(*raft.AppendEntriesRequest).Term == 1 {
			r.Respond(&raft.AppendEntriesResponse{Term: 1, Success: true}, nil)
		}
	})
	var resp raft.AppendEntriesResponse
	if err := a.Transport("g").AppendEntries("b", "b", heartbeat(), &resp); err != nil || !resp.Success {
		t.Errorf("%+v %v", resp, err)
	}
	unanswered := heartbeat()
	unanswered.Term = 2
	start := time.Now()
	if err := a.Transport("g").AppendEntries("b", "b", unanswered, &resp); err == nil || time.Since(start) > 8*time.Second {
		t.Errorf("a handler that does not answer: %v after %v", err, time.Since(start))
	}
	if s := b.rafts.Stats(); s.HeartbeatsIn != 2 {
		t.Errorf("%d heartbeats on the fast path", s.HeartbeatsIn)
	}
}

func TestPipelineKeepsOrderAndBound(t *testing.T) {
	n := peertest.New()
	a := linkOn(t, n, "a", func(c *raftlink.Config) { c.MaxInFlight = 3 })
	b := linkOn(t, n, "b")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	hold := make(chan struct{})
	var taken atomic.Int32
	next := uint64(1)
	go serve(ctx, b.Transport("g"), func(r raft.RPC) {
		taken.Add(1)
		<-hold
		req := r.Command.(*raft.AppendEntriesRequest)
		for _, e := range req.Entries {
			if e.Index != next || (len(e.Data) > 0 && e.Data[0] != byte(e.Index)) {
				t.Errorf("entry %d came, %d was next", e.Index, next)
			}
			next++
		}
		accept(r)
	})
	p, err := a.Transport("g").AppendEntriesPipeline("b", "b")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	// small, bulk, several messages
	sizes := []int{10, 100_000, 10, 10, 3 << 20, 10, 10, 10, 200_000, 5 << 20, 10, 10}
	sent := make(chan int, len(sizes))
	go func() {
		at := 1
		for i, size := range sizes {
			req := &raft.AppendEntriesRequest{Term: 1, PrevLogEntry: uint64(at - 1), Entries: entries(at, 3, size)}
			at += 3
			if _, err := p.AppendEntries(req, &raft.AppendEntriesResponse{}); err != nil {
				t.Errorf("request %d: %v", i, err)
			}
			sent <- i
		}
	}()
	until(t, "the first is worked on", func() bool { return taken.Load() == 1 })
	select {
	case f := <-p.Consumer():
		t.Errorf("answered before it was worked on: %v", f)
	default:
	}
	if len(sent) > 3 {
		t.Errorf("%d in flight", len(sent))
	}
	close(hold)
	at := uint64(0)
	for range sizes {
		f := <-p.Consumer()
		if err := f.Error(); err != nil || !f.Response().Success || f.Request().PrevLogEntry != at || f.Response().LastLog != at+3 || f.Start().IsZero() {
			t.Fatalf("at %d: %+v %v", at, f.Response(), err)
		}
		at += 3
	}
}

// TestBrokenPipelineIsNoContact: Raft counts every delivered future as contact, so one that failed
// with the link is not delivered.
func TestBrokenPipelineIsNoContact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		a, b := linkOn(t, n, "a"), linkOn(t, n, "b")
		defer closeAll(a, b)
		_ = b.Transport("g") // takes nothing
		p, err := a.Transport("g").AppendEntriesPipeline("b", "b")
		if err != nil {
			t.Fatal(err)
		}
		req := &raft.AppendEntriesRequest{Term: 1, Entries: entries(1, 1, 10)}
		f, err := p.AppendEntries(req, &raft.AppendEntriesResponse{})
		if err != nil {
			t.Fatal(err)
		}
		n.Cut("a", "b")
		if err := f.Error(); !errors.Is(err, link.ErrBroken) {
			t.Errorf("future: %v", err)
		}
		select {
		case <-p.Consumer():
			t.Error("a future without contact was delivered")
		default:
		}
		if _, err := p.AppendEntries(req, &raft.AppendEntriesResponse{}); err == nil {
			t.Error("a broken pipeline takes more")
		}
		_ = p.Close()
	})
}

func TestSnapshotStreamEndsWithEitherSide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		a, b := linkOn(t, n, "a"), linkOn(t, n, "b")
		defer closeAll(a, b)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var got atomic.Int64
		var readErr atomic.Bool
		var mode atomic.Int32
		go serve(ctx, b.Transport("g"), func(r raft.RPC) {
			switch mode.Load() {
			case 1: // refuses, having read all, as hashicorp/raft does
				_, _ = io.Copy(io.Discard, r.Reader)
				r.Respond(&raft.InstallSnapshotResponse{Term: 9}, errors.New("no"))
			default:
				k, err := io.Copy(io.Discard, r.Reader)
				got.Store(k)
				if err != nil {
					readErr.Store(true)
				}
				r.Respond(&raft.InstallSnapshotResponse{Term: 1, Success: err == nil}, err)
			}
		})
		send := func(size int64, data io.Reader) (raft.InstallSnapshotResponse, error) {
			var resp raft.InstallSnapshotResponse
			err := a.Transport("g").InstallSnapshot("b", "b", &raft.InstallSnapshotRequest{Term: 1, Size: size}, &resp, data)
			return resp, err
		}
		for _, size := range []int64{0, 1, 256 << 10, 20 << 20} {
			if resp, err := send(size, bytes.NewReader(make([]byte, size))); err != nil || !resp.Success || got.Load() != size {
				t.Errorf("%d bytes: %+v %v, %d read", size, resp, err, got.Load())
			}
		}
		mode.Store(1)
		if resp, err := send(10<<20, bytes.NewReader(make([]byte, 10<<20))); err == nil || errors.Is(err, link.ErrNotSent) || resp.Term != 9 {
			t.Errorf("refused: %+v %v", resp, err)
		}
		mode.Store(0)
		if _, err := send(10<<20, bytes.NewReader(make([]byte, 1<<20))); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("source too short: %v", err)
		}
		until(t, "the receiver hears of it", func() bool { return readErr.Load() })
		// The sender's source hangs, then the network.
		pr, pw := io.Pipe()
		go func() { _, _ = pw.Write(make([]byte, 1<<20)); n.Cut("a", "b"); time.Sleep(time.Minute); _ = pw.Close() }()
		if _, err := send(30<<20, pr); err == nil {
			t.Error("a cut transfer succeeded")
		}
	})
}

func TestTransportNames(t *testing.T) {
	n := peertest.New()
	a := linkOn(t, n, "a")
	tr := a.Transport("g")
	if tr.LocalAddr() != "a" || string(tr.EncodePeer("b", "b")) != "b" || tr.DecodePeer([]byte("b")) != "b" || a.Transport("g") != tr {
		t.Error("names are not identities")
	}
	_ = a.Close()
	if err := a.Transport("g").RequestVote("b", "b", &raft.RequestVoteRequest{}, &raft.RequestVoteResponse{}); err == nil {
		t.Error("a closed link sends")
	}
	if _, err := a.Transport("g").AppendEntriesPipeline("b", "b"); err == nil {
		t.Error("a closed link opens a pipeline")
	}
}
