package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
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

// onlyStorageFails reports whether the answer has no records, and no error but that records cannot
// be read now.
func (f *fetch) onlyStorageFails() bool {
	if f.code != 0 || f.full || f.have > 0 {
		return false
	}
	fails := false
	for _, p := range f.parts {
		switch {
		case p.err == nil:
		case outcome.Code(p.err) == outcome.ErrStorage || outcome.Code(p.err) == outcome.ErrRemote:
			fails = true
		default:
			return false
		}
	}
	return fails
}

// read reads partitions on from where they are, those beside each other for which there is
// room in the answer at once, in the order of the request (KIP-74). For old versions message sets
// are made when all of these have read: that takes the time it takes, and those behind
// them have no less.
func (f *fetch) read(parts []*fetchPart) {
	patience := 2 * readGrace
	for len(parts) > 0 {
		wave := f.wave(parts)
		parts = parts[len(wave):]
		began := time.Now()
		ctx, cancel := context.WithTimeout(f.reply.Open(), min(readGrace, patience))
		f.each(wave, func(p *fetchPart) { f.readPart(ctx, p) })
		cancel()
		patience -= time.Since(began)
		if f.version < 4 {
			f.each(wave, f.convertPart)
		}
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
		if i > 0 && p.maxBytes-len(p.out.RecordBatches) > f.left {
			return parts[:i]
		}
		p.granted = f.grant(p)
	}
	return parts
}

// fit settles what was read. From version 3 on nothing is cut: a batch that is
// larger than its partition's or the answer's limit comes only if nothing comes
// before it. A partition that cannot be read any more has nothing of what it had.
func (f *fetch) fit(wave []*fetchPart) {
	for _, p := range wave {
		if p.whole > 0 {
			f.fitWhole(p)
		}
		if f.version >= 3 && len(p.more) > p.granted && f.have > 0 {
			p.more, p.aborted, p.next, f.full = nil, nil, -1, true
		}
		if had := len(p.out.RecordBatches); p.err != nil && had > 0 {
			f.have -= had
			f.left += had + abortedSize*len(p.out.AbortedTransactions)
			p.out.RecordBatches, p.joined = []byte{}, false
			p.out.AbortedTransactions = []kmsg.FetchResponseTopicPartitionAbortedTransaction{}
			p.letGo()
			f.conn.server.answerBytes.Release(p.heldAborted)
			p.heldAborted = 0
		}
		f.holdNoMore(p)
		f.holdAborted(p)
		f.have += len(p.more)
		f.left += p.granted - len(p.more) - abortedSize*len(p.aborted)
		p.join()
		if f.version < 4 || len(p.out.RecordBatches) == 0 {
			p.letGo() // a message set is memory of its own
		}
		f.holdNoMore(p)
		if f.version >= 3 && (f.left <= 0 || p.err == nil && p.next < 0) || p.stopped {
			f.full = true
		}
	}
}

// holdNoMore gives back memory that was granted for records and that these do not take.
func (f *fetch) holdNoMore(p *fetchPart) {
	if takes := int64(len(p.out.RecordBatches) + len(p.more)); p.held > takes {
		f.conn.server.answerBytes.Release(p.held - takes)
		p.held = takes
	}
}

// abortedSize is what an aborted transaction takes in an answer, in bytes; abortedCost what it
// takes in memory until that is sent: as it was read, as kmsg has it, and encoded.
const (
	abortedSize = 16
	abortedCost = 96
)

// holdAborted counts the aborted transactions of what was read among what answers hold. A few are
// always let through, as leanRead is. For more there has to be memory, or what was read has no
// place in the answer; if it would be all there is, the first batch goes with what concerns it.
func (f *fetch) holdAborted(p *fetchPart) {
	cost := int64(abortedCost * len(p.aborted))
	switch {
	case len(p.aborted) == 0:
	case f.conn.server.answerBytes.Try(cost):
		p.heldAborted += cost
	case cost <= leanRead:
	case f.have > 0:
		p.more, p.aborted, p.next, f.full = nil, nil, -1, true
	default:
		first := fsm.Slice{Batches: p.more, Aborted: p.aborted}
		first.BoundAborted(1)
		p.more, p.aborted, p.next, f.full = first.Batches, first.Aborted, -1, true
	}
}

// join puts what was read behind what there is. What a single read gave stays where it
// is: it belongs to somebody else and may be large.
func (p *fetchPart) join() {
	for _, a := range p.aborted {
		p.out.AbortedTransactions = append(p.out.AbortedTransactions, kmsg.FetchResponseTopicPartitionAbortedTransaction{
			ProducerID: a.ProducerID, FirstOffset: int64(a.First),
		})
	}
	p.aborted = nil
	switch {
	case len(p.more) == 0:
	case len(p.out.RecordBatches) == 0:
		p.out.RecordBatches = p.more
	case !p.joined:
		p.out.RecordBatches, p.joined = append(slices.Clip(p.out.RecordBatches), p.more...), true
		p.letGo()
	default:
		p.out.RecordBatches = append(p.out.RecordBatches, p.more...)
		p.letGo()
	}
	p.more = nil
}

// letGo gives back the memory of what reads gave: nothing of it is in the answer any more, or the
// answer is sent.
func (p *fetchPart) letGo() {
	for _, done := range p.done {
		done()
	}
	p.done = nil
}

// fitWhole has the first message of a part, for which there is not enough room, only
// if nothing comes before it.
func (f *fetch) fitWhole(p *fetchPart) {
	whole, got := p.whole, p.got
	p.whole, p.got, p.more, p.aborted = 0, reading{}, nil, nil
	if f.have > 0 {
		p.next, f.full = -1, true
		return
	}
	if set, err := f.downConvert(got.Batches, got.from, whole); err != nil {
		f.unreadable(p, got, err)
	} else {
		f.give(p, got, set)
	}
}

// each runs work for every part, on at most parallelReads goroutines, and returns when
// all are done. A panic in one is the caller's.
func (f *fetch) each(parts []*fetchPart, work func(*fetchPart)) {
	if len(parts) == 1 {
		work(parts[0])
		return
	}
	var wg sync.WaitGroup
	var once sync.Once
	var panicked any
	queue := make(chan *fetchPart)
	for range min(parallelReads, len(parts)) {
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

// readPart reads one partition with what it was granted.
func (f *fetch) readPart(ctx context.Context, p *fetchPart) {
	p.got, p.more, p.aborted = reading{}, nil, nil
	if p.granted == 0 && p.maxBytes > 0 {
		p.next = -1 // nothing is left; the answer is full
		return
	}
	got, err := f.readBatches(ctx, p, p.next, p.granted)
	switch {
	case errors.Is(err, kafkaproto.ErrUnsupportedCompression):
		f.unusable(ctx, p, err)
	case err != nil:
		f.refuse(ctx, p, err)
	case f.version >= 4 || len(got.Batches) == 0:
		f.give(p, got, got.Batches)
	default:
		p.got = got
	}
}

// refuse answers a partition that could not be read.
func (f *fetch) refuse(ctx context.Context, p *fetchPart, err error) {
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", outcome.ErrNoLeader, err) // somebody else may answer sooner
	}
	p.err, p.next = err, -1
	p.answer(codeOf(err, kmsg.Fetch, f.version), -1, -1, -1)
}

// give answers a partition with what was read, in the format of the version.
func (f *fetch) give(p *fetchPart, got reading, set []byte) {
	p.err, p.more = nil, set
	p.answer(0, got.HighWatermark, got.LastStable, got.LogStart)
	p.aborted = got.Aborted
	if len(p.out.RecordBatches) > 0 {
		// What began in front of this was told with what is there: that ended at a last stable
		// offset or before.
		n := sort.Search(len(p.aborted), func(i int) bool { return p.aborted[i].First >= got.from })
		p.aborted = p.aborted[n:]
	}
	end := got.HighWatermark
	if f.isolation == fsm.ReadCommitted {
		end = got.LastStable
	}
	p.next = got.end
	if len(set) >= p.granted || p.next < end {
		p.next = -1 // what is there already does not fit: to wait for it would be to spin
	}
}

// answer fills in the partition's answer.
func (p *fetchPart) answer(code int16, highWatermark, lastStable, logStart fsm.Offset) {
	p.out.ErrorCode = code
	p.out.HighWatermark, p.out.LastStableOffset, p.out.LogStartOffset = int64(highWatermark), int64(lastStable), int64(logStart)
}

// reading is what one read of a partition gave.
type reading struct {
	fsm.Slice
	from fsm.Offset // what was asked for
	end  fsm.Offset // the offset after the last batch; from if there was none
}

// readBatches reads those batches that a client of the version knows.
func (f *fetch) readBatches(ctx context.Context, p *fetchPart, from fsm.Offset, maxBytes int) (got reading, err error) {
	got.from = from
	if got.Slice, err = f.conn.server.records.Read(ctx, p.id, from, maxBytes, f.isolation); err != nil {
		return got, err
	}
	if got.Done != nil {
		p.done = append(p.done, got.Done)
	}
	got.Batches, got.end, err = readable(got.Batches, f.version >= 10, from)
	return got, err
}

// passBytes is how much of what an old version cannot see a fetch reads of a partition at least,
// and passTime after how long it reads no more of that.
const (
	passBytes = 1 << 20
	passTime  = readGrace
)

// convertPart makes a message set of what a partition was read to have. What an old
// version cannot see, markers of transactions for instance, is passed over: otherwise a
// consumer would ask for the same offset for ever. If there is much of that, the answer is empty,
// and the connection knows where its next fetch goes on. From version 3 on a first message
// that does not fit is left for fit to decide about.
func (f *fetch) convertPart(p *fetchPart) {
	got := p.got
	p.got = reading{}
	began, passed := time.Now(), 0
	for len(got.Batches) > 0 {
		want := p.granted
		if f.version == 3 {
			want = max(want, messagePrefix)
		}
		set, err := f.downConvert(got.Batches, got.from, want)
		if err != nil {
			f.unreadable(p, got, err)
			return
		}
		if f.version == 3 && len(set) >= messagePrefix {
			if first := messagePrefix + int(binary.BigEndian.Uint32(set[8:])); first > len(set) {
				p.whole, p.got = first, got
			}
		}
		if len(set) > 0 || p.granted == 0 || got.end <= got.from {
			f.give(p, got, set)
			return
		}
		p.letGo() // nothing of what was read is in the answer
		p.passed = got.end
		if passed += len(got.Batches); passed >= passBytes || time.Since(began) >= passTime {
			f.give(p, got, set)
			p.stopped = true
			return
		}
		ctx, cancel := context.WithTimeout(f.reply.Open(), readGrace)
		got, err = f.readBatches(ctx, p, got.end, max(p.granted, leanRead))
		switch {
		case errors.Is(err, kafkaproto.ErrUnsupportedCompression):
			f.unusable(ctx, p, err)
		case err != nil:
			f.refuse(ctx, p, err)
		case len(got.Batches) == 0:
			f.give(p, got, got.Batches)
		}
		cancel()
		if err != nil {
			return
		}
	}
}

// unreadable answers a partition whose records cannot be given out.
func (f *fetch) unreadable(p *fetchPart, got reading, err error) {
	if f.reply.Open().Err() == nil {
		f.conn.server.refusals.Log("records cannot be given out", err, "topic", p.topic, "partition", p.id.Partition, "offset", got.from)
	}
	f.unusable(f.reply.Open(), p, err)
}

// unusable answers a partition with records that the client cannot have. If it has some
// in front of them it is answered with these, and the error is for who asks for what comes after.
func (f *fetch) unusable(ctx context.Context, p *fetchPart, err error) {
	if len(p.out.RecordBatches) > 0 {
		p.next = -1
		return
	}
	f.refuse(ctx, p, err)
}

// messagePrefix is a message's offset and size.
const messagePrefix = 12

// downConvert makes a message set of batches, for versions below 4. As for what
// producers send, few at once: a small batch may unpack to a hundred megabytes.
func (f *fetch) downConvert(batches []byte, from fsm.Offset, want int) ([]byte, error) {
	conversions := f.conn.server.conversions
	if err := conversions.Acquire(f.reply.Open(), 1); err != nil {
		return nil, err // nobody gets the answer
	}
	defer conversions.Release(1)
	magic := int8(0)
	if f.version >= 2 {
		magic = 1
	}
	set := make([]byte, 0, min(want, len(batches)+len(batches)/4+64))
	return kafkaproto.ToMessageSet(set, batches, magic, int64(from), want)
}

// readable gives those of batches that a client reads, and the offset after the last of them; from
// if there is none. One that does not know zstd gets the batches in front of the first with it
// (KIP-110): as in Kafka nothing is recompressed for it.
func readable(batches []byte, zstd bool, from fsm.Offset) ([]byte, fsm.Offset, error) {
	size := 0
	for batch, err := range kafkaproto.Batches(batches) {
		if err != nil {
			break // whoever reads it says so
		}
		h := batch.Header()
		if !zstd && h.Codec() == kafkaproto.Zstd {
			if size == 0 {
				return nil, from, fmt.Errorf("%w: zstd, and the client does not know it", kafkaproto.ErrUnsupportedCompression)
			}
			return batches[:size], from, nil
		}
		size += batch.Size()
		from = max(from, fsm.Offset(h.NextOffset()))
	}
	return batches, from, nil
}

// grant takes what a read may return out of what the answer and the node's memory
// have left.
func (f *fetch) grant(p *fetchPart) int {
	want := max(min(p.maxBytes-len(p.out.RecordBatches), f.left), 0)
	f.left -= want
	if want <= leanRead {
		return want
	}
	if f.conn.server.answerBytes.Try(int64(want)) {
		p.held += int64(want)
		return want
	}
	f.left += want - leanRead
	return leanRead
}

func (f *fetch) release() {
	for _, p := range f.parts {
		p.letGo()
		if held := p.held + p.heldAborted; held > 0 {
			f.conn.server.answerBytes.Release(held)
			p.held, p.heldAborted = 0, 0
		}
	}
}

// await waits for commits until the answer has enough or the deadline passes, or
// the session has no time any more.
func (f *fetch) await(deadline time.Time, minBytes int) {
	ctx, cancel := context.WithDeadline(f.reply.Patient(), deadline)
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
					f.conn.server.log.Error("waiting for records panicked", "panic", v, "partition", p.id)
				}
			}()
			err := f.conn.server.records.Await(ctx, p.id, from, f.isolation)
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
		changed := f.rightsChanged()
		select {
		case p := <-woken:
			some = append(some, p)
		case <-changed:
			if f.judge() {
				return
			}
			continue
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
