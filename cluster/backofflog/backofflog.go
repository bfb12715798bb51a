// Package backofflog is a slog.Handler that says less and less often what repeats.
//
// You are here: beside everything; the node puts it between its logger and the log. It knows lines,
// and nothing of who writes them.
//
// Locks: causes.mu is the only one. Whoever logs may hold any other: nothing is called, taken or
// written under it, and the Handler below gets the line without it.
package backofflog

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// What is tried again for ever fails again for the same reason, and one line each time buries all
// others. So a warning or an error that repeats one before is held back for a second after that,
// then for two, four and so on; the next one that is let through says how many were not. It repeats
// one before if it has the same message and the same attributes, whatever the numbers in these are:
// ports, times and counts change from one try to the next. Lines of other levels tell of what was
// done, and pass.

const (
	firstBackoff = time.Second
	mostBackoff  = 10 * time.Minute
	// maxCauses bounds the lines that are remembered.
	maxCauses = 4096
)

// Handler lets lines through to another one.
type Handler struct {
	slog.Handler
	own    string // the attributes that all its lines have
	causes *causes
}

// causes are the lines of late, by what they say.
type causes struct {
	// mu guards all. No other lock is taken, and nothing is written, while it is held.
	mu  locks.Mutex[causes]
	all map[string]*cause
	now func() time.Time
}

type cause struct {
	until time.Time     // held back until then
	pause time.Duration // the last one
	held  int           // lines
}

// New gives a handler that lets lines through to h.
func New(h slog.Handler) *Handler {
	return &Handler{Handler: h, causes: &causes{all: map[string]*cause{}, now: time.Now}}
}

// Handle implements slog.Handler.
func (h *Handler) Handle(ctx context.Context, line slog.Record) error {
	if line.Level >= slog.LevelWarn {
		said := strings.Builder{}
		said.WriteString(h.own)
		said.WriteString(line.Message)
		line.Attrs(func(a slog.Attr) bool {
			said.WriteString(a.String())
			return true
		})
		held, pass := h.causes.pass(withoutNumbers(said.String()))
		if !pass {
			return nil
		}
		if held > 0 {
			line.AddAttrs(slog.Int("not_logged_before", held))
		}
	}
	return h.Handler.Handle(ctx, line)
}

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	own := strings.Builder{}
	own.WriteString(h.own)
	for _, a := range attrs {
		own.WriteString(a.String())
	}
	return &Handler{h.Handler.WithAttrs(attrs), own.String(), h.causes}
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{h.Handler.WithGroup(name), h.own + name, h.causes}
}

// pass reports whether a line is let through, and how many were held back since the last one.
func (c *causes) pass(said string) (held int, pass bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	one := c.all[said]
	switch {
	case one == nil:
		if len(c.all) >= maxCauses {
			clear(c.all) // each is said once more
		}
		one = &cause{}
		c.all[said] = one
	case now.Before(one.until):
		one.held++
		return 0, false
	case now.Sub(one.until) > one.pause:
		one.pause = 0 // it had ended
	}
	held, one.held = one.held, 0
	one.pause = min(max(2*one.pause, firstBackoff), mostBackoff)
	one.until = now.Add(one.pause)
	return held, true
}

// withoutNumbers gives the text with each number in it as #.
func withoutNumbers(s string) string {
	b := make([]byte, 0, len(s))
	for i := range len(s) {
		switch {
		case s[i] < '0' || s[i] > '9':
			b = append(b, s[i])
		case len(b) == 0 || b[len(b)-1] != '#':
			b = append(b, '#')
		}
	}
	return string(b)
}
