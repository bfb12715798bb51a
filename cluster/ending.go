package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/outcome"
)

// ending is whether and why the node ends. It is asked by everybody and waits for nothing.
type ending struct {
	logger *slog.Logger
	life   context.Context // of the node: what fails after it has ended is no news
	failed chan struct{}   // closed when fatal is set

	// mu guards the fields below. Nothing is called under it.
	mu       locks.Mutex[ending]
	stopping bool
	fatal    error
}

func newEnding(life context.Context) *ending {
	return &ending{life: life, logger: slog.New(slog.DiscardHandler), failed: make(chan struct{})}
}

// fail records an error that only the operator can mend. The first one counts.
func (e *ending) fail(err error) {
	if e.life.Err() != nil {
		return
	}
	e.mu.Lock()
	first := e.fatal == nil
	if first {
		e.fatal = err
		close(e.failed)
	}
	e.mu.Unlock()
	switch {
	case !first:
	case errors.Is(err, ErrLeft):
		e.logger.Info("the node ends: it has left the cluster, as was asked for")
	default:
		e.logger.Error("the node cannot go on", "error", err)
	}
}

// lost ends the node if err is that of a sync, and gives it back. The kernel tells it once: whoever
// tries again is told that all is well.
func (e *ending) lost(err error) error {
	if errors.As(err, new(notSynced)) {
		e.diskFailed(err)
	}
	return err
}

// diskFailed ends the node: of what was written nobody knows what is on the disk, and only a
// restart finds out.
func (e *ending) diskFailed(err error) {
	e.fail(fmt.Errorf("the disk has lost what was written: %w", err))
}

// stop says that the node is being stopped in good order.
func (e *ending) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopping = true
}

// err is what the node fails with; nil: it goes on.
func (e *ending) err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.fatal
}

// serving is nil unless the node has failed or is being stopped: the error,
// outcome.ErrShuttingDown.
func (e *ending) serving() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fatal == nil && e.stopping {
		return outcome.ErrShuttingDown
	}
	return e.fatal
}
