package election_test

import (
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

// slowLogs is a member's log on a disk that takes its time, and now and then has no room for what
// its leader proposes. What is stored is sent to followers meanwhile, so the leader may never have
// it: it ends, or gives up, and the others go on with it.
type slowLogs struct {
	raft.LogStore
	trans *faulty
}

var errNoRoom = errors.New("no room")

// maxSlow is how long an append takes at most.
const maxSlow = 40 * time.Millisecond

func (l *slowLogs) StoreLogs(entries []*raft.Log) error {
	f := l.trans
	f.Ahead(entries)
	rates, wait := f.now(), time.Duration(0)
	switch {
	case f.dice.in(rates.hangs):
		wait = f.dice.upTo(maxLate)
	case f.dice.in(500):
		wait = f.dice.upTo(maxSlow)
	}
	if wait > 0 && !f.wait(wait) {
		return errLost // the node has ended
	}
	if r := f.Raft(); r != nil && r.State() == raft.Leader && entries[0].Type == raft.LogCommand && f.dice.in(rates.full) {
		return errNoRoom
	}
	return l.LogStore.StoreLogs(entries)
}
