package cluster

import (
	"context"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/fsm"
)

// Housekeeping is what a replica does in its own time: snapshots by bytes, so
// that a restart reads back little; freeing of segments below the log start; and,
// where it leads, the decision of what retention lets go.

const (
	housekeepingTick = time.Second
	// snapshotBytes is what the log may grow by before a snapshot is taken: what is
	// read back after a restart.
	snapshotEvery = 64 << 20
	// idleSnapshot is the age at which something smaller gets its snapshot, too.
	idleSnapshot             = 5 * time.Minute
	defaultRetentionInterval = 30 * time.Second
	proposeTimeout           = 5 * time.Second
)

func (n *Node) housekeepingLoop() {
	tick := time.NewTicker(housekeepingTick)
	defer tick.Stop()
	interval := n.cfg.RetentionInterval
	if interval <= 0 {
		interval = defaultRetentionInterval
	}
	lastRetention := time.Now()
	// A snapshot waits for its group's main loop, which may wait for a full disk; what would make room is in other groups.
	work := n.newAside()
	defer work.end()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		retention := time.Since(lastRetention) >= interval
		if retention {
			lastRetention = time.Now()
		}
		full := n.diskShareExceeded()
		for _, r := range n.runningReplicas() {
			view := n.Topics()
			if !retention && !full && r.quiet(view) {
				continue
			}
			work.do(n.ctx, r, func() {
				if retention || full {
					r.machine.retain(full)
				}
				at := r.logState()
				idle := r.housekeep()
				if n.reconcileMembers(r) && idle {
					r.rest.Store(&rest{log: at, view: view, until: time.Now().Add(restFor)})
				}
			})
		}
	}
}

// rest says that there was nothing to do for a replica, and how long there will be nothing if nothing changes.
type rest struct {
	log   [2]uint64   // last entry, and last one applied
	view  *fsm.Topics // of the catalog
	until time.Time
}

// restFor is how often a replica in which nothing happens is looked at: most do nothing most of the time.
const restFor = 10 * time.Second

// quiet reports whether nothing has changed since there was nothing to do for the replica.
func (r *replica) quiet(view *fsm.Topics) bool {
	rest := r.rest.Load()
	if rest == nil || rest.view != view || time.Now().After(rest.until) {
		return false
	}
	return rest.log == r.logState()
}

// logState gives the last entry of the log and the last command that was applied.
func (r *replica) logState() [2]uint64 {
	last, _ := r.log.LastIndex()
	applied, _ := r.log.LastApplied()
	return [2]uint64{last, applied}
}

func (n *Node) runningReplicas() []*replica {
	n.mu.Lock()
	defer n.mu.Unlock()
	replicas := make([]*replica, 0, len(n.replicas))
	for _, r := range n.replicas {
		replicas = append(replicas, r)
	}
	return replicas
}

// housekeep takes a snapshot where one is due and frees what is below the log start. It reports whether neither was.
func (r *replica) housekeep() (idle bool) {
	needs, err := r.machine.needs()
	if err != nil {
		r.node.logger.Warn("cannot begin a segment", "partition", r.id, "error", err)
		return false
	}
	bytes, ended := r.log.Unsnapshotted()
	old := bytes > 0 && time.Since(r.lastSnapshot) >= idleSnapshot
	due := bytes >= needs.every || ended || old || r.log.Blocked(needs.from)
	if due {
		r.lastSnapshot = time.Now()
		err := r.group.Ask(r.node.ctx, func() raft.Future { return r.group.Raft.Snapshot() })
		// With a change of the configuration under way there is none: next time.
		if err != nil && r.node.ctx.Err() == nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) && !errors.Is(err, raft.ErrRaftShutdown) &&
			!strings.Contains(err.Error(), "wait until the configuration entry") {
			r.node.logger.Warn("cannot take a snapshot", "partition", r.id, "error", err)
		}
	}
	freed, err := r.log.Trim(needs.from, r.heldFrom(needs))
	if err != nil {
		r.node.logger.Warn("cannot free segments", "partition", r.id, "error", err)
	}
	if freed > 0 {
		r.node.logger.Info("segments freed", "partition", r.id, "bytes", freed, "log_start", needs.from)
	}
	return !due && freed == 0 && err == nil
}

// needs implements machine.
func (r *records) needs() (keeping, error) {
	passed := r.log.Passed()
	r.mu.Lock()
	start, next, applied := r.state.LogStart(), r.state.NextOffset(), r.state.LastApplied()
	var state []byte
	if start == next || !passed {
		state = r.state.Snapshot()
	}
	r.mu.Unlock()
	k := keeping{from: int64(start), every: snapshotEvery}
	if !passed {
		if err := r.log.PassIdle(int64(next), uint64(applied), state); err != nil {
			return k, err
		}
	}
	if start < next {
		return k, nil
	}
	// Nothing is left to read: the last segment goes, too.
	return k, r.log.EndSegment(int64(start), uint64(applied), state)
}

// retain implements machine: the decision is an offset, so all replicas begin at
// the same one.
func (r *records) retain(share bool) {
	n := r.node
	p, err := r.leads()
	if err != nil {
		return
	}
	topic, ok := n.Topics().ByID(r.id.Topic)
	if !ok {
		return
	}
	start, next := r.bounds()
	to := start
	if policy := n.config(topic, "cleanup.policy"); strings.Contains(policy, "delete") {
		limits := retention{
			ms: n.configNumber(topic.ID, "retention.ms"), bytes: n.configNumber(topic.ID, "retention.bytes"),
			ahead: topic.TimestampAhead(n.cfg.TopicDefaults),
		}
		to = max(to, r.expired(limits, time.Now()))
	}
	if share {
		to = max(to, r.oldest())
	}
	if to <= start || to > next {
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, proposeTimeout)
	defer cancel()
	if err := p.control(ctx, fsm.LogStartCommand(to)); err != nil {
		n.logger.Warn("cannot advance the log start", "partition", r.id, "to", to, "error", err)
		return
	}
	n.logger.Info("log start advanced", "topic", topic.Name, "partition", r.id.Partition, "from", start, "to", to)
}

// retention is what a topic's configuration says of the records to keep. A negative ms or
// bytes is no limit.
type retention struct {
	ms, bytes int64
	// ahead is by how much a record's time may be later than it was appended, in ms
	// (message.timestamp.after.max.ms).
	ahead int64
}

// newest is the time of a segment's newest record, ms since epoch; 0: not known. Records
// without a time count from when they were appended. One that is further ahead than the
// topic allows, from before it did or from a clock that was wrong, counts as if it were at
// that bound: in Kafka it would keep its segment, and all behind it, until its time.
func (l retention) newest(s raftlog.SegmentInfo) int64 {
	if s.LastWrite.IsZero() {
		return s.MaxTime
	}
	written := s.LastWrite.UnixMilli()
	if s.MaxTime <= 0 {
		return written
	}
	if latest := written + l.ahead; latest >= written { // else there is no bound
		return min(s.MaxTime, latest)
	}
	return s.MaxTime
}

// expired gives the offset below which records are older than retention.ms or
// beyond retention.bytes, by whole segments as in Kafka (UnifiedLog.deleteOldSegments):
// a segment's age is that of its newest record, and the segment that is written
// to goes too if all its records are too old.
func (r *records) expired(limits retention, now time.Time) fsm.Offset {
	segments := r.log.Segments()
	_, next := r.bounds()
	end := func(i int) fsm.Offset { // where segment i's records end; unknown: not to be freed
		if i+1 == len(segments) {
			return next
		}
		if segments[i+1].Start < 0 {
			return math.MaxInt64
		}
		return fsm.Offset(segments[i+1].Start)
	}
	var to fsm.Offset
	if limits.ms >= 0 {
		for i, s := range segments {
			newest := limits.newest(s)
			if s.Start < 0 || end(i) == math.MaxInt64 || fsm.Offset(s.Start) == end(i) && s.Active || s.LastWrite.IsZero() && newest == 0 && fsm.Offset(s.Start) != end(i) ||
				now.UnixMilli()-newest <= limits.ms {
				break
			}
			to = end(i)
		}
	}
	if limits.bytes >= 0 {
		over := -limits.bytes
		for _, s := range segments {
			over += s.Bytes
		}
		// The segment that is written to goes only where nothing is to be kept.
		for i, s := range segments {
			if over < s.Bytes || end(i) == math.MaxInt64 {
				break
			}
			over -= s.Bytes
			to = max(to, end(i))
		}
	}
	return to
}

// oldest gives the end of the oldest segment that is complete.
func (r *records) oldest() fsm.Offset {
	segments := r.log.Segments()
	if len(segments) < 2 || segments[1].Start < 0 {
		return 0
	}
	return fsm.Offset(segments[1].Start)
}

// diskShareExceeded reports whether the partitions may let go of their oldest
// segments, since the disk is fuller than the operator allows.
func (n *Node) diskShareExceeded() bool {
	if n.cfg.MaxDiskShare <= 0 {
		return false
	}
	free, total := n.logs.Space()
	return total > 0 && float64(total-free)/float64(total) > n.cfg.MaxDiskShare
}
