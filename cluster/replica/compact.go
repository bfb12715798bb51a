package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/time/rate"

	"github.com/trimaran-io/trimaran/cluster/compaction"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/ticks"
)

// Compaction is decided by a partition's leader and stands in its log (fsm.Compaction). Each
// replica carries it out in its own time, once its snapshot has the decision: one replica of a node
// after the other, at a bounded rate, with bounded memory for keys. What it comes to is the same on
// all.

const (
	defaultCompactionRate   = 64 << 20  // bytes a second, read and written
	defaultCompactionMemory = 128 << 20 // bytes
	compactionTick          = time.Second
	compactionBurst         = 1 << 20
	// compactionPause is how long a replica is left alone of which a round was cut short.
	compactionPause = 10 * time.Second
)

// compacting is what a replica knows of its compaction beside what its log says. Its replica's mu
// guards it.
type compacting struct {
	// done is when the decision at index of was carried out here, ms since epoch; 0: not known.
	of   fsm.Index
	done int64
	// pause is until when nothing is tried.
	pause time.Time

	// written is when the leader wrote the entry at an offset, ms since epoch; 0: not known.
	written struct {
		offset fsm.Offset
		at     int64
	}
}

// CompactionStatus is what is known of a partition's compaction on this node.
type CompactionStatus struct {
	Compacted  bool    // the topic is to be
	DirtyRatio float64 // bytes of closed segments that are not compacted, of all closed ones
	Waits      bool    // a decision is not carried out here
}

// CompactionCounters count what compaction has done on a node.
type CompactionCounters struct {
	Rounds atomic.Int64 // decisions that were carried out
	Bytes  atomic.Int64 // read and written for it
	Saved  atomic.Int64 // by which segments became smaller, bytes
	Last   atomic.Int64 // end of the last round, seconds since epoch; 0: none
}

// CompactionStatus tells how far the replica is compacted.
func (r *Records) CompactionStatus() CompactionStatus {
	topic, known := r.env.Host.Topics().ByID(r.ID.Topic)
	local := r.Log.Compaction()
	dirty, clean, _ := r.closed(fsm.Offset(local.Bound), fsm.Offset(math.MaxInt64), math.MaxInt64)
	r.mu.Lock()
	defer r.mu.Unlock()
	decided := r.state.Compaction()
	return CompactionStatus{
		Compacted: known && topic.Compacted(r.env.TopicDefaults), DirtyRatio: dirtyRatio(dirty, clean),
		Waits: decided.Index != 0 && uint64(decided.Index) != local.Decision,
	}
}

func dirtyRatio(dirty, clean int64) float64 {
	if dirty <= 0 {
		return 0
	}
	return float64(dirty) / float64(dirty+clean)
}

// closed adds up the bytes of the closed segments from an offset on and below it, and gives where
// those end that are below limit and have no record from latest (ms since epoch) on.
func (r *Records) closed(from, limit fsm.Offset, latest int64) (dirty, clean int64, end fsm.Offset) {
	segments := r.Log.Segments()
	for i, s := range segments {
		if s.Active || s.Start < 0 || segments[i+1].Start < 0 {
			break
		}
		next := fsm.Offset(segments[i+1].Start)
		if next <= from {
			clean += s.Bytes
			continue
		}
		if next > limit || s.MaxTime > latest {
			break
		}
		dirty += s.Bytes
		end = next
	}
	return dirty, clean, end
}

// compactionSettings is what a topic's configuration says of its compaction.
type compactionSettings struct {
	ratio                      float64
	least, most                int64 // lag, ms
	deleteRetention, segmentMS int64 // ms
}

// compactionOf gives a topic's settings; ok is false if it is not compacted.
func (r *Records) compactionOf(topic *fsm.Topic) (s compactionSettings, ok bool) {
	env := r.env
	if env.Host.Topics().FeatureLevel() < fsm.LevelCompaction || !topic.Compacted(env.TopicDefaults) {
		return s, false
	}
	ratio, err := strconv.ParseFloat(env.config(topic, "min.cleanable.dirty.ratio"), 64)
	if err != nil {
		ratio = 0.5
	}
	return compactionSettings{
		ratio: ratio,
		least: env.configNumber(topic.ID, "min.compaction.lag.ms"), most: env.configNumber(topic.ID, "max.compaction.lag.ms"),
		deleteRetention: env.configNumber(topic.ID, "delete.retention.ms"), segmentMS: env.configNumber(topic.ID, "segment.ms"),
	}, true
}

// compact has the group decide on a compaction if one is due and this replica leads.
func (r *Records) compact(p *proposer, topic *fsm.Topic, now time.Time) {
	settings, ok := r.compactionOf(topic)
	if !ok {
		return
	}
	decision, since, due := r.nextCompaction(settings, now.UnixMilli())
	if !due {
		return
	}
	ctx, cancel := context.WithTimeout(r.env.ctx, proposeTimeout)
	defer cancel()
	if err := p.control(ctx, fsm.CompactCommand(decision, since)); err != nil {
		r.env.Logger.Warn("cannot decide on a compaction", "partition", r.ID, "to", decision.Bound, "error", err)
		return
	}
	r.rest.Store(nil) // a snapshot has to follow
	r.env.Logger.Info("compaction is decided", "topic", topic.Name, "partition", r.ID.Partition, "to", decision.Bound, "horizon", decision.Horizon)
}

// nextCompaction gives the decision that should be next, and since when the last is carried out
// here; all times are ms since epoch. due is false if none should be.
func (r *Records) nextCompaction(settings compactionSettings, now int64) (next fsm.Compaction, since int64, due bool) {
	local := r.Log.Compaction()
	r.mu.Lock()
	last, start, stable, end := r.state.Compaction(), r.seen.local, r.seen.stable, r.seen.next
	if since = now; r.compaction.done != 0 && r.compaction.of == last.Index {
		since = min(now, r.compaction.done)
	}
	horizon := r.state.NextHorizon(now, since, settings.deleteRetention)
	if len(r.seen.tiered) > 0 {
		// What is in the tier is not compacted any further: a tombstone must stay for what it
		// stands for there.
		horizon = last.Horizon
	}
	r.mu.Unlock()
	if last.Index != 0 && local.Decision != uint64(last.Index) {
		return next, 0, false // this one first
	}
	next = fsm.Compaction{Algorithm: fsm.CompactionAlgorithm, Bound: last.Bound, Horizon: horizon, Time: now}
	latest := int64(math.MaxInt64)
	if settings.least > 0 {
		latest = now - settings.least
	}
	dirty, clean, bound := r.closed(last.Bound, stable, latest)
	if dirty, bound, due = r.withActive(settings, dirty, max(bound, last.Bound), stable, end, latest, now); due {
		next.Bound = bound
		return next, since, true
	}
	if bound > last.Bound {
		old := settings.most < math.MaxInt64 && now-r.writtenAt(max(last.Bound, start)) >= settings.most
		if old || dirtyRatio(dirty, clean) > settings.ratio {
			next.Bound = bound
			return next, since, true
		}
	}
	// Tombstones and markers go when it is time, whether or not something was written since.
	return next, since, last.Index != 0 && local.Left > 0 && horizon > last.Horizon
}

// withActive adds the segment that is written to if all else is eligible and it should have ended
// by its age: the decision begins another one on each replica. due says that it is so old that it
// is to be compacted whatever the ratio.
func (r *Records) withActive(settings compactionSettings, dirty int64, bound, stable, end fsm.Offset, latest, now int64) (int64, fsm.Offset, bool) {
	segments := r.Log.Segments()
	if len(segments) == 0 {
		return dirty, bound, false
	}
	active := segments[len(segments)-1]
	start := fsm.Offset(active.Start)
	if start < 0 || start >= end || stable != end || bound < start && len(segments) > 1 || active.MaxTime > latest {
		return dirty, bound, false
	}
	age := now - r.writtenAt(max(start, bound))
	if age < min(settings.segmentMS, settings.most) {
		return dirty, bound, false
	}
	return dirty + active.Bytes, end, settings.most < math.MaxInt64 && age >= settings.most
}

// writtenAt gives when the leader wrote the entry that holds an offset, ms since epoch; the far
// future if that cannot be found out.
func (r *Records) writtenAt(offset fsm.Offset) int64 {
	r.mu.Lock()
	last := r.seen.last
	known := r.compaction.written.offset == offset && r.compaction.written.at != 0
	at := r.compaction.written.at
	r.mu.Unlock()
	if known {
		return at
	}
	at = math.MaxInt64
	reader, err := r.Log.ReadAt(int64(offset), 1)
	if err != nil {
		return at
	}
	defer reader.Close()
	for {
		entry, err := reader.Next(uint64(last))
		if err != nil {
			return at
		}
		after, _ := span(&entry, reader.Expected())
		if reader.Passed(after); fsm.Offset(after) > offset {
			at = entry.AppendedAt.UnixMilli()
			break
		}
	}
	r.mu.Lock()
	r.compaction.written.offset, r.compaction.written.at = offset, at
	r.mu.Unlock()
	return at
}

// undone gives the decision that is to be carried out here; ok is false if there is none, or not
// now. The snapshot has to have it: then no restart forgets it, and a copy has it.
func (r *Records) undone(now time.Time) (c fsm.Compaction, ok bool) {
	r.mu.Lock()
	c = r.state.Compaction()
	ok = c.Index != 0 && !now.Before(r.compaction.pause)
	r.mu.Unlock()
	// What is copied behind entries of its own would not fit to them any more.
	return c, ok && uint64(c.Index) != r.Log.Compaction().Decision && r.Log.SnapshotIndex() >= uint64(c.Index) && !r.Held() && r.catchUp.status() == nil
}

// compactionLoop carries out what was decided, one replica after the other, the one with the
// largest share of dirty bytes first.
func (s *Set) compactionLoop() {
	ctx := s.env.ctx
	tick := ticks.New(compactionTick)
	defer tick.Stop()
	bytesPerSecond := cmp.Or(s.env.CompactionRate, defaultCompactionRate)
	limit := rate.NewLimiter(rate.Limit(bytesPerSecond), compactionBurst)
	if bytesPerSecond < 0 {
		limit = rate.NewLimiter(rate.Inf, compactionBurst)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, r := range s.neediest(func(r *Records) (ratio float64, ok bool) {
			if _, ok = r.undone(time.Now()); ok {
				ratio = r.CompactionStatus().DirtyRatio
			}
			return ratio, ok
		}) {
			if ctx.Err() != nil {
				return
			}
			r.carryOut(ctx, limit)
		}
	}
}

// carryOut makes the replica's segments what the newest decision leaves of them, as far as that
// goes now.
func (r *Records) carryOut(ctx context.Context, limit *rate.Limiter) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.closing, cancel)()
	c, ok := r.undone(time.Now())
	if !ok {
		return
	}
	began := time.Now()
	var saved raftlog.Saved
	err := r.round(ctx, c, limit, &saved)
	now := time.Now()
	r.mu.Lock()
	if err != nil {
		r.compaction.pause = now.Add(compactionPause)
	} else {
		r.compaction.of, r.compaction.done = c.Index, now.UnixMilli()
	}
	r.mu.Unlock()
	if counters := r.env.CompactionCounters; counters != nil {
		counters.Bytes.Add(saved.Read)
		counters.Saved.Add(saved.Before - saved.After)
		if err == nil {
			counters.Rounds.Add(1)
			counters.Last.Store(now.Unix())
		}
	}
	switch logger := r.env.Logger; {
	case err == nil:
		logger.Info("compacted", "partition", r.ID, "to", c.Bound, "horizon", c.Horizon, "bytes", saved.Read, "saved", saved.Before-saved.After, "took", time.Since(began).Round(time.Millisecond))
	case ctx.Err() != nil:
	case errors.Is(err, raftlog.ErrHeld), errors.Is(err, raftlog.ErrNotClosed), errors.Is(err, raftlog.ErrNotInLog):
		logger.Debug("a compaction waits", "partition", r.ID, "error", err)
	case errors.Is(err, vfs.ErrNoSpace):
		logger.Warn("a compaction waits for room on the disk", "partition", r.ID, "error", err)
	default:
		logger.Warn("a compaction was cut short; it will be tried again", "partition", r.ID, "error", err)
		r.keeper.ReadFailed(r.Replica, err, 0)
	}
}

// round carries out a decision, in several passes if there are more keys than there is memory for.
func (r *Records) round(ctx context.Context, c fsm.Compaction, limit *rate.Limiter, saved *raftlog.Saved) error {
	pace := func(bytes int) error {
		saved.Read += int64(bytes)
		for left := bytes; left > 0; left -= compactionBurst {
			if err := limit.WaitN(ctx, min(left, compactionBurst)); err != nil {
				return err
			}
		}
		return ctx.Err()
	}
	r.forget()
	// What replicas need not keep (c.Start) may stay here for long, and is read: of a transaction
	// that was aborted this replica may have records that others compacted earlier, and a marker
	// that goes now; of a key that was deleted, a value and the tombstone.
	start, _ := r.Bounds()
	for {
		from := max(fsm.Offset(r.Log.Compaction().Bound), 0)
		// Where the log starts does not matter: of the batch that reaches over that, too, what is
		// left is the same on all replicas.
		if segments := r.Log.Segments(); len(segments) > 0 {
			from = max(from, fsm.Offset(segments[0].Start))
		}
		keys := compaction.NewKeys(cmp.Or(r.env.CompactionMemory, defaultCompactionMemory), int64(c.Bound-from))
		round := compaction.NewRound(c, c.Bound, keys, r.abortedFrom)
		to, err := r.collect(round, c, from, pace)
		if err != nil {
			return err
		}
		round = compaction.NewRound(c, to, keys, r.abortedFrom)
		pass := raftlog.Pass{
			Bound: int64(to), From: int64(start), SegmentBytes: r.env.configNumber(r.ID.Topic, "segment.bytes"),
			Entry: func(entry *raft.Log, next int64) ([]byte, bool, error) {
				if entry.Type != raft.LogCommand {
					return nil, false, nil
				}
				return round.Entry(stored(entry, fsm.Offset(next)))
			},
			Kept: func(old []raftlog.KeptSegment) ([]byte, error) { return r.keptOf(round, old) },
			Pace: pace, Held: r.Held,
		}
		done, err := r.Log.Compact(pass)
		saved.Before, saved.After = saved.Before+done.Before, saved.After+done.After
		if err != nil {
			return err
		}
		note := r.Log.Compaction()
		note.Bound, note.Horizon = int64(to), int64(c.Horizon)
		if to == c.Bound {
			note.Decision, note.Mark, note.Left = uint64(c.Index), uint64(c.Index), round.Left
		}
		if err := r.Log.Note(note); err != nil {
			return err
		}
		if to == c.Bound {
			return nil
		}
	}
}

// collect notes the keys of what is not compacted yet, as far as there is memory for them, and
// gives how far that is.
func (r *Records) collect(round *compaction.Round, c fsm.Compaction, from fsm.Offset, pace func(int) error) (to fsm.Offset, err error) {
	if from >= c.Bound {
		return c.Bound, nil
	}
	reader, err := r.Log.ReadAt(int64(from), 1<<20)
	if err != nil {
		return 0, err
	}
	defer reader.Close()
	for {
		entry, err := reader.Next(uint64(c.Index))
		if errors.Is(err, io.EOF) {
			return 0, fmt.Errorf("offset %d is committed and not in the log", reader.Expected())
		}
		if err != nil {
			return 0, err
		}
		if err := pace(len(entry.Data)); err != nil {
			return 0, err
		}
		next := reader.Expected()
		if entry.Type == raft.LogCommand {
			at, full, err := round.Collect(stored(&entry, fsm.Offset(next)), from)
			if err != nil {
				return 0, err
			}
			if full {
				return at, nil
			}
		}
		next, _ = span(&entry, next)
		if reader.Passed(next); fsm.Offset(next) >= c.Bound {
			return c.Bound, nil
		}
	}
}

// abortedFrom is the compaction.Aborted of the replica's log.
func (r *Records) abortedFrom(from fsm.Offset) (rows []fsm.AbortedTransaction, to fsm.Offset, err error) {
	r.mu.Lock()
	seen := r.seen
	r.mu.Unlock()
	segment, _, ok := r.Log.KeptAt(int64(from))
	if !ok {
		return nil, 0, raftlog.ErrNotInLog
	}
	to = min(fsm.Offset(segment.To), seen.stable)
	if rows, err = r.aborted(seen, from, to); err != nil {
		return nil, 0, err
	}
	slices.SortFunc(rows, func(a, b fsm.AbortedTransaction) int { return cmp.Compare(a.Last, b.Last) })
	return rows, to, nil
}

// keptOf gives what is kept with a segment that is made of others.
func (r *Records) keptOf(round *compaction.Round, segments []raftlog.KeptSegment) ([]byte, error) {
	old := make([]fsm.TransactionIndex, len(segments))
	for i, s := range segments {
		if !s.Keeps() {
			continue
		}
		var err error
		if old[i], err = r.keptWith(s); err != nil {
			return nil, err
		}
	}
	x := round.Kept(old)
	return x.Bytes(), nil
}
