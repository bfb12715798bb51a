package leading

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/election"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/internal/ticks"
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

// Failover is the part of a node that starts elections. Run is its loop.
type Failover struct {
	cfg  FailoverConfig
	wake chan struct{} // capacity 1

	surveys atomic.Uint64 // rounds in which others were asked

	mu      locks.Mutex[Failover] // guards what follows; nothing else is done under it
	orphans []election.Orphan     // as reported last; nil when taken
	// groups that were told to stand, and until when they are left alone
	resting map[string]time.Time
}

// FailoverConfig is what elections need of the node.
type FailoverConfig struct {
	Standings
	Heartbeat time.Duration // of every group
	Logger    *slog.Logger
	Caller    calls.Caller
	Watch     func(identities []string) // has sessions kept with them, and their silence noticed
	Others    func() []string           // the nodes whose death matters here
	Group     func(name string) Member  // that runs here, nil if there is none
}

// NewFailover makes one that starts nothing until it runs.
func NewFailover(cfg FailoverConfig) *Failover {
	return &Failover{cfg: cfg, wake: make(chan struct{}, 1), resting: map[string]time.Time{}}
}

// Poke has the loop look at once. It does not wait.
func (f *Failover) Poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Opened is told of a member that runs from now on. The only voter of a group has nobody to ask and
// nobody to wait for: it stands at once.
func (f *Failover) Opened(g Member) {
	if voters := g.Voters(); len(voters) == 1 && voters[0] == f.cfg.Self {
		f.stand(g, g.Term(), true)
		return
	}
	f.Poke()
}

// Noticed is told by the peer link which groups have no leader (election.Config.OnOrphans).
func (f *Failover) Noticed(orphans []election.Orphan) {
	f.mu.Lock()
	f.orphans = orphans
	f.mu.Unlock()
	f.Poke()
}

// Run starts elections until ctx ends, and returns when those that it began have been told of.
func (f *Failover) Run(ctx context.Context) {
	tick := ticks.New(watchEvery)
	defer tick.Stop()
	asked := map[string]time.Time{}
	var began sync.WaitGroup
	defer began.Wait()
	for {
		f.cfg.Watch(f.cfg.Others())
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

// Answer answers calls.Survey: how the groups of those names stand here.
func (f *Failover) Answer(_ context.Context, from string, names []string) ([]calls.Standing, error) {
	out := make([]calls.Standing, len(names))
	for i, name := range names {
		out[i] = f.cfg.Of(f.cfg.Group(name), from)
	}
	return out, nil
}

// candidacy is one orphan with what was learned of it.
type candidacy struct {
	election.Orphan
	group  Member
	voters []string
	known  map[string]calls.Standing // by voter, this node included
}

// round asks about the orphans and lets those stand that should. It returns when which group was
// asked about.
func (f *Failover) round(ctx context.Context, orphans []election.Orphan, asked map[string]time.Time, began *sync.WaitGroup) map[string]time.Time {
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
		g := f.cfg.Group(o.Group)
		if g == nil {
			continue
		}
		c := &candidacy{Orphan: o, group: g, voters: g.Voters(), known: map[string]calls.Standing{}}
		own := f.cfg.Of(g, f.cfg.Self)
		if !own.Voter || own.Led || own.Term != o.Term {
			continue // not one to stand, or things have changed
		}
		c.known[f.cfg.Self] = own
		open = append(open, c)
		for _, v := range c.voters {
			if v != f.cfg.Self && !f.cfg.Gone(v) && len(questions[v]) < calls.MaxSurveyed {
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
		best, wait, ok := c.decide(f.cfg.Self, f.cfg.Gone)
		if !ok || c.For+time.Since(now) < wait || !f.rest(c.Group) {
			continue
		}
		f.cfg.Logger.Debug("a group without a leader elects", "group", c.Group, "candidate", best, "leader", c.Leader, "term", c.Term, "state", c.State, "after", c.For, "wait", wait)
		stood++
		if best == f.cfg.Self {
			began.Go(func() { f.stand(c.group, c.Term, c.gentle()) })
		} else {
			elsewhere[best] = append(elsewhere[best], c)
		}
	}
	for identity, groups := range elsewhere {
		began.Go(func() { f.tell(ctx, identity, groups) })
	}
	if stood > 0 {
		f.cfg.Logger.Info("groups without a leader elect", "groups", stood, "leaderless", len(orphans))
	}
	return askedNow
}

// ask puts one question to each node, all at once, and notes the answers.
func (f *Failover) ask(ctx context.Context, questions map[string][]*candidacy) {
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	calls.AskAll(ctx, slices.Collect(maps.Keys(questions)), func(ctx context.Context, identity string) ([]calls.Standing, error) {
		names := make([]string, len(questions[identity]))
		for i, c := range questions[identity] {
			names[i] = c.Group
		}
		return calls.Survey.Ask(ctx, f.cfg.Caller, identity, names)
	}, func(identity string, all []calls.Standing, err error) bool {
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
		if s.Here {
			here++
		}
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
func (f *Failover) tell(ctx context.Context, identity string, groups []*candidacy) {
	ask := make([]calls.StandRequest, len(groups))
	for i, c := range groups {
		ask[i] = calls.StandRequest{Group: c.Group, Term: c.known[identity].Term, Gentle: c.gentle()}
	}
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	if _, err := calls.Stand.Ask(ctx, f.cfg.Caller, identity, ask); err != nil {
		f.cfg.Logger.Debug("a node was not told to stand for election", "node", identity, "error", err)
	}
}

// Told answers calls.Stand, which is tell at the other side. The node that asks may be the leader
// that the group here remembers: it was restarted and does not lead any more.
func (f *Failover) Told(_ context.Context, from string, ask []calls.StandRequest) (calls.Nothing, error) {
	var standing sync.WaitGroup
	for _, q := range ask {
		g := f.cfg.Group(q.Group)
		if g == nil {
			continue
		}
		s := f.cfg.Of(g, from)
		if !s.Voter || s.Led || s.Term != q.Term || !f.rest(q.Group) {
			continue
		}
		standing.Go(func() { f.stand(g, q.Term, q.Gentle) })
	}
	standing.Wait()
	return calls.Nothing{}, nil
}

// rest says whether a group was not told to stand a moment ago, and that it is now.
func (f *Failover) rest(group string) bool {
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
func (f *Failover) stand(g Member, term uint64, gentle bool) {
	var err error
	if g.State() == raft.Candidate {
		// A candidate that has lost waits for its election timer, whatever it is told.
		all := g.Voters()
		other := slices.IndexFunc(all, func(v string) bool { return v != f.cfg.Self })
		if other < 0 || g.Term() != term {
			return
		}
		err = g.Yield(all[other], term)
	}
	switch {
	case err != nil || g.State() != raft.Follower:
		// at a leader a TimeoutNow would end its leadership
	case gentle && time.Since(g.LastContact()) >= f.cfg.Heartbeat:
		err = g.Expire(f.cfg.Heartbeat)
	default:
		err = g.Stand()
	}
	if err != nil {
		f.cfg.Logger.Debug("a group was not made to stand for election", "group", g.Group(), "error", err)
	}
}
