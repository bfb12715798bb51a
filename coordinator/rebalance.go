package coordinator

import (
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/trimaran-io/trimaran/fsm/groups"
	"github.com/trimaran-io/trimaran/internal/tenure"
)

// rebalance begins the phase of joining or, if it has begun, ends it if that was
// the last member to wait for.
func (g *group) rebalance(reason string) {
	if g.state == preparing {
		g.maybeCompleteJoin()
	} else {
		g.prepareRebalance(reason)
	}
}

// prepareRebalance has all members join again.
func (g *group) prepareRebalance(reason string) {
	if g.state == completing {
		for _, m := range g.members {
			g.assign(m, nil)
			if m.answerSync(synced{err: kerr.RebalanceInProgress.Code}) {
				g.keepAlive(m)
			}
		}
	}
	g.endSyncPhase()
	g.enter(preparing)
	g.c.log.Info("consumer group rebalances", "group", g.id, "generation", g.generation, "reason", reason)
	if g.initial {
		delay := g.c.set.InitialRebalanceDelay
		g.newcomers = false
		g.waitInitially(delay, max(g.rebalanceTimeout()-delay, 0))
		return
	}
	if g.allJoined() {
		g.completeJoin()
	} else {
		g.setJoin(g.rebalanceTimeout(), g.completeJoin)
	}
}

// waitInitially gives an empty group's members time to come, longer if some came,
// but not longer than their rebalance timeout in all (KIP-134).
func (g *group) waitInitially(delay, remaining time.Duration) {
	g.setJoin(delay, func() {
		if !g.newcomers || remaining == 0 {
			g.completeJoin()
			return
		}
		g.newcomers = false
		g.waitInitially(min(g.c.set.InitialRebalanceDelay, remaining), max(remaining-delay, 0))
	})
}

// maybeCompleteJoin ends the phase of joining if nobody is waited for.
func (g *group) maybeCompleteJoin() {
	if g.state == preparing && !g.initial && g.allJoined() {
		g.completeJoin()
	}
}

// completeJoin begins the next generation with those who joined.
func (g *group) completeJoin() {
	g.setJoin(0, nil)
	for _, m := range append([]*member(nil), g.members...) {
		// Static members that are away keep their place until their session ends.
		if m.join == nil && m.instance == nil {
			g.c.log.Info("member of consumer group did not rejoin", "group", g.id, "member", m.id, "client", m.clientID)
			g.remove(m, kerr.UnknownMemberID.Code)
		}
	}
	if len(g.members) > 0 && !g.electJoined() {
		g.setJoin(g.rebalanceTimeout(), g.completeJoin) // until the sessions end
		return
	}
	if g.generation++; g.generation == math.MaxInt32 {
		g.generation = 1
	}
	if len(g.members) == 0 {
		g.becameEmpty()
		return
	}
	g.protocol = g.selectProtocol()
	g.subscribed = g.subscriptions()
	g.enter(completing)
	g.c.log.Info("consumer group has a generation", "group", g.id, "generation", g.generation, "members", len(g.members),
		"protocol", g.protocol, "leader", g.leader)
	for _, m := range g.members {
		m.answerJoin(g.generationFor(m))
		m.fresh = false
		g.keepAlive(m)
		g.unsynced[m.id] = true
	}
	g.setSync(g.rebalanceTimeout())
}

// electJoined sees to it that the leader is one of those who joined, if anybody did.
func (g *group) electJoined() bool {
	if leader := g.byID[g.leader]; leader != nil && leader.join != nil {
		return true
	}
	for _, m := range g.members {
		if m.join != nil {
			g.leader = m.id
			return true
		}
	}
	return false
}

func (g *group) becameEmpty() {
	g.protocol, g.leader, g.subscribed = "", "", nil
	if g.protocolType == consumerProtocol {
		g.subscribed = map[string]bool{}
	}
	g.enter(empty)
	g.c.log.Info("consumer group is empty", "group", g.id, "generation", g.generation)
	g.save()
}

// save replicates that the group is empty.
func (g *group) save() {
	var cmd groups.Changes
	cmd.SetGroup(g.id, g.replicated(nil))
	g.unsaved = false
	g.write(cmd, func(err error) {
		if err != nil && len(g.members) == 0 {
			g.unsaved = true
		}
	})
}

// selectProtocol counts the votes of the members, each of which is for its first
// protocol that all support. Between equals the one voted for first wins.
func (g *group) selectProtocol() string {
	votes := make(map[string]int)
	common := make(map[string]bool)
	var order []string
	for _, p := range g.members[0].protocols {
		common[p.name] = g.allSupport(p.name)
	}
	for _, m := range g.members {
		for _, p := range m.protocols {
			if common[p.name] {
				if votes[p.name]++; votes[p.name] == 1 {
					order = append(order, p.name)
				}
				break
			}
		}
	}
	best := ""
	for _, name := range order {
		if votes[name] > votes[best] {
			best = name
		}
	}
	return best
}

// removeAndRebalance is for a member that left, failed or gave up.
func (g *group) removeAndRebalance(m *member, reason string) {
	g.remove(m, kerr.UnknownMemberID.Code)
	switch g.state {
	case stable, completing:
		g.prepareRebalance(reason)
	default:
		g.maybeCompleteJoin()
	}
}

// setJoin sets what ends the phase of joining; nil: nothing does.
func (g *group) setJoin(d time.Duration, f func()) {
	g.join.Stop()
	g.join = nil
	if f == nil {
		return
	}
	began := time.Now()
	var t *tenure.Timer
	t = g.c.tenure.After(d, func() {
		g.mu.Lock()
		defer g.c.unlockGroup(g)
		if g.join != t || g.state != preparing {
			return
		}
		if more := g.c.more(began, d); more > 0 {
			t.Reset(more)
			return
		}
		f()
	})
	g.join = t
}

// setSync removes, after d, those who have not asked for what they were assigned.
func (g *group) setSync(d time.Duration) {
	g.sync.Stop()
	began := time.Now()
	var t *tenure.Timer
	t = g.c.tenure.After(d, func() {
		g.mu.Lock()
		defer g.c.unlockGroup(g)
		if g.sync != t || len(g.unsynced) == 0 || g.state != completing && g.state != stable {
			return
		}
		if more := g.c.more(began, d); more > 0 {
			t.Reset(more)
			return
		}
		for _, m := range append([]*member(nil), g.members...) {
			if g.unsynced[m.id] {
				g.c.log.Info("member of consumer group did not ask for its assignment", "group", g.id, "member", m.id, "client", m.clientID)
				g.remove(m, kerr.UnknownMemberID.Code)
			}
		}
		g.prepareRebalance("members did not ask for their assignment")
	})
	g.sync = t
}

func (g *group) endSyncPhase() {
	g.sync.Stop()
	g.sync = nil
	clear(g.unsynced)
}

// assign gives a member its assignment in memory.
func (g *group) assign(m *member, assignment []byte) {
	g.account(len(assignment) - len(m.assignment))
	m.assignment = assignment
}
