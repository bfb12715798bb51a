package listen

import (
	"context"
	"log/slog"
	"testing"
	"time"
)

type serves struct{}

func (serves) Ready() error { return nil }

func (serves) Serving() (elsewhere bool, why error) { return false, nil }

// Shutdown waits for what is to run after a while, and not for what was stopped; then nothing of it
// is left.
func TestShutdownWaitsForWhatIsToRun(t *testing.T) {
	s, err := New(Config{Node: serves{}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ran, stopped := make(chan struct{}), make(chan struct{})
	s.Go(func() {
		s.After(20*time.Millisecond, func() { close(ran) })
		s.After(time.Hour, func() { close(stopped) })() // stopped before it runs
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ran:
	default:
		t.Error("Shutdown has not waited")
	}
	select {
	case <-stopped:
		t.Error("what was stopped has run")
	default:
	}
}
