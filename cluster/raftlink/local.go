package raftlink

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// InstallHook is what Transport.BeforeInstall takes.
type InstallHook = func(ctx context.Context, from string, req *raft.InstallSnapshotRequest) error

// ErrInstalled is what an InstallHook returns when the replica has all that the snapshot stands
// for.
var ErrInstalled = errors.New("the snapshot is installed")

// local is this node's member of a raft group: its Raft, and how messages get there.
type local struct {
	group    string
	admit    func(req any) bool // nil: all; set before the first message is taken
	consumer chan raft.RPC
	done     chan struct{} // closed when the raft group is
	timeout  time.Duration // of a message

	// attached is what Attach was told of, nil once done is closed: every look at all raft groups
	// reads it.
	attached atomic.Pointer[Raft]

	mu      locks.Mutex[local] // guards what follows; nothing is called under it
	beat    func(raft.RPC)
	install InstallHook
}

// RaftGroup is the raft group's name.
func (l *local) RaftGroup() string { return l.group }

// Done is closed by Close.
func (l *local) Done() <-chan struct{} { return l.done }

// OnRequest sets what looks at each request before Raft does, except at heartbeats that are taken
// beside its main loop; false refuses it. It must be called by what Transports.Open prepares with.
func (l *local) OnRequest(admit func(req any) bool) { l.admit = admit }

// Attach tells the transport of the raft group's Raft here. Until then every message goes on the
// wire, and every heartbeat is taken beside Raft's main loop.
func (l *local) Attach(r Raft) {
	l.attached.Store(&r)
	select {
	case <-l.done:
		l.attached.Store(nil)
	default:
	}
}

// close ends the raft group's part here.
func (l *local) close() {
	close(l.done)
	l.attached.Store(nil)
}

// Raft is what Attach was told of, nil once the raft group is closed.
func (l *local) Raft() Raft {
	if r := l.attached.Load(); r != nil {
		return *r
	}
	return nil
}

// BeforeInstall sets what happens when another node wants to install a snapshot here, before Raft
// sees it: fetching by other means what the snapshot stands for. It may take as long as it likes,
// for as long as ctx lives: the sender is told that work goes on, Raft's main loop stays free and
// heartbeats are answered meanwhile. An error is the answer to the sender, and Raft never sees the
// request; with ErrInstalled the sender is told that the snapshot is installed.
func (l *local) BeforeInstall(hook InstallHook) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.install = hook
}

func (l *local) installHook() InstallHook {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.install
}

// SetHeartbeatHandler implements raft.Transport.
func (l *local) SetHeartbeatHandler(cb func(rpc raft.RPC)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.beat = cb
}

// HeartbeatHandler is what takes heartbeats beside Raft's main loop; nil: nothing.
func (l *local) HeartbeatHandler() func(raft.RPC) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.beat
}

// Consumer implements raft.Transport.
func (l *local) Consumer() <-chan raft.RPC { return l.consumer }

// Inject gives the raft group here a request of this node, and waits for Raft's answer, within
// Config.Timeout.
func (l *local) Inject(req any) error {
	locks.MayWait("the group here")
	resp := make(chan raft.RPCResponse, 1)
	timer := time.NewTimer(l.timeout)
	defer timer.Stop()
	select {
	case l.consumer <- raft.RPC{Command: req, RespChan: resp}:
	case <-l.done:
		return raft.ErrTransportShutdown
	case <-timer.C:
		return fmt.Errorf("%w: the group does not take messages", link.ErrBusy)
	}
	select {
	case a := <-resp:
		return a.Error
	case <-l.done:
		return raft.ErrTransportShutdown
	case <-timer.C:
		return fmt.Errorf("%w: the group does not answer", link.ErrBusy)
	}
}
