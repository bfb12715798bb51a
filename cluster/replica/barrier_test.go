package replica

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/fsm"
)

// While Raft hands leadership over it refuses barriers at once. A new leader's waits until that has
// failed, or until the leader is ended.
func TestABarrierWaitsWhileLeadershipIsHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(time.Minute) }) // Raft's questions end by then
		s := newTestSet(t, nil)
		r := s.led(s.topic("a", nil))
		g := r.Member.Raft
		// The other one has no vote that would be missed, and does not answer that it takes over.
		other, silent := raft.NewInmemTransport("n2.bbbbbbbb")
		r.Member.Transport.(aloneTransport).Connect(other, silent)
		if err := g.AddNonvoter(raft.ServerID(other), other, 0, 0).Error(); err != nil {
			t.Fatal(err)
		}
		handOver := func() raft.Future {
			t.Helper()
			f := g.LeadershipTransferToServer(raft.ServerID(other), other)
			synctest.Wait()
			if err := g.Barrier(0).Error(); !errors.Is(err, raft.ErrLeadershipTransferInProgress) {
				t.Fatalf("a barrier while leadership is handed over: %v", err)
			}
			return f
		}
		l := newLeadership(r.Replica, fsm.Term(g.CurrentTerm()))

		transfer := handOver()
		began := time.Now()
		if !l.barrier() {
			t.Errorf("the barrier did not wait, after %v", time.Since(began))
		}
		if err := transfer.Error(); err == nil {
			t.Error("leadership was handed over to nobody")
		}

		transfer = handOver()
		began = time.Now()
		passed := make(chan bool, 1)
		go func() { passed <- l.barrier() }()
		synctest.Wait()
		l.fail()
		if <-passed || time.Since(began) > 0 {
			t.Errorf("a leader that was ended after %v", time.Since(began))
		}
		_ = transfer.Error()
	})
}
