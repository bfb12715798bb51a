package election_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/election"
)

// dice are random numbers for several goroutines.
type dice struct {
	mu sync.Mutex
	r  *rand.Rand
}

func newDice(seed uint64) *dice { return &dice{r: rand.New(rand.NewPCG(seed, 7))} }

func (d *dice) n(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(n)
}

// in is true in per of 1000 cases.
func (d *dice) in(per int) bool { return d.n(1000) < per }

func (d *dice) upTo(most time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Duration(d.r.Int64N(int64(most)))
}

// rates are how many of 1000 messages of Raft something happens to.
type rates struct {
	lost     int // it never arrives
	unheard  int // it arrives, its answer does not
	late     int // it waits up to maxLate first, so that others overtake it
	overdue  int // its answer waits up to maxLate, so that others overtake that
	repeated int // it arrives once more, up to maxLate later
	hangs    int // the disk takes up to maxLate for what it carries, or for what is proposed
	full     int // a leader's disk has no room for what is proposed
}

const maxLate = 3 * time.Second

var errLost = errors.New("lost on the way")

// faulty is the link's transport of a raft group on a network that mistreats Raft's messages. What
// TCP does to bytes is the business of peertest; here whole messages are lost, late, out of order
// and doubled, as they are when connections break and requests are sent again.
type faulty struct {
	*election.Member
	node  string
	group string
	c     *checker
	dice  *dice
	stop  chan struct{}
	wg    *sync.WaitGroup

	mu    sync.Mutex
	rates rates
}

func (f *faulty) set(r rates) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rates = r
}

func (f *faulty) now() rates {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rates
}

// wait is false if the node ends meanwhile.
func (f *faulty) wait(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-f.stop:
		return false
	}
}

// pass sends a message, or does what happens to it. again sends a copy of it.
func (f *faulty) pass(send func() error, again func()) error {
	r := f.now()
	if f.dice.in(r.lost) {
		return errLost
	}
	if f.dice.in(r.late) && !f.wait(f.dice.upTo(maxLate)) {
		return errLost
	}
	if f.dice.in(r.repeated) && again != nil {
		d := f.dice.upTo(maxLate)
		f.wg.Go(func() {
			if f.wait(d) {
				again()
			}
		})
	}
	err := send()
	if f.dice.in(r.unheard) || f.dice.in(r.overdue) && !f.wait(f.dice.upTo(maxLate)) {
		return errLost
	}
	return err
}

// copied is a request that Raft may use again.
func copied(args *raft.AppendEntriesRequest) *raft.AppendEntriesRequest {
	c := *args
	c.Entries = slices.Clone(args.Entries)
	return &c
}

func (f *faulty) AppendEntries(id raft.ServerID, addr raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	f.c.leads(f.group, f.node, args.Term)
	kept := copied(args)
	return f.pass(func() error { return f.Member.AppendEntries(id, addr, args, resp) }, func() {
		_ = f.Member.AppendEntries(id, addr, kept, new(raft.AppendEntriesResponse))
	})
}

func (f *faulty) RequestVote(id raft.ServerID, addr raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	kept := *args
	return f.pass(func() error { return f.Member.RequestVote(id, addr, args, resp) }, func() {
		_ = f.Member.RequestVote(id, addr, &kept, new(raft.RequestVoteResponse))
	})
}

func (f *faulty) RequestPreVote(id raft.ServerID, addr raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return f.pass(func() error { return f.Member.RequestPreVote(id, addr, args, resp) }, nil)
}

func (f *faulty) TimeoutNow(id raft.ServerID, addr raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return f.pass(func() error { return f.Member.TimeoutNow(id, addr, args, resp) }, func() {
		_ = f.Member.TimeoutNow(id, addr, args, new(raft.TimeoutNowResponse))
	})
}

func (f *faulty) InstallSnapshot(id raft.ServerID, addr raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	f.c.leads(f.group, f.node, args.Term)
	err := f.pass(func() error { return f.Member.InstallSnapshot(id, addr, args, resp, data) }, nil)
	// Raft sends one again at once when the follower has it and does not take what comes behind it.
	if err == nil && resp.Success && f.c.again(f.group, string(id), args.LastLogIndex) {
		f.wait(time.Second)
	}
	return err
}

func (f *faulty) AppendEntriesPipeline(id raft.ServerID, addr raft.ServerAddress) (raft.AppendPipeline, error) {
	if f.dice.in(f.now().lost) {
		return nil, errLost
	}
	p, err := f.Member.AppendEntriesPipeline(id, addr)
	if err != nil {
		return nil, err
	}
	fp := &faultyPipeline{AppendPipeline: p, f: f, id: id, addr: addr, answers: make(chan raft.AppendFuture, 128), closed: make(chan struct{})}
	f.wg.Go(fp.hold)
	return fp, nil
}

// faultyPipeline is a pipeline that ends where a message is lost: it is a connection.
type faultyPipeline struct {
	raft.AppendPipeline
	f       *faulty
	id      raft.ServerID
	addr    raft.ServerAddress
	answers chan raft.AppendFuture
	once    sync.Once
	closed  chan struct{}
}

// hold passes answers on in their order, some of them late.
func (p *faultyPipeline) hold() {
	for {
		select {
		case a := <-p.AppendPipeline.Consumer():
			if p.f.dice.in(p.f.now().overdue) {
				select {
				case <-time.After(p.f.dice.upTo(maxLate)):
				case <-p.closed:
					return
				}
			}
			select {
			case p.answers <- a:
			case <-p.closed:
				return
			}
		case <-p.closed:
			return
		}
	}
}

func (p *faultyPipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

func (p *faultyPipeline) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.AppendPipeline.Close()
}

func (p *faultyPipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (future raft.AppendFuture, err error) {
	p.f.c.leads(p.f.group, p.f.node, args.Term)
	kept := copied(args)
	err = p.f.pass(func() error {
		future, err = p.AppendPipeline.AppendEntries(args, resp)
		return err
	}, func() {
		_ = p.f.Member.AppendEntries(p.id, p.addr, kept, new(raft.AppendEntriesResponse))
	})
	return future, err
}

// keptSnapshots keeps the newest snapshot that was finished, as a disk does: that of raft's own
// store in memory is gone when a node ends while it takes the next one.
type keptSnapshots struct {
	mu    sync.Mutex
	meta  *raft.SnapshotMeta
	state []byte
}

type keptSink struct {
	bytes.Buffer
	of   *keptSnapshots
	meta raft.SnapshotMeta
}

func (k *keptSnapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, at uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &keptSink{of: k, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprint(term, "-", index), Index: index, Term: term, Configuration: configuration, ConfigurationIndex: at,
	}}, nil
}

func (k *keptSnapshots) List() ([]*raft.SnapshotMeta, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.meta == nil {
		return nil, nil
	}
	return []*raft.SnapshotMeta{k.meta}, nil
}

func (k *keptSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.meta == nil || k.meta.ID != id {
		return nil, nil, errors.New("another snapshot")
	}
	return k.meta, io.NopCloser(bytes.NewReader(k.state)), nil
}

func (s *keptSink) ID() string    { return s.meta.ID }
func (s *keptSink) Cancel() error { return nil }

func (s *keptSink) Close() error {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.meta.Size = int64(s.Len())
	s.of.meta, s.of.state = &s.meta, s.Bytes()
	return nil
}
