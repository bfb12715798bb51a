package peer_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"github.com/trimaran-io/trimaran/cluster/peer"
)

// rates says how often a request from one node to another suffers what.
type rates struct {
	drop  float64 // it is not delivered, the sender gets an error
	lose  float64 // it is delivered, the sender gets an error
	late  float64 // the sender gets an error, and it is delivered afterwards, behind what came later
	twice float64 // it is delivered again afterwards
	slow  float64 // it is delivered after a while, and others overtake it
	most  time.Duration
}

// weather holds the rates of all pairs of nodes and makes the choices, by a source of its own for each pair and group.
type weather struct {
	seed  uint64
	check *checker

	wg sync.WaitGroup // requests that are on their way without their sender

	mu    sync.Mutex
	pairs map[[2]string]rates
	dice  map[[3]string]*rand.Rand
}

func newWeather(seed uint64, c *checker) *weather {
	return &weather{seed: seed, check: c, pairs: map[[2]string]rates{}, dice: map[[3]string]*rand.Rand{}}
}

func (w *weather) set(from, to string, r rates) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pairs[[2]string{from, to}] = r
}

func (w *weather) clear() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.pairs)
}

// fate is what happens to one request.
type fate struct {
	drop, lose, late, twice bool
	wait, again             time.Duration
}

func (w *weather) fate(group, from, to string) (f fate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r, ok := w.pairs[[2]string{from, to}]
	if !ok {
		return f
	}
	key := [3]string{group, from, to}
	d := w.dice[key]
	if d == nil {
		d = rand.New(rand.NewPCG(w.seed, mix(group, from, to)))
		w.dice[key] = d
	}
	x := d.Float64()
	for _, c := range []struct {
		p  float64
		is *bool
	}{{r.drop, &f.drop}, {r.lose, &f.lose}, {r.late, &f.late}, {r.twice, &f.twice}} {
		if x -= c.p; x < 0 {
			*c.is = true
			break
		}
	}
	if d.Float64() < r.slow {
		f.wait = time.Duration(d.Float64() * float64(r.most))
	}
	f.again = time.Duration(d.Float64() * d.Float64() * float64(20*r.most))
	return f
}

var (
	errDropped = errors.New("chaos: the request was dropped")
	errLost    = errors.New("chaos: the answer was lost")
)

// stormy is a group's transport under that weather: it is everything that the link's is, Vouch included.
type stormy struct {
	*peer.GroupTransport
	w           *weather
	group, node string
	installs    func(to string, index uint64) // is told of every snapshot that was sent
}

var (
	_ raft.Transport   = (*stormy)(nil)
	_ raft.WithPreVote = (*stormy)(nil)
	_ raft.WithClose   = (*stormy)(nil)
)

// rpc sends one request through the weather. Requests that arrive again or late carry on when their sender has long
// gone on, so each gets a copy and an answer of its own that nobody looks at.
func rpc[Q, R any](s *stormy, to raft.ServerID, args *Q, resp *R, call func(*Q, *R) error) error {
	f := s.w.fate(s.group, s.node, string(to))
	time.Sleep(f.wait)
	if f.drop {
		return errDropped
	}
	if f.late || f.twice {
		copied := *args
		s.w.wg.Go(func() {
			time.Sleep(f.again)
			_ = call(&copied, new(R))
		})
	}
	if f.late {
		return errDropped
	}
	if f.lose {
		if err := call(args, new(R)); err != nil {
			return err
		}
		return errLost
	}
	return call(args, resp)
}

// leads tells the checker what a request shows that only a leader sends.
func (s *stormy) leads(term uint64, how string) { s.w.check.claim(s.group, term, s.node, how) }

// AppendEntries implements raft.Transport.
func (s *stormy) AppendEntries(id raft.ServerID, addr raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	s.leads(args.Term, "AppendEntries")
	began, term, entries := time.Now(), args.Term, len(args.Entries) > 0
	err := rpc(s, id, args, resp, func(q *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) error {
		return s.GroupTransport.AppendEntries(id, addr, q, r)
	})
	if err == nil && resp.Success {
		s.w.check.answered(s.group, answer{s.node, term, began, time.Now(), entries})
	}
	return err
}

// RequestVote implements raft.Transport.
func (s *stormy) RequestVote(id raft.ServerID, addr raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return rpc(s, id, args, resp, func(q *raft.RequestVoteRequest, r *raft.RequestVoteResponse) error {
		return s.GroupTransport.RequestVote(id, addr, q, r)
	})
}

// RequestPreVote implements raft.WithPreVote.
func (s *stormy) RequestPreVote(id raft.ServerID, addr raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return rpc(s, id, args, resp, func(q *raft.RequestPreVoteRequest, r *raft.RequestPreVoteResponse) error {
		return s.GroupTransport.RequestPreVote(id, addr, q, r)
	})
}

// TimeoutNow implements raft.Transport.
func (s *stormy) TimeoutNow(id raft.ServerID, addr raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return rpc(s, id, args, resp, func(q *raft.TimeoutNowRequest, r *raft.TimeoutNowResponse) error {
		return s.GroupTransport.TimeoutNow(id, addr, q, r)
	})
}

// InstallSnapshot implements raft.Transport. It is not delivered late: hashicorp/raft takes every snapshot of its
// term, also one that ends before what it has applied since and after the beginning of its log, and
// then panics because entries are missing between the two. The link does not let a request
// outlive its session either. Again means at once, before the sender goes on.
func (s *stormy) InstallSnapshot(id raft.ServerID, addr raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	s.leads(args.Term, "InstallSnapshot")
	b, err := io.ReadAll(data)
	if err != nil {
		return err
	}
	send := func(resp *raft.InstallSnapshotResponse) error {
		time.Sleep(10 * time.Millisecond) // else a leader that sends one without end would end virtual time
		defer s.installs(string(id), args.LastLogIndex)
		return s.GroupTransport.InstallSnapshot(id, addr, args, resp, bytes.NewReader(b))
	}
	f := s.w.fate(s.group, s.node, string(id))
	s.w.check.event("%s: %s sends %s a snapshot up to %d: %+v", s.group, s.node, id, args.LastLogIndex, f)
	time.Sleep(f.wait)
	switch {
	case f.drop || f.late:
		return errDropped
	case f.lose:
		if err := send(new(raft.InstallSnapshotResponse)); err != nil {
			return err
		}
		return errLost
	case f.twice:
		if err := send(new(raft.InstallSnapshotResponse)); err != nil {
			return err
		}
	}
	return send(resp)
}

// AppendEntriesPipeline implements raft.Transport.
func (s *stormy) AppendEntriesPipeline(id raft.ServerID, addr raft.ServerAddress) (raft.AppendPipeline, error) {
	if f := s.w.fate(s.group, s.node, string(id)); f.drop {
		return nil, errDropped
	}
	p, err := s.GroupTransport.AppendEntriesPipeline(id, addr)
	if err != nil {
		return nil, err
	}
	return &stormyPipeline{p, s, id, addr}, nil
}

// stormyPipeline is a pipeline under the weather. Its requests arrive in order, as Raft demands of a pipeline, or it
// ends: what is dropped, late or unanswered ends it. Late and again they come beside the pipeline.
type stormyPipeline struct {
	raft.AppendPipeline
	s    *stormy
	id   raft.ServerID
	addr raft.ServerAddress
}

func (p *stormyPipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	s := p.s
	s.leads(args.Term, "AppendEntries")
	f := s.w.fate(s.group, s.node, string(p.id))
	time.Sleep(f.wait)
	if f.drop {
		return nil, errDropped
	}
	if f.late || f.twice {
		copied := *args
		s.w.wg.Go(func() {
			time.Sleep(f.again)
			_ = s.GroupTransport.AppendEntries(p.id, p.addr, &copied, new(raft.AppendEntriesResponse))
		})
	}
	if f.late {
		return nil, errDropped
	}
	future, err := p.AppendPipeline.AppendEntries(args, resp)
	if err != nil {
		return nil, err
	}
	s.w.wg.Go(func() {
		if future.Error() == nil && future.Response().Success {
			s.w.check.answered(s.group, answer{s.node, args.Term, future.Start(), time.Now(), len(args.Entries) > 0})
		}
	})
	if f.lose {
		_ = p.Close()
		return nil, errLost
	}
	return future, nil
}
