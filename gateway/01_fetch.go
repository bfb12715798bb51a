package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// Fetch, version 0.
//
// Kept: min_bytes counts over all partitions, max_wait_ms bounds the wait for
// them (here to 5 minutes), max_bytes bounds each partition, and the last message
// may be cut there, as 0.8 cuts it. min_bytes or max_wait_ms of 0 or less, and an
// error in any partition, answer at once. The high watermark is -1 where there is
// an error. A partition named twice is answered once, as it was named last (in
// 0.8 the request is a map). A negative max_bytes is INVALID_FETCH_SIZE.
//
// A wait is woken by the commit it waits for. A partition that cannot be read in
// readGrace is answered NOT_LEADER_FOR_PARTITION and holds up nothing else.
//
// Left out: the replica id is not looked at, since replicas do not fetch over
// this protocol. An answer holds at most the largest request's size of records;
// partitions for which nothing is left come back empty.
const (
	// readGrace is what reading may take beyond the client's max_wait_ms: asking
	// another node takes a moment.
	readGrace = time.Second
	// leanRead is what a partition may still be read with when the node's memory
	// for answers is used up.
	leanRead = 64 << 10
	// parallelReads bounds the reads of one fetch that are under way at once.
	parallelReads = 64
)

// fetchPart is one partition of a fetch.
type fetchPart struct {
	id       fsm.PartitionID
	topic    string
	from     fsm.Offset
	maxBytes int
	out      *kmsg.FetchResponseTopicPartition

	held int64      // bytes of the budget for answers
	next fsm.Offset // where more would come; -1: nothing more fits
	err  error
}

// fetch is one fetch at work.
type fetch struct {
	*request
	parts []*fetchPart // those that are in the catalog

	mu   sync.Mutex
	left int // bytes that the answer may still grow by
}

// handleFetch lets the fetches of a connection work one after another: the answer
// of one is sent before the next one reads. They are answered in order in any
// case, and so a client that asks for much and takes nothing holds the memory of
// one answer.
func handleFetch(r *request) {
	before := r.session.fetchSent
	sent := make(chan struct{})
	r.session.fetchSent = sent
	r.whenSent(func() { close(sent) })
	r.background(func() {
		if before != nil {
			<-before
		}
		r.fetch()
	})
}

func (r *request) fetch() {
	req := r.body.(*kmsg.FetchRequest)
	f := &fetch{request: r, left: r.session.server.cfg.MaxRequestBytes}
	resp := f.resolve(req)
	answered := false
	defer func() {
		if !answered { // a panic
			f.release()
		}
	}()
	wait := min(max(time.Duration(req.MaxWaitMillis)*time.Millisecond, 0), maxWait)
	f.read(f.parts)
	if wait > 0 && !f.satisfied(int(req.MinBytes)) {
		f.await(r.began.Add(wait), int(req.MinBytes))
	}
	size := 64
	for i := range resp.Topics {
		size += 16 + len(resp.Topics[i].Topic)
		for j := range resp.Topics[i].Partitions {
			out := &resp.Topics[i].Partitions[j]
			size += 32 + len(out.RecordBatches)
		}
	}
	for _, p := range f.parts {
		r.session.server.metrics.fetched(p.topic, len(p.out.RecordBatches))
		r.note(p.out.ErrorCode)
	}
	answered = true
	r.whenSent(f.release)
	r.answerSized(resp, size)
}

// resolve lays out the response and finds the partitions in the catalog.
func (f *fetch) resolve(req *kmsg.FetchRequest) *kmsg.FetchResponse {
	s := f.session.server
	type name struct {
		topic     string
		partition int32
	}
	type place struct{ topic, partition int }
	seen := map[name]place{}
	at := map[string]int{}
	resp := req.ResponseKind().(*kmsg.FetchResponse)
	wanted := map[place]kmsg.FetchRequestTopicPartition{}
	for _, t := range req.Topics {
		i, ok := at[t.Topic]
		if !ok {
			i = len(resp.Topics)
			at[t.Topic] = i
			rt := kmsg.NewFetchResponseTopic()
			rt.Topic = t.Topic
			resp.Topics = append(resp.Topics, rt)
		}
		for _, p := range t.Partitions {
			where, ok := seen[name{t.Topic, p.Partition}]
			if !ok {
				where = place{i, len(resp.Topics[i].Partitions)}
				seen[name{t.Topic, p.Partition}] = where
				rp := kmsg.NewFetchResponseTopicPartition()
				rp.Partition, rp.HighWatermark, rp.RecordBatches = p.Partition, -1, []byte{}
				resp.Topics[i].Partitions = append(resp.Topics[i].Partitions, rp)
			}
			wanted[where] = p
		}
	}
	topics := s.cluster.Topics()
	for i := range resp.Topics {
		topic, known := topics.Lookup(resp.Topics[i].Topic)
		for j := range resp.Topics[i].Partitions {
			out, p := &resp.Topics[i].Partitions[j], wanted[place{i, j}]
			switch {
			case !known || out.Partition < 0 || int(out.Partition) >= len(topic.Partitions):
				out.ErrorCode = f.fail(s.unknownTopic())
			case p.PartitionMaxBytes < 0:
				out.ErrorCode = f.fail(errFetchSize)
			case p.FetchOffset < 0:
				out.ErrorCode = f.fail(fsm.ErrOffsetOutOfRange)
			default:
				f.parts = append(f.parts, &fetchPart{
					id: fsm.PartitionID{Topic: topic.ID, Partition: out.Partition}, topic: topic.Name,
					from: fsm.Offset(p.FetchOffset), maxBytes: int(p.PartitionMaxBytes), out: out, next: -1,
				})
			}
		}
	}
	return resp
}

// satisfied reports whether the answer can go out now.
func (f *fetch) satisfied(minBytes int) bool {
	if f.code != 0 || len(f.parts) == 0 {
		return true
	}
	have := 0
	for _, p := range f.parts {
		if p.err != nil {
			return true
		}
		have += len(p.out.RecordBatches)
	}
	return have >= minBytes
}

// read reads partitions beside each other.
func (f *fetch) read(parts []*fetchPart) {
	ctx, cancel := context.WithTimeout(f.session.open, readGrace)
	defer cancel()
	if len(parts) == 1 {
		f.readPart(ctx, parts[0])
		return
	}
	f.each(parts, parallelReads, func(p *fetchPart) { f.readPart(ctx, p) })
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

// readPart reads one partition, or reads it again.
func (f *fetch) readPart(ctx context.Context, p *fetchPart) {
	f.giveBack(p)
	want := f.grant(p)
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
		p.out.ErrorCode, p.out.HighWatermark, p.out.RecordBatches = codeOf(err, kmsg.Fetch, f.header.Version), -1, []byte{}
		f.settle(p, want, 0)
		return
	}
	p.err, p.out.ErrorCode = nil, 0
	p.out.HighWatermark, p.out.RecordBatches = int64(slice.HighWatermark), set
	f.settle(p, want, len(set))
	p.next = p.from
	if len(set) >= want {
		p.next = -1
	} else {
		p.next = endOf(slice.Batches, p.from)
	}
}

// reading is what one read of a partition gave.
type reading struct {
	fsm.Slice
	end fsm.Offset // the offset after the last batch; 0 if there was none
}

// readSet reads batches and turns them into what the request's version has. What
// that version cannot see, markers of transactions for instance, is skipped over:
// otherwise a consumer would ask for the same offset for ever.
func (f *fetch) readSet(ctx context.Context, p *fetchPart, want int) (set []byte, got reading, err error) {
	for from := p.from; ; from = got.end {
		var slice fsm.Slice
		if slice, err = f.session.server.cluster.Read(ctx, p.id, from, want); err != nil {
			return nil, got, err
		}
		got.Slice = slice
		if len(slice.Batches) == 0 {
			return []byte{}, got, nil
		}
		got.end = endOf(slice.Batches, from)
		set = make([]byte, 0, min(want, len(slice.Batches)+len(slice.Batches)/4+64))
		set, err = kafkaproto.ToMessageSet(set, slice.Batches, 0, int64(from), want)
		if err != nil {
			f.session.server.refusals.log("records cannot be given out", err, "topic", p.topic, "partition", p.id.Partition, "offset", from)
		}
		if err != nil || len(set) > 0 || want == 0 || got.end <= from {
			return set, got, err
		}
	}
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
	f.mu.Lock()
	want := min(p.maxBytes, f.left)
	f.left -= want
	f.mu.Unlock()
	if want <= leanRead {
		return want
	}
	if f.session.server.answerBytes.try(int64(want)) {
		p.held = int64(want)
		return want
	}
	f.mu.Lock()
	f.left += want - leanRead
	f.mu.Unlock()
	return leanRead
}

// settle gives back what a read did not use.
func (f *fetch) settle(p *fetchPart, granted, used int) {
	f.mu.Lock()
	f.left += granted - used
	f.mu.Unlock()
	if p.held > int64(used) {
		f.session.server.answerBytes.release(p.held - int64(used))
		p.held = int64(used)
	}
}

// giveBack forgets what was read before.
func (f *fetch) giveBack(p *fetchPart) {
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
