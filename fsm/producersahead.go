package fsm

import (
	"fmt"
	"math"

	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// ProducersAhead is what the proposer of a partition knows of producers beyond the
// state machine: the batches and markers that it has proposed and whose entries are not applied
// yet. It judges by both together, so that a batch is found out of order, or a
// duplicate, before it gets a place in the log. It is not safe for concurrent use.
//
// A batch that begins a transaction needs a guard, which says that the transaction's coordinator
// has, or was told, that the partition is in it, and that no marker has come since it was asked
// (Kafka's VerificationGuard, KIP-890). So no batch comes behind the marker of its transaction,
// where nothing would ever end what it begins.
type ProducersAhead struct {
	// byID has a key exactly while batches or markers of that producer are in flight.
	byID map[int64]*producerAhead
	// opening counts those in byID that opened a transaction since they are there.
	opening int
	// guards has those that hold: at most one of a producer. More than maxGuards only while half of
	// them are in use.
	guards map[int64]*Guard
	// used is how many guards were in use when those that were not were forgotten.
	used int
	// begun has the client that a transaction is of, by producer, and ofClient counts those of
	// each. They are of transactions that began here, and are open or will be.
	begun    map[int64]uint16
	ofClient map[uint16]int
}

// maxGuards bounds the guards that are kept for their lowest sequence number alone.
const maxGuards = MaxProducers

type producerAhead struct {
	state    ProducerState // the machine's, and what is in flight
	inFlight int
	opened   bool // a transaction was opened in flight
}

// Guard lets a producer's batch begin a transaction, as long as it holds.
type Guard struct {
	producer int64
	// lowest is the lowest sequence number of epoch, the highest, that asked for it: what has a
	// higher one must not be the first, where nothing else is known of the producer (as
	// VerificationStateEntry of Kafka).
	epoch  int16
	lowest int32
	// ended is the number of the producer's last marker, in the log or on its way there, as long as
	// the guard holds.
	ended int32
	// since is when the producer last appended, ms since epoch; math.MaxInt64: something of it is
	// on its way.
	since int64
	users int
}

// Ended is the number of the last marker of the guard's producer, in the log or on its way there;
// 0: none is known, or it may soon be forgotten. There is no other as long as the guard holds. now
// is in ms since epoch.
//
// What may be forgotten is not to be relied on: the entry of the batch that was let in for it may
// be what expires the producer. Then the marker, which a coordinator that comes next writes again,
// would not be known any more, and end what the batch has begun.
func (g *Guard) Ended(now int64) int32 {
	if now > g.since && uint64(now)-uint64(g.since) >= ProducerExpiration/2 {
		return 0
	}
	return g.ended
}

// Admission is what the leader found out for a batch before it was submitted. The zero value:
// nothing, since it is in no transaction or in one that is open.
type Admission struct {
	Guard *Guard
	Add   bool // Transaction.Add
	// Client names who sent it: the same number for all that one client sends, through any node.
	// Two clients may happen to have the same.
	Client uint16
	// Refused is why the transaction's coordinator does not let the batch begin it.
	Refused error
}

// Known is what the state machine knows of producers. It may be asked at any time, but must know
// all that Applied was called for.
type Known interface {
	Producer(id int64) (ProducerState, bool)
	// OpenTransactions counts those that are open.
	OpenTransactions() int
}

// Verdict is what a proposer makes of a batch or a marker.
type Verdict struct {
	// Duplicate: the batch is Original, which is in the log or on its way there; so is a marker of
	// that number, or a later one. Begun: a transaction of the marker's epoch, which is the next
	// one's, is open behind that.
	Duplicate bool
	Begun     bool
	Original  ProducerBatch
	// Err, if not nil, is why it must not be proposed: of a batch ErrInvalidProducerEpoch,
	// ErrOutOfOrderSequence, ErrInvalidTxnState, ErrConcurrentTransactions, or what its coordinator
	// said; of a marker ErrInvalidProducerEpoch.
	Err error
}

// state gives what is known of a producer, with what is in flight.
func (a *ProducersAhead) state(id int64, machine Known) (p *producerAhead, known bool) {
	if p = a.byID[id]; p != nil {
		return p, true
	}
	p = new(producerAhead)
	p.state, known = machine.Producer(id)
	return p, known
}

// Guard gives the guard that the transactional batch needs, nil if its transaction is open. The
// coordinator is to be asked after this, and Release called when the batch has its fate.
func (a *ProducersAhead) Guard(h kafkaproto.BatchHeader, machine Known) *Guard {
	p, known := a.state(h.ProducerID, machine)
	if known && p.state.Open && p.state.Epoch == h.ProducerEpoch {
		return nil
	}
	g := a.guards[h.ProducerID]
	if g != nil && g.ended != p.state.Ended {
		g = nil // the machine has forgotten the producer
	}
	if g == nil {
		if a.guards == nil {
			a.guards = map[int64]*Guard{}
		}
		a.limitGuards()
		g = &Guard{producer: h.ProducerID, epoch: h.ProducerEpoch, lowest: h.BaseSequence, ended: p.state.Ended}
		a.guards[h.ProducerID] = g
	}
	if g.since = p.state.LastAppend; p.inFlight > 0 {
		g.since = math.MaxInt64
	}
	switch {
	case h.ProducerEpoch > g.epoch:
		g.epoch, g.lowest = h.ProducerEpoch, h.BaseSequence
	case h.ProducerEpoch == g.epoch:
		g.lowest = min(g.lowest, h.BaseSequence)
	}
	g.users++
	return g
}

// Holds reports whether no marker has come, and nothing has begun, since the guard was given.
func (a *ProducersAhead) Holds(g *Guard) bool { return a.guards[g.producer] == g }

// limitGuards forgets guards that nobody uses if there are too many.
func (a *ProducersAhead) limitGuards() {
	if len(a.guards) < max(maxGuards, 2*a.used) {
		return
	}
	for id, g := range a.guards {
		if g.users == 0 {
			delete(a.guards, id)
		}
	}
	a.used = len(a.guards)
}

// Release says that a batch does not need its guard any more.
func (a *ProducersAhead) Release(g *Guard) { g.users-- }

// Take judges a batch for which Idempotent holds. If it is neither a duplicate nor
// wrong, it must be proposed at base, and Applied be called when it is applied.
func (a *ProducersAhead) Take(h kafkaproto.BatchHeader, base Offset, admission Admission, machine Known) Verdict {
	p, known := a.state(h.ProducerID, machine)
	if !known {
		// Nothing is known of the producer, perhaps no more: any sequence number will
		// do, as in Kafka since KIP-360.
		p.state = ProducerState{ID: h.ProducerID, Epoch: h.ProducerEpoch}
	} else if original, duplicate, err := p.state.Judge(h); duplicate {
		return Verdict{Duplicate: true, Original: original}
	} else if err != nil {
		if admission.Refused != nil && h.ProducerEpoch >= p.state.Epoch {
			err = admission.Refused
		}
		return Verdict{Err: err}
	}
	if h.Transactional() || p.state.Open {
		if err := a.begins(p, h, admission, machine); err != nil {
			return Verdict{Err: err}
		}
	}
	if h.Transactional() && !p.state.Open {
		p.state.Open, p.state.First = true, base
		delete(a.guards, h.ProducerID)
		if !p.opened {
			p.opened = true
			a.opening++
		}
		a.open(h.ProducerID, admission.Client)
	}
	p.state.add(h, base, p.state.LastAppend)
	a.take(p)
	return Verdict{}
}

// begins says why the batch may not begin or go on with a transaction, or be in none; nil: it may.
func (a *ProducersAhead) begins(p *producerAhead, h kafkaproto.BatchHeader, admission Admission, machine Known) error {
	s, guard := &p.state, admission.Guard
	switch {
	case admission.Refused != nil:
		return admission.Refused
	case s.Open && !h.Transactional():
		return fmt.Errorf("%w: producer %d has a transaction open, and the batch is in none", outcome.ErrInvalidTxnState, s.ID)
	case s.Open && s.Epoch == h.ProducerEpoch:
		return nil
	case s.Open:
		return fmt.Errorf("%w: producer %d has a transaction open with epoch %d, the batch has %d", outcome.ErrInvalidTxnState, s.ID, s.Epoch, h.ProducerEpoch)
	case guard == nil:
		return fmt.Errorf("%w: producer %d has no transaction open with epoch %d", outcome.ErrInvalidTxnState, s.ID, h.ProducerEpoch)
	case !a.Holds(guard), s.Ended != guard.ended:
		// The marker may have been that of the transaction before, and the coordinator will say so.
		return fmt.Errorf("%w: a marker of producer %d came while its coordinator was asked", outcome.ErrConcurrentTransactions, s.ID)
	case s.count == 0 && h.ProducerEpoch == guard.epoch && h.BaseSequence > guard.lowest:
		return fmt.Errorf("%w: producer %d begins with %d, and has sent %d", outcome.ErrOutOfOrderSequence, s.ID, h.BaseSequence, guard.lowest)
	case s.count == 0 && admission.Add && h.BaseSequence != 0:
		return fmt.Errorf("%w: a transaction of producer %d begins with %d", outcome.ErrOutOfOrderSequence, s.ID, h.BaseSequence)
	}
	// What is applied beside may be counted twice.
	open := machine.OpenTransactions() + a.opening
	left := MaxOpenTransactions - open
	if own := a.ofClient[admission.Client]; left <= 0 || own > 0 && own >= left/clientShare {
		return fmt.Errorf("%w: %d of %d transactions are open, %d of them this client's", outcome.ErrConcurrentTransactions, open, MaxOpenTransactions, own)
	}
	return nil
}

// clientShare is which part of the transactions that may still be opened a client may have open:
// one that opens all it can gets a fifth of them, the next a fifth of the rest, and so on. It takes
// some forty such clients until there is no room for who has none. What is open since another led
// belongs to nobody.
const clientShare = 4

// open notes whose a transaction is that begins.
func (a *ProducersAhead) open(producer int64, client uint16) {
	if a.begun == nil {
		a.begun, a.ofClient = map[int64]uint16{}, map[uint16]int{}
	}
	a.begun[producer] = client
	a.ofClient[client]++
}

// close notes that a producer's transaction ends, if one is open.
func (a *ProducersAhead) close(producer int64) {
	client, open := a.begun[producer]
	if !open {
		return
	}
	delete(a.begun, producer)
	if a.ofClient[client]--; a.ofClient[client] == 0 {
		delete(a.ofClient, client)
	}
}

// take notes that something of the producer is in flight.
func (a *ProducersAhead) take(p *producerAhead) {
	p.inFlight++
	if a.byID == nil {
		a.byID = map[int64]*producerAhead{}
	}
	a.byID[p.state.ID] = p
}

// TakeMarker judges a marker. If it is neither a duplicate nor wrong it must be proposed with that
// number, and Applied be called when it is applied. Guards of before do not hold any more.
func (a *ProducersAhead) TakeMarker(m Marker, machine Known) (number int32, v Verdict) {
	p, known := a.state(m.ProducerID, machine)
	s := &p.state
	switch {
	case m.Forced && (!s.Open || s.Epoch != m.Epoch):
		if known && m.Epoch < s.Epoch {
			return 0, Verdict{Err: fmt.Errorf("%w: producer %d has epoch %d, the marker %d", outcome.ErrInvalidProducerEpoch, s.ID, s.Epoch, m.Epoch)}
		}
		return 0, Verdict{Duplicate: true} // it has nothing open with that epoch
	case m.Forced:
		m.Number = s.Ended
	case s.Ended != 0 && !m.Follows(s.Ended):
		// Its coordinator may be another one than the batch of a guard was told of, and takes it
		// that nothing begins behind this without having asked it.
		delete(a.guards, m.ProducerID)
		return 0, Verdict{Duplicate: true, Begun: s.Open && s.Epoch == m.Epoch}
	}
	if err := s.JudgeMarker(m); err != nil {
		return 0, Verdict{Err: err}
	}
	if !known {
		p.state = ProducerState{ID: m.ProducerID, Epoch: m.Epoch}
	}
	s.end(m, s.LastAppend)
	a.close(m.ProducerID)
	delete(a.guards, m.ProducerID)
	a.take(p)
	return m.Number, Verdict{}
}

// Applied says that the state machine has applied a batch or marker of that producer which
// was proposed.
func (a *ProducersAhead) Applied(id int64) {
	if p := a.byID[id]; p != nil {
		if p.inFlight--; p.inFlight == 0 {
			delete(a.byID, id)
			if p.opened {
				a.opening--
			}
		}
	}
}
