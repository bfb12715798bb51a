package coordinator

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// shard is a State with the topics t1 and t2 and a coordinator that replicates to
// nobody else.
func shard(t *testing.T, settings Settings) (*Coordinator, *State) {
	t.Helper()
	state := NewState()
	return lead(t, state, settings), state
}

func lead(t *testing.T, state *State, settings Settings) *Coordinator {
	t.Helper()
	topics := map[string][16]byte{"t1": {1}, "t2": {2}}
	c := New(Config{
		State:   state,
		Propose: func(_ context.Context, command []byte) error { return state.Apply(command) },
		TopicID: func(name string) ([16]byte, bool) { id, ok := topics[name]; return id, ok },
		TopicName: func(id [16]byte) (string, bool) {
			for name, i := range topics {
				if i == id {
					return name, true
				}
			}
			return "", false
		},
		Settings: settings,
		Logger:   slog.New(slog.DiscardHandler),
	})
	t.Cleanup(c.Close)
	return c
}

// ask is Handle with the request and the response encoded in between, as they are
// between nodes.
func ask[T kmsg.Response](t *testing.T, c *Coordinator, version int16, req kmsg.Request) T {
	t.Helper()
	travels, ok := Version(req.Key())
	if !ok {
		t.Fatalf("%T has no version", req)
	}
	req.SetVersion(travels)
	sent := kmsg.RequestForKey(req.Key())
	sent.SetVersion(travels)
	if err := sent.ReadFrom(req.AppendTo(nil)); err != nil {
		t.Fatal(err)
	}
	resp, err := c.Handle(t.Context(), Client{ID: "client", Host: "/127.0.0.1", Version: version}, sent)
	if err != nil {
		t.Fatal(err)
	}
	if resp.GetVersion() != travels {
		t.Fatalf("%T of version %d, want %d", resp, resp.GetVersion(), travels)
	}
	received := req.ResponseKind()
	if err := received.ReadFrom(resp.AppendTo(nil)); err != nil {
		t.Fatal(err)
	}
	return received.(T)
}

func joinRequest(member string) *kmsg.JoinGroupRequest {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Group, req.MemberID, req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = "g", member, 10_000, 60_000
	req.ProtocolType = "consumer"
	p := kmsg.NewJoinGroupRequestProtocol()
	p.Name, p.Metadata = "range", subscription("t1")
	req.Protocols = append(req.Protocols, p)
	return req
}

func subscription(topics ...string) []byte {
	m := kmsg.NewConsumerMemberMetadata()
	m.Topics = topics
	return m.AppendTo(nil)
}

// TestOneMember goes once through the life of a group of one.
func TestOneMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := shard(t, DefaultSettings())
		first := ask[*kmsg.JoinGroupResponse](t, c, 9, joinRequest(""))
		if first.ErrorCode != 79 || first.MemberID == "" {
			t.Fatalf("got %d for member %q, want MEMBER_ID_REQUIRED and an id", first.ErrorCode, first.MemberID)
		}
		began := time.Now()
		j := ask[*kmsg.JoinGroupResponse](t, c, 9, joinRequest(first.MemberID))
		if j.ErrorCode != 0 || j.Generation != 1 || j.LeaderID != first.MemberID || len(j.Members) != 1 || *j.Protocol != "range" {
			t.Fatalf("joined as %+v", j)
		}
		if waited := time.Since(began); waited != 3*time.Second {
			t.Errorf("waited %s for others, want 3s", waited)
		}
		syncReq := kmsg.NewPtrSyncGroupRequest()
		syncReq.Group, syncReq.Generation, syncReq.MemberID = "g", 1, first.MemberID
		syncReq.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: first.MemberID, MemberAssignment: []byte("all")}}
		if s := ask[*kmsg.SyncGroupResponse](t, c, 5, syncReq); s.ErrorCode != 0 || string(s.MemberAssignment) != "all" {
			t.Fatalf("got %d and %q", s.ErrorCode, s.MemberAssignment)
		}
		commit := kmsg.NewPtrOffsetCommitRequest()
		commit.Group, commit.Generation, commit.MemberID = "g", 1, first.MemberID
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset = 3, 42
		commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t1", Partitions: []kmsg.OffsetCommitRequestTopicPartition{p}}}
		if r := ask[*kmsg.OffsetCommitResponse](t, c, 9, commit); r.Topics[0].Partitions[0].ErrorCode != 0 {
			t.Fatalf("commit: %+v", r)
		}
		fetch := kmsg.NewPtrOffsetFetchRequest()
		fetch.Groups = []kmsg.OffsetFetchRequestGroup{{Group: "g", MemberEpoch: -1}}
		if r := ask[*kmsg.OffsetFetchResponse](t, c, 9, fetch); len(r.Groups[0].Topics) != 1 || r.Groups[0].Topics[0].Partitions[0].Offset != 42 {
			t.Fatalf("fetch: %+v", r)
		}
		leave := kmsg.NewPtrLeaveGroupRequest()
		leave.Group = "g"
		leave.Members = []kmsg.LeaveGroupRequestMember{{MemberID: first.MemberID}}
		if r := ask[*kmsg.LeaveGroupResponse](t, c, 5, leave); r.ErrorCode != 0 || r.Members[0].ErrorCode != 0 {
			t.Fatalf("leave: %+v", r)
		}
		synctest.Wait() // the group answers before it ends
		if n := len(c.live()); n != 0 {
			t.Errorf("%d groups are in memory, want none", n)
		}
		if n := c.bytes.Load(); n != 0 {
			t.Errorf("%d bytes are accounted for, want none", n)
		}
	})
}
