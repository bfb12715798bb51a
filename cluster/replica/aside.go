package replica

import (
	"context"
	"sync"
	"time"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// aside runs jobs for a loop that goes over all groups, one after the other. A job that takes
// longer than a turn, as one of a group whose main loop waits for a disk, goes on beside the loop,
// which goes on to the next; it is not begun again before it is done. A job must end with the
// context of its node.
//
// It belongs to the goroutine of the loop.
type aside struct {
	turn time.Duration
	done *sync.WaitGroup // of who runs the loop

	worker chan func()   // nil: none is free
	ready  chan struct{} // the worker has done its job
	timer  *time.Timer

	// mu guards left. Nothing is waited for, and no other lock taken, while it is held.
	mu   locks.Mutex[aside]
	left map[any]bool // jobs that take longer, by what they are about
}

// asideTurn is how long a loop over all groups waits for one of them.
const asideTurn = 50 * time.Millisecond

func newAside(done *sync.WaitGroup) *aside {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &aside{turn: asideTurn, done: done, timer: timer, left: map[any]bool{}}
}

// do runs a job about something, and returns when it is done or has had its turn. It does nothing
// while an earlier one about the same is not done, or once ctx has ended.
func (a *aside) do(ctx context.Context, about any, job func()) {
	locks.MayWait("a job")
	a.mu.Lock()
	busy := a.left[about]
	a.mu.Unlock()
	if busy || ctx.Err() != nil {
		return
	}
	if a.worker == nil {
		a.hire()
	}
	worker, ready := a.worker, a.ready
	worker <- job
	a.timer.Reset(a.turn)
	select {
	case <-ready:
		a.timer.Stop()
		return
	case <-a.timer.C:
	case <-ctx.Done():
	}
	// It is left to its worker, which ends with it.
	a.mu.Lock()
	a.left[about] = true
	a.mu.Unlock()
	a.worker, a.ready = nil, nil
	a.done.Add(1)
	go func() {
		defer a.done.Done()
		<-ready
		close(worker)
		a.mu.Lock()
		delete(a.left, about)
		a.mu.Unlock()
	}()
}

func (a *aside) hire() {
	worker, ready := make(chan func()), make(chan struct{})
	a.worker, a.ready = worker, ready
	a.done.Add(1)
	go func() {
		defer a.done.Done()
		for job := range worker {
			job()
			ready <- struct{}{}
		}
	}()
}

// end lets go of the worker. It must be called when the loop ends.
func (a *aside) end() {
	if a.worker != nil {
		close(a.worker)
		a.worker = nil
	}
}
