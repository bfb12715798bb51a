package transaction

import (
	"context"
	"errors"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/fsm/transactions"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/internal/tenure"
	"github.com/trimaran-io/trimaran/outcome"
)

const (
	// markerWorkers is how many markers are on their way at a time to targets that took the last,
	// and as many again to those that did not: who cannot be reached delays only its own.
	markerWorkers = 512
	// markersToOne is how many are on their way to one target; one, while it takes none.
	markersToOne = 32
	// A target that took none is asked again after markerBackOff, twice that and so on, up to
	// markerBackOff << markerBackOffs (3.2 s).
	markerBackOff  = 50 * time.Millisecond
	markerBackOffs = 6
	// markerSilence is after how many times in vain it is said, some 20 s; and again at each
	// double.
	markerSilence = 12
)

// markers has markers written, each until it is.
type markers struct {
	c *Coordinator

	// mu guards what follows and what is in it. Timers are set and goroutines started under it,
	// which takes the tenure's; no other mutex is taken, and nothing is waited for.
	mu      locks.Mutex[markers]
	targets map[target]*queue
	// ready are queues from which a worker may take the next marker: of targets that take them, and
	// of those that took none the last time. workers are at work on either.
	ready   [2][]*queue
	workers [2]int
}

// target is where markers go: a partition, or a group's offsets if group is not empty.
type target struct {
	partition fsm.PartitionID
	group     string
}

// queue is what is to be written to a target.
type queue struct {
	target
	waiting []marker
	busy    int           // on their way
	listed  bool          // in ready
	failed  int           // times in vain since the last that it took
	rest    *tenure.Timer // until it is asked again; nil: it does not rest
}

type marker struct {
	fsm.Marker
	of *ending
}

// ending is a transaction that ends.
type ending struct {
	left  int               // targets that have not taken its marker
	begun []fsm.PartitionID // where the next one of the producer is open
	then  func(begun []fsm.PartitionID)
}

func newMarkers(c *Coordinator) *markers {
	return &markers{c: c, targets: make(map[target]*queue)}
}

// write has the marker written everywhere, and then calls then, with the partitions where the next
// transaction was open already. Whoever calls it is running.
func (m *markers) write(mark fsm.Marker, to transactions.Scope, then func(begun []fsm.PartitionID)) {
	of := &ending{left: len(to.Partitions) + len(to.Groups), then: then}
	if of.left == 0 {
		then(nil)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range to.Partitions {
		m.add(target{partition: p}, marker{mark, of})
	}
	for _, g := range to.Groups {
		m.add(target{group: g}, marker{mark, of})
	}
}

func (m *markers) add(to target, mark marker) {
	q := m.targets[to]
	if q == nil {
		q = &queue{target: to}
		m.targets[to] = q
	}
	q.waiting = append(q.waiting, mark)
	m.list(q)
}

// list lists the queue as ready if it is, and starts a worker if there may be one more.
func (m *markers) list(q *queue) {
	kind, most := 0, markersToOne
	if q.failed > 0 {
		kind, most = 1, 1
	}
	if q.listed || q.rest != nil || len(q.waiting) == 0 || q.busy >= most {
		return
	}
	q.listed = true
	m.ready[kind] = append(m.ready[kind], q)
	if m.workers[kind] < markerWorkers && !m.c.tenure.Over() {
		m.workers[kind]++
		m.c.tenure.Go(func() { m.work(kind) })
	}
}

// work writes markers while there are any.
func (m *markers) work(kind int) {
	for {
		q, mark := m.take(kind)
		if q == nil {
			return
		}
		begun, err := m.send(q.target, mark.Marker)
		if over := m.sent(q, mark, begun, err); over {
			mark.of.then(mark.of.begun)
		}
	}
}

// take gives the next marker; nil: there is none, and the worker is not counted any more.
func (m *markers) take(kind int) (*queue, marker) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.ready[kind]) == 0 || m.c.tenure.Over() {
		m.workers[kind]--
		return nil, marker{}
	}
	q := m.ready[kind][0]
	m.ready[kind] = m.ready[kind][1:]
	q.listed = false
	mark := q.waiting[0]
	q.waiting = q.waiting[1:]
	q.busy++
	m.list(q)
	return q, mark
}

func (m *markers) send(to target, mark fsm.Marker) (begun bool, err error) {
	locks.MayWait("a marker to be written")
	ctx, cancel := context.WithTimeout(m.c.tenure.Context(), m.c.set.CommitTimeout)
	defer cancel()
	if to.group != "" {
		return false, m.c.cfg.EndOffsets(ctx, to.group, mark)
	}
	begun, err = m.c.cfg.WriteMarker(ctx, to.partition, mark)
	if errors.Is(err, outcome.ErrUnknownTopicOrPartition) {
		return false, nil // it is gone, with all that was in it
	}
	return begun, err
}

// sent notes what became of it, and reports whether it was the last of its transaction.
func (m *markers) sent(q *queue, mark marker, begun bool, err error) (over bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	q.busy--
	if err == nil {
		q.failed = 0
		if begun {
			mark.of.begun = append(mark.of.begun, q.partition)
		}
		mark.of.left--
		over = mark.of.left == 0
	} else {
		q.waiting = append(q.waiting, mark)
		if q.rest == nil && !m.c.tenure.Over() {
			m.retreat(q, err)
		}
	}
	if len(q.waiting) == 0 && q.busy == 0 {
		delete(m.targets, q.target)
	}
	m.list(q)
	return over
}

// retreat lets the queue rest.
func (m *markers) retreat(q *queue, err error) {
	wait := markerBackOff << min(q.failed, markerBackOffs)
	q.failed++
	if n := q.failed; n >= markerSilence && n%markerSilence == 0 && (n/markerSilence)&(n/markerSilence-1) == 0 {
		m.c.log.Warn("a decided transaction cannot be ended everywhere yet", "partition", q.partition, "group", q.group,
			"times", n, "waiting", len(q.waiting), "error", err)
	}
	q.rest = m.c.tenure.After(wait, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		q.rest = nil
		m.list(q)
	})
}
