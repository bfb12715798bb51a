package raftlink

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link"
)

// progressEvery is how often the sender of a snapshot hears that it is still being worked on.
const progressEvery = time.Second

// checkConfiguration decodes the configuration as Raft will, because Raft panics where it cannot.
func checkConfiguration(r *raft.InstallSnapshotRequest) (err error) {
	if r.SnapshotVersion == 0 {
		return nil
	}
	defer func() {
		if recover() != nil {
			err = errRaftMessage
		}
	}()
	_ = raft.DecodeConfiguration(r.Configuration)
	return nil
}

// runInstalls takes snapshots, one at a time, beside the main lane: what BeforeInstall does may
// take long.
func (b *inbox) runInstalls() {
	for r := b.installs.pop(); r != nil; r = b.installs.pop() {
		if r.Context().Err() == nil {
			b.install(r)
		}
		r.Release()
		r.EndStream()
	}
}

func (b *inbox) install(r *received) {
	req := r.req.(*raft.InstallSnapshotRequest)
	over := make(chan struct{})
	defer close(over)
	hooked := make(chan struct{})
	b.link.Go(func() {
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		hooked := hooked
		// The hook says itself how long it takes; Raft's own part has the time that its size gives
		// it.
		var limit <-chan time.Time
		for {
			select {
			case <-tick.C:
				r.Progress()
			case <-hooked:
				hooked = nil
				timer := time.NewTimer(scaled(b.timeout, req.Size))
				defer timer.Stop()
				limit = timer.C
			case <-limit:
				return
			case <-over:
				return
			case <-r.Context().Done():
				return
			}
		}
	})
	if hook := b.installHook(); hook != nil {
		ctx, cancel := context.WithCancelCause(r.Context())
		stop := make(chan struct{})
		b.link.Go(func() {
			select {
			case <-b.done:
				cancel(link.ErrClosed)
			case <-stop:
			}
		})
		err := hook(ctx, r.From(), req)
		close(stop)
		cancel(nil)
		if errors.Is(err, ErrInstalled) {
			b.respond(r, raft.RPCResponse{Response: &raft.InstallSnapshotResponse{RPCHeader: req.RPCHeader, Term: req.Term, Success: true}})
			return
		}
		if err != nil {
			b.respond(r, raft.RPCResponse{Error: err})
			return
		}
	}
	close(hooked)
	b.deliver(r)
}
