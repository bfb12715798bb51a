package fsm

import "github.com/trimaran-io/trimaran/kafkaproto"

// ProducersAhead is what the proposer of a partition knows of producers beyond the
// state machine: the batches that it has proposed and whose entries are not applied
// yet. It judges by both together, so that a batch is found out of order, or a
// duplicate, before it gets a place in the log. It is not safe for concurrent use.
type ProducersAhead struct {
	// byID has a key exactly while batches of that producer are in flight.
	byID map[int64]*producerAhead
}

type producerAhead struct {
	state    ProducerState // the machine's, and the batches in flight
	inFlight int
}

// Verdict is what a proposer makes of a batch.
type Verdict struct {
	// Duplicate: the batch is Original, which is in the log or on its way there.
	Duplicate bool
	Original  ProducerBatch
	// Err, if not nil, is ErrInvalidProducerEpoch or ErrOutOfOrderSequence: the
	// batch must not be proposed.
	Err error
}

// Take judges a batch for which Idempotent holds. If it is neither a duplicate nor
// wrong, it must be proposed at base, and Applied be called when it is applied.
// machine is the state machine's Producer: it may be asked at any time before that,
// but must know all that Applied was called for.
func (a *ProducersAhead) Take(h kafkaproto.BatchHeader, base Offset, machine func(id int64) (ProducerState, bool)) Verdict {
	p := a.byID[h.ProducerID]
	if p == nil {
		p = new(producerAhead)
		known := false
		if p.state, known = machine(h.ProducerID); !known {
			// Nothing is known of the producer, perhaps no more: any sequence number will
			// do, as in Kafka since KIP-360.
			p.state = ProducerState{ID: h.ProducerID, Epoch: h.ProducerEpoch}
			return a.take(p, h, base)
		}
	}
	original, duplicate, err := p.state.Judge(h)
	if duplicate || err != nil {
		return Verdict{Duplicate: duplicate, Original: original, Err: err}
	}
	return a.take(p, h, base)
}

func (a *ProducersAhead) take(p *producerAhead, h kafkaproto.BatchHeader, base Offset) Verdict {
	p.state.add(h, base, p.state.LastAppend)
	p.inFlight++
	if a.byID == nil {
		a.byID = map[int64]*producerAhead{}
	}
	a.byID[h.ProducerID] = p
	return Verdict{}
}

// Applied says that the state machine has applied a batch of that producer which
// was proposed.
func (a *ProducersAhead) Applied(id int64) {
	if p := a.byID[id]; p != nil {
		if p.inFlight--; p.inFlight == 0 {
			delete(a.byID, id)
		}
	}
}
