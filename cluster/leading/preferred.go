package leading

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/ticks"
)

// Every node gives leadership away that others should have: of partitions whose preferred leader,
// the first of their replicas, has been there and followed for a while; and, while it is draining
// or leaving, or while its disk is full, of all. Placement spreads first replicas evenly, so
// leaders are even when everybody is there.

const (
	leadersTick = 500 * time.Millisecond
	// balanceEvery is how often it is looked which leaderships should be elsewhere, while there are
	// none to give. It is less where that is.
	balanceEvery = 5 * time.Second
	// DefaultSteadyFor is how long this node must have led, and the other one been connected,
	// before leadership goes to where it should be: a node that comes and goes gets none.
	DefaultSteadyFor = 15 * time.Second
	// giveWhenFullFor is how long the disk must have been full before leaderships go: retention by
	// the disk's share, which is the leader's affair, makes room sooner if it can.
	giveWhenFullFor = 2 * time.Second
	// retryPause is the pause before a leadership that stayed is offered again, where all are to
	// go: the group takes no proposals while one is.
	retryPause = 2 * time.Second
	// maxHandOvers is how many leaderships a node gives away per tick.
	maxHandOvers = 10
)

// Preferred gives away what others should lead. All but cfg belongs to the goroutine of Run.
type Preferred struct {
	cfg   PreferredConfig
	led   map[fsm.PartitionID]ledSince
	there map[string]time.Time // identities, and since when they are connected
	full  time.Time            // since when the disk here is full; zero: it is not
	// when it was last looked for what others should lead; the disk is looked at in every turn
	looked time.Time
	asked  time.Time // when the catalog was given away last, or stayed
}

// PreferredConfig is what Preferred needs of the node.
type PreferredConfig struct {
	NodeID  fsm.NodeID
	Logger  *slog.Logger
	Steady  time.Duration // see DefaultSteadyFor
	Balance bool          // whether leaderships go to preferred leaders
	Topics  func() *fsm.Topics
	// Connected says whether a node is there, Full whether the disk here is full, and SaysFull
	// whether another has said that its is.
	Connected func(identity string) bool
	Full      func() bool
	SaysFull  func(identity string) bool
	// Led gives what this node leads, and in which term.
	Led func() map[fsm.PartitionID]fsm.Term
	// Give gives one of those away, to a node that is suitable.
	Give func(id fsm.PartitionID, suitable func(identity string) bool) error
	// GiveCatalog is give for the catalog, where this node leads it.
	GiveCatalog func(suitable func(identity string) bool) error
}

type ledSince struct {
	term  fsm.Term
	since time.Time // or since it was given away last
	asked time.Time // when it was given away last, and stayed; zero: never in this term
}

// NewPreferred makes one that has seen nobody.
func NewPreferred(cfg PreferredConfig) *Preferred {
	return &Preferred{cfg: cfg, led: map[fsm.PartitionID]ledSince{}, there: map[string]time.Time{}}
}

// Run returns when ctx has ended.
func (l *Preferred) Run(ctx context.Context) {
	tick := ticks.New(leadersTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if now := time.Now(); l.due(now) {
			l.turn(now)
		}
	}
}

// look notes who is there and whether the disk is full, and reports whether it has been so for long
// enough.
func (l *Preferred) look(now time.Time, view *fsm.Topics) (full bool) {
	for _, node := range view.Nodes() {
		id := node.Identity()
		if !l.cfg.Connected(id) {
			delete(l.there, id)
		} else if _, known := l.there[id]; !known {
			l.there[id] = now
		}
	}
	if !l.cfg.Full() {
		l.full = time.Time{}
	} else if l.full.IsZero() {
		l.full = now
	}
	return !l.full.IsZero() && now.Sub(l.full) >= giveWhenFullFor
}

// suitable reports whether a node may lead: it wants to, is there, and has room.
func (l *Preferred) suitable(view *fsm.Topics, identity string) bool {
	for _, node := range view.Nodes() {
		if node.Identity() == identity {
			_, there := l.there[identity]
			return there && node.State == fsm.NodeActive && !l.cfg.SaysFull(identity)
		}
	}
	return false
}

// due reports whether it is time for a turn: all that this node leads is looked at in it.
func (l *Preferred) due(now time.Time) bool {
	view := l.cfg.Topics()
	full := l.look(now, view)
	self, ok := view.Node(l.cfg.NodeID)
	return full || ok && self.State != fsm.NodeActive || now.Sub(l.looked) >= min(balanceEvery, l.cfg.Steady/4)
}

// turn gives away what is due, each within its bound.
func (l *Preferred) turn(now time.Time) {
	view := l.cfg.Topics()
	self, ok := view.Node(l.cfg.NodeID)
	if !ok {
		return
	}
	full := l.look(now, view)
	leaves := self.State != fsm.NodeActive
	suitable := func(identity string) bool { return l.suitable(view, identity) }
	var given sync.WaitGroup
	giving, began := 0, time.Now()
	var asked []fsm.PartitionID
	led := make(map[fsm.PartitionID]ledSince, len(l.led))
	for id, term := range l.cfg.Led() {
		since, known := l.led[id]
		if !known || since.term != term {
			since = ledSince{term: term, since: now}
		}
		led[id] = since
		partition, ok := view.Partition(id)
		if !ok || giving >= maxHandOvers {
			continue
		}
		var to func(string) bool
		if leaves || full {
			// With a full disk it could only refuse records.
			if now.Sub(since.asked) < retryPause {
				continue
			}
			to = suitable
		} else if first, ok := view.Node(partition.Replicas[0]); ok && first.ID != l.cfg.NodeID && l.cfg.Balance {
			identity := first.Identity()
			if now.Sub(since.since) < l.cfg.Steady || !suitable(identity) || now.Sub(l.there[identity]) < l.cfg.Steady {
				continue
			}
			to = func(id string) bool { return id == identity }
		} else {
			continue
		}
		giving++
		asked = append(asked, id)
		given.Go(func() {
			if err := l.cfg.Give(id, to); err != nil {
				l.cfg.Logger.Debug("leadership stays", "partition", id, "error", err)
			} else {
				l.cfg.Logger.Info("leadership given away", "partition", id, "draining", leaves, "disk_full", full)
			}
		})
	}
	l.led = led
	if l.looked = now; giving > 0 {
		l.looked = time.Time{} // there may be more
	}
	catalog := (leaves || full) && now.Sub(l.asked) >= retryPause
	if catalog {
		given.Go(func() {
			if err := l.cfg.GiveCatalog(suitable); err != nil {
				l.cfg.Logger.Debug("leadership of the catalog stays", "error", err)
			}
		})
	}
	given.Wait() // each has its bound
	// Not again at once, if it stays.
	after := now.Add(time.Since(began))
	for _, id := range asked {
		led[id] = ledSince{led[id].term, now, after}
	}
	if catalog {
		l.asked = after
	}
}
