package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm/groups"
)

// TestHostileMembersAreBounded sends what no client of good will sends.
func TestHostileMembersAreBounded(t *testing.T) {
	settings := DefaultSettings()
	settings.InitialRebalanceDelay = 0
	for _, c := range []struct {
		name   string
		change func(*kmsg.JoinGroupRequest)
		want   *kerr.Error
	}{
		{"nothing special", func(*kmsg.JoinGroupRequest) {}, kerr.MemberIDRequired},
		{"group id", func(r *kmsg.JoinGroupRequest) { r.Group = strings.Repeat("g", groups.MaxGroupID+1) }, kerr.InvalidGroupID},
		{"instance id", func(r *kmsg.JoinGroupRequest) {
			id := strings.Repeat("i", groups.MaxInstanceID+1)
			r.InstanceID = &id
		}, kerr.InvalidRequest},
		{"protocol type", func(r *kmsg.JoinGroupRequest) { r.ProtocolType = strings.Repeat("t", groups.MaxName+1) }, kerr.InvalidRequest},
		{"protocol's name", func(r *kmsg.JoinGroupRequest) { r.Protocols[0].Name = strings.Repeat("p", groups.MaxName+1) }, kerr.InvalidRequest},
		{"protocols", func(r *kmsg.JoinGroupRequest) {
			for range MaxProtocols {
				r.Protocols = append(r.Protocols, r.Protocols[0])
			}
		}, kerr.InvalidRequest},
		{"subscription", func(r *kmsg.JoinGroupRequest) { r.Protocols[0].Metadata = make([]byte, MaxGroupBytes) }, kerr.GroupMaxSizeReached},
	} {
		synctest.Test(t, func(t *testing.T) {
			coordinator, _ := shard(t, settings)
			req := joinRequest("")
			c.change(req)
			if got := ask[*kmsg.JoinGroupResponse](t, coordinator, 9, req); got.ErrorCode != c.want.Code {
				t.Errorf("%s: got %s, want %s", c.name, code(got.ErrorCode), c.want.Message)
			}
		})
	}
}

// TestMemberIDsGivenOutAreBounded: whoever only ever asks for a member id fills its
// group and nothing else, and that for a session.
func TestMemberIDsGivenOutAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := shard(t, Settings{MaxGroupSize: 3})
		for range 3 {
			if got := ask[*kmsg.JoinGroupResponse](t, c, 9, joinRequest("")); got.ErrorCode != kerr.MemberIDRequired.Code {
				t.Fatalf("got %s", code(got.ErrorCode))
			}
		}
		if got := ask[*kmsg.JoinGroupResponse](t, c, 9, joinRequest("")); got.ErrorCode != kerr.GroupMaxSizeReached.Code {
			t.Fatalf("got %s", code(got.ErrorCode))
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if groups, bytes := len(c.live()), c.bytes.Load(); groups != 0 || bytes != 0 {
			t.Errorf("%d groups and %d bytes are left", groups, bytes)
		}
	})
}

// TestGroupsWithMembersAreBounded: a shard with too many of them takes no more, and
// those that are there go on.
func TestGroupsWithMembersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := shard(t, Settings{})
		j := ask[*kmsg.JoinGroupResponse](t, c, 3, joinRequest(""))
		c.mu.Lock()
		for i := range MaxLiveGroups {
			c.groups[fmt.Sprint(i)] = &group{}
		}
		c.mu.Unlock()
		other := joinRequest("")
		other.Group = "other"
		if got := ask[*kmsg.JoinGroupResponse](t, c, 3, other); got.ErrorCode != kerr.GroupMaxSizeReached.Code {
			t.Errorf("another group got %s", code(got.ErrorCode))
		}
		if got := ask[*kmsg.JoinGroupResponse](t, c, 3, joinRequest(j.MemberID)); got.ErrorCode != 0 || got.MemberID != j.MemberID {
			t.Errorf("a member got %s", code(got.ErrorCode))
		}
	})
}

// TestAssignmentIsBounded: an assignment that is too large is refused and the group
// begins again.
func TestAssignmentIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, state := shard(t, Settings{})
		j := ask[*kmsg.JoinGroupResponse](t, c, 3, joinRequest(""))
		req := kmsg.NewPtrSyncGroupRequest()
		req.Group, req.Generation, req.MemberID = "g", j.Generation, j.MemberID
		req.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: j.MemberID, MemberAssignment: make([]byte, MaxGroupBytes)}}
		if got := ask[*kmsg.SyncGroupResponse](t, c, 5, req); got.ErrorCode != kerr.UnknownServerError.Code {
			t.Errorf("got %s", code(got.ErrorCode))
		}
		if len(state.ids()) != 0 {
			t.Error("it was replicated")
		}
		if j = ask[*kmsg.JoinGroupResponse](t, c, 3, joinRequest(j.MemberID)); j.ErrorCode != 0 || j.Generation != 2 {
			t.Errorf("got %s, generation %d", code(j.ErrorCode), j.Generation)
		}
	})
}

// TestClientIDsAreCut: a member id is made of what a client says of itself.
func TestClientIDsAreCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := shard(t, Settings{})
		req := joinRequest("")
		req.Version = 9
		resp, err := c.Handle(t.Context(), Client{ID: strings.Repeat("ü", 30_000)}, req)
		if err != nil {
			t.Fatal(err)
		}
		j := resp.(*kmsg.JoinGroupResponse)
		if j.ErrorCode != 0 || len(j.MemberID) > groups.MaxMemberID {
			t.Fatalf("got %s and a member id of %d bytes", code(j.ErrorCode), len(j.MemberID))
		}
		sync := kmsg.NewPtrSyncGroupRequest()
		sync.Group, sync.Generation, sync.MemberID = "g", 1, j.MemberID
		if got := ask[*kmsg.SyncGroupResponse](t, c, 5, sync); got.ErrorCode != 0 {
			t.Errorf("the member id cannot be replicated: %s", code(got.ErrorCode))
		}
	})
}

func commitRequest(group string, offset int64) *kmsg.OffsetCommitRequest {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Version = group, 9
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Offset = offset
	req.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t1", Partitions: []kmsg.OffsetCommitRequestTopicPartition{p}}}
	return req
}

// TestCommitsOfAGroupStayInOrder: one command of a group is on its way at a time,
// those behind it are joined to one, and other groups do not wait.
func TestCommitsOfAGroupStayInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := NewState()
		var mu sync.Mutex
		hold := make(chan struct{})
		proposed, atOnce, most := 0, 0, 0
		c := New(Config{
			State: state,
			Propose: func(ctx context.Context, command []byte) error {
				alone := NewState()
				if err := alone.Apply(command); err != nil {
					return err
				}
				_, ofG := alone.lookUp("g")
				mu.Lock()
				proposed++
				if ofG {
					atOnce++
					most = max(most, atOnce)
				}
				mu.Unlock()
				if ofG {
					<-hold
					mu.Lock()
					atOnce--
					mu.Unlock()
				}
				return state.Apply(command)
			},
			TopicID:   func(string) ([16]byte, bool) { return [16]byte{1}, true },
			TopicName: func([16]byte) (string, bool) { return "t1", true },
			Logger:    slog.New(slog.DiscardHandler),
		})
		defer c.Close()
		var done sync.WaitGroup
		for offset := range int64(100) {
			done.Go(func() {
				if _, err := c.Handle(t.Context(), Client{}, commitRequest("g", offset)); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		if _, ok := state.offset("g", "t1", [16]byte{1}, 0); ok {
			t.Error("something was committed")
		}
		if _, err := c.Handle(t.Context(), Client{}, commitRequest("other", 1)); err != nil {
			t.Error(err)
		}
		if o, ok := state.offset("other", "t1", [16]byte{1}, 0); !ok || o.Offset != 1 {
			t.Error("another group waited")
		}
		close(hold)
		done.Wait()
		if o, _ := state.offset("g", "t1", [16]byte{1}, 0); o.Offset != 99 {
			t.Errorf("offset %d is committed, want the last", o.Offset)
		}
		if most != 1 || proposed != 3 {
			t.Errorf("%d commands of the group at once and %d in all, want 1 and 3", most, proposed)
		}
	})
}

// TestStateIsBounded: a shard that is full takes no more commits, and what is there
// stays readable.
func TestStateIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, state := shard(t, Settings{})
		ask[*kmsg.OffsetCommitResponse](t, c, 9, commitRequest("g", 1))
		c.maxState = state.size() // full
		if r := ask[*kmsg.OffsetCommitResponse](t, c, 9, commitRequest("h", 1)); r.Topics[0].Partitions[0].ErrorCode != kerr.InvalidCommitOffsetSize.Code {
			t.Errorf("got %s", code(r.Topics[0].Partitions[0].ErrorCode))
		}
		if len(state.ids()) != 1 {
			t.Error("it was committed")
		}
	})
}

// TestCloseEndsEverything closes a coordinator with members in every phase and a
// command on its way. That nothing is left is goleak's and synctest's to say.
func TestCloseEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := NewState()
		c := New(Config{
			State:     state,
			Propose:   func(ctx context.Context, _ []byte) error { <-ctx.Done(); return ctx.Err() },
			TopicID:   func(string) ([16]byte, bool) { return [16]byte{1}, true },
			TopicName: func([16]byte) (string, bool) { return "t1", true },
			Settings:  DefaultSettings(),
			Logger:    slog.New(slog.DiscardHandler),
		})
		var done sync.WaitGroup
		codes := make(chan int16, 10)
		send := func(req kmsg.Request, get func(kmsg.Response) int16) {
			version, _ := Version(req.Key())
			req.SetVersion(version)
			done.Go(func() {
				resp, err := c.Handle(t.Context(), Client{Version: 3}, req)
				if err != nil {
					t.Error(err)
					return
				}
				codes <- get(resp)
			})
			synctest.Wait()
		}
		joinCode := func(r kmsg.Response) int16 { return r.(*kmsg.JoinGroupResponse).ErrorCode }
		waiting := joinRequest("")
		waiting.Group = "waiting"
		syncing := joinRequest("")
		syncing.Group = "syncing"
		var member string
		send(syncing, func(r kmsg.Response) int16 { member = r.(*kmsg.JoinGroupResponse).MemberID; return joinCode(r) })
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := <-codes; got != 0 {
			t.Fatalf("got %s", code(got))
		}
		sync := kmsg.NewPtrSyncGroupRequest()
		sync.Group, sync.Generation, sync.MemberID = "syncing", 1, member
		send(sync, func(r kmsg.Response) int16 { return r.(*kmsg.SyncGroupResponse).ErrorCode })
		send(waiting, joinCode)
		send(commitRequest("committing", 1), func(r kmsg.Response) int16 {
			return r.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode
		})
		c.Close()
		done.Wait()
		for range 3 {
			if got := <-codes; got != kerr.NotCoordinator.Code {
				t.Errorf("got %s, want NOT_COORDINATOR", code(got))
			}
		}
		c.Close() // a second time does nothing
		for key := range int16(100) {
			version, ok := Version(key)
			if !ok {
				continue
			}
			req := kmsg.RequestForKey(key)
			req.SetVersion(version)
			if resp, err := c.Handle(t.Context(), Client{}, req); !errors.Is(err, ErrNotLeader) {
				t.Errorf("%s after Close: %v, %v", kmsg.NameForKey(key), resp, err)
			}
		}
	})
}

// TestOnlyItsOwnRequests: other requests are nobody's business here.
func TestOnlyItsOwnRequests(t *testing.T) {
	c, _ := shard(t, Settings{})
	if resp, err := c.Handle(t.Context(), Client{}, kmsg.NewPtrMetadataRequest()); err == nil {
		t.Errorf("got %+v", resp)
	}
}

// TestShardOf holds the function that decides where groups are: it can never
// change.
func TestShardOf(t *testing.T) {
	for id, want := range map[string]int{"": 5, "g": 6, "my-group": 13} {
		if got := ShardOf(id); got != want {
			t.Errorf("group %q is in shard %d, want %d", id, got, want)
		}
	}
}
