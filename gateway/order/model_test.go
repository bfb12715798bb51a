package order

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// model is a partition whose leaders do what Appender promises and nothing more. It shares no code
// with package replica.
type model struct {
	mu   sync.Mutex // guards the rest
	dice *rand.Rand

	log     []record
	leader  int           // grows with every failure of one
	run     uint64        // the newest that a leader has seen
	runs    uint64        // the last that was given out
	next    uint32        // number in the run that is to come
	refused bool          // one of the run was
	turned  chan struct{} // closed and replaced whenever that may have changed
	faults  bool
	most    int // appends under way at once
	now     int
}

// record is a batch in the log.
type record struct {
	producer int64 // -1: none
	sequence int32
}

func newModel(seed uint64) *model {
	return &model{dice: rand.New(rand.NewPCG(seed, 9)), turned: make(chan struct{}), faults: true}
}

func (m *model) NewLine(uint16) uint64 { return 1 }

func (m *model) roll(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dice.IntN(n)
}

// away is how long something is on its way.
func (m *model) away() { time.Sleep(time.Duration(m.roll(2000)) * time.Microsecond) }

func (m *model) newRun() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.runs++
	return m.runs
}

func (m *model) Pipe(fsm.PartitionID, uint64) pipe {
	if m.roll(20) == 0 {
		return nil // no leader is known
	}
	run := m.newRun()
	m.mu.Lock()
	leader := m.leader
	m.mu.Unlock()
	return func(ctx context.Context, number uint32, _ fsm.Transaction, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
		return m.hand(ctx, leader, run, number, batches)
	}
}

func (m *model) AppendInLine(ctx context.Context, _ fsm.PartitionID, _ uint64, _ fsm.Transaction, batches []kafkaproto.Batch) (appended []fsm.Appended, err error) {
	for range 3 {
		m.mu.Lock()
		leader := m.leader
		m.mu.Unlock()
		if appended, err = m.hand(ctx, leader, m.newRun(), 0, batches); err == nil || !outcome.NotAppended(err) {
			return appended, err
		}
	}
	return nil, err
}

// hand brings batches to a leader, and the answer back. Any of it may fail.
func (m *model) hand(ctx context.Context, leader int, run uint64, number uint32, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
	m.mu.Lock()
	m.now++
	m.most = max(m.most, m.now)
	m.mu.Unlock()
	defer func() { m.mu.Lock(); m.now--; m.mu.Unlock() }()
	kind := m.roll(100)
	if !m.faults {
		kind = 99
	}
	if kind == 0 {
		return nil, outcome.ErrNoLeader // it was never sent
	}
	if kind < 3 {
		// Its fate is told to be unknown before it arrives, and it is on its way for long.
		batches := slices.Clone(batches)
		go func() {
			time.Sleep(time.Duration(m.roll(20)) * time.Millisecond)
			_, _ = m.arrive(leader, run, number, batches, false)
		}()
		m.away()
		return nil, outcome.ErrUnknownFate
	}
	m.away()
	appended, err := m.arrive(leader, run, number, batches, kind == 3)
	m.away()
	switch {
	case kind == 4: // the answer is lost
		return nil, outcome.ErrUnknownFate
	case kind == 5:
		return nil, outcome.ErrTimeout
	}
	return appended, err
}

// arrive is at the leader.
func (m *model) arrive(leader int, run uint64, number uint32, batches []kafkaproto.Batch, refuse bool) ([]fsm.Appended, error) {
	patience := time.After(50 * time.Millisecond)
	m.mu.Lock()
	defer m.mu.Unlock()
	defer func() { close(m.turned); m.turned = make(chan struct{}) }()
	for {
		if run > m.run {
			m.run, m.next, m.refused = run, 0, false
			close(m.turned)
			m.turned = make(chan struct{})
		}
		if leader != m.leader || run < m.run || m.refused || number < m.next {
			return nil, outcome.ErrNotLeader
		}
		if number == m.next {
			break
		}
		turned, over := m.turned, false
		m.mu.Unlock()
		select {
		case <-turned:
		case <-patience:
			over = true
		}
		m.mu.Lock()
		if over && run == m.run && number > m.next {
			m.refused = true
		}
	}
	switch {
	case refuse:
		m.refused = true
		return nil, outcome.ErrStorage
	case m.faults && m.dice.IntN(40) == 0: // it leads no more, and nobody knows what it has written
		m.leader++
		m.run, m.next, m.refused = 0, 0, false
		if m.dice.IntN(2) == 0 {
			m.write(batches)
		}
		return nil, outcome.ErrUnknownFate
	case m.faults && m.dice.IntN(60) == 0:
		m.leader++
		m.run, m.next, m.refused = 0, 0, false
		return nil, outcome.ErrNotLeader
	}
	m.next++
	return m.write(batches), nil
}

// write judges batches as a leader does, and writes them.
func (m *model) write(batches []kafkaproto.Batch) (appended []fsm.Appended) {
	for _, b := range batches {
		h := b.Header()
		r := record{h.ProducerID, h.BaseSequence}
		if r.producer < 0 {
			m.log = append(m.log, r)
			appended = append(appended, fsm.Appended{BaseOffset: fsm.Offset(len(m.log) - 1)})
			continue
		}
		last := int32(-1)
		at := slices.Index(m.log, r)
		for _, other := range m.log {
			if other.producer == r.producer {
				last = max(last, other.sequence)
			}
		}
		switch {
		case at >= 0:
			appended = append(appended, fsm.Appended{BaseOffset: fsm.Offset(at)})
		case last >= 0 && r.sequence != last+1: // of a producer that is not known anything is taken
			appended = append(appended, fsm.Appended{BaseOffset: -1, Err: outcome.ErrOutOfOrderSequence})
		default:
			m.log = append(m.log, r)
			appended = append(appended, fsm.Appended{BaseOffset: fsm.Offset(len(m.log) - 1)})
		}
	}
	return appended
}

func (r record) String() string { return fmt.Sprintf("%d/%d", r.producer, r.sequence) }
