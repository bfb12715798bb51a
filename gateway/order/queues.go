package order

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// Appender is the way to partitions' leaders. Errors are in outcome's list; what
// outcome.NotAppended holds for was surely not written.
type Appender interface {
	// NewLine gives a number for what one connection appends, which no other connection has. client
	// is the same number for all connections of one client, to whichever node.
	NewLine(client uint16) uint64
	// AppendInLine hands batches, whose CRC is checked, to the partition's leader, wherever it is,
	// in this order, and returns when they are committed. It may write into them, not into the
	// slice. One result per batch: one of an idempotent producer that was there already has the
	// place of the first, and one that must not be there has Err. Waits for a leader at most ~1.5 s
	// within ctx, and tries again as long as it can. Whatever the line has sent before is over
	// then, and does not come behind these batches any more. txn is what the client says of the
	// transaction that they may belong to.
	AppendInLine(ctx context.Context, p fsm.PartitionID, line uint64, txn fsm.Transaction, batches []kafkaproto.Batch) ([]fsm.Appended, error)
	// Pipe begins a run of the line: the function is AppendInLine at the leader that is known now,
	// tried once, and many may be under way. number is 0, 1 and so on, and is the order in the log:
	// if one fails, those with higher numbers were surely not appended unless they are behind it
	// there. Then all are waited for, and nothing more goes this way. Whatever the line has sent
	// before is over when the first is called. It is nil if there is no such way now.
	Pipe(p fsm.PartitionID, line uint64) func(ctx context.Context, number uint32, txn fsm.Transaction, batches []kafkaproto.Batch) ([]fsm.Appended, error)
}

// Config is what the queues of all connections have in common.
type Config struct {
	Appender Appender
	// Go runs f beside, and has whoever stops the process wait for it.
	Go func(f func())
	// After runs f beside when d is over, unless stop is called before; f must not wait. Neither it
	// nor stop waits for f. Whoever stops the process waits for it.
	After func(d time.Duration, f func()) (stop func())
	// Context ends when nobody waits for appends any more.
	Context context.Context
	Logger  *slog.Logger
}

// Queues keeps the produces of one connection in queues, one per partition, whose order is that of
// the log. See queue.
type Queues struct {
	cfg    *Config
	client func() uint16
	// line is the connection's from the first Add on, when it is known who the client is.
	line uint64

	// mu guards the rest. Nothing but what Config.After takes is taken under it, and nobody waits.
	mu locks.Mutex[Queues]
	// queues has a key exactly while a queue has something in it.
	queues map[fsm.PartitionID]*queue
	// pace is that of the last partition that the connection had more than one produce outstanding
	// to, and nothing to others; nil: there was none.
	pace *pace
	// gaps are where batches of idempotent producers failed; see gap.
	gaps map[fsm.PartitionID]gap
}

// Init makes the queues ready for use. It does not change cfg. client is asked once, by Add, for
// what Appender.NewLine is told.
func (q *Queues) Init(cfg *Config, client func() uint16) {
	q.cfg, q.client = cfg, client
	q.queues, q.gaps = map[fsm.PartitionID]*queue{}, map[fsm.PartitionID]gap{}
}

// Add puts a produce at the end of its queue. Its batches may come later: whoever
// adds it must call Ready in any case. One goroutine calls Add.
func (q *Queues) Add(p *Produce) {
	if q.line == 0 {
		q.line = q.cfg.Appender.NewLine(q.client())
	}
	q.mu.Lock()
	line := q.queues[p.partition]
	if line == nil {
		q.mu.Unlock()
		pipe := q.cfg.Appender.Pipe(p.partition, q.line)
		q.mu.Lock()
		// Nobody else makes one, and there was none whose appends could still be under way.
		line = &queue{id: p.partition, pipe: pipe}
		if q.pace != nil && q.pace.partition == p.partition {
			line.pace = q.pace
			line.pace.paused()
		}
		q.queues[p.partition] = line
	}
	line.waiting = append(line.waiting, p)
	line.outstanding++
	switch {
	case len(q.queues) > 1:
		if line.pace != nil {
			line.pace.leave()
		}
	case line.pace != nil:
		line.pace.added(line.outstanding)
	case line.outstanding > 1:
		q.pace = &pace{partition: p.partition, need: evidence}
		line.pace = q.pace
		line.pace.added(line.outstanding)
	}
	q.mu.Unlock()
}

// passed lets a queue go on whose next round has waited for long enough.
func (q *Queues) passed(l *queue, h *hold) {
	q.mu.Lock()
	if l.hold != h {
		q.mu.Unlock()
		return
	}
	h.passed = true
	sends, over := l.next(q, nil)
	q.mu.Unlock()
	tell(over)
	for _, s := range sends {
		q.cfg.Go(func() { q.run(s, true) })
	}
}

// Ready lets the queue go on with a produce, filled or not. It is called once. What is to be done
// now is given, nil for nothing: the caller runs it, here or beside. It waits for an append that
// ends when Config.Context does, or at the latest time of those that the produces were given.
func (q *Queues) Ready(p *Produce) (work func()) {
	q.mu.Lock()
	p.ready = true
	line := q.queues[p.partition]
	sends, over := line.next(q, nil)
	q.mu.Unlock()
	tell(over)
	if len(sends) == 0 {
		return nil
	}
	for _, s := range sends[1:] {
		q.cfg.Go(func() { q.run(s, true) })
	}
	return func() { q.run(sends[0], false) }
}

// run makes an append, tells its produces what became of it, and sees to what can be sent then:
// here if it stays, else beside.
func (q *Queues) run(s *send, stay bool) {
	for s != nil {
		began := time.Now()
		appended, err := q.append(s)
		s.took = time.Since(began)
		if err == nil && len(appended) != len(s.batches) {
			err = fmt.Errorf("%w: %d results for %d batches", outcome.ErrUnknownFate, len(appended), len(s.batches))
		}
		if err == nil && s.pipe == nil {
			s.next = q.cfg.Appender.Pipe(s.queue.id, q.line) // this was the only one under way
		}
		q.mu.Lock()
		over := s.queue.ended(q, s, appended, err)
		sends, over := s.queue.next(q, over)
		q.mu.Unlock()
		tell(over)
		s = nil
		if stay && len(sends) > 0 {
			s, sends = sends[0], sends[1:]
		}
		for _, more := range sends {
			q.cfg.Go(func() { q.run(more, true) })
		}
	}
}

// tell says of produces that they are over.
func tell(produces []*Produce) {
	for _, p := range produces {
		p.over.Store(true)
		p.done()
	}
}

// append hands over what is in s. A panic there is an error of unknown fate.
func (q *Queues) append(s *send) (_ []fsm.Appended, err error) {
	defer func() {
		if v := recover(); v != nil {
			q.cfg.Logger.Error("an append panicked", "panic", v, "partition", s.queue.id, "stack", string(debug.Stack()))
			err = outcome.ErrUnknownFate
		}
	}()
	ctx, cancel := context.WithDeadline(q.cfg.Context, s.until)
	defer cancel()
	if s.awaited != nil {
		defer context.AfterFunc(s.awaited, cancel)()
	}
	if s.pipe != nil {
		return s.pipe(ctx, s.number, s.txn, s.batches)
	}
	return q.cfg.Appender.AppendInLine(ctx, s.queue.id, q.line, s.txn, s.batches)
}

// pipe is one run of appends; see Appender.Pipe.
type pipe = func(ctx context.Context, number uint32, txn fsm.Transaction, batches []kafkaproto.Batch) ([]fsm.Appended, error)

// send is one append.
type send struct {
	queue    *queue
	produces []*Produce      // at least one
	txn      fsm.Transaction // of all of them
	awaited  context.Context // of all of them; nil: whoever is there, it goes on
	batches  []kafkaproto.Batch
	bytes    int
	until    time.Time

	pipe   pipe // nil: it finds the leader itself, and is the only one under way
	number uint32
	next   pipe  // that can be used when it is over
	err    error // why it failed

	round bool // it is under way alone, and may have waited for what is in it
	took  time.Duration
}
