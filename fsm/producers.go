package fsm

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math"

	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// This file holds what a partition remembers of idempotent producers (KIP-98),
// so that a batch that is sent again is not appended again, and of their
// transactions (transactions.go).
//
// Who decides: the proposer of the partition's leader, before it stamps a batch
// (ProducersAhead). What Apply makes of the log follows from GoodBatch alone,
// never from producers, and that is a choice with a reason. Whoever reads the log
// again has no producer state, so a batch that GoodBatch takes and the machine did
// not would put readers and machine at different offsets for ever. And two replicas
// may know different producers without either being wrong, for instance when one
// began from a snapshot of a version that knew none; their offsets must be equal
// all the same. So Apply records producers as it finds them in the log, as Kafka's
// followers do (ProducerAppendInfo with AppendOrigin.REPLICATION), checks again,
// and reports what should not be there (Applied.Breach).
//
// Why a breach cannot happen in an honest log: a batch that GoodBatch takes carries
// the epoch of its entry's term, so the proposer of that term stamped it. There is
// one at a time, it begins after a barrier, when all that earlier terms have left
// behind is applied, and whatever it proposed itself since is in its
// ProducersAhead. So it judged the batch on the producer state that the machine
// has when it comes to that batch, or on that state with producers in it that were
// forgotten meanwhile; and a machine that knows nothing of a producer takes anything
// from it. Producers with an open transaction are never forgotten.

const (
	// ProducerBatches is how many batches of a producer are remembered: as many as
	// a client may have in flight (KIP-98; max.in.flight.requests.per.connection).
	ProducerBatches = 5
	// ProducerExpiration is how long a producer that appends nothing is remembered,
	// in ms: Kafka's default of producer.id.expiration.ms.
	ProducerExpiration = day
	// MaxProducers bounds the producers that a partition remembers and that never had a transaction
	// in it. Beyond it the one that appended longest ago is forgotten: then its next batch is taken
	// whatever its sequence number, and is not known if it was there before.
	MaxProducers = 4096
	// MaxTransactional bounds those that have a transaction open or had one. Beyond it the one
	// whose transaction ended longest ago is forgotten: then a copy of its marker that a stalled
	// coordinator sends would end the producer's next transaction. So these are many, and are kept
	// apart: who appends without transactions makes none of them forgotten. One takes about 250
	// bytes of memory.
	MaxTransactional = 1 << 16
)

// Idempotent reports whether the batch has a producer id and sequence numbers, so
// that it can be told from another one.
func Idempotent(h kafkaproto.BatchHeader) bool {
	return h.ProducerID >= 0 && h.ProducerEpoch >= 0 && h.BaseSequence >= 0 && !h.Control()
}

// ProducerBatch is what is remembered of one batch.
type ProducerBatch struct {
	First, Last int32 // sequence numbers of its records; Last < First where they wrap
	Base        Offset
	Timestamp   int64 // of its newest record, ms; of the append if the topic wants that
}

// ProducerState is what a partition knows of one producer.
type ProducerState struct {
	ID         int64
	Epoch      int16
	Open       bool   // a transaction of the producer is open here
	First      Offset // of the open transaction's first record
	Since      int64  // when that was appended, ms since epoch
	Ended      int32  // number of the last marker (Marker.Number); 0: none is known
	LastAppend int64  // ms since epoch, by the clock of the leader that took it
	count      int    // 0 to ProducerBatches; 0 only behind a marker
	batches    [ProducerBatches]ProducerBatch
}

// Batches gives the batches of the producer's present epoch that are remembered,
// oldest first. There is none if a marker brought the epoch.
func (p *ProducerState) Batches() []ProducerBatch { return p.batches[:p.count] }

// LastSequence is the sequence number of the present epoch's last record; -1: none.
func (p *ProducerState) LastSequence() int32 {
	if p.count == 0 {
		return -1
	}
	return p.batches[p.count-1].Last
}

// ActiveProducer is what an operator sees of a producer (KIP-664).
type ActiveProducer struct {
	ID            int64 `json:"id"`
	Epoch         int16 `json:"epoch"`
	LastSequence  int32 `json:"last_sequence"`  // -1: none in this epoch
	LastTimestamp int64 `json:"last_timestamp"` // of its newest record, or its marker, ms
	// Ended is the number of its last marker; 0: none is known.
	Ended int32 `json:"ended,omitempty"`
	// Open is the first offset of its open transaction; nil: none is open.
	Open *Offset `json:"open,omitempty"`
}

// Active gives what an operator sees.
func (p *ProducerState) Active() ActiveProducer {
	a := ActiveProducer{ID: p.ID, Epoch: p.Epoch, LastSequence: p.LastSequence(), LastTimestamp: p.LastAppend, Ended: p.Ended}
	if p.count > 0 {
		a.LastTimestamp = p.batches[p.count-1].Timestamp
	}
	if p.Open {
		first := p.First
		a.Open = &first
	}
	return a
}

// Judge says what the batch, for which Idempotent holds, is to a producer of this
// state: the one that follows, or one that is there already, or, with the error
// ErrInvalidProducerEpoch or ErrOutOfOrderSequence, neither. The rules are Kafka's
// (ProducerStateEntry.findDuplicateBatch, ProducerAppendInfo.checkProducerEpoch
// and checkSequence).
func (p *ProducerState) Judge(h kafkaproto.BatchHeader) (original ProducerBatch, duplicate bool, err error) {
	switch {
	case h.ProducerEpoch < p.Epoch:
		return original, false, fmt.Errorf("%w: producer %d has epoch %d, the batch %d", outcome.ErrInvalidProducerEpoch, p.ID, p.Epoch, h.ProducerEpoch)
	case h.ProducerEpoch > p.Epoch:
		if h.BaseSequence != 0 {
			return original, false, fmt.Errorf("%w: epoch %d of producer %d begins with sequence number %d", outcome.ErrOutOfOrderSequence, h.ProducerEpoch, p.ID, h.BaseSequence)
		}
		return original, false, nil
	}
	last := lastSequence(h)
	for _, b := range p.Batches() {
		if b.First == h.BaseSequence && b.Last == last {
			return b, true, nil
		}
	}
	if h.BaseSequence != nextSequence(p.LastSequence()) {
		return original, false, fmt.Errorf("%w: producer %d sent %d after %d", outcome.ErrOutOfOrderSequence, p.ID, h.BaseSequence, p.LastSequence())
	}
	return original, false, nil
}

// add takes a batch that is in the log at base.
func (p *ProducerState) add(h kafkaproto.BatchHeader, base Offset, at int64) {
	if p.Epoch != h.ProducerEpoch {
		p.Epoch, p.count = h.ProducerEpoch, 0
	}
	if p.count == ProducerBatches {
		copy(p.batches[:], p.batches[1:])
		p.count--
	}
	p.batches[p.count] = ProducerBatch{First: h.BaseSequence, Last: lastSequence(h), Base: base, Timestamp: h.MaxTimestamp}
	p.count++
	p.LastAppend = at
}

// lastSequence and nextSequence count as Kafka does: 0 follows the largest int32
// (DefaultRecordBatch.incrementSequence).
func lastSequence(h kafkaproto.BatchHeader) int32 {
	return int32((int64(h.BaseSequence) + int64(h.LastOffsetDelta)) & math.MaxInt32)
}

func nextSequence(last int32) int32 { return int32((int64(last) + 1) & math.MaxInt32) }

// producerTable is the producers of a partition. Its orders are the log's, so they are
// the same on every replica.
type producerTable struct {
	byID map[int64]*producerNode
	// Each node of byID is in one list: open has those with an open transaction, in the order of
	// its first offset, at most MaxOpenTransactions; ended those that had one, with open at most
	// MaxTransactional; idle the others, at most MaxProducers. These two are in the order in which
	// their producers last appended.
	idle, ended, open producerList
}

type producerNode struct {
	state        ProducerState
	older, newer *producerNode
}

// producerList is a list of n nodes.
type producerList struct {
	oldest, newest *producerNode
	n              int
}

// push makes n the newest; it is in no list.
func (l *producerList) push(n *producerNode) {
	l.n++
	n.older, n.newer = l.newest, nil
	if l.newest != nil {
		l.newest.newer = n
	} else {
		l.oldest = n
	}
	l.newest = n
}

// remove takes n, which is in the list, out of it.
func (l *producerList) remove(n *producerNode) {
	l.n--
	if n.older != nil {
		n.older.newer = n.newer
	} else {
		l.oldest = n.newer
	}
	if n.newer != nil {
		n.newer.older = n.older
	} else {
		l.newest = n.older
	}
}

func newProducerTable() producerTable { return producerTable{byID: map[int64]*producerNode{}} }

// append records the batch, which is in the log at base since a leader took it at
// the given time, and forgets producers that were silent for too long then. The
// error says why the batch should not be in the log; it is recorded nonetheless.
func (t *producerTable) append(h kafkaproto.BatchHeader, base Offset, at int64) (breach error) {
	t.expire(at)
	if !Idempotent(h) {
		if h.Transactional() {
			return fmt.Errorf("%w: a transactional batch of no producer at %d", outcome.ErrInvalidTxnState, base)
		}
		return nil
	}
	n, known := t.take(h)
	if known {
		_, duplicate, err := n.state.Judge(h)
		if duplicate {
			err = fmt.Errorf("%w: producer %d has the records from %d on twice in the log", outcome.ErrOutOfOrderSequence, h.ProducerID, h.BaseSequence)
		}
		breach = err
	}
	n.state.add(h, base, at)
	if err := t.transaction(n, h, base, at); breach == nil {
		breach = err
	}
	return breach
}

// expire forgets who was silent for too long.
func (t *producerTable) expire(at int64) {
	for _, l := range []*producerList{&t.idle, &t.ended} {
		for n := l.oldest; n != nil && expired(&n.state, at); n = l.oldest {
			t.forget(l, n)
		}
	}
}

// take gives the node of the batch's producer, in no list if it has no open transaction.
func (t *producerTable) take(h kafkaproto.BatchHeader) (n *producerNode, known bool) {
	if n = t.byID[h.ProducerID]; n != nil {
		if l := t.listOf(n); l != &t.open {
			l.remove(n)
		}
		return n, true
	}
	n = &producerNode{state: ProducerState{ID: h.ProducerID, Epoch: h.ProducerEpoch}}
	t.byID[h.ProducerID] = n
	return n, false
}

// listOf gives the list that n belongs to.
func (t *producerTable) listOf(n *producerNode) *producerList {
	switch s := &n.state; {
	case s.Open:
		return &t.open
	case s.Ended != 0 || s.count == 0: // without a batch only a marker makes a producer known
		return &t.ended
	}
	return &t.idle
}

// list puts n, which is in no list, where it belongs, as its newest, and forgets others if there
// are too many. There is always another, since not so many transactions may be open.
func (t *producerTable) list(n *producerNode) {
	t.listOf(n).push(n)
	for t.idle.n > MaxProducers {
		t.forget(&t.idle, t.idle.oldest)
	}
	for t.ended.n > 0 && t.ended.n+t.open.n > MaxTransactional {
		t.forget(&t.ended, t.ended.oldest)
	}
}

// expired reports whether the producer was silent for too long. Clocks of leaders
// differ and may go back; then it is not.
func expired(p *ProducerState, now int64) bool {
	return now > p.LastAppend && uint64(now)-uint64(p.LastAppend) >= ProducerExpiration
}

// forget takes n, which is in list l, out of the table.
func (t *producerTable) forget(l *producerList, n *producerNode) {
	l.remove(n)
	delete(t.byID, n.state.ID)
}

// Producer gives what the partition knows of a producer.
func (p *PartitionState) Producer(id int64) (ProducerState, bool) {
	if n, ok := p.producers.byID[id]; ok {
		return n.state, true
	}
	return ProducerState{}, false
}

// Producers gives all producers that the partition knows, at most MaxProducers and
// MaxTransactional: those that never had a transaction and then those that had one, in the order in
// which they last appended, then those that have one open, in the order in which these began.
func (p *PartitionState) Producers() []ProducerState {
	all := make([]ProducerState, 0, len(p.producers.byID))
	for n := range p.producers.all() {
		all = append(all, n.state)
	}
	return all
}

// all gives the nodes of the lists, the idle first and the open last.
func (t *producerTable) all() iter.Seq[*producerNode] {
	return func(yield func(*producerNode) bool) {
		for _, l := range []producerList{t.idle, t.ended, t.open} {
			for n := l.oldest; n != nil; n = n.newer {
				if !yield(n) {
					return
				}
			}
		}
	}
}

// Producers in a snapshot, from version 2 on, follow the other numbers: their
// count, then of each, in the order of PartitionState.Producers,
//
//	id, epoch, time of the last append (signed), count of batches, then of each
//	batch, oldest first: first and last sequence number, base offset, timestamp (signed);
//	from version 3 on: number of the last marker (signed; 0: none), 0 or 1 + the open
//	transaction's first offset; with that since when it is open (signed)

func (t *producerTable) snapshot(b []byte, version uint16) []byte {
	b = binary.AppendUvarint(b, uint64(len(t.byID)))
	for n := range t.all() {
		b = binary.AppendUvarint(b, uint64(n.state.ID))
		b = binary.AppendUvarint(b, uint64(n.state.Epoch))
		b = binary.AppendVarint(b, n.state.LastAppend)
		b = binary.AppendUvarint(b, uint64(n.state.count))
		for _, batch := range n.state.Batches() {
			b = binary.AppendUvarint(b, uint64(batch.First))
			b = binary.AppendUvarint(b, uint64(batch.Last))
			b = binary.AppendUvarint(b, uint64(batch.Base))
			b = binary.AppendVarint(b, batch.Timestamp)
		}
		if version >= transactionsVersion {
			b = binary.AppendVarint(b, int64(n.state.Ended))
			if n.state.Open {
				b = binary.AppendUvarint(b, 1+uint64(n.state.First))
				b = binary.AppendVarint(b, n.state.Since)
			} else {
				b = binary.AppendUvarint(b, 0)
			}
		}
	}
	return b
}

// restore reads what snapshot wrote; r.bad says that it is no such thing.
func (t *producerTable) restore(r *numbers, version uint16) {
	count := r.atMost(MaxProducers + MaxTransactional)
	for range count {
		n := &producerNode{state: ProducerState{
			ID:         r.positive(),
			Epoch:      int16(r.atMost(math.MaxInt16)),
			LastAppend: r.signed(),
			count:      int(r.atMost(ProducerBatches)),
		}}
		s := &n.state
		for i := range s.count {
			s.batches[i] = ProducerBatch{
				First:     int32(r.atMost(math.MaxInt32)),
				Last:      int32(r.atMost(math.MaxInt32)),
				Base:      Offset(r.positive()),
				Timestamp: r.signed(),
			}
		}
		if version >= transactionsVersion {
			s.Ended = r.int32()
			if open := r.unsigned(); open > math.MaxInt64 {
				r.fail()
			} else if open > 0 {
				s.Open, s.First, s.Since = true, Offset(open-1), r.signed()
			}
		}
		// Without a batch only a marker makes a producer known.
		impossible := s.count == 0 && (version < transactionsVersion || s.Open) ||
			t.open.n > 0 && (!s.Open || s.First <= t.open.newest.state.First) ||
			s.Open && t.open.n == MaxOpenTransactions
		if impossible || t.byID[s.ID] != nil {
			r.fail()
		}
		if r.bad {
			return
		}
		t.byID[s.ID] = n
		t.list(n)
	}
}
