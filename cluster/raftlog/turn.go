package raftlog

import "github.com/trimaran-io/trimaran/internal/locks"

// turn lets one at a time change the files of a log: Raft's appends and cuts, snapshots, retention,
// an adoption.
type turn struct {
	disk *disk

	// mu is held over writes, syncs and the wait for the journal: whoever changes files has to. No
	// reader takes it. Under it are taken: the turn of a staged log, the locks of indexes and file
	// handles, the view's.
	mu locks.Slow[turn]
	// staging is in place of mu for what is staged, whose turn is taken under that of its log.
	staging locks.Slow[stagingTurn]
	staged  bool // set before anybody else knows the log

	err    error // nothing more is taken; guarded by mu
	closed bool  // guarded by mu
}

// stagingTurn is the class of the turn of what is staged.
type stagingTurn struct{}

// take waits for the turn, if files can still be changed. After an error there is nothing to pass
// on.
func (t *turn) take() error {
	t.wait()
	if err := t.usable(); err != nil {
		t.pass()
		return err
	}
	return nil
}

// try takes the turn if nobody has it.
func (t *turn) try() bool {
	if t.staged {
		return t.staging.TryLock()
	}
	return t.mu.TryLock()
}

// wait waits for the turn, whatever can be done in it.
func (t *turn) wait() {
	if t.staged {
		t.staging.Lock()
	} else {
		t.mu.Lock()
	}
}

// pass ends the turn.
func (t *turn) pass() {
	if t.staged {
		t.staging.Unlock()
	} else {
		t.mu.Unlock()
	}
}

// usable gives what keeps the files from being changed; the turn is held.
func (t *turn) usable() error {
	if t.err != nil {
		return t.err
	}
	return t.disk.failed()
}
