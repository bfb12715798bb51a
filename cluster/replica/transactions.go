package replica

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// What begins a transaction in a partition. The leader notes a guard, asks the transaction's
// coordinator, and submits the batch with both. The proposer takes it only while the guard holds: a
// marker that comes in between voids it, so that nothing of a transaction gets behind its marker.
// Guards are the proposer's, so one of an earlier leadership never holds.
//
// A batch that the coordinator refuses is submitted as well, with the refusal: it has its place in
// its line, and is judged there. So whoever sends behind it is told in the right order.

// joining is a question to a coordinator.
type joining struct {
	txn      fsm.Transaction
	producer int64
	epoch    int16
	guard    *fsm.Guard
}

// join is a question that is under way. What comes meanwhile waits for the same answer.
type join struct {
	over    chan struct{}
	err     error // valid once over is closed
	left    bool  // likewise: who asked does not wait for the answer any more
	cut     bool  // likewise, and before guarded by producersMu: a marker came meanwhile
	waiting int   // beside the one who asks; guarded by producersMu
}

// admit gets what the transactional ones of the batches need, which a client of that number sent.
// What it gives is to be released.
func (p *proposer) admit(ctx context.Context, client uint16, txn fsm.Transaction, batches []kafkaproto.Batch) []fsm.Admission {
	admits := make([]fsm.Admission, len(batches))
	for i, batch := range batches {
		h := batch.Header()
		if !h.Transactional() {
			continue
		}
		admits[i] = p.admitOne(ctx, txn, h)
		admits[i].Client = client
	}
	return admits
}

// admitOne asks for one batch. The coordinator may let it wait until the producer's last
// transaction is over, whose marker voids the guard: then it is asked again with a new one.
func (p *proposer) admitOne(ctx context.Context, txn fsm.Transaction, h kafkaproto.BatchHeader) (a fsm.Admission) {
	a.Add = txn.Add
	cut := false
	for {
		p.producersMu.Lock()
		if a.Guard != nil {
			if a.Refused != nil && !cut || p.producers.Holds(a.Guard) || ctx.Err() != nil {
				p.producersMu.Unlock()
				return a
			}
			p.producers.Release(a.Guard)
		}
		a.Guard = p.producers.Guard(h, p.records)
		p.producersMu.Unlock()
		if a.Guard == nil {
			return a
		}
		a.Refused, cut = p.join(ctx, joining{txn, h.ProducerID, h.ProducerEpoch, a.Guard})
	}
}

// release says that the batches have their fates.
func (p *proposer) release(admits []fsm.Admission) {
	p.producersMu.Lock()
	defer p.producersMu.Unlock()
	for _, a := range admits {
		if a.Guard != nil {
			p.producers.Release(a.Guard)
		}
	}
}

// join asks the coordinator. The error is why the batch may not begin its transaction here. cut: a
// marker of the producer came, and the answer was not waited for.
func (p *proposer) join(ctx context.Context, q joining) (err error, cut bool) {
	locks.MayWait("a transaction's coordinator")
	if q.txn.ID == "" {
		return fmt.Errorf("%w: without a transactional id", outcome.ErrInvalidTxnState), false
	}
	j, underWay := p.joinUnderWay(q)
	for first := true; underWay; first = false {
		select {
		case <-j.over:
			// A question from before may have been too early: a client of before KIP-890 adds the
			// partition and then sends the batch, which may come while the answer to a late batch
			// of the transaction before is on its way.
			if !j.left && (j.err == nil || !first) {
				return j.err, j.cut
			}
			j, underWay = p.joinUnderWay(q)
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", outcome.ErrNoLeader, ctx.Err()), false
		}
	}
	asks := ctx
	defer func() {
		j.left = asks.Err() != nil
		p.producersMu.Lock()
		delete(p.joins, q)
		p.producersMu.Unlock()
		close(j.over)
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	p.producersMu.Lock()
	p.asking[q.producer] = append(p.asking[q.producer], asking{j, q.guard, cancel})
	p.cutShort(q.producer)
	ended := q.guard.Ended(time.Now().UnixMilli())
	p.producersMu.Unlock()
	j.err = refusal(p.replica.env.Host.JoinTransaction(ctx, q.txn, q.producer, q.epoch, p.replica.ID, ended))
	return j.err, p.answered(q.producer, j)
}

// asking is a question that somebody waits for.
type asking struct {
	*join
	guard  *fsm.Guard
	cancel context.CancelFunc
}

// answered says that nobody waits for the answer any more, and whether it was cut.
func (p *proposer) answered(producer int64, j *join) (cut bool) {
	p.producersMu.Lock()
	defer p.producersMu.Unlock()
	all := slices.DeleteFunc(p.asking[producer], func(a asking) bool { return a.join == j })
	if p.asking[producer] = all; len(all) == 0 {
		delete(p.asking, producer)
	}
	return j.cut
}

// cutShort has nobody wait for what was asked of a producer before its marker. What comes with a
// marker on its way is mostly the transaction behind it: its coordinator is asked anew once the
// marker is taken, and need not let it wait until that is committed (transaction/next.go). What was
// asked since is waited for: its guard holds, and who asked would not ask again. producersMu is
// held.
func (p *proposer) cutShort(producer int64) {
	for _, a := range p.asking[producer] {
		if !p.producers.Holds(a.guard) {
			a.cut = true
			a.cancel()
		}
	}
}

// joinUnderWay gives the question that is under way, or a new one, which whoever called it asks.
func (p *proposer) joinUnderWay(q joining) (j *join, underWay bool) {
	p.producersMu.Lock()
	defer p.producersMu.Unlock()
	if j, underWay = p.joins[q]; underWay {
		j.waiting++
		return j, true
	}
	j = &join{over: make(chan struct{})}
	if p.joins == nil {
		p.joins, p.asking = map[joining]*join{}, map[int64][]asking{}
	}
	p.joins[q] = j
	return j, false
}

// refusal is what a batch is told of an answer to JoinTransaction.
func refusal(err error) error {
	switch outcome.Code(err) {
	case 0, outcome.ErrInvalidTxnState, outcome.ErrConcurrentTransactions, outcome.ErrInvalidProducerEpoch,
		outcome.ErrInvalidProducerIDMapping, outcome.ErrTransactionAbortable:
		return err
	case outcome.ErrProducerFenced:
		// Producers take this one for what it is here (AddPartitionsToTxnManager of Kafka).
		return outcome.With(outcome.ErrInvalidProducerEpoch, err)
	}
	// It is the transaction's coordinator that was not found: nothing was appended.
	return fmt.Errorf("%w: %v", outcome.ErrNoLeader, err)
}

// takeMarker judges marker i of s, and gives the batch that it is in the log if it is taken.
func (p *proposer) takeMarker(s *submission, i int, m fsm.Marker) (batch kafkaproto.Batch, taken bool) {
	p.producersMu.Lock()
	defer p.producersMu.Unlock()
	number, verdict := p.producers.TakeMarker(m, p.records)
	p.cutShort(m.ProducerID)
	if !s.judged(i, verdict) {
		return batch, false
	}
	return kafkaproto.NewMarker(kafkaproto.Marker{Commit: m.Commit, CoordinatorEpoch: number}, m.ProducerID, m.Epoch, time.Now().UnixMilli()), true
}

// markerBytes is what a marker takes in an entry, at most.
const markerBytes = kafkaproto.BatchHeaderSize + 40

// WriteMarkers ends transactions in this partition, and returns when the markers are committed and
// applied here; those that were here before are acknowledged once they are. term is the leadership
// that is meant, 0 for any. The outcome of each marker is 0, or why it was not taken:
// outcome.ErrInvalidProducerEpoch or ErrCorruptMessage. ErrConcurrentTransactions: it was taken
// before, and the producer's next transaction has begun here. That it has not is so of all that
// coordinators were asked for before the call.
func (r *Records) WriteMarkers(ctx context.Context, term uint64, markers []fsm.Marker) ([]outcome.Error, error) {
	p, err := r.proposing()
	if err != nil {
		return nil, err
	}
	if term != 0 && p.term != fsm.Term(term) {
		return nil, raftgroup.NotLeader{Hint: raftgroup.Hint{Identity: r.env.Identity, Term: uint64(p.term)}}
	}
	if r.env.Host.Topics().FeatureLevel() < fsm.LevelTransactions {
		return nil, outcome.ErrFeatureLevel
	}
	for _, m := range markers {
		if m.ProducerID < 0 || m.Epoch < 0 {
			return nil, fmt.Errorf("%w: marker of producer %d with epoch %d", outcome.ErrCorruptMessage, m.ProducerID, m.Epoch)
		}
	}
	if err := r.env.Host.Room(r.Member); err != nil {
		return nil, err
	}
	s := &submission{ctx: ctx, markers: markers, bytes: markerBytes * len(markers), fate: make(chan fate, 1)}
	appended, err := p.submitAndWait(ctx, s)
	if err != nil {
		return nil, err
	}
	if s.verdicts != nil {
		// Whoever was deposed and does not know it does not know what has begun elsewhere.
		if err := r.ReadIndex(ctx, p.term); err != nil {
			return nil, err
		}
	}
	outcomes := make([]outcome.Error, len(appended))
	for i, a := range appended {
		outcomes[i] = a.Err
	}
	return outcomes, nil
}
