package cluster

import (
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/election"
	"github.com/trimaran-io/trimaran/fsm"
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
	// maxSurveyed bounds the groups of one survey.
	maxSurveyed = 1 << 16
)

// failover is the part of a node that starts elections.
type failover struct {
	node *Node
	wake chan struct{} // capacity 1

	surveys atomic.Uint64 // rounds in which others were asked

	mu      sync.Mutex
	orphans []election.Orphan // as reported last; nil when taken
	resting map[string]time.Time
}

func newFailover(n *Node) *failover {
	return &failover{node: n, wake: make(chan struct{}, 1), resting: map[string]time.Time{}}
}

// vouch lets the peer link speak for a group that was opened.
func (n *Node) vouch(g *group) {
	if t, ok := g.transport.(*election.Member); ok {
		t.Vouch(g.raft)
	}
	n.failover.poke()
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
		f.node.election.Watch(f.others())
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

// others gives the nodes whose death matters here: those of the catalog, and of
// the catalog's group, which is known before the catalog is.
func (f *failover) others() []string {
	var out []string
	for _, node := range f.node.Topics().Nodes() {
		out = append(out, node.Identity())
	}
	if g := f.node.catalog.raftGroup(); g != nil {
		if future := g.raft.GetConfiguration(); future.Error() == nil {
			for _, s := range future.Configuration().Servers {
				out = append(out, string(s.ID))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// groupNamed gives a group that runs here, nil if there is none.
func (n *Node) groupNamed(name string) *group {
	if name == catalogGroup {
		return n.catalog.raftGroup()
	}
	id, err := fsm.ParsePartitionID(name)
	if err != nil {
		return nil
	}
	if r := n.replica(id); r != nil {
		return r.group
	}
	return nil
}

// standing is what a member knows of its group.
type standing struct {
	here     bool // the group runs on that node, and is more than a newcomer that knows nothing
	led      bool // it leads, or knows a leader that it relies on
	voter    bool // it may stand
	follower bool // it competes with nobody: a follower, or a candidate that has lost to a leader
	free     bool // it knows no leader at all, not even one that is gone
	term     uint64
	// The last entry of its log decides who can win (Raft, section 5.4.1).
	lastTerm, lastIndex uint64
}

// standingOf looks at a group for the node that asks. A leader that asks who leads does not.
func (n *Node) standingOf(g *group, asking string) standing {
	if g == nil {
		return standing{}
	}
	if t, ok := g.transport.(*election.Member); ok && t.Voteless() {
		return standing{}
	}
	s := standing{here: true, term: g.raft.CurrentTerm()}
	_, id := g.raft.LeaderWithID()
	leader := string(id)
	state := g.raft.State()
	s.free = leader == ""
	s.follower = state == raft.Follower || state == raft.Candidate && leader != ""
	s.led = state == raft.Leader || (leader != "" && leader != asking && leader != n.identity && !n.election.Gone(leader) && !unled(g))
	s.voter = state != raft.Shutdown && !n.diskHangs.Load() && slices.Contains(voters(g), n.identity)
	if g.stuck() {
		s.led = false // not by this one, and it does not hear of others
	}
	stats := g.raft.Stats()
	number := func(key string) uint64 {
		v, _ := strconv.ParseUint(stats[key], 10, 64)
		return v
	}
	s.lastIndex, s.lastTerm = number("last_log_index"), number("last_log_term")
	if snapshot := number("last_snapshot_index"); snapshot > s.lastIndex {
		s.lastIndex, s.lastTerm = snapshot, number("last_snapshot_term")
	}
	return s
}

// unled says that the node of the group's leader is alive and does not say that it leads.
func unled(g *group) bool {
	t, ok := g.transport.(*election.Member)
	return ok && t.Unled()
}

// voters gives the identities of a group's voters in the order of its
// configuration, where the preferred leader is the first.
func voters(g *group) (out []string) {
	future := g.raft.GetConfiguration()
	if future.Error() != nil {
		return nil
	}
	for _, s := range future.Configuration().Servers {
		if s.Suffrage == raft.Voter {
			out = append(out, string(s.ID))
		}
	}
	return out
}

// A survey is u8 layout (1), u32 count and so many names (u8 length, bytes); its answer, for each name in
// order: u8 flags, u64 term, u64 term and u64 index of the last entry.
const (
	surveyLayout = 1
	surveyed     = 25

	flagHere     = 1
	flagLed      = 2
	flagVoter    = 4
	flagFollower = 8
	flagFree     = 16
)

func encodeSurvey(about []*candidacy) []byte {
	out := append(make([]byte, 0, 5+64*len(about)), surveyLayout)
	out = binary.BigEndian.AppendUint32(out, uint32(len(about)))
	for _, c := range about {
		out = append(append(out, byte(len(c.Group))), c.Group...)
	}
	return out
}

// decodeSurvey gives the names and what follows them.
func decodeSurvey(payload []byte) (names []string, rest []byte, err error) {
	r := reader{b: payload}
	layout, count := r.uint8(), r.uint32()
	if r.bad || layout != surveyLayout || count > maxSurveyed || int(count) > len(r.b) {
		return nil, nil, errMalformed
	}
	names = make([]string, count)
	for i := range names {
		names[i] = string(r.bytes(int(r.uint8())))
	}
	if r.bad {
		return nil, nil, errMalformed
	}
	return names, r.b, nil
}

func appendStanding(out []byte, s standing) []byte {
	var flags byte
	for flag, on := range map[byte]bool{flagHere: s.here, flagLed: s.led, flagVoter: s.voter, flagFollower: s.follower, flagFree: s.free} {
		if on {
			flags |= flag
		}
	}
	out = append(out, flags)
	out = binary.BigEndian.AppendUint64(out, s.term)
	out = binary.BigEndian.AppendUint64(out, s.lastTerm)
	return binary.BigEndian.AppendUint64(out, s.lastIndex)
}

func decodeStandings(answer []byte, count int) ([]standing, error) {
	if len(answer) != count*surveyed {
		return nil, errMalformed
	}
	r := reader{b: answer}
	out := make([]standing, count)
	for i := range out {
		flags := r.uint8()
		out[i] = standing{
			here: flags&flagHere != 0, led: flags&flagLed != 0, voter: flags&flagVoter != 0, follower: flags&flagFollower != 0, free: flags&flagFree != 0,
			term: r.uint64(), lastTerm: r.uint64(), lastIndex: r.uint64(),
		}
	}
	return out, nil
}

// answer is this node's answer to the survey of another.
func (f *failover) answer(from string, payload []byte) ([]byte, error) {
	names, _, err := decodeSurvey(payload)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, surveyed*len(names))
	for _, name := range names {
		out = appendStanding(out, f.node.standingOf(f.node.groupNamed(name), from))
	}
	return out, nil
}

// candidacy is one orphan with what was learned of it.
type candidacy struct {
	election.Orphan
	group  *group
	voters []string
	known  map[string]standing // by voter, this node included
}

// round asks about the orphans and lets those stand that should. It returns when which group was asked about.
func (f *failover) round(ctx context.Context, orphans []election.Orphan, asked map[string]time.Time, began *sync.WaitGroup) map[string]time.Time {
	n, now := f.node, time.Now()
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
		g := n.groupNamed(o.Group)
		if g == nil {
			continue
		}
		c := &candidacy{Orphan: o, group: g, voters: voters(g), known: map[string]standing{}}
		own := n.standingOf(g, n.identity)
		if !own.voter || own.led || own.term != o.Term {
			continue // not one to stand, or things have changed
		}
		c.known[n.identity] = own
		open = append(open, c)
		for _, v := range c.voters {
			if v != n.identity && !n.election.Gone(v) && len(questions[v]) < maxSurveyed {
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
		best, wait, ok := c.decide(n.identity, n.election.Gone)
		if !ok || c.For+time.Since(now) < wait || !f.rest(c.Group) {
			continue
		}
		n.logger.Debug("a group without a leader elects", "group", c.Group, "candidate", best, "leader", c.Leader, "term", c.Term, "state", c.State, "after", c.For, "wait", wait)
		stood++
		if best == n.identity {
			began.Go(func() { f.stand(c.group, c.Term, c.gentle()) })
		} else {
			elsewhere[best] = append(elsewhere[best], c)
		}
	}
	for identity, groups := range elsewhere {
		began.Go(func() { f.tell(ctx, identity, groups) })
	}
	if stood > 0 {
		n.logger.Info("groups without a leader elect", "groups", stood, "leaderless", len(orphans))
	}
	return askedNow
}

// ask puts one question to each node, all at once, and notes the answers.
func (f *failover) ask(ctx context.Context, questions map[string][]*candidacy) {
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	type answer struct {
		from string
		all  []standing
	}
	answers := make(chan answer, len(questions))
	for identity, about := range questions {
		go func() {
			a := answer{from: identity}
			if reply, err := f.node.call(ctx, identity, callSurvey, encodeSurvey(about)); err == nil {
				a.all, _ = decodeStandings(reply, len(about))
			}
			answers <- a
		}()
	}
	for range questions {
		a := <-answers
		for i, s := range a.all {
			questions[a.from][i].known[a.from] = s
		}
	}
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
		here += boolInt(s.here)
	}
	if position < 0 || !own.here || !own.voter || here <= len(c.voters)/2 {
		return "", 0, false
	}
	settled, before := true, 0
	for i, v := range c.voters {
		s, answered := c.known[v]
		switch {
		case !answered:
			settled = settled && gone(v)
			continue
		case s.led:
			return "", 0, false
		}
		// Where somebody stands, or has heard of a newer term, an election may be under way.
		settled = settled && s.term <= own.term && (s.follower || !s.here)
		if !s.here || !s.voter {
			continue
		}
		if i < position {
			before++
		}
		if b := c.known[best]; best == "" || s.lastTerm > b.lastTerm || s.lastTerm == b.lastTerm && s.lastIndex > b.lastIndex {
			best = v
		}
	}
	wait = time.Duration(before) * failoverStagger
	if !settled {
		wait += 2 * failoverStagger
	}
	return best, wait, true
}

// gentle says whether an ordinary election would do: nobody holds on to a leader, so nobody has to be
// made to forget one. It matters to who loses: a candidate by TimeoutNow that has lost takes no notice of the
// winner in its own term until its election timer has run out, and no leadership can be handed to it until then.
func (c *candidacy) gentle() bool {
	for _, s := range c.known {
		if s.here && !s.free {
			return false
		}
	}
	return true
}

// tell lets the groups stand on another node, which looks at them once more.
func (f *failover) tell(ctx context.Context, identity string, groups []*candidacy) {
	payload := encodeSurvey(groups)
	for _, c := range groups {
		payload = binary.BigEndian.AppendUint64(payload, c.known[identity].term)
		payload = append(payload, byte(boolInt(c.gentle())))
	}
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	if _, err := f.node.call(ctx, identity, callStand, payload); err != nil {
		f.node.logger.Debug("a node was not told to stand for election", "node", identity, "error", err)
	}
}

// told is tell at the other side. The node that asks may be the leader that the group here remembers: it was restarted
// and does not lead any more.
func (f *failover) told(from string, payload []byte) error {
	names, rest, err := decodeSurvey(payload)
	if err != nil || len(rest) != 9*len(names) {
		return errMalformed
	}
	r := reader{b: rest}
	var standing sync.WaitGroup
	for _, name := range names {
		term, gentle := r.uint64(), r.uint8() == 1
		g := f.node.groupNamed(name)
		if g == nil {
			continue
		}
		s := f.node.standingOf(g, from)
		if !s.voter || s.led || s.term != term || !f.rest(name) {
			continue
		}
		standing.Go(func() { f.stand(g, term, gentle) })
	}
	standing.Wait()
	return nil
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
func (f *failover) stand(g *group, term uint64, gentle bool) {
	t, ok := g.transport.(*election.Member)
	if !ok {
		return
	}
	var err error
	if g.raft.State() == raft.Candidate {
		// A candidate that has lost waits for its election timer, whatever it is told.
		all := voters(g)
		other := slices.IndexFunc(all, func(v string) bool { return v != f.node.identity })
		if other < 0 || g.raft.CurrentTerm() != term {
			return
		}
		err = t.Yield(all[other], term)
	}
	switch {
	case err != nil || g.raft.State() != raft.Follower: // at a leader a TimeoutNow would end its leadership
	case gentle && time.Since(g.raft.LastContact()) >= f.node.cfg.HeartbeatTimeout:
		err = expire(g.raft, f.node.cfg.HeartbeatTimeout)
	default:
		err = t.Stand()
	}
	if err != nil {
		f.node.logger.Debug("a group was not made to stand for election", "group", g.name, "error", err)
	}
}

// expire makes a follower look at once whether its leader has been silent for the heartbeat timeout, as it does
// when its timer runs out: hashicorp/raft looks when the timeout is made shorter.
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
