package raftlink

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// maxAppends bounds the bytes of AppendEntries of all raft groups that one other node has not
// answered. Beyond it they fail: each raft group's Raft reads the entries again when it tries
// again, where it would hold them while it waits.
const maxAppends = 128 << 20

// budgets count the bytes of AppendEntries to each other node that wait or are unanswered, of all
// groups.
type budgets struct {
	mu     locks.Mutex[budgets] // guards byNode; nothing is called under it
	byNode map[string]*atomic.Int64
}

func (b *budgets) of(node string) *atomic.Int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.byNode[node]
	if n == nil {
		if b.byNode == nil {
			b.byNode = make(map[string]*atomic.Int64)
		}
		n = new(atomic.Int64)
		b.byNode[node] = n
	}
	return n
}

// hold takes n bytes of that bound; one request alone may be larger. release gives them back, once.
func (b *budgets) hold(node string, n int64) (release func(), err error) {
	unanswered := b.of(node)
	if unanswered.Add(n) > max(maxAppends, n) {
		unanswered.Add(-n)
		return nil, link.NotSent(fmt.Errorf("%w: %d MB to %s are unanswered", link.ErrBusy, maxAppends>>20, node))
	}
	return func() { unanswered.Add(-n) }, nil
}

// parkFor is how long a request to a node that is gone waits for it to come back before it fails,
// or before it is asked whether it is still wanted. Raft asks again after every failure, for each
// raft group, and after a dozen of them only every ten seconds: parked, it asks seldom while the
// node is away and at once when it is back.
const parkFor = 10 * time.Second

// park waits while the node is gone and no session to it is open, until the raft group is closed,
// and every parkFor asks wanted whether to go on.
func (t *Transport) park(node string, wanted func() bool) {
	for t.parkOnce(node) && wanted() {
	}
}

// parkOnce says whether it waited for as long as it may and the node is still gone.
func (t *Transport) parkOnce(node string) bool {
	locks.MayWait("a node that is gone")
	if !t.host.Gone(node) {
		return false
	}
	open, up := t.link.Peer(node).Up()
	if open {
		return false
	}
	t.stats.parked.Add(1)
	timer := time.NewTimer(parkFor)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-up:
	case <-t.done:
	}
	return false
}

// replicatesTo says whether this raft group leads in that term and has that node as a member.
func (t *Transport) replicatesTo(id raft.ServerID, term uint64) bool {
	r := t.Raft()
	if r == nil || r.State() != raft.Leader || r.CurrentTerm() != term {
		return false
	}
	f := r.GetConfiguration()
	if f.Error() != nil {
		return false
	}
	for _, s := range f.Configuration().Servers {
		if s.ID == id {
			return true
		}
	}
	return false
}
