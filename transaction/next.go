package transaction

import (
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/fsm/transactions"
)

// The next transaction of an id mostly touches what the one before did, and comes as soon as that
// is decided. So while it is not replicated that a transaction of version 2 is over, its partitions
// stand for the next one as well: a leader that asks for one of them is told that it is in, and
// nothing is replicated. What is replicated then is all in the command that decides the next one:
// that the one before is over, that the next has begun, what it touches, and how it ends. If no
// command comes, one is made after Settings.NextWait, and from then on the partitions of a
// transaction are replicated before a record of it is written.
//
// Why nothing of it is lost:
//
//   - The next transaction has an epoch and a number of its own, and its first record comes behind
//     the marker of the one before: the leader says with what marker its log ends, taken or on its
//     way there, and is told that it is in only if it is that one. Else what it asks waits. It does
//     not say what it may soon forget (fsm.Guard.Ended): with an open transaction it does not.
//   - A coordinator that was deposed, or died, has told leaders what nobody else knows. The next
//     one finds the transaction decided and not over, and has its markers written again. Who leads
//     a partition that has the marker says whether a transaction is open behind it, and from then
//     on takes no batch that begins one for which somebody was asked before. So once all have the
//     marker it is known whether the next transaction has begun, and where. Until then its end,
//     what else is added to it, and InitProducerId wait, as they do for markers.
//   - A command that says what has begun may be applied though its fate was unknown. So once one
//     was proposed nothing is in the next transaction that is not replicated.
//   - Programs that do not know all this are not in the cluster (Config.Ahead).

// maxStanding is how many partitions stand for the next transaction at most: they are in the
// command that decides it.
const maxStanding = 1000

// next is what is known behind a transaction that is decided, and not replicated.
type next struct {
	of fsm.Marker // of the transaction that is decided
	// stands: what that touches stands for the next one, once all have the marker; at once if it
	// touches one partition alone. Else who has a part of both would wait for one that cannot be
	// reached, which the next one need not touch.
	stands, alone bool
	// earlier: it was decided before this coordinator's term, so it is not known before all markers
	// have arrived whether the next one has begun.
	earlier bool
	// arrived: all have the marker, since at.
	arrived bool
	at      time.Time
	// joined are the partitions that the next one is in, since began. Both are empty while it has
	// not begun.
	joined map[fsm.PartitionID]struct{}
	began  time.Time
}

// newNext is of p, which is decided and touches scope.
func newNext(p transactions.Producer, scope transactions.Scope, earlier, ahead bool) *next {
	partitions, groups := len(scope.Partitions), len(scope.Groups)
	return &next{
		of: p.Marker(), earlier: earlier, alone: partitions+groups == 1,
		// Where the producer id is used up whoever asks is about to be fenced.
		stands: ahead && partitions <= maxStanding && p.Version == 2 && p.Next == -1 && p.LastEpoch != transactions.Renews,
	}
}

// join notes that the next transaction is in the partition.
func (n *next) join(p fsm.PartitionID, now time.Time) {
	if n.joined == nil {
		n.joined, n.began = make(map[fsm.PartitionID]struct{}), now
	}
	n.joined[p] = struct{}{}
}

// arrive notes that all have the marker, and where the next transaction is open.
func (n *next) arrive(begun []fsm.PartitionID, now time.Time) {
	n.arrived, n.at = true, now
	for _, p := range begun {
		n.join(p, now)
	}
}

// known is what becomes of p, which is decided, when what is known is replicated: it is over, and
// if the next one has begun, that.
func (n *next) known(p transactions.Producer) (over transactions.Producer, begun *transactions.Producer) {
	over = completed(p, n.at.UnixMilli())
	if n.joined == nil {
		return over, nil
	}
	began := begins(over, n.began.UnixMilli())
	began.Version = 2
	return over, &began
}

// partitions gives what the next one is in, in no order.
func (n *next) partitions() (all []fsm.PartitionID) {
	for p := range n.joined {
		all = append(all, p)
	}
	return all
}

// foreseen is next, as a decision is made from it.
type foreseen struct {
	of              fsm.Marker
	arrived, stands bool
	begun           bool // or perhaps
	decided         transactions.Producer
}

// foresee has the decision made from what is known behind the transaction that is decided, which
// comes first in the command, if there is to be one.
func (l *line) foresee(d *chain, v *view) {
	p := v.producer
	n, ok := l.foreseen(p)
	if p.Phase.Preparing() && !ok {
		l.c.finish(l.id) // it may have been decided by a command whose fate was unknown
		n, ok = l.foreseen(p)
	}
	if !ok {
		return
	}
	v.next = foreseen{of: n.of, arrived: n.arrived, stands: n.stands && (n.arrived || n.alone), begun: n.joined != nil || n.earlier && !n.arrived, decided: p}
	if !n.arrived {
		return
	}
	over, begun := n.known(p)
	l.write(d, v, step{set: &over})
	if begun != nil {
		l.write(d, v, step{set: begun, scope: transactions.Scope{Partitions: n.partitions()}})
	}
	d.foreseen = true
}

// foreseen gives next, if it is of p, and drops it if it is of one before: a command whose fate was
// unknown is applied. Only the line's work changes what is in it.
func (l *line) foreseen(p transactions.Producer) (n next, ok bool) {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	if l.next == nil {
		return n, false
	}
	if !p.Phase.Preparing() || l.next.of != p.Marker() {
		l.over()
		return n, false
	}
	return *l.next, true
}

// stands reports whether the next transaction, of that producer, begins or goes on in what is
// asked for with nothing replicated. ended is the number of the marker that the partition's log
// ends with, of that producer.
func (c *Coordinator) stands(v view, from identity, version byte, ended int32, scope transactions.Scope) bool {
	p := v.next.decided
	if !v.next.stands || version != 2 || from != after(p) || ended != p.Number || len(scope.Groups) > 0 {
		return false
	}
	missing, _, _ := c.cfg.State.missing(v.id, scope)
	return len(missing.Partitions) == 0
}

// joins notes that the next transaction is in these partitions.
func (l *line) joins(all []fsm.PartitionID, now time.Time) {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	for _, p := range all {
		l.next.join(p, now)
	}
}

// proposes notes that a command is proposed that has what is known: nothing may be added to that
// any more, since it may be applied whenever it will.
func (l *line) proposes() {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.next.stands = false
}

// shown is what is replicated of an id, or if more is known, that; then known is what its
// transaction touches by it, else nil.
func (c *Coordinator) shown(id string) (p transactions.Producer, revision uint64, known *transactions.Scope) {
	p, revision = c.cfg.State.lookUp(id)
	if !p.Phase.Preparing() {
		return p, revision, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lines[id]
	if l == nil || l.next == nil || !l.next.arrived || l.next.of != p.Marker() {
		return p, revision, nil
	}
	over, begun := l.next.known(p)
	if begun == nil {
		return over, revision, &transactions.Scope{}
	}
	return *begun, revision, &transactions.Scope{Partitions: transactions.Sorted(l.next.partitions())}
}
