package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// replica is this node's member of one of the groups that the catalog places: a
// partition's or a shard's of consumer groups. It is what both have in common: the
// Raft group, its log, and who leads.
//
// Lock order: none is taken while mu is held.
type replica struct {
	id      fsm.PartitionID
	node    *Node
	self    string
	machine machine

	// group and log are set once, before the replica is handed out; the machine may
	// be applied to from the moment Raft runs, which is after log is set.
	group *group
	log   *raftlog.PartitionLog

	applied appliedTo

	mu      sync.Mutex
	leading leadership    // non-nil while this replica leads and has passed its barrier
	changed chan struct{} // closed and replaced whenever the known leader or leading changes
	everLed bool          // a leader was known once
	newer   error         // what a newer program wrote was met: nothing behind it is applied

	adopt     *raftlog.Staging // copied from the leader, to be taken over when Raft is down
	held      uint64           // segments from this index on are copied by someone
	heldUntil time.Time
	catchUp   progress

	changing    chan struct{} // capacity 1: taken by who changes the group's members, from the look at them on
	copying     sync.Mutex    // held by who stages entries; never free again once the replica is closed
	closing     context.Context
	stopCopying context.CancelFunc

	rest         atomic.Pointer[rest] // nil: there may be something to do
	lastSnapshot time.Time            // when the last was tried; owned by who does the housekeeping

	stop    context.CancelFunc
	stopped sync.WaitGroup
}

// machine is the state machine of a replica's group, and what of a replica depends
// on which it is: records of a partition, or shard of consumer groups.
type machine interface {
	raft.FSM

	// lead begins what a leader does in a term.
	lead(term fsm.Term) leadership
	// bounds gives the first offset and the next one; a shard counts entries.
	bounds() (start, next fsm.Offset)
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
}

// leadership is what a replica does while it leads.
type leadership interface {
	inTerm() fsm.Term
	ready() bool            // the barrier is behind it
	failed() bool           // it has to be ended, and begun anew if the node still leads
	turns() <-chan struct{} // told when ready or failed became true
	end()                   // returns when everything it proposed has its fate
	abandon()               // fails, and who waits for a fate hears that nobody knows it
}

// tenure is the term of a leadership, for those who embed it.
type tenure struct {
	replica *replica
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

func newTenure(r *replica, term fsm.Term) *tenure {
	t := &tenure{replica: r, term: term, turned: make(chan struct{}, 1), abandoned: make(chan struct{})}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

func (t *tenure) inTerm() fsm.Term       { return t.term }
func (t *tenure) ready() bool            { return t.isReady.Load() }
func (t *tenure) failed() bool           { return t.isFailed.Load() }
func (t *tenure) turns() <-chan struct{} { return t.turned }

func (t *tenure) turn() {
	select {
	case t.turned <- struct{}{}:
	default:
	}
}

// begin says that the leader may speak for its group.
func (t *tenure) begin() {
	t.isReady.Store(true)
	t.turn()
}

// fail makes the leader take nothing more.
func (t *tenure) fail() {
	t.isFailed.Store(true)
	t.cancel()
	t.turn()
}

func (t *tenure) abandon() {
	t.fail()
	t.once.Do(func() { close(t.abandoned) })
}

// barrier returns true when whatever was committed before this term is applied
// here. If the term has moved on meanwhile, what is proposed as its leader is void
// or refused, so that check only saves the trouble.
func (t *tenure) barrier() bool {
	g := t.replica.group
	r := g.raft
	return g.await(r.Barrier(0)) == nil && r.State() == raft.Leader && fsm.Term(r.CurrentTerm()) == t.term
}

// notLeader is an error that says what the replica knows of the leader.
func (t *tenure) notLeader() error {
	h, _ := t.replica.leader()
	return errNotLeader{h}
}

// proposalError says what an error of raft.Apply means for what was proposed.
func (t *tenure) proposalError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		// Raft refused it before it was written.
		return t.notLeader()
	default:
		// Leadership lost, shutdown, a store error: another leader may have it, now or later.
		return fmt.Errorf("%w: %w", outcome.ErrUnknownFate, err)
	}
}

// hint names a partition's leader: the identity and the term in which it leads.
type hint struct {
	identity string
	term     uint64
}

// errNotLeader is outcome.ErrNotLeader with what the replica knows of the leader.
type errNotLeader struct{ hint hint }

func (e errNotLeader) Error() string {
	return fmt.Sprintf("%v; it may be %q", outcome.ErrNotLeader, e.hint.identity)
}
func (e errNotLeader) Unwrap() error { return outcome.ErrNotLeader }

// newReplica makes a replica that is not started.
func newReplica(n *Node, id fsm.PartitionID) *replica {
	r := &replica{id: id, node: n, self: n.identity, lastSnapshot: time.Now(), changed: make(chan struct{}), changing: make(chan struct{}, 1)}
	r.closing, r.stopCopying = context.WithCancel(context.Background())
	if id.Topic == fsm.GroupShardsID {
		r.machine = newShard(r)
	} else {
		r.machine = newRecords(r)
	}
	return r
}

// start begins to watch leadership; group has been opened with r.machine.
func (r *replica) start(g *group) {
	ctx, cancel := context.WithCancel(context.Background())
	r.group, r.stop = g, cancel
	r.stopped.Add(1)
	go func() {
		defer r.stopped.Done()
		r.watch(ctx)
	}()
}

// close ends the leadership, the group and the watch, and takes over what was
// copied, if anything. Appends under way end with an error.
func (r *replica) close() error {
	r.stop()
	r.stopCopying()
	err := r.group.stop()
	r.stopped.Wait()
	r.copying.Lock() // whoever stages entries is done
	r.mu.Lock()
	staging := r.adopt
	r.adopt = nil
	r.mu.Unlock()
	if staging != nil {
		if aerr := r.log.Adopt(staging); aerr != nil {
			staging.Close()
			err = errors.Join(err, aerr)
		}
	}
	return errors.Join(err, r.log.Close())
}

// watch begins a leadership for every term in which this replica leads, and
// tells those who wait that the leader changed.
func (r *replica) watch(ctx context.Context) {
	var current leadership
	endCurrent := func() {
		if current != nil {
			current.end()
			current = nil
		}
	}
	defer endCurrent()
	for {
		identity, term := r.group.leader()
		leads := r.group.raft.State() == raft.Leader && identity == r.self
		if current != nil && (!leads || current.inTerm() != fsm.Term(term) || current.failed()) {
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
		case <-r.group.observations:
		case <-turned:
		}
	}
}

// leader gives what this replica knows of the leader, and a channel that is
// closed when that may have changed.
func (r *replica) leader() (hint, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	identity, term := r.group.leader()
	if identity == r.self && r.group.stuck() {
		identity = "" // others may lead by now, and Raft here does not hear of it
	}
	return hint{identity, term}, r.changed
}

// leads gives the leadership if this replica leads, has passed its barrier and so
// may speak for the group (invariant 8), else errNotLeader.
func (r *replica) leads() (leadership, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leading == nil || r.group.stuck() {
		identity, term := r.group.leader()
		if identity == r.self {
			identity = "" // elected, and not yet past the barrier
		}
		return nil, errNotLeader{hint{identity, term}}
	}
	return r.leading, nil
}

// barrierPatience is how long a call of another node waits for a barrier.
const barrierPatience = 250 * time.Millisecond

// settle returns when this replica is not between its election and the end of its barrier: at once, after that, or after
// barrierPatience. A node hears of a new leader by the entry that the barrier is about, so its first call comes too early,
// and to ask again costs it a pause.
func (r *replica) settle(ctx context.Context) {
	patience := time.NewTimer(barrierPatience)
	defer patience.Stop()
	for {
		r.mu.Lock()
		identity, _ := r.group.leader()
		between, changed := identity == r.self && r.leading == nil && !r.group.stuck(), r.changed
		r.mu.Unlock()
		if !between {
			return
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

// bounds gives the first and the next offset of the state machine.
func (r *replica) bounds() (start, next fsm.Offset) { return r.machine.bounds() }

// replicaSnapshot is the state of a replica's machine and what its log knew then.
type replicaSnapshot struct {
	state snapshotBytes
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

// maxSnapshotBytes bounds what a damaged or hostile snapshot makes us allocate.
const maxSnapshotBytes = 1 << 30

// snapshotBytes is a snapshot that is already in memory.
type snapshotBytes []byte

// Persist implements raft.FSMSnapshot.
func (s snapshotBytes) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		_ = sink.Cancel()
		return err
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (s snapshotBytes) Release() {}
