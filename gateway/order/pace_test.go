package order

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// paced is queues over a log that takes a millisecond for an append, and as long for each that is
// in front of it there, as a leader does that stores one after the other; or, if it is far, just a
// millisecond.
type paced struct {
	*bench
	*model
	far     bool
	appends []string // what each had, and when it began, in ms
	free    time.Time
	began   time.Time
	held    []time.Duration // what the queue waited for at most, each time
}

func inRounds(t *testing.T, test func(t *testing.T, p *paced)) {
	synctest.Test(t, func(t *testing.T) {
		p := &paced{bench: &bench{t: t}, model: newModel(1), began: time.Now()}
		p.faults = false
		p.Init(&Config{Appender: p, Go: func(f func()) { go f() }, After: p.after, Context: t.Context(), Logger: slog.New(slog.DiscardHandler)}, nobody)
		test(t, p)
		synctest.Wait()
		p.bench.Queues.mu.Lock()
		defer p.bench.Queues.mu.Unlock()
		if len(p.queues) > 0 {
			t.Errorf("%d queues are left of what is over", len(p.queues))
		}
	})
}

func (p *paced) after(d time.Duration, f func()) func() {
	p.model.mu.Lock()
	p.held = append(p.held, d)
	p.model.mu.Unlock()
	return after(d, f)
}

func (p *paced) NewLine(uint16) uint64 { return 1 }

func (p *paced) AppendInLine(context.Context, fsm.PartitionID, uint64, fsm.Transaction, []kafkaproto.Batch) ([]fsm.Appended, error) {
	panic("there is a pipe")
}

func (p *paced) Pipe(fsm.PartitionID, uint64) pipe {
	run := p.newRun()
	return func(_ context.Context, number uint32, _ fsm.Transaction, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
		appended, err := p.arrive(0, run, number, batches, false)
		p.model.mu.Lock()
		now := time.Now()
		p.appends = append(p.appends, fmt.Sprintf("%v:%d", now.Sub(p.began), len(batches)))
		if p.far {
			p.free = now
		}
		p.free = later(p.free, now).Add(time.Millisecond)
		took := p.free.Sub(now)
		p.model.mu.Unlock()
		time.Sleep(took)
		return appended, err
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// sizes are those of the last appends.
func (p *paced) sizes(last int) (all []string) {
	p.model.mu.Lock()
	defer p.model.mu.Unlock()
	for _, s := range p.appends[max(len(p.appends)-last, 0):] {
		_, n, _ := strings.Cut(s, ":")
		all = append(all, n)
	}
	return all
}

// loop has a client with a window send that many, one for each answer, which it takes some time
// for.
func (p *paced) loop(window, produces int, turn time.Duration) {
	var all []*waited
	for i := range produces {
		if i >= window {
			_ = all[i-window].wait()
			time.Sleep(turn)
		}
		all = append(all, p.send(-1, int32(i)))
	}
	for _, w := range all {
		if err := w.wait(); err != nil {
			p.bench.t.Error(err)
		}
	}
}

// A client that has a few requests in flight, and sends one for each answer, has them all in one
// append.
func TestAClosedLoopIsAppendedInRounds(t *testing.T) {
	for _, window := range []int{2, 3, 5, 10, mostInRound} {
		inRounds(t, func(t *testing.T, p *paced) {
			p.loop(window, 20*window, 5*time.Microsecond)
			want := slices.Repeat([]string{fmt.Sprint(window)}, 10)
			if got := p.sizes(11)[:10]; !slices.Equal(got, want) {
				t.Errorf("window %d: the last appends had %v, want %v", window, got, want)
			}
			if n := len(p.held); n > 15*window {
				t.Errorf("window %d: a round waited %d times", window, n)
			}
		})
	}
}

// What has one request in flight, or more than a round may have, waits for nothing.
func TestOthersAreNotWaitedFor(t *testing.T) {
	for _, window := range []int{1, mostInRound + 1, 64} {
		inRounds(t, func(t *testing.T, p *paced) {
			p.loop(window, 20*window, 5*time.Microsecond)
			if len(p.held) > 0 {
				t.Errorf("window %d: an append waited %d times", window, len(p.held))
			}
			if window == 1 && p.pace != nil {
				t.Error("a pace is kept for one request at a time")
			}
		})
	}
}

// A client that sends what there is when it is there is waited for seldom, also if it is as regular
// as one that waits for answers.
func TestAnOpenLoopKeepsThePipeline(t *testing.T) {
	const produces = 3000
	dice := rand.New(rand.NewPCG(1, 1))
	for _, every := range []time.Duration{210 * time.Microsecond, 260 * time.Microsecond, 420 * time.Microsecond, 900 * time.Microsecond, 1200 * time.Microsecond} {
		for _, far := range []bool{false, true} {
			for _, random := range []bool{false, true} {
				inRounds(t, func(t *testing.T, p *paced) {
					p.far = far
					took := p.open(produces, func() time.Duration {
						if random {
							return time.Duration(float64(every) * dice.ExpFloat64())
						}
						return every
					})
					if n := len(p.held); n > produces/100 {
						t.Errorf("one every %v, far %v, random %v: %d of %d were waited with", every, far, random, n, produces)
					}
					// Nothing is in the way of what is sent regularly and appended far away.
					if far && !random && took > 1020*time.Microsecond {
						t.Errorf("one every %v: it took %v in the mean", every, took)
					}
				})
			}
		}
	}
}

// open has a client send that many, with pauses in between, and gives the time that one took in the
// mean.
func (p *paced) open(produces int, pause func() time.Duration) (mean time.Duration) {
	var all sync.WaitGroup
	var mu sync.Mutex // guards took
	var took time.Duration
	for i := range produces {
		began := time.Now()
		w := p.send(-1, int32(i))
		all.Go(func() {
			err := w.wait()
			mu.Lock()
			defer mu.Unlock()
			took += time.Since(began)
			if err != nil {
				p.bench.t.Error(err)
			}
		})
		time.Sleep(pause())
	}
	all.Wait()
	return took / time.Duration(produces)
}

// A client that stops in the middle of its rounds has what it sent then appended within the hold,
// and whatever it sends later at once.
func TestWhoStopsIsNotWaitedForLong(t *testing.T) {
	inRounds(t, func(t *testing.T, p *paced) {
		p.loop(5, 100, 5*time.Microsecond)
		began := time.Now()
		if err := p.send(-1, 100).wait(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > time.Millisecond+maxHold {
			t.Errorf("the first behind its rounds took %v", took)
		}
		p.loop(5, 100, 5*time.Microsecond)
		time.Sleep(time.Second)
		began = time.Now()
		if err := p.send(-1, 100).wait(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > time.Millisecond {
			t.Errorf("one after a pause took %v", took)
		}
	})
}

// Who sends to several partitions at once has no rounds, also where it had them before.
func TestSeveralPartitionsHaveNoRounds(t *testing.T) {
	inRounds(t, func(t *testing.T, p *paced) {
		p.loop(5, 100, 5*time.Microsecond)
		held := len(p.held)
		if held == 0 {
			t.Error("there were no rounds before")
		}
		for range 50 {
			var all []*waited
			for range 5 {
				for i := range int32(2) {
					all = append(all, p.sendTo(i))
				}
			}
			for _, w := range all {
				_ = w.wait()
			}
		}
		if n := len(p.held) - held; n > 1 {
			t.Errorf("it was waited for %d times", n)
		}
	})
}

// sendTo sends a produce to a partition.
func (p *paced) sendTo(partition int32) *waited {
	w := &waited{over: make(chan struct{})}
	w.Init(fsm.PartitionID{Partition: partition}, time.Now().Add(time.Minute), func() { close(w.over) })
	p.Add(&w.Produce)
	w.Fill([]kafkaproto.Batch{batchOf(p.bench.t, -1, 0)}, -1, nil)
	p.ready(w)
	return w
}

// Whatever clients do, a round waits for at most half of what the last append took, and no
// rounds go on in which two were waited with in vain, or more came than was waited for.
func TestRoundsEndBySurprise(t *testing.T) {
	for seed := range uint64(200) {
		dice := rand.New(rand.NewPCG(seed, 1))
		p := &pace{need: evidence}
		outstanding, lean := 0, 0
		for range 500 {
			if dice.IntN(2) == 0 {
				outstanding++
				if p.added(outstanding); p.rounds && outstanding > p.window {
					t.Fatalf("seed %d: rounds of %d go on with %d outstanding", seed, p.window, outstanding)
				}
				continue
			}
			if outstanding == 0 {
				continue
			}
			n := 1 + dice.IntN(outstanding)
			outstanding -= n
			if p.rounds && n < p.window {
				lean++
			} else {
				lean = 0
			}
			took := time.Duration(dice.IntN(4000)) * time.Microsecond
			p.ended(n, n<<10, outstanding, p.rounds, took)
			if h := p.hold(); h > took/2 || h > maxHold {
				t.Fatalf("seed %d: a hold of %v after an append of %v", seed, h, took)
			}
			if p.rounds && (lean >= 2 || p.window < 2 || p.window > mostInRound || outstanding > p.window) {
				t.Fatalf("seed %d: rounds of %d go on with %d outstanding, after %d in vain", seed, p.window, outstanding, lean)
			}
		}
	}
}

// A window that fills a pipeline alone has no rounds: one append of it at a time would be slower.
func TestLargeBatchesHaveNoRounds(t *testing.T) {
	for _, size := range []int{16 << 10, 50 << 10, 52 << 10, 1 << 20} {
		p := &pace{need: evidence}
		for range 100 {
			for n := range 5 {
				p.added(n + 1)
			}
			p.ended(5, 5*size, 0, p.rounds, time.Millisecond)
		}
		if want := 5*size < maxBytesUnderWay; p.rounds != want {
			t.Errorf("five batches of %d bytes: rounds are %v", size, p.rounds)
		}
	}
}
