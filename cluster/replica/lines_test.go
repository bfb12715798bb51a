package replica

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/outcome"
)

// arriving is what comes to a proposer, and what it made of it.
type arriving struct {
	t        *testing.T
	lines    *lines
	ready    []*submission
	proposed []calls.Place
	all      []*submission
}

func (a *arriving) come(place calls.Place) *submission {
	s := &submission{ctx: context.Background(), place: place, fate: make(chan fate, 1)}
	a.all = append(a.all, s)
	a.ready = a.lines.arrange(a.ready, s)
	return s
}

// propose does with the first n that are in order what pump.wanted does.
func (a *arriving) propose(n int) {
	n = min(n, len(a.ready))
	for _, s := range a.ready[:n] {
		if err := a.lines.check(s); err != nil {
			s.refuse(err)
			continue
		}
		if s.ctx.Err() != nil {
			s.refuse(outcome.ErrNoLeader)
			a.lines.gone(s)
			continue
		}
		a.proposed = append(a.proposed, s.place)
	}
	a.ready = a.ready[n:]
}

// Whatever order appends come in, whoever gives up and however long one is missing: of a run the
// first ones are proposed in order, and nothing else; nothing of a run behind a newer one; and who
// is not proposed is told that surely nothing happened.
func TestOfALineOnlyWhatIsInOrderIsProposed(t *testing.T) {
	for seed := range uint64(500) {
		synctest.Test(t, func(t *testing.T) {
			dice := rand.New(rand.NewPCG(seed, 5))
			a := &arriving{t: t, lines: newLines()}
			var coming []calls.Place
			for line := range uint64(1 + dice.IntN(3)) {
				for run := range uint64(1 + dice.IntN(3)) {
					for number := range uint32(1 + dice.IntN(8)) {
						if dice.IntN(20) > 0 { // else it is lost
							coming = append(coming, calls.Place{Line: line + 1, Run: 10*run + line, Number: number})
						}
					}
				}
			}
			// Runs come one after the other but for a few of each, in any order within.
			for range dice.IntN(2*len(coming) + 1) {
				i := dice.IntN(len(coming))
				j := max(0, i-dice.IntN(6))
				coming[i], coming[j] = coming[j], coming[i]
			}
			for _, place := range coming {
				s := a.come(place)
				if dice.IntN(30) == 0 {
					gone, cancel := context.WithCancel(context.Background())
					cancel()
					s.ctx = gone
				}
				if dice.IntN(3) == 0 {
					a.propose(1 + dice.IntN(4))
				}
				if dice.IntN(10) == 0 {
					time.Sleep(linePatience)
					select {
					case <-a.lines.overdue():
						a.lines.expire()
					default:
					}
				}
			}
			a.propose(len(a.ready))
			a.lines.end()
			a.check(fmt.Sprint("seed ", seed))
		})
	}
}

func (a *arriving) check(what string) {
	a.t.Helper()
	run, next := map[uint64]uint64{}, map[[2]uint64]uint32{}
	for _, p := range a.proposed {
		if p.Run < run[p.Line] {
			a.t.Errorf("%s: %+v is proposed behind run %d: %v", what, p, run[p.Line], a.proposed)
		}
		run[p.Line] = p.Run
		if key := [2]uint64{p.Line, p.Run}; p.Number != next[key] {
			a.t.Errorf("%s: %+v is proposed, and %d is the next of its run: %v", what, p, next[key], a.proposed)
		}
		next[[2]uint64{p.Line, p.Run}]++
	}
	for _, s := range a.all {
		refused := len(s.fate) > 0
		if refused == slices.Contains(a.proposed, s.place) {
			a.t.Errorf("%s: %+v is refused: %v, and proposed: %v", what, s.place, refused, !refused)
		}
		if refused && !outcome.NotAppended((<-s.fate).err) {
			a.t.Errorf("%s: the refusal of %+v says that it may be appended", what, s.place)
		}
	}
	if a.lines.parked != 0 {
		a.t.Errorf("%s: %d are said to wait", what, a.lines.parked)
	}
}

// More lines than are remembered have one append under way at a time, and lines that are not used
// are forgotten.
func TestLinesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &arriving{t: t, lines: newLines()}
		for line := range uint64(maxLines) {
			a.come(calls.Place{Line: line + 1, Run: 1})
		}
		time.Sleep(shortMemory - time.Second)
		first, second := a.come(calls.Place{Line: maxLines + 1, Run: 1}), a.come(calls.Place{Line: maxLines + 1, Run: 1, Number: 1})
		if len(first.fate) != 0 || len(second.fate) != 1 || len(a.lines.byID) != maxLines {
			t.Errorf("%d lines; of one more the first is refused: %v, the second: %v", len(a.lines.byID), len(first.fate) != 0, len(second.fate) != 0)
		}
		used := a.come(calls.Place{Line: 1, Run: 1, Number: 1})
		time.Sleep(2 * time.Second)
		first, second = a.come(calls.Place{Line: maxLines + 2, Run: 1}), a.come(calls.Place{Line: maxLines + 2, Run: 1, Number: 1})
		if n := len(a.lines.byID); n != 2 || len(first.fate)+len(second.fate)+len(used.fate) != 0 {
			t.Errorf("%d lines are remembered when those that are not used have gone", n)
		}
		for line := range uint64(fewLines) {
			a.come(calls.Place{Line: maxLines + 3 + line, Run: 1})
		}
		time.Sleep(2 * shortMemory)
		for line := range uint64(2 * fewLines) {
			a.come(calls.Place{Line: 2*maxLines + line, Run: 1})
		}
		if n := len(a.lines.byID); n != 2+3*fewLines {
			t.Errorf("%d lines are remembered where there are few, within a minute", n)
		}
		time.Sleep(lineMemory + time.Second)
		a.come(calls.Place{Line: 3 * maxLines, Run: 1})
		if n := len(a.lines.byID); n != 1 {
			t.Errorf("%d lines are remembered after a minute", n)
		}
	})
}
