package raftlog

import "github.com/hashicorp/raft"

// retention is the beginning of a log, which the partition frees: it ends segments and lets whole
// ones go, in its turn.
type retention struct {
	*home
	view    *view
	turn    *turn
	tail    *tail
	entries *entries
}

// PassIdle tells where the records of a segment end behind which nothing came but entries of Raft's
// own, which are not applied: a new leader's may have begun another segment. state is the
// partition's state behind the entry at index applied, where the next offset is next; if the log
// has come further since, nothing is done.
func (l *retention) PassIdle(next int64, applied uint64, state []byte) error {
	l.turn.wait()
	defer l.turn.pass()
	if l.view.Passed() {
		return nil
	}
	last, idle, err := l.idle(next, applied)
	if idle {
		l.view.Cross(last+1, state)
	}
	return err
}

// EndSegment begins a new segment if the last one has records and all of them are
// below the log start, so that Trim can free it. state is the partition's state
// behind the entry at index applied, where the next offset is logStart; if the log
// has come further since, nothing is done.
func (l *retention) EndSegment(logStart int64, applied uint64, state []byte) error {
	if err := l.turn.take(); err != nil {
		return err
	}
	defer l.turn.pass()
	if !l.view.unended() {
		return nil
	}
	last, idle, err := l.idle(logStart, applied)
	if !idle {
		return err
	}
	s, err := l.tail.roll(last + 1)
	if err == nil {
		l.view.Cross(s.base, state)
	}
	return err
}

// idle reports whether the partition's state is still the one behind the entry at index applied,
// with that next offset, at the end of the log: entries of Raft's own are not applied. The turn is
// held.
func (l *retention) idle(next int64, applied uint64) (last uint64, idle bool, err error) {
	from, last, same := l.view.idleFrom(next, applied)
	if !same || last >= from+maxIdleEntries {
		return last, false, nil
	}
	for index := from; index <= last; index++ {
		var entry raft.Log
		if err := l.entries.readEntry(index, &entry); err != nil {
			return last, false, err
		}
		if entry.Type == raft.LogCommand {
			return last, false, nil
		}
	}
	return last, true, nil
}

// maxIdleEntries bounds what idle looks at.
const maxIdleEntries = 64

// Trim frees the segments all of whose records are below the log start, but none
// that reaches above the snapshot (invariants 1 and 4). hold keeps segments from
// that index on, for a transfer that reads them; 0: none. It gives the bytes freed.
func (l *retention) Trim(logStart int64, hold uint64) (freed int64, err error) {
	gone, err := l.letGo(logStart, hold)
	for _, s := range gone { // no append waits for it
		freed += s.end - segmentHeader
		if rerr := l.remove(s); rerr != nil && err == nil {
			err = rerr
		}
	}
	return freed, err
}

// letGo takes the segments that Trim frees out of the manifest.
func (l *retention) letGo(logStart int64, hold uint64) ([]*segment, error) {
	if err := l.turn.take(); err != nil {
		return nil, err
	}
	defer l.turn.pass()
	gone, m := l.view.below(logStart, hold)
	if m == nil {
		return nil, nil
	}
	if err := m.write(l.st.disk, l.dir); err != nil {
		return nil, err
	}
	l.view.trimmed(m, len(gone))
	return gone, nil
}
