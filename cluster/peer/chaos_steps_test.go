package peer_test

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// step is one thing that happens to the cluster.
func (s *scenario) step() {
	all := []struct {
		weight int
		do     func()
	}{
		{6, s.cut}, {6, s.healSome}, {3, s.breakConnections}, {2, s.refuse}, {3, s.delay}, {8, s.storm}, {4, s.crashReplica},
		{3, s.crashNode}, {3, s.hangDisk}, {6, s.stand}, {2, s.yield}, {6, s.usurp}, {8, s.changeMembers}, {3, s.transfer}, {2, s.snapshot}, {3, s.silence},
	}
	total := 0
	for _, a := range all {
		total += a.weight
	}
	x := s.rng.IntN(total)
	for _, a := range all {
		if x -= a.weight; x < 0 {
			a.do()
			return
		}
	}
}

// silence is a while in which nothing is done.
func (s *scenario) silence() { time.Sleep(seconds(2 + 10*s.rng.Float64())) }

// isolate cuts a node off: both ways, or only its words, or only those of the others.
func (s *scenario) isolate(node string) {
	how := s.rng.IntN(3)
	s.check.event("net: %s is cut off (%s)", node, []string{"both ways", "not heard", "hears nothing"}[how])
	for _, o := range s.nodes {
		switch {
		case o == node:
		case how == 0:
			s.net.Cut(node, o)
		case how == 1:
			s.net.CutOneWay(node, o)
		default:
			s.net.CutOneWay(o, node)
		}
	}
}

func (s *scenario) rejoin(node string) {
	s.check.event("net: %s is heard and hears", node)
	for _, o := range s.nodes {
		if o != node {
			s.net.Heal(node, o)
		}
	}
}

func (s *scenario) cut() {
	if s.rng.IntN(2) == 0 {
		s.isolate(s.node())
		return
	}
	a, b := s.pair()
	if s.rng.IntN(2) == 0 {
		s.check.event("net: cut from %s to %s", a, b)
		s.net.CutOneWay(a, b)
	} else {
		s.check.event("net: cut between %s and %s", a, b)
		s.net.Cut(a, b)
	}
}

func (s *scenario) healSome() {
	if s.rng.IntN(3) == 0 {
		s.rejoin(s.node())
		return
	}
	s.check.event("net: healed")
	s.net.HealAll()
	if s.rng.IntN(2) == 0 {
		s.weather.clear()
	}
	if s.rng.IntN(2) == 0 {
		s.restart()
	}
}

func (s *scenario) breakConnections() {
	a, b := s.pair()
	s.check.event("net: connections between %s and %s break", a, b)
	s.net.Break(a, b)
}

func (s *scenario) refuse() {
	node, on := s.node(), s.rng.IntN(2) == 0
	s.check.event("net: %s refuses dials: %v", node, on)
	s.net.Refuse(node, on)
}

func (s *scenario) delay() {
	a, b := s.pair()
	d := seconds(s.rng.Float64() * s.rng.Float64() / 4)
	s.check.event("net: %v between %s and %s", d, a, b)
	s.net.Delay(a, b, d)
}

// storm sets how the requests between some nodes suffer.
func (s *scenario) storm() {
	r := rates{slow: s.rng.Float64() / 2, most: seconds(s.rng.Float64() / 3)}
	for _, p := range []*float64{&r.drop, &r.lose, &r.late, &r.twice} {
		if s.rng.IntN(2) == 0 {
			*p = s.rng.Float64() * 0.3
		}
	}
	for range 1 + s.rng.IntN(2*len(s.nodes)) {
		a, b := s.pair()
		s.weather.set(a, b, r)
		s.check.event("weather from %s to %s: %+v", a, b, r)
	}
}

func (s *scenario) crashReplica() {
	r := s.replica(s.group(), s.node())
	if s.rng.IntN(3) > 0 { // rather one that leads
		if l := s.leaders(r.group); len(l) > 0 {
			r = s.replica(r.group, l[0].node)
		}
	}
	s.check.event("%s: %s crashes", r.group, r.node)
	s.stopReplica(r)
	if s.rng.IntN(2) == 0 {
		time.Sleep(s.gap())
	}
	s.check.event("%s: %s starts", r.group, r.node)
	s.startReplica(r)
}

func (s *scenario) crashNode() {
	node := s.node()
	if len(s.down) > (len(s.nodes)-1)/2 || slices.Contains(s.down, node) {
		s.restart()
		return
	}
	s.check.event("node %s crashes", node)
	s.stopNode(node)
	s.down = append(s.down, node)
	if s.rng.IntN(2) == 0 {
		time.Sleep(s.gap())
		s.restart()
	}
}

func (s *scenario) restart() {
	for _, node := range s.down {
		s.check.event("node %s starts", node)
		s.startNode(node)
	}
	s.down = nil
}

func (s *scenario) hangDisk() {
	node := s.node()
	groups := []string{s.group()}
	if s.rng.IntN(2) == 0 {
		groups = s.groups
	}
	long := s.gap() + s.gap()
	s.check.event("disks of %s for %v hang for %v", node, groups, long)
	for _, g := range groups {
		d := s.replica(g, node).disk
		d.hang(true)
		time.AfterFunc(long, func() { d.hang(false) })
	}
}

// stand makes a voter stand for election as the failover does, and takes no care whether it should.
func (s *scenario) stand() {
	group := s.group()
	if rs := s.running(group); len(rs) > 0 {
		s.standFor(group, rs[s.rng.IntN(len(rs))])
	}
}

func (s *scenario) standFor(group string, r running) {
	if suffrage, ok := r.suffrage(r.node); !ok || suffrage != raft.Voter {
		return
	}
	s.wg.Go(func() {
		err := r.trans.Stand()
		s.check.event("%s: %s was told to stand: %v", group, r.node, err)
	})
}

func (s *scenario) yield() {
	for _, group := range s.groups {
		for _, r := range s.running(group) {
			if r.raft.State() == raft.Candidate {
				as, term := s.node(), r.raft.CurrentTerm()
				s.wg.Go(func() {
					err := r.trans.Yield(as, term)
					s.check.event("%s: %s was told to yield in term %d: %v", group, r.node, term, err)
				})
			}
		}
	}
}

// usurp cuts a leader off and makes another stand before the first can know.
func (s *scenario) usurp() {
	group := s.group()
	ls := s.leaders(group)
	if len(ls) == 0 {
		s.stand()
		return
	}
	s.isolate(ls[0].node)
	time.Sleep(seconds(s.rng.Float64()))
	for _, r := range s.running(group) {
		if r.node != ls[0].node {
			s.standFor(group, r)
			if s.rng.IntN(3) > 0 {
				break
			}
		}
	}
	time.Sleep(seconds(2 * s.rng.Float64()))
	if s.rng.IntN(2) == 0 {
		s.rejoin(ls[0].node)
	}
}

func (s *scenario) transfer() {
	group, to := s.group(), s.node()
	for _, l := range s.leaders(group) {
		s.check.event("%s: %s hands over to %s", group, l.node, to)
		f := l.raft.LeadershipTransferToServer(raft.ServerID(to), raft.ServerAddress(to))
		s.wg.Go(func() { s.check.event("%s: %s handed over to %s: %v", group, l.node, to, f.Error()) })
		break
	}
}

func (s *scenario) snapshot() {
	for _, r := range s.running(s.group()) {
		if s.rng.IntN(2) == 0 {
			f := r.raft.Snapshot()
			s.wg.Go(func() { _ = f.Error() })
		}
	}
}

// settled says whether all voters know the configuration that the leader has. A voter of hashicorp/raft denies its vote to
// a candidate that is no voter in its own newest configuration, however old that is (raft.go, requestVote; Raft,
// section 6, has servers accept requests of nodes that are not in their configuration). A voter that has missed two
// changes can leave a group with a majority alive and without a leader for ever: it denies its vote to those with
// the longer log, and its own log is too short to be voted for.
func (s *scenario) settled(group string, l running) bool {
	if c := s.changing[group]; c != nil {
		select {
		case <-c:
		default:
			return false
		}
	}
	want := l.configuration().Servers
	voters, know := 0, 0
	for _, m := range want {
		if m.Suffrage == raft.Voter {
			voters++
		}
	}
	for _, r := range s.running(group) {
		if suffrage, ok := l.suffrage(r.node); ok && suffrage == raft.Voter && slices.Equal(r.configuration().Servers, want) {
			know++
		}
	}
	return voters > 0 && know == voters
}

// changeMembers adds, promotes, demotes or removes a member, and often breaks something in the middle of it.
func (s *scenario) changeMembers() {
	group, node, how, after := s.group(), s.node(), s.rng.IntN(5), seconds(s.rng.Float64()/20)
	ls := s.leaders(group)
	if len(ls) == 0 {
		return
	}
	l := ls[s.rng.IntN(len(ls))]
	if !s.settled(group, l) {
		return
	}
	voters := 0
	for _, m := range l.configuration().Servers {
		if m.Suffrage == raft.Voter {
			voters++
		}
	}
	id, at := raft.ServerID(node), raft.ServerAddress(node)
	suffrage, member := l.suffrage(node)
	var what string
	var f raft.IndexFuture
	switch {
	case !member && how < 3:
		what, f = "adds", l.raft.AddNonvoter(id, at, 0, 0)
	case !member, suffrage != raft.Voter && how < 4:
		what, f = "promotes", l.raft.AddVoter(id, at, 0, 0)
	case suffrage == raft.Voter && voters <= 2:
		return
	case suffrage == raft.Voter && how < 2:
		what, f = "demotes", l.raft.DemoteVoter(id, 0, 0)
	default:
		what, f = "removes", l.raft.RemoveServer(id, 0, 0)
	}
	s.check.event("%s: %s %s %s", group, l.node, what, node)
	known := make(chan struct{})
	s.changing[group] = known
	s.wg.Go(func() {
		defer close(known)
		s.check.event("%s: %s %s %s: %v", group, l.node, what, node, f.Error())
	})
	x := s.rng.IntN(6)
	time.Sleep(after)
	switch x {
	case 0:
		s.isolate(l.node)
	case 1:
		s.isolate(node)
	case 2:
		r := s.replica(group, l.node)
		s.check.event("%s: %s crashes in the middle of a change", group, l.node)
		s.stopReplica(r)
		time.Sleep(after * 10)
		s.startReplica(r)
	case 3:
		s.stand()
	}
}
