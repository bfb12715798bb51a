package order

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// errIncomplete is what a produce's batches are if nobody gets to make them.
var errIncomplete = errors.New("produce was not worked on")

// errLeft is what becomes of batches that nobody awaits any more.
var errLeft = fmt.Errorf("%w: the client has closed its connection", outcome.ErrNoLeader)

// Produce is what one request has for one partition. Whoever makes it calls Init, Queues.Add, Fill
// or not, and Queues.Ready; then it is told when the outcome is there.
type Produce struct {
	partition fsm.PartitionID
	until     time.Time // when Append may give up
	done      func()

	// Set before Ready, by who makes it.
	batches []kafkaproto.Batch
	bytes   int
	stamped int64           // LogAppendTime of its records, ms since epoch; -1: they have their own
	txn     fsm.Transaction // that the batches belong to
	awaited func() context.Context
	err     error // not fit to be appended

	ready bool // guarded by Queues.mu

	// over is true when the outcome is there, and nothing changes any more. Until then, and once it
	// is ready, the queues own what is above and here.
	over     atomic.Bool
	base     fsm.Offset // of the first record; -1 if there is none
	logStart fsm.Offset // when it was appended; -1 if there is none
}

// Init makes an empty produce for a partition, whose append may give up at a time. done is called
// once, when the outcome is there, by whoever brought that about; it must not wait for anything.
func (p *Produce) Init(partition fsm.PartitionID, until time.Time, done func()) {
	p.partition, p.until, p.done = partition, until, done
	p.batches, p.bytes, p.stamped, p.err, p.ready = nil, 0, -1, errIncomplete, false
	p.txn, p.awaited = fsm.Transaction{}, nil
	p.over.Store(false)
	p.base, p.logStart = -1, -1
}

// InTransaction says before Ready that the batches belong to a transaction. Those of one connection
// that have the same one have the same awaited, which gives the context that ends when they are not
// to be appended any more; it must not wait. nil: they are in any case.
func (p *Produce) InTransaction(txn fsm.Transaction, awaited func() context.Context) {
	p.txn, p.awaited = txn, awaited
}

// Fill puts batches into the produce, none for an empty record set. stamped is the LogAppendTime of
// their records, ms since epoch, -1 if they have times of their own. With an error nothing is
// appended.
func (p *Produce) Fill(batches []kafkaproto.Batch, stamped int64, err error) {
	p.batches, p.stamped, p.err = batches, stamped, err
	p.bytes = 0
	for i := range batches {
		p.bytes += batches[i].Size()
	}
}

// Outcome is nil if the batches are committed, or if there are none. over is false as long as it is
// not known.
func (p *Produce) Outcome() (err error, over bool) {
	if !p.over.Load() {
		return nil, false
	}
	return p.err, true
}

// Place is where the batches are, when they are there: the offset of the first record, the log
// start offset at that time, and the LogAppendTime, ms since epoch, of the records. Each is -1 if
// there is none.
func (p *Produce) Place() (base, logStart fsm.Offset, stamped int64) {
	if len(p.batches) == 0 {
		return p.base, p.logStart, -1
	}
	return p.base, p.logStart, p.stamped
}

// Bytes is the size of the batches.
func (p *Produce) Bytes() int { return p.bytes }

// take keeps what became of the produce's batches.
func (p *Produce) take(appended []fsm.Appended) {
	p.base, p.logStart = appended[0].BaseOffset, appended[0].LogStart
	for _, a := range appended {
		switch {
		case a.Err != 0:
			p.base, p.logStart, p.err = -1, -1, a.Err
		case a.BaseOffset < 0:
			p.base, p.logStart, p.err = -1, -1, outcome.ErrVoid
		}
	}
	if p.err == nil && p.stamped >= 0 {
		p.stamped = appended[0].Timestamp // another than ours if it was there already
	}
}

// outOfTransaction says whether the batches were refused since their transaction does not have
// them.
func (p *Produce) outOfTransaction() bool {
	switch outcome.Code(p.err) {
	case 0, outcome.ErrVoid, outcome.ErrOutOfOrderSequence, outcome.ErrInvalidProducerEpoch:
		return false
	}
	return true
}

// again says whether the batches may be sent once more after that error, without a record being
// there twice, and makes them ready for it.
func (p *Produce) again(err error) bool {
	if !outcome.NotAppended(err) {
		if _, ok := p.idempotent(); !ok || outcome.Code(err) != outcome.ErrUnknownFate {
			return false
		}
	}
	// What was sent may still be on its way somewhere: those bytes are not to be written to.
	for i := range p.batches {
		p.batches[i] = p.batches[i].Clone()
	}
	return true
}

// idempotent gives the header of the produce's batch if it has a producer id. Then it
// is the only one: requests that can carry producer ids carry one batch each.
func (p *Produce) idempotent() (kafkaproto.BatchHeader, bool) {
	if len(p.batches) != 1 {
		return kafkaproto.BatchHeader{}, false
	}
	h := p.batches[0].Header()
	return h, fsm.Idempotent(h)
}
