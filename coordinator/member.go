package coordinator

import (
	"bytes"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm/groups"
	"github.com/trimaran-io/trimaran/internal/tenure"
)

// member is a member of a group; its group's lock guards it.
type member struct {
	id         string
	instance   *string // group.instance.id, nil: a dynamic member
	clientID   string
	clientHost string
	// protocolType is that which the member joined with, "" if State had it.
	protocolType string
	protocols    []protocol // in the order of the member's preference, at least one
	rebalance    int32      // timeout, ms
	session      int32      // timeout, ms
	assignment   []byte

	// fresh: it has not been told its member id yet, so it cannot heartbeat and ends
	// even while it waits.
	fresh bool
	// join and sync are where it waits, nil: it does not. Both have room for the one
	// answer that is ever sent.
	join chan joined
	sync chan synced
	// timer ends its session at deadline; that is later than the timer may believe.
	timer    *tenure.Timer
	deadline time.Time
	heard    time.Time // when the session began that ends then
}

// protocol is a protocol (assignor) with the member's subscription under it, which
// nobody here understands but for its topics (subscription.go).
type protocol struct {
	name     string
	metadata []byte
}

// cost is about what a member takes in memory, see MaxGroupBytes.
func (m *member) cost() int {
	n := groups.CostMember + len(m.id) + len(m.clientID) + len(m.clientHost) + len(m.assignment)
	if m.instance != nil {
		n += len(*m.instance)
	}
	return n + protocolsCost(m.protocols)
}

func protocolsCost(protocols []protocol) int {
	n := 0
	for _, p := range protocols {
		n += 64 + len(p.name) + len(p.metadata)
	}
	return n
}

func (m *member) supports(name string) bool {
	return slices.ContainsFunc(m.protocols, func(p protocol) bool { return p.name == name })
}

// metadata is the member's subscription under that protocol.
func (m *member) metadata(name string) []byte {
	for _, p := range m.protocols {
		if p.name == name {
			return p.metadata
		}
	}
	return nil
}

func (m *member) matches(protocols []protocol) bool {
	return slices.EqualFunc(m.protocols, protocols, func(a, b protocol) bool {
		return a.name == b.name && bytes.Equal(a.metadata, b.metadata)
	})
}

// answerJoin ends the member's wait in JoinGroup, if there is one.
func (m *member) answerJoin(j joined) {
	if m.join != nil {
		m.join <- j
		m.join = nil
	}
}

func (m *member) answerSync(s synced) bool {
	if m.sync == nil {
		return false
	}
	m.sync <- s
	m.sync = nil
	return true
}

// stop ends what a member that goes has running. The member id in the answer is not
// repeated: it means nothing any more.
func (m *member) stop(code int16) {
	m.timer.Stop()
	m.timer = nil
	id := ""
	if code == kerr.FencedInstanceID.Code {
		id = m.id
	}
	m.answerJoin(joined{err: code, memberID: id})
	m.answerSync(synced{err: code})
}

// keepAlive gives the member its session timeout from now on.
func (g *group) keepAlive(m *member) {
	g.keepFor(m, time.Duration(m.session)*time.Millisecond)
}

func (g *group) keepFor(m *member, d time.Duration) {
	m.heard = time.Now()
	m.deadline = m.heard.Add(d)
	if m.timer != nil {
		m.timer.Reset(d)
		return
	}
	m.timer = g.c.tenure.After(d, func() {
		g.mu.Lock()
		defer g.c.unlockGroup(g)
		g.sessionEnded(m)
	})
}

// sessionEnded is called when a member's time is up. That a timer fires while its
// member is being heard of is settled by the deadline.
func (g *group) sessionEnded(m *member) {
	switch {
	case g.byID[m.id] != m || time.Now().Before(m.deadline):
	case !m.fresh && (m.join != nil || m.sync != nil):
		// Who waits here is alive; its time begins again with the answer.
	default:
		if more := g.c.more(m.heard, time.Duration(m.session)*time.Millisecond); more > 0 {
			g.keepFor(m, more)
			return
		}
		g.c.log.Info("member of consumer group failed", "group", g.id, "member", m.id, "client", m.clientID)
		g.removeAndRebalance(m, "member "+m.id+" failed")
	}
}

// joined is an answer to JoinGroup.
type joined struct {
	err          int16
	generation   int32
	protocolType string
	protocol     string
	leader       string
	memberID     string
	skip         bool
	members      []kmsg.JoinGroupResponseMember
}

func (j joined) response(req *kmsg.JoinGroupRequest) *kmsg.JoinGroupResponse {
	resp := req.ResponseKind().(*kmsg.JoinGroupResponse)
	resp.ErrorCode, resp.MemberID, resp.Generation = j.err, j.memberID, -1
	if j.err == 0 {
		resp.Generation, resp.LeaderID, resp.SkipAssignment, resp.Members = j.generation, j.leader, j.skip, j.members
		resp.ProtocolType, resp.Protocol = &j.protocolType, &j.protocol
	}
	return resp
}

// synced is an answer to SyncGroup.
type synced struct {
	err          int16
	protocolType string
	protocol     string
	assignment   []byte
}

func (s synced) response(req *kmsg.SyncGroupRequest) *kmsg.SyncGroupResponse {
	resp := req.ResponseKind().(*kmsg.SyncGroupResponse)
	resp.ErrorCode, resp.MemberAssignment = s.err, []byte{}
	if s.err == 0 {
		resp.ProtocolType, resp.Protocol, resp.MemberAssignment = &s.protocolType, &s.protocol, s.assignment
	}
	return resp
}

// joining is what a member says when it joins, in memory of our own and within
// bounds.
type joining struct {
	client       Client
	memberID     string
	instance     *string
	protocolType string
	protocols    []protocol
	rebalance    int32 // ms
	session      int32 // ms
	reason       string
}

// newJoining checks the request; a code other than 0 refuses it.
func (c *Coordinator) newJoining(client Client, req *kmsg.JoinGroupRequest) (*joining, int16) {
	session := time.Duration(req.SessionTimeoutMillis) * time.Millisecond
	switch {
	case session < c.set.MinSessionTimeout || session > c.set.MaxSessionTimeout:
		return nil, kerr.InvalidSessionTimeout.Code
	case len(req.Protocols) > MaxProtocols, len(req.ProtocolType) > groups.MaxName,
		req.InstanceID != nil && len(*req.InstanceID) > groups.MaxInstanceID:
		return nil, kerr.InvalidRequest.Code
	}
	j := &joining{
		client:   Client{ID: strings.Clone(client.ID), Host: strings.Clone(client.Host), Version: client.Version},
		memberID: strings.Clone(req.MemberID), protocolType: strings.Clone(req.ProtocolType),
		rebalance: req.RebalanceTimeoutMillis, session: req.SessionTimeoutMillis,
	}
	if j.rebalance < 0 { // JoinGroup v0
		j.rebalance = j.session
	}
	if req.InstanceID != nil {
		instance := strings.Clone(*req.InstanceID)
		j.instance = &instance
	}
	if req.Reason != nil {
		j.reason = cut(*req.Reason, 255) // as KIP-800 has it
	}
	size := 0
	for _, p := range req.Protocols {
		if len(p.Name) > groups.MaxName {
			return nil, kerr.InvalidRequest.Code
		}
		if size += len(p.Metadata); size > MaxGroupBytes {
			return nil, kerr.GroupMaxSizeReached.Code
		}
		j.protocols = append(j.protocols, protocol{name: strings.Clone(p.Name), metadata: append([]byte{}, p.Metadata...)})
	}
	return j, 0
}

// cut shortens s to at most max bytes, between two characters.
func cut(s string, max int) string {
	if len(s) <= max {
		return s
	}
	for max > 0 && !utf8.RuneStart(s[max]) {
		max--
	}
	return s[:max]
}
