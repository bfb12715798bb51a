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
	// A line lingers for a quarter of the time that its last Append took, if that was at least
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

// Config is what the lines of all connections have in common.
type Config struct {
	Appender Appender
	// Go runs f beside, and has whoever stops the process wait for it.
	Go func(f func())
	// Context ends when nobody waits for appends any more.
	Context context.Context
	Logger  *slog.Logger
}

// Lines keeps the produces of one connection in line, one line per partition. At
// most one Append per line is under way; what waits behind it goes together in
// the next one. So nothing overtakes an entry whose fate is not known yet, and
// the slower the cluster, the larger the entries.
type Lines struct {
	cfg *Config

	mu locks.Mutex[Lines] // guards the rest; nothing is taken and nobody waits under it
	// waiting has a key exactly while a goroutine works on that line.
	waiting map[fsm.PartitionID][]*Parcel
	// gaps are where batches of idempotent producers failed; see gap.
	gaps map[fsm.PartitionID]gap
}

// Init makes the lines ready for use. It does not change cfg.
func (l *Lines) Init(cfg *Config) {
	l.cfg, l.waiting, l.gaps = cfg, map[fsm.PartitionID][]*Parcel{}, map[fsm.PartitionID]gap{}
}

// Add puts a parcel at the end of its line. Its batches may come later: whoever
// adds it must call Ready in any case.
func (l *Lines) Add(p *Parcel) {
	l.mu.Lock()
	line, running := l.waiting[p.partition]
	l.waiting[p.partition] = append(line, p)
	l.mu.Unlock()
	if !running {
		l.cfg.Go(func() { l.run(p.partition) })
	}
}

func (l *Lines) run(id fsm.PartitionID) {
	for {
		parcels := l.next(id)
		if parcels == nil {
			return
		}
		began := time.Now()
		l.deliver(id, parcels)
		took := time.Since(began)
		for _, p := range parcels {
			close(p.done)
		}
		l.linger(id, took)
	}
}

// linger gives a producer that has more waiting, and was answered just now, the time to send what
// follows. Where cores are busy, an append waits for the ones of other partitions, so few large
// ones are sooner through than many small ones.
func (l *Lines) linger(id fsm.PartitionID, took time.Duration) {
	if took < LingerFrom {
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
func (l *Lines) next(id fsm.PartitionID) []*Parcel {
	l.mu.Lock()
	line := l.waiting[id]
	if len(line) == 0 {
		delete(l.waiting, id)
		l.mu.Unlock()
		return nil
	}
	l.mu.Unlock()
	locks.MayWait("batches")
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
	taken := slices.Clone(line[:n])
	l.waiting[id] = slices.Delete(line, 0, n) // which lets go of the batches, too
	return taken
}

// deliver appends what the parcels hold and tells each what became of it.
func (l *Lines) deliver(id fsm.PartitionID, parcels []*Parcel) {
	var batches []kafkaproto.Batch
	var until time.Time
	for _, p := range parcels {
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
	for _, p := range parcels {
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

// append is Appender.Append, and a panic in it an error of unknown fate.
func (l *Lines) append(id fsm.PartitionID, batches []kafkaproto.Batch, until time.Time) (_ []fsm.Appended, err error) {
	defer func() {
		if v := recover(); v != nil {
			l.cfg.Logger.Error("an append panicked", "panic", v, "partition", id, "stack", string(debug.Stack()))
			err = outcome.ErrUnknownFate
		}
	}()
	ctx, cancel := context.WithDeadline(l.cfg.Context, until)
	defer cancel()
	return l.cfg.Appender.Append(ctx, id, batches)
}
