package membership

import (
	"context"
	"log"
	"log/slog"
	"strings"
)

// logAdapter takes memberlist's lines, "[LEVEL] memberlist: text". They are about
// memberlist's workings; the events an operator asks about are logged by this package
// itself. So all but its errors are debug lines.
type logAdapter struct{ log *slog.Logger }

func newLogAdapter(l *slog.Logger) *log.Logger { return log.New(logAdapter{l}, "", 0) }

func (a logAdapter) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	level := slog.LevelDebug
	if rest, ok := strings.CutPrefix(text, "["); ok {
		if name, rest, ok := strings.Cut(rest, "] "); ok {
			text = rest
			switch name {
			case "ERR", "ERROR":
				level = slog.LevelWarn
			}
		}
	}
	// A stranger on the gossip port can cause these at any rate; kept out is logged once by
	// events.go.
	if strings.Contains(text, "ignoring alive message") {
		return len(line), nil
	}
	text = strings.TrimPrefix(text, "memberlist: ")
	if a.log.Enabled(context.Background(), level) {
		a.log.Log(context.Background(), level, "gossip: "+text)
	}
	return len(line), nil
}
