package order

import (
	"testing"
	"testing/synctest"
)

// Requests about one group wait for each other, those about other groups do not, and one about all
// groups waits for all. What is over is forgotten.
func TestRequestsAboutOneGroupTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns Turns
		waits := func(wait func()) bool {
			over := make(chan struct{})
			go func() { wait(); close(over) }()
			synctest.Wait()
			select {
			case <-over:
				return false
			default:
				return true
			}
		}
		waitA, endA := turns.Take([]string{"a", "a"})
		waitB, endB := turns.Take([]string{"b"})
		waitA2, endA2 := turns.Take([]string{"a"})
		waitAll, endAll := turns.Take(nil)
		if waits(waitA) || waits(waitB) || !waits(waitA2) || !waits(waitAll) {
			t.Error("the first of two groups wait, or a turn is had before the one in front is over")
		}
		endA()
		if waits(waitA2) || !waits(waitAll) {
			t.Error("the end of a turn is for the next of its group")
		}
		endB()
		endA2()
		if waits(waitAll) {
			t.Error("all are over, and it is not the turn of who asks about all")
		}
		endAll()
		if len(turns.last) != 0 {
			t.Errorf("%v are remembered", turns.last)
		}
	})
}
