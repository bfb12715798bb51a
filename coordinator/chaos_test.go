package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm/groups"
)

// TestChaos has clients do what they like, right or wrong, to two groups, while
// commands fail, hang and coordinators change. After each step everything in memory
// must fit together and with what is replicated; in the end, when the clients have
// gone, nothing may be left of them.
func TestChaos(t *testing.T) {
	runs := uint64(60)
	if testing.Short() {
		runs = 10
	}
	for seed := range runs {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &chaos{t: t, state: NewState(), r: rand.New(rand.NewPCG(seed, 0))}
				c.ctx, c.cancel = context.WithCancel(context.Background())
				c.lead()
				for range 300 {
					c.step()
					synctest.Wait()
					c.check()
				}
				c.end()
			})
		})
	}
}

type chaos struct {
	t     *testing.T
	r     *rand.Rand
	state *State
	c     *Coordinator

	ctx     context.Context // of requests; some clients lose patience
	cancel  context.CancelFunc
	pending sync.WaitGroup

	mu    sync.Mutex
	delay time.Duration
	fate  int // of commands: 0 applied, 1 applied later, 2 not, 3 applied though nobody knows
	known []identity
}

// identity is what a client was told.
type identity struct {
	group, member string
	instance      *string
	generation    int32
}

func (c *chaos) lead() {
	c.c = New(Config{
		State: c.state,
		Propose: func(ctx context.Context, command []byte) error {
			c.mu.Lock()
			fate, delay := c.fate, c.delay
			c.mu.Unlock()
			switch fate {
			case 1:
				select {
				case <-time.After(delay):
				case <-ctx.Done():
					return ctx.Err()
				}
			case 2:
				return errors.New("no majority")
			case 3:
				if err := c.state.Apply(command); err != nil {
					c.t.Error(err)
				}
				return errors.New("no word from the majority")
			}
			err := c.state.Apply(command)
			if err != nil {
				c.t.Error(err)
			}
			return err
		},
		TopicID:   func(string) ([16]byte, bool) { return [16]byte{1}, true },
		TopicName: func([16]byte) (string, bool) { return "t1", true },
		Settings:  Settings{InitialRebalanceDelay: time.Second, MaxGroupSize: 5, OffsetsRetention: time.Hour},
		Logger:    slog.New(slog.DiscardHandler),
	})
}

func (c *chaos) step() {
	switch roll := c.r.IntN(100); {
	case roll < 15:
		time.Sleep(time.Duration(c.r.IntN(4000)) * time.Millisecond)
	case roll < 17:
		c.mu.Lock()
		c.fate, c.delay = max(0, c.r.IntN(8)-4), time.Duration(c.r.IntN(7000))*time.Millisecond
		c.mu.Unlock()
	case roll < 18:
		c.cancel()
		c.pending.Wait()
		c.ctx, c.cancel = context.WithCancel(context.Background())
	case roll < 19:
		c.c.Close()
		c.pending.Wait()
		state, err := RestoreState(c.state.Snapshot())
		if err != nil {
			c.t.Fatal(err)
		}
		c.state = state
		c.lead()
	default:
		c.request()
	}
}

func (c *chaos) request() {
	c.mu.Lock()
	who := identity{group: fmt.Sprintf("g%d", c.r.IntN(2)), generation: -1}
	if len(c.known) > 0 && c.r.IntN(4) > 0 {
		who = c.known[max(0, len(c.known)-1-c.r.IntN(8))]
	}
	var req kmsg.Request
	switch c.r.IntN(10) {
	case 0, 1, 2, 3:
		join := joinRequest(who.member)
		join.Group, join.InstanceID = who.group, who.instance
		if who.member == "" && c.r.IntN(3) == 0 {
			instance := fmt.Sprintf("i%d", c.r.IntN(2))
			join.InstanceID = &instance
		}
		join.RebalanceTimeoutMillis = int32(c.r.IntN(20_000))
		for _, name := range []string{"sticky", "roundrobin"} {
			if c.r.IntN(2) == 0 {
				join.Protocols = append(join.Protocols, kmsg.JoinGroupRequestProtocol{Name: name, Metadata: []byte{0, byte(c.r.IntN(3))}})
			}
		}
		c.r.Shuffle(len(join.Protocols), func(i, j int) {
			join.Protocols[i], join.Protocols[j] = join.Protocols[j], join.Protocols[i]
		})
		req = join
	case 4, 5, 6:
		sync := kmsg.NewPtrSyncGroupRequest()
		sync.Group, sync.MemberID, sync.InstanceID, sync.Generation = who.group, who.member, who.instance, who.generation
		for _, k := range c.known {
			sync.GroupAssignment = append(sync.GroupAssignment, kmsg.SyncGroupRequestGroupAssignment{MemberID: k.member, MemberAssignment: []byte(k.member)})
		}
		req = sync
	case 7:
		heartbeat := kmsg.NewPtrHeartbeatRequest()
		heartbeat.Group, heartbeat.MemberID, heartbeat.InstanceID, heartbeat.Generation = who.group, who.member, who.instance, who.generation
		req = heartbeat
	case 8:
		commit := commitRequest(who.group, int64(c.r.IntN(100)))
		commit.MemberID, commit.InstanceID, commit.Generation = who.member, who.instance, who.generation
		req = commit
	default:
		if c.r.IntN(3) == 0 {
			del := kmsg.NewPtrDeleteGroupsRequest()
			del.Groups = []string{who.group}
			req = del
			break
		}
		leave := kmsg.NewPtrLeaveGroupRequest()
		leave.Group = who.group
		leave.Members = []kmsg.LeaveGroupRequestMember{{MemberID: who.member, InstanceID: who.instance}}
		req = leave
	}
	version := []int16{3, 9}[c.r.IntN(2)]
	c.mu.Unlock()
	travels, _ := Version(req.Key())
	req.SetVersion(travels)
	coordinator, ctx := c.c, c.ctx
	c.pending.Go(func() {
		resp, err := coordinator.Handle(ctx, Client{ID: "c", Version: version}, req)
		if err != nil && ctx.Err() == nil && !errors.Is(err, ErrNotLeader) {
			c.t.Error(err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		switch r := resp.(type) {
		case *kmsg.JoinGroupResponse:
			if r.ErrorCode == 0 || r.ErrorCode == kerr.MemberIDRequired.Code {
				join := req.(*kmsg.JoinGroupRequest)
				c.known = append(c.known, identity{join.Group, r.MemberID, join.InstanceID, r.Generation})
			}
			if r.ErrorCode == 0 && (r.LeaderID == "" || *r.Protocol == "" || len(r.Members) > 0 && r.LeaderID != r.MemberID) {
				c.t.Errorf("joined as %+v", r)
			}
		case *kmsg.SyncGroupResponse:
			sync := req.(*kmsg.SyncGroupRequest)
			if got := string(r.MemberAssignment); r.ErrorCode == 0 && got != "" && got != sync.MemberID && sync.InstanceID == nil {
				c.t.Errorf("member %s got what %s was assigned", sync.MemberID, got)
			}
		}
	})
}

// check compares what must fit together.
func (c *chaos) check() {
	total := 0
	for _, id := range c.c.live() {
		g := c.c.lockGroup(id, false)
		if g == nil {
			continue
		}
		total += c.checkGroup(g)
		g.mu.Unlock()
	}
	if got := c.c.bytes.Load(); got != int64(total) {
		c.t.Fatalf("%d bytes are accounted for, the groups have %d", got, total)
	}
}

func (c *chaos) checkGroup(g *group) int {
	bytes := 0
	for id := range g.pending {
		bytes += groups.CostMember + len(id)
		if g.byID[id] != nil {
			c.t.Errorf("group %s: member %s is expected", g.id, id)
		}
	}
	statics := 0
	for _, m := range g.members {
		bytes += m.cost()
		if g.byID[m.id] != m {
			c.t.Errorf("group %s: %s is not found", g.id, m.id)
		}
		if m.instance != nil {
			if statics++; g.instances[*m.instance] != m {
				c.t.Errorf("group %s: %s is not found by its instance", g.id, m.id)
			}
		}
		if m.join == nil && m.sync == nil && time.Now().After(m.deadline) {
			c.t.Errorf("group %s: %s neither waits nor ends", g.id, m.id)
		}
		if m.join != nil && g.state == completing || m.sync != nil && g.state != completing {
			c.t.Errorf("group %s: %s waits for nothing in %s", g.id, m.id, g.state)
		}
		if g.state >= completing && !m.supports(g.protocol) {
			c.t.Errorf("group %s: %s does not know %s", g.id, m.id, g.protocol)
		}
	}
	if len(g.byID) != len(g.members) || len(g.instances) != statics {
		c.t.Errorf("group %s: %d members, %d by id, %d of %d by instance", g.id, len(g.members), len(g.byID), len(g.instances), statics)
	}
	for id := range g.unsynced {
		if g.byID[id] == nil || g.state < completing {
			c.t.Errorf("group %s: %s is waited for in %s", g.id, id, g.state)
		}
	}
	if g.byID[g.leader] == nil && len(g.members) > 0 {
		c.t.Errorf("group %s: the leader %q is no member", g.id, g.leader)
	}
	if (g.state == empty || g.state >= completing) && (g.state == empty) != (len(g.members) == 0) {
		c.t.Errorf("group %s: %d members in %s", g.id, len(g.members), g.state)
	}
	if bytes != g.bytes {
		c.t.Errorf("group %s: %d bytes are accounted for, it has %d", g.id, g.bytes, bytes)
	}
	if g.state == stable && !g.writing {
		c.checkReplicated(g)
	}
	return bytes
}

// checkReplicated: what members of a stable group were told is what the next
// coordinator will know. A static member that returned may have been told that it
// failed.
func (c *chaos) checkReplicated(g *group) {
	meta, _ := c.state.lookUp(g.id)
	if meta == nil || meta.Generation != g.generation || meta.Protocol != g.protocol {
		c.t.Errorf("group %s is in generation %d, replicated is %+v", g.id, g.generation, meta)
		return
	}
	for _, m := range g.members {
		if m.instance == nil && !slices.ContainsFunc(meta.Members, func(r groups.Member) bool {
			return r.ID == m.id && string(r.Assignment) == string(m.assignment)
		}) {
			c.t.Errorf("group %s: member %s with %q is not replicated: %+v", g.id, m.id, m.assignment, meta.Members)
		}
	}
}

// end waits until all sessions are over.
func (c *chaos) end() {
	c.mu.Lock()
	c.fate = 0
	c.mu.Unlock()
	time.Sleep(30 * time.Minute)
	c.pending.Wait()
	synctest.Wait()
	if live, bytes := c.c.live(), c.c.bytes.Load(); len(live) != 0 || bytes != 0 {
		c.t.Errorf("%v and %d bytes are left", live, bytes)
	}
	for _, id := range c.state.ids() {
		if meta, _ := c.state.lookUp(id); meta != nil && len(meta.Members) > 0 {
			c.t.Errorf("group %s has members: %+v", id, meta)
		}
	}
	time.Sleep(2 * time.Hour)
	synctest.Wait()
	if ids := c.state.ids(); len(ids) != 0 {
		c.t.Errorf("groups %q are left", ids)
	}
	c.cancel()
	c.c.Close()
}
