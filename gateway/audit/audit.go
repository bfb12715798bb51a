// Package audit writes down who was refused what.
//
// You are here: beside the gateway's handlers and the login, which call it. A line is JSON where
// its logger is: who (the principal, or the name that was claimed), from (the address), what, and
// why. Who makes refusals cannot make more lines than a few a second, and what it says is cut.
//
// Locks: Log.mu is taken alone, and nothing is taken or waited for under it.
package audit

import (
	"context"
	"log/slog"

	"golang.org/x/time/rate"

	"github.com/trimaran-io/trimaran/internal/locks"
)

const (
	// maxKinds bounds what is told apart; beyond it some are forgotten, by chance.
	maxKinds = 10_000
	maxText  = 256 // bytes of what a client says
	// Whoever makes up names makes no more lines than that, at once and a second.
	burst, perSecond = 500, 50
)

// Event is one refusal.
type Event struct {
	Who  string // "User:alice", or "" for nobody that is known
	From string // address without a port
	What string // such as "login" or "Produce"
	Why  string
	// More are further attributes, as slog takes them.
	More []any
}

// Log writes events. A nil Log writes none.
type Log struct {
	logger *slog.Logger

	mu     locks.Mutex[Log] // guards the rest
	byKind map[kind]*limit
	all    *rate.Limiter
}

type kind struct{ message, who, from, what string }

type limit struct {
	rate    *rate.Limiter
	dropped int
}

func newLimit() *limit { return &limit{rate: rate.NewLimiter(1, 5)} }

// New makes one that writes to logger, at most five lines at once and one a second of the same who,
// from and what.
func New(logger *slog.Logger) *Log {
	return &Log{logger: logger, byKind: map[kind]*limit{}, all: rate.NewLimiter(perSecond, burst)}
}

// Denied writes an event down, or counts it for the next line of its kind.
func (l *Log) Denied(e Event) { l.Note("denied", e) }

// Note is Denied of what is no refusal and is to be found again: a token that was issued or
// revoked.
func (l *Log) Note(message string, e Event) {
	if l == nil {
		return
	}
	e.Who = cut(e.Who)
	dropped, say := l.count(kind{message, e.Who, e.From, e.What})
	if !say {
		return
	}
	attrs := append([]any{"who", e.Who, "from", e.From, "what", e.What, "why", cut(e.Why)}, e.More...)
	if dropped > 0 {
		attrs = append(attrs, "not_logged_before", dropped)
	}
	l.logger.Log(context.Background(), slog.LevelInfo, message, attrs...)
}

func (l *Log) count(k kind) (dropped int, say bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.byKind[k]
	if one == nil && len(l.byKind) >= maxKinds {
		for k, old := range l.byKind { // who has been quiet for a while is as new
			if old.rate.Tokens() >= 5 && old.dropped == 0 {
				delete(l.byKind, k)
			}
		}
		for k := range l.byKind {
			if len(l.byKind) < maxKinds*9/10 {
				break
			}
			delete(l.byKind, k)
		}
	}
	if one == nil {
		one = newLimit()
		l.byKind[k] = one
	}
	if !one.rate.Allow() || !l.all.Allow() {
		one.dropped++
		return 0, false
	}
	dropped, one.dropped = one.dropped, 0
	return dropped, true
}

func cut(s string) string {
	if len(s) > maxText {
		return s[:maxText] + "…"
	}
	return s
}
