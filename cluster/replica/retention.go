package replica

import (
	"context"
	"math"
	"strings"
	"time"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/fsm"
)

const proposeTimeout = 5 * time.Second

// retain implements machine: the decision is an offset, so all replicas begin at
// the same one. What an open transaction has written stays, and all behind it.
func (r *Records) retain(share bool) {
	env := r.env
	p, err := r.proposing()
	if err != nil {
		return
	}
	topic, ok := env.Host.Topics().ByID(r.ID.Topic)
	if !ok {
		return
	}
	if topic.Restoring {
		return
	}
	r.sayLate(topic, time.Now())
	r.compact(p, topic, time.Now())
	r.retainLocal(p, topic, share, time.Now())
	start, next, stable := r.Ends()
	to := start
	policy := env.config(topic, "cleanup.policy")
	if strings.Contains(policy, "delete") {
		limits := retention{
			ms: env.configNumber(topic.ID, "retention.ms"), bytes: env.configNumber(topic.ID, "retention.bytes"),
			ahead: topic.TimestampAhead(env.TopicDefaults),
		}
		to = max(to, r.expired(limits, time.Now()))
	}
	// Of a key that is compacted the newest would go; of a topic with a tier all that is there
	// would, and what replicas need not keep goes by retainLocal.
	if share && policy != "compact" && !topic.Tiered(env.TopicDefaults) {
		to = max(to, r.oldest())
	}
	if to > stable {
		to = max(start, r.segmentStart(stable))
	}
	if to <= start || to > next {
		return
	}
	ctx, cancel := context.WithTimeout(env.ctx, proposeTimeout)
	defer cancel()
	if err := p.control(ctx, fsm.LogStartCommand(to)); err != nil {
		env.Logger.Warn("cannot advance the log start", "partition", r.ID, "to", to, "error", err)
		return
	}
	env.Logger.Info("log start advanced", "topic", topic.Name, "partition", r.ID.Partition, "from", start, "to", to)
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
//
// What is in the tier counts by the segments that it has there, and here only what is not there.
func (r *Records) expired(limits retention, now time.Time) fsm.Offset {
	segments := r.allSegments()
	_, next := r.Bounds()
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

// allSegments describes the log in the tier, and behind that the log here.
func (r *Records) allSegments() (all []raftlog.SegmentInfo) {
	r.mu.Lock()
	seen := r.seen
	r.mu.Unlock()
	here := r.Log.Segments()
	if len(seen.tiered) == 0 {
		return here
	}
	end := int64(0)
	for _, t := range seen.tiered {
		end = int64(t.Next)
		info := raftlog.SegmentInfo{Start: int64(t.First), Bytes: t.Bytes, MaxTime: max(t.MaxTime, 0)}
		if t.LastWrite != 0 {
			info.LastWrite = time.UnixMilli(t.LastWrite)
		}
		all = append(all, info)
	}
	for i, s := range here {
		if s.Start >= 0 && s.Start < end {
			next := int64(seen.next)
			if i+1 < len(here) {
				next = here[i+1].Start
			}
			if next >= 0 && next <= end && !s.Active {
				continue
			}
			// Some of it is in the tier: another leader's segments ended elsewhere.
			if next > s.Start {
				s.Bytes = int64(float64(s.Bytes) * float64(max(next-end, 0)) / float64(next-s.Start))
			}
			s.Start = end
		}
		all = append(all, s)
	}
	return all
}

// retainLocal has the group agree on what replicas need not keep, since it is in the tier
// (local.retention.ms, local.retention.bytes). share: nothing that is there.
func (r *Records) retainLocal(p *proposer, topic *fsm.Topic, share bool, now time.Time) {
	env := r.env
	if env.Tier == nil || !topic.Tiered(env.TopicDefaults) {
		return
	}
	r.mu.Lock()
	seen := r.seen
	r.mu.Unlock()
	if len(seen.tiered) == 0 {
		return
	}
	// As in Kafka, -2 is what is kept of the whole log; of one that is compacted alone, all is.
	deletes := strings.Contains(env.config(topic, "cleanup.policy"), "delete")
	setting := func(name string) int64 {
		switch v := env.configNumber(topic.ID, "local."+name); {
		case v != -2:
			return v
		case !deletes:
			return -1
		}
		return env.configNumber(topic.ID, name)
	}
	limits := retention{ms: setting("retention.ms"), bytes: setting("retention.bytes"), ahead: topic.TimestampAhead(env.TopicDefaults)}
	if share {
		limits.bytes = 0
	}
	to := localLimit(r.Log.Segments(), seen.tiered[len(seen.tiered)-1].Next, limits, now)
	if to <= seen.local {
		return
	}
	ctx, cancel := context.WithTimeout(env.ctx, proposeTimeout)
	defer cancel()
	if err := p.control(ctx, fsm.TierLocalCommand(to)); err != nil {
		env.Logger.Warn("cannot advance the local log start", "partition", r.ID, "to", to, "error", err)
		return
	}
	r.rest.Store(nil) // a snapshot has to follow
	env.Logger.Info("local log start advanced", "topic", topic.Name, "partition", r.ID.Partition, "from", seen.local, "to", to)
}

// localLimit gives the offset below which segments need not be kept here: they are complete, in the
// tier, which ends at an offset, and beyond a limit. 0: none.
func localLimit(segments []raftlog.SegmentInfo, tiered fsm.Offset, limits retention, now time.Time) (to fsm.Offset) {
	over := -limits.bytes
	for _, s := range segments {
		over += s.Bytes
	}
	for i, s := range segments {
		if s.Active || s.Start < 0 || segments[i+1].Start < 0 || fsm.Offset(segments[i+1].Start) > tiered {
			break
		}
		newest := limits.newest(s)
		old := limits.ms >= 0 && now.UnixMilli()-newest > limits.ms
		large := limits.bytes >= 0 && over >= s.Bytes
		if !old && !large {
			break
		}
		over -= s.Bytes
		to = fsm.Offset(segments[i+1].Start)
	}
	return to
}

// segmentStart gives the offset at which the segment begins that holds an offset, or would; 0: not
// known.
func (r *Records) segmentStart(offset fsm.Offset) (start fsm.Offset) {
	for _, s := range r.Log.Segments() {
		if s.Start >= 0 && fsm.Offset(s.Start) <= offset {
			start = fsm.Offset(s.Start)
		}
	}
	return start
}

// oldest gives the end of the oldest segment that is complete.
func (r *Records) oldest() fsm.Offset {
	segments := r.Log.Segments()
	if len(segments) < 2 || segments[1].Start < 0 {
		return 0
	}
	return fsm.Offset(segments[1].Start)
}
