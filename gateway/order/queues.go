package order

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

const (
	// maxCoalesced bounds the bytes of produces that are sent on together with the
	// first of them, in one Append.
	maxCoalesced = 1 << 20
	// A queue lingers for a quarter of the time that its last Append took, if that was at least
	// LingerFrom, for lingerMost at most, and not when it has lingerBytes: they are worth an
	// entry.
	LingerFrom  = 4 * time.Millisecond
	lingerMost  = 5 * time.Millisecond
	lingerBytes = maxCoalesced / 4
)

// Appender is the way to partitions' leaders.
type Appender interface {
	// Append hands batches, whose CRC is checked, to the partition's leader, wherever it is, in
	// this order, and returns when they are committed. It may write into them, not into the
	// slice. One result per batch: one of an idempotent producer that was there already has the
	// place of the first, and one that must not be there has Err. Waits for a leader at most
	// ~1.5 s within ctx. err is in outcome's list; outcome.NotAppended(err) tells whether trying
	// again is safe (Append itself already tried again as long as it could).
	Append(ctx context.Context, p fsm.PartitionID, batches []kafkaproto.Batch) ([]fsm.Appended, error)
}

// Config is what the queues of all connections have in common.
type Config struct {
	Appender Appender
	// Go runs f beside, and has whoever stops the process wait for it.
	Go func(f func())
	// Context ends when nobody waits for appends any more.
	Context context.Context
	Logger  *slog.Logger
}

// Queues keeps the produces of one connection in queues, one per partition. At
// most one Append per queue is under way; what waits behind it goes together in
// the next one. So nothing overtakes an entry whose fate is not known yet, and
// the slower the cluster, the larger the entries.
type Queues struct {
	cfg *Config

	mu locks.Mutex[Queues] // guards the rest; nothing is taken and nobody waits under it
	// waiting has a key exactly while a goroutine works on that queue.
	waiting map[fsm.PartitionID][]*Produce
	// gaps are where batches of idempotent producers failed; see gap.
	gaps map[fsm.PartitionID]gap
}

// Init makes the queues ready for use. It does not change cfg.
func (q *Queues) Init(cfg *Config) {
	q.cfg, q.waiting, q.gaps = cfg, map[fsm.PartitionID][]*Produce{}, map[fsm.PartitionID]gap{}
}

// Add puts a produce at the end of its queue. Its batches may come later: whoever
// adds it must call Ready in any case.
func (q *Queues) Add(p *Produce) {
	q.mu.Lock()
	queue, running := q.waiting[p.partition]
	q.waiting[p.partition] = append(queue, p)
	q.mu.Unlock()
	if !running {
		q.cfg.Go(func() { q.run(p.partition) })
	}
}

func (q *Queues) run(id fsm.PartitionID) {
	for {
		produces := q.next(id)
		if produces == nil {
			return
		}
		began := time.Now()
		q.deliver(id, produces)
		took := time.Since(began)
		for _, p := range produces {
			close(p.done)
		}
		q.linger(id, took)
	}
}

// linger gives a producer that has more waiting, and was answered just now, the time to send what
// follows. Where cores are busy, an append waits for the ones of other partitions, so few large
// ones are sooner through than many small ones.
func (q *Queues) linger(id fsm.PartitionID, took time.Duration) {
	if took < LingerFrom {
		return
	}
	q.mu.Lock()
	waiting, bytes := q.waiting[id], 0
	for _, p := range waiting {
		if p.isReady() {
			bytes += p.bytes
		}
	}
	q.mu.Unlock()
	if len(waiting) > 0 && bytes < lingerBytes {
		time.Sleep(min(took/4, lingerMost))
	}
}

// next waits for the first produce and takes those behind it that are ready.
func (q *Queues) next(id fsm.PartitionID) []*Produce {
	q.mu.Lock()
	queue := q.waiting[id]
	if len(queue) == 0 {
		delete(q.waiting, id)
		q.mu.Unlock()
		return nil
	}
	q.mu.Unlock()
	locks.MayWait("batches")
	<-queue[0].ready
	q.mu.Lock()
	defer q.mu.Unlock()
	queue = q.waiting[id]
	n, more := 1, 0
	for _, p := range queue[1:] {
		if !p.isReady() || more+p.bytes > maxCoalesced {
			break
		}
		n++
		more += p.bytes
	}
	taken := slices.Clone(queue[:n])
	q.waiting[id] = slices.Delete(queue, 0, n) // which lets go of the batches, too
	return taken
}

// deliver appends what the produces hold and tells each what became of it.
func (q *Queues) deliver(id fsm.PartitionID, produces []*Produce) {
	var batches []kafkaproto.Batch
	var until time.Time
	for _, p := range produces {
		p.base, p.logStart = -1, -1
		if p.err != nil {
			continue
		}
		if p.err = q.passGap(id, p); p.err != nil {
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
	appended, err := q.append(id, batches, until)
	if err == nil && len(appended) != len(batches) {
		err = fmt.Errorf("%w: %d results for %d batches", outcome.ErrUnknownFate, len(appended), len(batches))
	}
	for _, p := range produces {
		switch {
		case p.err != nil || len(p.batches) == 0:
			continue
		case err != nil:
			p.err = err
			q.openGap(id, p)
			continue
		}
		p.take(appended[:len(p.batches)])
		appended = appended[len(p.batches):]
	}
}

// append is Appender.Append, and a panic in it an error of unknown fate.
func (q *Queues) append(id fsm.PartitionID, batches []kafkaproto.Batch, until time.Time) (_ []fsm.Appended, err error) {
	defer func() {
		if v := recover(); v != nil {
			q.cfg.Logger.Error("an append panicked", "panic", v, "partition", id, "stack", string(debug.Stack()))
			err = outcome.ErrUnknownFate
		}
	}()
	ctx, cancel := context.WithDeadline(q.cfg.Context, until)
	defer cancel()
	return q.cfg.Appender.Append(ctx, id, batches)
}
