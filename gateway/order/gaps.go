package order

import (
	"fmt"
	"math"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// gap is the place in a producer's sequence of a batch that failed and may be sent
// again. What the producer had in flight behind it must fail, too, as it would at
// a broker that led the partition no longer: a new leader may know nothing of the
// producer, and would take the second batch for its beginning.
type gap struct {
	producer int64
	epoch    int16
	sequence int32 // of the batch that failed
	left     int   // batches that can have been sent before the failure was told
}

// covers reports whether the batch is one of those behind the gap.
func (g gap) covers(h kafkaproto.BatchHeader) bool {
	behind := (h.BaseSequence - g.sequence) & math.MaxInt32 // sequence numbers wrap at 2^31
	return g.left > 0 && h.ProducerID == g.producer && h.ProducerEpoch == g.epoch && behind > 0 && behind < 1<<30
}

// openGap remembers that the produce failed, if it is an idempotent producer's. q.mu is held.
func (q *Queues) openGap(id fsm.PartitionID, p *Produce) {
	h, ok := p.idempotent()
	if !ok {
		return
	}
	if g, open := q.gaps[id]; !open || !g.covers(h) {
		q.gaps[id] = gap{producer: h.ProducerID, epoch: h.ProducerEpoch, sequence: h.BaseSequence, left: fsm.ProducerBatches - 1}
	}
}

// passGap refuses a produce that the producer sent when it did not know yet that one
// before it failed. q.mu is held.
func (q *Queues) passGap(id fsm.PartitionID, p *Produce) error {
	h, ok := p.idempotent()
	if !ok {
		return nil
	}
	g, open := q.gaps[id]
	if !open {
		return nil
	}
	if g.covers(h) {
		g.left--
		q.gaps[id] = g
		return fmt.Errorf("%w: the batch with sequence number %d was not appended", outcome.ErrNotLeader, g.sequence)
	}
	if h.ProducerID == g.producer && (g.left == 0 || h.BaseSequence == g.sequence || h.ProducerEpoch != g.epoch) {
		delete(q.gaps, id)
	}
	return nil
}
