package cluster

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/time/rate"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cluster/peer"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// A follower that is so far behind that its leader has to offer it a snapshot
// copies the entries that it lacks from the leader, beside Raft: see
// raftlog.Staging. Then the replica is opened again with what it has copied, and
// Raft goes on from there.

const (
	defaultCatchUpRate = 100 << 20 // bytes a second
	catchUpPiece       = 4 << 20
	holdFor            = time.Minute
)

// errReopens is the answer to a leader whose snapshot was taken over: asked again,
// the replica will have it.
var errReopens = errors.New("the entries are copied; the replica is being opened again")

// errOvertaken ends a copy: Raft has brought the log as far by itself.
var errOvertaken = errors.New("the log has come further by itself")

// errCopies is the answer to a leader while the replica copies already, or is being closed.
var errCopies = errors.New("the entries are being copied, or the replica is being closed")

// progress is how far a copy is.
type progress struct {
	mu      sync.Mutex
	active  bool
	bytes   int64
	total   int64
	started time.Time
	first   int64 // bytes that were there when it began
}

func (p *progress) begin(bytes, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.active, p.bytes, p.total, p.started, p.first = true, bytes, max(total, bytes), time.Now(), bytes
}

func (p *progress) at(bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes, p.total = bytes, max(p.total, bytes)
}

func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.active = false
}

// status gives nil if nothing is copied.
func (p *progress) status() *admin.CatchUpStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.active {
		return nil
	}
	s := &admin.CatchUpStatus{Bytes: p.bytes, Total: p.total}
	if d := time.Since(p.started).Seconds(); d > 0 {
		s.BytesPerSecond = int64(float64(p.bytes-p.first) / d)
	}
	return s
}

func newCatchUpLimit(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond <= 0 {
		bytesPerSecond = defaultCatchUpRate
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), max(catchUpPiece, int(min(bytesPerSecond, 1<<30))/10))
}

// beforeInstall is what happens when the group's leader offers a snapshot.
func (n *Node) beforeInstall(r *replica) func(context.Context, string, *raft.InstallSnapshotRequest) error {
	return func(ctx context.Context, from string, req *raft.InstallSnapshotRequest) error {
		has := func() bool {
			if !r.log.Has(req.LastLogIndex, req.LastLogTerm) {
				return false
			}
			// The leader goes on behind its snapshot, and wants to see that this replica has it.
			r.log.Widen(req.LastLogIndex)
			return true
		}
		if has() {
			return peer.ErrInstalled
		}
		// A leader that did not hear of the end offers it again, and another leader does: the staging is one.
		if !r.copying.TryLock() {
			return errCopies
		}
		defer r.copying.Unlock()
		r.mu.Lock()
		copied := r.adopt != nil
		r.mu.Unlock()
		if copied {
			return errReopens
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(r.closing, cancel)()
		if err := n.copyFrom(ctx, r, from); errors.Is(err, errOvertaken) {
			n.logger.Info("a copy is not needed any more", "partition", r.id, "from", from)
			if has() {
				return peer.ErrInstalled
			}
			return err
		} else if err != nil {
			n.logger.Warn("copying a partition from its leader was cut short; it will go on", "partition", r.id, "from", from, "error", err)
			return err
		}
		n.reopen(r)
		return errReopens
	}
}

// copyFrom copies what this replica lacks up to the snapshot of another. Raft goes on meanwhile,
// perhaps with another leader: where the log comes as far by itself, the copy is of no use and ends
// with errOvertaken.
func (n *Node) copyFrom(ctx context.Context, r *replica, from string) error {
	reply, err := n.ask(ctx, from, callDescribe, binary.BigEndian.AppendUint64(appendPartition(nil, r.id), r.log.SnapshotIndex()))
	if err != nil {
		return err
	}
	d, err := parseDescribed(reply)
	if err != nil {
		return r.refuses(err)
	}
	if err := r.machine.fits(d.State, d.Next); errors.Is(err, fsm.ErrNewer) {
		return r.refuses(err) // before it is copied, and once
	}
	if d.Index <= r.log.SnapshotIndex() {
		return errors.New("its snapshot is not newer than the one here")
	}
	staging, err := r.log.Stage(d)
	if err != nil {
		return err
	}
	done := false
	defer func() {
		if !done {
			staging.Close()
		}
	}()
	if staging.Next() > d.Index+1 { // begun with a snapshot that is gone
		return staging.Discard()
	}
	r.catchUp.begin(staging.Bytes(), d.Bytes)
	defer r.catchUp.end()
	n.logger.Info("copying a partition from its leader", "partition", r.id, "from", from, "entry", staging.Next(), "to", d.Index, "bytes", d.Bytes)
	began := time.Now()
	for staging.Next() <= d.Index {
		if r.log.Has(d.Index, d.Term) {
			done = true
			return errors.Join(errOvertaken, staging.Discard())
		}
		n.stepOfCopy(r, "piece")
		head := appendPartition(nil, r.id)
		head = binary.BigEndian.AppendUint64(head, staging.Next())
		head = binary.BigEndian.AppendUint64(head, d.Index)
		head = binary.BigEndian.AppendUint32(head, catchUpPiece)
		piece, err := n.ask(ctx, from, callEntries, head)
		if err != nil {
			return err
		}
		for left := len(piece); left > 0; { // a single entry may be larger than a burst
			some := min(left, n.catchUpLimit.Burst())
			if err := n.catchUpLimit.WaitN(ctx, some); err != nil {
				return err
			}
			left -= some
		}
		entries, err := raftlog.ParseEntries(piece)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			return fmt.Errorf("%s has no entry %d", from, staging.Next())
		}
		if err := staging.Add(entries); err != nil {
			return err
		}
		r.catchUp.at(staging.Bytes())
	}
	n.stepOfCopy(r, "all")
	if err := staging.Finish(d); err != nil {
		if errors.Is(err, raftlog.ErrDamaged) {
			return errors.Join(err, staging.Discard())
		}
		return err
	}
	if err := r.machine.fits(d.State, d.Next); err != nil {
		return errors.Join(fmt.Errorf("%w: the snapshot of %s does not fit its log", raftlog.ErrDamaged, from), err, staging.Discard())
	}
	n.logger.Info("copied a partition from its leader", "partition", r.id, "from", from, "to", d.Index, "bytes", staging.Bytes(), "took", time.Since(began).Round(time.Millisecond))
	done = true
	n.stepOfCopy(r, "finished")
	r.mu.Lock()
	r.adopt = staging
	r.mu.Unlock()
	return nil
}

func (n *Node) stepOfCopy(r *replica, step string) {
	if n.cfg.onCopy != nil {
		n.cfg.onCopy(r.id, step)
	}
}

// reopen has the reconcile loop close the replica and open it again.
func (n *Node) reopen(r *replica) {
	n.mu.Lock()
	if n.replicas[r.id] == r {
		n.reopening[r.id] = true
	}
	n.mu.Unlock()
	n.catalog.wake()
}

// A described log travels as the length of the JSON (4), the JSON, the state.

func encodeDescribed(d raftlog.Described) ([]byte, error) {
	text, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	out := binary.BigEndian.AppendUint32(nil, uint32(len(text)))
	return append(append(out, text...), d.State...), nil
}

func parseDescribed(reply []byte) (d raftlog.Described, err error) {
	r := reader{b: reply}
	text := r.bytes(int(r.uint32()))
	if r.bad {
		return d, fmt.Errorf("%w: malformed answer of another node", outcome.ErrUnknown)
	}
	if err := fsm.DecodeStrictly(text, &d); err != nil {
		return d, fmt.Errorf("answer of another node: %w", err)
	}
	if d.First == 0 || d.Index < d.First-1 {
		return d, fmt.Errorf("%w: malformed answer of another node", outcome.ErrUnknown)
	}
	d.State = r.b
	return d, nil
}

// describe answers callDescribe.
func (r *replica) describe(have uint64) ([]byte, error) {
	d, ok := r.log.Describe(have)
	if !ok {
		return nil, fmt.Errorf("%w: no snapshot yet", outcome.ErrNoLeader)
	}
	r.hold(d.First)
	return encodeDescribed(d)
}

// entries answers callEntries.
func (r *replica) entries(from, to uint64, limit int) ([]byte, error) {
	r.hold(from)
	b, err := r.log.AppendEntries(nil, from, to, limit)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", outcome.ErrStorage, err)
	}
	return b, nil
}

// hold keeps segments from index on for a while: somebody copies them.
func (r *replica) hold(index uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if now.After(r.heldUntil) || index < r.held {
		r.held = index
	}
	r.heldUntil = now.Add(holdFor)
}

// heldFrom gives the first index that must be kept beside what the machine needs, 0
// for none.
func (r *replica) heldFrom(needs keeping) uint64 {
	var from uint64
	if needs.entry {
		from = r.log.SnapshotIndex()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !time.Now().After(r.heldUntil) && (from == 0 || r.held < from) {
		from = r.held
	}
	return from
}
