package order

import (
	"errors"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// errIncomplete is what a produce's batches are if nobody gets to make them.
var errIncomplete = errors.New("produce was not worked on")

// Produce is what one request has for one partition. Whoever makes it calls Init, Queues.Add, Fill
// or not, and Ready; then its outcome can be waited for.
type Produce struct {
	partition fsm.PartitionID
	until     time.Time // when Append may give up

	// Set before ready is closed.
	ready   chan struct{}
	batches []kafkaproto.Batch
	bytes   int
	stamped int64 // LogAppendTime of its records, ms since epoch; -1: they have their own
	err     error // not fit to be appended

	// Set before done is closed. err may be set, too.
	done     chan struct{}
	base     fsm.Offset // of the first record; -1 if there is none
	logStart fsm.Offset // when it was appended; -1 if there is none
}

// Init makes an empty produce for a partition, whose append may give up at a time.
func (p *Produce) Init(partition fsm.PartitionID, until time.Time) {
	*p = Produce{
		partition: partition, until: until, ready: make(chan struct{}), done: make(chan struct{}),
		stamped: -1, err: errIncomplete,
	}
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

// Ready lets the queue go on with the produce, filled or not. It is called once.
func (p *Produce) Ready() { close(p.ready) }

func (p *Produce) isReady() bool {
	select {
	case <-p.ready:
		return true
	default:
		return false
	}
}

// Done is closed when the produce has its outcome.
func (p *Produce) Done() <-chan struct{} { return p.done }

// Wait waits for the outcome: nil if the batches are committed, or if there are none. It is
// outcome.ErrTimeout if expired is closed first.
func (p *Produce) Wait(expired <-chan struct{}) error {
	locks.MayWait("what becomes of a produce")
	select {
	case <-p.done:
		return p.err
	default:
	}
	select {
	case <-p.done:
		return p.err
	case <-expired:
		return outcome.ErrTimeout
	}
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

// idempotent gives the header of the produce's batch if it has a producer id. Then it
// is the only one: requests that can carry producer ids carry one batch each.
func (p *Produce) idempotent() (kafkaproto.BatchHeader, bool) {
	if len(p.batches) != 1 {
		return kafkaproto.BatchHeader{}, false
	}
	h := p.batches[0].Header()
	return h, fsm.Idempotent(h)
}
