package cluster

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/election"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// The death of a node is noticed once per node, by the peer link, and not once
// per group by Raft's timers, which are slow. This file turns it into elections:
// for all groups here that have lost their leader, one question goes to each
// other member that is alive (a survey), and then exactly one voter of each group
// stands at once, the next one a stagger later if that came to nothing. The same
// elects the first leader of a group that has none.
//
// An election begun so skips Raft's pre-vote and makes voters forget the leader
// they know, so the survey takes the pre-vote's place: a majority of the
// group's voters must have answered, and none of them may know a leader that it
// does not itself hold for gone. A node that is alone in its suspicion therefore
// changes nothing and burns no term, and a node that is cut off gets no majority.
// A race that is lost all the same costs a term, never safety: who stands is
// elected by Raft's rules or not at all.

const (
	// failoverStagger is how long the voters behind one wait for it to have had its say.
	failoverStagger = 300 * time.Millisecond
	surveyTimeout   = 300 * time.Millisecond
	// surveyOften is how long a group is asked about at every round; later once per surveySeldom.
	surveyOften  = 3 * time.Second
	surveySeldom = time.Second
	// restAfter is how long a group that was told to stand is left alone.
	restAfter  = time.Second
	watchEvery = time.Second
)

// failover is the part of a node that starts elections. run is its loop.
type failover struct {
	cfg  failoverConfig
	wake chan struct{} // capacity 1

	surveys atomic.Uint64 // rounds in which others were asked

	mu      locks.Mutex[failover] // guards what follows; nothing else is done under it
	orphans []election.Orphan     // as reported last; nil when taken
	resting map[string]time.Time  // groups that were told to stand, and until when they are left alone
}

// failoverConfig is what elections need of the node.
type failoverConfig struct {
	standings
	heartbeat time.Duration // of every group
	logger    *slog.Logger
	caller    calls.Caller
	watch     func(identities []string)           // has sessions kept with them, and their silence noticed
	others    func() []string                     // the nodes whose death matters here
	group     func(name string) *raftgroup.Member // that runs here, nil if there is none
}

func newFailover(cfg failoverConfig) *failover {
	return &failover{cfg: cfg, wake: make(chan struct{}, 1), resting: map[string]time.Time{}}
}

func (f *failover) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// noticed is told by the peer link which groups have no leader (election.Config.OnOrphans).
func (f *failover) noticed(orphans []election.Orphan) {
	f.mu.Lock()
	f.orphans = orphans
	f.mu.Unlock()
	f.poke()
}

func (f *failover) run(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	asked := map[string]time.Time{}
	var began sync.WaitGroup
	defer began.Wait()
	for {
		f.cfg.watch(f.cfg.others())
		f.mu.Lock()
		orphans := f.orphans
		f.orphans = nil
		f.mu.Unlock()
		if len(orphans) > 0 {
			asked = f.round(ctx, orphans, asked, &began)
		}
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
		case <-tick.C:
		}
	}
}

// standings says how members of groups here stand.
type standings struct {
	self  string                     // this node's identity
	gone  func(identity string) bool // whether this node holds that one for gone
	hangs func() bool                // whether an append here does not end
}

// of looks at a group for the node that asks. A leader that asks who leads does not.
func (n standings) of(g *raftgroup.Member, asking string) standing {
	if g == nil {
		return standing{}
	}
	if t, ok := g.Transport.(*election.Member); ok && t.Voteless() {
		return standing{}
	}
	s := standing{Here: true, Term: g.Raft.CurrentTerm()}
	_, id := g.Raft.LeaderWithID()
	leader := string(id)
	state := g.Raft.State()
	s.Free = leader == ""
	s.Follower = state == raft.Follower || state == raft.Candidate && leader != ""
	s.Led = state == raft.Leader || (leader != "" && leader != asking && leader != n.self && !n.gone(leader) && !unled(g))
	s.Voter = state != raft.Shutdown && !n.hangs() && slices.Contains(g.Voters(), n.self)
	if g.Stuck() {
		s.Led = false // not by this one, and it does not hear of others
	}
	stats := g.Raft.Stats()
	number := func(key string) uint64 {
		v, _ := strconv.ParseUint(stats[key], 10, 64)
		return v
	}
	s.LastIndex, s.LastTerm = number("last_log_index"), number("last_log_term")
	if snapshot := number("last_snapshot_index"); snapshot > s.LastIndex {
		s.LastIndex, s.LastTerm = snapshot, number("last_snapshot_term")
	}
	return s
}

// unled says that the node of the group's leader is alive and does not say that it leads.
func unled(g *raftgroup.Member) bool {
	t, ok := g.Transport.(*election.Member)
	return ok && t.Unled()
}

// answer is this node's answer to the survey of another.
func (f *failover) answer(_ context.Context, from string, names []string) ([]standing, error) {
	out := make([]standing, len(names))
	for i, name := range names {
		out[i] = f.cfg.of(f.cfg.group(name), from)
	}
	return out, nil
}

// candidacy is one orphan with what was learned of it.
type candidacy struct {
	election.Orphan
	group  *raftgroup.Member
	voters []string
	known  map[string]standing // by voter, this node included
}

// round asks about the orphans and lets those stand that should. It returns when which group was
// asked about.
func (f *failover) round(ctx context.Context, orphans []election.Orphan, asked map[string]time.Time, began *sync.WaitGroup) map[string]time.Time {
	now := time.Now()
	f.mu.Lock()
	maps.DeleteFunc(f.resting, func(_ string, until time.Time) bool { return now.After(until) })
	resting := maps.Clone(f.resting)
	f.mu.Unlock()
	askedNow := make(map[string]time.Time, len(orphans))
	questions := map[string][]*candidacy{}
	var open []*candidacy
	for _, o := range orphans {
		last := asked[o.Group]
		if now.Before(resting[o.Group]) || o.For > surveyOften && now.Sub(last) < surveySeldom {
			askedNow[o.Group] = last
			continue
		}
		askedNow[o.Group] = now
		g := f.cfg.group(o.Group)
		if g == nil {
			continue
		}
		c := &candidacy{Orphan: o, group: g, voters: g.Voters(), known: map[string]standing{}}
		own := f.cfg.of(g, f.cfg.self)
		if !own.Voter || own.Led || own.Term != o.Term {
			continue // not one to stand, or things have changed
		}
		c.known[f.cfg.self] = own
		open = append(open, c)
		for _, v := range c.voters {
			if v != f.cfg.self && !f.cfg.gone(v) && len(questions[v]) < calls.MaxSurveyed {
				questions[v] = append(questions[v], c)
			}
		}
	}
	if len(questions) > 0 {
		f.ask(ctx, questions)
		f.surveys.Add(1)
	}
	elsewhere := map[string][]*candidacy{}
	stood := 0
	for _, c := range open {
		best, wait, ok := c.decide(f.cfg.self, f.cfg.gone)
		if !ok || c.For+time.Since(now) < wait || !f.rest(c.Group) {
			continue
		}
		f.cfg.logger.Debug("a group without a leader elects", "group", c.Group, "candidate", best, "leader", c.Leader, "term", c.Term, "state", c.State, "after", c.For, "wait", wait)
		stood++
		if best == f.cfg.self {
			began.Go(func() { f.stand(c.group, c.Term, c.gentle()) })
		} else {
			elsewhere[best] = append(elsewhere[best], c)
		}
	}
	for identity, groups := range elsewhere {
		began.Go(func() { f.tell(ctx, identity, groups) })
	}
	if stood > 0 {
		f.cfg.logger.Info("groups without a leader elect", "groups", stood, "leaderless", len(orphans))
	}
	return askedNow
}

// ask puts one question to each node, all at once, and notes the answers.
func (f *failover) ask(ctx context.Context, questions map[string][]*candidacy) {
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	calls.AskAll(ctx, slices.Collect(maps.Keys(questions)), func(ctx context.Context, identity string) ([]standing, error) {
		names := make([]string, len(questions[identity]))
		for i, c := range questions[identity] {
			names[i] = c.Group
		}
		return calls.Survey.Ask(ctx, f.cfg.caller, identity, names)
	}, func(identity string, all []standing, err error) bool {
		if err == nil {
			for i, s := range all {
				questions[identity][i].known[identity] = s
			}
		}
		return false
	})
}

// decide says who should stand for election, and how long the group must have
// been an orphan before self has a say in that: one node speaks at a time, the
// first voter that is alive, so that two that see logs grow do not both take
// themselves for the best.
func (c *candidacy) decide(self string, gone func(string) bool) (best string, wait time.Duration, ok bool) {
	own := c.known[self]
	position := slices.Index(c.voters, self)
	here := 0
	for _, s := range c.known {
		here += boolInt(s.Here)
	}
	if position < 0 || !own.Here || !own.Voter || here <= len(c.voters)/2 {
		return "", 0, false
	}
	settled, before := true, 0
	for i, v := range c.voters {
		s, answered := c.known[v]
		switch {
		case !answered:
			settled = settled && gone(v)
			continue
		case s.Led:
			return "", 0, false
		}
		// Where somebody stands, or has heard of a newer term, an election may be under way.
		settled = settled && s.Term <= own.Term && (s.Follower || !s.Here)
		if !s.Here || !s.Voter {
			continue
		}
		if i < position {
			before++
		}
		if b := c.known[best]; best == "" || s.LastTerm > b.LastTerm || s.LastTerm == b.LastTerm && s.LastIndex > b.LastIndex {
			best = v
		}
	}
	wait = time.Duration(before) * failoverStagger
	if !settled {
		wait += 2 * failoverStagger
	}
	return best, wait, true
}

// gentle says whether an ordinary election would do: nobody holds on to a leader, so nobody has to
// be made to forget one. It matters to who loses: a candidate by TimeoutNow that has lost takes no
// notice of the winner in its own term until its election timer has run out, and no leadership can
// be handed to it until then.
func (c *candidacy) gentle() bool {
	for _, s := range c.known {
		if s.Here && !s.Free {
			return false
		}
	}
	return true
}

// tell lets the groups stand on another node, which looks at them once more.
func (f *failover) tell(ctx context.Context, identity string, groups []*candidacy) {
	ask := make([]calls.StandRequest, len(groups))
	for i, c := range groups {
		ask[i] = calls.StandRequest{Group: c.Group, Term: c.known[identity].Term, Gentle: c.gentle()}
	}
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	if _, err := calls.Stand.Ask(ctx, f.cfg.caller, identity, ask); err != nil {
		f.cfg.logger.Debug("a node was not told to stand for election", "node", identity, "error", err)
	}
}

// told is tell at the other side. The node that asks may be the leader that the group here
// remembers: it was restarted and does not lead any more.
func (f *failover) told(_ context.Context, from string, ask []calls.StandRequest) (calls.Nothing, error) {
	var standing sync.WaitGroup
	for _, q := range ask {
		g := f.cfg.group(q.Group)
		if g == nil {
			continue
		}
		s := f.cfg.of(g, from)
		if !s.Voter || s.Led || s.Term != q.Term || !f.rest(q.Group) {
			continue
		}
		standing.Go(func() { f.stand(g, q.Term, q.Gentle) })
	}
	standing.Wait()
	return calls.Nothing{}, nil
}

// rest says whether a group was not told to stand a moment ago, and that it is now.
func (f *failover) rest(group string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if now.Before(f.resting[group]) {
		return false
	}
	f.resting[group] = now.Add(restAfter)
	return true
}

// stand makes the group here stand for election if it is still in that term.
func (f *failover) stand(g *raftgroup.Member, term uint64, gentle bool) {
	t, ok := g.Transport.(*election.Member)
	if !ok {
		return
	}
	var err error
	if g.Raft.State() == raft.Candidate {
		// A candidate that has lost waits for its election timer, whatever it is told.
		all := g.Voters()
		other := slices.IndexFunc(all, func(v string) bool { return v != f.cfg.self })
		if other < 0 || g.Raft.CurrentTerm() != term {
			return
		}
		err = t.Yield(all[other], term)
	}
	switch {
	case err != nil || g.Raft.State() != raft.Follower: // at a leader a TimeoutNow would end its leadership
	case gentle && time.Since(g.Raft.LastContact()) >= f.cfg.heartbeat:
		err = expire(g.Raft, f.cfg.heartbeat)
	default:
		err = t.Stand()
	}
	if err != nil {
		f.cfg.logger.Debug("a group was not made to stand for election", "group", g.Name, "error", err)
	}
}

// expire makes a follower look at once whether its leader has been silent for the heartbeat
// timeout, as it does when its timer runs out: hashicorp/raft looks when the timeout is made
// shorter.
func expire(r *raft.Raft, heartbeat time.Duration) error {
	config := r.ReloadableConfig()
	if config.HeartbeatTimeout < heartbeat {
		config.HeartbeatTimeout = heartbeat
		if err := r.ReloadConfig(config); err != nil {
			return err
		}
	}
	config.HeartbeatTimeout = heartbeat - heartbeat/1000
	return r.ReloadConfig(config)
}
