// Package logs is the way from a process's log to whoever reads it.
//
// You are here: below the commands that run for long. The reader of a log may go away
// (a pager that is closed, a log daemon that is started again) or stand still. Neither is a reason
// for a node to end, or to wait: lines that cannot be written are dropped and counted.
//
// Locks: Writer.mu is the only one. Whoever logs may hold any other: nothing is written, called or
// waited for under it.
package logs

import (
	"fmt"
	"io"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// What may wait for the reader: lines, and their bytes.
const (
	maxLines = 4096
	maxBytes = 1 << 20
)

// Writer takes whole lines and never waits for who reads them. Call Close at the end.
type Writer struct {
	out  io.Writer
	tell func(lines uint64) // nil: nobody is told of what was dropped

	lines   chan []byte
	bytes   atomic.Int64 // of what waits
	dropped atomic.Uint64
	done    chan struct{} // closed when everything is written after Close

	// mu guards lines being closed. A line is put into them under it, if there is room; nothing is
	// waited for, and no other lock taken.
	mu     locks.Mutex[Writer]
	closed bool
}

// New gives a Writer to out, which it alone should write to.
func New(out io.Writer) *Writer {
	w := &Writer{out: out, lines: make(chan []byte, maxLines), done: make(chan struct{})}
	go w.run()
	return w
}

// Survive keeps the process alive when nobody reads what it prints any more; by default the write
// would end it. It is for commands that run for long.
func Survive() { signal.Ignore(syscall.SIGPIPE) }

// OnDropped has tell called, with how many, when lines are written again after some were dropped.
// It may log. It must be called before the first Write.
func (w *Writer) OnDropped(tell func(lines uint64)) { w.tell = tell }

// Write implements io.Writer for one whole line or several. What could do something to a terminal
// is escaped. It never fails.
func (w *Writer) Write(line []byte) (int, error) {
	n := len(line)
	line = escaped(line)
	size := int64(len(line))
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.bytes.Load()+size > maxBytes {
		w.dropped.Add(1)
		return n, nil
	}
	select {
	case w.lines <- line:
		w.bytes.Add(size)
	default:
		w.dropped.Add(1)
	}
	return n, nil
}

// Dropped is how many lines nobody got.
func (w *Writer) Dropped() uint64 { return w.dropped.Load() }

func (w *Writer) run() {
	defer close(w.done)
	var told uint64
	for line := range w.lines {
		_, err := w.out.Write(line)
		w.bytes.Add(-int64(len(line)))
		if err != nil {
			w.dropped.Add(1)
			continue
		}
		if dropped := w.dropped.Load(); dropped > told && w.tell != nil {
			w.tell(dropped - told)
			told = dropped
		}
	}
}

// Close takes no more lines and waits until those that wait are written, or time is over.
func (w *Writer) Close(within time.Duration) {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.lines)
	}
	w.mu.Unlock()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-w.done:
	case <-timer.C:
	}
}

// escaped copies lines of which slog has quoted what is in them. Its JSON leaves characters as they
// are that steer a terminal or turn the direction of text around; in a JSON string this says the
// same.
func escaped(line []byte) []byte {
	out := make([]byte, 0, len(line))
	for len(line) > 0 {
		r, n := utf8.DecodeRune(line)
		switch {
		case r == '\n' || r == '\t' || unicode.IsGraphic(r) && !(r == utf8.RuneError && n == 1):
			out = append(out, line[:n]...)
		case r == utf8.RuneError:
			out = append(out, `\ufffd`...)
		default:
			for _, unit := range utf16.AppendRune(nil, r) {
				out = fmt.Appendf(out, `\u%04x`, unit)
			}
		}
		line = line[n:]
	}
	return out
}
