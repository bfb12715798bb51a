package cluster

import (
	"context"
	"errors"
	"testing"

	"github.com/trimaran-io/trimaran/outcome"
)

// The first reason to end is the reason; what fails while a node stops is none.
func TestANodeEndsForItsFirstReason(t *testing.T) {
	life, cancel := context.WithCancel(t.Context())
	e := newEnding(life)
	if err := e.serving(); err != nil {
		t.Errorf("it has not begun to end: %v", err)
	}
	e.stop()
	if err := e.serving(); outcome.Code(err) != outcome.ErrShuttingDown {
		t.Errorf("it is being stopped: %v", err)
	}
	first := errors.New("medium error")
	if err := e.lost(first); err != first || e.err() != nil {
		t.Errorf("%v is no sync's error, and it ends: %v", err, e.err())
	}
	if err := e.lost(notSynced{Err: first}); !errors.Is(err, first) || !errors.Is(e.err(), first) {
		t.Errorf("%v is a sync's error, and it ends: %v", err, e.err())
	}
	e.fail(ErrLeft)
	select {
	case <-e.failed:
	default:
		t.Error("nobody is told")
	}
	if err := e.serving(); !errors.Is(err, first) {
		t.Errorf("it ends with: %v", err)
	}
	again := newEnding(life)
	cancel()
	again.fail(first)
	if err := again.err(); err != nil {
		t.Errorf("after its end: %v", err)
	}
}
