package transaction

import (
	"testing"
	"testing/synctest"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/fsm/transactions"
)

// A topic was deleted and created again, and the coordinator's node knows the old one still. The
// leader of a partition of the new one joins the transaction: it is the new one's partition that is
// in it, and that one alone. So it gets the marker.
func TestLeaderOfATopicCreatedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLarge(NewState()) // knows {1} as the topic
		defer l.c.Close()
		id := l.init(t, "x")
		if err := l.add(t, "x", id, 0); err != nil { // as a client names it
			t.Fatal(err)
		}
		ask := func(add bool) error {
			p := fsm.PartitionID{Topic: fsm.TopicID{2}, Partition: 0}
			resp, err := l.c.Handle(t.Context(), Leader(), JoinPartition(fsm.Transaction{ID: "x", Add: add}, id.producerID, id.epoch, p, 0))
			if err != nil {
				t.Fatal(err)
			}
			return Joined(resp)
		}
		if err := ask(false); err == nil {
			t.Error("another topic's partition passes for the new one's")
		}
		if err := ask(true); err != nil {
			t.Error(err)
		}
		if err := ask(false); err != nil {
			t.Error(err)
		}
		want := transactions.Scope{Partitions: []fsm.PartitionID{{Topic: fsm.TopicID{1}}, {Topic: fsm.TopicID{2}}}}
		if missing, n, _ := l.state.missing("x", want); len(missing.Partitions) > 0 || n != 2 {
			t.Errorf("%+v is not in the transaction, of %d partitions", missing, n)
		}
		if _, code := l.end(t, "x", id); kerr.ErrorForCode(code) != nil {
			t.Error(kerr.ErrorForCode(code))
		}
		synctest.Wait()
	})
}
