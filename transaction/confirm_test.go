package transaction

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
)

// An answer for which nothing was replicated is of somebody who may have been deposed meanwhile: it
// goes out only once that is known not to be so. One for which something was is confirmed by that.
func TestWhatIsNotReplicatedIsConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state, confirmed, deposed := NewState(), 0, false
		c := New(Config{
			State:   state,
			Propose: func(_ context.Context, command []byte) error { return state.Apply(command) },
			Confirm: func(context.Context) error {
				confirmed++
				if deposed {
					return fmt.Errorf("term 2: %w", coordinator.ErrNotLeader)
				}
				return nil
			},
			NewProducerID: func(context.Context) (int64, error) { return 7, nil },
			TopicID:       func(string) ([16]byte, bool) { return [16]byte{1}, true },
			TopicName:     func([16]byte) (string, bool) { return "t", true },
			WriteMarker:   func(context.Context, fsm.PartitionID, fsm.Marker) (bool, error) { return false, nil },
			EndOffsets:    func(context.Context, string, fsm.Marker) error { return nil },
			Version:       func() int { return 2 },
		})
		defer c.Close()
		id := "x"
		init := kmsg.NewPtrInitProducerIDRequest()
		init.Version, init.TransactionalID, init.TransactionTimeoutMillis = 5, &id, 20_000
		join := func(epoch int16, add bool) kmsg.Request {
			return JoinPartition(fsm.Transaction{ID: id, Add: add}, 7, epoch, fsm.PartitionID{Topic: fsm.TopicID{1}}, 0)
		}
		end := func(epoch int16) kmsg.Request {
			req := kmsg.NewPtrEndTxnRequest()
			req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = 5, id, 7, epoch, true
			return req
		}
		describe := kmsg.NewPtrDescribeTransactionsRequest()
		describe.TransactionalIDs = []string{id}
		for _, step := range []struct {
			what      string
			req       kmsg.Request
			confirmed int
		}{
			{"a producer begins", init, 0},
			{"a partition is added", join(0, true), 0},
			{"it is there already", join(0, true), 1},
			{"it is verified", join(0, false), 1},
			{"of another epoch", join(1, true), 1},
			{"the end", end(0), 0},
			{"the end once more", end(0), 1},
			{"an end without a transaction", end(1), 1},
			{"describe", describe, 1},
			{"list", kmsg.NewPtrListTransactionsRequest(), 1},
		} {
			for _, deposed = range []bool{true, false} {
				if deposed && step.confirmed == 0 {
					continue // it would be done twice
				}
				confirmed = 0
				_, err := c.Handle(t.Context(), Client{Version: 5}, step.req)
				if (err != nil) != deposed || confirmed != step.confirmed {
					t.Errorf("%s, deposed: %v: confirmed %d times, want %d; error %v", step.what, deposed, confirmed, step.confirmed, err)
				}
			}
			synctest.Wait()
		}
	})
}

// That a partition stands for the next transaction is confirmed: for that nothing is replicated.
func TestWhatBeginsAheadIsConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state, confirmed, commands := NewState(), 0, 0
		var deposed error
		c := New(Config{
			State:         state,
			Propose:       func(_ context.Context, command []byte) error { commands++; return state.Apply(command) },
			Confirm:       func(context.Context) error { confirmed++; return deposed },
			NewProducerID: func(context.Context) (int64, error) { return 7, nil },
			TopicID:       func(string) ([16]byte, bool) { return [16]byte{1}, true },
			TopicName:     func([16]byte) (string, bool) { return "t", true },
			WriteMarker:   func(context.Context, fsm.PartitionID, fsm.Marker) (bool, error) { return false, nil },
			EndOffsets:    func(context.Context, string, fsm.Marker) error { return nil },
			Version:       func() int { return 2 },
			Ahead:         func() bool { return true },
		})
		defer c.Close()
		id := "x"
		init := kmsg.NewPtrInitProducerIDRequest()
		init.Version, init.TransactionalID, init.TransactionTimeoutMillis = 5, &id, 20_000
		end := kmsg.NewPtrEndTxnRequest()
		end.Version, end.TransactionalID, end.ProducerID, end.Commit = 5, id, 7, true
		join := func(epoch int16, ended int32) kmsg.Request {
			return JoinPartition(fsm.Transaction{ID: id, Add: true}, 7, epoch, fsm.PartitionID{Topic: fsm.TopicID{1}}, ended)
		}
		for _, req := range []kmsg.Request{init, join(0, 0), end} {
			if _, err := c.Handle(t.Context(), Client{Version: 5}, req); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		for _, deposed = range []error{fmt.Errorf("term 2: %w", coordinator.ErrNotLeader), nil} {
			confirmed, commands = 0, 0
			resp, err := c.Handle(t.Context(), Leader(), join(1, 1))
			if (err != nil) != (deposed != nil) || err == nil && Joined(resp) != nil || confirmed != 1 || commands != 0 {
				t.Errorf("deposed %v: %v, confirmed %d times with %d commands", deposed, err, confirmed, commands)
			}
		}
	})
}

// Close waits for nobody who waits for a majority: it may not come.
func TestConfirmEndsWithTheCoordinator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{
			State: NewState(),
			Confirm: func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			},
			TopicName: func([16]byte) (string, bool) { return "t", true },
			Version:   func() int { return 2 },
		})
		answered := make(chan error, 1)
		go func() {
			_, err := c.Handle(t.Context(), Client{}, kmsg.NewPtrListTransactionsRequest())
			answered <- err
		}()
		synctest.Wait()
		c.Close()
		if err := <-answered; !errors.Is(err, coordinator.ErrNotLeader) {
			t.Errorf("the request that waited ends with %v", err)
		}
	})
}
