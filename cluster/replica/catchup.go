package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/time/rate"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/locks"
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
	// mu guards what follows. No other lock is taken under it, and nothing waited for.
	mu      locks.Mutex[progress]
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
// It reports whether all of that is here.
func (r *Replica) beforeInstall(ctx context.Context, from string, req *raft.InstallSnapshotRequest) (here bool, err error) {
	logger := r.env.Logger
	has := func() bool {
		if !r.Log.Has(req.LastLogIndex, req.LastLogTerm) {
			return false
		}
		// The leader goes on behind its snapshot, and wants to see that this replica has it.
		r.Log.Widen(req.LastLogIndex)
		return true
	}
	if has() {
		return true, nil
	}
	// A leader that did not hear of the end offers it again, and another leader does: the staging
	// is one.
	if !r.copying.TryLock() {
		return false, errCopies
	}
	defer r.copying.Unlock()
	r.mu.Lock()
	copied := r.adopt != nil
	r.mu.Unlock()
	if copied {
		return false, errReopens
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.closing, cancel)()
	if err := r.copyFrom(ctx, from); errors.Is(err, errOvertaken) {
		logger.Info("a copy is not needed any more", "partition", r.ID, "from", from)
		if has() {
			return true, nil
		}
		return false, err
	} else if err != nil {
		logger.Warn("copying a partition from its leader was cut short; it will go on", "partition", r.ID, "from", from, "error", err)
		return false, err
	}
	r.keeper.reopen(r)
	return false, errReopens
}

// copyFrom copies what this replica lacks up to the snapshot of another. Raft goes on meanwhile,
// perhaps with another leader: where the log comes as far by itself, the copy is of no use and ends
// with errOvertaken.
func (r *Replica) copyFrom(ctx context.Context, from string) error {
	logger := r.env.Logger
	d, err := r.env.Host.Describe(ctx, from, r.ID, r.Log.SnapshotIndex())
	if err != nil {
		return r.refuses(err)
	}
	if err := r.machine.fits(d.State, d.Next); errors.Is(err, fsm.ErrNewer) {
		return r.refuses(err) // before it is copied, and once
	}
	if d.Index <= r.Log.SnapshotIndex() {
		return errors.New("its snapshot is not newer than the one here")
	}
	staging, err := r.Log.Stage(d)
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
	logger.Info("copying a partition from its leader", "partition", r.ID, "from", from, "entry", staging.Next(), "to", d.Index, "bytes", d.Bytes)
	began := time.Now()
	for staging.Next() <= d.Index {
		if r.Log.Has(d.Index, d.Term) {
			done = true
			return errors.Join(errOvertaken, staging.Discard())
		}
		r.stepOfCopy("piece")
		piece, err := r.env.Host.Entries(ctx, from, r.ID, staging.Next(), d.Index, catchUpPiece)
		if err != nil {
			return err
		}
		for left := len(piece); left > 0; { // a single entry may be larger than a burst
			some := min(left, r.env.catchUpLimit.Burst())
			if err := r.env.catchUpLimit.WaitN(ctx, some); err != nil {
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
	r.stepOfCopy("all")
	// What came in pieces must have been the same all the time.
	if now, err := r.env.Host.Describe(ctx, from, r.ID, r.Log.SnapshotIndex()); err != nil {
		return err
	} else if now.Compacted.Mark != d.Compacted.Mark {
		done = true
		return errors.Join(errors.New("the source was compacted meanwhile; it is copied anew"), staging.Discard())
	}
	if err := staging.Finish(d); err != nil {
		if errors.Is(err, raftlog.ErrDamaged) {
			return errors.Join(err, staging.Discard())
		}
		return err
	}
	if err := r.machine.fits(d.State, d.Next); err != nil {
		return errors.Join(fmt.Errorf("%w: the snapshot of %s does not fit its log", raftlog.ErrDamaged, from), err, staging.Discard())
	}
	logger.Info("copied a partition from its leader", "partition", r.ID, "from", from, "to", d.Index, "bytes", staging.Bytes(), "took", time.Since(began).Round(time.Millisecond))
	if start, anew := staging.Anew(); anew && r.Records() != nil {
		r.Records().beginsAnew(ctx, d.State, fsm.Offset(start))
	}
	done = true
	r.stepOfCopy("finished")
	r.mu.Lock()
	r.adopt = staging
	r.mu.Unlock()
	return nil
}

func (r *Replica) stepOfCopy(step string) {
	if r.env.OnCopy != nil {
		r.env.OnCopy(r.ID, step)
	}
}

// Describe gives what a node must know to copy what this replica has behind the snapshot at index
// have. What it will ask for is kept for a while.
func (r *Replica) Describe(have uint64) (raftlog.Described, error) {
	d, ok := r.Log.Describe(have)
	if !ok {
		return d, fmt.Errorf("%w: no snapshot yet", outcome.ErrNoLeader)
	}
	r.hold(d.First)
	return d, nil
}

// Entries gives entries up to an index, about limit bytes of them, none if it has none, as
// raftlog.ParseEntries reads them.
func (r *Replica) Entries(from, to uint64, limit int) ([]byte, error) {
	r.hold(from)
	b, err := r.Log.AppendEntries(nil, from, to, limit)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", outcome.ErrStorage, err)
	}
	return b, nil
}

// hold keeps segments from index on for a while: somebody copies them.
func (r *Replica) hold(index uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if now.After(r.heldUntil) || index < r.held {
		r.held = index
	}
	r.heldUntil = now.Add(holdFor)
}

// Held reports whether somebody copies from this replica, or did within the last minute.
func (r *Replica) Held() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !time.Now().After(r.heldUntil)
}

// heldFrom gives the first index that must be kept beside what the machine needs, 0
// for none.
func (r *Replica) heldFrom(needs keeping) uint64 {
	var from uint64
	if needs.entry {
		from = r.Log.SnapshotIndex()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !time.Now().After(r.heldUntil) && (from == 0 || r.held < from) {
		from = r.held
	}
	return from
}
