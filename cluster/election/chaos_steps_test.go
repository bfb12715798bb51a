package election_test

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// step does one thing to the cluster.
func (c *chaos) step() {
	a, b := c.nodes[c.dice.n(len(c.nodes))], c.nodes[c.dice.n(len(c.nodes))]
	switch c.dice.n(16) {
	case 0:
		if a != b {
			c.c.note("cut between %s and %s", a.id, b.id)
			c.net.Cut(a.id, b.id)
		}
	case 1:
		if a != b {
			c.c.note("cut from %s to %s", a.id, b.id)
			c.net.CutOneWay(a.id, b.id)
		}
	case 2:
		c.c.note("%s alone", a.id)
		c.net.Isolate(a.id, "a", "b", "c", "d", "e")
	case 3, 4, 5:
		c.c.note("network whole")
		c.net.HealAll()
	case 6:
		if a != b {
			d := c.dice.upTo(c.timeout / 2)
			c.c.note("%v between %s and %s", d, a.id, b.id)
			c.net.Delay(a.id, b.id, d)
		}
	case 7:
		if a != b {
			c.c.note("connections between %s and %s break", a.id, b.id)
			c.net.Break(a.id, b.id)
		}
	case 8, 9:
		c.fall(a)
	case 10:
		c.mistreat()
	case 11:
		g := c.groups[c.dice.n(len(c.groups))]
		if m := a.member(g); m != nil {
			c.c.note("%s: %s is told to stand", g, a.id)
			c.wg.Go(func() { _ = m.trans.Stand() })
		}
	case 12:
		g := c.groups[c.dice.n(len(c.groups))]
		if n, m := c.leader(g); m != nil && b != n {
			c.c.note("%s: leadership from %s to %s", g, n.id, b.id)
			c.wg.Go(func() { _ = c.wait(m.raft.LeadershipTransferToServer(raft.ServerID(b.id), raft.ServerAddress(b.id))) })
		}
	default:
		c.move(c.groups[c.dice.n(len(c.groups))], a, b)
	}
}

// fall ends a node, or starts it again. Of three of five in a raft group there may be no majority
// for a while.
func (c *chaos) fall(n *chaosNode) {
	if n.member(c.groups[0]) != nil {
		c.c.note("%s ends", n.id)
		n.end()
		return
	}
	c.c.note("%s starts", n.id)
	c.start(n)
}

// mistreat sets what happens to Raft's messages of all raft groups of all nodes.
func (c *chaos) mistreat() {
	r := rates{lost: c.dice.n(200), unheard: c.dice.n(100), late: c.dice.n(200), overdue: c.dice.n(200), repeated: c.dice.n(200), hangs: c.dice.n(50), full: c.dice.n(20)}
	if c.dice.n(3) == 0 {
		r = rates{}
	}
	c.c.note("of 1000 messages %+v", r)
	for _, n := range c.nodes {
		for _, g := range c.groups {
			if m := n.member(g); m != nil {
				m.trans.set(r)
			}
		}
	}
}

// move changes the members of a raft group by one, as moves of replicas do: a non-voter first, then
// a voter, and away. Now and then the leader is cut off in the middle of it.
func (c *chaos) move(group string, n, cut *chaosNode) {
	leader, m := c.leader(group)
	if m == nil {
		return
	}
	future := m.raft.GetConfiguration()
	if future.Error() != nil {
		return
	}
	servers := future.Configuration().Servers
	voters := 0
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			voters++
		}
	}
	id, addr, wait := raft.ServerID(n.id), raft.ServerAddress(n.id), 10*time.Second
	i := slices.IndexFunc(servers, func(s raft.Server) bool { return s.ID == id })
	var change func() raft.IndexFuture
	switch {
	case i < 0:
		c.c.note("%s: %s is added", group, n.id)
		change = func() raft.IndexFuture { return m.raft.AddNonvoter(id, addr, 0, wait) }
	case servers[i].Suffrage != raft.Voter:
		c.c.note("%s: %s votes", group, n.id)
		change = func() raft.IndexFuture { return m.raft.AddVoter(id, addr, 0, wait) }
	case voters > 3:
		c.c.note("%s: %s is removed", group, n.id)
		change = func() raft.IndexFuture { return m.raft.RemoveServer(id, 0, wait) }
	default:
		return
	}
	c.wg.Go(func() { _ = c.wait(change()) })
	if c.dice.n(3) == 0 && cut != leader {
		c.c.note("and the leader %s loses %s", leader.id, cut.id)
		c.net.Cut(leader.id, cut.id)
	}
}
