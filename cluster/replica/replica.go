package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/outcome"
)

// Replica is this node's member of one of the groups that the catalog places: a
// partition's or a shard's of consumer groups. It is what both have in common: the
// Raft group, its log, and who leads.
type Replica struct {
	ID      fsm.PartitionID
	env     *environment
	keeper  keeper
	machine machine
	begin   *beginning // what the group is formed with; nil: as any other

	// Member and Log are set once, before the replica is handed out; the machine may
	// be applied to from the moment Raft runs, which is after Log is set.
	Member *raftgroup.Member
	Log    *raftlog.PartitionLog

	applied appliedTo

	// mu guards what follows, and the fields of the machine. Under it Raft may be asked what it has
	// in memory (its state, term and leader), and the state machine changes; nothing is read from
	// or written to a disk, asked of Raft's main loop or of another node, or waited for, and no
	// other lock is taken. The locks that may be held when it is taken are copying and a proposer's
	// producersMu.
	mu      locks.Mutex[Replica]
	leading Leader        // non-nil while this replica leads and has passed its barrier
	changed chan struct{} // closed and replaced whenever the known leader or leading changes
	everLed bool          // a leader was known once
	newer   error         // what a newer program wrote was met: nothing behind it is applied

	adopt     *raftlog.Staging // copied from the leader, to be taken over when Raft is down
	held      uint64           // segments from this index on are copied by someone
	heldUntil time.Time
	catchUp   progress

	// capacity 1: taken by who changes the group's members, from the look at them on
	changing chan struct{}
	// copying is held by who stages entries, over disk and network, so only TryLock may be called
	// but by close; never free again once the replica is closed. mu may be taken under it.
	copying     locks.Slow[replicaCopying]
	closing     context.Context
	stopCopying context.CancelFunc

	rest         atomic.Pointer[rest] // nil: there may be something to do
	lastSnapshot time.Time            // when the last was tried; owned by who does the housekeeping

	stop    context.CancelFunc
	stopped sync.WaitGroup
}

// replicaCopying is the class of a replica's copying.
type replicaCopying struct{}

// machine is the state machine of a replica's group, and what of a replica depends
// on which it is: records of a partition, or shard of consumer groups.
type machine interface {
	raft.FSM

	// lead begins what a leader does in a term.
	lead(term fsm.Term) Leader
	// bounds gives the first offset and the next one; a shard counts entries.
	Bounds() (start, next fsm.Offset)
	// logOptions says how the log is kept.
	logOptions() raftlog.LogOptions
	// fits reports whether a snapshot that another node sent is one of this machine,
	// at the offset that its log leads to.
	fits(state []byte, next int64) error
	// needs says what housekeeping has to keep; the error, that it is to be left alone
	// this time.
	needs() (keeping, error)
	// retain has the group agree on what it lets go, if this replica leads. share: also
	// what it would like to keep, since the disk is too full.
	retain(share bool)
}

// keeping is what a replica needs of its log.
type keeping struct {
	from  int64 // offset of what is first needed
	every int64 // bytes behind the last snapshot after which the next is taken
	// entry: the entry of the snapshot stays in the log.
	entry bool
	// upTo: a snapshot should have the entry of that index soon.
	upTo uint64
}

// Leader is what a replica does while it leads.
type Leader interface {
	InTerm() fsm.Term
	ready() bool            // the barrier is behind it
	failed() bool           // it has to be ended, and begun anew if the node still leads
	turns() <-chan struct{} // told when ready or failed became true
	end()                   // returns when everything it proposed has its fate
	abandon()               // fails, and who waits for a fate hears that nobody knows it
}

// leadership is a leader's time in office, which has the number of its term, for those who embed
// it.
type leadership struct {
	replica *Replica
	term    fsm.Term

	ctx    context.Context // ends when nothing more is taken
	cancel context.CancelFunc
	turned chan struct{}

	isReady  atomic.Bool
	isFailed atomic.Bool

	abandoned chan struct{} // closed by abandon
	once      sync.Once     // of that

	done sync.WaitGroup
}

func newLeadership(r *Replica, term fsm.Term) *leadership {
	t := &leadership{replica: r, term: term, turned: make(chan struct{}, 1), abandoned: make(chan struct{})}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

func (l *leadership) InTerm() fsm.Term       { return l.term }
func (l *leadership) ready() bool            { return l.isReady.Load() }
func (l *leadership) failed() bool           { return l.isFailed.Load() }
func (l *leadership) turns() <-chan struct{} { return l.turned }

func (l *leadership) turn() {
	select {
	case l.turned <- struct{}{}:
	default:
	}
}

// begin says that the leader may speak for its group.
func (l *leadership) begin() {
	l.isReady.Store(true)
	l.turn()
}

// fail makes the leader take nothing more.
func (l *leadership) fail() {
	l.isFailed.Store(true)
	l.cancel()
	l.turn()
}

func (l *leadership) abandon() {
	l.fail()
	l.once.Do(func() { close(l.abandoned) })
}

// barrier returns true when whatever was committed before this term is applied
// here. If the term has moved on meanwhile, what is proposed as its leader is void
// or refused, so that check only saves the trouble.
func (l *leadership) barrier() bool {
	g := l.replica.Member
	r := g.Raft
	for {
		err := g.Await(r.Barrier(0))
		if !errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			return err == nil && r.State() == raft.Leader && fsm.Term(r.CurrentTerm()) == l.term
		}
		// Raft refuses at once, and whoever began anew at once would do nothing else until the
		// transfer has ended.
		select {
		case <-time.After(transferPause):
		case <-l.ctx.Done():
			return false
		}
	}
}

// transferPause is how long a new leader's barrier waits that Raft refuses since it hands
// leadership over: that takes some round trips, or fails.
const transferPause = 10 * time.Millisecond

// notLeader is an error that says what the replica knows of the leader.
func (l *leadership) notLeader() error {
	h, _ := l.replica.Leader()
	return raftgroup.NotLeader{Hint: h}
}

// proposalError says what an error of raft.Apply means for what was proposed.
func (l *leadership) proposalError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		// Raft refused it before it was written.
		return l.notLeader()
	default:
		// Leadership lost, shutdown, a store error: another leader may have it, now or later.
		return fmt.Errorf("%w: %w", outcome.ErrUnknownFate, err)
	}
}

// newReplica makes a replica that is not started.
func newReplica(env *environment, keeper keeper, id fsm.PartitionID) *Replica {
	r := &Replica{ID: id, env: env, keeper: keeper, lastSnapshot: time.Now(), changed: make(chan struct{}), changing: make(chan struct{}, 1)}
	r.closing, r.stopCopying = context.WithCancel(context.Background())
	if id.Topic == fsm.GroupShardsID {
		r.machine = newShard(r)
	} else {
		r.machine = newRecords(r)
	}
	return r
}

// start begins to watch leadership; group has been opened with r.machine.
func (r *Replica) start(g *raftgroup.Member) {
	ctx, cancel := context.WithCancel(context.Background())
	r.Member, r.stop = g, cancel
	r.stopped.Add(1)
	go func() {
		defer r.stopped.Done()
		r.watch(ctx)
	}()
}

// Close ends the leadership, the group and the watch, and takes over what was
// copied, if anything. Appends under way end with an error.
func (r *Replica) Close() error {
	r.stop()
	r.stopCopying()
	err := r.Member.Stop()
	r.stopped.Wait()
	r.copying.Lock() // whoever stages entries is done
	r.mu.Lock()
	staging := r.adopt
	r.adopt = nil
	r.mu.Unlock()
	if staging != nil {
		if aerr := r.Log.Adopt(staging); aerr != nil {
			staging.Close()
			err = errors.Join(err, aerr)
		}
	}
	return errors.Join(err, r.Log.Close())
}

// watch begins a leadership for every term in which this replica leads, and
// tells those who wait that the leader changed.
func (r *Replica) watch(ctx context.Context) {
	var current Leader
	endCurrent := func() {
		if current != nil {
			current.end()
			current = nil
		}
	}
	defer endCurrent()
	for {
		identity, term := r.Member.Leader()
		leads := r.Member.Raft.State() == raft.Leader && identity == r.env.Identity
		if current != nil && (!leads || current.InTerm() != fsm.Term(term) || current.failed()) {
			r.mu.Lock()
			r.leading = nil
			r.mu.Unlock()
			endCurrent() // returns when everything it proposed has its fate
		}
		if leads && current == nil {
			current = r.machine.lead(fsm.Term(term))
		}
		r.mu.Lock()
		if current != nil && current.ready() {
			r.leading = current
		}
		r.everLed = r.everLed || identity != ""
		close(r.changed)
		r.changed = make(chan struct{})
		r.mu.Unlock()

		var turned <-chan struct{}
		if current != nil {
			turned = current.turns()
		}
		select {
		case <-ctx.Done():
			r.mu.Lock()
			r.leading = nil
			r.mu.Unlock()
			return
		case <-r.Member.Observations:
		case <-turned:
		}
	}
}

// Leader gives what this replica knows of the leader, and a channel that is
// closed when that may have changed.
func (r *Replica) Leader() (raftgroup.Hint, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	identity, term := r.Member.Leader()
	if identity == r.env.Identity && r.Member.Stuck() {
		identity = "" // others may lead by now, and Raft here does not hear of it
	}
	return raftgroup.Hint{Identity: identity, Term: term}, r.changed
}

// Records gives what a partition's replica can do, nil for another's.
func (r *Replica) Records() *Records {
	m, _ := r.machine.(*Records)
	return m
}

// Shard gives what the replica of a shard of consumer groups can do, nil for another's.
func (r *Replica) Shard() *Shard {
	m, _ := r.machine.(*Shard)
	return m
}

// CatchUp says how far the copying from the leader is, nil if nothing is copied.
func (r *Replica) CatchUp() *admin.CatchUpStatus { return r.catchUp.status() }

// WasLed reports whether a leader of the group was known once.
func (r *Replica) WasLed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.everLed
}

// Leads gives the leader if this replica leads, has passed its barrier and so
// may speak for the group (invariant 8), else raftgroup.NotLeader.
func (r *Replica) Leads() (Leader, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leading == nil || r.Member.Stuck() {
		identity, term := r.Member.Leader()
		if identity == r.env.Identity {
			identity = "" // elected, and not yet past the barrier
		}
		return nil, raftgroup.NotLeader{Hint: raftgroup.Hint{Identity: identity, Term: term}}
	}
	return r.leading, nil
}

// barrierPatience is how long a call of another node waits for a barrier.
const barrierPatience = 250 * time.Millisecond

// Settle returns when this replica is not between its election and the end of its barrier: at once,
// after that, or after barrierPatience. A node hears of a new leader by the entry that the barrier
// is about, so its first call comes too early, and to ask again costs it a pause.
func (r *Replica) Settle(ctx context.Context) {
	locks.MayWait("a barrier")
	var patience *time.Timer // most calls need none
	for {
		r.mu.Lock()
		identity, _ := r.Member.Leader()
		between, changed := identity == r.env.Identity && r.leading == nil && !r.Member.Stuck(), r.changed
		r.mu.Unlock()
		if !between {
			return
		}
		if patience == nil {
			patience = time.NewTimer(barrierPatience)
			defer patience.Stop()
		}
		select {
		case <-changed:
		case <-patience.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// Abandon ends what this replica does as a leader, without waiting for anything: Raft cannot get
// on.
func (r *Replica) Abandon() {
	r.mu.Lock()
	leading := r.leading
	r.leading = nil
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	if leading != nil {
		leading.abandon()
	}
}

// Bounds gives the first and the next offset of the state machine.
func (r *Replica) Bounds() (start, next fsm.Offset) { return r.machine.Bounds() }

// replicaSnapshot is the state of a replica's machine and what its log knew then.
type replicaSnapshot struct {
	state raftgroup.SnapshotBytes
	at    raftlog.Standing
}

// Persist implements raft.FSMSnapshot.
func (s replicaSnapshot) Persist(sink raft.SnapshotSink) error {
	if own, ok := sink.(*raftlog.Sink); ok {
		own.SetStanding(s.at)
	}
	_, err := sink.Write(s.state)
	return err // Raft closes the sink
}

// Release implements raft.FSMSnapshot.
func (s replicaSnapshot) Release() {}
