package transaction

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trimaran-io/trimaran/outcome"
)

// cuts are what somebody has read of all targets while commits were held.
type cuts struct {
	w      *world
	random *rand.Rand
	all    []map[string]int // by target: world.markers when it was read
}

// run holds commits now and then, reads, lets go, and keeps what it read if they were held all
// along. Some holders die, and some are too slow.
func (c *cuts) run(ctx context.Context) {
	w, random := c.w, c.random
	for ctx.Err() == nil {
		time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
		w.mu.Lock()
		before := w.c
		w.mu.Unlock()
		hold, err := before.HoldCommits(ctx)
		if err != nil || random.IntN(8) == 0 {
			continue
		}
		longest := []int{1, 50, 300, 1500}[random.IntN(4)]
		cut := map[string]int{}
		w.mu.Lock()
		targets := slices.Sorted(maps.Keys(w.targets))
		w.mu.Unlock()
		random.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
		for _, name := range targets {
			time.Sleep(time.Duration(random.IntN(longest)) * time.Millisecond)
			w.mu.Lock()
			for w.targets[name].onItsWay != nil {
				w.awaits(w.targets[name].onItsWay)
			}
			cut[name] = w.markers
			w.mu.Unlock()
		}
		w.mu.Lock()
		after := w.c
		w.mu.Unlock()
		if random.IntN(4) == 0 {
			after = before // it may have been deposed
		}
		if held, err := after.ReleaseCommits(ctx, hold); held && err == nil {
			c.all = append(c.all, cut)
		}
	}
}

// check holds that a transaction is whole in every cut.
func (c *cuts) check(name string, values []*value) {
	c.w.t.Helper()
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	for i, cut := range c.all {
		in, out := "", ""
		for _, v := range values {
			at, read := cut[v.target]
			switch {
			case c.w.gone[v.target]:
			case read && v.fate == "committed" && v.ended <= at:
				in = v.target
			default:
				out = v.target
			}
		}
		if in != "" && out != "" {
			c.w.t.Errorf("%s is committed in %s and not in %s, as they were read at a time, for the %d. time", name, in, out, i+1)
		}
	}
}

// A commit that is asked for while commits are held waits until they are let go; an abort does not.
// Who holds and dies holds for HoldTime, and who comes then waits a moment.
func TestHeldCommits(t *testing.T) {
	for _, ahead := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, ahead, func(string) fate { return done })
			defer func() { w.c.Close() }()
			a, b := &client{w: w, name: "a", id: "a", v2: true}, &client{w: w, name: "b", id: "b", v2: true}
			for _, c := range []*client{a, b} {
				if err := c.init(t.Context()); err != nil {
					t.Fatal(err)
				}
				if _, told := c.transact(t.Context(), "before", []string{"t/0"}, true); told != "committed" {
					t.Fatal(told)
				}
			}
			if _, err := a.write(t.Context(), "held", "t/0"); err != nil {
				t.Fatal(err)
			}
			hold, err := w.c.HoldCommits(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			committed := make(chan time.Duration, 1)
			go func() {
				if err := a.end(t.Context(), true); err != nil {
					t.Error(err)
				}
				committed <- time.Since(began)
			}()
			if _, told := b.transact(t.Context(), "aborted", []string{"t/0", "t/1"}, false); told != "aborted" || time.Since(began) != 0 {
				t.Errorf("%s after %v", told, time.Since(began))
			}
			time.Sleep(300 * time.Millisecond)
			if len(committed) > 0 {
				t.Error("it is committed while commits are held")
			}
			if held, err := w.c.ReleaseCommits(t.Context(), hold); !held || err != nil {
				t.Error(held, err)
			}
			if took := <-committed; took != 300*time.Millisecond {
				t.Errorf("it was committed after %v", took)
			}
			if held, err := w.c.ReleaseCommits(t.Context(), hold); held || err != nil {
				t.Error("it is held twice", held, err)
			}

			// This holder dies. Its time counts from when it asked, for all who come to it.
			began = time.Now()
			first, err := w.c.HoldCommits(t.Context())
			if err != nil || time.Since(began) != holdRest {
				t.Fatal(err, time.Since(began))
			}
			began = time.Now()
			time.Sleep(HoldTime / 2)
			second, err := w.c.HoldCommits(t.Context())
			if err != nil || second == first || time.Since(began) != HoldTime/2 {
				t.Fatal(err, first, second)
			}
			if _, told := a.transact(t.Context(), "late", []string{"t/1", "group g"}, true); told != "committed" || time.Since(began) < HoldTime || time.Since(began) > HoldTime+50*time.Millisecond {
				t.Errorf("%s after %v", told, time.Since(began))
			}
			if held, err := w.c.ReleaseCommits(t.Context(), second); held || err != nil {
				t.Error("it is held though its time was over", held, err)
			}
			w.settle()
		})
	}
}

// What was decided has to be everywhere, or nothing is held; and then producers do not wait either.
func TestNothingIsHeldWhileAMarkerIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reached := false
		w := newWorld(t, true, func(kind string) fate {
			if kind == "marker" && !reached {
				return failed
			}
			return done
		})
		defer func() { w.c.Close() }()
		a := &client{w: w, name: "a", id: "a", v2: true}
		if err := a.init(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, told := a.transact(t.Context(), "one", []string{"t/0", "t/1"}, true); told != "committed" {
			t.Fatal(told)
		}
		began := time.Now()
		if hold, err := w.c.HoldCommits(t.Context()); outcome.Code(err) != outcome.ErrTimeout || hold != 0 || time.Since(began) != holdSettle {
			t.Error(hold, err, time.Since(began))
		}
		if w.c.held() {
			t.Error("it is held")
		}
		w.mu.Lock()
		reached = true
		w.mu.Unlock()
		if _, err := w.c.HoldCommits(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A command whose fate was unknown is applied while commits are held: who lets go is told so. Nor
// does a coordinator that was deposed say that they were held.
func TestAHoldThatDidNotStand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := done
		w := newWorld(t, true, func(string) fate { f := next; next = done; return f })
		defer func() { w.c.Close() }()
		a := &client{w: w, name: "a", id: "a", v2: true}
		if err := a.init(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := a.write(t.Context(), "one", "t/0"); err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		next = late // applied 50 ms later
		w.mu.Unlock()
		ended := make(chan error, 1)
		go func() { ended <- a.end(t.Context(), true) }()
		synctest.Wait()
		hold, err := w.c.HoldCommits(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if held, err := w.c.ReleaseCommits(t.Context(), hold); held || err != nil {
			t.Error("a commit was decided, and commits were held", held, err)
		}
		hold, err = w.c.HoldCommits(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		old := w.c
		w.mu.Lock()
		w.term++ // another one leads, and this one has not heard of it
		w.mu.Unlock()
		if _, err := old.ReleaseCommits(t.Context(), hold); err == nil {
			t.Error("who was deposed says that commits were held")
		}
	})
}
