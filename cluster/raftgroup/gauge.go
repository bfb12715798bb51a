package raftgroup

import (
	"errors"
	"runtime"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// gauge is where the goroutine waits with which hashicorp/raft publishes the age of a leader's
// oldest entry: every 10 s it asks for that entry, in a metric that nobody reads here and that
// cannot be switched off (raft.go, runLeader; log.go, emitLogStoreMetrics). Of a thousand leaders
// that would be a hundred wakings a second. Here it asks once in a leadership, and has no answer
// until that ends.
type gauge struct {
	mu     locks.Mutex[gauge] // guards what follows; nothing is taken and nobody waits under it
	ended  chan struct{}      // closed when the leadership ends; nil: nobody waits
	closed bool
}

// errNoGauge is what that goroutine is told when it may go.
var errNoGauge = errors.New("no metric of the oldest entry")

// wait returns when the leadership has ended, or at once after close.
func (g *gauge) wait() error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return errNoGauge
	}
	if g.ended == nil {
		g.ended = make(chan struct{})
	}
	ended := g.ended
	g.mu.Unlock()
	<-ended
	return errNoGauge
}

// end lets go of who waits; last says that nobody is to wait any more.
func (g *gauge) end(last bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = g.closed || last
	if g.ended != nil {
		close(g.ended)
		g.ended = nil
	}
}

// FirstIndex implements raft.LogStore. Raft asks when it removes what is below a snapshot, and for
// its gauge.
func (l *timedLog) FirstIndex() (uint64, error) {
	if forGauge() {
		return 0, l.gauge.wait()
	}
	return l.LogStore.FirstIndex()
}

// forGauge says whether the caller of who calls this is hashicorp/raft's goroutine of the gauge,
// which nobody waits for. One that is not known for it has its answer.
func forGauge() bool {
	var pcs [4]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		frame, more := frames.Next()
		if strings.HasPrefix(frame.Function, raftPackage) && strings.HasSuffix(frame.Function, ".emitLogStoreMetrics") {
			return true
		}
		if !more {
			return false
		}
	}
}

const raftPackage = "github.com/hashicorp/raft."

// observed is told what Raft says of itself, on the goroutine of its main loop.
func (l *timedLog) observed(o *raft.Observation) {
	if state, ok := o.Data.(raft.RaftState); ok && state != raft.Leader {
		l.gauge.end(false)
	}
}
