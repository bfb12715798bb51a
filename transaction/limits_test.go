package transaction

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/fsm/transactions"
	"github.com/trimaran-io/trimaran/outcome"
)

// large is a coordinator whose log and partitions take their time.
type large struct {
	state             *State
	c                 *Coordinator
	nextID            atomic.Int64
	commands, bytes   atomic.Int64
	markers, together atomic.Int64 // markers that were written, and that are on their way
	mostTogether      atomic.Int64
	unreachable       atomic.Bool // partition 0 of the topic: whoever writes to it waits in vain
}

func newLarge(state *State) *large {
	l := &large{state: state}
	l.c = New(Config{
		State: state,
		Propose: func(ctx context.Context, command []byte) error {
			l.commands.Add(1)
			l.bytes.Add(int64(len(command)))
			time.Sleep(2 * time.Millisecond)
			return state.Apply(command)
		},
		NewProducerID: func(context.Context) (int64, error) { return l.nextID.Add(1), nil },
		TopicID:       func(string) ([16]byte, bool) { return [16]byte{1}, true },
		TopicName:     func([16]byte) (string, bool) { return "t", true },
		WriteMarker: func(ctx context.Context, p fsm.PartitionID, m fsm.Marker) (bool, error) {
			n := l.together.Add(1)
			defer l.together.Add(-1)
			for most := l.mostTogether.Load(); n > most && !l.mostTogether.CompareAndSwap(most, n); most = l.mostTogether.Load() {
			}
			if p.Partition == 0 && l.unreachable.Load() {
				<-ctx.Done()
				return false, outcome.ErrNoLeader
			}
			time.Sleep(2 * time.Millisecond)
			l.markers.Add(1)
			return false, nil
		},
		EndOffsets: func(context.Context, string, fsm.Marker) error { return nil },
		Version:    func() int { return 2 },
		Logger:     slog.New(slog.DiscardHandler),
	})
	return l
}

func (l *large) init(t *testing.T, id string) identity {
	t.Helper()
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis, req.ProducerID, req.ProducerEpoch = &id, 60_000, -1, -1
	resp, err := l.c.Handle(t.Context(), Client{Version: 5}, req)
	if err != nil || resp.(*kmsg.InitProducerIDResponse).ErrorCode != 0 {
		t.Fatalf("%+v, %v", resp, err)
	}
	r := resp.(*kmsg.InitProducerIDResponse)
	return identity{r.ProducerID, r.ProducerEpoch}
}

func (l *large) add(t *testing.T, id string, from identity, partition int32) error {
	resp, err := l.c.Handle(t.Context(), Leader(), join(fsm.Transaction{ID: id, Add: true}, from.producerID, from.epoch, "t", partition))
	if err != nil {
		return err
	}
	return Joined(resp)
}

func (l *large) end(t *testing.T, id string, from identity) (identity, int16) {
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = id, from.producerID, from.epoch, true
	resp, err := l.c.Handle(t.Context(), Client{Version: 5}, req)
	if err != nil {
		t.Error(err)
		return none, -1
	}
	r := resp.(*kmsg.EndTxnResponse)
	return identity{r.ProducerID, r.ProducerEpoch}, r.ErrorCode
}

// TestTenThousandPartitions: as many leaders at once ask to be in one transaction. Their requests
// share commands, no command repeats what is there already, and so many markers are written a few
// at a time.
func TestTenThousandPartitions(t *testing.T) {
	const partitions = 10_000
	synctest.Test(t, func(t *testing.T) {
		l := newLarge(NewState())
		defer l.c.Close()
		id := l.init(t, "x")
		var all sync.WaitGroup
		for p := range int32(partitions) {
			all.Go(func() {
				if err := l.add(t, "x", id, p); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n, b := l.commands.Load(), l.bytes.Load(); n > 100 || b > 10*partitions {
			t.Errorf("%d partitions took %d commands and %d bytes", partitions, n, b)
		}
		if _, code := l.end(t, "x", id); code != 0 {
			t.Error(kerr.ErrorForCode(code))
		}
		before := time.Now()
		// the next transaction waits for the last
		if err := l.add(t, "x", identity{id.producerID, id.epoch + 1}, 1); err != nil {
			t.Error(err)
		}
		if took := time.Since(before); l.markers.Load() != partitions || l.mostTogether.Load() > markerWorkers || took > time.Second {
			t.Errorf("%d markers, %d together, after %s", l.markers.Load(), l.mostTogether.Load(), took)
		}
	})
}

// TestNobodyWaitsForAnUnreachablePartition: a thousand transactions end while one partition, in
// which half of them are, cannot be reached. The others are over as if it did not exist, and those
// of it once it is back.
func TestNobodyWaitsForAnUnreachablePartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLarge(NewState())
		defer l.c.Close()
		l.unreachable.Store(true)
		var all sync.WaitGroup
		for i := range 1000 {
			all.Go(func() {
				id := fmt.Sprint("id ", i)
				from := l.init(t, id)
				for _, partition := range []int32{int32(i % 2), int32(i + 2)} {
					if err := l.add(t, id, from, partition); err != nil {
						t.Error(err)
					}
				}
				next, code := l.end(t, id, from)
				if code != 0 {
					t.Error(kerr.ErrorForCode(code))
				}
				if i%2 == 0 {
					return
				}
				before := time.Now()
				if err := l.add(t, id, next, int32(i+2)); err != nil || time.Since(before) > time.Second {
					t.Errorf("%v after %s", err, time.Since(before))
				}
			})
		}
		all.Wait()
		// 500 in partition 1, 1000 of their own
		if got := l.markers.Load(); got != 1500 {
			t.Errorf("%d markers were written, want 1500", got)
		}
		time.Sleep(20 * time.Second)
		if n := l.together.Load(); n > 1 {
			t.Errorf("%d markers are on their way to a partition that takes none", n)
		}
		l.unreachable.Store(false)
		time.Sleep(20 * time.Second)
		if n, _ := l.state.Open(); n != 500 || l.markers.Load() != 2000 { // half began another
			t.Errorf("%d transactions are open, %d markers were written", n, l.markers.Load())
		}
	})
}

// TestAHundredThousandIDs: so many ids have a transaction in one shard, within the memory that
// State says they take, and the next coordinator ends those that are open too long.
func TestAHundredThousandIDs(t *testing.T) {
	const ids, late = 100_000, 5_000
	before := heap()
	state := NewState()
	for i := range ids {
		var c transactions.Changes
		id, revision := fmt.Sprint("application-", i), uint64(i+1)
		p := transactions.Producer{ProducerID: int64(i), Previous: int64(i), Next: -1, LastEpoch: -1, Phase: transactions.Ongoing, Number: 1}
		if p.Start = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli(); i >= late {
			p.Timeout = 900_000 // 2000-01-01 is when the time of synctest begins
		}
		c.Set(id, 0, revision, p)
		c.Add(id, revision, transactions.Scope{Partitions: []fsm.PartitionID{{Partition: int32(i)}}})
		if err := state.Apply(transactions.Encode(c)); err != nil {
			t.Fatal(err)
		}
	}
	if size, used := state.size(), int(heap()-before); size > MaxStateBytes || used > size*3/2 {
		t.Errorf("%d ids take %d bytes, the state says %d of at most %d", ids, used, size, MaxStateBytes)
	}
	synctest.Test(t, func(t *testing.T) {
		l := newLarge(state)
		defer l.c.Close()
		time.Sleep(time.Minute)
		if n, _ := state.Open(); n != ids-late || l.markers.Load() != late {
			t.Errorf("%d are open, %d markers were written", n, l.markers.Load())
		}
	})
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestAHundredThousandIdleIDs: ids of which nobody has a transaction open cost what State says, in
// memory and in a snapshot; to list them takes less than an allocation each; where there are too
// many who has one goes on, and who is new is refused; and those that are not used expire.
func TestAHundredThousandIdleIDs(t *testing.T) {
	const ids = 100_000
	before := heap()
	state := NewState()
	// when the time of synctest begins, less what an id lives, and some minutes
	began := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(10*time.Minute - 7*24*time.Hour).UnixMilli()
	for i := range ids {
		var c transactions.Changes
		p := transactions.Producer{
			ProducerID: int64(i), Previous: int64(i), Next: -1, LastEpoch: -1, Number: 1, Timeout: 60_000,
			Phase: transactions.CompleteCommit, Start: began, Updated: began,
		}
		c.Set(fmt.Sprint("application-", i), 0, uint64(i+1), p)
		if err := state.Apply(transactions.Encode(c)); err != nil {
			t.Fatal(err)
		}
	}
	if size, used := state.size(), int(heap()-before); used > size*5/4 || used < size/3 {
		t.Errorf("%d ids take %d bytes, the state says %d", ids, used, size)
	}
	snapshot := state.Snapshot()
	if len(snapshot) > 64*ids {
		t.Errorf("a snapshot of %d bytes", len(snapshot))
	}
	if restored, err := RestoreState(snapshot); err != nil || restored.size() != state.size() {
		t.Errorf("restored: %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		l := newLarge(state)
		defer l.c.Close()
		req := kmsg.NewPtrListTransactionsRequest()
		req.Version = 2
		var listed int
		allocated := testing.AllocsPerRun(1, func() {
			resp, err := l.c.Handle(t.Context(), Client{Version: 2}, req)
			if err != nil {
				t.Fatal(err)
			}
			listed = len(resp.(*kmsg.ListTransactionsResponse).TransactionStates)
		})
		if listed != ids || allocated > ids {
			t.Errorf("%d ids are listed with %.0f allocations", listed, allocated)
		}
		none := "no such id"
		req.TransactionalIDPattern = &none
		if allocated = testing.AllocsPerRun(1, func() { _, _ = l.c.Handle(t.Context(), Client{Version: 2}, req) }); allocated > ids {
			t.Errorf("none is listed with %.0f allocations", allocated)
		}
		// Full is full for those that are new alone.
		l.c.maxState = state.size()
		refused := kmsg.NewPtrInitProducerIDRequest()
		refused.TransactionalID, refused.TransactionTimeoutMillis, refused.ProducerID, refused.ProducerEpoch = kmsg.StringPtr("one more"), 60_000, -1, -1
		if resp, err := l.c.Handle(t.Context(), Client{Version: 5}, refused); err != nil || resp.(*kmsg.InitProducerIDResponse).ErrorCode != kerr.PolicyViolation.Code {
			t.Errorf("%+v, %v", resp, err)
		}
		l.init(t, "application-1")
		time.Sleep(2 * time.Hour)
		if left := state.ids(); len(left) != 1 || left[0] != "application-1" || state.size() > 1000 {
			t.Errorf("%d ids are left, %d bytes", len(left), state.size())
		}
		l.init(t, "one more")
	})
}
