package coordinator

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/trimaran-io/trimaran/fsm/groups"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/internal/tenure"
)

// groupState is where a group is in its life (Kafka's ClassicGroupState).
type groupState int

const (
	empty      groupState = iota // no members; perhaps offsets
	preparing                    // members are asked to join again
	completing                   // a generation has begun, its leader is to say who gets what
	stable                       // all have been told what they got
)

func (s groupState) String() string {
	return [...]string{"Empty", "PreparingRebalance", "CompletingRebalance", "Stable"}[s]
}

// group is a group that has members, is about to, or has a command on its way.
type group struct {
	c  *Coordinator
	id string

	// mu guards what follows, and what is in the members. The coordinator's and State's may be
	// taken under it, timers are set and commands queued; nothing is waited for, and a command is
	// replicated without it.
	mu locks.Mutex[group]
	// dropped: no longer in Coordinator.groups. Whoever finds it looks again.
	dropped bool

	state groupState
	// initial: the group was empty before it entered preparing, so that its first
	// members wait for more of them.
	initial      bool
	since        int64 // ms: when it entered its state
	generation   int32
	protocolType string // "": never had members
	protocol     string // of the generation
	leader       string // member id, "": none
	// subscribed are the topics of the generation's members; nil: not known.
	subscribed map[string]bool

	members   []*member // in the order in which they came
	byID      map[string]*member
	instances map[string]*member       // by group.instance.id
	pending   map[string]*tenure.Timer // member ids that were given out and not used yet (KIP-394)
	bytes     int                      // the cost of all members and their assignments

	// join is what ends the phase preparing, and newcomers whether somebody came
	// since it was set for an initial one. sync ends waiting for SyncGroup, by those
	// of unsynced.
	join      *tenure.Timer
	newcomers bool
	sync      *tenure.Timer
	unsynced  map[string]bool
	// assigning: what the generation's leader assigned is on its way into the log.
	assigning bool

	// queue are commands on their way (writes.go).
	queue   []*write
	writing bool
	// unsaved: State believes in members who are gone, since the command that says
	// so was not replicated. The next sweep that finds the group empty tries again.
	unsaved bool
	// ending are the markers of transactions on their way, by producer id: the number of the last
	// one.
	ending map[int64]int32
}

// lockGroup gives the locked group. If it is not there, it is made from what State
// has of it; if that is nothing, nil is returned, unless it is to be created. Who
// locks a group unlocks it with unlockGroup.
func (c *Coordinator) lockGroup(id string, create bool) *group {
	for {
		c.mu.Lock()
		g := c.groups[id]
		if g == nil {
			meta, exists := c.cfg.State.lookUp(id)
			if !exists && !create {
				c.mu.Unlock()
				return nil
			}
			g = c.load(strings.Clone(id), meta)
			c.groups[g.id] = g
		}
		c.mu.Unlock()
		g.mu.Lock()
		if !g.dropped {
			return g
		}
		g.mu.Unlock()
	}
}

// unlockGroup unlocks the group, and forgets it if State knows all of it.
func (c *Coordinator) unlockGroup(g *group) {
	if g.state == empty && len(g.pending) == 0 && !g.writing && !g.unsaved && len(g.ending) == 0 {
		g.dropped = true
		c.mu.Lock()
		delete(c.groups, g.id)
		c.mu.Unlock()
	}
	g.mu.Unlock()
}

// load gives a group as its last generation was replicated. The group is not known
// to anybody yet.
func (c *Coordinator) load(id string, meta *groups.Group) *group {
	g := &group{
		c: c, id: id,
		byID: make(map[string]*member), instances: make(map[string]*member),
		pending: make(map[string]*tenure.Timer), unsynced: make(map[string]bool),
		ending: make(map[int64]int32),
	}
	if meta == nil {
		return g
	}
	g.generation, g.protocolType, g.since = meta.Generation, meta.ProtocolType, meta.Since
	if len(meta.Members) == 0 {
		if g.protocolType == consumerProtocol {
			g.subscribed = map[string]bool{}
		}
		return g
	}
	g.state, g.protocol, g.leader = stable, meta.Protocol, meta.Leader
	for _, stored := range meta.Members {
		m := &member{
			id: stored.ID, instance: stored.InstanceID, clientID: stored.ClientID, clientHost: stored.ClientHost,
			rebalance: stored.Rebalance, session: stored.Session, assignment: stored.Assignment,
			protocols: []protocol{{name: meta.Protocol, metadata: stored.Subscription}},
		}
		g.add(m)
		g.keepAlive(m)
	}
	g.subscribed = g.subscriptions()
	return g
}

func (g *group) enter(s groupState) {
	g.initial = s == preparing && g.state == empty
	g.assigning = false
	g.state, g.since = s, time.Now().UnixMilli()
}

func (g *group) account(n int) {
	g.bytes += n
	g.c.bytes.Add(int64(n))
}

func (g *group) add(m *member) {
	if len(g.members) == 0 && m.protocolType != "" {
		g.protocolType = m.protocolType
	}
	g.members = append(g.members, m)
	g.byID[m.id] = m
	if m.instance != nil {
		g.instances[*m.instance] = m
	}
	if g.leader == "" {
		g.leader = m.id
	}
	g.account(m.cost())
	g.forgetPending(m.id)
}

// remove takes a member out of the group. If it still waits, it is told code.
func (g *group) remove(m *member, code int16) {
	m.stop(code)
	g.members = slices.DeleteFunc(g.members, func(o *member) bool { return o == m })
	delete(g.byID, m.id)
	delete(g.unsynced, m.id)
	if m.instance != nil && g.instances[*m.instance] == m {
		delete(g.instances, *m.instance)
	}
	if g.leader == m.id {
		g.leader = ""
		if len(g.members) > 0 {
			g.leader = g.members[0].id
		}
	}
	g.account(-m.cost())
}

// replace gives a static member a new id, its place and what it was assigned
// (KIP-345). Whoever still waits under the old one is fenced.
func (g *group) replace(m *member, id string) {
	m.stop(kerr.FencedInstanceID.Code)
	g.account(-m.cost())
	delete(g.byID, m.id)
	delete(g.unsynced, m.id)
	if g.leader == m.id {
		g.leader = id
	}
	m.id = id
	m.fresh = false // its instance is its name: whoever comes in its place is that member again
	g.byID[id] = m
	g.account(m.cost())
}

// update gives a member what it joined with this time.
func (g *group) update(m *member, j *joining) {
	g.account(-m.cost())
	m.protocols, m.rebalance, m.session = j.protocols, j.rebalance, j.session
	g.account(m.cost())
}

func (g *group) forgetPending(id string) bool {
	timer, ok := g.pending[id]
	if ok {
		timer.Stop()
		delete(g.pending, id)
		g.account(-groups.CostMember - len(id))
	}
	return ok
}

func (g *group) allJoined() bool {
	return len(g.pending) == 0 && !slices.ContainsFunc(g.members, func(m *member) bool { return m.join == nil })
}

func (g *group) joiningMembers() int {
	n := 0
	for _, m := range g.members {
		if m.join != nil {
			n++
		}
	}
	return n
}

// rebalanceTimeout is the longest of the members'.
func (g *group) rebalanceTimeout() time.Duration {
	longest := int32(0)
	for _, m := range g.members {
		longest = max(longest, m.rebalance)
	}
	return time.Duration(longest) * time.Millisecond
}

// validate says which error a request of that member gets, 0 for none.
func (g *group) validate(memberID string, instance *string) int16 {
	if instance != nil {
		m := g.instances[*instance]
		if m == nil {
			return kerr.UnknownMemberID.Code
		}
		if m.id != memberID {
			return kerr.FencedInstanceID.Code
		}
	}
	if g.byID[memberID] == nil {
		return kerr.UnknownMemberID.Code
	}
	return 0
}

// replicated is the group as State is to have it, with the assignments given by
// member id; nil: those that members have.
func (g *group) replicated(assignments map[string][]byte) groups.Group {
	r := groups.Group{Generation: g.generation, ProtocolType: g.protocolType, Protocol: g.protocol, Leader: g.leader, Since: g.since}
	for _, m := range g.members {
		assignment := m.assignment
		if assignments != nil {
			assignment = assignments[m.id]
		}
		r.Members = append(r.Members, groups.Member{
			ID: m.id, InstanceID: m.instance, ClientID: m.clientID, ClientHost: m.clientHost,
			Rebalance: m.rebalance, Session: m.session,
			Subscription: m.metadata(g.protocol), Assignment: assignment,
		})
	}
	return r
}

// all gives the ids of all groups, in memory and replicated, sorted.
func (c *Coordinator) all() []string {
	ids := append(c.cfg.State.ids(), c.live()...)
	slices.Sort(ids)
	return slices.Compact(ids)
}

// live gives the groups that are in memory.
func (c *Coordinator) live() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Keys(c.groups))
}
