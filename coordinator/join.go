package coordinator

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm/groups"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// joinGroup answers JoinGroup: at once, or when the group's next generation begins.
func (c *Coordinator) joinGroup(ctx context.Context, client Client, req *kmsg.JoinGroupRequest) (kmsg.Response, error) {
	if code := checkGroupID(req.Group); code != 0 {
		return refuse(req, code), nil
	}
	j, code := c.newJoining(client, req)
	if code != 0 {
		return refuse(req, code), nil
	}
	g := c.lockGroup(req.Group, j.memberID == "")
	if g == nil {
		return refuse(req, kerr.UnknownMemberID.Code), nil
	}
	answer := make(chan joined, 1)
	newcomer := g.handleJoin(j, answer)
	c.unlockGroup(g)
	locks.MayWait("the members of a group")
	select {
	case a := <-answer:
		return a.response(req), nil
	case <-c.tenure.Context().Done():
		return refuse(req, kerr.NotCoordinator.Code), nil
	case <-ctx.Done():
		if newcomer != nil {
			g.gaveUp(newcomer, answer)
		}
		select {
		case a := <-answer:
			return a.response(req), nil
		default:
			return nil, ctx.Err()
		}
	}
}

// gaveUp removes a member that was to be told its id and is not there any more to
// hear it. In Kafka it stays until NewMemberJoinTimeout and its client comes back as
// another member, which is why long rebalances collect dead ones.
func (g *group) gaveUp(m *member, answer chan joined) {
	g.mu.Lock()
	defer g.c.unlockGroup(g)
	if g.byID[m.id] == m && m.fresh && m.join == answer {
		g.removeAndRebalance(m, "member "+m.id+" gave up waiting")
	}
}

// handleJoin answers the request through answer, now or later. The member is returned
// if nobody but this request will tell it its id.
func (g *group) handleJoin(j *joining, answer chan joined) (newcomer *member) {
	if !g.accepts(j) {
		if m := g.byID[j.memberID]; m != nil {
			g.removeAndRebalance(m, "the group is full")
		} else if g.forgetPending(j.memberID) {
			g.maybeCompleteJoin()
		}
		answer <- joined{err: kerr.GroupMaxSizeReached.Code}
		return nil
	}
	if !g.supports(j) {
		answer <- joined{err: kerr.InconsistentGroupProtocol.Code, memberID: j.memberID}
		return nil
	}
	if j.memberID != "" {
		g.rejoined(j, answer)
		return nil
	}
	id := g.c.newMemberID(j)
	if j.instance == nil {
		if j.client.Version >= 4 {
			g.expect(id, j)
			answer <- joined{err: kerr.MemberIDRequired.Code, memberID: id}
			return nil
		}
		return g.addAndRebalance(j, id, answer)
	}
	if m := g.instances[*j.instance]; m != nil {
		g.staticReturned(m, id, j, answer)
	} else {
		g.addAndRebalance(j, id, answer)
	}
	return nil
}

// newMemberID gives a member id as Kafka forms it.
func (c *Coordinator) newMemberID(j *joining) string {
	prefix := j.client.ID
	if j.instance != nil {
		prefix = *j.instance
	}
	if c.mintID != nil {
		return c.mintID(prefix)
	}
	var u [16]byte
	rand.Read(u[:])                             // never fails
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80 // a random UUID, RFC 9562
	return fmt.Sprintf("%s-%x-%x-%x-%x-%x", prefix, u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// accepts says whether there is room for that member (KIP-389, and the bounds of
// this package).
func (g *group) accepts(j *joining) bool {
	m, largest := g.byID[j.memberID], g.c.set.MaxGroupSize
	more := groups.CostMember + 2*groups.MaxName + protocolsCost(j.protocols)
	if m != nil {
		more = protocolsCost(j.protocols) - protocolsCost(m.protocols)
	}
	if more > 0 && (g.bytes+more > MaxGroupBytes || g.c.bytes.Load()+int64(more) > MaxLiveBytes) {
		return false
	}
	if len(g.members) == 0 && len(g.pending) == 0 && g.c.tooManyGroups() {
		return false
	}
	switch {
	case m == nil && j.memberID == "" && len(g.pending) >= largest:
		return false
	case g.state == empty:
		return true
	case g.state == preparing:
		// Those who wait count, so that the last to rejoin are turned away if the
		// bound was lowered.
		return m != nil && m.join != nil || g.joiningMembers() < largest
	}
	return m != nil || len(g.members) < largest
}

func (c *Coordinator) tooManyGroups() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.groups) > MaxLiveGroups
}

// supports says whether all members could agree on a protocol with this one.
func (g *group) supports(j *joining) bool {
	if g.state == empty || len(g.members) == 0 {
		return j.protocolType != "" && len(j.protocols) > 0
	}
	if j.protocolType != g.protocolType {
		return false
	}
	for _, p := range j.protocols {
		if g.allSupport(p.name) {
			return true
		}
	}
	return false
}

func (g *group) allSupport(protocol string) bool {
	for _, m := range g.members {
		if !m.supports(protocol) {
			return false
		}
	}
	return true
}

// expect remembers a member id that was given out (KIP-394).
func (g *group) expect(id string, j *joining) {
	g.account(groups.CostMember + len(id))
	began, session := time.Now(), time.Duration(j.session)*time.Millisecond
	g.pending[id] = g.c.tenure.After(session, func() {
		g.mu.Lock()
		defer g.c.unlockGroup(g)
		if timer, ok := g.pending[id]; ok {
			if more := g.c.more(began, session); more > 0 {
				timer.Reset(more)
				return
			}
		}
		if g.forgetPending(id) {
			g.maybeCompleteJoin()
		}
	})
}

// rejoined is a JoinGroup with a member id.
func (g *group) rejoined(j *joining, answer chan joined) {
	if _, ok := g.pending[j.memberID]; ok && j.instance == nil {
		g.addAndRebalance(j, j.memberID, answer)
		return
	}
	if code := g.validate(j.memberID, j.instance); code != 0 {
		answer <- joined{err: code, memberID: j.memberID}
		return
	}
	m := g.byID[j.memberID]
	same := m.matches(j.protocols)
	switch {
	case g.state == completing && same, g.state == stable && same && g.leader != m.id:
		// It may have lost the answer; its generation has not changed.
		answer <- g.generationFor(m)
	default:
		// The leader may rejoin for reasons that its subscription does not show, such
		// as topics that changed.
		g.update(m, j)
		m.await(answer)
		g.rebalance("member " + m.id + " rejoined: " + j.reason)
	}
}

// await makes answer the place where the member waits in JoinGroup.
func (m *member) await(answer chan joined) {
	m.answerJoin(joined{err: kerr.RebalanceInProgress.Code, memberID: m.id}) // superseded
	m.join = answer
}

// generationFor is what the member is told about the generation that has begun.
func (g *group) generationFor(m *member) joined {
	j := joined{
		generation: g.generation, protocolType: g.protocolType, protocol: g.protocol,
		leader: g.leader, memberID: m.id,
	}
	if m.id == g.leader {
		for _, o := range g.members {
			jm := kmsg.NewJoinGroupResponseMember()
			jm.MemberID, jm.InstanceID, jm.ProtocolMetadata = o.id, o.instance, o.metadata(g.protocol)
			j.members = append(j.members, jm)
		}
	}
	return j
}

func (g *group) addAndRebalance(j *joining, id string, answer chan joined) *member {
	m := &member{
		id: id, instance: j.instance, clientID: j.client.ID, clientHost: j.client.Host,
		protocolType: j.protocolType, protocols: j.protocols, rebalance: j.rebalance, session: j.session,
		fresh: true, join: answer,
	}
	if g.state == preparing && g.initial {
		g.newcomers = true
	}
	g.add(m)
	g.keepFor(m, g.c.set.NewMemberJoinTimeout)
	g.rebalance("member " + m.id + " joins: " + j.reason)
	return m
}

// staticReturned is the JoinGroup of a static member that is in the group with
// another member id: its process was started again (KIP-345).
func (g *group) staticReturned(m *member, id string, j *joining, answer chan joined) {
	oldLeader := g.leader
	g.replace(m, id)
	g.update(m, j)
	m.await(answer)
	g.keepAlive(m)
	switch {
	case g.state == completing:
		// The leader may be assigning to the old id.
		g.prepareRebalance("static member " + m.id + " returned")
	case g.state == stable && g.selectProtocol() == g.protocol:
		g.c.log.Info("static member of consumer group returned", "group", g.id, "member", m.id, "instance", *m.instance)
		generation := g.generation
		var cmd groups.Changes
		cmd.SetGroup(g.id, g.replicated(nil))
		g.write(cmd, func(err error) {
			if g.state != stable || g.generation != generation || m.join != answer {
				return // a rebalance began: it takes part
			}
			g.keepAlive(m)
			if err != nil {
				// It comes again and gets another id; the next generation saves all.
				m.answerJoin(joined{err: g.c.codeOf(err)})
				return
			}
			a := g.generationFor(m)
			if j.client.Version >= 9 {
				a.skip = a.leader == m.id // KIP-814
			} else {
				// Older clients must not take themselves for the leader, who would assign.
				a.leader, a.members = oldLeader, nil
			}
			m.answerJoin(a)
		})
	case g.state == stable:
		g.prepareRebalance("static member " + m.id + " returned with other protocols")
	default:
		g.maybeCompleteJoin()
	}
}
