package transaction

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestDecidedWhileLookedAt: a sweep looks whether something is decided, and does so before it is.
// Whoever decides it finds the sweep's mark and leaves it to that.
func TestDecidedWhileLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, false, func(string) fate { return done })
		defer func() { w.c.Close() }()
		c := &client{w: w, name: "a", id: "x", v2: true}
		if err := c.init(t.Context()); err != nil {
			t.Fatal(err)
		}
		v, err := c.write(t.Context(), "1", "t/0")
		if err != nil {
			t.Fatal(err)
		}
		line, p := w.c.mark("x")
		if err := c.end(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		line.spread(p, false)
		synctest.Wait()
		time.Sleep(w.c.set.EndWait / 2) // no sweep looks again before
		synctest.Wait()
		w.checkValues("the transaction", []*value{v}, "committed")
	})
}
