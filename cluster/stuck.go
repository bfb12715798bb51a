package cluster

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// A disk that hangs takes Raft's main loop with it, and not the heartbeats, which go on beside that: the others would wait
// for this leader for as long as it lasts. So where an append does not end within a second, this node answers for nothing more
// as the leader, looks for another, and tells the voter with the longest log to stand for election (handover.go). Whether
// that one is elected the others decide. What was proposed here and not answered has a fate that nobody knows then.

const (
	// An append may take stuckTicks times stuckTick, a second, of a time in which this process had its turns: on a machine that has
	// more to do than it can, everything takes long, and the disk is not what hangs.
	stuckTick  = 500 * time.Millisecond
	stuckTicks = 2
	// stuckRetry is the pause before a leadership that nobody took is offered again.
	stuckRetry = time.Second
)

// timedLog is a group's log that knows since when Raft has waited for it.
type timedLog struct {
	raft.LogStore
	count atomic.Uint64 // appends begun and ended: odd while one is under way
	stuck atomic.Uint64 // the count of the append that does not end; 0: none
}

// StoreLog implements raft.LogStore.
func (l *timedLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (l *timedLog) StoreLogs(entries []*raft.Log) error {
	l.count.Add(1)
	defer l.count.Add(1)
	return l.LogStore.StoreLogs(entries)
}

// IsMonotonic implements raft.MonotonicLogStore.
func (l *timedLog) IsMonotonic() bool {
	inner, ok := l.LogStore.(raft.MonotonicLogStore)
	return ok && inner.IsMonotonic()
}

// stuck reports whether an append has not ended for too long.
func (g *group) stuck() bool {
	stuck := g.appends.stuck.Load()
	return stuck != 0 && stuck == g.appends.count.Load()
}

// stuckLoop looks after groups whose appends do not end.
func (n *Node) stuckLoop() {
	s := &stuckGroups{n: n, seen: map[*group]seenAppend{}, offered: map[*group]time.Time{}}
	tick := time.NewTicker(stuckTick)
	defer tick.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		s.turn(time.Now())
	}
}

// stuckGroups belongs to the goroutine that runs it.
type stuckGroups struct {
	n       *Node
	last    time.Time             // of the turn before
	seen    map[*group]seenAppend // those in an append
	offered map[*group]time.Time  // those that are stuck, and when their leadership was offered last
}

// seenAppend is an append that was under way, and in how many turns.
type seenAppend struct {
	count uint64
	ticks int
}

// look counts the turns of an append, and reports whether they are too many.
func (s *stuckGroups) look(g *group, seen map[*group]seenAppend, onTime bool) bool {
	count := g.appends.count.Load()
	if count%2 == 0 {
		return false
	}
	a := s.seen[g]
	if a.count != count {
		a = seenAppend{count: count}
	} else if onTime {
		a.ticks++
	}
	seen[g] = a
	if a.ticks < stuckTicks {
		return false
	}
	g.appends.stuck.Store(count)
	return true
}

func (s *stuckGroups) turn(now time.Time) {
	n := s.n
	onTime := now.Sub(s.last) < 2*stuckTick
	s.last = now
	seen := map[*group]seenAppend{}
	still := map[*group]time.Time{}
	look := func(g *group, r *replica) {
		if !s.look(g, seen, onTime) {
			return
		}
		last, known := s.offered[g]
		still[g] = last
		if !known {
			n.logger.Error("an append does not end: the disk hangs", "group", g.name, "leads", g.raft.State() == raft.Leader)
		}
		if g.raft.State() != raft.Leader || now.Sub(last) < stuckRetry {
			return
		}
		still[g] = now
		n.done.Add(1)
		go func() {
			defer n.done.Done()
			if n.offer(g) && r != nil {
				r.abandon()
			}
		}()
	}
	for _, r := range n.runningReplicas() {
		look(r.group, r)
	}
	if g := n.catalog.raftGroup(); g != nil {
		look(g, nil)
	}
	for g := range s.offered {
		if _, is := still[g]; !is {
			n.logger.Info("appends end again", "group", g.name)
		}
	}
	s.seen, s.offered = seen, still
	n.diskHangs.Store(len(still) > 0)
}

// offer tells the voter that follows and has the longest log to stand for election. Nothing is held up for it: nothing gets on here.
// It reports whether that one follows no more.
func (n *Node) offer(g *group) bool {
	ctx, cancel := context.WithTimeout(n.ctx, handOverPatience)
	defer cancel()
	term := g.raft.CurrentTerm()
	var mu sync.Mutex
	var best string
	var longest standing
	var asked sync.WaitGroup
	for _, id := range voters(g) {
		if id == n.identity || !n.election.Follows(id, g.name, term) {
			continue
		}
		asked.Go(func() {
			s, err := n.fit(ctx, g, id, term)
			if err != nil {
				n.logger.Debug("a voter cannot lead in place of this one", "group", g.name, "node", id, "error", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if best == "" || longest.behind(s) {
				best, longest = id, s
			}
		})
	}
	asked.Wait()
	if best == "" {
		return false
	}
	// Raft here may not hear of it before the disk moves: it is the others who do.
	over := func() bool { return g.raft.CurrentTerm() != term || !n.election.Follows(best, g.name, term) }
	if err := n.nominate(ctx, g, best, over); err != nil {
		n.logger.Debug("a leadership of a disk that hangs was not taken", "group", g.name, "node", best, "error", err)
		return false
	}
	n.logger.Warn("the disk hangs: another replica stands for election", "group", g.name, "node", best)
	return true
}

// abandon ends what this replica does as a leader, without waiting for anything: Raft cannot get on.
func (r *replica) abandon() {
	r.mu.Lock()
	leading := r.leading
	r.leading = nil
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	if leading != nil {
		leading.abandon()
	}
}
