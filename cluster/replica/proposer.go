package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/locks"
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
// may fail. Markers of transactions are judged in the same way; transactions.go has what may begin
// one.
type proposer struct {
	*pump[*submission, proposal]
	records *Records
	next    fsm.Offset // what the next batch is stamped with; owned by who forms entries
	lost    *loss      // nil: nothing is; owned by who decides

	// producersMu guards producers, joins and asking. The replica's mu may be taken under it;
	// nothing is waited for.
	producersMu locks.Mutex[proposer]
	producers   fsm.ProducersAhead
	joins       map[joining]*join  // under way
	asking      map[int64][]asking // those of joins that somebody waits for, by producer
}

// submission is one call of append: its batches become neighbours in the log.
type submission struct {
	ctx     context.Context
	batches []kafkaproto.Batch
	markers []fsm.Marker    // in place of batches
	admits  []fsm.Admission // of each batch; nil: of none
	place   calls.Place
	control []byte // a control command, in place of batches: an entry of its own
	// restored: the batches keep their offsets and leader epochs, in an entry of their own. unfit
	// is set when it is formed: why they have no place.
	restored bool
	unfit    error
	bytes    int
	fate     chan fate // buffered: the proposer never waits for a caller

	// Set when it is put in order; nil: it stands in no line.
	line *line

	// Set when an entry is formed: what was made of each batch or marker. nil: all are proposed.
	verdicts []fsm.Verdict
}

// items counts the batches or markers.
func (s *submission) items() int { return len(s.batches) + len(s.markers) }

func (s *submission) caller() context.Context { return s.ctx }
func (s *submission) size() int               { return s.bytes }
func (s *submission) refuse(err error)        { s.fate <- fate{err: err} }

// verdict gives what was made of batch or marker i; the zero Verdict: it was proposed.
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
	base        fsm.Offset // the offset that its first batch was stamped with
	submissions []*submission
	producers   []int64 // of the batches and markers in it that have one
	extensions  []byte  // what its entry is marked with in the log
}

func startProposer(r *Records, term fsm.Term) *proposer {
	p, leadership := &proposer{records: r}, newLeadership(r.Replica, term)
	p.pump = &pump[*submission, proposal]{
		leadership: leadership, what: "partition",
		form: p.form, decide: p.decide, refusal: leadership.notLeader, extensions: func(p proposal) []byte { return p.extensions },
		order:    newLines(),
		queue:    make(chan *submission),
		inFlight: make(chan pumped[proposal], raftgroup.MaxInFlight),
	}
	p.start(p.run)
	return p
}

// append puts batches into the log, at their place in their line, and returns when they are
// committed and applied here. Nothing was appended if outcome.NotAppended(err).
func (p *proposer) append(ctx context.Context, place calls.Place, txn fsm.Transaction, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
	s := &submission{ctx: ctx, batches: batches, place: place, fate: make(chan fate, 1)}
	transactional := false
	for _, batch := range batches {
		header := batch.Header()
		if batch.Size() == 0 {
			return nil, fmt.Errorf("%w: not a record batch", outcome.ErrCorruptMessage)
		}
		if header.ProducerID >= 0 && !fsm.Idempotent(header) {
			return nil, fmt.Errorf("%w: producer %d with epoch %d and sequence number %d", outcome.ErrCorruptMessage, header.ProducerID, header.ProducerEpoch, header.BaseSequence)
		}
		if header.Control() || header.Transactional() && header.ProducerID < 0 {
			return nil, fmt.Errorf("%w: a batch with attributes %#x of producer %d", outcome.ErrCorruptMessage, header.Attributes, header.ProducerID)
		}
		transactional = transactional || header.Transactional()
		s.bytes += batch.Size()
	}
	if err := p.replica.env.Host.Room(p.replica.Member); err != nil {
		return nil, err
	}
	if topic, ok := p.replica.env.Host.Topics().ByID(p.replica.ID.Topic); ok && topic.Restoring {
		return nil, fmt.Errorf("%w: the topic is being restored from a backup", outcome.ErrNoLeader)
	}
	if transactional && p.replica.env.Host.Topics().FeatureLevel() < fsm.LevelTransactions {
		// Whoever sent it knows a higher level, which will soon be known here.
		return nil, fmt.Errorf("%w: transactions are not known to be allowed", outcome.ErrNoLeader)
	}
	if transactional {
		s.admits = p.admit(ctx, place.Client(), txn, batches)
		defer p.release(s.admits)
	}
	return p.submitAndWait(ctx, s)
}

// control puts a control command of package fsm into the log and returns when it
// is applied here.
func (p *proposer) control(ctx context.Context, command []byte) error {
	_, err := p.submitAndWait(ctx, &submission{ctx: ctx, control: command, bytes: maxEntryBytes, fate: make(chan fate, 1)})
	return err
}

func (p *proposer) submitAndWait(ctx context.Context, s *submission) ([]fsm.Appended, error) {
	if err := p.submit(ctx, s); err != nil {
		return nil, err
	}
	f, err := awaitFate(ctx, p.leadership, s.fate)
	if err != nil {
		return nil, err
	}
	return f.appended, f.err
}

// run waits for the barrier, and then takes submissions.
func (p *proposer) run() {
	if !p.barrier() {
		p.fail()
		return
	}
	_, p.next = p.records.Bounds()
	p.begin()
	p.propose()
}

// form stamps batches and puts them together.
func (p *proposer) form(taken []*submission) (proposal, []byte) {
	entry := proposal{submissions: taken, base: p.next}
	var parts [][]byte
	size := 0
	for _, s := range taken {
		if s.control != nil {
			parts = append(parts, s.control)
		}
		if s.restored {
			var data []byte
			data, entry.extensions = p.formRestored(s)
			return entry, data
		}
		for i, batch := range s.batches {
			header := batch.Header()
			if fsm.Idempotent(header) {
				if !p.take(s, i, header, p.next) {
					continue
				}
				entry.producers = append(entry.producers, header.ProducerID)
			}
			// the bytes; the caller's value stays as it is
			batch.Stamp(int64(p.next), int32(p.term.Epoch()))
			p.next += fsm.Offset(header.LastOffsetDelta) + 1
			parts = append(parts, batch.Bytes())
			size += batch.Size()
		}
		for i, m := range s.markers {
			batch, taken := p.takeMarker(s, i, m)
			if !taken {
				continue
			}
			entry.producers = append(entry.producers, m.ProducerID)
			batch.Stamp(int64(p.next), int32(p.term.Epoch()))
			p.next++
			parts = append(parts, batch.Bytes())
			size += batch.Size()
		}
	}
	switch len(parts) {
	case 0:
		return entry, nil
	case 1:
		return entry, parts[0]
	}
	data := make([]byte, 0, size)
	for _, part := range parts {
		data = append(data, part...)
	}
	return entry, data
}

// take judges batch i of s, which an idempotent producer sent. If it is neither
// there already nor refused, it is now in flight, with base as its first offset.
func (p *proposer) take(s *submission, i int, header kafkaproto.BatchHeader, base fsm.Offset) bool {
	var admission fsm.Admission
	if s.admits != nil {
		admission = s.admits[i]
	}
	p.producersMu.Lock()
	defer p.producersMu.Unlock()
	return s.judged(i, p.producers.Take(header, base, admission, p.records))
}

// judged notes what was made of batch or marker i, and says whether it is proposed.
func (s *submission) judged(i int, v fsm.Verdict) bool {
	if !v.Duplicate && v.Err == nil {
		return true
	}
	if s.verdicts == nil {
		s.verdicts = make([]fsm.Verdict, s.items())
	}
	s.verdicts[i] = v
	return false
}

// applied says that the state machine knows of these producers' batches and markers.
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

// lose notes that an entry did not become what was proposed: nothing more is taken.
func (p *proposer) lose(entry proposal, err error) {
	p.fail()
	if p.lost == nil {
		p.lost = &loss{entry.base, err}
	}
}

// decide tells every submission of an entry its fate.
func (p *proposer) decide(entry proposal, proposed bool, response any, err error) {
	if err != nil {
		err = p.proposalError(err)
		p.lose(entry, err)
		for _, s := range entry.submissions {
			s.refuse(err)
		}
		return
	}
	var applied fsm.Applied
	if proposed {
		var ok bool
		if applied, ok = response.(fsm.Applied); !ok {
			applied.Err = fmt.Errorf("%w: unexpected answer of the state machine", outcome.ErrUnknown)
		}
		if applied.Breach != nil {
			p.replica.env.Logger.Error("a batch is in the log that its producer should not have got there", "partition", p.replica.ID, "error", applied.Breach)
		}
	}
	if slices.ContainsFunc(applied.Batches, func(a fsm.Appended) bool { return a.BaseOffset < 0 }) {
		p.lose(entry, errors.Join(outcome.ErrVoid, applied.Err))
	}
	results := applied.Batches
	for _, s := range entry.submissions {
		if s.control != nil {
			s.fate <- fate{err: applied.Err} // a refused one moves no offsets
			continue
		}
		if s.restored {
			s.fate <- fate{appended: applied.Batches, err: cmp.Or(s.unfit, applied.Err)}
			continue
		}
		var f fate
		if f, results = p.fateOf(s, results, applied.Err); outcome.Code(f.err) == outcome.ErrVoid {
			p.lose(entry, f.err)
		}
		s.fate <- f
	}
	p.applied(entry.producers)
}

// fateOf gives the fate of a submission whose entry, if it needed one, is applied.
// results are what the entry's batches became, from this submission's on; those of
// the submissions behind it are given back.
func (p *proposer) fateOf(s *submission, results []fsm.Appended, why error) (fate, []fsm.Appended) {
	own := make([]fsm.Appended, s.items())
	start, _ := p.replica.Bounds()
	appended, void := 0, 0
	var failed error
	for i := range own {
		switch v := s.verdict(i); {
		case v.Duplicate && s.markers != nil:
			own[i] = fsm.Appended{BaseOffset: -1, LogStart: start}
			if v.Begun {
				own[i].Err = outcome.ErrConcurrentTransactions
			}
			if p.lost != nil && failed == nil {
				failed = p.notLeader() // the first may be among what is lost
			}
		case v.Duplicate:
			own[i] = fsm.Appended{BaseOffset: v.Original.Base, LogStart: start, Timestamp: v.Original.Timestamp}
			if p.lost != nil && v.Original.Base >= p.lost.from {
				failed = p.lost.err // of the first, so of this one
			}
		case v.Err != nil:
			own[i] = fsm.Appended{BaseOffset: -1, LogStart: start, Err: outcome.Code(v.Err)}
			if p.lost != nil && failed == nil {
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
		// a part is in the log: not to be sent again
		return fate{err: outcome.ErrUnknownFate}, results
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
