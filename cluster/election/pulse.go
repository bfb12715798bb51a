package election

import (
	"fmt"
	"sort"
	"sync/atomic"
	"time"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/raftlink"
)

// Config says how often signs of life are sent, and what follows from silence.
type Config struct {
	// HeartbeatTimeout is raft.Config.HeartbeatTimeout of the groups. With it nodes send each
	// other signs of life, which spare idle groups most of their messages (where a tenth
	// of it is at least twice SignInterval), and notice who is gone. 0: neither.
	HeartbeatTimeout time.Duration
	// SignInterval is how often a sign of life is sent to every other node. Default 100 ms.
	SignInterval time.Duration
	// SuspectAfter is after how much silence a node is held for gone. Default 500 ms.
	SuspectAfter time.Duration
	// OnOrphans is told, every SignInterval while there are any, which groups here have no
	// leader that they can rely on. It must not block.
	OnOrphans func([]Orphan)
}

const (
	defaultSignInterval = 100 * time.Millisecond
	defaultSuspectAfter = 500 * time.Millisecond
	// signPatience is how many intervals a sign may be late before nothing is concluded from the
	// one before.
	signPatience = 3
	// giveUp is after how many times the silence that makes a node seem gone its sessions are
	// closed.
	giveUp = 2
	// signBacklog bounds the urgent messages behind which no further sign is put: each would only
	// repeat that the other side does not read.
	signBacklog = 8
	// stuckCandidate is after how long a candidacy counts as lost: raft itself waits for its
	// election timer.
	stuckCandidate = time.Second
	// unledAfter is after how long a group whose leader's node is alive, but does not say that it
	// leads, counts as an orphan.
	unledAfter = 2 * time.Second
)

// fresh is how old a sign may be for something to be concluded from it.
func (c Config) fresh() time.Duration { return signPatience * c.SignInterval }

// common is what the pulse and the members share.
type common struct {
	cfg     Config
	link    *link.Link
	nodes   *nodes
	timeout time.Duration // of a message
	stats   counters
}

// signs says whether nodes send each other signs of life.
func (c *common) signs() bool { return c.cfg.HeartbeatTimeout > 0 }

// Pulse is this node's part in who is alive and who leads: it sends signs of life and hears those
// of others. All methods are safe for concurrent use.
type Pulse struct {
	*common
	rafts   *raftlink.Transports
	members members
	watched atomic.Pointer[map[string]bool] // never changed once it is here
	still   still

	polling []*Member // owned by the pulse's goroutine
}

// New begins to send signs of life over a link, for the groups whose transports these are. It must
// be called before the link is started, and ends with it.
func New(l *link.Link, rafts *raftlink.Transports, cfg Config) *Pulse {
	if cfg.SignInterval <= 0 {
		cfg.SignInterval = defaultSignInterval
	}
	if cfg.SuspectAfter <= 0 {
		cfg.SuspectAfter = defaultSuspectAfter
	}
	n := &nodes{
		boot: l.Boot(), now: l.Now, fresh: int64(cfg.fresh()),
		poke: make(chan struct{}, 1), byName: make(map[string]*node),
	}
	p := &Pulse{
		common:  &common{cfg: cfg, link: l, nodes: n, timeout: rafts.Timeout()},
		rafts:   rafts,
		members: members{byName: make(map[string]*Member)},
	}
	p.watched.Store(new(map[string]bool))
	l.Observe(n)
	if !p.signs() {
		rafts.Consult(n, 0)
		return p
	}
	rafts.Consult(n, cfg.fresh())
	l.Go(p.run)
	return p
}

// run sends signs of life, judges who is gone, gives followers their
// leader's heartbeats and reports orphans.
func (p *Pulse) run() {
	tick := time.NewTicker(p.cfg.SignInterval)
	defer tick.Stop()
	last := p.link.Now()
	p.still.awake = last
	for {
		select {
		case <-tick.C:
		case <-p.nodes.poke:
		case <-p.link.Context().Done():
			return
		}
		now := p.link.Now()
		if paused := now - last; paused > int64(p.cfg.fresh()) {
			p.still.noticed(now, paused)
			p.link.Logger().Warn("this node stood still", "for", time.Duration(paused).Round(time.Millisecond))
		}
		last = now
		p.still.pulsed.Store(now)
		p.round(now)
	}
}

func (p *Pulse) round(now int64) {
	groups, closed := p.members.look(p.polling)
	p.polling = groups
	watched := *p.watched.Load()
	peers := p.link.All()
	gone := map[string]bool{}
	var suspects []string
	for _, peer := range peers {
		n := p.nodes.named(peer.Identity())
		if p.tend(n, peer, now, watched[n.identity]) {
			gone[n.identity] = true
			if len(suspects) < maxSuspects {
				suspects = append(suspects, n.identity)
			}
		}
	}
	sort.Strings(suspects)
	// The echoes are read before the groups: a claim must be true after the sign that it echoes was
	// seen.
	letters := make([]letter, 0, len(peers))
	for _, peer := range peers {
		if x, ok := p.begin(peer, suspects); ok {
			letters = append(letters, x)
		}
	}
	changed, orphans := p.poll(groups, gone, now)
	for i := range letters {
		x := &letters[i]
		x.to.told.news(&x.sign, x.to.identity, groups, changed, closed)
		p.stats.signsOut.Add(1)
		x.session.Sign(x.to.signs.number(), x.encode())
	}
	p.feed(groups, now)
	if len(orphans) > 0 && p.cfg.OnOrphans != nil {
		p.cfg.OnOrphans(orphans)
	}
}

// letter is a sign on its way out.
type letter struct {
	to      *node
	session *link.Session
	sign
}

// begin writes what a sign to that node echoes; false if none is to be sent.
func (p *Pulse) begin(peer *link.Peer, suspects []string) (letter, bool) {
	s := peer.Look().Out
	if s == nil || !s.TakesSigns() {
		return letter{}, false
	}
	n := p.nodes.named(peer.Identity())
	if n.told.session != s {
		n.told = told{session: s, said: make(said), behind: true}
	}
	unread, ok := s.Unread()
	if !ok {
		return letter{}, false
	}
	if unread >= signBacklog {
		n.told.behind = true
		return letter{}, false
	}
	x := letter{to: n, session: s}
	x.suspects = suspects
	x.echoBoot, x.echoSeq = n.signs.last()
	return x, true
}

// peer is another node as the link sees it, a *link.Peer.
type peer interface {
	Look() link.View
	Heard() int64 // link clock of its last byte; 0: never
	Dial()
}

// tend keeps a session to a node that is wanted and says whether the node is gone.
func (p *Pulse) tend(n *node, to peer, now int64, watched bool) (gone bool) {
	v := to.Look()
	wanted := watched || (v.In != nil && v.In.TakesSigns())
	if wanted {
		to.Dial()
	}
	if !wanted && v.Out == nil {
		n.wantedSince = 0
	} else if n.wantedSince == 0 {
		n.wantedSince = now
	}
	patience := p.cfg.SuspectAfter
	if v.Out != nil && !v.Out.TakesSigns() {
		patience = max(patience, p.link.PingTimeout()) // it pings less often
	}
	// Who was gone before this process stood still is gone until it is heard of.
	heard, awake := max(to.Heard(), n.wantedSince), int64(0)
	if !n.gone.Load() {
		heard, awake = max(heard, p.still.awake), p.still.awake
	}
	refused := v.Refused && now-awake > int64(p.cfg.SuspectAfter)
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
		p.nodes.pulseSoon() // the others hear of it now
		if gone {
			p.link.Logger().Warn("node seems gone", "node", n.identity, "silent", silent.Round(time.Millisecond), "refused", refused)
		} else {
			p.link.Logger().Info("node is back", "node", n.identity)
		}
	}
	return gone
}

type counters struct {
	signsOut, vouched, fed atomic.Uint64
}

// Stats are counters since New, for metrics.
type Stats struct {
	// SignsOut and SignsIn count signs of life. They spared Vouched heartbeats, and groups here
	// were given Fed heartbeats for what they spared others.
	SignsOut, SignsIn, Vouched, Fed uint64
}

// Stats reads all counters.
func (p *Pulse) Stats() Stats {
	return Stats{SignsOut: p.stats.signsOut.Load(), SignsIn: p.nodes.heard.Load(), Vouched: p.stats.vouched.Load(), Fed: p.stats.fed.Load()}
}
