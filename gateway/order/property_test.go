package order

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// TestPipelinedOrder holds queues against a model of leaders that fail in the middle of a pipeline:
// they refuse, lose leadership, answers get lost, what was given up arrives late. Clients keep a
// window full, or send when there is something. Whatever waits, waits for an append that is under
// way, for what is in front of it, or for a hold. LINE_SEEDS=n tries more seeds, LINE_SEED=n that
// one.
func TestPipelinedOrder(t *testing.T) {
	first, seeds := uint64(1), uint64(300)
	if n, err := strconv.ParseUint(os.Getenv("LINE_SEEDS"), 10, 64); err == nil {
		seeds = n
	}
	if n, err := strconv.ParseUint(os.Getenv("LINE_SEED"), 10, 64); err == nil {
		first, seeds = n, 1
	}
	most, plain, acked, rounds, held := 0, 0, 0, 0, 0
	for seed := first; seed < first+seeds && !t.Failed(); seed++ {
		synctest.Test(t, func(t *testing.T) {
			c := &clients{bench: &bench{t: t}, seed: seed, model: newModel(seed), dice: rand.New(rand.NewPCG(seed, 4))}
			c.Init(&Config{Appender: c.model, Go: func(f func()) { go f() }, After: c.after, Context: t.Context(), Logger: slog.New(slog.DiscardHandler)}, nobody)
			over := make(chan struct{})
			go c.watch(over)
			c.run()
			close(over)
			rounds, held = rounds+c.rounds, held+c.held
			if c.holding != 0 {
				t.Errorf("LINE_SEED=%d: %d holds are neither over nor stopped", seed, c.holding)
			}
			most = max(most, c.model.most)
			for _, p := range c.plain {
				plain++
				if err, _ := p.Outcome(); err == nil {
					acked++
				}
			}
		})
	}
	if most < maxUnderWay && seeds > 1 {
		t.Errorf("at most %d appends were under way at once: nothing was pipelined", most)
	}
	t.Logf("%d of %d produces without a producer id were acknowledged; %d looks saw rounds, %d holds", acked, plain, rounds, held)
	if seeds > 100 && (rounds < 300 || held < 200) {
		t.Errorf("%d looks saw rounds, and %d appends were held: no round was tried", rounds, held)
	}
	if seeds > 100 && acked < plain*8/10 {
		t.Errorf("%d of %d were acknowledged: queues do not come back from failures", acked, plain)
	}
}

// clients are what one connection sends to one partition: a producer that is idempotent, one that
// is not, or both in turns.
type clients struct {
	*bench
	seed  uint64
	model *model
	dice  *rand.Rand
	plain []*waited // in order

	delays bool // batches may be ready later than their place is taken
	open   bool // who is not idempotent sends without waiting for answers

	rounds        int // looks that saw a queue in rounds
	mu            sync.Mutex
	held, holding int // holds, and those that are not over. Guarded by mu
}

// after is Config.After, which counts.
func (c *clients) after(d time.Duration, f func()) (stop func()) {
	if d > maxHold {
		c.t.Errorf("LINE_SEED=%d: a hold of %v", c.seed, d)
	}
	c.count(1)
	t := time.AfterFunc(d, func() {
		c.count(-1)
		f()
	})
	return func() {
		if t.Stop() {
			c.count(-1)
		}
	}
}

func (c *clients) count(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holding += n
	c.held += max(n, 0)
}

// watch looks at the queue again and again: what can be sent is under way or held.
func (c *clients) watch(over <-chan struct{}) {
	for {
		select {
		case <-over:
			return
		case <-time.After(2 * time.Millisecond):
		}
		c.Queues.mu.Lock()
		for _, l := range c.queues {
			waits := len(l.waiting) > 0 && l.waiting[0].ready
			if waits && l.sent == 0 && l.hold == nil || l.hold != nil && (l.hold.passed || l.sent > 0 || !waits) {
				c.t.Errorf("LINE_SEED=%d: %d wait (the first is ready: %v) with %d appends under way and hold %+v", c.seed, len(l.waiting), waits, l.sent, l.hold)
			}
			n := len(l.waiting)
			if l.failed == nil && l.sent == 0 && n != l.outstanding || l.outstanding < n {
				c.t.Errorf("LINE_SEED=%d: %d are outstanding, and %d wait with %d appends under way", c.seed, l.outstanding, n, l.sent)
			}
			if l.inRounds() {
				c.rounds++
			}
		}
		c.Queues.mu.Unlock()
	}
}

const idempotentProducer = 7

func (c *clients) run() {
	window := 1 + c.dice.IntN(64)
	if c.dice.IntN(2) == 0 {
		window = 1 + c.dice.IntN(8)
	}
	c.delays, c.open = c.dice.IntN(2) == 0, c.dice.IntN(4) == 0
	perRound := 1 + c.dice.IntN(3)
	plain, idempotent := c.dice.IntN(3) > 0, c.dice.IntN(3) > 0
	if !plain {
		idempotent = true
	}
	const produces = 150
	acked := map[int32]fsm.Offset{}
	var todo, unanswered []int32
	for i := range int32(produces) {
		todo = append(todo, i)
	}
	under := map[int32]*waited{}
	for len(todo) > 0 || len(unanswered) > 0 || plain && len(c.plain) < produces {
		if plain && len(c.plain) < produces {
			for range 1 + c.dice.IntN(perRound) {
				c.plain = append(c.plain, c.sendSoon(-1, int32(len(c.plain))))
			}
			if behind := len(c.plain) - window; c.open {
				time.Sleep(time.Duration(c.dice.IntN(2000)) * time.Microsecond)
			} else if behind >= 0 {
				_ = c.plain[behind].wait()
			}
		}
		if !idempotent {
			todo = nil
			continue
		}
		for len(todo) > 0 && len(unanswered) < min(window, fsm.ProducerBatches) {
			under[todo[0]] = c.sendSoon(idempotentProducer, todo[0])
			unanswered, todo = append(unanswered, todo[0]), todo[1:]
		}
		if len(unanswered) == 0 {
			continue
		}
		// The answers come in order. When one says that it failed the client knows of the others
		// before it sends again, in order.
		var again []int32
		for n := 0; len(unanswered) > 0 && (n == 0 || again != nil); n++ {
			sequence := unanswered[0]
			unanswered = unanswered[1:]
			p := under[sequence]
			err := p.wait()
			switch {
			case err == nil:
				acked[sequence] = p.base
			case outcome.Code(err) == outcome.ErrOutOfOrderSequence && again == nil:
				c.t.Errorf("seed %d: %d is out of order, and nothing before it has failed: it is lost", c.seed, sequence)
				return
			default:
				again = append(again, sequence)
			}
		}
		todo = append(again, todo...)
	}
	for _, p := range c.plain {
		_ = p.wait()
	}
	time.Sleep(time.Second) // what was on its way has arrived
	c.check(idempotent, produces, acked)
}

// sendSoon sends a produce whose batches are ready at once or later.
func (c *clients) sendSoon(producer int64, sequence int32) *waited {
	p := c.add()
	batches := []kafkaproto.Batch{batchOf(c.t, producer, sequence)}
	later := time.Duration(c.dice.IntN(3)*c.dice.IntN(1000)) * time.Microsecond
	if !c.delays {
		p.Fill(batches, -1, nil)
		c.ready(p)
		return p
	}
	go func() {
		time.Sleep(later)
		p.Fill(batches, -1, nil)
		c.ready(p)
	}()
	return p
}

func (c *clients) check(idempotent bool, produces int, acked map[int32]fsm.Offset) {
	c.model.mu.Lock()
	log := slices.Clone(c.model.log)
	c.model.mu.Unlock()
	places := map[record][]int{}
	last := map[int64]int32{-1: -1, idempotentProducer: -1}
	var errs []error
	for at, r := range log {
		if places[r] != nil {
			errs = append(errs, fmt.Errorf("%v is in the log at %d and at %d", r, places[r][0], at))
		}
		places[r] = append(places[r], at)
		if r.sequence <= last[r.producer] {
			errs = append(errs, fmt.Errorf("%v is in the log behind %d", r, last[r.producer]))
		}
		last[r.producer] = max(last[r.producer], r.sequence)
	}
	for i, p := range c.plain {
		err, _ := p.Outcome()
		at := places[record{-1, int32(i)}]
		switch {
		case err == nil && (len(at) == 0 || fsm.Offset(at[0]) != p.base):
			errs = append(errs, fmt.Errorf("-1/%d is acknowledged at %d, and is at %d", i, p.base, at))
		case outcome.NotAppended(err) && len(at) > 0:
			errs = append(errs, fmt.Errorf("-1/%d is said not to be appended, and is at %d", i, at))
		}
	}
	for sequence, base := range acked {
		if at := places[record{idempotentProducer, sequence}]; len(at) == 0 || fsm.Offset(at[0]) != base {
			errs = append(errs, fmt.Errorf("7/%d is acknowledged at %d, and is at %d", sequence, base, at))
		}
	}
	if idempotent && len(acked) != produces {
		errs = append(errs, fmt.Errorf("%d of %d are acknowledged", len(acked), produces))
	}
	c.Queues.mu.Lock()
	defer c.Queues.mu.Unlock()
	if len(c.queues) > 0 {
		errs = append(errs, fmt.Errorf("%d queues are left of what is over", len(c.queues)))
	}
	if err := errors.Join(errs...); err != nil {
		c.t.Errorf("LINE_SEED=%d:\n%v", c.seed, err)
	}
}

// Five requests that come one after the other take as long as one, and what comes while five are
// under way goes together.
func TestAppendsAreUnderWayAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(1)
		m.faults = false
		b := &bench{t: t}
		b.Init(&Config{Appender: slow{m}, Go: func(f func()) { go f() }, After: after, Context: t.Context(), Logger: slog.New(slog.DiscardHandler)}, nobody)
		began := time.Now()
		var all []*waited
		for i := range int32(maxUnderWay) {
			all = append(all, b.send(-1, i))
			time.Sleep(time.Millisecond)
		}
		for _, p := range all {
			if err := p.wait(); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took > 1100*time.Millisecond {
			t.Errorf("%d appends of a second took %v", maxUnderWay, took)
		}
		all = nil
		for i := range int32(64) {
			all = append(all, b.send(-1, maxUnderWay+i))
		}
		synctest.Wait()
		b.Queues.mu.Lock()
		n := b.queues[fsm.PartitionID{Partition: 1}].sent
		b.Queues.mu.Unlock()
		if n != maxUnderWay {
			t.Errorf("%d are under way, want %d", n, maxUnderWay)
		}
		began = time.Now()
		for _, p := range all {
			if err := p.wait(); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%d appends took %v: they did not go together", len(all), took)
		}
	})
}

// slow is a model whose appends take a second.
type slow struct{ *model }

func (s slow) Pipe(id fsm.PartitionID, line uint64) pipe {
	run := s.newRun()
	return func(_ context.Context, number uint32, _ fsm.Transaction, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
		appended, err := s.arrive(0, run, number, batches, false)
		time.Sleep(time.Second)
		return appended, err
	}
}
