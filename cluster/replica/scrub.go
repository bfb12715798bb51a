package replica

import (
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// The scrub reads what replicas here keep, in the background and slowly, so that
// damage is found while others can still mend it. A replica that is found damaged
// is rebuilt from them.

const (
	defaultScrubRate = 4 << 20 // bytes a second
	scrubBurst       = 1 << 20
	scrubPause       = 30 * time.Second // at least, between one pass and the next
)

// scrubLoop goes through all replicas again and again.
func (s *Set) scrubLoop() {
	ctx, logger := s.env.ctx, s.env.Logger
	bytesPerSecond := s.env.ScrubRate
	if bytesPerSecond == 0 {
		bytesPerSecond = defaultScrubRate
	}
	if bytesPerSecond < 0 {
		return
	}
	limit := rate.NewLimiter(rate.Limit(bytesPerSecond), scrubBurst)
	pause := min(scrubPause, max(time.Duration(float64(scrubPause)*defaultScrubRate/float64(bytesPerSecond)), time.Second))
	for {
		began, bytes := time.Now(), int64(0)
		replicas := slices.Clone(s.Running())
		slices.SortFunc(replicas, func(a, b *Replica) int { return strings.Compare(a.ID.String(), b.ID.String()) })
		for _, r := range replicas {
			err := r.Log.Scrub(func(size int) error {
				for left := size; left > 0; {
					some := min(left, scrubBurst)
					if err := limit.WaitN(ctx, some); err != nil {
						return err
					}
					left -= some
				}
				bytes += int64(size)
				return nil
			})
			if ctx.Err() != nil {
				return
			}
			s.scrubbed(r, err)
		}
		if bytes > 0 {
			logger.Debug("all segments are checked", "replicas", len(replicas), "bytes", bytes, "took", time.Since(began).Round(time.Second))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// scrubbed is told what the scrub of a replica found.
func (s *Set) scrubbed(r *Replica, err error) {
	switch {
	case err == nil:
		s.healed(r)
	case !isDamage(err):
		s.env.Logger.Warn("cannot check a replica's segments", "partition", r.ID, "error", err)
	default:
		s.ReadFailed(r, err, 0)
	}
}
