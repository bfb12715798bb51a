package replica

import (
	"fmt"
	"maps"
	"time"

	"github.com/trimaran-io/trimaran/outcome"
)

// A line is what one connection of a client appends to one partition. Several appends of it are
// under way at once, and what carries them here keeps no order: each runs in a goroutine of its
// own, and may come over another connection between the nodes, or through a third node. So each
// says where it stands (calls.Place), and a proposer takes them in that order:
//
//   - An append is proposed only if the one in front of it in its run was proposed by this very
//     proposer. One that comes early waits for it, for linePatience.
//   - When one of a run is refused, all behind it are, whenever they come.
//   - When a run has begun, nothing of an older run of its line is proposed any more.
//
// What a proposer has proposed it sees fail in one way only: with all that is behind it. Together
// this is what a gateway relies on: whatever an append's fate is, what was sent behind it in its
// run is behind it in the log or surely not there, and what was sent in a later run is never
// overtaken by it.
//
// A proposer's successor knows no lines, so it refuses what stands in the middle of a run. The
// gateway then waits for the fate of all that it has sent, and begins a new run.
type lines struct {
	// All of it is owned by who proposes.
	byID    map[uint64]*line
	sweepAt int         // lines from which on those that are not used are forgotten
	swept   time.Time   // when they were, last
	parked  int         // submissions that wait for one in front of them
	timer   *time.Timer // runs while any does
}

// line is what a proposer knows of a line.
type line struct {
	run    uint64
	next   uint32 // number of the append of the run that is to come
	broken bool   // one of the run was refused
	used   time.Time
	parked map[uint32]*submission // by number, above next
	since  time.Time              // when the first of them came
}

const (
	// linePatience is how long an append waits for the one in front of it. Longer than a message
	// can overtake another on links that are not overloaded; where it is too short, all is sent
	// again.
	linePatience = time.Second
	// lineMemory is how long a line that is not used is remembered: longer than a message can be on
	// its way between nodes whose session lives.
	lineMemory = time.Minute
	// maxLines bounds the lines that a proposer remembers. More have one append under way at a
	// time.
	maxLines = 4096
	// shortMemory is lineMemory where there are maxLines, so that connections that are used have
	// pipelines though many others were. A session ends after a second of silence: what has been
	// under way for longer is not on one that lives.
	shortMemory = 5 * time.Second
	// fewLines are not worth looking through.
	fewLines = 64
)

// errBehind is why an append is refused for what happened to another. Nothing happened.
var errBehind = fmt.Errorf("%w: an append in front of it was not taken", outcome.ErrVoid)

func newLines() *lines {
	timer := time.NewTimer(linePatience)
	timer.Stop()
	return &lines{byID: map[uint64]*line{}, sweepAt: fewLines, timer: timer}
}

// arrange implements arranger.
func (l *lines) arrange(ready []*submission, s *submission) []*submission {
	at := s.place
	if at.Line == 0 {
		return append(ready, s)
	}
	now := time.Now()
	x := l.byID[at.Line]
	if x == nil {
		if x = l.add(at.Line, now); x == nil && at.Number == 0 {
			return append(ready, s)
		} else if x == nil {
			s.refuse(errBehind)
			return ready
		}
	}
	x.used = now
	if at.Run > x.run {
		l.cut(x)
		x.run, x.next, x.broken = at.Run, 0, false
	}
	switch {
	case at.Run < x.run || x.broken || at.Number < x.next || x.parked[at.Number] != nil:
		s.refuse(errBehind)
		return ready
	case at.Number > x.next:
		l.park(x, s, now)
		return ready
	}
	for ; s != nil; s = x.parked[x.next] {
		if _, waited := x.parked[x.next]; waited {
			delete(x.parked, x.next)
			l.parked--
		}
		s.line = x
		ready = append(ready, s)
		x.next++
	}
	return ready
}

// add makes a line, nil if there are too many.
func (l *lines) add(id uint64, now time.Time) *line {
	if len(l.byID) >= l.sweepAt && now.Sub(l.swept) > time.Second {
		memory := lineMemory
		if len(l.byID) >= maxLines {
			memory = shortMemory
		}
		maps.DeleteFunc(l.byID, func(_ uint64, x *line) bool { return len(x.parked) == 0 && now.Sub(x.used) > memory })
		l.sweepAt, l.swept = min(max(fewLines, 2*len(l.byID)), maxLines), now
	}
	if len(l.byID) >= maxLines {
		return nil
	}
	x := &line{}
	l.byID[id] = x
	return x
}

func (l *lines) park(x *line, s *submission, now time.Time) {
	if x.parked == nil {
		x.parked = map[uint32]*submission{}
	}
	if len(x.parked) == 0 {
		x.since = now
	}
	x.parked[s.place.Number] = s
	if l.parked++; l.parked == 1 {
		l.timer.Reset(linePatience)
	}
}

// cut refuses what waits in a line.
func (l *lines) cut(x *line) {
	x.broken = true
	for number, s := range x.parked {
		delete(x.parked, number)
		l.parked--
		s.refuse(errBehind)
	}
}

// check implements arranger.
func (l *lines) check(s *submission) error {
	if s.line != nil && (s.line.broken || s.line.run != s.place.Run) {
		return errBehind
	}
	return nil
}

// gone implements arranger.
func (l *lines) gone(s *submission) {
	if s.line != nil && s.line.run == s.place.Run {
		l.cut(s.line)
	}
}

// overdue implements arranger.
func (l *lines) overdue() <-chan time.Time { return l.timer.C }

// expire implements arranger.
func (l *lines) expire() {
	now := time.Now()
	for _, x := range l.byID {
		if len(x.parked) > 0 && now.Sub(x.since) >= linePatience {
			l.cut(x)
		}
	}
	if l.parked > 0 {
		l.timer.Reset(linePatience)
	}
}

// end implements arranger.
func (l *lines) end() {
	for _, x := range l.byID {
		l.cut(x)
	}
	l.timer.Stop()
}
