package tier

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// pacer has those who read old records take of the processors what those leave who produce. Reads
// are as fast as they can be until the machine is busy and logs are written: then by half every
// paceEvery, down to what costs few per cent, and faster again as long as processors are idle.
type pacer struct {
	// syncs counts syncs of logs; nil: nothing is known of what they do, and nobody waits.
	syncs func() int64
	// load gives the time that the machine's processors were busy, and all of it, in any unit.
	load  func() (busy, all int64, ok bool)
	floor float64 // bytes a second that are always read, if somebody wants them

	// mu guards what follows. Nothing is taken or waited for under it.
	mu      locks.Mutex[pacer]
	at      time.Time // when these were taken:
	synced  int64
	busy    int64
	all     int64
	read    int64     // bytes, since
	writing float64   // syncs a second, of the last few paceEvery
	limit   float64   // bytes a second; 0: none
	turn    time.Time // when the next read may begin
}

const (
	paceEvery = 100 * time.Millisecond
	// pacedBytes is what one read gives at most while there is a limit, so that many readers have
	// their turns within the time that they wait.
	pacedBytes = 256 << 10
	// floorOfEach is how many bytes a second are always read, for each processor: a few per cent of
	// what it can.
	floorOfEach = 8 << 20
	// writingFrom is from how many syncs a second on somebody produces. Below that are offsets that
	// those commit who read.
	writingFrom = 10
	// Above tooBusy, of all processors, reads become slower, and below notBusy faster.
	tooBusy = 0.9
	notBusy = 0.75
	// noLimitFrom is from where on a limit would be none, in bytes a second.
	noLimitFrom = 16 << 30
)

func newPacer(syncs func() int64) *pacer {
	return &pacer{syncs: syncs, load: machineLoad, floor: float64(floorOfEach * runtime.GOMAXPROCS(0))}
}

// wait waits until so many bytes may be read, and gives how many may. The error wraps ErrLater: ctx
// ends before.
func (p *pacer) wait(ctx context.Context, bytes int) (int, error) {
	if p.syncs == nil {
		return bytes, nil
	}
	now := time.Now()
	p.mu.Lock()
	p.adjust(now)
	p.read += int64(bytes)
	if p.limit == 0 {
		p.mu.Unlock()
		return bytes, nil
	}
	some := min(bytes, pacedBytes)
	p.read -= int64(bytes - some)
	turn := p.turn
	if turn.Before(now) {
		turn = now
	}
	if end, ok := ctx.Deadline(); ok && end.Before(turn) {
		p.read -= int64(some)
		p.mu.Unlock()
		<-ctx.Done()
		return 0, fmt.Errorf("%w: those who produce come first", ErrLater)
	}
	p.turn = turn.Add(time.Duration(float64(some) / p.limit * float64(time.Second)))
	p.mu.Unlock()
	if turn.Equal(now) {
		return some, nil
	}
	locks.MayWait("a turn to read old records")
	timer := time.NewTimer(turn.Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
		return some, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %w", ErrLater, ctx.Err())
	}
}

// adjust sets the limit by what has happened since the last time. mu is held.
func (p *pacer) adjust(now time.Time) {
	took := now.Sub(p.at)
	if took < paceEvery {
		return
	}
	busy, all, ok := p.load()
	synced := p.syncs()
	share := float64(busy-p.busy) / float64(max(all-p.all, 1))
	rate, read := float64(synced-p.synced)/took.Seconds(), float64(p.read)/took.Seconds()
	p.at, p.synced, p.busy, p.all, p.read = now, synced, busy, all, 0
	switch p.writing += (rate - p.writing) / 3; {
	case took > 10*paceEvery:
		p.limit, p.writing = 0, 0 // nobody has read for long
	case !ok || p.writing < writingFrom:
		p.limit = 0
	case share > tooBusy:
		if p.limit == 0 || read < p.limit {
			p.limit = read
		}
		p.limit = max(p.limit/2, p.floor)
	case share < notBusy:
		if p.limit *= 1.25; p.limit > noLimitFrom {
			p.limit = 0
		}
	}
}
