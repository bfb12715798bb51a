package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/tier"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/ticks"
	"github.com/trimaran-io/trimaran/outcome"
)

// The leader of a partition puts closed segments of its log into the tier's store, and has them
// named by an entry once they were read back (fsm.TieredSegment). Another entry of its says up to
// where replicas may let go of their own copies; each does when its snapshot has that entry, so no
// restart and no copy forgets where the records are, and when it has seen them in the store itself
// (letgo.go). The leader deletes objects that are not named any more, after a while, and those that
// never were.

const (
	tierTick = time.Second
	// uploadsAtOnce bounds the partitions of a node whose segments go to the store at once.
	uploadsAtOnce = 2
	// uploadBytes is how much goes into one segment of the tier at most, if there is as much: whole
	// segments of the log, but one at least.
	uploadBytes = 64 << 20
	// uploadPause is how long a partition is left alone at most after the store has failed, at
	// first, and longestUploadPause in the end: what fails in passing is tried again soon. Nothing
	// is sent to a store that has no room for longestFullPause, since that stays so until something
	// is deleted, and all of the segment is sent each time.
	uploadPause        = time.Second
	longestUploadPause = 30 * time.Second
	longestFullPause   = 5 * time.Minute
	// tierGrace is how long what is not named any more stays in the store: a replica that is behind
	// still reads it.
	tierGrace = time.Minute
	// orphansEvery is how often a leader looks for what nobody will name.
	orphansEvery = time.Hour
	// deleteAtOnce is how many segments' objects are deleted before an entry says so.
	deleteAtOnce = 64
	// storeTimeout is how long deleting and listing may take at a time. An upload takes as long as
	// it does, if its objects come to the store one after the other (tier.Upload).
	storeTimeout = 10 * time.Minute
)

// tiering is what a leader knows of its tier beside what its log says. Its replica's mu guards it.
type tiering struct {
	busy bool // somebody is at it
	// What fails does not keep the rest from being done: a store that takes nothing may be full,
	// and deleting makes room.
	uploads, deletes, compacts attempts
	// unsure is the term in which the fate of an entry that names something is not known.
	unsure fsm.Term
	// scanned is when, and in which term, orphans were looked for last.
	scanned time.Time
	term    fsm.Term
	// listed is the newest list of segments in the store, which this replica has put there in
	// listedTerm; nil: it has made sure then that there is none. What is in it does not change.
	listed     *tier.List
	listedTerm fsm.Term
}

// attempts is how it went with what is tried again.
type attempts struct {
	pause time.Duration // after the last failure; 0: there was none
	until time.Time     // nothing is tried before that
	err   error         // of the last attempt; nil: it was good
}

func (a *attempts) wait() bool { return time.Now().Before(a.until) }

// ended notes how an attempt went. full is the longest pause if the store has no room. It reports
// whether it is the first to fail.
func (a *attempts) ended(err error, full time.Duration) (news bool) {
	news = err != nil && a.err == nil
	if a.err = err; err == nil {
		a.pause = 0
		return false
	}
	longest := longestUploadPause
	if errors.Is(err, tier.ErrFull) {
		longest = full
	}
	a.pause = min(max(2*a.pause, uploadPause), longest)
	// Some of it is chance: partitions that failed together do not come together again.
	a.until = time.Now().Add(a.pause/2 + rand.N(a.pause/2))
	return news
}

// TierStatus is what is known of a partition's tier on this node.
type TierStatus struct {
	Tiered   bool       // the topic has one
	Segments int        // that are named
	Bytes    int64      // of their records
	Waiting  int64      // bytes of closed segments of this replica that are not there yet
	Local    fsm.Offset // the first offset that replicas keep
	End      fsm.Offset // behind what is in the tier; -1: nothing is
	Gone     int        // segments whose objects are to be deleted
	Dirty    bool       // of a compacted topic: its tier is to be compacted
	Err      string     // why the last attempt of this node failed, or why it makes none; ""
}

// TierStatus tells how it stands with the partition's tier.
func (r *Records) TierStatus() (s TierStatus) {
	topic, known := r.env.Host.Topics().ByID(r.ID.Topic)
	s.Tiered = known && topic.Tiered(r.env.TopicDefaults)
	r.mu.Lock()
	seen, bound := r.seen, r.state.Compaction().Bound
	s.Gone = len(r.state.TieredGone())
	failed := errors.Join(r.tiering.uploads.err, r.tiering.deletes.err, r.tiering.compacts.err)
	r.mu.Unlock()
	if failed != nil {
		s.Err = strings.ReplaceAll(failed.Error(), "\n", "; ")
	}
	s.Local, s.End = seen.local, -1
	for _, t := range seen.tiered {
		s.Segments, s.Bytes, s.End = s.Segments+1, s.Bytes+t.Bytes, t.Next
	}
	if r.env.Tier == nil && (s.Tiered || s.Segments > 0) {
		s.Err = "this node has not been told of the store (--tier-to)"
	}
	if s.Tiered {
		s.Waiting = r.tierWaiting()
		if settings, ok := r.compactionOf(topic); ok && len(seen.tiered) > 0 {
			_, s.Dirty = r.tierDirty(seen, bound, settings, time.Now())
		}
	}
	return s
}

// tierWaiting gives the bytes of closed segments that are not in the tier.
func (r *Records) tierWaiting() int64 {
	r.mu.Lock()
	end := r.seen.start
	if n := len(r.seen.tiered); n > 0 {
		end = max(end, r.seen.tiered[n-1].Next)
	}
	r.mu.Unlock()
	bytes, _, _ := r.closed(end, fsm.Offset(math.MaxInt64), math.MaxInt64)
	return bytes
}

// tierOf gives a topic that may have something in a tier, as the leader sees it; ok is false if
// there is nothing to do.
func (r *Records) tierOf() (topic *fsm.Topic, p *proposer, ok bool) {
	view := r.env.Host.Topics()
	if r.env.Tier == nil || view.FeatureLevel() < fsm.LevelTiers {
		return nil, nil, false
	}
	topic, known := view.ByID(r.ID.Topic)
	if !known || topic.Restoring {
		return nil, nil, false
	}
	r.mu.Lock()
	used := len(r.seen.tiered) > 0 || len(r.state.TieredGone()) > 0
	waits := r.tiering.busy || r.tiering.uploads.wait() && r.tiering.deletes.wait()
	r.mu.Unlock()
	if waits || !used && !topic.Tiered(r.env.TopicDefaults) {
		return nil, nil, false
	}
	p, err := r.proposing()
	return topic, p, err == nil
}

// tierLoop brings to the store what should be there, the partitions first that have most to bring.
func (s *Set) tierLoop() {
	if s.env.Tier == nil {
		return
	}
	ctx := s.env.ctx
	tick := ticks.New(tierTick)
	defer tick.Stop()
	var work errgroup.Group
	work.SetLimit(uploadsAtOnce)
	for {
		select {
		case <-ctx.Done():
			_ = work.Wait()
			return
		case <-tick.C:
		}
		for _, r := range s.neediest(func(r *Records) (bytes float64, ok bool) {
			if _, _, ok = r.tierOf(); ok {
				bytes = float64(r.tierWaiting())
			}
			return bytes, ok
		}) {
			work.Go(func() error { // this waits while others are at it
				r.tend(ctx)
				return nil
			})
		}
	}
}

// tend does one step of each kind for the partition's tier. What fails is tried again after a pause
// of its own.
func (r *Records) tend(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.closing, cancel)()
	topic, p, ok := r.tierOf()
	if !ok {
		return
	}
	defer context.AfterFunc(p.ctx, cancel)()
	if !r.setTiering(true) {
		return // somebody else was faster
	}
	defer r.setTiering(false)
	t := &r.tiering
	r.try(ctx, &t.uploads, longestFullPause, func() error {
		if err := r.endTier(ctx, topic, p); err != nil {
			return err
		}
		return r.upload(ctx, topic, p)
	})
	// It makes room.
	r.try(ctx, &t.deletes, longestUploadPause, func() error { return r.clean(ctx, p) })
	r.mu.Lock()
	well := t.uploads.err == nil && t.deletes.err == nil
	r.mu.Unlock()
	if well { // it puts more there before it deletes
		r.try(ctx, &t.compacts, longestFullPause, func() error { return r.compactTier(ctx, topic, p) })
	}
}

// try does a part of what is to be done for the tier, unless that waits, and notes how it went.
// full is the longest pause if the store has no room.
func (r *Records) try(ctx context.Context, a *attempts, full time.Duration, do func() error) {
	r.mu.Lock()
	waits := a.wait()
	r.mu.Unlock()
	if waits || ctx.Err() != nil {
		return
	}
	failed := do()
	if failed != nil && ctx.Err() != nil {
		return // it does not lead any more, or is closed
	}
	r.mu.Lock()
	news := a.ended(failed, full)
	r.mu.Unlock()
	if failed != nil {
		r.env.Tier.UploadErrors.Add(1)
	}
	if news {
		r.env.Logger.Warn("the tier's store fails; records stay here until it works again", "partition", r.ID, "store", r.env.Tier.Store.String(), "error", failed)
	}
}

// clean deletes what is in the store and need not be there.
func (r *Records) clean(ctx context.Context, p *proposer) error {
	// What is named is listed before what is not is deleted.
	listed := r.list(ctx, p)
	err := r.deleteGone(ctx, p)
	if err == nil && listed != nil && ctx.Err() == nil {
		listed = r.list(ctx, p) // there may be room now
	}
	return errors.Join(listed, err, r.deleteOrphans(ctx, p))
}

// setTiering notes whether somebody is at the partition's tier; changed is false if that was known.
func (r *Records) setTiering(busy bool) (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed = r.tiering.busy != busy
	r.tiering.busy = busy
	return changed
}

// endTier ends the tier of a topic that should have none any more.
func (r *Records) endTier(ctx context.Context, topic *fsm.Topic, p *proposer) error {
	r.mu.Lock()
	any := len(r.seen.tiered) > 0
	r.mu.Unlock()
	if !any || topic.Tiered(r.env.TopicDefaults) || !strings.EqualFold(r.env.config(topic, "remote.log.delete.on.disable"), "true") {
		return nil
	}
	err := r.decide(ctx, p, fsm.TierEndCommand())
	if err == nil {
		r.env.Logger.Info("the tier is ended; the log starts where all replicas have it", "partition", r.ID)
	}
	return err
}

// decide has the group agree on a command.
func (r *Records) decide(ctx context.Context, p *proposer, command []byte) error {
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	r.rest.Store(nil) // there will be something to do
	return p.control(ctx, command)
}

// nextUpload gives the offsets that should go to the tier next: closed segments of this replica's
// log behind what is there, all of it below the last stable offset, and of a topic that is
// compacted only what a decision has compacted here. lastWrite is when the last of it was appended,
// ms since epoch.
//
// horizon is that of what is compacted here, up to clean; nothing goes there while a decision is
// not carried out.
func (r *Records) nextUpload(topic *fsm.Topic) (from, to fsm.Offset, lastWrite int64, horizon, clean fsm.Offset, ok bool) {
	here := r.Log.Compaction()
	r.mu.Lock()
	seen, decided := r.seen, r.state.Compaction()
	r.mu.Unlock()
	if !here.Whole() || decided.Index != 0 && here.Decision != uint64(decided.Index) {
		return 0, 0, 0, 0, 0, false
	}
	limit := seen.stable
	if topic.Compacted(r.env.TopicDefaults) {
		limit = min(limit, fsm.Offset(here.Bound))
	}
	from = seen.start
	if n := len(seen.tiered); n > 0 {
		from = max(seen.tiered[n-1].Next, from)
		if from > seen.tiered[n-1].Next {
			return 0, 0, 0, 0, 0, false // the log start is being moved over all of it
		}
	}
	if len(seen.tiered) >= fsm.MaxTiered {
		return 0, 0, 0, 0, 0, false
	}
	segments := r.Log.Segments()
	size := int64(0)
	for i, s := range segments {
		if s.Active || s.Start < 0 || segments[i+1].Start < 0 {
			break
		}
		next := fsm.Offset(segments[i+1].Start)
		if next <= from {
			continue
		}
		if next > limit || size > 0 && size+s.Bytes > cmp.Or(r.env.TierSegmentBytes, uploadBytes) || to == 0 && fsm.Offset(s.Start) > from {
			break
		}
		size, to = size+s.Bytes, next
		if !s.LastWrite.IsZero() {
			lastWrite = max(lastWrite, s.LastWrite.UnixMilli())
		}
	}
	return from, to, lastWrite, decided.Horizon, decided.Bound, to > from
}

// upload brings the next segment to the store and has it named.
func (r *Records) upload(ctx context.Context, topic *fsm.Topic, p *proposer) error {
	env := r.env
	if !topic.Tiered(env.TopicDefaults) || strings.EqualFold(env.config(topic, "remote.log.copy.disable"), "true") {
		return nil
	}
	from, to, lastWrite, horizon, clean, ok := r.nextUpload(topic)
	if !ok {
		return nil
	}
	began := time.Now()
	u, err := env.Tier.Begin(ctx, r.ID, from, p.term)
	if err != nil {
		return err
	}
	compacted := topic.Compacted(env.TopicDefaults)
	segment, err := r.fill(ctx, u, from, to, lastWrite, compacted)
	r.stepOfCopy("uploaded")
	if err != nil {
		r.abandon(u)
		if errors.Is(err, errRewritten) || errors.Is(err, raftlog.ErrNotInLog) {
			return nil // next time
		}
		return err
	}
	if compacted {
		segment.Clean = clean
	}
	if named, err := r.name(ctx, p, u, fsm.TierAddCommand(segment, horizon)); !named {
		return err
	}
	env.Tier.Segments.Add(1)
	env.Logger.Info("records are in the tier", "topic", topic.Name, "partition", r.ID.Partition, "from", from, "to", to, "bytes", segment.Bytes, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// abandon deletes what an upload has put into the store.
func (r *Records) abandon(u *tier.Upload) {
	ctx, cancel := context.WithTimeout(r.env.ctx, tierGrace)
	defer cancel()
	u.Abandon(ctx)
}

// name has the group agree on a command that names what was uploaded. It does not, without an
// error, if what was decided meanwhile does not fit to that.
func (r *Records) name(ctx context.Context, p *proposer, u *tier.Upload, command []byte) (bool, error) {
	err := r.decide(ctx, p, command)
	switch {
	case err == nil:
		return true, nil
	case outcome.Code(err) == outcome.ErrVoid:
		r.abandon(u) // nobody will ever name it
		r.env.Logger.Info("records that were put into the store are not named", "partition", r.ID, "error", err)
		return false, nil
	case !outcome.NotAppended(err):
		r.mu.Lock()
		r.tiering.unsure = p.term
		r.mu.Unlock()
	}
	return false, fmt.Errorf("naming a segment of the tier: %w", err)
}

// errRewritten ends an upload of segments that were compacted meanwhile: batches of before and
// aborted transactions of after do not fit together.
var errRewritten = errors.New("the segments were compacted meanwhile")

// fill reads offsets of this replica's log into an upload. Where that is compacted what is
// committed goes there as records of no transaction: replicas let go of it, and then its marker,
// which may be far behind, goes as that of a transaction of which nothing is left.
func (r *Records) fill(ctx context.Context, u *tier.Upload, from, to fsm.Offset, lastWrite int64, compacted bool) (s fsm.TieredSegment, err error) {
	rewritten := r.Log.Rewritten()
	r.mu.Lock()
	seen := r.seen
	r.mu.Unlock()
	reader, err := r.Log.ReadAt(int64(from), 1<<20)
	if err != nil {
		return s, err
	}
	defer reader.Close()
	// The first offset may be missing since the log was restored, and have the epoch in front of
	// it.
	first, err := r.epochAt(ctx, from)
	if err != nil {
		return s, err
	}
	u.Epoch(first, from)
	aborted, err := r.aborted(seen, from, to)
	if err != nil {
		return s, err
	}
	isAborted := whetherAborted(aborted)
	for fsm.Offset(reader.Expected()) < to {
		if err := ctx.Err(); err != nil {
			return s, err
		}
		entry, err := reader.Next(uint64(seen.last))
		if errors.Is(err, io.EOF) {
			return s, fmt.Errorf("offset %d is committed and not in the log", reader.Expected())
		}
		if err != nil {
			r.keeper.ReadFailed(r.Replica, err, 0)
			return s, err
		}
		before := fsm.Offset(reader.Expected())
		if entry.Type != raft.LogCommand {
			continue
		}
		e := stored(&entry, before)
		if after, _ := span(&entry, int64(before)); fsm.Offset(after) > from {
			begins := before
			if e.Stamp.Restored {
				begins = max(begins, e.Stamp.First)
			}
			u.Epoch(e.Stamp.Epoch(), max(begins, from))
		}
		for batch := range e.Batches() {
			if e.Next <= from || fsm.Offset(batch.Header().BaseOffset) >= to {
				continue
			}
			if err := batch.CheckCRC(); err != nil {
				err = fmt.Errorf("%w: %w", raftlog.ErrDamaged, err)
				r.keeper.ReadFailed(r.Replica, err, 0)
				return s, err
			}
			if compacted && !isAborted(batch.Header()) {
				batch = batch.OutsideTransaction()
			}
			if err := u.Add(ctx, batch, e.Next); err != nil {
				return s, err
			}
		}
		reader.Passed(int64(e.Next))
	}
	if rewritten != r.Log.Rewritten() {
		return s, errRewritten
	}
	return u.Finish(ctx, to, aborted, lastWrite)
}

// list puts a list of what is named into the store, for who has lost the partition's log (List in
// cluster/tier), if there is none yet of this leadership or it has changed.
func (r *Records) list(ctx context.Context, p *proposer) error {
	r.mu.Lock()
	seen, listed := r.seen, r.tiering.listed
	known := r.tiering.listedTerm == p.term
	r.mu.Unlock()
	if !known {
		listed = nil
	}
	next := &tier.List{Term: p.term, Index: seen.last, Start: seen.start, End: seen.next, Segments: seen.tiered}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	var err error
	switch {
	case len(seen.tiered) == 0 && known && listed == nil, len(seen.tiered) > 0 && listed != nil && sameList(listed, next):
		return nil
	case len(seen.tiered) == 0:
		next = nil
		err = r.env.Tier.DropLists(ctx, r.ID, p.term)
	default:
		err = r.env.Tier.PutList(ctx, r.ID, next, listed)
	}
	r.stepOfCopy("listed")
	term := p.term
	if err != nil {
		if next == nil || !errors.Is(err, tier.ErrFull) || !r.goneIsDue() || r.env.Tier.DropLists(ctx, r.ID, p.term) != nil {
			term = 0 // lists of before may be left: all are looked for next time
		}
		// Else what would make room is named by the list of before, and that has made way: for a
		// moment there is none, until what is gone has been deleted.
		next = nil
		err = fmt.Errorf("a list of what is in the tier: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tiering.listed, r.tiering.listedTerm = next, term
	return err
}

// goneIsDue reports whether there is something to delete.
func (r *Records) goneIsDue() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	gone := r.state.TieredGone()
	return len(gone) > 0 && due(gone[0])
}

// due reports whether a segment has not been named for so long that its objects can go.
func due(g fsm.GoneSegment) bool { return time.Now().UnixMilli()-g.At >= tierGrace.Milliseconds() }

// sameList reports whether two lists name the same, of a log that starts at the same offset.
func sameList(a, b *tier.List) bool {
	return a.Start == b.Start && slices.EqualFunc(a.Segments, b.Segments, func(a, b fsm.TieredSegment) bool { return a.ID == b.ID })
}

// deleteGone deletes the objects of segments that are not named any more, not even by the newest
// list.
func (r *Records) deleteGone(ctx context.Context, p *proposer) error {
	storing, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	r.mu.Lock()
	gone, listed, known := r.state.TieredGone(), map[uint64]bool{}, r.tiering.listedTerm == p.term
	if l := r.tiering.listed; l != nil {
		for _, s := range l.Segments {
			listed[s.ID] = true
		}
	}
	r.mu.Unlock()
	if !known {
		return nil // nobody knows what the newest list names
	}
	var done []fsm.GoneSegment
	var err error
	for _, g := range gone {
		if len(done) == deleteAtOnce || listed[g.ID] || !due(g) {
			break
		}
		if len(done) == 0 {
			// The list is this leader's, and what is gone may be a later one's doing.
			if err = r.ReadIndex(ctx, p.term); err != nil {
				break
			}
		}
		if err = r.env.Tier.Delete(storing, r.ID, g); err != nil {
			break
		}
		done = append(done, g)
	}
	if len(done) == 0 {
		return err
	}
	r.stepOfCopy("deleted")
	return errors.Join(err, r.decide(ctx, p, fsm.TierForgetCommand(done)))
}

// deleteOrphans deletes the objects that nobody will name, once in a leadership and then at times.
func (r *Records) deleteOrphans(ctx context.Context, p *proposer) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	r.mu.Lock()
	t := &r.tiering
	due := t.unsure != p.term && (t.term != p.term || time.Since(t.scanned) >= orphansEvery)
	r.mu.Unlock()
	if !due {
		return nil
	}
	type name struct {
		first fsm.Offset
		term  fsm.Term
		id    uint64
	}
	n, err := r.env.Tier.Orphans(ctx, r.ID, p.term, func() (func(fsm.Offset, fsm.Term, uint64) bool, error) {
		if err := r.ReadIndex(ctx, p.term); err != nil {
			return nil, err
		}
		known := map[name]bool{}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, s := range r.state.Tiered() {
			known[name{s.First, s.Term, s.ID}] = true
		}
		for _, g := range r.state.TieredGone() {
			known[name{g.First, g.Term, g.ID}] = true
		}
		return func(first fsm.Offset, term fsm.Term, id uint64) bool { return known[name{first, term, id}] }, nil
	})
	if n > 0 {
		r.env.Logger.Info("objects of the tier that nobody names are deleted", "partition", r.ID, "objects", n)
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tiering.scanned, r.tiering.term = time.Now(), p.term
	// A list of an older leader may have come late: they are looked for with the next one.
	r.tiering.listedTerm = 0
	return nil
}
