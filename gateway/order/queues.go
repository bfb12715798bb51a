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
	// NewLine gives a number for what one connection appends, which no other connection has.
	NewLine() uint64
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
	// Context ends when nobody waits for appends any more.
	Context context.Context
	Logger  *slog.Logger
}

// Queues keeps the produces of one connection in queues, one per partition, whose order is that of
// the log. See queue.
type Queues struct {
	cfg  *Config
	line uint64

	mu locks.Mutex[Queues] // guards the rest; nothing is taken and nobody waits under it
	// queues has a key exactly while a queue has something in it.
	queues  map[fsm.PartitionID]*queue
	sent    int      // appends under way, of all queues
	held    []*queue // those that have something to send, and have to wait for others
	round   round    // the last one
	pausing bool     // between it and the next one
	// gaps are where batches of idempotent producers failed; see gap.
	gaps map[fsm.PartitionID]gap
}

// Init makes the queues ready for use. It does not change cfg.
func (q *Queues) Init(cfg *Config) {
	q.cfg, q.line = cfg, cfg.Appender.NewLine()
	q.queues, q.gaps = map[fsm.PartitionID]*queue{}, map[fsm.PartitionID]gap{}
}

// Add puts a produce at the end of its queue. Its batches may come later: whoever
// adds it must call Ready in any case. One goroutine calls Add.
func (q *Queues) Add(p *Produce) {
	q.mu.Lock()
	line := q.queues[p.partition]
	if line == nil {
		q.mu.Unlock()
		pipe := q.cfg.Appender.Pipe(p.partition, q.line)
		q.mu.Lock()
		// Nobody else makes one, and there was none whose appends could still be under way.
		line = &queue{id: p.partition, pipe: pipe}
		q.queues[p.partition] = line
	}
	line.waiting = append(line.waiting, p)
	q.mu.Unlock()
}

// Ready lets queues go on with the produces of a request, filled or not. It is called once for each
// of them. What is to be done now is given, nil for nothing: the caller runs it, here or beside. It
// waits for an append that ends when Config.Context does, or at the latest time of those that the
// produces were given.
func (q *Queues) Ready(produces ...*Produce) (work func()) {
	q.mu.Lock()
	for _, p := range produces {
		p.ready = true
		q.hold(q.queues[p.partition])
	}
	sends, over := q.next(nil)
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
		appended, err := q.append(s)
		if err == nil && len(appended) != len(s.batches) {
			err = fmt.Errorf("%w: %d results for %d batches", outcome.ErrUnknownFate, len(appended), len(s.batches))
		}
		if err == nil && s.pipe == nil {
			s.next = q.cfg.Appender.Pipe(s.queue.id, q.line) // this was the only one under way
		}
		q.mu.Lock()
		over := s.queue.ended(q, s, appended, err)
		q.hold(s.queue)
		sends, over := q.next(over)
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

// hold has a queue go on with the next call of next that lets any, if it has something to send.
func (q *Queues) hold(l *queue) {
	if l.empty() {
		delete(q.queues, l.id)
	} else if !l.held && len(l.waiting) > 0 && l.waiting[0].ready {
		l.held, q.held = true, append(q.held, l)
	}
}

// next takes what can be sent now of all that are held, or nothing as long as many appends are
// under way, and in a pause. Each append comes here when it is over, and so does the end of a
// pause: what is held is sent in the end.
func (q *Queues) next(over []*Produce) ([]*send, []*Produce) {
	if q.pausing {
		return nil, over
	}
	if q.sent >= manyUnderWay {
		q.round.held = q.round.held || len(q.held) > 0
		return nil, over
	}
	if q.round.took == 0 {
		q.round.took = time.Since(q.round.began)
	}
	if len(q.held) == 0 {
		return nil, over
	}
	if wait := q.round.pause(); wait > 0 {
		q.pausing = true
		q.cfg.Go(func() { q.wait(wait) })
		return nil, over
	}
	held := q.held
	q.held = nil
	var sends []*send
	for _, l := range held {
		l.held = false
		sends, over = l.next(q, sends, over)
	}
	if len(sends) >= manyUnderWay {
		q.round = round{began: time.Now(), appends: len(sends)}
		for _, s := range sends {
			q.round.produces += len(s.produces)
		}
	}
	return sends, over
}

// wait ends a pause.
func (q *Queues) wait(pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-q.cfg.Context.Done():
	}
	q.mu.Lock()
	q.pausing, q.round = false, round{}
	sends, over := q.next(nil)
	q.mu.Unlock()
	tell(over)
	for _, s := range sends {
		q.cfg.Go(func() { q.run(s, true) })
	}
}

// round is many appends, to different partitions, that went together. A client that has several
// requests to many partitions in flight sends new ones when it has the answers, all of them, and so
// those come together, too, a little later. What comes alone, and goes alone, costs as much as what
// goes with others.
type round struct {
	began             time.Time
	took              time.Duration // until few of them were left; 0: they are not
	appends, produces int
	held              bool // something had to wait for it
}

// pause gives how long it is worth to wait for more before the next one.
func (r *round) pause() time.Duration {
	if r.appends == 0 || !r.held && (r.produces < 2*r.appends || time.Since(r.began) > 2*r.took) {
		return 0
	}
	return min(r.took/pausePart, maxPause)
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
	batches  []kafkaproto.Batch
	bytes    int
	until    time.Time

	pipe   pipe // nil: it finds the leader itself, and is the only one under way
	number uint32
	next   pipe  // that can be used when it is over
	err    error // why it failed
}
