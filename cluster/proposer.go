package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// proposer is the only one that proposes records while its replica leads in one
// term. It stamps base offset and leader epoch into every batch before
// raft.Apply, counting from the state machine's next offset after a barrier, and
// the state machine checks the stamps again.
//
// When any entry fails, everything behind it carries offsets that will not be
// the next ones. So a proposer that saw a failure takes nothing more, waits for
// the fate of all it has proposed, and is replaced.
//
// Batches of idempotent producers are judged before they are stamped, on the state
// machine's producers and what is in flight (fsm.ProducersAhead). One that is there
// already is not proposed; it is answered with the place of the first, when that is
// committed. All verdicts are told in the order of the log, since what they rest on
// may fail.
type proposer struct {
	*tenure
	records *records

	producersMu sync.Mutex // guards producers; the replica's mu may be taken under it
	producers   fsm.ProducersAhead

	submissions chan *submission
	inFlight    chan proposal // proposed, in order, not yet decided
}

// submission is one call of append: its batches become neighbours in the log.
type submission struct {
	ctx     context.Context
	batches [][]byte
	control []byte // a control command, in place of batches: an entry of its own
	bytes   int
	fate    chan fate // buffered: the proposer never waits for a caller

	// Set by propose: what was made of each batch. nil: all are proposed.
	verdicts []fsm.Verdict
}

// verdict gives what was made of batch i; the zero Verdict: it was proposed.
func (s *submission) verdict(i int) fsm.Verdict {
	if s.verdicts == nil {
		return fsm.Verdict{}
	}
	return s.verdicts[i]
}

type fate struct {
	appended []fsm.Appended
	err      error
}

// proposal is one Raft entry and the submissions in it.
type proposal struct {
	future      raft.ApplyFuture // nil: nothing in it had to be proposed
	base        fsm.Offset       // the offset that its first batch was stamped with
	submissions []*submission
	producers   []int64 // of the batches in it that have one
}

func startProposer(r *records, term fsm.Term) *proposer {
	p := &proposer{
		tenure: newTenure(r.replica, term), records: r,
		submissions: make(chan *submission),
		inFlight:    make(chan proposal, maxEntriesInFlight),
	}
	p.done.Add(2)
	go func() { defer p.done.Done(); p.propose() }()
	go func() { defer p.done.Done(); p.decide() }()
	return p
}

// end makes the proposer take nothing more and waits until all that it has
// proposed has its fate.
func (p *proposer) end() {
	p.cancel()
	p.done.Wait()
}

// append puts batches into the log and returns when they are committed and
// applied here. Nothing was appended if outcome.NotAppended(err).
func (p *proposer) append(ctx context.Context, batches [][]byte) ([]fsm.Appended, error) {
	s := &submission{ctx: ctx, batches: batches, fate: make(chan fate, 1)}
	for _, batch := range batches {
		// Whoever brings it has checked it; bytes that are no batch could read as a
		// control command.
		header, err := kafkaproto.ParseBatchHeader(batch)
		if err != nil || header.Size() != len(batch) {
			return nil, fmt.Errorf("%w: not a record batch: %v", outcome.ErrCorruptMessage, err)
		}
		if header.ProducerID >= 0 && !fsm.Idempotent(header) {
			return nil, fmt.Errorf("%w: producer %d with epoch %d and sequence number %d", outcome.ErrCorruptMessage, header.ProducerID, header.ProducerEpoch, header.BaseSequence)
		}
		s.bytes += len(batch)
	}
	if err := p.replica.room(); err != nil {
		return nil, err
	}
	return p.submit(ctx, s)
}

// control puts a control command of package fsm into the log and returns when it
// is applied here.
func (p *proposer) control(ctx context.Context, command []byte) error {
	_, err := p.submit(ctx, &submission{ctx: ctx, control: command, bytes: maxEntryBytes, fate: make(chan fate, 1)})
	return err
}

func (p *proposer) submit(ctx context.Context, s *submission) ([]fsm.Appended, error) {
	select {
	case p.submissions <- s:
	case <-p.ctx.Done():
		return nil, p.notLeader()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: the partition's queue was full", outcome.ErrNoLeader)
	}
	select {
	case f := <-s.fate:
		return f.appended, f.err
	case <-p.abandoned:
		return nil, fmt.Errorf("%w: the leader's disk hangs", outcome.ErrUnknownFate)
	case <-ctx.Done():
		// It may be in the log by now or come there.
		return nil, fmt.Errorf("%w: %w", outcome.ErrTimeout, ctx.Err())
	}
}

// propose waits for the barrier and then turns submissions into Raft entries.
func (p *proposer) propose() {
	defer close(p.inFlight)
	if !p.barrier() {
		p.fail()
		return
	}
	_, next := p.records.bounds()
	p.begin()

	var carried *submission // did not fit the entry before
	for {
		first := carried
		carried = nil
		if first == nil {
			select {
			case first = <-p.submissions:
			case <-p.ctx.Done():
				return
			}
		}
		taken, size := []*submission{first}, first.bytes
	more:
		for size < maxEntryBytes {
			select {
			case s := <-p.submissions:
				if size+s.bytes > maxEntryBytes {
					carried = s
					break more
				}
				taken, size = append(taken, s), size+s.bytes
			default:
				break more
			}
		}
		entered := p.replica.group.proposals.enter(p.ctx)
		if !entered || p.ctx.Err() != nil {
			// Failed meanwhile, or the leadership has gone: none of these was stamped.
			if entered {
				p.replica.group.proposals.leave()
			}
			p.refuse(append(taken, carriedList(carried)...))
			return
		}
		entry := proposal{submissions: taken[:0], base: next}
		var data []byte
		var parts [][]byte
		for _, s := range taken {
			if s.ctx.Err() != nil {
				// Nobody waits any more, and a request that came later over a newer
				// connection may be in the log already.
				s.fate <- fate{err: fmt.Errorf("%w: %w", outcome.ErrNoLeader, s.ctx.Err())}
				continue
			}
			entry.submissions = append(entry.submissions, s)
			if s.control != nil {
				parts = append(parts, s.control)
			}
			for i, batch := range s.batches {
				header, _ := kafkaproto.ParseBatchHeader(batch) // checked by append
				if fsm.Idempotent(header) {
					if !p.take(s, i, header, next) {
						continue
					}
					entry.producers = append(entry.producers, header.ProducerID)
				}
				kafkaproto.StampBatch(batch, int64(next), int32(p.term.Epoch()))
				next += fsm.Offset(header.LastOffsetDelta) + 1
				parts = append(parts, batch)
			}
		}
		if len(entry.submissions) == 0 {
			p.replica.group.proposals.leave()
			continue
		}
		if len(parts) > 0 {
			if data = parts[0]; len(parts) > 1 {
				data = make([]byte, 0, size)
				for _, part := range parts {
					data = append(data, part...)
				}
			}
			entry.future = p.replica.group.raft.Apply(data, 0)
		}
		p.inFlight <- entry
	}
}

func carriedList(s *submission) []*submission {
	if s == nil {
		return nil
	}
	return []*submission{s}
}

func (p *proposer) refuse(submissions []*submission) {
	err := p.notLeader()
	for _, s := range submissions {
		s.fate <- fate{err: err}
	}
}

// take judges batch i of s, which an idempotent producer sent. If it is neither
// there already nor refused, it is now in flight, with base as its first offset.
func (p *proposer) take(s *submission, i int, header kafkaproto.BatchHeader, base fsm.Offset) bool {
	p.producersMu.Lock()
	defer p.producersMu.Unlock()
	verdict := p.producers.Take(header, base, p.records.producer)
	if !verdict.Duplicate && verdict.Err == nil {
		return true
	}
	if s.verdicts == nil {
		s.verdicts = make([]fsm.Verdict, len(s.batches))
	}
	s.verdicts[i] = verdict
	return false
}

// applied says that the state machine knows of these producers' batches.
func (p *proposer) applied(producers []int64) {
	if len(producers) == 0 {
		return
	}
	p.producersMu.Lock()
	defer p.producersMu.Unlock()
	for _, id := range producers {
		p.producers.Applied(id)
	}
}

// loss is the first entry of a proposer that did not become what was proposed.
// Whatever was stamped behind it is void.
type loss struct {
	from fsm.Offset // no batch that this proposer stamped with it or more is in the log
	err  error      // what became of the entry; unknown fate: unless it is in the log after all
}

// decide tells every submission its fate, in the order of the log.
func (p *proposer) decide() {
	var lost *loss
	lose := func(entry proposal, err error) {
		p.fail()
		if lost == nil {
			lost = &loss{entry.base, err}
		}
	}
	for entry := range p.inFlight {
		var applied fsm.Applied
		var err error
		if entry.future != nil {
			err = p.replica.group.await(entry.future)
		}
		p.replica.group.proposals.leave()
		if entry.future != nil {
			if err != nil {
				err = p.proposalError(err)
				lose(entry, err)
				for _, s := range entry.submissions {
					s.fate <- fate{err: err}
				}
				continue
			}
			var ok bool
			if applied, ok = entry.future.Response().(fsm.Applied); !ok {
				applied.Err = fmt.Errorf("%w: unexpected answer of the state machine", outcome.ErrUnknown)
			}
			if applied.Breach != nil {
				p.replica.node.logger.Error("a batch is in the log that its producer should not have got there", "partition", p.replica.id, "error", applied.Breach)
			}
		}
		if slices.ContainsFunc(applied.Batches, func(a fsm.Appended) bool { return a.BaseOffset < 0 }) {
			lose(entry, errors.Join(outcome.ErrVoid, applied.Err))
		}
		results := applied.Batches
		for _, s := range entry.submissions {
			if s.control != nil {
				s.fate <- fate{err: applied.Err} // a refused one moves no offsets
				continue
			}
			var f fate
			if f, results = p.settle(s, results, applied.Err, lost); outcome.Code(f.err) == outcome.ErrVoid {
				lose(entry, f.err)
			}
			s.fate <- f
		}
		p.applied(entry.producers)
	}
}

// settle gives the fate of a submission whose entry, if it needed one, is applied.
// results are what the entry's batches became, from this submission's on; those of
// the submissions behind it are given back.
func (p *proposer) settle(s *submission, results []fsm.Appended, why error, lost *loss) (fate, []fsm.Appended) {
	own := make([]fsm.Appended, len(s.batches))
	start, _ := p.replica.bounds()
	appended, void := 0, 0
	var failed error
	for i := range own {
		switch v := s.verdict(i); {
		case v.Duplicate:
			own[i] = fsm.Appended{BaseOffset: v.Original.Base, LogStart: start, Timestamp: v.Original.Timestamp}
			if lost != nil && v.Original.Base >= lost.from {
				failed = lost.err // of the first, so of this one
			}
		case v.Err != nil:
			own[i] = fsm.Appended{BaseOffset: -1, LogStart: start, Err: outcome.Code(v.Err)}
			if lost != nil && failed == nil {
				failed = p.notLeader() // judged on what may never have been
			}
		case len(results) == 0:
			void++
		default:
			own[i], results = results[0], results[1:]
			if own[i].BaseOffset < 0 {
				void++
			} else {
				appended++
			}
		}
	}
	switch {
	case void > 0 && appended > 0:
		return fate{err: outcome.ErrUnknownFate}, results // a part is in the log: not to be sent again
	case void > 0:
		if failed == nil || outcome.NotAppended(failed) {
			failed = errors.Join(outcome.ErrVoid, why)
		}
		return fate{err: failed}, results
	case failed != nil && appended == 0:
		return fate{err: failed}, results
	case failed != nil:
		return fate{err: outcome.ErrUnknownFate}, results
	}
	return fate{appended: own}, results
}
