package fsm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// newMarker makes the control batch that ends a transaction.
func newMarker(base Offset, epoch LeaderEpoch, m Marker) []byte {
	b := kafkaproto.NewMarker(kafkaproto.Marker{Commit: m.Commit, CoordinatorEpoch: m.Number}, m.ProducerID, m.Epoch, 0)
	b.Stamp(int64(base), int32(epoch))
	return b.Bytes()
}

// newTransactional makes a batch of a transaction.
func newTransactional(base Offset, records int, epoch LeaderEpoch, producer int64, of int16, sequence int32) []byte {
	b := newBatch(base, records, 100, epoch, 'x')
	b[22] |= 0x10
	fillProducer(b, producer, int(of), int(sequence), 0)
	return b
}

// reader tells of a log what a partition should, by the batches alone.
type reader struct {
	next    Offset
	open    map[int64]Offset
	aborted []AbortedTransaction
}

func (r *reader) stable() Offset {
	stable := r.next
	for _, first := range r.open {
		stable = min(stable, first)
	}
	return stable
}

func (r *reader) read(e Entry) {
	for b, err := range kafkaproto.Batches(e.Data) {
		if err != nil || !IsRecords(e.Data) || !GoodBatch(b, r.next, StampOf(uint64(e.Term), e.Extensions)) {
			return
		}
		h := b.Header()
		r.next = Offset(h.NextOffset())
		first, open := r.open[h.ProducerID]
		if m, err := kafkaproto.ParseMarker(b); err == nil {
			delete(r.open, h.ProducerID)
			if open && !m.Commit {
				r.aborted = append(r.aborted, AbortedTransaction{h.ProducerID, first, Offset(h.BaseOffset), r.stable()})
			}
		} else if h.Transactional() && !h.Control() && Idempotent(h) && !open {
			r.open[h.ProducerID] = Offset(h.BaseOffset)
		}
	}
}

// check compares a partition with what a reader finds.
func (r *reader) check(t *rapid.T, p *PartitionState) {
	if got, want := p.LastStable(), max(p.LogStart(), r.stable()); got != want {
		t.Fatalf("last stable offset %d, the log says %d", got, want)
	}
	if p.OpenTransactions() != len(r.open) {
		t.Fatalf("%d open, the log says %d", p.OpenTransactions(), len(r.open))
	}
	last := Offset(-1)
	for _, o := range p.Open() {
		if r.open[o.ProducerID] != o.First || o.First <= last {
			t.Fatalf("open %+v, the log says %v", p.Open(), r.open)
		}
		last = o.First
	}
	want := slices.DeleteFunc(slices.Clone(r.aborted), func(a AbortedTransaction) bool { return a.Last < p.LogStart() })
	if !slices.Equal(p.Aborted(), want) {
		t.Fatalf("aborted %+v, the log says %+v", p.Aborted(), want)
	}
	if err := p.check(); err != nil {
		t.Fatal(err)
	}
}

// transactional is a partition whose leaders change, producers of transactions in both versions of
// the protocol, and their coordinator, which loses nothing. What is sent to the partition may come
// late, twice or not at all.
type transactional struct {
	t         *rapid.T
	machine   *PartitionState
	log       []Entry
	reader    reader
	term      Term
	index     Index
	next      Offset
	ahead     ProducersAhead
	inFlight  []Entry
	producers []*txnProducer
	pending   []*pendingBatch
	// told are what markers in flight came from: they are acknowledged when they are applied.
	told map[Offset]sentMarker
}

// txnProducer is a producer with its coordinator's state.
type txnProducer struct {
	id       int64
	bumps    bool // version 2: every transaction has an epoch
	epoch    int16
	number   int32
	ongoing  bool
	added    bool // the partition
	ending   bool
	fenced   bool // the coordinator has another epoch than the client
	client   int16
	sequence int32
	sent     []*txnBatch
	markers  []sentMarker // all ever
}

type sentMarker struct {
	producer *txnProducer
	marker   Marker
}

type txnBatch struct {
	producer *txnProducer
	number   int32 // of the transaction
	epoch    int16
	sequence int32
	records  int
	base     Offset // where it is in the log or on its way; -1: nowhere
	acked    bool
	gone     bool // the client gave it up
}

// pendingBatch is on its way between the coordinator's answer and the proposer.
type pendingBatch struct {
	batch     *txnBatch
	admission Admission
	term      Term
}

func (w *transactional) ofNow(p *txnProducer) (all []*txnBatch) {
	for _, b := range p.sent {
		if b.number == p.number && b.epoch == p.client {
			all = append(all, b)
		}
	}
	return all
}

// join is the coordinator's answer.
func (p *txnProducer) join(epoch int16) error {
	switch {
	case epoch != p.epoch:
		return outcome.ErrInvalidProducerEpoch
	case p.ending:
		return outcome.ErrConcurrentTransactions
	case p.bumps:
		p.ongoing, p.added = true, true
	case !p.ongoing || !p.added:
		return outcome.ErrInvalidTxnState
	}
	return nil
}

// produce has the client make its next batch.
func (w *transactional) produce(p *txnProducer) {
	if p.fenced || p.ending {
		return
	}
	if !p.bumps && !p.ongoing {
		p.ongoing, p.added = true, true // AddPartitionsToTxn
	}
	open := 0
	for _, b := range w.ofNow(p) {
		if !b.acked {
			open++
		}
	}
	if open == ProducerBatches {
		return
	}
	b := &txnBatch{producer: p, number: p.number, epoch: p.client, sequence: p.sequence, records: rapid.IntRange(1, 3).Draw(w.t, "records"), base: -1}
	p.sequence += int32(b.records)
	p.sent = append(p.sent, b)
	w.ask(b)
}

// ask is the first half of what a leader does with a batch.
func (w *transactional) ask(b *txnBatch) {
	p := b.producer
	if _, known := w.machine.Producer(p.id); !known && w.ahead.byID[p.id] == nil && !p.bumps && b != p.sent[0] {
		return // the gateway sees to it that what comes first comes first
	}
	h := w.header(b)
	pending := &pendingBatch{batch: b, term: w.term, admission: Admission{Guard: w.ahead.Guard(h, w.machine), Add: p.bumps, Client: uint16(p.id % 2)}}
	if pending.admission.Guard != nil {
		pending.admission.Refused = p.join(b.epoch)
	}
	w.pending = append(w.pending, pending)
}

func (w *transactional) header(b *txnBatch) kafkaproto.BatchHeader {
	h, err := kafkaproto.ParseBatchHeader(newTransactional(0, b.records, 0, b.producer.id, b.epoch, b.sequence))
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

// submit is the second half.
func (w *transactional) submit(i int) {
	pending := w.pending[i]
	w.pending = slices.Delete(w.pending, i, i+1)
	if pending.term != w.term {
		return // its proposer is gone
	}
	b := pending.batch
	v := w.ahead.Take(w.header(b), w.next, pending.admission, w.machine)
	if pending.admission.Guard != nil {
		w.ahead.Release(pending.admission.Guard)
	}
	switch {
	case v.Duplicate:
		if b.base != v.Original.Base {
			w.t.Fatalf("%+v is said to be at %d", b, v.Original.Base)
		}
	case v.Err != nil:
	default:
		if b.base >= 0 {
			w.t.Fatalf("%+v gets a second place at %d", b, w.next)
		}
		b.base = w.next
		w.propose(newTransactional(w.next, b.records, w.term.Epoch(), b.producer.id, b.epoch, b.sequence))
		w.next += Offset(b.records)
	}
}

func (w *transactional) propose(data []byte) {
	w.index++
	w.inFlight = append(w.inFlight, Entry{Index: w.index, Term: w.term, AppendedAt: int64(w.index), Data: data})
}

// end has the coordinator decide.
func (w *transactional) end(p *txnProducer, commit, timeout bool) {
	if !p.ongoing || p.ending {
		return
	}
	unsettled := false
	for _, b := range w.ofNow(p) {
		unsettled = unsettled || !b.acked
	}
	if timeout {
		commit = false
	} else if p.fenced || commit && unsettled {
		return
	}
	p.ending = true
	p.fenced = p.fenced || timeout || unsettled && !p.bumps
	if p.bumps || timeout {
		p.epoch++
	}
	for _, b := range p.sent {
		b.gone = b.gone || !b.acked
	}
	p.markers = append(p.markers, sentMarker{p, Marker{ProducerID: p.id, Epoch: p.epoch, Number: p.number, Commit: commit}})
}

// mark hands a marker to the leader.
func (w *transactional) mark(s sentMarker) {
	number, v := w.ahead.TakeMarker(s.marker, w.machine)
	switch {
	case v.Err != nil:
		if s.producer.ending && s.marker.Number == s.producer.number {
			w.t.Fatalf("the marker %+v of what ends now is refused: %v", s.marker, v.Err)
		}
	case v.Duplicate:
		if len(w.inFlight) == 0 {
			w.ended(s) // else it is told behind what is in flight, and comes again in this test
		}
	default:
		if number != s.marker.Number || !s.producer.ending || number != s.producer.number {
			w.t.Fatalf("marker %+v is taken as %d", s.marker, number)
		}
		w.told[w.next] = s
		w.propose(newMarker(w.next, w.term.Epoch(), s.marker))
		w.next++
	}
}

// ended is that a marker is acknowledged.
func (w *transactional) ended(s sentMarker) {
	p := s.producer
	if !p.ending || s.marker.Number != p.number {
		return
	}
	p.ending, p.ongoing, p.added = false, false, false
	if p.number++; p.number == 0 {
		p.number = 1
	}
	if p.fenced || p.bumps {
		if p.fenced { // it asks for its producer id again
			p.epoch++
		}
		p.sequence, p.fenced = 0, false
	}
	p.client = p.epoch
}

// apply commits the first entry in flight.
func (w *transactional) apply(leads bool) {
	if len(w.inFlight) == 0 {
		return
	}
	e := w.inFlight[0]
	w.inFlight = w.inFlight[1:]
	applied := w.machine.Apply(e)
	if applied.Err != nil || applied.Breach != nil {
		w.t.Fatalf("an honest entry: %v, %v", applied.Err, applied.Breach)
	}
	w.log = append(w.log, e)
	w.reader.read(e)
	w.reader.check(w.t, w.machine)
	h, _ := kafkaproto.ParseBatchHeader(e.Data)
	if !leads {
		return
	}
	w.ahead.Applied(h.ProducerID)
	if s, marks := w.told[Offset(h.BaseOffset)]; marks {
		w.ended(s)
		return
	}
	for _, p := range w.producers {
		for _, b := range p.sent {
			if b.base == Offset(h.BaseOffset) && !b.gone {
				b.acked = true
			}
		}
	}
}

// elect has another leader: some of what was in flight is committed, the rest gone.
func (w *transactional) elect() {
	survive := rapid.IntRange(0, len(w.inFlight)).Draw(w.t, "survive")
	for _, lost := range w.inFlight[survive:] {
		base := Offset(binary.BigEndian.Uint64(lost.Data))
		for _, p := range w.producers {
			for _, b := range p.sent {
				if b.base == base {
					b.base = -1
				}
			}
		}
	}
	w.inFlight = w.inFlight[:survive]
	for len(w.inFlight) > 0 {
		w.apply(false)
	}
	if rapid.Bool().Draw(w.t, "from a snapshot") {
		var err error
		if w.machine, err = RestorePartition(w.machine.Snapshot()); err != nil {
			w.t.Fatal(err)
		}
		w.reader.check(w.t, w.machine)
	}
	w.term++
	w.index += 2
	w.next, w.ahead, w.told = w.machine.NextOffset(), ProducersAhead{}, map[Offset]sentMarker{}
}

// Whatever comes late or twice, and whenever leaders change: every batch in the log is ended by the
// marker of its own transaction, in the way that was decided, and nothing stays open.
func TestTransactionsEndAsDecided(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &transactional{t: t, machine: NewPartition(), term: 1, reader: reader{open: map[int64]Offset{}}, told: map[Offset]sentMarker{}}
		for i := range rapid.IntRange(1, 3).Draw(t, "producers") {
			p := &txnProducer{id: int64(i), bumps: rapid.Bool().Draw(t, "version 2"), number: rapid.SampledFrom([]int32{1, -2}).Draw(t, "number")}
			w.producers = append(w.producers, p)
		}
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			p := rapid.SampledFrom(w.producers).Draw(t, "producer")
			switch rapid.SampledFrom([]string{"produce", "produce", "again", "submit", "submit", "submit", "apply", "apply", "end", "mark", "mark", "late marker", "timeout", "elect"}).Draw(t, "step") {
			case "produce":
				w.produce(p)
			case "again":
				if len(p.sent) > 0 {
					w.ask(rapid.SampledFrom(p.sent).Draw(t, "which"))
				}
			case "submit":
				if len(w.pending) > 0 {
					w.submit(rapid.IntRange(0, len(w.pending)-1).Draw(t, "which"))
				}
			case "apply":
				w.apply(true)
			case "end":
				w.end(p, rapid.Bool().Draw(t, "commit"), false)
			case "timeout":
				w.end(p, false, true)
			case "mark":
				if p.ending {
					w.mark(p.markers[len(p.markers)-1])
				}
			case "late marker":
				if len(p.markers) > 0 {
					w.mark(rapid.SampledFrom(p.markers).Draw(t, "which"))
				}
			case "elect":
				w.elect()
			}
			w.checkCounts()
		}
		// In the end all transactions are ended, and what still comes is refused.
		for len(w.inFlight) > 0 {
			w.apply(true)
		}
		for _, p := range w.producers {
			w.end(p, false, true)
			for p.ending {
				w.mark(p.markers[len(p.markers)-1])
				w.apply(true)
			}
		}
		for len(w.pending) > 0 {
			w.submit(0)
		}
		for len(w.inFlight) > 0 {
			w.apply(true)
		}
		if n := w.machine.OpenTransactions(); n > 0 || w.machine.LastStable() != w.machine.NextOffset() {
			t.Fatalf("%+v stay open", w.machine.Open())
		}
		w.checkCounts()
		if a := &w.ahead; len(a.begun)+len(a.ofClient)+len(a.byID)+a.opening > 0 {
			t.Fatalf("nothing is open, and there are counted %+v of %+v, %d opening", a.begun, a.ofClient, a.opening)
		}
		w.checkLog()
	})
}

// checkCounts says whether the proposer counts what is open since it leads, and whose it is.
func (w *transactional) checkCounts() {
	a := &w.ahead
	clients := map[uint16]int{}
	for _, p := range w.producers {
		s, known := w.machine.Producer(p.id)
		if ahead := a.byID[p.id]; ahead != nil {
			s, known = ahead.state, true
		}
		client, counted := a.begun[p.id]
		if counted && (!known || !s.Open || client != uint16(p.id%2)) {
			w.t.Fatalf("producer %d is counted for client %d, and is %+v", p.id, client, s)
		}
		if counted {
			clients[client]++
		}
	}
	if len(a.begun) != clients[0]+clients[1] || !maps.Equal(a.ofClient, clients) && len(a.ofClient)+len(clients) > 0 {
		w.t.Fatalf("%+v are counted as %+v", a.begun, a.ofClient)
	}
	opening := 0
	for _, p := range a.byID {
		if p.opened {
			opening++
		}
	}
	if a.opening != opening {
		w.t.Fatalf("%d are opening, and %d are counted", opening, a.opening)
	}
	for id, g := range a.guards {
		if g.users < 0 {
			w.t.Fatalf("the guard of producer %d is used %d times", id, g.users)
		}
	}
}

// checkLog finds for each batch in the log the marker that ends it.
func (w *transactional) checkLog() {
	waiting := map[int64][]*txnBatch{}
	at := map[Offset]*txnBatch{}
	for _, p := range w.producers {
		for _, b := range p.sent {
			if b.base >= 0 {
				at[b.base] = b
			}
		}
	}
	found := 0
	for _, e := range w.log {
		batch, err := kafkaproto.ParseBatch(e.Data)
		if err != nil {
			w.t.Fatal(err)
		}
		id := batch.Header().ProducerID
		m, err := kafkaproto.ParseMarker(batch)
		if err != nil {
			b := at[Offset(batch.Header().BaseOffset)]
			if b == nil || b.producer.id != id {
				w.t.Fatalf("at %d is nobody's batch", batch.Header().BaseOffset)
			}
			waiting[id] = append(waiting[id], b)
			found++
			continue
		}
		for _, b := range waiting[id] {
			i := slices.IndexFunc(b.producer.markers, func(s sentMarker) bool { return s.marker.Number == b.number })
			if i < 0 || m.CoordinatorEpoch != b.number || m.Commit != b.producer.markers[i].marker.Commit {
				w.t.Fatalf("%+v is ended by marker %+v", b, m)
			}
		}
		waiting[id] = nil
	}
	if found != len(at) {
		w.t.Fatalf("%d of %d batches are in the log", found, len(at))
	}
}

// Any batches and markers may be in a log: a partition finds what a reader finds, whatever their
// epochs, numbers and sequence numbers, and a restored one what the first does.
func TestTransactionsAreWhatTheLogSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, r := NewPartition(), reader{open: map[int64]Offset{}}
		for i := range Index(rapid.IntRange(1, 100).Draw(t, "entries")) {
			e := Entry{Index: i + 1, Term: 1, AppendedAt: rapid.Int64Range(0, 2*ProducerExpiration).Draw(t, "at")}
			producer, epoch := rapid.Int64Range(-1, 3).Draw(t, "producer"), int16(rapid.IntRange(-1, 2).Draw(t, "epoch"))
			switch rapid.SampledFrom([]string{"batch", "batch", "marker", "plain", "start"}).Draw(t, "kind") {
			case "batch":
				e.Data = newTransactional(p.next, rapid.IntRange(1, 3).Draw(t, "records"), 1, producer, epoch, int32(rapid.IntRange(-1, 3).Draw(t, "sequence")))
			case "marker":
				e.Data = newMarker(p.next, 1, Marker{ProducerID: producer, Epoch: epoch, Number: int32(rapid.IntRange(-2, 2).Draw(t, "number")), Commit: rapid.Bool().Draw(t, "commit")})
			case "plain":
				e.Data = newBatch(p.next, 1, 100, 1, 'x')
				fillProducer(e.Data, producer, int(epoch), rapid.IntRange(0, 3).Draw(t, "sequence"), 0)
			case "start":
				e.Data = LogStartCommand(Offset(rapid.Int64Range(0, int64(p.next)).Draw(t, "start")))
			}
			if a := p.Apply(e); a.Err != nil {
				t.Fatal(a.Err)
			}
			r.read(e)
			r.check(t, p)
			snapshot := p.Snapshot()
			restored, err := RestorePartition(snapshot)
			if err != nil || !bytes.Equal(restored.Snapshot(), snapshot) {
				t.Fatal(err)
			}
			if rapid.Bool().Draw(t, "restore") {
				p = restored
			}
			if rapid.IntRange(0, 9).Draw(t, "cross") == 0 {
				p.DropAborted(p.next)
				r.aborted = nil
			}
		}
	})
}

// No more than MaxOpenTransactions are open, whatever is in flight, and those are not forgotten,
// however many other producers come and however long they are silent.
func TestOpenTransactionsAreBoundedAndKept(t *testing.T) {
	p, ahead := NewPartition(), ProducersAhead{}
	next, index := Offset(0), Index(0)
	var inFlight []Entry
	begin := func(id int64) error {
		b := newTransactional(next, 1, 1, id, 0, 0)
		h, _ := kafkaproto.ParseBatchHeader(b)
		v := ahead.Take(h, next, Admission{Guard: ahead.Guard(h, p), Add: true, Client: uint16(id)}, p)
		if v.Err == nil && !v.Duplicate {
			index++
			next++
			inFlight = append(inFlight, Entry{Index: index, Term: 1, Data: b})
		}
		return v.Err
	}
	apply := func() {
		t.Helper()
		for _, e := range inFlight {
			if a := p.Apply(e); a.Err != nil || a.Breach != nil {
				t.Fatal(a.Err, a.Breach)
			}
			h, _ := kafkaproto.ParseBatchHeader(e.Data)
			ahead.Applied(h.ProducerID)
		}
		inFlight = nil
	}
	for id := range int64(MaxOpenTransactions) {
		if err := begin(id); err != nil {
			t.Fatal(id, err)
		}
		if id == MaxOpenTransactions/2 {
			apply()
		}
	}
	if err := begin(MaxOpenTransactions); outcome.Code(err) != outcome.ErrConcurrentTransactions {
		t.Fatalf("one too many, in flight: %v", err)
	}
	apply()
	if err := begin(MaxOpenTransactions); outcome.Code(err) != outcome.ErrConcurrentTransactions {
		t.Fatalf("one too many: %v", err)
	}
	for id := range int64(2 * MaxProducers) {
		b := newBatch(next, 1, 80, 1, 'x')
		fillProducer(b, 1_000_000+id, 0, 0, 0)
		index, next = index+1, next+1
		if a := p.Apply(Entry{Index: index, Term: 1, AppendedAt: 9 * ProducerExpiration, Data: b}); a.Err != nil || a.Breach != nil {
			t.Fatal(a.Err, a.Breach)
		}
	}
	if n := len(p.Producers()); n != MaxOpenTransactions+MaxProducers || p.OpenTransactions() != MaxOpenTransactions || p.LastStable() != 0 {
		t.Fatalf("%d producers, %d open, last stable offset %d", n, p.OpenTransactions(), p.LastStable())
	}
	if _, err := RestorePartition(p.Snapshot()); err != nil {
		t.Fatal(err)
	}
	// A log that no honest leader wrote does not get further either.
	if a := p.Apply(Entry{Index: index + 1, Term: 1, Data: newTransactional(next, 1, 1, 1<<40, 0, 0)}); a.Err != nil || a.Breach == nil || p.OpenTransactions() != MaxOpenTransactions {
		t.Errorf("%v, %v", a.Err, a.Breach)
	}
	if _, v := ahead.TakeMarker(Marker{ProducerID: 0, Epoch: 1, Number: 1}, p); v.Err != nil {
		t.Fatal(v.Err)
	}
	next++
	if a := p.Apply(Entry{Index: index + 2, Term: 1, Data: newMarker(next, 1, Marker{ProducerID: 0, Epoch: 1, Number: 1})}); a.Err != nil || a.Breach != nil || p.LastStable() != 1 {
		t.Errorf("%v, %v, last stable offset %d", a.Err, a.Breach, p.LastStable())
	}
}

// What no state of transactions can be is refused.
func TestImpossibleTransactionsAreNotRestored(t *testing.T) {
	for name, spoil := range map[string]func(*PartitionState){
		"open beyond the end":       func(p *PartitionState) { p.producers.open.newest.state.First = p.next },
		"open in another order":     func(p *PartitionState) { p.producers.open.newest.state.First = 0 },
		"open without a batch":      func(p *PartitionState) { p.producers.open.newest.state.count = 0 },
		"aborted beyond the end":    func(p *PartitionState) { p.aborted[1].Last = p.next; p.aborted[1].LastStable = p.next },
		"aborted in another order":  func(p *PartitionState) { p.aborted[0].Last = p.aborted[1].Last },
		"aborted before it began":   func(p *PartitionState) { p.aborted[0].First = p.aborted[0].Last },
		"aborted of a negative id":  func(p *PartitionState) { p.aborted[0].ProducerID = -1 },
		"stable behind the marker":  func(p *PartitionState) { p.aborted[0].LastStable = p.aborted[0].Last + 2 },
		"stable below the log":      func(p *PartitionState) { p.aborted[0].LastStable = -1 },
		"from a negative offset on": func(p *PartitionState) { p.aborted[0].First = -1 },
	} {
		p := sampleTransactions()
		spoil(p)
		if _, err := RestorePartition(p.Snapshot()); !errors.Is(err, ErrSnapshot) {
			t.Errorf("%s: restored, %v", name, err)
		}
	}
	p := sampleTransactions()
	p.producers.idle, p.aborted = p.producers.open, nil // not behind the idle
	p.producers.open = producerList{}
	for n := range p.producers.all() {
		n.state.Open = n == p.producers.idle.oldest
	}
	if _, err := RestorePartition(p.Snapshot()); !errors.Is(err, ErrSnapshot) {
		t.Errorf("an open transaction among the idle: restored, %v", err)
	}
}

// sampleTransactions has two open transactions, two aborted ones, and a producer that only a marker
// made known.
func sampleTransactions() *PartitionState {
	p := NewPartition()
	index := Index(0)
	apply := func(b []byte) {
		index++
		if a := p.Apply(Entry{Index: index, Term: 1, AppendedAt: int64(1000 * index), Data: b}); a.Err != nil || a.Breach != nil {
			panic(fmt.Sprint(a.Err, a.Breach))
		}
	}
	apply(newTransactional(p.next, 2, 1, 7, 0, 0))
	apply(newTransactional(p.next, 1, 1, 8, 3, 0))
	apply(newTransactional(p.next, 1, 1, 9, 0, 5))
	apply(newMarker(p.next, 1, Marker{ProducerID: 7, Epoch: 1, Number: 1}))
	apply(newMarker(p.next, 1, Marker{ProducerID: 9, Epoch: 0, Number: -1}))
	apply(newMarker(p.next, 1, Marker{ProducerID: 10, Epoch: 4, Number: 300, Commit: true}))
	apply(newTransactional(p.next, 4, 1, 9, 0, 6))
	return p
}

// The bytes of a snapshot with transactions in it stand still, and so do those of one without.
func TestSnapshotsAreTheBytesThatAreDocumented(t *testing.T) {
	// magic, version, applied, next, log start, chain
	const head = "54726950 0003 07 0b 00 55c6254f6146b6ce"
	const producers = "04" +
		"07 01 c03e 00 02 00" + // id, epoch, last append, no batch; marker 1, nothing open
		"0a 04 e05d 00 d804 00" +
		"08 03 a01f 01 00000200 00 03 a01f" + // one batch; no marker, open from 2 on, since
		"09 00 b06d 02 05050300 06090700 01 08 b06d"
	// of 7 from 0 to 4, stable 2; of 9 from 3 to 5, stable 2
	const aborted = "02 07 04 04 04 09 01 02 06"
	want := strings.ReplaceAll(head+producers+aborted+"da18e810", " ", "")
	if got := hex.EncodeToString(sampleTransactions().Snapshot()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	sum := sha256.Sum256(samplePartition().Snapshot())
	if got := hex.EncodeToString(sum[:]); got != "a98c65d435b4e83cacadc8259d1d4474b616f3e32c5e331abaad13b0a8bb5178" {
		t.Errorf("a partition without transactions has another snapshot: %s", got)
	}
}

// A producer without batches is known by a marker only: earlier formats have none.
func TestAProducerWithoutBatchesIsOfTheNewFormat(t *testing.T) {
	payload := []byte{1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 7, 0, 0, 0}
	old := seal(partitionMagic, 2, func(b []byte) []byte { return append(b, payload...) })
	if _, err := RestorePartition(old); !errors.Is(err, ErrSnapshot) {
		t.Errorf("restored, %v", err)
	}
	p, err := RestorePartition(seal(partitionMagic, 3, func(b []byte) []byte { return append(append(b, payload...), 2, 0, 0) }))
	if err != nil {
		t.Fatal(err)
	}
	if s, known := p.Producer(7); !known || s.Ended != 1 || s.LastSequence() != -1 {
		t.Errorf("%+v", s)
	}
	// What counts more transactions than there are bytes for takes no memory.
	if _, err := RestorePartition(seal(partitionMagic, 3, func(b []byte) []byte {
		return append(append(b, payload...), 2, 0, 0xff, 0xff, 0xff, 0xff, 0x0f)
	})); !errors.Is(err, ErrSnapshot) {
		t.Errorf("restored, %v", err)
	}
}

// Others than can be remembered append, and the producer's next transaction begins. A copy of the
// marker of the last one does not end that: who has no transactions makes nobody forgotten who has.
func TestMarkersAreNotForgottenForOthers(t *testing.T) {
	p, index := NewPartition(), Index(0)
	apply := func(data []byte) {
		index++
		if r := p.Apply(Entry{Index: index, Term: 1, AppendedAt: 5, Data: data}); r.Err != nil || r.Breach != nil {
			t.Fatal(r.Err, r.Breach)
		}
	}
	epoch, first := Term(1).Epoch(), Marker{ProducerID: 7, Epoch: 1, Number: 1, Commit: true}
	apply(newTransactional(p.NextOffset(), 1, epoch, 7, 0, 0))
	apply(newMarker(p.NextOffset(), epoch, first))
	for other := range int64(2 * MaxProducers) {
		b := newBatch(p.NextOffset(), 1, 100, epoch, 'x')
		fillProducer(b, 100+other, 0, 0, 0)
		apply(b)
	}
	if n := len(p.Producers()); n != MaxProducers+1 {
		t.Errorf("%d producers", n)
	}
	apply(newTransactional(p.NextOffset(), 1, epoch, 7, 1, 0))
	var ahead ProducersAhead
	if _, v := ahead.TakeMarker(first, p); !v.Duplicate {
		t.Errorf("%+v", v)
	}
}

// Where too many have ended transactions, who did longest ago is forgotten; and what all of them
// take in memory and in a snapshot is what MaxTransactional says.
func TestMarkersAreBounded(t *testing.T) {
	before := heap()
	p, epoch := NewPartition(), Term(1).Epoch()
	for i := range int64(MaxTransactional + 10) {
		m := newMarker(p.NextOffset(), epoch, Marker{ProducerID: i, Epoch: 1, Number: 1})
		if r := p.Apply(Entry{Index: Index(i + 1), Term: 1, AppendedAt: 5, Data: m}); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if all := p.Producers(); len(all) != MaxTransactional || all[0].ID != 10 {
		t.Errorf("%d producers from %d on", len(all), all[0].ID)
	}
	if used := (heap() - before) / MaxTransactional; used > 300 {
		t.Errorf("each takes %d bytes", used)
	}
	snapshot := p.Snapshot()
	if size := len(snapshot) / MaxTransactional; size > 32 {
		t.Errorf("each takes %d bytes in a snapshot", size)
	}
	if q, err := RestorePartition(snapshot); err != nil || !bytes.Equal(q.Snapshot(), snapshot) {
		t.Error(err)
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A client that opens all the transactions it can gets a fifth of what a partition takes, and
// another one a fifth of the rest; whoever has none can begin one. What has ended counts no more.
func TestOneClientLeavesRoomForOthers(t *testing.T) {
	p, ahead := NewPartition(), ProducersAhead{}
	epoch := Term(1).Epoch()
	ids := int64(0)
	apply := func(data []byte, producer int64) {
		t.Helper()
		if r := p.Apply(Entry{Index: p.applied + 1, Term: 1, Data: data}); r.Err != nil || r.Breach != nil {
			t.Fatal(r.Err, r.Breach)
		}
		ahead.Applied(producer)
	}
	begin := func(client uint16) (int64, error) {
		id := ids
		ids++
		b := newTransactional(p.next, 1, epoch, id, 0, 0)
		h, _ := kafkaproto.ParseBatchHeader(b)
		guard := ahead.Guard(h, p)
		defer ahead.Release(guard)
		v := ahead.Take(h, p.next, Admission{Guard: guard, Add: true, Client: client}, p)
		if v.Err == nil {
			apply(b, id)
		}
		return id, v.Err
	}
	end := func(id int64) {
		t.Helper()
		m := Marker{ProducerID: id, Epoch: 1, Number: 1}
		if _, v := ahead.TakeMarker(m, p); v.Err != nil || v.Duplicate {
			t.Fatalf("%+v", v)
		}
		apply(newMarker(p.next, epoch, m), id)
	}
	flood := func(client uint16) (open []int64) {
		t.Helper()
		for {
			id, err := begin(client)
			if outcome.Code(err) == outcome.ErrConcurrentTransactions {
				return open
			} else if err != nil {
				t.Fatal(err)
			}
			open = append(open, id)
		}
	}
	first := flood(1)
	if n := len(first) - MaxOpenTransactions/5; n < -1 || n > 1 {
		t.Errorf("one client has %d open", len(first))
	}
	if n := len(flood(2)) - MaxOpenTransactions*4/25; n < -1 || n > 1 {
		t.Errorf("another has %d more or less open", n)
	}
	for client := uint16(3); client <= 30; client++ {
		flood(client)
	}
	left := MaxOpenTransactions - p.OpenTransactions()
	if left < 30 {
		t.Errorf("thirty clients leave %d", left)
	}
	for client := range uint16(left) {
		if _, err := begin(2000 + client); err != nil {
			t.Errorf("a client that has none: %v", err)
		}
	}
	for _, id := range first {
		end(id)
	}
	if again := flood(1); len(again) < len(first)/5 {
		t.Errorf("one whose transactions have ended has %d open", len(again))
	}
	for n := p.producers.open.oldest; n != nil; n = p.producers.open.oldest {
		end(n.state.ID)
	}
	if len(ahead.begun)+len(ahead.ofClient)+len(ahead.byID)+ahead.opening != 0 {
		t.Errorf("nothing is open, and %d transactions of %d clients are counted", len(ahead.begun), len(ahead.ofClient))
	}
}

// A marker that comes again says whether the producer's next transaction has begun behind it, in
// the log or on its way there. If it has not, no batch begins it for which a coordinator was asked
// before; and so it is where the producer is forgotten meanwhile.
func TestAMarkerThatComesAgain(t *testing.T) {
	p, ahead := NewPartition(), ProducersAhead{}
	epoch := Term(1).Epoch()
	apply := func(b []byte) {
		t.Helper()
		if r := p.Apply(Entry{Index: p.applied + 1, Term: 1, AppendedAt: 5, Data: b}); r.Err != nil || r.Breach != nil {
			t.Fatal(r.Err, r.Breach)
		}
		ahead.Applied(7)
	}
	batch := func(producerEpoch int16) kafkaproto.BatchHeader {
		h, _ := kafkaproto.ParseBatchHeader(newTransactional(p.next, 1, epoch, 7, producerEpoch, 0))
		return h
	}
	take := func(h kafkaproto.BatchHeader, g *Guard) outcome.Error {
		return outcome.Code(ahead.Take(h, p.next, Admission{Guard: g, Add: true}, p).Err)
	}
	again := func(m Marker, begun bool) {
		t.Helper()
		if _, v := ahead.TakeMarker(m, p); !v.Duplicate || v.Begun != begun {
			t.Errorf("%+v: %+v", m, v)
		}
	}
	first := Marker{ProducerID: 7, Epoch: 1, Number: 1, Commit: true}
	ahead.Take(batch(0), 0, Admission{Guard: ahead.Guard(batch(0), p), Add: true}, p)
	early := ahead.Guard(batch(1), p) // what it is to begin comes before the marker
	if early.Ended(5) != 0 {
		t.Errorf("%d has ended", early.Ended(5))
	}
	if _, v := ahead.TakeMarker(first, p); v.Duplicate || v.Err != nil {
		t.Errorf("%+v", v)
	}
	// All of it is on its way.
	guard := ahead.Guard(batch(1), p)
	if guard.Ended(5) != 1 || !ahead.Holds(guard) || ahead.Holds(early) {
		t.Errorf("%d has ended, the guard holds: %v", guard.Ended(5), ahead.Holds(guard))
	}
	again(first, false)
	if code := take(batch(1), guard); code != outcome.ErrConcurrentTransactions {
		t.Errorf("a batch that was let in before the marker came again: %v", code)
	}
	if code := take(batch(1), ahead.Guard(batch(1), p)); code != 0 {
		t.Errorf("the next one: %v", code)
	}
	again(first, true)
	again(Marker{ProducerID: 7, Epoch: 0, Number: 1}, false) // of another epoch
	again(Marker{ProducerID: 7, Epoch: 3, Number: 9, Forced: true}, false)
	// All of it is applied.
	apply(newTransactional(p.next, 1, epoch, 7, 0, 0))
	apply(newMarker(p.next, epoch, first))
	apply(newTransactional(p.next, 1, epoch, 7, 1, 0))
	if len(ahead.byID) != 0 {
		t.Fatalf("%d producers are in flight", len(ahead.byID))
	}
	again(first, true)

	second := Marker{ProducerID: 7, Epoch: 2, Number: 2}
	if _, v := ahead.TakeMarker(second, p); v.Duplicate || v.Err != nil {
		t.Errorf("%+v", v)
	}
	apply(newMarker(p.next, epoch, second))
	again(second, false)
	guard = ahead.Guard(batch(2), p)
	p = NewPartition() // which knows nothing of the producer
	if code := take(batch(2), guard); code != outcome.ErrConcurrentTransactions {
		t.Errorf("the producer was forgotten: %v", code)
	}
	if g := ahead.Guard(batch(2), p); g == guard || g.Ended(5) != 0 || take(batch(2), g) != 0 {
		t.Errorf("the next guard: %+v", g)
	}
}

// A batch is not let in for a marker that its own entry may have forgotten: that would not be known
// when it comes again.
func TestAMarkerThatMayBeForgotten(t *testing.T) {
	p, ahead := NewPartition(), ProducersAhead{}
	epoch := Term(1).Epoch()
	apply := func(at int64, b []byte) {
		t.Helper()
		if r := p.Apply(Entry{Index: p.applied + 1, Term: 1, AppendedAt: at, Data: b}); r.Err != nil || r.Breach != nil {
			t.Fatal(r.Err, r.Breach)
		}
		ahead.Applied(7)
	}
	batch := func(producerEpoch int16) kafkaproto.BatchHeader {
		h, _ := kafkaproto.ParseBatchHeader(newTransactional(p.next, 1, epoch, 7, producerEpoch, 0))
		return h
	}
	first := Marker{ProducerID: 7, Epoch: 1, Number: 1, Commit: true}
	if _, v := ahead.TakeMarker(first, p); v.Duplicate || v.Err != nil {
		t.Fatalf("%+v", v)
	}
	const never = math.MaxInt64
	if ended := ahead.Guard(batch(1), p).Ended(never); ended != 1 {
		t.Errorf("on its way: %d has ended", ended)
	}
	apply(5, newMarker(p.next, epoch, first))
	g := ahead.Guard(batch(1), p)
	for now, want := range map[int64]int32{-9: 1, 5: 1, 4 + ProducerExpiration/2: 1, 5 + ProducerExpiration/2: 0, never: 0} {
		if ended := g.Ended(now); ended != want {
			t.Errorf("at %d: %d has ended, want %d", now, ended, want)
		}
	}
	// Why: with the batch the producer expires, and begins anew.
	late := int64(5 + ProducerExpiration)
	if v := ahead.Take(batch(1), p.next, Admission{Guard: g, Add: true}, p); v.Err != nil {
		t.Fatalf("%+v", v)
	}
	apply(late, newTransactional(p.next, 1, epoch, 7, 1, 0))
	if s, _ := p.Producer(7); !s.Open || s.Ended != 0 {
		t.Errorf("%+v", s)
	}
}
