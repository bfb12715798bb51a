package coordinator

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A coordinator whose process stood still, with all that its members had to say in its sockets,
// gives them a session from then on. Who says nothing then goes.
func TestSessionsBeginAnewWhenTheProcessStoodStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var awake atomic.Int64 // ns since 1970
		state := NewState()
		c := New(Config{
			State:     state,
			Propose:   func(_ context.Context, command []byte) error { return state.Apply(command) },
			TopicID:   func(string) ([16]byte, bool) { return [16]byte{1}, true },
			TopicName: func([16]byte) (string, bool) { return "t1", true },
			Awake:     func() time.Time { return time.Unix(0, awake.Load()) },
			Settings:  Settings{},
			Logger:    slog.New(slog.DiscardHandler),
		})
		defer c.Close()
		id := ask[*kmsg.JoinGroupResponse](t, c, 9, joinRequest("")).MemberID
		if j := ask[*kmsg.JoinGroupResponse](t, c, 9, joinRequest(id)); j.ErrorCode != 0 {
			t.Fatal(j.ErrorCode)
		}
		sync := kmsg.NewPtrSyncGroupRequest()
		sync.Group, sync.Generation, sync.MemberID = "g", 1, id
		if s := ask[*kmsg.SyncGroupResponse](t, c, 5, sync); s.ErrorCode != 0 {
			t.Fatal(s.ErrorCode)
		}
		beat := func() int16 {
			req := kmsg.NewPtrHeartbeatRequest()
			req.Group, req.Generation, req.MemberID = "g", 1, id
			return ask[*kmsg.HeartbeatResponse](t, c, 4, req).ErrorCode
		}
		// It stands still from now on, for longer than the session of 10 s; its timers fire when it
		// goes on.
		time.Sleep(10*time.Second - time.Millisecond)
		awake.Store(time.Now().Add(time.Millisecond).UnixNano())
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if code := beat(); code != 0 {
			t.Fatalf("a heartbeat after the pause: %d", code)
		}
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		if code := beat(); code != 25 {
			t.Errorf("a heartbeat after a session of silence: %d, want UNKNOWN_MEMBER_ID", code)
		}
		// A wait for members to join begins anew, too.
		id = ask[*kmsg.JoinGroupResponse](t, c, 9, joinRequest("")).MemberID
		time.Sleep(9 * time.Second)
		awake.Store(time.Now().UnixNano())
		time.Sleep(9 * time.Second)
		if j := ask[*kmsg.JoinGroupResponse](t, c, 9, joinRequest(id)); j.ErrorCode != 0 {
			t.Errorf("a member that was told its id before the pause: %d", j.ErrorCode)
		}
	})
}
