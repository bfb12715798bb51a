package order

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// batchOf makes a record batch of that sequence number; no producer sent it if producer is
// negative.
func batchOf(t *testing.T, producer int64, sequence int32) kafkaproto.Batch {
	t.Helper()
	set := binary.BigEndian.AppendUint32(make([]byte, 8), 15)
	set = append(set, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 'v')
	binary.BigEndian.PutUint32(set[12:], crc32.ChecksumIEEE(set[16:]))
	batches, _, err := kafkaproto.FromMessageSet(set, kafkaproto.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	b := batches[0].Bytes()
	if producer >= 0 {
		binary.BigEndian.PutUint64(b[43:], uint64(producer))
		binary.BigEndian.PutUint16(b[51:], 0)
	}
	binary.BigEndian.PutUint32(b[53:], uint32(sequence))
	batch, err := kafkaproto.ParseBatch(b)
	if err != nil {
		t.Fatal(err)
	}
	return batch
}

// log is an Appender in memory. Its appends take a second.
type log struct {
	mu      sync.Mutex // guards the rest
	appends [][]int32  // sequence numbers, by append
	err     error
}

func nobody() uint16 { return 0 }

// Pipe implements Appender: there is none.
func (l *log) Pipe(fsm.PartitionID, uint64) pipe { return nil }

func (l *log) NewLine(uint16) uint64 { return 1 }

func (l *log) AppendInLine(_ context.Context, _ fsm.PartitionID, _ uint64, _ fsm.Transaction, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
	time.Sleep(time.Second)
	l.mu.Lock()
	defer l.mu.Unlock()
	var sequences []int32
	for _, b := range batches {
		sequences = append(sequences, b.Header().BaseSequence)
	}
	l.appends = append(l.appends, sequences)
	return make([]fsm.Appended, len(batches)), l.err
}

// bench is queues over a log.
type bench struct {
	t *testing.T
	log
	Queues
}

func inQueue(t *testing.T, test func(t *testing.T, b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t}
		b.Init(&Config{Appender: &b.log, Go: func(f func()) { go f() }, After: after, Context: t.Context(), Logger: slog.New(slog.DiscardHandler)}, nobody)
		test(t, b)
	})
}

// waited is a produce that can be waited for.
type waited struct {
	Produce
	over chan struct{}
}

func (b *bench) add() *waited {
	p := &waited{over: make(chan struct{})}
	p.Init(fsm.PartitionID{Partition: 1}, time.Now().Add(time.Minute), func() { close(p.over) })
	b.Add(&p.Produce)
	return p
}

func (b *bench) ready(p *waited) {
	if work := b.Ready(&p.Produce); work != nil {
		go work()
	}
}

func (b *bench) send(producer int64, sequence int32) *waited {
	p := b.add()
	p.Fill([]kafkaproto.Batch{batchOf(b.t, producer, sequence)}, -1, nil)
	b.ready(p)
	return p
}

// wait waits for the outcome.
func (p *waited) wait() error {
	<-p.over
	err, over := p.Outcome()
	if !over {
		panic("told, and not over")
	}
	return err
}

// What waits behind an append goes together, in the order in which it was added and not in that in
// which it was ready; what was never filled is an error and holds up nobody.
func TestAProduceKeepsItsPlace(t *testing.T) {
	inQueue(t, func(t *testing.T, b *bench) {
		first := b.send(-1, 1)
		synctest.Wait()
		second, never := b.add(), b.add()
		fourth := b.send(-1, 4)
		time.Sleep(2 * time.Second)
		if _, over := fourth.Outcome(); over {
			t.Fatal("the fourth overtook the second")
		}
		b.ready(never)
		second.Fill([]kafkaproto.Batch{batchOf(t, -1, 2)}, 77, nil)
		b.ready(second)
		for i, p := range []*waited{first, second, fourth} {
			if err := p.wait(); err != nil {
				t.Errorf("produce %d: %v", i, err)
			}
		}
		if err := never.wait(); err == nil {
			t.Error("an append of nothing that was brought")
		}
		if want := [][]int32{{1}, {2, 4}}; !slices.EqualFunc(b.appends, want, slices.Equal) {
			t.Errorf("appends %v, want %v", b.appends, want)
		}
	})
}

// Behind a batch that failed those that its producer had in flight fail, and no others.
func TestAGapIsPassedByNobodyButTheBatchItself(t *testing.T) {
	inQueue(t, func(t *testing.T, b *bench) {
		b.err = outcome.ErrNoLeader
		if err := b.send(7, 3).wait(); err == nil {
			t.Fatal("it did not fail")
		}
		b.err = nil
		for i, step := range []struct {
			producer int64
			sequence int32
			fails    bool
		}{{7, 4, true}, {8, 4, false}, {-1, -1, false}, {7, 3, false}, {7, 4, false}} {
			if err := b.send(step.producer, step.sequence).wait(); (err != nil) != step.fails {
				t.Errorf("step %d: %v", i, err)
			}
		}
	})
}

// after is Config.After in virtual time.
func after(d time.Duration, f func()) func() {
	t := time.AfterFunc(d, f)
	return func() { t.Stop() }
}
