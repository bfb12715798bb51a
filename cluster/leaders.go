package cluster

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"

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

// leaderships belongs to the goroutine that runs it.
type leaderships struct {
	n     *Node
	led   map[fsm.PartitionID]ledSince
	there map[string]time.Time // identities, and since when they are connected
	full  time.Time            // since when the disk here is full; zero: it is not
}

type ledSince struct {
	term  fsm.Term
	since time.Time
}

func (n *Node) leadersLoop() {
	l := &leaderships{n: n, led: map[fsm.PartitionID]ledSince{}, there: map[string]time.Time{}}
	tick := time.NewTicker(leadersTick)
	defer tick.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		l.turn(time.Now())
	}
}

func (l *leaderships) turn(now time.Time) {
	n := l.n
	view := n.Topics()
	self, ok := view.Node(n.nodeID)
	if !ok {
		return
	}
	for _, node := range view.Nodes() {
		id := node.Identity()
		if !n.connected(id) {
			delete(l.there, id)
		} else if _, known := l.there[id]; !known {
			l.there[id] = now
		}
	}
	steady := n.cfg.steadyFor
	if steady == 0 {
		steady = defaultSteadyFor
	}
	if !n.logs.Full() {
		l.full = time.Time{}
	} else if l.full.IsZero() {
		l.full = now
	}
	full := !l.full.IsZero() && now.Sub(l.full) >= giveWhenFullFor
	// suitable nodes may lead: they want to and are there.
	suitable := func(identity string) bool {
		for _, node := range view.Nodes() {
			if node.Identity() == identity {
				_, there := l.there[identity]
				return there && node.State == fsm.NodeActive && !n.saysFull(identity)
			}
		}
		return false
	}
	var given sync.WaitGroup
	giving := 0
	led := make(map[fsm.PartitionID]ledSince, len(l.led))
	for _, r := range n.runningReplicas() {
		p, err := r.Leads()
		if err != nil {
			continue
		}
		since, known := l.led[r.ID]
		if !known || since.term != p.InTerm() {
			since = ledSince{p.InTerm(), now}
		}
		led[r.ID] = since
		partition, ok := view.Partition(r.ID)
		if !ok || giving >= maxHandOvers {
			continue
		}
		var to func(string) bool
		if self.State != fsm.NodeActive || full {
			// With a full disk it could only refuse records. One that was asked in vain is not asked again at once.
			if full && known && now.Sub(since.since) < fullRetry && since.term == p.InTerm() {
				continue
			}
			to = suitable
		} else if first, ok := view.Node(partition.Replicas[0]); ok && first.ID != n.nodeID && !n.cfg.NoAutoBalance {
			identity := first.Identity()
			if now.Sub(since.since) < steady || !suitable(identity) || now.Sub(l.there[identity]) < steady {
				continue
			}
			to = func(id string) bool { return id == identity }
		} else {
			continue
		}
		giving++
		led[r.ID] = ledSince{p.InTerm(), now} // not again at once, if it stays
		given.Go(func() {
			if err := n.handOverTo(r.Member, to); err != nil {
				n.logger.Debug("leadership stays", "partition", r.ID, "error", err)
			} else {
				n.logger.Info("leadership given away", "partition", r.ID, "draining", self.State != fsm.NodeActive, "disk_full", full)
			}
		})
	}
	l.led = led
	if g := n.catalog.Member(); g != nil && (self.State != fsm.NodeActive || full) && g.Raft.State() == raft.Leader {
		given.Go(func() {
			if err := n.handOverTo(g, suitable); err != nil {
				n.logger.Debug("leadership of the catalog stays", "error", err)
			}
		})
	}
	given.Wait() // each has its bound
}
