package listen

import (
	"log/slog"

	"golang.org/x/time/rate"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// Refusals logs what hostile or broken clients do: one line per event, but not
// more than a client can cause. What of it came from a client must be quoted and
// cut by whoever reports it.
type Refusals struct {
	logger *slog.Logger

	mu     locks.Mutex[Refusals] // guards byKind and what is in it; nothing is taken under it
	byKind map[string]*refusal   // kinds are words of this program
}

type refusal struct {
	limit   *rate.Limiter
	dropped int
}

// NewRefusals makes one that logs to logger.
func NewRefusals(logger *slog.Logger) *Refusals {
	return &Refusals{logger: logger, byKind: map[string]*refusal{}}
}

// Log logs that something of that kind was refused, or counts it for the next line.
func (r *Refusals) Log(kind string, why error, attrs ...any) {
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
