package raftgroup

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// raftLogs turns what hashicorp libraries log into slog lines. Raft reports a
// dead peer several times a second for each raft group, so a message is let through
// once in a while and the rest are counted.
type raftLogs struct {
	logger *slog.Logger

	// mu guards seen. Nothing is logged, and no other lock taken, while it is held.
	mu   locks.Mutex[raftLogs]
	seen map[string]*suppressed
}

type suppressed struct {
	next  time.Time
	count int
}

const repeatEvery = 30 * time.Second

// NewLogger gives the hclog.Logger for all raft groups of a node.
func NewLogger(logger *slog.Logger) hclog.InterceptLogger {
	intercept := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Warn})
	intercept.RegisterSink(&raftLogs{logger: logger, seen: map[string]*suppressed{}})
	return intercept
}

// Accept implements hclog.SinkAdapter.
func (l *raftLogs) Accept(name string, level hclog.Level, msg string, args ...any) {
	if level < hclog.Warn {
		return
	}
	now := time.Now()
	l.mu.Lock()
	s := l.seen[msg]
	if s == nil {
		s = &suppressed{}
		l.seen[msg] = s
	}
	if now.Before(s.next) {
		s.count++
		l.mu.Unlock()
		return
	}
	repeated := s.count
	s.next, s.count = now.Add(repeatEvery), 0
	l.mu.Unlock()
	to := slog.LevelDebug
	if level >= hclog.Error {
		to = slog.LevelWarn
	}
	attrs := append([]any{"group", name}, args...)
	if repeated > 0 {
		attrs = append(attrs, "repeated", repeated)
	}
	l.logger.Log(context.Background(), to, "raft: "+msg, attrs...)
}
