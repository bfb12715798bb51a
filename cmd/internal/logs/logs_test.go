package logs

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// reader is who reads a log: it may be gone or stand still.
type reader struct {
	mu    sync.Mutex
	text  bytes.Buffer
	gone  bool
	still chan struct{} // not nil: until it is closed
}

func (r *reader) Write(b []byte) (int, error) {
	r.mu.Lock()
	still, gone := r.still, r.gone
	r.mu.Unlock()
	if still != nil {
		<-still
	}
	if gone {
		return 0, errors.New("broken pipe")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

func TestLinesArriveInOrderAndAllOfThemAtTheEnd(t *testing.T) {
	var r reader
	w := New(&r)
	var want strings.Builder
	for i := range 1000 {
		fmt.Fprintln(w, i)
		fmt.Fprintln(&want, i)
	}
	w.Close(10 * time.Second)
	if r.text.String() != want.String() || w.Dropped() != 0 {
		t.Errorf("%d dropped, %q", w.Dropped(), r.text.String())
	}
	fmt.Fprintln(w, "too late")
	w.Close(0)
}

func TestAReaderThatIsGoneCostsLinesAndNothingElse(t *testing.T) {
	r := reader{gone: true}
	w := New(&r)
	told := make(chan uint64, 1)
	w.OnDropped(func(lines uint64) { told <- lines })
	for range 10 {
		fmt.Fprintln(w, "lost")
	}
	for w.Dropped() < 10 {
		runtime.Gosched()
	}
	r.mu.Lock()
	r.gone = false
	r.mu.Unlock()
	fmt.Fprintln(w, "here")
	if lines := <-told; lines != 10 {
		t.Errorf("%d lines are said to be missing, want 10", lines)
	}
	w.Close(10 * time.Second)
	if r.text.String() != "here\n" {
		t.Errorf("%q", r.text.String())
	}
}

func TestNobodyWaitsForAReaderThatStandsStill(t *testing.T) {
	r := reader{still: make(chan struct{})}
	w := New(&r)
	line := append(bytes.Repeat([]byte("x"), 1000), '\n')
	for range 3 * maxBytes / len(line) {
		_, _ = w.Write(line)
	}
	if dropped := w.Dropped(); dropped < uint64(maxBytes/len(line)) {
		t.Errorf("%d lines dropped, so more is held than %d bytes", dropped, maxBytes)
	}
	w.Close(time.Millisecond)
	close(r.still)
	<-w.done
}

// TestNothingInALogSteersATerminal holds for text and JSON.
func TestNothingInALogSteersATerminal(t *testing.T) {
	hostile := "a\x1b[2J\u009b2J\x7f\u202e\u2066\xff\n\tb\U000e0001"
	for name, handler := range map[string]func(w *Writer) slog.Handler{
		"text": func(w *Writer) slog.Handler { return slog.NewTextHandler(w, nil) },
		"json": func(w *Writer) slog.Handler { return slog.NewJSONHandler(w, nil) },
	} {
		var r reader
		w := New(&r)
		slog.New(handler(w)).Info(hostile, "client", hostile, hostile, 1, "error", errors.New(hostile))
		w.Close(10 * time.Second)
		line, more, _ := strings.Cut(r.text.String(), "\n")
		if more != "" {
			t.Errorf("%s: a second line %q", name, more)
		}
		for _, c := range line {
			if c < ' ' || c >= 0x7f {
				t.Errorf("%s has %q: %q", name, c, line)
			}
		}
	}
}
