package backofflog

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// A failure that repeats once a second for an hour is a few lines, and the last says how many were
// held back. Another cause is another line at once, and the first one again after it has been
// quiet.
func TestWhatFailsForEverIsAFewLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	h := New(slog.NewTextHandler(&out, nil))
	now := time.Unix(0, 0)
	h.causes.now = func() time.Time { return now }
	log := slog.New(h).With("self", "n1")
	refused := func(node string) {
		log.Warn("peer connection refused", "node", node, "remote", fmt.Sprintf("127.0.0.1:%d", 40000+now.Unix()), "error", errors.New("another node answers at that address"))
	}
	for range 3600 {
		refused("n2")
		log.Info("something is done")
		now = now.Add(time.Second)
	}
	lines := strings.Count(out.String(), "refused")
	if lines < 5 || lines > 20 {
		t.Errorf("%d lines, want a few", lines)
	}
	if !strings.Contains(out.String(), "not_logged_before=511") {
		t.Errorf("it is not said how many were held back:\n%s", out.String()[:2000])
	}
	if n := strings.Count(out.String(), "something is done"); n != 3600 {
		t.Errorf("%d of 3600 lines about what was done", n)
	}
	out.Reset()
	refused("n2")
	log.Warn("peer connection refused", "node", "n2", "remote", "127.0.0.1:1", "error", errors.New("it belongs to another cluster"))
	slog.New(h).With("self", "other").Warn("peer connection refused", "node", "n2")
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("%d lines of two other causes:\n%s", n, out.String())
	}
	out.Reset()
	now = now.Add(3 * mostBackoff)
	refused("n2")
	now = now.Add(2 * time.Second)
	refused("n2")
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("%d lines after a long silence, want 2:\n%s", n, out.String())
	}
}
