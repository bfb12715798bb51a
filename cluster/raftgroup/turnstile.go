package raftgroup

import (
	"context"
	"sync/atomic"
)

// Turnstile counts what a raft group's leader has proposed, and holds up who wants to propose. The
// zero Turnstile is open.
type Turnstile struct {
	under atomic.Int64                  // proposals whose fate is not known
	held  atomic.Pointer[chan struct{}] // closed when proposals are taken again; nil: they are
}

// Enter waits until a proposal may be made; Leave must be called when its fate is known. false: ctx
// has ended.
func (t *Turnstile) Enter(ctx context.Context) bool {
	for {
		t.under.Add(1)
		held := t.held.Load()
		if held == nil {
			return true
		}
		t.under.Add(-1)
		select {
		case <-*held:
		case <-ctx.Done():
			return false
		}
	}
}

// Leave says that the fate of a proposal is known.
func (t *Turnstile) Leave() { t.under.Add(-1) }

// Under is how many proposals have no fate yet.
func (t *Turnstile) Under() int64 { return t.under.Load() }

// Hold keeps proposals from being made until open is called. false: somebody else does already.
func (t *Turnstile) Hold() (open func(), ok bool) {
	over := make(chan struct{})
	if !t.held.CompareAndSwap(nil, &over) {
		return nil, false
	}
	return func() {
		t.held.Store(nil)
		close(over)
	}, true
}
