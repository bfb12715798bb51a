package replica

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
)

// The leadership of a damaged replica is given away by one at a time, and not again at once: the
// group takes no proposals meanwhile, and the set looks whenever the catalog changes.
func TestADamagedLeaderHoldsItsGroupUpSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestSet(t, nil)
		r := s.led(s.topic("a", nil))
		s.giveHurt(r.Replica)
		synctest.Wait()
		if n := s.host.handOvers.Load(); n != 0 {
			t.Fatalf("a sound one was to be given away %d times", n)
		}
		s.ReadFailed(r.Replica, fmt.Errorf("%w: a byte", raftlog.ErrDamaged), 0)
		for want := range int64(3) {
			for range 5 {
				s.giveHurt(r.Replica)
				// Another byte of it changes nothing.
				s.ReadFailed(r.Replica, fmt.Errorf("%w: a byte", raftlog.ErrDamaged), 9)
				synctest.Wait()
			}
			if n := s.host.handOvers.Load(); n != want+1 {
				t.Fatalf("it was to be given away %d times, want %d", n, want+1)
			}
			time.Sleep(giveHurtPause)
			synctest.Wait()
		}
	})
}
