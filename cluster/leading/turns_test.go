package leading

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestInTurns(t *testing.T) {
	const turn = 50 * time.Millisecond
	items := make([]int, 100)
	for i := range items {
		items[i] = i
	}
	for _, test := range []struct {
		name      string
		hang      int // so many of the first do not end
		ends      time.Duration
		took      time.Duration
		most      int32 // at once
		completed int32
	}{
		{"eight at a time", 0, time.Hour, 130 * time.Millisecond, 8, 100},
		{"those that hang keep others for a turn", 16, time.Second, time.Second, 8 + 16, 84},
		{"an end in the middle", 0, 65 * time.Millisecond, 65 * time.Millisecond, 8, 48},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), test.ends)
				defer cancel()
				over := make(chan struct{})
				defer time.Sleep(time.Second) // virtual: what is still under way ends
				defer close(over)
				var running, most, completed atomic.Int32
				began := time.Now()
				inTurns(ctx, 8, turn, items, func(i int) {
					most.Store(max(most.Load(), running.Add(1)))
					defer running.Add(-1)
					if i < test.hang {
						<-over
						return
					}
					time.Sleep(10 * time.Millisecond)
					completed.Add(1)
				})
				if took := time.Since(began); took != test.took || completed.Load() != test.completed || most.Load() > test.most {
					t.Errorf("%s, %d done, %d at once; want %s, %d, at most %d", took, completed.Load(), most.Load(), test.took, test.completed, test.most)
				}
			})
		})
	}
}
