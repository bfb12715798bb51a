package order

import (
	"testing"
	"testing/synctest"
)

// What has to be seen is waited for: by the reader where something changes, else by who looks.
func TestWhatARequestWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o Order
		done := map[string]chan struct{}{}
		admit := func(name string, what Effect) int {
			done[name] = make(chan struct{})
			return len(o.Admit(done[name], what))
		}
		for _, step := range []struct {
			name string
			what Effect
			want int // answers to wait for
		}{
			{"produce", Appends, 0}, {"another produce", Appends, 0}, {"fetch", Looks, 2}, {"versions", Blind, 0},
			{"commit", InTurn, 0}, {"end", Transacts, 2},
		} {
			if got := admit(step.name, step.what); got != step.want {
				t.Errorf("%s waits for %d answers, want %d", step.name, got, step.want)
			}
		}
		close(done["end"])
		if got := admit("delete", Changes); got != 1 {
			t.Errorf("behind the end of a transaction, whose produces are there, a change waits for %d answers, want that of the fetch", got)
		}
		change, admitted := done["delete"], make(chan int, 1)
		go func() { admitted <- admit("behind the change", Looks) }()
		synctest.Wait()
		if len(admitted) > 0 {
			t.Error("a request behind a change is let in before it is answered")
		}
		close(change)
		if got := <-admitted; got != 0 {
			t.Errorf("behind a change there are %d answers to wait for", got)
		}
	})
}
