package raftlog

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// gate keeps from Raft what it cannot bear: it panics when it cannot read what it is to apply
// (invariant 9). It has no lock.
type gate struct {
	onDamage func(error) // told once, in a goroutine of its own; nil: nobody is

	serving atomic.Bool // Raft runs
	abandon chan struct{}
	left    sync.Once
	hurt    sync.Once
}

func newGate(onDamage func(error)) *gate {
	return &gate{onDamage: onDamage, abandon: make(chan struct{})}
}

// Serving says that Raft runs: from now on what cannot be read is told to OnDamage and not to Raft.
func (g *gate) Serving() { g.serving.Store(true) }

// Abandon lets go of calls of Raft that wait at damage. The raft group's transport must be closed
// and its shutdown begun: what they get is not what was written.
func (g *gate) Abandon() { g.left.Do(func() { close(g.abandon) }) }

// tell tells of damage, once.
func (g *gate) tell(err error) {
	g.hurt.Do(func() {
		if g.onDamage != nil {
			go g.onDamage(err)
		}
	})
}

// outOfFilesPause is the pause before a file is opened again for which there was no descriptor.
const outOfFilesPause = 50 * time.Millisecond

// hold keeps a call of Raft that met an error until it is worth to try again: when the file may be
// opened, or never. It reports false when the raft group is closed: nothing that Raft sends leaves
// the node any more then, and it may get an entry that does nothing. It waits with no lock held.
func (g *gate) hold(err error) (again bool) {
	locks.MayWait("what keeps a log from Raft")
	retry := make(<-chan time.Time)
	if vfs.OutOfFiles(err) {
		retry = time.After(outOfFilesPause)
	} else {
		g.tell(err)
	}
	select {
	case <-retry:
		return true
	case <-g.abandon:
		return false
	}
}
