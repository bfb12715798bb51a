package order

import (
	"time"

	"github.com/trimaran-io/trimaran/fsm"
)

const (
	// mostInRound is the largest window that a client is waited for to fill, if that has less than
	// maxBytesUnderWay. What has more in flight fills appends without that.
	mostInRound = 16
	// evidence is how many times in a row a window is seen to be filled before it is waited for,
	// and mostEvidence what that becomes where it was waited for in vain.
	evidence, mostEvidence = 4, 1024
	// maxHold bounds how long an append waits for a window to be filled.
	maxHold = 500 * time.Microsecond
)

// pace is what is known of how a client sends to the one partition that it sends to. A client that
// has a window of requests in flight and sends one for each answer (a closed loop) gets what it
// sends appended in rounds: one append is under way at a time, and has the whole window. Without
// that, appends of the pipeline that were begun one after the other come to share the leader's work
// in ones and fours, and the client sends its requests as they are answered: in ones and fours. Who
// sends whenever there is something to send (an open loop) is not waited for. Nor is who sends to
// several partitions at once: appends to them share the leaders' work in any case, and where one
// request has all of them, it would be held up by each.
//
// It is a value that is told what happens; queue acts on it.
type pace struct {
	partition fsm.PartitionID

	rounds bool
	window int // the most produces outstanding at once, as it was last judged
	peak   int // the same since then
	over   int // how many are over since then, out of rounds
	filled int // how often the window was filled: in a row, or in these rounds
	need   int // how often in a row it has to be for rounds to begin
	lean   int // rounds in a row that went without the whole window

	took time.Duration // by the last append
	last time.Time     // when that ended
}

// added tells how many produces are outstanding, with one that has come now.
func (p *pace) added(outstanding int) {
	p.peak = max(p.peak, outstanding)
	if p.rounds && outstanding > p.window {
		p.mistaken()
	}
}

// paused tells that the first produce has come since none was outstanding. Who was away for longer
// than some appends take may come back with less.
func (p *pace) paused() {
	if p.rounds && time.Since(p.last) > 4*p.took {
		p.leave()
	}
}

// ended tells that an append of so many produces has succeeded, with bytes in them, which took that
// long, and how many produces are outstanding now; round: it was a round.
func (p *pace) ended(produces, bytes, outstanding int, round bool, took time.Duration) {
	p.took, p.last = took, time.Now()
	if p.rounds {
		p.peak = outstanding
		switch {
		case !round:
		case produces >= p.window:
			p.filled++
			p.lean = 0
		default:
			if p.lean++; p.lean == 2 {
				p.mistaken()
			}
		}
		return
	}
	if p.over += produces; p.over < p.peak {
		return
	}
	if p.peak == p.window {
		p.filled++
	} else {
		p.window, p.filled = p.peak, 0
	}
	p.peak, p.over = outstanding, 0
	large := p.window*bytes >= maxBytesUnderWay*produces
	if p.filled >= p.need && p.window >= 2 && p.window <= mostInRound && !large {
		p.rounds, p.filled = true, 0
	}
}

// mistaken leaves rounds that the client does not keep to. If it hardly ever did, more evidence is
// needed for the next ones.
func (p *pace) mistaken() {
	if p.filled < 2*evidence {
		p.need = min(2*p.need, mostEvidence)
	} else {
		p.need = evidence
	}
	p.leave()
}

// leave goes back to the pipeline.
func (p *pace) leave() { p.rounds, p.filled, p.lean, p.over = false, 0, 0, 0 }

// hold is how long the next round may wait for the window.
func (p *pace) hold() time.Duration { return min(p.took/2, maxHold) }
