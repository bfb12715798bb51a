package gateway

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// What implements Appender, Records, Offsets and Producers.

type fakeLog struct {
	start, next  fsm.Offset
	batches      []kafkaproto.Batch
	transactions fsm.TransactionIndex
	changed      chan struct{} // closed and replaced at every append
}

func (f *fakeCluster) log(p fsm.PartitionID) (*fakeLog, error) {
	if _, ok := f.catalog.View().Partition(p); !ok {
		return nil, outcome.ErrUnknownTopicOrPartition
	}
	l := f.logs[p]
	if l == nil {
		l = &fakeLog{changed: make(chan struct{})}
		f.logs[p] = l
	}
	return l, nil
}

func (f *fakeCluster) DeleteRecords(ctx context.Context, p fsm.PartitionID, before fsm.Offset) (fsm.Offset, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.log(p)
	if err != nil {
		return -1, err
	}
	if before == -1 {
		before = l.next
	}
	if before < 0 || before > l.next {
		return -1, outcome.ErrOffsetOutOfRange
	}
	l.start = max(l.start, before)
	return l.start, nil
}

func (f *fakeCluster) Producers(ctx context.Context, p fsm.PartitionID) ([]fsm.ActiveProducer, error) {
	return []fsm.ActiveProducer{{ID: 7, Epoch: 2, LastSequence: 99, LastTimestamp: 1234}}, nil
}

func (f *fakeCluster) Append(ctx context.Context, p fsm.PartitionID, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
	if f.append != nil {
		return f.append(ctx, p, batches)
	}
	return f.doAppend(p, batches)
}

// AppendInLine implements order.Appender.
func (f *fakeCluster) AppendInLine(ctx context.Context, p fsm.PartitionID, _ uint64, _ fsm.Transaction, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
	return f.Append(ctx, p, batches)
}

// NewLine implements order.Appender.
func (f *fakeCluster) NewLine(uint16) uint64 { return 1 }

// Pipe implements order.Appender: there is none, so one append of a queue is under way at a time.
func (f *fakeCluster) Pipe(fsm.PartitionID, uint64) func(context.Context, uint32, fsm.Transaction, []kafkaproto.Batch) ([]fsm.Appended, error) {
	return nil
}

func (f *fakeCluster) doAppend(p fsm.PartitionID, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.log(p)
	if err != nil {
		return nil, err
	}
	var out []fsm.Appended
	var counts []int
	for _, b := range batches {
		if err := b.CheckCRC(); err != nil {
			return nil, fmt.Errorf("%w: %w", outcome.ErrCorruptMessage, err)
		}
		b = b.Clone()
		b.Stamp(int64(l.next), int32(f.leaderEpoch()))
		h := b.Header()
		out = append(out, fsm.Appended{BaseOffset: l.next, LogStart: l.start, Timestamp: h.MaxTimestamp})
		counts = append(counts, int(h.Records))
		l.transactions.Add(b.Bytes(), fsm.Stamp{Term: fsm.Term(f.leaderEpoch())}, l.next)
		l.next = fsm.Offset(h.NextOffset())
		l.batches = append(l.batches, b)
	}
	f.appends = append(f.appends, counts)
	close(l.changed)
	l.changed = make(chan struct{})
	return out, nil
}

func (f *fakeCluster) Read(ctx context.Context, p fsm.PartitionID, from fsm.Offset, maxBytes int, isolation fsm.Isolation) (fsm.Slice, error) {
	if f.read != nil {
		s, err := f.read(ctx, p, from, maxBytes)
		s.LastStable = s.HighWatermark
		return s, err
	}
	return f.readAt(p, from, maxBytes, isolation)
}

func (f *fakeCluster) doRead(p fsm.PartitionID, from fsm.Offset, maxBytes int) (fsm.Slice, error) {
	return f.readAt(p, from, maxBytes, fsm.ReadUncommitted)
}

func (f *fakeCluster) readAt(p fsm.PartitionID, from fsm.Offset, maxBytes int, isolation fsm.Isolation) (fsm.Slice, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.log(p)
	if err != nil {
		return fsm.Slice{}, err
	}
	if from < l.start || from > l.next {
		return fsm.Slice{}, outcome.ErrOffsetOutOfRange
	}
	s := fsm.Slice{HighWatermark: l.next, LastStable: l.end(fsm.ReadCommitted), LogStart: l.start}
	end := from
	for _, b := range l.batches {
		h := b.Header()
		if fsm.Offset(h.LastOffset()) < from {
			continue
		}
		if len(s.Batches) > 0 && len(s.Batches)+b.Size() > maxBytes || fsm.Offset(h.BaseOffset) >= l.end(isolation) {
			break
		}
		s.Batches, end = append(s.Batches, b.Bytes()...), fsm.Offset(h.NextOffset())
	}
	for _, a := range l.transactions.Aborted {
		if isolation == fsm.ReadCommitted && a.First < end && a.Last >= from {
			s.Aborted = append(s.Aborted, a)
		}
	}
	slices.SortFunc(s.Aborted, func(a, b fsm.AbortedTransaction) int { return cmp.Compare(a.First, b.First) })
	return s, nil
}

// end is where a reader has nothing more to read.
func (l *fakeLog) end(isolation fsm.Isolation) fsm.Offset {
	if isolation == fsm.ReadCommitted {
		return max(l.start, l.transactions.LastStable(l.next))
	}
	return l.next
}

func (f *fakeCluster) LastStable(ctx context.Context, p fsm.PartitionID) (fsm.Offset, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.log(p)
	if err != nil {
		return -1, err
	}
	return l.end(fsm.ReadCommitted), nil
}

func (f *fakeCluster) Await(ctx context.Context, p fsm.PartitionID, from fsm.Offset, isolation fsm.Isolation) error {
	if f.await != nil {
		return f.await(ctx, p, from)
	}
	return f.awaitAt(ctx, p, from, isolation)
}

func (f *fakeCluster) doAwait(ctx context.Context, p fsm.PartitionID, from fsm.Offset) error {
	return f.awaitAt(ctx, p, from, fsm.ReadUncommitted)
}

func (f *fakeCluster) awaitAt(ctx context.Context, p fsm.PartitionID, from fsm.Offset, isolation fsm.Isolation) error {
	for {
		f.mu.Lock()
		l, err := f.log(p)
		if err != nil || l.end(isolation) > from {
			f.mu.Unlock()
			return err
		}
		changed := l.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *fakeCluster) ListOffsets(ctx context.Context, p fsm.PartitionID, timestamp int64, max int) ([]fsm.Offset, error) {
	if f.offsets != nil {
		return f.offsets(ctx, p, timestamp, max)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.log(p)
	if err != nil {
		return nil, err
	}
	switch timestamp {
	case -1:
		return []fsm.Offset{l.next}, nil
	case -2:
		return []fsm.Offset{l.start}, nil
	}
	return nil, nil
}

func (f *fakeCluster) OffsetForTime(ctx context.Context, p fsm.PartitionID, timestamp int64) (fsm.Offset, int64, fsm.LeaderEpoch, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.log(p)
	if err != nil {
		return -1, -1, -1, false, err
	}
	var best kafkaproto.TimestampedOffset
	found := false
	for _, b := range l.batches {
		if timestamp == -3 {
			if at, ok, err := b.Latest(int64(l.start)); err != nil {
				return -1, -1, -1, false, err
			} else if ok && (!found || at.Timestamp > best.Timestamp) {
				best, found = at, true
			}
			continue
		}
		at, ok, err := b.FirstAtOrAfter(int64(l.start), timestamp)
		if err != nil {
			return -1, -1, -1, false, err
		}
		if ok {
			best, found = at, true
			break
		}
	}
	return fsm.Offset(best.Offset), best.Timestamp, fsm.LeaderEpoch(best.LeaderEpoch), found, nil
}

func (f *fakeCluster) EpochEnd(ctx context.Context, p fsm.PartitionID, epoch fsm.LeaderEpoch) (fsm.LeaderEpoch, fsm.Offset, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.log(p)
	if err != nil {
		return -1, -1, err
	}
	if epoch > f.leaderEpoch() {
		return -1, -1, nil
	}
	found, end := epoch, l.next
	for _, b := range l.batches {
		h := b.Header()
		if fsm.LeaderEpoch(h.LeaderEpoch) > epoch {
			return found, fsm.Offset(h.BaseOffset), nil
		}
		found = fsm.LeaderEpoch(h.LeaderEpoch)
	}
	return found, end, nil
}

func (f *fakeCluster) NewProducerID(ctx context.Context) (int64, error) {
	if f.newID != nil {
		return f.newID(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastID++
	return f.lastID, nil
}

// asBatches takes bytes for batches.
func asBatches(raw ...[]byte) (batches []kafkaproto.Batch) {
	for _, b := range raw {
		batch, err := kafkaproto.ParseBatch(b)
		if err != nil {
			panic(err)
		}
		batches = append(batches, batch)
	}
	return batches
}
