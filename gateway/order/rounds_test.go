package order

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// wideLog is an Appender whose appends take a second, to some partitions a minute.
type wideLog struct {
	stuck int32 // partitions below it

	mu      sync.Mutex // guards appends
	appends map[int32]int
}

func (l *wideLog) NewLine() uint64 { return 1 }

func (l *wideLog) Pipe(p fsm.PartitionID, _ uint64) pipe {
	return func(ctx context.Context, _ uint32, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
		return l.AppendInLine(ctx, p, 0, batches)
	}
}

func (l *wideLog) AppendInLine(_ context.Context, p fsm.PartitionID, _ uint64, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
	l.mu.Lock()
	l.appends[p.Partition]++
	l.mu.Unlock()
	if time.Sleep(time.Second); p.Partition < l.stuck {
		time.Sleep(time.Minute)
	}
	return make([]fsm.Appended, len(batches)), nil
}

func (l *wideLog) count() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.appends {
		n += x
	}
	return n
}

// request is what one request has for the partitions from first to before last.
type request []*waited

func (b *bench) request(first, last int32) (r request) {
	var all []*Produce
	for p := first; p < last; p++ {
		w := b.addTo(p)
		w.Fill([]kafkaproto.Batch{batchOf(b.t, -1, p)}, -1, nil)
		r, all = append(r, w), append(all, &w.Produce)
	}
	if work := b.Ready(all...); work != nil {
		go work()
	}
	return r
}

func (r request) wait(t *testing.T) {
	t.Helper()
	for _, w := range r {
		if err := w.wait(); err != nil {
			t.Error(err)
		}
	}
}

func inRounds(t *testing.T, stuck int32, test func(t *testing.T, b *bench, l *wideLog)) {
	synctest.Test(t, func(t *testing.T) {
		b, l := &bench{t: t}, &wideLog{stuck: stuck, appends: map[int32]int{}}
		b.Init(&Config{Appender: l, Go: func(f func()) { go f() }, Context: t.Context(), Logger: slog.New(slog.DiscardHandler)})
		test(t, b, l)
	})
}

// Requests to many partitions that come while one is worked on go together, with what comes when
// that one is answered.
func TestRequestsToManyPartitionsGoTogether(t *testing.T) {
	inRounds(t, 0, func(t *testing.T, b *bench, l *wideLog) {
		const partitions = 4 * manyUnderWay
		began := time.Now()
		first := b.request(0, partitions)
		var all []request
		for range 4 {
			all = append(all, b.request(0, partitions))
		}
		first.wait(t)
		if n := l.count(); n != partitions {
			t.Errorf("%d appends for the first request, want %d", n, partitions)
		}
		time.Sleep(maxPause / 2)
		all = append(all, b.request(0, partitions)) // what a client sends that has the answer
		for _, r := range all {
			r.wait(t)
		}
		if n := l.count(); n != 2*partitions {
			t.Errorf("%d appends for six requests to %d partitions, five of which can go together", n, partitions)
		}
		if took := time.Since(began); took > 2*time.Second+maxPause {
			t.Errorf("six requests took %v", took)
		}
	})
}

// A client that has one request in flight waits for nothing but its append.
func TestARequestAloneWaitsForNoOther(t *testing.T) {
	inRounds(t, 0, func(t *testing.T, b *bench, _ *wideLog) {
		for range 3 {
			began := time.Now()
			b.request(0, 4*manyUnderWay).wait(t)
			if took := time.Since(began); took != time.Second {
				t.Errorf("a request took %v", took)
			}
		}
		// Nor does one that comes long after several went together.
		first, second, third := b.request(0, 64), b.request(0, 64), b.request(0, 64)
		first.wait(t)
		second.wait(t)
		third.wait(t)
		time.Sleep(time.Minute)
		began := time.Now()
		b.request(0, 64).wait(t)
		if took := time.Since(began); took != time.Second {
			t.Errorf("a request, long after others, took %v", took)
		}
	})
}

// A few partitions that take long hold up no others.
func TestAFewSlowPartitionsHoldUpNoOthers(t *testing.T) {
	const stuck = manyUnderWay - 1
	inRounds(t, stuck, func(t *testing.T, b *bench, _ *wideLog) {
		began := time.Now()
		slow := b.request(0, stuck)
		for range 5 {
			b.request(stuck, 4*manyUnderWay).wait(t)
		}
		if took := time.Since(began); took > 5*(time.Second+maxPause) {
			t.Errorf("five requests to the others took %v", took)
		}
		slow.wait(t)
	})
}
