package election

import (
	"sync/atomic"
	"time"
)

// longStill is how long this process must have stood still for Awake: on a busy machine it is late
// now and then.
const longStill = 2 * time.Second

// still is when this process stood still, as it does while it is stopped or its machine is paused.
type still struct {
	// owned by run: link clock since when this process runs without a pause
	awake     int64
	lastRound atomic.Int64 // link clock of the last round
	resumed   atomic.Int64 // link clock of the end of the last long pause; 0: there was none
}

// noticed is told by run of a pause that ends now.
func (s *still) noticed(now, paused int64) {
	// What this process has not heard says nothing yet.
	s.awake = now
	if paused > int64(longStill) {
		s.resumed.Store(now)
	}
}

// Awake gives since when this process runs without having stood still for longStill, as it does
// while it is stopped or its machine is paused: what it has not heard before that says nothing. The
// zero time: since the link was started, as far as is known.
func (b *Beacons) Awake() time.Time {
	now, last := b.link.Now(), b.still.lastRound.Load()
	resumed := b.still.resumed.Load()
	if last != 0 && now-last > int64(longStill) {
		resumed = now // this moment, and run has not noticed yet
	}
	if resumed == 0 {
		return time.Time{}
	}
	return b.link.At(resumed)
}
