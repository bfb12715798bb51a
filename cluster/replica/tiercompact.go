package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/trimaran-io/trimaran/cluster/compaction"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// What is in the tier of a compacted topic is compacted there by the leader, which reads segments,
// leaves out what has newer records of the same keys, and has what it has put there named in place
// of them. Replicas have no part in it, so the result need not be the same whoever makes it. Only a
// record goes whose key has a newer one, and that one stays until a newer one takes its place: the
// horizon, below which tombstones go, stands still while something is in the tier.

// compactTier compacts what is in the tier, if there is enough that is not.
func (r *Records) compactTier(ctx context.Context, topic *fsm.Topic, p *proposer) error {
	env := r.env
	settings, ok := r.compactionOf(topic)
	if !ok || !topic.Tiered(env.TopicDefaults) {
		return nil
	}
	here := r.Log.Compaction()
	r.mu.Lock()
	seen, decided := r.seen, r.state.Compaction()
	r.mu.Unlock()
	if len(seen.tiered) == 0 || decided.Index == 0 || !here.Whole() || here.Decision != uint64(decided.Index) {
		return nil
	}
	from, due := r.tierDirty(seen, decided.Bound, settings, time.Now())
	if !due {
		return nil
	}
	select {
	case env.tierRound <- struct{}{}: // for the memory that keys take
		defer func() { <-env.tierRound }()
	default:
		return nil
	}
	began := time.Now()
	keys := compaction.NewKeys(cmp.Or(env.CompactionMemory, defaultCompactionMemory), int64(decided.Bound-from))
	to, err := r.tierKeys(ctx, seen, decided, keys, from)
	if err != nil {
		return fmt.Errorf("reading keys of the tier: %w", err)
	}
	before, after := int64(0), int64(0)
	for rest := seen.tiered; ; {
		group, left := tierGroup(rest, to, cmp.Or(env.TierSegmentBytes, uploadBytes))
		if rest = left; len(group) == 0 {
			break
		}
		// A round may take long, and disks fill meanwhile.
		if err := r.upload(ctx, topic, p); err != nil {
			return err
		}
		if err := r.list(ctx, p); err != nil {
			return err
		}
		was, is, err := r.rewriteTier(ctx, p, group, to, keys, began.UnixMilli()-settings.deleteRetention)
		if err != nil {
			return fmt.Errorf("compacting the tier: %w", err)
		}
		before, after = before+was, after+is
	}
	env.Tier.Saved.Add(before - after)
	env.Logger.Info("the tier is compacted", "topic", topic.Name, "partition", r.ID.Partition, "to", to, "bytes", before, "saved", before-after, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// tierDirty gives the offset below which no record in the tier has a newer one of its key, and
// whether enough is behind that, in the tier and up to bound in this replica's log, or has been
// there for too long (max.compaction.lag.ms).
func (r *Records) tierDirty(seen seen, bound fsm.Offset, settings compactionSettings, now time.Time) (from fsm.Offset, due bool) {
	from = bound
	for _, s := range seen.tiered {
		from = min(from, max(s.Clean, s.First))
	}
	end := seen.tiered[len(seen.tiered)-1].Next
	dirty, _, _ := r.closed(max(end, from), bound, math.MaxInt64)
	clean, since := int64(0), int64(math.MaxInt64)
	for _, s := range seen.tiered {
		if s.First < from {
			clean += s.Bytes
		} else {
			dirty += s.Bytes
			since = min(since, s.LastWrite)
		}
	}
	switch {
	case from >= bound:
		return from, false
	case settings.most < math.MaxInt64 && since == math.MaxInt64:
		since = r.writtenAt(max(end, from))
	}
	return from, dirtyRatio(dirty, clean) > settings.ratio || settings.most < math.MaxInt64 && now.UnixMilli()-since >= settings.most
}

var errKeysFull = errors.New("there is no memory for more keys")

// tierKeys notes the newest offsets of the keys from an offset on, in the tier and in this
// replica's log, up to where a decision has compacted it or there is memory for: that it gives.
func (r *Records) tierKeys(ctx context.Context, seen seen, decided fsm.Compaction, keys *compaction.Keys, from fsm.Offset) (to fsm.Offset, err error) {
	for _, s := range seen.tiered {
		if s.Next <= from {
			continue
		}
		err := r.env.Tier.Batches(ctx, r.ID, s, func(batch kafkaproto.Batch, aborted bool) error {
			h := batch.Header()
			if aborted || h.Control() || fsm.Offset(h.NextOffset()) <= from {
				return nil
			}
			full := false
			err := batch.Records(func(record kafkaproto.Record) bool {
				offset := fsm.Offset(record.Offset)
				if record.Key == nil || offset < from || keys.Put(record.Key, offset) {
					return true
				}
				to, full = offset, true
				return false
			})
			if err == nil && full {
				return errKeysFull
			}
			return nil // what cannot be read stays as it is
		})
		if errors.Is(err, errKeysFull) {
			return to, nil
		}
		if err != nil {
			return 0, err
		}
	}
	end := seen.tiered[len(seen.tiered)-1].Next
	round := compaction.NewRound(decided, decided.Bound, keys, r.abortedFrom)
	return r.collect(round, decided, max(end, from), func(int) error { return ctx.Err() })
}

// tierGroup gives the first segments of some that follow each other, have records below an offset
// and are not clean up to there, and have no more bytes than most together; left is what is behind
// them.
func tierGroup(segments []fsm.TieredSegment, to fsm.Offset, most int64) (group, left []fsm.TieredSegment) {
	begin := slices.IndexFunc(segments, func(s fsm.TieredSegment) bool { return s.First < to && s.Clean < to })
	if begin < 0 {
		return nil, nil
	}
	end, size := begin, int64(0)
	for end < len(segments) {
		s := segments[end]
		if s.First >= to || s.Clean >= to || end > begin && size+s.Bytes > most {
			break
		}
		size, end = size+s.Bytes, end+1
	}
	return segments[begin:end], segments[end:]
}

// rewriteTier puts a segment in place of some that follow each other, without the records below an
// offset that have newer ones of their keys. Markers of committed transactions that were written
// before settled, ms since epoch, may go. It gives the bytes of records before and after that.
func (r *Records) rewriteTier(ctx context.Context, p *proposer, group []fsm.TieredSegment, to fsm.Offset, keys *compaction.Keys, settled int64) (before, after int64, err error) {
	markers := tierMarkers{settled: settled, ended: map[int64]bool{}, begun: map[int64]bool{}}
	keep := func(batch kafkaproto.Batch, aborted bool) (kafkaproto.Batch, error) {
		h := batch.Header()
		if fsm.Offset(h.BaseOffset) >= to {
			return batch, nil
		}
		if h.Control() {
			if markers.needed(batch) {
				return batch, nil
			}
			return kafkaproto.Batch{}, nil
		}
		if h.Transactional() {
			markers.begun[h.ProducerID] = true
		}
		rest, kept, err := batch.Retain(func(record kafkaproto.Record) bool {
			offset := fsm.Offset(record.Offset)
			return offset >= to || !aborted && record.Key != nil && keys.Newest(record.Key) <= offset
		})
		switch {
		case err != nil:
			return batch, nil // what cannot be read stays as it is
		case kept == 0:
			return kafkaproto.Batch{}, nil
		case aborted:
			return rest, nil
		}
		return rest.OutsideTransaction(), nil
	}
	u, err := r.env.Tier.Begin(ctx, r.ID, group[0].First, p.term)
	if err != nil {
		return 0, 0, err
	}
	var rows []fsm.AbortedTransaction
	lastWrite := int64(0)
	for _, s := range group {
		more, err := u.Rewrite(ctx, s, keep)
		if err != nil {
			r.abandon(u)
			return 0, 0, err
		}
		rows, lastWrite, before = append(rows, more...), max(lastWrite, s.LastWrite), before+s.Bytes
	}
	slices.SortFunc(rows, func(a, b fsm.AbortedTransaction) int { return cmp.Compare(a.Last, b.Last) })
	rows = slices.CompactFunc(rows, func(a, b fsm.AbortedTransaction) bool { return a.Last == b.Last })
	segment, err := u.Finish(ctx, group[len(group)-1].Next, rows, lastWrite)
	r.stepOfCopy("uploaded")
	if err != nil {
		r.abandon(u)
		return 0, 0, err
	}
	segment.Clean = to
	_, err = r.name(ctx, p, u, fsm.TierReplaceCommand(group, segment))
	return before, segment.Bytes, err
}

// tierMarkers says which markers stay in a segment that is put in place of others. Who reads needs
// markers of aborted transactions alone. Who restores a log from what is here must not find a
// transaction without its marker: of one that is committed, what is in the group is taken out of
// it.
type tierMarkers struct {
	settled int64          // ms since epoch
	ended   map[int64]bool // producers of which a transaction has ended in the group
	begun   map[int64]bool // those with records in a transaction behind that
}

// needed reports whether a control batch stays. Those of committed transactions go, but:
//
//   - the first one of a producer, which may be that of a transaction that begins in front of the
//     group;
//   - those that are not settled: a backup may have the records from before, and be about to read
//     on behind them, for which it has delete.retention.ms, as a reader has with a tombstone;
//   - for the same reason that of a transaction whose records were in it up to now. The next one
//     who compacts the tier lets it go.
func (m *tierMarkers) needed(batch kafkaproto.Batch) bool {
	h := batch.Header()
	marker, err := kafkaproto.ParseMarker(batch)
	if err != nil {
		return true
	}
	gone := marker.Commit && m.ended[h.ProducerID] && !m.begun[h.ProducerID] && h.MaxTimestamp < m.settled
	m.ended[h.ProducerID] = true
	delete(m.begun, h.ProducerID)
	return !gone
}
