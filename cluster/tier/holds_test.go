package tier

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// slowLooks is a store that takes its time to be asked for sizes, or does not come back.
type slowLooks struct {
	Store
	takes time.Duration
	hangs chan struct{} // until it is closed; nil: it does not
}

func (s *slowLooks) Size(ctx context.Context, key string) (int64, error) {
	time.Sleep(s.takes)
	if s.hangs != nil {
		<-s.hangs
	}
	return s.Store.Size(ctx, key)
}

// TestAMountThatHangsHoldsNobody: a look is left at its time, or when the node ends, though the
// store does not, and the looks that are left are bounded. Where the store is slow all of a segment
// is looked for all the same.
func TestAMountThatHangsHoldsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 1<<20, 500)
		f.fill(1, 50, 100)
		s := f.segments[0]
		slow := &slowLooks{Store: f.Tier.Store, takes: holdTimeout / 3}
		f.Tier.Store = slow
		if s.Pieces < 4 {
			t.Fatalf("%d pieces", s.Pieces)
		}
		if err := f.Holds(t.Context(), testPartition, s); err != nil {
			t.Errorf("%d pieces of a slow store: %v", s.Pieces, err)
		}
		slow.hangs = make(chan struct{})
		for range looksLeft + 2 {
			ctx, cancel := context.WithCancel(t.Context())
			began := time.Now()
			time.AfterFunc(time.Second, cancel)
			if err := f.Holds(ctx, testPartition, s); !errors.Is(err, context.Canceled) || time.Since(began) != time.Second {
				t.Errorf("%v after %s", err, time.Since(began))
			}
			cancel()
		}
		time.Sleep(holdTimeout)
		if n := len(f.looks); n != looksLeft {
			t.Errorf("%d looks are left, want %d", n, looksLeft)
		}
		close(slow.hangs)
		synctest.Wait()
		slow.hangs, slow.takes = nil, 0
		if err := f.Holds(t.Context(), testPartition, s); err != nil {
			t.Error(err)
		}
	})
}
