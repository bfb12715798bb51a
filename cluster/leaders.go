package cluster

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
)

// Every node gives leadership away that others should have: of partitions whose preferred leader, the first
// of their replicas, has been there and followed for a while; and, while it is draining or
// leaving, or while its disk is full, of all. Placement spreads first replicas evenly, so leaders are even when everybody is there.

const (
	leadersTick = 500 * time.Millisecond
	// steadyFor is how long this node must have led, and the other one been connected, before leadership
	// goes to where it should be: a node that comes and goes gets none.
	defaultSteadyFor = 15 * time.Second
	// giveWhenFullFor is how long the disk must have been full before leaderships go: retention by the disk's share, which is
	// the leader's affair, makes room sooner if it can.
	giveWhenFullFor = 2 * time.Second
	// fullRetry is the pause before a leadership that stayed on a full disk is offered again.
	fullRetry = 2 * time.Second
	// maxHandOvers is how many leaderships a node gives away per tick.
	maxHandOvers = 10
)

// leaderships gives away what others should lead. All but cfg belongs to the goroutine of run.
type leaderships struct {
	cfg   leadershipsConfig
	led   map[fsm.PartitionID]ledSince
	there map[string]time.Time // identities, and since when they are connected
	full  time.Time            // since when the disk here is full; zero: it is not
}

// leadershipsConfig is what leaderships needs of the node.
type leadershipsConfig struct {
	nodeID  fsm.NodeID
	logger  *slog.Logger
	steady  time.Duration // see defaultSteadyFor
	balance bool          // whether leaderships go to preferred leaders
	topics  func() *fsm.Topics
	// connected says whether a node is there, room whether the disk here is full, and which others have said that theirs is.
	connected func(identity string) bool
	full      func() bool
	saysFull  func(identity string) bool
	// led gives what this node leads, and in which term.
	led func() map[fsm.PartitionID]fsm.Term
	// give gives one of those away, to a node that is suitable.
	give func(id fsm.PartitionID, suitable func(identity string) bool) error
	// giveCatalog is give for the catalog, where this node leads it.
	giveCatalog func(suitable func(identity string) bool) error
}

type ledSince struct {
	term  fsm.Term
	since time.Time
}

func newLeaderships(cfg leadershipsConfig) *leaderships {
	return &leaderships{cfg: cfg, led: map[fsm.PartitionID]ledSince{}, there: map[string]time.Time{}}
}

// run returns when ctx has ended.
func (l *leaderships) run(ctx context.Context) {
	tick := time.NewTicker(leadersTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l.turn(time.Now())
	}
}

// look notes who is there and whether the disk is full, and reports whether it has been so for long enough.
func (l *leaderships) look(now time.Time, view *fsm.Topics) (full bool) {
	for _, node := range view.Nodes() {
		id := node.Identity()
		if !l.cfg.connected(id) {
			delete(l.there, id)
		} else if _, known := l.there[id]; !known {
			l.there[id] = now
		}
	}
	if !l.cfg.full() {
		l.full = time.Time{}
	} else if l.full.IsZero() {
		l.full = now
	}
	return !l.full.IsZero() && now.Sub(l.full) >= giveWhenFullFor
}

// suitable reports whether a node may lead: it wants to, is there, and has room.
func (l *leaderships) suitable(view *fsm.Topics, identity string) bool {
	for _, node := range view.Nodes() {
		if node.Identity() == identity {
			_, there := l.there[identity]
			return there && node.State == fsm.NodeActive && !l.cfg.saysFull(identity)
		}
	}
	return false
}

// turn gives away what is due, each within its bound.
func (l *leaderships) turn(now time.Time) {
	view := l.cfg.topics()
	self, ok := view.Node(l.cfg.nodeID)
	if !ok {
		return
	}
	full := l.look(now, view)
	leaves := self.State != fsm.NodeActive
	suitable := func(identity string) bool { return l.suitable(view, identity) }
	var given sync.WaitGroup
	giving := 0
	led := make(map[fsm.PartitionID]ledSince, len(l.led))
	for id, term := range l.cfg.led() {
		since, known := l.led[id]
		if !known || since.term != term {
			since = ledSince{term, now}
		}
		led[id] = since
		partition, ok := view.Partition(id)
		if !ok || giving >= maxHandOvers {
			continue
		}
		var to func(string) bool
		if leaves || full {
			// With a full disk it could only refuse records. One that was asked in vain is not asked again at once.
			if full && known && now.Sub(since.since) < fullRetry {
				continue
			}
			to = suitable
		} else if first, ok := view.Node(partition.Replicas[0]); ok && first.ID != l.cfg.nodeID && l.cfg.balance {
			identity := first.Identity()
			if now.Sub(since.since) < l.cfg.steady || !suitable(identity) || now.Sub(l.there[identity]) < l.cfg.steady {
				continue
			}
			to = func(id string) bool { return id == identity }
		} else {
			continue
		}
		giving++
		led[id] = ledSince{term, now} // not again at once, if it stays
		given.Go(func() {
			if err := l.cfg.give(id, to); err != nil {
				l.cfg.logger.Debug("leadership stays", "partition", id, "error", err)
			} else {
				l.cfg.logger.Info("leadership given away", "partition", id, "draining", leaves, "disk_full", full)
			}
		})
	}
	l.led = led
	if leaves || full {
		given.Go(func() {
			if err := l.cfg.giveCatalog(suitable); err != nil {
				l.cfg.logger.Debug("leadership of the catalog stays", "error", err)
			}
		})
	}
	given.Wait() // each has its bound
}
