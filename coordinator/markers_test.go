package coordinator

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
)

func ends(t *testing.T, c *Coordinator, group string, producer int64, number int32) {
	t.Helper()
	if err := c.EndOffsets(t.Context(), group, fsm.Marker{ProducerID: producer, Epoch: 1, Number: number, Commit: true}); err != nil {
		t.Error(err)
	}
}

// TestLastMarkersAreBounded: one client ends transactions with ever more groups, of which nothing
// is pending and nothing will be. No more of their markers are remembered than may be, the last
// ones; and others commit offsets as before, in transactions too.
func TestLastMarkersAreBounded(t *testing.T) {
	const most, clients, each = 1000, 20, 500
	synctest.Test(t, func(t *testing.T) {
		c, state := shard(t, Settings{})
		c.maxMarkers, c.maxState = most, 2<<20 // all of them would take more
		c.cfg.Join = func(context.Context, fsm.Transaction, int64, int16, string) error { return nil }
		slow := c.cfg.Propose
		c.cfg.Propose = func(ctx context.Context, b []byte) error {
			time.Sleep(time.Millisecond)
			return slow(ctx, b)
		}
		var all sync.WaitGroup
		atMost := 0
		for client := range clients {
			all.Go(func() {
				for i := range each {
					ends(t, c, fmt.Sprintf("a group with a name of some length, number %d of %d", i, client), int64(client), int32(i+1))
					if client == 0 {
						atMost = max(atMost, state.lastMarkers())
					}
				}
			})
		}
		all.Wait()
		synctest.Wait()
		time.Sleep(time.Second)
		if n := state.lastMarkers(); n > most || n < most/2 || atMost > most+10*clients {
			t.Errorf("%d markers are remembered, %d while they came, want at most %d", n, atMost, most)
		}
		if p := state.producer(fmt.Sprintf("a group with a name of some length, number %d of %d", each-1, 3), 3); !p.Last.Known {
			t.Error("a marker that came last is forgotten")
		}
		if len(c.live()) != 0 {
			t.Errorf("%d groups are in memory", len(c.live()))
		}
		pending := kmsg.NewPtrTxnOffsetCommitRequest()
		pending.Group, pending.ProducerID, pending.TransactionalID, pending.Generation = "g", 77, "id", -1
		pending.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: "t1", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Offset: 1}}}}
		if code := ask[*kmsg.TxnOffsetCommitResponse](t, c, 5, pending).Topics[0].Partitions[0].ErrorCode; code != 0 {
			t.Errorf("another's commit got %v", kerr.ErrorForCode(code))
		}
		time.Sleep(2 * markerRetention)
		if n := state.lastMarkers(); n != 0 || !state.producer("g", 77).Open {
			t.Errorf("%d markers are remembered after a day, pending offsets: %v", n, state.producer("g", 77))
		}
	})
}

// TestAMarkerThatIsForgottenVoidsTheGuard: the marker of a transaction comes while its coordinator
// is asked, and is forgotten before the answer is there. What the client commits is of the
// transaction that is over, and would be pending for ever.
func TestAMarkerThatIsForgottenVoidsTheGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, state := shard(t, Settings{})
		c.maxMarkers = 16
		asked := 0
		c.cfg.Join = func(context.Context, fsm.Transaction, int64, int16, string) error {
			if asked++; asked > 1 {
				return kerr.InvalidTxnState // no outcome: nobody answers
			}
			ends(t, c, "g", 77, 1)
			for i := range 40 {
				ends(t, c, fmt.Sprint("other ", i), int64(i), 1)
			}
			time.Sleep(time.Second)
			if state.producer("g", 77).Known {
				t.Error("the marker is not forgotten: the test does not test")
			}
			return nil
		}
		req := kmsg.NewPtrTxnOffsetCommitRequest()
		req.Group, req.ProducerID, req.TransactionalID, req.Generation = "g", 77, "id", -1
		req.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: "t1", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Offset: 1}}}}
		code := ask[*kmsg.TxnOffsetCommitResponse](t, c, 5, req).Topics[0].Partitions[0].ErrorCode
		if code != kerr.CoordinatorNotAvailable.Code || asked != 2 || state.producer("g", 77).Open {
			t.Errorf("got %v after %d questions, pending: %v", kerr.ErrorForCode(code), asked, state.producer("g", 77).Open)
		}
	})
}
