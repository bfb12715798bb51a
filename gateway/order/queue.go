package order

import (
	"cmp"
	"context"
	"slices"

	"github.com/trimaran-io/trimaran/fsm"
)

const (
	// maxCoalesced bounds the bytes of produces that are sent on together with the
	// first of them, in one append.
	maxCoalesced = 1 << 20
	// maxUnderWay bounds the appends of a queue that are under way at once: as many as Kafka's
	// clients have requests in flight by default. What comes meanwhile goes together in the next
	// one, so the slower the cluster, the larger the appends.
	maxUnderWay = 5
	// maxBytesUnderWay is what they have together from which on none is added: a leader does with
	// few large ones better than with many, and large ones fill a pipe alone.
	maxBytesUnderWay = 256 << 10
)

// queue is the produces of one connection to one partition. Queues.mu guards all of it.
//
// It is in one of three states:
//
//   - It sends one append after the other into a pipe, without waiting for the one in front; or, in
//     rounds (pace), when that is over and what the client has in flight is there again.
//   - One of those failed. Nothing is sent until all that are under way are over. Then what was
//     surely not appended, or can be told from itself if it was, is put back in front, in its
//     order, and the others are told why they failed.
//   - It has no pipe: so after a failure, and while no leader is known. Then one append is under
//     way at a time, which may wait for a leader and be tried again. When one has succeeded there
//     may be a pipe.
//
// So nothing is sent twice beside itself, and nothing overtakes what its client does not know the
// fate of: in a pipe what is behind a failure is not appended (Appender.Pipe), and out of it
// nothing else is under way.
type queue struct {
	id      fsm.PartitionID
	waiting []*Produce // in order, not sent, or sent in vain
	pipe    pipe       // nil: there is none, or it has failed
	number  uint32     // of the next append in the pipe
	sent    int        // appends under way
	bytes   int        // in them
	failed  []*send    // of the pipe; then nothing is sent

	outstanding int   // produces in waiting and in appends under way
	pace        *pace // nil: there was never more than one outstanding, or something to others
	hold        *hold // of the next round; nil: it waits for nothing
}

// hold is a round that waits for more produces.
type hold struct {
	passed bool // it has waited for long enough
	stop   func()
}

// next takes what can be sent now. What is over without that is added to over.
func (l *queue) next(q *Queues, over []*Produce) (sends []*send, _ []*Produce) {
	for l.failed == nil && len(l.waiting) > 0 && l.waiting[0].ready && l.room() && !l.holds(q) {
		s := &send{queue: l, pipe: l.pipe, round: l.inRounds()}
		n := 0
		for _, p := range l.waiting {
			if !p.ready || n > 0 && s.bytes+p.bytes > maxCoalesced || len(s.produces) > 0 && p.txn != s.txn {
				break
			}
			n++
			if p.err == nil {
				p.err = q.passGap(l.id, p)
			}
			var awaited context.Context
			if p.err == nil && p.awaited != nil {
				if awaited = p.awaited(); awaited.Err() != nil {
					p.err = errLeft
				}
			}
			if p.err != nil || len(p.batches) == 0 {
				over = append(over, p)
				l.outstanding--
				continue
			}
			s.txn, s.awaited = p.txn, awaited
			s.produces, s.batches, s.bytes = append(s.produces, p), append(s.batches, p.batches...), s.bytes+p.bytes
			if p.until.After(s.until) {
				s.until = p.until
			}
		}
		l.waiting = slices.Delete(l.waiting, 0, n) // which lets go of them, too
		if len(s.produces) == 0 {
			continue
		}
		if s.pipe != nil {
			s.number = l.number
			l.number++
		}
		l.sent++
		l.bytes += s.bytes
		sends = append(sends, s)
	}
	if len(l.waiting) == 0 && l.sent == 0 {
		delete(q.queues, l.id)
	}
	return sends, over
}

// room says whether one more append may be under way.
func (l *queue) room() bool {
	if l.pipe == nil || l.inRounds() {
		return l.sent == 0
	}
	return l.sent < maxUnderWay && l.bytes < maxBytesUnderWay
}

// inRounds says whether the next append is to have all that the client has in flight.
func (l *queue) inRounds() bool { return l.pace != nil && l.pace.rounds && l.pipe != nil }

// holds says whether the next round waits for more produces. Nothing is under way, and the first
// that waits is ready. When it has waited for long enough the queue goes on.
func (l *queue) holds(q *Queues) bool {
	if !l.inRounds() || l.hold != nil && l.hold.passed || l.whole() {
		l.release()
		return false
	}
	if l.hold == nil {
		h := &hold{}
		l.hold = h
		h.stop = q.cfg.After(l.pace.hold(), func() { q.passed(l, h) })
	}
	return true
}

// whole says whether there is as much as a round waits for.
func (l *queue) whole() bool {
	n, bytes := 0, 0
	for _, p := range l.waiting {
		if !p.ready {
			break
		}
		n++
		bytes += p.bytes
	}
	return n >= l.pace.window || bytes >= maxBytesUnderWay
}

// release ends a hold.
func (l *queue) release() {
	if l.hold != nil {
		l.hold.stop()
		l.hold = nil
	}
}

// ended takes an append's outcome, and gives the produces that are over by that.
func (l *queue) ended(q *Queues, s *send, appended []fsm.Appended, err error) (over []*Produce) {
	l.sent--
	l.bytes -= s.bytes
	l.outstanding -= len(s.produces)
	if l.pace != nil {
		if err != nil {
			l.pace.leave()
		} else {
			l.pace.ended(len(s.produces), s.bytes, l.outstanding, s.round, s.took)
		}
	}
	switch {
	case err == nil:
		for _, p := range s.produces {
			p.take(appended[:len(p.batches)])
			appended = appended[len(p.batches):]
			if p.outOfTransaction() {
				q.openGap(l.id, p)
			}
		}
		over = s.produces
		if s.pipe == nil {
			l.pipe, l.number = s.next, 0
		}
	case s.pipe == nil:
		for _, p := range s.produces {
			p.err = err
			q.openGap(l.id, p)
		}
		over = s.produces
	default:
		s.err = err
		l.failed = append(l.failed, s)
	}
	if l.failed != nil && l.sent == 0 {
		over = l.drained(q, over)
	}
	return over
}

// drained goes on when one in the pipe has failed and all are over.
func (l *queue) drained(q *Queues, over []*Produce) []*Produce {
	slices.SortFunc(l.failed, func(a, b *send) int { return cmp.Compare(a.number, b.number) })
	var again []*Produce
	for _, s := range l.failed {
		for _, p := range s.produces {
			if p.again(s.err) {
				again = append(again, p)
				continue
			}
			p.err = s.err
			q.openGap(l.id, p)
			over = append(over, p)
		}
	}
	l.waiting = append(again, l.waiting...)
	l.outstanding += len(again)
	l.failed, l.pipe = nil, nil
	return over
}
