package order

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// TestWhateverIsSentIsOver has a connection send to some partitions at once and in turns, with
// windows that change: batches of several transactions and of none, of which some end before they
// are appended, what is refused before it is appended, what is empty and what nobody ever fills,
// ready in another order than it came. Whatever becomes of it, everything is told, in time, and the
// logs have it in its order. MIXED_SEEDS=n tries more seeds, MIXED_SEED=n that one.
func TestWhateverIsSentIsOver(t *testing.T) {
	first, seeds := uint64(1), uint64(100)
	if n, err := strconv.ParseUint(os.Getenv("MIXED_SEEDS"), 10, 64); err == nil {
		seeds = n
	}
	if n, err := strconv.ParseUint(os.Getenv("MIXED_SEED"), 10, 64); err == nil {
		first, seeds = n, 1
	}
	held := 0
	for seed := first; seed < first+seeds && !t.Failed(); seed++ {
		synctest.Test(t, func(t *testing.T) {
			m := &mixed{t: t, seed: seed, dice: rand.New(rand.NewPCG(seed, 5)), bench: &bench{t: t}}
			m.run()
			held += m.held
		})
	}
	t.Logf("%d appends were held", held)
	if seeds >= 100 && held < 300 {
		t.Errorf("%d appends were held: no round was tried", held)
	}
}

// mixed is a connection and the partitions that it sends to.
type mixed struct {
	*bench
	t    *testing.T
	seed uint64
	dice *rand.Rand
	logs []*model

	mu            sync.Mutex // guards the rest
	held, holding int
}

// mixedProduce is one of them.
type mixedProduce struct {
	waited
	partition int32
	sequence  int32
	fits      bool // has what can be appended
	began     time.Time
	took      time.Duration
}

// after is Config.After of a clock that is busy: f runs a while after it can be stopped no more.
func (m *mixed) after(d time.Duration, f func()) func() {
	m.count(1)
	t := time.AfterFunc(d, func() {
		time.Sleep(100 * time.Microsecond)
		m.count(-1)
		f()
	})
	return func() {
		if t.Stop() {
			m.count(-1)
		}
	}
}

func (m *mixed) count(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.holding += n
	m.held += max(n, 0)
}

func (m *mixed) NewLine(uint16) uint64 { return 1 }

func (m *mixed) Pipe(id fsm.PartitionID, line uint64) pipe {
	p := m.logs[id.Partition].Pipe(id, line)
	if p == nil {
		return nil
	}
	return func(ctx context.Context, number uint32, txn fsm.Transaction, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
		defer m.sameTransaction(ctx, txn, batches)
		return p(ctx, number, txn, batches)
	}
}

func (m *mixed) AppendInLine(ctx context.Context, id fsm.PartitionID, line uint64, txn fsm.Transaction, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
	defer m.sameTransaction(ctx, txn, batches)
	return m.logs[id.Partition].AppendInLine(ctx, id, line, txn, batches)
}

// sameTransaction looks whether all batches are of the transaction that the append says; those that
// nobody needs to await have a context that has not ended.
func (m *mixed) sameTransaction(ctx context.Context, txn fsm.Transaction, batches []kafkaproto.Batch) {
	for _, b := range batches {
		if s := b.Header().BaseSequence; txnOf(s) != txn {
			m.t.Errorf("MIXED_SEED=%d: %d is appended in %+v", m.seed, s, txn)
		}
	}
	if txn == (fsm.Transaction{}) && ctx.Err() != nil {
		m.t.Errorf("MIXED_SEED=%d: what belongs to no transaction is given up: %v", m.seed, ctx.Err())
	}
}

// txnOf is the transaction of a batch: its number says it.
func txnOf(sequence int32) fsm.Transaction {
	switch sequence / 10 % 8 {
	case 0:
		return fsm.Transaction{ID: "a", Add: true}
	case 1:
		return fsm.Transaction{ID: "b"}
	}
	return fsm.Transaction{}
}

func (m *mixed) run() {
	partitions := 1 + m.dice.IntN(3)
	faults := m.dice.IntN(2) == 0
	for i := range partitions {
		m.logs = append(m.logs, newModel(m.seed*10+uint64(i)))
		m.logs[i].faults = faults
	}
	m.Init(&Config{Appender: m, Go: func(f func()) { go f() }, After: m.after, Context: m.t.Context(), Logger: slog.New(slog.DiscardHandler)}, nobody)
	leaves, left := context.WithCancel(context.Background())
	defer left()
	var all []*mixedProduce
	sequences := make([]int32, partitions)
	var late sync.WaitGroup
	for range 8 {
		window, odd, delays := 1+m.dice.IntN(8), m.dice.IntN(3) == 0, m.dice.IntN(2) == 0
		at, alone := int32(m.dice.IntN(partitions)), m.dice.IntN(3) > 0
		if m.dice.IntN(10) == 0 {
			left()
		}
		var phase []*mixedProduce
		for i := range 60 {
			if i >= window {
				_ = phase[i-window].wait()
			}
			if !alone {
				at = int32(m.dice.IntN(partitions))
			}
			p := m.place(at, sequences[at])
			sequences[at]++
			phase = append(phase, p)
			m.fill(p, leaves, odd)
			if !delays {
				m.ready(&p.waited)
				continue
			}
			wait := time.Duration(m.dice.IntN(3)*m.dice.IntN(800)) * time.Microsecond
			late.Go(func() {
				time.Sleep(wait)
				m.ready(&p.waited)
			})
		}
		all = append(all, phase...)
		time.Sleep(time.Duration(m.dice.IntN(2)*m.dice.IntN(20)) * time.Millisecond)
	}
	late.Wait()
	time.Sleep(10 * time.Second)
	m.check(all, faults)
}

func (m *mixed) place(partition, sequence int32) *mixedProduce {
	p := &mixedProduce{waited: waited{over: make(chan struct{})}, partition: partition, sequence: sequence, began: time.Now()}
	p.Init(fsm.PartitionID{Partition: partition}, time.Now().Add(time.Minute), func() {
		p.took = time.Since(p.began)
		close(p.over)
	})
	m.Add(&p.Produce)
	return p
}

func (m *mixed) fill(p *mixedProduce, leaves context.Context, odd bool) {
	kind := 9
	if odd {
		kind = m.dice.IntN(10)
	}
	switch kind {
	case 0:
		p.Fill(nil, -1, outcome.ErrInvalidTxnState)
		return
	case 1:
		p.Fill(nil, -1, nil)
		return
	case 2:
		return
	}
	p.fits = true
	p.Fill([]kafkaproto.Batch{batchOf(m.t, -1, p.sequence)}, -1, nil)
	if txn := txnOf(p.sequence); txn.ID != "" {
		var awaited func() context.Context
		if !txn.Add {
			awaited = func() context.Context { return leaves }
		}
		p.InTransaction(txn, awaited)
	}
}

func (m *mixed) check(all []*mixedProduce, faults bool) {
	for i, p := range all {
		if _, over := p.Outcome(); !over {
			m.t.Errorf("MIXED_SEED=%d: produce %d (%d/%d) is not over", m.seed, i, p.partition, p.sequence)
			continue
		}
		err := p.wait()
		// Without faults: the way of the append in front of it, a hold, its own way, and what was
		// ready late in front of it.
		if !faults && p.took > 12*time.Millisecond+maxHold {
			m.t.Errorf("MIXED_SEED=%d: produce %d took %v", m.seed, i, p.took)
		}
		if !faults && p.fits && err != nil && outcome.Code(err) != outcome.Code(errLeft) {
			m.t.Errorf("MIXED_SEED=%d: produce %d: %v", m.seed, i, err)
		}
	}
	for i, log := range m.logs {
		log.mu.Lock()
		last := int32(-1)
		for _, r := range log.log {
			if r.sequence <= last {
				m.t.Errorf("MIXED_SEED=%d: partition %d has %d behind %d", m.seed, i, r.sequence, last)
			}
			last = r.sequence
		}
		log.mu.Unlock()
	}
	m.Queues.mu.Lock()
	defer m.Queues.mu.Unlock()
	if len(m.queues) > 0 || m.holding != 0 {
		m.t.Errorf("MIXED_SEED=%d: %d queues and %d holds are left", m.seed, len(m.queues), m.holding)
	}
}
