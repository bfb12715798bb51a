package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// This file is a fetch at work: what it may read, in which order, and how long it
// waits.

// satisfied reports whether the answer can go out now.
func (f *fetch) satisfied(minBytes int) bool {
	if f.code != 0 || len(f.parts) == 0 || f.full {
		return true
	}
	for _, p := range f.parts {
		if p.err != nil {
			return true
		}
	}
	return f.have >= minBytes
}

// read reads partitions, those beside each other for which there is room in the
// answer at once, in the order of the request (KIP-74).
func (f *fetch) read(parts []*fetchPart) {
	for _, p := range parts {
		f.giveBack(p)
	}
	all, cancel := context.WithTimeout(f.session.open, 2*readGrace)
	defer cancel()
	for len(parts) > 0 {
		wave := f.wave(parts)
		parts = parts[len(wave):]
		ctx, cancel := context.WithTimeout(all, readGrace)
		if len(wave) == 1 {
			f.readPart(ctx, wave[0])
		} else {
			f.each(wave, parallelReads, func(p *fetchPart) { f.readPart(ctx, p) })
		}
		cancel()
		f.fit(wave)
	}
}

// wave grants room to parts, up to the first for which there may be more once
// those before it have been read. With no room left, all get none.
func (f *fetch) wave(parts []*fetchPart) []*fetchPart {
	if f.left <= 0 {
		f.full = true
		for _, p := range parts {
			p.granted = 0
		}
		return parts
	}
	for i, p := range parts {
		if i > 0 && p.maxBytes > f.left {
			return parts[:i]
		}
		p.granted = f.grant(p)
	}
	return parts
}

// fit settles what was read. From version 3 on nothing is cut: a batch that is
// larger than its partition's or the answer's limit comes only if nothing comes
// before it.
func (f *fetch) fit(wave []*fetchPart) {
	for _, p := range wave {
		if f.version >= 3 && len(p.out.RecordBatches) > p.granted {
			if f.have > 0 {
				p.out.RecordBatches, p.next, f.full = []byte{}, -1, true
			}
		}
		f.have += len(p.out.RecordBatches)
		f.settle(p, p.granted, len(p.out.RecordBatches))
		if f.version >= 3 && (f.left <= 0 || p.err == nil && p.next < 0) {
			f.full = true
		}
	}
}

// each runs work for every part on at most limit goroutines and returns when all
// are done. A panic in one is the caller's.
func (f *fetch) each(parts []*fetchPart, limit int, work func(*fetchPart)) {
	var wg sync.WaitGroup
	var once sync.Once
	var panicked any
	queue := make(chan *fetchPart)
	for range min(limit, len(parts)) {
		wg.Go(func() {
			for p := range queue {
				func() {
					defer func() {
						if v := recover(); v != nil {
							once.Do(func() { panicked = v })
						}
					}()
					work(p)
				}()
			}
		})
	}
	for _, p := range parts {
		queue <- p
	}
	close(queue)
	wg.Wait()
	if panicked != nil {
		panic(panicked)
	}
}

// readPart reads one partition with what it was granted, or reads it again.
func (f *fetch) readPart(ctx context.Context, p *fetchPart) {
	want := p.granted
	if want == 0 && p.maxBytes > 0 {
		p.next = -1 // nothing is left; the answer is full
		return
	}
	set, slice, err := f.readSet(ctx, p, want)
	switch {
	case err != nil && ctx.Err() != nil:
		err = fmt.Errorf("%w: %w", fsm.ErrNoLeader, err) // somebody else may answer sooner
		fallthrough
	case err != nil:
		p.err, p.next = err, -1
		p.answer(codeOf(err, kmsg.Fetch, f.version), -1, -1, []byte{})
		return
	}
	p.err = nil
	p.answer(0, slice.HighWatermark, slice.LogStart, set)
	p.next = max(p.from, slice.end)
	if len(set) >= want || p.next < slice.HighWatermark {
		p.next = -1 // what is there already does not fit: to wait for it would be to spin
	}
}

// answer fills in the partition's answer. What is committed is stable: there are
// no transactions that could be open.
func (p *fetchPart) answer(code int16, highWatermark, logStart fsm.Offset, set []byte) {
	p.out.ErrorCode, p.out.RecordBatches = code, set
	p.out.HighWatermark, p.out.LastStableOffset, p.out.LogStartOffset = int64(highWatermark), int64(highWatermark), int64(logStart)
}

// reading is what one read of a partition gave.
type reading struct {
	fsm.Slice
	end fsm.Offset // the offset after the last batch; 0 if there was none
}

// readSet reads batches and gives them in the format of the request's version,
// record batches as they are. What an old version cannot see, markers of
// transactions for instance, is skipped over: otherwise a consumer would ask for
// the same offset for ever.
func (f *fetch) readSet(ctx context.Context, p *fetchPart, want int) (set []byte, got reading, err error) {
	for from := p.from; ; from = got.end {
		got.Slice, err = f.session.server.cluster.Read(ctx, p.id, from, want)
		if err != nil || len(got.Batches) == 0 {
			return []byte{}, got, err
		}
		if f.version < 10 {
			if got.Batches, err = withoutZstd(got.Batches); err != nil {
				return nil, got, err
			}
		}
		got.end = endOf(got.Batches, from)
		if f.version >= 4 {
			return got.Batches, got, nil
		}
		if set, err = f.downConvert(got.Batches, from, want); err != nil {
			f.session.server.refusals.log("records cannot be given out", err, "topic", p.topic, "partition", p.id.Partition, "offset", from)
		}
		if err != nil || len(set) > 0 || want == 0 || got.end <= from {
			return set, got, err
		}
	}
}

// downConvert makes a message set of batches, for versions below 4. From version 3
// on its first message is whole even if that takes more than want.
func (f *fetch) downConvert(batches []byte, from fsm.Offset, want int) ([]byte, error) {
	magic := int8(0)
	if f.version >= 2 {
		magic = 1
	}
	const prefix = 12 // of a message: offset and size
	if f.version >= 3 {
		want = max(want, prefix)
	}
	set := make([]byte, 0, min(want, len(batches)+len(batches)/4+64))
	set, err := kafkaproto.ToMessageSet(set, batches, magic, int64(from), want)
	if err != nil || f.version < 3 || len(set) < prefix {
		return set, err
	}
	if first := prefix + int(binary.BigEndian.Uint32(set[8:])); first > len(set) {
		return kafkaproto.ToMessageSet(set[:0], batches, magic, int64(from), first)
	}
	return set, nil
}

// withoutZstd gives the batches in front of the first that a client older than
// zstd cannot read (KIP-110). As in Kafka nothing is recompressed for it.
func withoutZstd(batches []byte) ([]byte, error) {
	end := 0
	for batch, err := range kafkaproto.SplitBatches(batches) {
		if err != nil {
			break // whoever reads it says so
		}
		if h, err := kafkaproto.ParseBatchHeader(batch); err == nil && h.Codec() == kafkaproto.Zstd {
			if end == 0 {
				return nil, fmt.Errorf("%w: zstd, and the client does not know it", kafkaproto.ErrUnsupportedCompression)
			}
			return batches[:end], nil
		}
		end += len(batch)
	}
	return batches, nil
}

// endOf gives the offset after the last of batches.
func endOf(batches []byte, from fsm.Offset) fsm.Offset {
	for batch, err := range kafkaproto.SplitBatches(batches) {
		if err != nil {
			break
		}
		if h, err := kafkaproto.ParseBatchHeader(batch); err == nil {
			from = max(from, fsm.Offset(h.NextOffset()))
		}
	}
	return from
}

// grant takes what a read may return out of what the answer and the node's memory
// have left.
func (f *fetch) grant(p *fetchPart) int {
	want := max(min(p.maxBytes, f.left), 0)
	f.left -= want
	if want <= leanRead {
		return want
	}
	if f.session.server.answerBytes.try(int64(want)) {
		p.held = int64(want)
		return want
	}
	f.left += want - leanRead
	return leanRead
}

// settle gives back what a read did not use.
func (f *fetch) settle(p *fetchPart, granted, used int) {
	f.left += granted - used
	if p.held > int64(used) {
		f.session.server.answerBytes.release(p.held - int64(used))
		p.held = int64(used)
	}
}

// giveBack forgets what was read before.
func (f *fetch) giveBack(p *fetchPart) {
	f.have -= len(p.out.RecordBatches)
	f.settle(p, len(p.out.RecordBatches), 0)
	p.out.RecordBatches = []byte{}
}

func (f *fetch) release() {
	for _, p := range f.parts {
		if p.held > 0 {
			f.session.server.answerBytes.release(p.held)
			p.held = 0
		}
	}
}

// await waits for commits until the answer has enough or the deadline passes, or
// the session has no time any more.
func (f *fetch) await(deadline time.Time, minBytes int) {
	ctx, cancel := context.WithDeadline(f.session.patient, deadline)
	woken := make(chan *fetchPart, len(f.parts))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wait := func(p *fetchPart) {
		from := p.next
		if from < 0 {
			return
		}
		wg.Go(func() {
			defer func() {
				if v := recover(); v != nil {
					f.session.server.log.Error("waiting for records panicked", "panic", v, "partition", p.id)
				}
			}()
			err := f.session.server.cluster.Await(ctx, p.id, from)
			if err == nil || ctx.Err() == nil && !errors.Is(err, context.Canceled) {
				woken <- p // an error is found again by reading
			}
		})
	}
	for _, p := range f.parts {
		wait(p)
	}
	for {
		var some []*fetchPart
		select {
		case p := <-woken:
			some = append(some, p)
		case <-ctx.Done():
			return
		}
		for more := true; more; {
			select {
			case p := <-woken:
				some = append(some, p)
			default:
				more = false
			}
		}
		f.read(some)
		if f.satisfied(minBytes) {
			return
		}
		for _, p := range some {
			wait(p)
		}
	}
}
