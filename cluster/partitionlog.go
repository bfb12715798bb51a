package cluster

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// trailingEntries is how many entries below a snapshot a leader still sends one by
// one. A follower that is further behind copies segments instead.
var trailingEntries uint64 = 1024

// never is a time that does not come: what Raft would do at intervals, the node
// does by bytes.
const never = 1 << 62

// logOptions gives the settings of the node's store of partition logs.
func (n *Node) logOptions() raftlog.Options {
	opts := raftlog.Options{
		FS:     n.cfg.fs,
		Logger: n.logger,
		OnFail: n.diskFailed,
	}
	forMeasuring(&opts, n.logger)
	return opts
}

// partitionFiles opens the log of a replica.
func (n *Node) partitionFiles(r *replica) openFiles {
	return func(fresh bool) (groupFiles, error) {
		opts := r.machine.logOptions()
		opts.Group, opts.Fresh, opts.Trailing = r.id.String(), fresh, trailingEntries
		opts.OnDamage = func(err error) { n.damaged(r, err) }
		log, err := n.logs.OpenLog(n.partitionDir(r.id), opts)
		if err != nil {
			return groupFiles{}, err
		}
		r.log = log
		return groupFiles{log: log, snapshots: log.Snapshots(), serving: log.Serving}, nil
	}
}

// logOptions implements machine.
func (r *records) logOptions() raftlog.LogOptions {
	n := r.node
	return raftlog.LogOptions{
		SegmentBytes: func() int64 { return n.configNumber(r.id.Topic, "segment.bytes") },
		SegmentAge: func() time.Duration {
			return time.Duration(min(n.configNumber(r.id.Topic, "segment.ms"), math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
		},
		Span: span,
		Bulk: func(entry *raft.Log) bool { return entry.Type == raft.LogCommand && fsm.IsRecords(entry.Data) },
	}
}

// config gives a topic's configuration: its own, the node's default, Kafka's.
func (n *Node) config(topic *fsm.Topic, name string) string {
	return topic.ConfigOr(n.cfg.TopicDefaults, name)
}

// configNumber is config for numbers; of a topic that is gone, Kafka's default.
func (n *Node) configNumber(id fsm.TopicID, name string) int64 {
	topic, ok := n.Topics().ByID(id)
	if !ok {
		topic = &fsm.Topic{}
	}
	value, err := strconv.ParseInt(n.config(topic, name), 10, 64)
	if err != nil {
		value, _ = strconv.ParseInt((&fsm.Topic{}).Config(name), 10, 64)
	}
	return value
}

// span tells the log what an entry adds (raftlog.Span).
func span(entry *raft.Log, next int64) (after, maxTime int64) {
	maxTime = math.MinInt64
	if entry.Type != raft.LogCommand || !fsm.IsRecords(entry.Data) {
		return next, maxTime
	}
	for batch, err := range kafkaproto.SplitBatches(entry.Data) {
		if err != nil {
			break
		}
		if header, good := fsm.GoodBatch(batch, fsm.Offset(next), fsm.Term(entry.Term)); good {
			next = header.NextOffset()
			maxTime = max(maxTime, header.MaxTimestamp)
		}
	}
	return next, maxTime
}

// readCommitted gives what this replica has applied at offset from. ok is false
// if from lies outside of what it has.
func (r *records) readCommitted(from fsm.Offset, maxBytes int) (slice fsm.Slice, ok bool, err error) {
	r.mu.Lock()
	slice.LogStart, slice.HighWatermark = r.state.LogStart(), r.state.NextOffset()
	last := r.state.LastApplied()
	r.mu.Unlock()
	if from < slice.LogStart || from >= slice.HighWatermark {
		return slice, false, nil
	}
	reader, err := r.log.ReadAt(int64(from), maxBytes)
	if errors.Is(err, raftlog.ErrNotInLog) {
		if start, _ := r.bounds(); from < start {
			return slice, false, nil // freed this moment
		}
	}
	if err != nil {
		return slice, true, r.unreadable(err, 0)
	}
	defer reader.Close()
	for len(slice.Batches) < maxBytes || len(slice.Batches) == 0 {
		// The state machine's own index bounds the read: Raft's applied index runs ahead of it.
		entry, err := reader.Next(uint64(last))
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, raftlog.ErrNotInLog) && len(slice.Batches) == 0 {
			if start, _ := r.bounds(); from < start {
				return slice, false, nil // freed this moment
			}
		}
		if err != nil {
			if len(slice.Batches) > 0 {
				break // the next read begins there
			}
			if err := r.passDamage(reader, from, err); err != nil {
				return slice, true, err
			}
			continue
		}
		if full := takeBatches(&slice, reader, &entry, from, maxBytes); full {
			break
		}
	}
	if len(slice.Batches) == 0 {
		return slice, true, fmt.Errorf("%w: offset %d is committed and not in the log", outcome.ErrStorage, from)
	}
	return slice, true, nil
}

// takeBatches adds what a reader at offset from gets of an entry. full: it is enough.
func takeBatches(slice *fsm.Slice, reader *raftlog.Reader, entry *raft.Log, from fsm.Offset, maxBytes int) (full bool) {
	if entry.Type != raft.LogCommand || !fsm.IsRecords(entry.Data) {
		return false
	}
	next := fsm.Offset(reader.Expected())
	for batch, err := range kafkaproto.SplitBatches(entry.Data) {
		if err != nil {
			break // the rest of the entry was void at apply, too
		}
		header, good := fsm.GoodBatch(batch, next, fsm.Term(entry.Term))
		if !good {
			continue
		}
		next = fsm.Offset(header.NextOffset())
		if next <= from {
			continue
		}
		if len(slice.Batches) > 0 && len(slice.Batches)+len(batch) > maxBytes {
			// Not all of the entry: the next read begins in front of it.
			reader.Unread()
			return true
		}
		if slice.Batches == nil {
			// The reader's bytes are its own. Most reads get what they asked for, if
			// there is as much.
			slice.Batches = make([]byte, 0, max(len(batch), min(int64AsInt(reader.Left())+len(entry.Data), maxBytes)))
		}
		slice.Batches = append(slice.Batches, batch...)
		if len(slice.Batches) >= maxBytes {
			full = true
		}
	}
	reader.Passed(int64(next))
	return full
}

func int64AsInt(n int64) int { return int(min(n, math.MaxInt32)) }
