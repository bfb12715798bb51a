package coordinator

import (
	"context"

	"github.com/trimaran-io/trimaran/fsm/groups"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// maxCommand bounds what is replicated at a time, unless one command alone is
// larger, and that at least it may be: the largest group or commit.
const (
	joinedCommands = 1 << 20
	maxCommand     = 16 << 20
)

// write is a command on its way.
type write struct {
	command groups.Changes
	left    bool            // command is made when those before it are in State (group.left)
	then    func(err error) // under the group's lock; may be nil
	err     error           // once done is closed
	done    chan struct{}
}

// write queues a command behind those of the group that were decided before. then
// is called with the group locked when it is known what became of it.
func (g *group) write(cmd groups.Changes, then func(err error)) *write {
	w := &write{command: cmd, then: then, done: make(chan struct{})}
	g.queue = append(g.queue, w)
	if !g.writing {
		g.writing = true
		g.c.tenure.Go(g.writeQueue) // whoever writes is running itself
	}
	return w
}

// wait waits until it is known what became of the command.
func (w *write) wait(ctx context.Context) error {
	locks.MayWait("a command to be replicated")
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// writeQueue replicates the queue's commands in order, several at a time, and ends
// when there are none. What has nothing to say is done when it is its turn.
func (g *group) writeQueue() {
	g.mu.Lock()
	defer g.c.unlockGroup(g)
	for len(g.queue) > 0 {
		if first := g.queue[0]; first.left {
			first.command = g.left()
		}
		n, size, records := 0, 0, 0
		var commands []groups.Changes
		for n < len(g.queue) && (n == 0 || !g.queue[n].left && size+g.queue[n].command.Size() <= joinedCommands) {
			commands = append(commands, g.queue[n].command)
			size += g.queue[n].command.Size()
			records += g.queue[n].command.Len()
			n++
		}
		batch := g.queue[:n:n]
		g.queue = g.queue[n:]
		var err error
		if records > 0 {
			g.mu.Unlock()
			err = g.c.propose(groups.Encode(commands...))
			g.mu.Lock()
		}
		for _, w := range batch {
			w.err = err
			if w.then != nil {
				w.then(err)
			}
			close(w.done)
		}
	}
	g.writing = false
}

// propose replicates a command. One that is on its way when the coordinator is closed is
// waited for: whether it got into the log decides what its client is told.
func (c *Coordinator) propose(b []byte) error {
	locks.MayWait("a command to be replicated")
	if c.tenure.Over() {
		return ErrNotLeader
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.tenure.Context()), c.set.CommitTimeout)
	defer cancel()
	return c.cfg.Propose(ctx, b)
}
