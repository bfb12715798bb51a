package gateway

import (
	"log/slog"
	"sync"

	"golang.org/x/time/rate"
)

// refusals logs what hostile or broken clients do: one line per event, but not
// more than a client can cause. What of it came from a client must be quoted and
// cut by whoever reports it.
type refusals struct {
	logger *slog.Logger

	mu     sync.Mutex
	byKind map[string]*refusal // kinds are words of this program
}

type refusal struct {
	limit   *rate.Limiter
	dropped int
}

func newRefusals(logger *slog.Logger) *refusals {
	return &refusals{logger: logger, byKind: map[string]*refusal{}}
}

func (r *refusals) log(kind string, why error, attrs ...any) {
	r.mu.Lock()
	one := r.byKind[kind]
	if one == nil {
		one = &refusal{limit: rate.NewLimiter(1, 10)}
		r.byKind[kind] = one
	}
	if !one.limit.Allow() {
		one.dropped++
		r.mu.Unlock()
		return
	}
	if one.dropped > 0 {
		attrs = append(attrs, "not_logged_before", one.dropped)
		one.dropped = 0
	}
	r.mu.Unlock()
	r.logger.Warn(kind, append(attrs, "error", why)...)
}
