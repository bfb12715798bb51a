package raftlink_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link/peertest"
	"github.com/trimaran-io/trimaran/cluster/raftlink"
)

// What hashicorp/raft does on both sides of a pipeline, in short, with all that can happen to it:
// appends that take long or fail, followers that are slow, have no room or lose their connection.
// Each run goes by a seed; AHEAD_SEED=n tries that one only.

// randomLeader is the leader's Raft: one main loop that stores, one goroutine that sends.
type randomLeader struct {
	trigger chan struct{}

	mu     sync.Mutex
	state  raft.RaftState
	term   uint64
	log    []*raft.Log
	commit uint64
}

func (l *randomLeader) locked(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

func (l *randomLeader) State() (s raft.RaftState)  { l.locked(func() { s = l.state }); return s }
func (l *randomLeader) CurrentTerm() (term uint64) { l.locked(func() { term = l.term }); return term }
func (l *randomLeader) CommitIndex() (i uint64)    { l.locked(func() { i = l.commit }); return i }
func (l *randomLeader) LastIndex() (i uint64) {
	l.locked(func() { i = uint64(len(l.log)) })
	return i
}
func (l *randomLeader) LeaderWithID() (raft.ServerAddress, raft.ServerID) { return "a", "a" }
func (l *randomLeader) GetConfiguration() raft.ConfigurationFuture        { return nil }
func (l *randomLeader) Barrier(time.Duration) raft.Future                 { l.wake(); return nil }

func (l *randomLeader) wake() {
	select {
	case l.trigger <- struct{}{}:
	default:
	}
}

// request is hashicorp/raft's setupAppendEntries.
func (l *randomLeader) request(term, next uint64, most int) *raft.AppendEntriesRequest {
	l.mu.Lock()
	defer l.mu.Unlock()
	req := &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("a"), Addr: []byte("a")},
		Term:      term, PrevLogEntry: next - 1, LeaderCommitIndex: l.commit,
	}
	if next > 1 {
		req.PrevLogTerm = l.log[next-2].Term
	}
	for i := next; i <= uint64(len(l.log)) && len(req.Entries) < most; i++ {
		e := *l.log[i-1]
		req.Entries = append(req.Entries, &e)
	}
	return req
}

// randomFollower takes entries as hashicorp/raft does, and notes to what it said yes.
type randomFollower struct {
	t *testing.T

	mu     sync.Mutex
	term   uint64
	log    []*raft.Log
	commit uint64
	said   map[[2]uint64]string // index and term of what it has acknowledged: the data
	refuse bool
}

func (f *randomFollower) take(r raft.RPC) {
	f.mu.Lock()
	defer f.mu.Unlock()
	req := r.Command.(*raft.AppendEntriesRequest)
	resp := &raft.AppendEntriesResponse{Term: f.term, LastLog: uint64(len(f.log))}
	defer func() { r.Respond(resp, nil) }()
	if req.Term < f.term {
		return
	}
	f.term, resp.Term = req.Term, req.Term
	if p := req.PrevLogEntry; p > 0 && (p > uint64(len(f.log)) || f.log[p-1].Term != req.PrevLogTerm) {
		return
	}
	if f.refuse && len(req.Entries) > 0 {
		f.refuse = false
		return
	}
	for _, e := range req.Entries {
		if at := e.Index - 1; at < uint64(len(f.log)) {
			if f.log[at].Term == e.Term {
				if string(f.log[at].Data) != string(e.Data) {
					f.t.Errorf("entry %d of term %d is two", e.Index, e.Term)
				}
				continue
			}
			if e.Index <= f.commit {
				f.t.Errorf("entry %d is committed, and another one in its place", e.Index)
			}
			f.log = f.log[:at]
		}
		f.log = append(f.log, &raft.Log{Index: e.Index, Term: e.Term, Data: append([]byte(nil), e.Data...)})
	}
	f.commit = max(f.commit, min(req.LeaderCommitIndex, uint64(len(f.log))))
	for _, e := range req.Entries {
		f.said[[2]uint64{e.Index, e.Term}] = string(e.Data)
	}
	resp.Success = true
}

// randomRun is one leader and one follower.
type randomRun struct {
	*testing.T
	dice   *rand.Rand
	net    *peertest.Network
	group  *raftlink.Transport
	leader *randomLeader
	f      *randomFollower

	mu      sync.Mutex
	matched uint64 // by what the leader was told in this term
	broken  bool   // something failed, and Raft has to be woken
}

const mostOfRandom = 4

// replicate is what hashicorp/raft's replicate does in one term, until ctx ends.
func (x *randomRun) replicate(ctx context.Context, term uint64) {
	next := x.leader.LastIndex() + 1
	for ctx.Err() == nil {
		select {
		case <-x.leader.trigger:
		case <-ctx.Done():
			return
		}
		for last := x.leader.LastIndex(); ctx.Err() == nil; {
			req := x.leader.request(term, next, mostOfRandom)
			var resp raft.AppendEntriesResponse
			if err := x.group.AppendEntries("b", "b", req, &resp); err != nil {
				time.Sleep(10 * time.Millisecond)
				continue
			}
			if !resp.Success {
				next = max(min(next-1, resp.LastLog+1), 1)
				continue
			}
			if n := len(req.Entries); n > 0 {
				next = req.Entries[n-1].Index + 1
				x.match(req)
			}
			if next > last {
				break
			}
		}
		if ctx.Err() == nil {
			next = x.pipeline(ctx, term, next)
		}
	}
}

// pipeline is hashicorp/raft's pipelineReplicate; it gives where to go on.
func (x *randomRun) pipeline(ctx context.Context, term, next uint64) uint64 {
	p, err := x.group.AppendEntriesPipeline("b", "b")
	if err != nil {
		return next
	}
	defer func() { _ = p.Close() }()
	matched, finished, stop := next, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(finished)
		for {
			select {
			case f := <-p.Consumer():
				if !f.Response().Success {
					return
				}
				if n := len(f.Request().Entries); n > 0 {
					x.match(f.Request())
					matched = f.Request().Entries[n-1].Index + 1
				}
			case <-stop:
				return
			}
		}
	}()
	idle := time.NewTimer(5 * time.Second)
	defer idle.Stop()
	for over := false; !over; {
		select {
		case <-finished:
			over = true
			continue
		case <-ctx.Done():
			over = true
			continue
		case <-x.leader.trigger:
		case <-idle.C:
			idle.Reset(5 * time.Second)
		}
		req := x.leader.request(term, next, mostOfRandom)
		if _, err := p.AppendEntries(req, new(raft.AppendEntriesResponse)); err != nil {
			break
		}
		if n := len(req.Entries); n > 0 {
			next = req.Entries[n-1].Index + 1
		}
	}
	close(stop)
	<-finished
	x.mu.Lock()
	x.broken = true
	x.mu.Unlock()
	return matched
}

// match is what Raft is told that the follower has.
func (x *randomRun) match(req *raft.AppendEntriesRequest) {
	x.f.mu.Lock()
	for _, e := range req.Entries {
		if data, said := x.f.said[[2]uint64{e.Index, e.Term}]; !said {
			x.Errorf("Raft is told of entry %d of term %d, to which the follower has not said yes", e.Index, e.Term)
		} else if data != string(e.Data) {
			x.Errorf("Raft is told of entry %d of term %d, which is another one", e.Index, e.Term)
		}
	}
	x.f.mu.Unlock()
	if last := req.Entries[len(req.Entries)-1].Index; last > x.leader.LastIndex() {
		x.Errorf("Raft is told of entry %d, and has %d", last, x.leader.LastIndex())
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.matched = max(x.matched, req.Entries[len(req.Entries)-1].Index)
	x.leader.locked(func() {
		if m := min(x.matched, uint64(len(x.leader.log))); x.leader.term == req.Term && m > 0 && x.leader.log[m-1].Term == req.Term {
			x.leader.commit = max(x.leader.commit, m)
		}
	})
}

// term leads one term: it proposes until its disk has no room.
func (x *randomRun) term(term uint64, proposals int) {
	ctx, cancel := context.WithCancel(x.Context())
	var ended sync.WaitGroup
	x.leader.locked(func() { x.leader.state, x.leader.term = raft.Leader, term })
	x.mu.Lock()
	x.matched, x.broken = 0, false
	x.mu.Unlock()
	ended.Go(func() { x.replicate(ctx, term) })
	defer func() {
		x.leader.locked(func() { x.leader.state = raft.Follower })
		cancel()
		ended.Wait()
	}()
	x.store(term, raft.LogNoop, 0)
	for range proposals {
		switch x.dice.IntN(30) {
		case 0:
			x.net.Break("a", "b")
		case 1:
			x.f.mu.Lock()
			x.f.refuse = true
			x.f.mu.Unlock()
		case 2, 3, 4:
			x.quiet()
		}
		if x.dice.IntN(3) == 0 {
			time.Sleep(time.Duration(x.dice.IntN(30)) * time.Millisecond)
		}
		kind := raft.LogCommand
		if x.dice.IntN(12) == 0 {
			kind = raft.LogBarrier
		}
		if !x.store(term, kind, 25) {
			return
		}
	}
	x.quiet()
}

// store is hashicorp/raft's dispatchLogs; it fails once in so many times; 0: never.
func (x *randomRun) store(term uint64, kind raft.LogType, fails int) bool {
	last := x.leader.LastIndex()
	var logs []*raft.Log
	for i := range 1 + x.dice.IntN(3) {
		size := x.dice.IntN(100)
		if x.dice.IntN(10) == 0 {
			size = 300 << 10
		}
		data := append([]byte(fmt.Sprintf("%d of %d: %d ", last+1+uint64(i), term, x.dice.Uint64())), make([]byte, size)...)
		logs = append(logs, &raft.Log{Index: last + 1 + uint64(i), Term: term, Type: kind, Data: data})
		kind = raft.LogCommand
	}
	x.group.Ahead(logs)
	switch x.dice.IntN(8) {
	case 0:
		time.Sleep(time.Duration(x.dice.IntN(500)) * time.Millisecond)
	case 1, 2, 3:
		time.Sleep(time.Duration(x.dice.IntN(8)) * time.Millisecond)
	}
	if fails > 0 && x.dice.IntN(fails) == 0 {
		return false
	}
	x.leader.locked(func() { x.leader.log = append(x.leader.log, logs...) })
	x.leader.wake()
	return true
}

// quiet waits until all is told; Raft is woken only where something failed, or where it sends less
// than there is.
func (x *randomRun) quiet() {
	for until := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		x.mu.Lock()
		matched, broken := x.matched, x.broken
		x.broken = false
		x.mu.Unlock()
		if matched == x.leader.LastIndex() {
			return
		}
		if broken {
			x.leader.wake()
		}
		if time.Now().After(until) {
			x.Fatalf("entry %d is stored, and Raft was told up to %d only", x.leader.LastIndex(), matched)
		}
	}
}

// TestWhatGoesAheadAtRandom: whatever happens, Raft is told only of what the follower has said yes
// to, hears of everything in the end, and no entry of one index and term is two.
func TestWhatGoesAheadAtRandom(t *testing.T) {
	first, runs := uint64(1), uint64(6)
	if n, err := strconv.ParseUint(os.Getenv("AHEAD_SEED"), 10, 64); err == nil {
		first, runs = n, 1
	}
	if n, err := strconv.ParseUint(os.Getenv("AHEAD_RUNS"), 10, 64); err == nil {
		runs = n
	}
	var ahead, used uint64
	for seed := first; seed < first+runs; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := &randomRun{T: t, dice: rand.New(rand.NewPCG(seed, 1)), net: peertest.New()}
				host := &says{}
				host.instance.Store(7)
				a := startOn(t, x.net, "a", raftlink.Config{MaxAppendEntries: mostOfRandom}, host)
				b := linkOn(t, x.net, "b")
				defer closeAll(a, b)
				x.net.Delay("a", "b", time.Duration(x.dice.IntN(5))*time.Millisecond)
				x.f = &randomFollower{t: t, said: map[[2]uint64]string{}}
				ctx, cancel := context.WithCancel(t.Context())
				var served sync.WaitGroup
				defer served.Wait()
				defer cancel()
				slow := rand.New(rand.NewPCG(seed, 2))
				served.Go(func() {
					serve(ctx, b.Transport("g"), func(r raft.RPC) {
						switch slow.IntN(6) {
						case 0:
							time.Sleep(time.Duration(slow.IntN(200)) * time.Millisecond)
						case 1, 2:
							time.Sleep(time.Duration(slow.IntN(5)) * time.Millisecond)
						}
						x.f.take(r)
					})
				})
				x.leader = &randomLeader{trigger: make(chan struct{}, 1)}
				x.group = a.rafts.Open("g", nil)
				x.group.Attach(x.leader)
				for term := range uint64(8) {
					x.term(term+1, 30)
				}
				s := a.rafts.Stats()
				ahead, used = ahead+s.Ahead, used+s.AheadUsed
			})
		})
	}
	if ahead == 0 || used == 0 {
		t.Errorf("%d were sent ahead, %d were of use", ahead, used)
	}
	t.Logf("%d were sent ahead, %d were of use", ahead, used)
}
