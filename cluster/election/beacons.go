package election

import (
	"fmt"
	"sort"
	"sync/atomic"
	"time"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/raftlink"
	"github.com/trimaran-io/trimaran/internal/ticks"
)

// Config says how often beacons are sent, and what follows from silence.
type Config struct {
	// HeartbeatTimeout is raft.Config.HeartbeatTimeout of the groups. With it nodes send each
	// other beacons, which spare idle raft groups most of their messages (where a tenth
	// of it is at least twice BeaconInterval), and notice who is gone. 0: neither.
	HeartbeatTimeout time.Duration
	// ElectionTimeout is for candidates that have lost and wait for their election timer: at least
	// raft.Config.LeaderLeaseTimeout. 0: that of their raft group.
	ElectionTimeout time.Duration
	// BeaconInterval is how often a beacon is sent to every other node. Default 100 ms.
	BeaconInterval time.Duration
	// SuspectAfter is after how much silence a node is held for gone. Default 500 ms.
	SuspectAfter time.Duration
	// OnOrphans is told, every BeaconInterval while there are any, which raft groups here have no
	// leader that they can rely on. It must not block.
	OnOrphans func([]Orphan)
}

const (
	defaultBeaconInterval = 100 * time.Millisecond
	defaultSuspectAfter   = 500 * time.Millisecond
	// beaconPatience is how many intervals a beacon may be late before nothing is concluded from
	// the one before.
	beaconPatience = 3
	// giveUp is after how many times the silence that makes a node seem gone its sessions are
	// closed.
	giveUp = 2
	// beaconBacklog bounds the urgent messages behind which no further beacon is put: each would
	// only repeat that the other side does not read.
	beaconBacklog = 8
	// stuckCandidate is after how long a candidacy counts as lost: raft itself waits for its
	// election timer.
	stuckCandidate = time.Second
	// unledAfter is after how long a raft group whose leader's node is alive, but does not say that
	// it leads, counts as an orphan.
	unledAfter = 2 * time.Second
)

// fresh is how old a beacon may be for something to be concluded from it.
func (c Config) fresh() time.Duration { return beaconPatience * c.BeaconInterval }

// common is what Beacons and the members share.
type common struct {
	cfg     Config
	link    *link.Link
	nodes   *nodes
	timeout time.Duration // of a message
	stats   counters
}

// beaconing says whether nodes send each other beacons.
func (c *common) beaconing() bool { return c.cfg.HeartbeatTimeout > 0 }

// Beacons is this node's part in who is alive and who leads: it sends beacons and hears those
// of others. All methods are safe for concurrent use.
type Beacons struct {
	*common
	rafts   *raftlink.Transports
	members members
	watched atomic.Pointer[map[string]bool] // never changed once it is here
	still   still

	// Owned by the goroutine of run.
	polling  []*Member
	glances  []glance // of those in polling
	returned map[follower]returned
	// link clock: when attend looked last, and when poll read every leader
	attended, polledAll, fed int64
	unled                    bool // feed has found a leader that does not say so
	// What attend found: epoch counts up when anything of it is not as it was, or is old.
	epoch       uint64
	heard       map[string]hearing // by identity
	ended       uint64             // pipelines
	attendedAll int64              // link clock
}

// New begins to send beacons over a link, for the raft groups whose transports these are. It must
// be called before the link is started, and ends with it.
func New(l *link.Link, rafts *raftlink.Transports, cfg Config) *Beacons {
	if cfg.BeaconInterval <= 0 {
		cfg.BeaconInterval = defaultBeaconInterval
	}
	if cfg.SuspectAfter <= 0 {
		cfg.SuspectAfter = defaultSuspectAfter
	}
	n := &nodes{
		boot: l.Boot(), now: l.Now, fresh: int64(cfg.fresh()),
		poke: make(chan struct{}, 1), byName: make(map[string]*node),
	}
	p := &Beacons{
		common:  &common{cfg: cfg, link: l, nodes: n, timeout: rafts.Timeout()},
		rafts:   rafts,
		members: members{byName: make(map[string]*Member)}, returned: make(map[follower]returned),
	}
	p.watched.Store(new(map[string]bool))
	l.Observe(n)
	if !p.beaconing() {
		rafts.Consult(n, 0)
		return p
	}
	rafts.Consult(n, cfg.fresh())
	l.Go(p.run)
	return p
}

// run sends beacons, judges who is gone, gives followers their
// leader's heartbeats and reports orphans.
func (b *Beacons) run() {
	tick := ticks.New(b.cfg.BeaconInterval)
	defer tick.Stop()
	last := b.link.Now()
	b.still.awake = last
	for {
		select {
		case <-tick.C:
		case <-b.nodes.poke:
		case <-b.link.Context().Done():
			return
		}
		now := b.link.Now()
		if paused := now - last; paused > int64(b.cfg.fresh()) {
			b.still.noticed(now, paused)
			b.link.Logger().Warn("this node stood still", "for", time.Duration(paused).Round(time.Millisecond))
		}
		last = now
		b.still.lastRound.Store(now)
		b.round(now)
	}
}

func (b *Beacons) round(now int64) {
	groups, closed, others := b.members.look(b.polling)
	if b.polling = groups; others {
		b.glances = make([]glance, len(groups))
	}
	watched := *b.watched.Load()
	peers := b.link.All()
	gone := map[string]bool{}
	var suspects []string
	for _, peer := range peers {
		n := b.nodes.named(peer.Identity())
		if b.tend(n, peer, now, watched[n.identity]) {
			gone[n.identity] = true
			if len(suspects) < maxSuspects {
				suspects = append(suspects, n.identity)
			}
		}
	}
	sort.Strings(suspects)
	// The echoes are read before the raft groups: a claim must be true after the beacon that it
	// echoes was seen.
	letters := make([]letter, 0, len(peers))
	for _, peer := range peers {
		if x, ok := b.begin(peer, suspects); ok {
			letters = append(letters, x)
		}
	}
	changed, orphans := b.poll(groups, gone, now)
	for i := range letters {
		x := &letters[i]
		x.to.told.news(&x.beacon, x.to.identity, groups, changed, closed)
		b.stats.beaconsOut.Add(1)
		x.session.Beacon(x.to.beacons.number(now), x.encode())
	}
	if len(changed) > 0 || b.unled || now-b.fed >= int64(feedTick) {
		b.fed, b.unled = now, b.feed(groups, now)
	}
	b.greet(now)
	b.attend(groups, now)
	if len(orphans) > 0 && b.cfg.OnOrphans != nil {
		b.cfg.OnOrphans(orphans)
	}
}

// letter is a beacon on its way out.
type letter struct {
	to      *node
	session *link.Session
	beacon
}

// begin writes what a beacon to that node echoes; false if none is to be sent.
func (b *Beacons) begin(peer *link.Peer, suspects []string) (letter, bool) {
	s := peer.Look().Out
	if s == nil || !s.TakesBeacons() {
		return letter{}, false
	}
	n := b.nodes.named(peer.Identity())
	if n.told.session != s {
		n.told = told{session: s, said: make(said), behind: true}
	}
	unread, ok := s.Unread()
	if !ok {
		return letter{}, false
	}
	if unread >= beaconBacklog {
		n.told.behind = true
		return letter{}, false
	}
	x := letter{to: n, session: s}
	x.suspects = suspects
	x.echoBoot, x.echoSeq = n.beacons.last()
	return x, true
}

// peer is another node as the link sees it, a *link.Peer.
type peer interface {
	Look() link.View
	Heard() int64 // link clock of its last byte; 0: never
	Dial()
}

// tend keeps a session to a node that is wanted and says whether the node is gone.
func (b *Beacons) tend(n *node, to peer, now int64, watched bool) (gone bool) {
	v := to.Look()
	wanted := watched || (v.In != nil && v.In.TakesBeacons())
	if wanted {
		to.Dial()
	}
	if !wanted && v.Out == nil {
		n.wantedSince = 0
	} else if n.wantedSince == 0 {
		n.wantedSince = now
	}
	patience := b.cfg.SuspectAfter
	if v.Out != nil && !v.Out.TakesBeacons() {
		patience = max(patience, b.link.PingTimeout()) // it pings less often
	}
	// Who was gone before this process stood still is gone until it is heard of.
	heard, awake := max(to.Heard(), n.wantedSince), int64(0)
	if !n.gone.Load() {
		heard, awake = max(heard, b.still.awake), b.still.awake
	}
	refused := v.Refused && now-awake > int64(b.cfg.SuspectAfter)
	silent := time.Duration(now - heard)
	gone = n.wantedSince != 0 && (silent > patience || refused)
	if gone && silent > giveUp*patience {
		// Whoever waits for an answer is told, and whatever arrives in the end is too late.
		err := fmt.Errorf("%w: nothing heard for %v", link.ErrBroken, silent.Round(time.Millisecond))
		if v.Out != nil {
			v.Out.Close(err)
		}
		if v.In != nil {
			v.In.Close(err)
		}
	}
	if was := n.gone.Swap(gone); was != gone {
		b.nodes.roundSoon() // the others hear of it now
		if gone {
			b.link.Logger().Warn("node seems gone", "node", n.identity, "silent", silent.Round(time.Millisecond), "refused", refused)
		} else {
			b.link.Logger().Info("node is back", "node", n.identity)
		}
	}
	return gone
}

type counters struct {
	beaconsOut, spared, fed, steppedDown atomic.Uint64
}

// Stats are counters since New, for metrics.
type Stats struct {
	// BeaconsOut and BeaconsIn count beacons. They spared HeartbeatsSpared heartbeats, and raft
	// groups here were given Fed heartbeats for what they spared others.
	BeaconsOut, BeaconsIn, HeartbeatsSpared, Fed uint64
	// SteppedDown counts leaders here that no majority followed.
	SteppedDown uint64
}

// Stats reads all counters.
func (b *Beacons) Stats() Stats {
	return Stats{BeaconsOut: b.stats.beaconsOut.Load(), BeaconsIn: b.nodes.heard.Load(), HeartbeatsSpared: b.stats.spared.Load(), Fed: b.stats.fed.Load(), SteppedDown: b.stats.steppedDown.Load()}
}
