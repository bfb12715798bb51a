package gateway

import (
	"context"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

const (
	// maxCoalesced bounds the bytes of produces that are sent on together with the
	// first of them, in one Append.
	maxCoalesced = 1 << 20
	// A line lingers for a quarter of the time that its last Append took, if that was at least lingerFrom, for lingerMost at
	// most, and not when it has lingerBytes: they are worth an entry.
	lingerFrom  = 4 * time.Millisecond
	lingerMost  = 5 * time.Millisecond
	lingerBytes = maxCoalesced / 4
)

// lines keeps the produces of one connection in line, one line per partition. At
// most one Append per line is under way; what waits behind it goes together in
// the next one. So nothing overtakes an entry whose fate is not known yet, and
// the slower the cluster, the larger the entries.
type lines struct {
	server *Server

	mu sync.Mutex
	// waiting has a key exactly while a goroutine works on that line.
	waiting map[fsm.PartitionID][]*parcel
	// gaps are where batches of idempotent producers failed; see gap.
	gaps map[fsm.PartitionID]gap
}

// gap is the place in a producer's sequence of a batch that failed and may be sent
// again. What the producer had in flight behind it must fail, too, as it would at
// a broker that led the partition no longer: a new leader may know nothing of the
// producer, and would take the second batch for its beginning.
type gap struct {
	producer int64
	epoch    int16
	sequence int32 // of the batch that failed
	left     int   // batches that can have been sent before the failure was told
}

// covers reports whether the batch is one of those behind the gap.
func (g gap) covers(h kafkaproto.BatchHeader) bool {
	behind := (h.BaseSequence - g.sequence) & math.MaxInt32 // sequence numbers wrap at 2^31
	return g.left > 0 && h.ProducerID == g.producer && h.ProducerEpoch == g.epoch && behind > 0 && behind < 1<<30
}

// parcel is what one request has for one partition.
type parcel struct {
	partition fsm.PartitionID
	topic     string
	until     time.Time // when Append may give up

	// Set before ready is closed.
	ready   chan struct{}
	batches [][]byte
	bytes   int
	records int
	stamped int64 // LogAppendTime of its records, ms since epoch; -1: they have their own
	err     error // not fit to be appended

	// Set before done is closed. err may be set, too.
	done     chan struct{}
	base     fsm.Offset // of the first record; -1 if there is none
	logStart fsm.Offset // when it was appended; -1 if there is none
}

func (l *lines) init(s *Server) {
	l.server, l.waiting, l.gaps = s, map[fsm.PartitionID][]*parcel{}, map[fsm.PartitionID]gap{}
}

// add puts a parcel at the end of its line. Its batches may come later: whoever
// adds it must close ready in any case.
func (l *lines) add(p *parcel) {
	l.mu.Lock()
	line, running := l.waiting[p.partition]
	l.waiting[p.partition] = append(line, p)
	l.mu.Unlock()
	if !running {
		l.server.wg.Go(func() { l.run(p.partition) })
	}
}

func (l *lines) run(id fsm.PartitionID) {
	for {
		group := l.next(id)
		if group == nil {
			return
		}
		began := time.Now()
		l.deliver(id, group)
		took := time.Since(began)
		for _, p := range group {
			close(p.done)
		}
		l.linger(id, took)
	}
}

// linger gives a producer that has more waiting, and was answered just now, the time to send what follows. Where cores
// are busy, an append waits for the ones of other partitions, so few large ones are sooner through than many small ones.
func (l *lines) linger(id fsm.PartitionID, took time.Duration) {
	if took < lingerFrom {
		return
	}
	l.mu.Lock()
	waiting, bytes := l.waiting[id], 0
	for _, p := range waiting {
		if p.isReady() {
			bytes += p.bytes
		}
	}
	l.mu.Unlock()
	if len(waiting) > 0 && bytes < lingerBytes {
		time.Sleep(min(took/4, lingerMost))
	}
}

// next waits for the first parcel and takes those behind it that are ready.
func (l *lines) next(id fsm.PartitionID) []*parcel {
	l.mu.Lock()
	line := l.waiting[id]
	if len(line) == 0 {
		delete(l.waiting, id)
		l.mu.Unlock()
		return nil
	}
	l.mu.Unlock()
	<-line[0].ready
	l.mu.Lock()
	defer l.mu.Unlock()
	line = l.waiting[id]
	n, more := 1, 0
	for _, p := range line[1:] {
		if !p.isReady() || more+p.bytes > maxCoalesced {
			break
		}
		n++
		more += p.bytes
	}
	group := slices.Clone(line[:n])
	l.waiting[id] = slices.Delete(line, 0, n) // which lets go of the batches, too
	return group
}

func (p *parcel) isReady() bool {
	select {
	case <-p.ready:
		return true
	default:
		return false
	}
}

// deliver appends what the parcels hold and tells each what became of it.
func (l *lines) deliver(id fsm.PartitionID, group []*parcel) {
	var batches [][]byte
	var until time.Time
	for _, p := range group {
		p.base, p.logStart = -1, -1
		if p.err != nil {
			continue
		}
		if p.err = l.passGap(id, p); p.err != nil {
			continue
		}
		batches = append(batches, p.batches...)
		if p.until.After(until) {
			until = p.until
		}
	}
	if len(batches) == 0 {
		return
	}
	appended, err := l.append(id, batches, until)
	if err == nil && len(appended) != len(batches) {
		err = fmt.Errorf("%w: %d results for %d batches", outcome.ErrUnknownFate, len(appended), len(batches))
	}
	for _, p := range group {
		switch {
		case p.err != nil || len(p.batches) == 0:
			continue
		case err != nil:
			p.err = err
			l.openGap(id, p)
			continue
		}
		p.take(appended[:len(p.batches)])
		appended = appended[len(p.batches):]
	}
}

// take keeps what became of the parcel's batches.
func (p *parcel) take(appended []fsm.Appended) {
	p.base, p.logStart = appended[0].BaseOffset, appended[0].LogStart
	for _, a := range appended {
		switch {
		case a.Err != 0:
			p.base, p.logStart, p.err = -1, -1, a.Err
		case a.BaseOffset < 0:
			p.base, p.logStart, p.err = -1, -1, outcome.ErrVoid
		}
	}
	if p.err == nil && p.stamped >= 0 {
		p.stamped = appended[0].Timestamp // another than ours if it was there already
	}
}

// idempotent gives the header of the parcel's batch if it has a producer id. Then it
// is the only one: requests that can carry producer ids carry one batch each.
func (p *parcel) idempotent() (kafkaproto.BatchHeader, bool) {
	if len(p.batches) != 1 {
		return kafkaproto.BatchHeader{}, false
	}
	h, err := kafkaproto.ParseBatchHeader(p.batches[0])
	return h, err == nil && fsm.Idempotent(h)
}

// openGap remembers that the parcel failed, if it is an idempotent producer's.
func (l *lines) openGap(id fsm.PartitionID, p *parcel) {
	h, ok := p.idempotent()
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if g, open := l.gaps[id]; !open || !g.covers(h) {
		l.gaps[id] = gap{producer: h.ProducerID, epoch: h.ProducerEpoch, sequence: h.BaseSequence, left: fsm.ProducerBatches - 1}
	}
}

// passGap refuses a parcel that the producer sent when it did not know yet that one
// before it failed.
func (l *lines) passGap(id fsm.PartitionID, p *parcel) error {
	h, ok := p.idempotent()
	if !ok {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	g, open := l.gaps[id]
	if !open {
		return nil
	}
	if g.covers(h) {
		g.left--
		l.gaps[id] = g
		return fmt.Errorf("%w: the batch with sequence number %d was not appended", outcome.ErrNotLeader, g.sequence)
	}
	if h.ProducerID == g.producer && (g.left == 0 || h.BaseSequence == g.sequence || h.ProducerEpoch != g.epoch) {
		delete(l.gaps, id)
	}
	return nil
}

// append is Cluster.Append, and a panic in it an error of unknown fate.
func (l *lines) append(id fsm.PartitionID, batches [][]byte, until time.Time) (_ []fsm.Appended, err error) {
	defer func() {
		if v := recover(); v != nil {
			l.server.log.Error("an append panicked", "panic", v, "partition", id, "stack", string(debug.Stack()))
			err = outcome.ErrUnknownFate
		}
	}()
	ctx, cancel := context.WithDeadline(l.server.ctx, until)
	defer cancel()
	return l.server.cluster.Append(ctx, id, batches)
}
