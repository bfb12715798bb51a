package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"sync"
	"testing"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/outcome"
)

// inTransaction makes a batch of a producer's transaction.
func inTransaction(t *testing.T, producer int64, epoch int16, sequence int32) kafkaproto.Batch {
	t.Helper()
	b, be := prototest.Batch("v").Bytes(), binary.BigEndian
	b[22] |= 0x10
	be.PutUint64(b[43:], uint64(producer))
	be.PutUint16(b[51:], uint16(epoch))
	be.PutUint32(b[53:], uint32(sequence))
	be.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	batch, err := kafkaproto.ParseBatch(b)
	if err != nil {
		t.Fatal(err)
	}
	return batch
}

// asked is a coordinator that answers as it is told, in order, the last answer for ever, and
// counts.
type asked struct {
	mu      sync.Mutex // guards the rest
	n       int
	answers []func() error
}

func (a *asked) join(context.Context, fsm.Transaction, int64, int16, fsm.PartitionID, int32) error {
	a.mu.Lock()
	answer := a.answers[min(a.n, len(a.answers)-1)]
	a.n++
	a.mu.Unlock()
	return answer()
}

func (a *asked) times() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.n
}

func yes() error { return nil }

// transactionalSet gives the leader of a partition whose transactions a is asked for.
func transactionalSet(t *testing.T, a *asked) *Records {
	s := newTestSet(t, nil)
	s.host.join = a.join
	s.apply(fsm.CatalogCommand{RegisterNode: &fsm.Node{ID: testNode, Incarnation: "aaaaaaaa", FeatureLevel: fsm.LevelTransactions}})
	s.apply(fsm.CatalogCommand{RaiseFeatureLevel: &fsm.RaiseFeatureLevel{FeatureLevel: fsm.LevelTransactions}})
	return s.led(s.topic("a", nil))
}

func (r *Records) begin(t *testing.T, txn fsm.Transaction, batches ...kafkaproto.Batch) []fsm.Appended {
	t.Helper()
	appended, err := r.AppendInLine(within(t), 0, calls.Place{}, txn, batches)
	if err != nil {
		t.Fatal(err)
	}
	return appended
}

func (r *Records) marks(t *testing.T, m fsm.Marker) outcome.Error {
	t.Helper()
	outcomes, err := r.WriteMarkers(within(t), 0, []fsm.Marker{m})
	if err != nil {
		t.Fatal(err)
	}
	return outcomes[0]
}

var version2 = fsm.Transaction{ID: "t", Add: true}

// The coordinator is asked for a transaction's first batch, and not for those behind it.
func TestTheFirstBatchOfATransactionAsksItsCoordinator(t *testing.T) {
	a := &asked{answers: []func() error{yes}}
	r := transactionalSet(t, a)
	for sequence := range int32(10) {
		if got := r.begin(t, version2, inTransaction(t, 7, 0, sequence))[0]; got.Err != 0 || got.BaseOffset != fsm.Offset(sequence) {
			t.Fatalf("%+v", got)
		}
	}
	if got := r.begin(t, version2, inTransaction(t, 7, 0, 9))[0]; got.BaseOffset != 9 || a.times() != 1 {
		t.Errorf("sent again: %+v; asked %d times", got, a.times())
	}
	m := fsm.Marker{ProducerID: 7, Epoch: 1, Number: 1, Commit: true}
	for range 2 { // it is written once
		if err := r.marks(t, m); err != 0 {
			t.Error(err)
		}
	}
	if _, next := r.Bounds(); next != 11 {
		t.Errorf("the log ends at %d", next)
	}
	if got := r.begin(t, version2, inTransaction(t, 7, 1, 0))[0]; got.BaseOffset != 11 || a.times() != 2 {
		t.Errorf("the next transaction: %+v; asked %d times", got, a.times())
	}
	producers, err := r.ActiveProducers(within(t))
	if err != nil || len(producers) != 1 || producers[0].Ended != 1 || producers[0].Open == nil || *producers[0].Open != 11 {
		t.Errorf("%+v, %v", producers, err)
	}
}

// A marker that comes while the coordinator is asked has it asked again: what it said before may be
// of the transaction that the marker ended. Nothing gets behind its own marker.
func TestAMarkerWhileTheCoordinatorIsAsked(t *testing.T) {
	for name, second := range map[string]error{"the next one is open": nil, "it was the last": outcome.ErrInvalidTxnState} {
		t.Run(name, func(t *testing.T) {
			var r *Records
			a := &asked{answers: []func() error{
				func() error {
					r.marks(t, fsm.Marker{ProducerID: 7, Epoch: 0, Number: 1})
					return nil
				},
				func() error { return second },
			}}
			r = transactionalSet(t, a)
			got := r.begin(t, fsm.Transaction{ID: "t"}, inTransaction(t, 7, 0, 0))[0]
			if got.Err != outcome.Code(second) || a.times() != 2 || (got.BaseOffset < 0) != (second != nil) {
				t.Errorf("%+v; asked %d times", got, a.times())
			}
			if open := r.OpenTransactions(); (open == 0) != (second != nil) {
				t.Errorf("%d are open", open)
			}
		})
	}
}

// What a coordinator refuses is refused for that batch alone, with what producers understand, and
// so is what the line has behind it, since its sequence number does not follow.
func TestWhatACoordinatorRefuses(t *testing.T) {
	for refused, told := range map[error]outcome.Error{
		outcome.ErrInvalidTxnState:          outcome.ErrInvalidTxnState,
		outcome.ErrConcurrentTransactions:   outcome.ErrConcurrentTransactions,
		outcome.ErrProducerFenced:           outcome.ErrInvalidProducerEpoch,
		outcome.ErrInvalidProducerEpoch:     outcome.ErrInvalidProducerEpoch,
		outcome.ErrInvalidProducerIDMapping: outcome.ErrInvalidProducerIDMapping,
		outcome.ErrTransactionAbortable:     outcome.ErrTransactionAbortable,
		outcome.ErrUnknownFate:              outcome.ErrNoLeader,
		errors.New("anything"):              outcome.ErrNoLeader,
	} {
		a := &asked{answers: []func() error{func() error { return refused }, yes}}
		r := transactionalSet(t, a)
		line := calls.Place{Line: 1, Run: 1}
		for number, want := range []outcome.Error{told, outcome.ErrOutOfOrderSequence} {
			line.Number = uint32(number)
			appended, err := r.AppendInLine(within(t), 0, line, fsm.Transaction{ID: "t"}, []kafkaproto.Batch{inTransaction(t, 7, 3, int32(5+number))})
			if err != nil || appended[0].Err != want || appended[0].BaseOffset != -1 {
				t.Fatalf("%v: batch %d: %+v, %v, want %v", refused, number, appended, err, want)
			}
		}
		if got := r.begin(t, fsm.Transaction{ID: "t"}, inTransaction(t, 7, 3, 5), inTransaction(t, 7, 3, 6)); got[0].BaseOffset != 0 || got[1].BaseOffset != 1 {
			t.Errorf("sent again: %+v", got)
		}
	}
}

// Without a transactional id, in a cluster that has no transactions yet, and as a marker that
// clients sent themselves: none of it gets into the log.
func TestWhatIsNoTransaction(t *testing.T) {
	a := &asked{answers: []func() error{yes}}
	r := transactionalSet(t, a)
	if got := r.begin(t, fsm.Transaction{}, inTransaction(t, 7, 0, 0))[0]; got.Err != outcome.ErrInvalidTxnState {
		t.Errorf("without an id: %+v", got)
	}
	marker := kafkaproto.NewMarker(kafkaproto.Marker{Commit: true, CoordinatorEpoch: 1}, 7, 0, 0)
	if _, err := r.AppendInLine(within(t), 0, calls.Place{}, version2, []kafkaproto.Batch{marker}); outcome.Code(err) != outcome.ErrCorruptMessage {
		t.Errorf("a marker as a batch: %v", err)
	}
	if _, err := r.WriteMarkers(within(t), 0, []fsm.Marker{{ProducerID: -1}}); outcome.Code(err) != outcome.ErrCorruptMessage {
		t.Errorf("a marker of nobody: %v", err)
	}
	if _, err := r.WriteMarkers(within(t), 99, []fsm.Marker{{ProducerID: 1, Number: 1}}); outcome.Code(err) != outcome.ErrNotLeader {
		t.Errorf("a marker for another leadership: %v", err)
	}
	if _, next := r.Bounds(); next != 0 || a.times() != 0 {
		t.Errorf("the log ends at %d; asked %d times", next, a.times())
	}

	s := newTestSet(t, nil)
	s.host.join = a.join
	old := s.led(s.topic("a", nil))
	if _, err := old.AppendInLine(within(t), 0, calls.Place{}, version2, []kafkaproto.Batch{inTransaction(t, 7, 0, 0)}); !outcome.NotAppended(err) {
		t.Errorf("below the level of transactions: %v", err)
	}
	if _, err := old.WriteMarkers(within(t), 0, []fsm.Marker{{ProducerID: 1, Number: 1}}); outcome.Code(err) != outcome.ErrFeatureLevel {
		t.Errorf("a marker below the level of transactions: %v", err)
	}
}

// Those who come while the coordinator is asked wait for the same answer.
func TestOneQuestionForAllThatWait(t *testing.T) {
	release := make(chan struct{})
	a := &asked{answers: []func() error{func() error { <-release; return nil }}}
	r := transactionalSet(t, a)
	type result struct {
		appended []fsm.Appended
		err      error
	}
	results := make([]chan result, 5)
	for i := range results {
		results[i] = make(chan result, 1)
		go func() {
			appended, err := r.AppendInLine(within(t), 0, calls.Place{Line: 1, Run: 1, Number: uint32(i)}, version2, []kafkaproto.Batch{inTransaction(t, 7, 0, int32(i))})
			results[i] <- result{appended, err}
		}()
	}
	p, err := r.proposing()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "all of them wait", func() error {
		p.producersMu.Lock()
		defer p.producersMu.Unlock()
		for _, j := range p.joins {
			if j.waiting == len(results)-1 {
				return nil
			}
		}
		return errors.New("not yet")
	})
	close(release)
	for i, c := range results {
		if got := <-c; got.err != nil || got.appended[0].BaseOffset != fsm.Offset(i) {
			t.Errorf("batch %d: %+v, %v", i, got.appended, got.err)
		}
	}
	if a.times() != 1 {
		t.Errorf("asked %d times", a.times())
	}
}

// Whoever asked the coordinator goes, as a client does whose connection breaks, and sends again
// over another one: what waited for the answer asks anew.
func TestWhoAsksGoes(t *testing.T) {
	first, leave := context.WithCancel(t.Context())
	a := &asked{answers: []func() error{func() error { <-first.Done(); return errors.New("gone") }, yes}}
	r := transactionalSet(t, a)
	send := func(ctx context.Context) chan fsm.Appended {
		done := make(chan fsm.Appended, 1)
		go func() {
			appended, err := r.AppendInLine(ctx, 0, calls.Place{}, version2, []kafkaproto.Batch{inTransaction(t, 7, 0, 0)})
			if err != nil {
				appended = []fsm.Appended{{BaseOffset: -1, Err: outcome.Code(err)}}
			}
			done <- appended[0]
		}()
		return done
	}
	p, err := r.proposing()
	if err != nil {
		t.Fatal(err)
	}
	waits := func(n int) {
		eventually(t, "it is asked", func() error {
			p.producersMu.Lock()
			defer p.producersMu.Unlock()
			for _, j := range p.joins {
				if j.waiting == n {
					return nil
				}
			}
			return errors.New("not yet")
		})
	}
	one := send(first)
	waits(0)
	other := send(within(t))
	waits(1)
	leave()
	if got := <-one; got.Err == 0 {
		t.Errorf("who has gone: %+v", got)
	}
	if got := <-other; got.Err != 0 || got.BaseOffset != 0 || a.times() != 2 {
		t.Errorf("who waited: %+v; asked %d times", got, a.times())
	}
}

// A client that begins all the transactions it can, over however many connections, leaves room for
// others (fsm.ProducersAhead).
func TestOneClientLeavesRoomForOthers(t *testing.T) {
	r := transactionalSet(t, &asked{answers: []func() error{yes}})
	producer := int64(0)
	many := func(line uint64) (begun int) {
		const each = 1000
		var batches []kafkaproto.Batch
		for range each {
			producer++
			batches = append(batches, inTransaction(t, producer, 0, 0))
		}
		appended, err := r.AppendInLine(within(t), 0, calls.Place{Line: line, Run: line, Number: 0}, version2, batches)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range appended {
			switch a.Err {
			case 0:
				begun++
			case outcome.ErrConcurrentTransactions:
			default:
				t.Fatal(a.Err)
			}
		}
		return begun
	}
	begun := 0
	for connection := range uint64(8) {
		begun += many(calls.LineOf(3, connection+1))
	}
	if n := fsm.MaxOpenTransactions / 5; begun < n-1001 || begun > n+1 {
		t.Errorf("one client has %d open, want %d", begun, n)
	}
	if n := many(calls.LineOf(4, 1)); n != 1000 {
		t.Errorf("another one could begin %d", n)
	}
}

// A batch of the transaction before is late, and its question is under way when the client, of
// before KIP-890, adds the partition to the next one and sends that one's first batch. The answer
// is not for that: it was asked before the partition was added.
func TestAnAnswerFromBeforeIsNoRefusal(t *testing.T) {
	added := make(chan struct{})
	a := &asked{answers: []func() error{func() error { <-added; return outcome.ErrTransactionAbortable }, yes}}
	r := transactionalSet(t, a)
	version1 := fsm.Transaction{ID: "t"}
	send := func(sequence int32) chan fsm.Appended {
		done := make(chan fsm.Appended, 1)
		go func() {
			appended, err := r.AppendInLine(within(t), 0, calls.Place{}, version1, []kafkaproto.Batch{inTransaction(t, 7, 0, sequence)})
			if err != nil {
				t.Error(err)
				appended = []fsm.Appended{{Err: outcome.Code(err)}}
			}
			done <- appended[0]
		}()
		return done
	}
	p, err := r.proposing()
	if err != nil {
		t.Fatal(err)
	}
	waits := func(n int) {
		eventually(t, "it is asked", func() error {
			p.producersMu.Lock()
			defer p.producersMu.Unlock()
			for _, j := range p.joins {
				if j.waiting == n {
					return nil
				}
			}
			return errors.New("not yet")
		})
	}
	late := send(5)
	waits(0)
	next := send(0)
	waits(1)
	close(added)
	if got := <-late; got.Err != outcome.ErrTransactionAbortable {
		t.Errorf("the late one: %+v", got)
	}
	if got := <-next; got.Err != 0 {
		t.Errorf("the next one's: %+v", got)
	}
}

// The first batch of a transaction comes before the marker of the one before. The coordinator lets
// it wait, and is asked anew once the marker is on its way into the log. A marker that comes again
// says what is open behind it.
func TestTheNextTransactionBeginsRightBehindTheMarker(t *testing.T) {
	r := transactionalSet(t, &asked{answers: []func() error{yes}})
	host := r.env.Host.(*testHost)
	r.begin(t, version2, inTransaction(t, 7, 0, 0))
	questions := make(chan int32, 9)
	host.join = func(ctx context.Context, _ fsm.Transaction, _ int64, epoch int16, _ fsm.PartitionID, ended int32) error {
		questions <- ended
		if ended == int32(epoch) {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	}
	first := fsm.Marker{ProducerID: 7, Epoch: 1, Number: 1, Commit: true}
	appended := make(chan fsm.Appended, 1)
	go func() {
		got, err := r.AppendInLine(within(t), 0, calls.Place{}, version2, []kafkaproto.Batch{inTransaction(t, 7, 1, 0)})
		if err != nil {
			t.Error(err)
			got = []fsm.Appended{{Err: outcome.Code(err)}}
		}
		appended <- got[0]
	}()
	if ended := <-questions; ended != 0 {
		t.Errorf("it is asked with %d before the marker", ended)
	}
	if code := r.marks(t, first); code != 0 && code != outcome.ErrConcurrentTransactions {
		t.Error(code)
	}
	if got := <-appended; got.Err != 0 || got.BaseOffset != 2 {
		t.Errorf("%+v", got)
	}
	if ended := <-questions; ended != 1 {
		t.Errorf("it is asked with %d behind the marker", ended)
	}
	if code := r.marks(t, first); code != outcome.ErrConcurrentTransactions {
		t.Errorf("the marker comes again, and the next one is open: %v", code)
	}
	second := fsm.Marker{ProducerID: 7, Epoch: 2, Number: 2, Commit: true}
	for range 2 {
		if code := r.marks(t, second); code != 0 {
			t.Error(code)
		}
	}
	if code := r.marks(t, first); code != 0 {
		t.Errorf("one of before comes again: %v", code)
	}
}

// Two batches wait for the same answer when the marker comes. Who asks anew behind it is not cut
// short by the other one, which still has the question of before.
func TestTwoWaitWhileTheirCoordinatorIsAskedAndAMarkerComes(t *testing.T) {
	second := make(chan struct{})
	release := make(chan struct{})
	var once sync.Once
	s := newTestSet(t, nil)
	s.host.join = func(ctx context.Context, _ fsm.Transaction, _ int64, _ int16, _ fsm.PartitionID, ended int32) error {
		if ended == 0 {
			<-ctx.Done()
			return ctx.Err()
		}
		once.Do(func() { close(second) })
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.apply(fsm.CatalogCommand{RegisterNode: &fsm.Node{ID: testNode, Incarnation: "aaaaaaaa", FeatureLevel: fsm.LevelTransactions}})
	s.apply(fsm.CatalogCommand{RaiseFeatureLevel: &fsm.RaiseFeatureLevel{FeatureLevel: fsm.LevelTransactions}})
	r := s.led(s.topic("a", nil))
	p, err := r.proposing()
	if err != nil {
		t.Fatal(err)
	}
	const sent = 3
	results := make([]chan fsm.Appended, sent)
	for i := range results {
		results[i] = make(chan fsm.Appended, 1)
		go func() {
			appended, err := r.AppendInLine(within(t), 0, calls.Place{Line: 1, Run: 1, Number: uint32(i)}, version2, []kafkaproto.Batch{inTransaction(t, 7, 1, int32(i))})
			if err != nil {
				appended = []fsm.Appended{{BaseOffset: -1, Err: outcome.Code(err)}}
			}
			results[i] <- appended[0]
		}()
	}
	waiting := func(ended int32, n int) {
		eventually(t, "all of them wait", func() error {
			p.producersMu.Lock()
			defer p.producersMu.Unlock()
			for q, j := range p.joins {
				if q.guard.Ended(0) == ended && j.waiting == n {
					return nil
				}
			}
			return errors.New("not yet")
		})
	}
	waiting(0, sent-1)
	if err := r.marks(t, fsm.Marker{ProducerID: 7, Epoch: 1, Number: 1}); err != 0 {
		t.Fatal(err)
	}
	<-second
	waiting(1, sent-1)
	// An operator's marker that finds nothing to abort leaves the question as well.
	if err := r.marks(t, fsm.Marker{ProducerID: 7, Epoch: 1, Forced: true}); err != 0 {
		t.Fatal(err)
	}
	close(release)
	for i, c := range results {
		if got := <-c; got.Err != 0 || got.BaseOffset != fsm.Offset(1+i) {
			t.Errorf("batch %d: %+v", i, got)
		}
	}
}
