package transaction

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// fate is what becomes of a write: a command, a marker, or the question whether this is the
// coordinator.
type fate int

const (
	done        fate = iota
	failed           // it is not written, and who wrote is told so, or that nobody knows
	lost             // it is written, and nobody knows
	late             // it is written before the next, or never if the coordinator dies, unnoticed
	noticed          // a marker is written, and who wrote is told so much later
	crashBefore      // the coordinator dies, and nothing was written
	crashAfter       // the coordinator dies, and it was written
	slow             // it is written, but not at once
	stray            // a marker is written, and the same comes again much later
	onItsWay         // a marker is taken, and committed later
	voided           // a marker is taken, and lost with its leader and what came behind it
)

// world is a coordinator with partitions and groups, which are a reference model of what a
// transaction is to them: values that are open until a marker says what becomes of them.
type world struct {
	t     *testing.T
	topic fsm.TopicID
	ahead bool // Config.Ahead
	// decide gives the fate of a write of that kind.
	decide func(kind string) fate
	set    Settings
	// copies: requests come again, much later. recovers: who does not know how its transaction
	// ended asks for an epoch with that which it has. renews, if not nil, says before which
	// coordinator the state is renewed (transactions.Renew).
	copies, recovers bool
	renews           *rand.Rand

	mu      sync.Mutex
	state   *State
	c       *Coordinator
	term    int
	dead    bool // the coordinator of this term
	late    [][]byte
	died    chan struct{}
	nextID  int64
	targets map[string]*modelTarget
	gone    map[string]bool
	owners  map[identity]string
	markers int // that ended something so far
}

// modelTarget is a partition, or a group's offsets.
type modelTarget struct {
	producers map[int64]*modelProducer
	onItsWay  *modelTail // what is not committed; nil: all is
}

// modelTail is the end of a log that is not committed.
type modelTail struct {
	over, lost bool
}

// takes takes a marker that is not committed at once. mu is held, but not meanwhile.
func (w *world) takes(to string, m fsm.Marker, lose bool) (begun bool, err error) {
	w.producer(to, m.ProducerID)
	t := w.targets[to]
	if t.onItsWay != nil {
		return w.committed(to, m)
	}
	before := make(map[int64]*modelProducer)
	for id, p := range t.producers {
		saved := *p
		saved.decided, saved.open = maps.Clone(p.decided), slices.Clone(p.open)
		before[id] = &saved
	}
	tail := &modelTail{}
	t.onItsWay = tail
	begun = w.end(to, m)
	w.wait(50 * time.Millisecond)
	tail.over, t.onItsWay = true, nil
	if !lose {
		return begun, nil
	}
	tail.lost = true
	for id, p := range t.producers {
		guard := p.guard + 1
		if saved := before[id]; saved != nil {
			for _, v := range saved.open {
				v.fate = ""
			}
			*p = *saved
		} else {
			*p = modelProducer{decided: make(map[int32]fsm.Marker)}
		}
		p.guard = guard
	}
	return false, errNobodyKnows
}

// committed has a marker written, and waits for what is in front of it.
func (w *world) committed(to string, m fsm.Marker) (begun bool, err error) {
	begun = w.end(to, m)
	if tail := w.targets[to].onItsWay; tail != nil && !w.awaits(tail) {
		return false, errNobodyKnows
	}
	return begun, nil
}

// awaits waits until it is known what becomes of the tail, and says whether it is committed.
func (w *world) awaits(tail *modelTail) bool {
	for !tail.over {
		w.wait(time.Millisecond)
	}
	return !tail.lost
}

type modelProducer struct {
	epoch   int16
	last    int32 // number of the last marker
	guard   int   // markers and first values so far
	decided map[int32]fsm.Marker
	open    []*value
}

// value is what a producer wrote in a transaction.
type value struct {
	txn    string // whose
	target string
	after  int16  // the epochs of markers that end it are higher
	fate   string // "": it is open; "committed", "aborted"
	ended  int    // world.markers when that came
}

func newWorld(t *testing.T, ahead bool, decide func(kind string) fate) *world {
	w := &world{
		t: t, ahead: ahead, topic: fsm.TopicID{1}, decide: decide, state: NewState(), died: make(chan struct{}, 1), nextID: 100,
		targets: make(map[string]*modelTarget), gone: make(map[string]bool), owners: make(map[identity]string),
	}
	w.lead()
	return w
}

func (w *world) lead() {
	term := w.term
	w.c = New(Config{
		State:   w.state,
		Propose: func(ctx context.Context, command []byte) error { return w.propose(term, command) },
		NewProducerID: func(context.Context) (int64, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.nextID++
			return w.nextID, nil
		},
		TopicID:   func(name string) ([16]byte, bool) { return w.topic, name == "t" },
		TopicName: func(id [16]byte) (string, bool) { return "t", id == w.topic },
		WriteMarker: func(ctx context.Context, p fsm.PartitionID, m fsm.Marker) (bool, error) {
			return w.marker(term, fmt.Sprintf("t/%d", p.Partition), m)
		},
		EndOffsets: func(ctx context.Context, group string, m fsm.Marker) error {
			begun, err := w.marker(term, "group "+group, m)
			if begun {
				w.t.Errorf("group %s: something is open behind %+v already", group, m)
			}
			return err
		},
		Confirm:  func(context.Context) error { return w.confirm(term) },
		Version:  func() int { return 2 },
		Ahead:    func() bool { return w.ahead },
		Settings: w.set,
		Logger:   slog.New(slog.DiscardHandler),
	})
}

var errNobodyKnows = errors.New("nobody knows")

func (w *world) crash() {
	w.dead = true
	w.late = nil
	select {
	case w.died <- struct{}{}:
	default:
	}
}

// failovers leads again whenever the coordinator has died, until ctx ends.
func (w *world) failovers(ctx context.Context) {
	for {
		select {
		case <-w.died:
		case <-ctx.Done():
			return
		}
		w.failover()
	}
}

func (w *world) failover() {
	w.mu.Lock()
	c := w.c
	w.dead = true
	w.late = nil
	w.mu.Unlock()
	c.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	state, err := RestoreState(w.state.Snapshot())
	if err != nil {
		w.t.Error(err)
		return
	}
	w.state, w.dead = state, false
	if w.renews != nil && w.renews.IntN(4) == 0 {
		w.apply(state.Renew(1 << 20)...)
	}
	w.term++
	w.lead()
}

func (w *world) propose(term int, command []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead || term != w.term {
		return fmt.Errorf("dead: %w", coordinator.ErrNotLeader)
	}
	switch w.decide("command") {
	case done:
		w.apply(command)
		return nil
	case slow:
		w.late = append(w.late, command)
		w.wait(4 * time.Second) // now and then, it is looked meanwhile at what is open
		if w.dead || term != w.term {
			break
		}
		w.apply()
		return nil
	case lost:
		w.apply(command)
	case late:
		w.late = append(w.late, command)
		time.AfterFunc(50*time.Millisecond, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			if !w.dead && term == w.term {
				w.apply()
			}
		})
	case crashBefore:
		w.crash()
	case crashAfter:
		w.apply(command)
		w.crash()
	}
	return errNobodyKnows
}

// wait lets time pass. mu is held, but not meanwhile.
func (w *world) wait(d time.Duration) {
	w.mu.Unlock()
	time.Sleep(d)
	w.mu.Lock()
}

// apply applies what came before, and commands.
func (w *world) apply(commands ...[]byte) {
	for _, c := range append(w.late, commands...) {
		if err := w.state.Apply(c); err != nil {
			w.t.Error(err)
		}
	}
	w.late = nil
}

// confirm is Config.Confirm.
func (w *world) confirm(term int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead || term != w.term {
		return coordinator.ErrNotLeader
	}
	switch w.decide("confirm") {
	case failed, lost, late:
		return errNobodyKnows
	case crashBefore:
		w.crash()
		return coordinator.ErrNotLeader
	case crashAfter:
		w.crash()
	}
	return nil
}

func (w *world) marker(term int, to string, m fsm.Marker) (begun bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead || term != w.term {
		return false, outcome.ErrNoLeader
	}
	if w.gone[to] {
		return false, outcome.ErrUnknownTopicOrPartition
	}
	switch w.decide("marker") {
	case done:
		return w.committed(to, m)
	case slow:
		w.wait(100 * time.Millisecond)
		return w.committed(to, m)
	case noticed:
		begun, err = w.committed(to, m)
		w.wait(100 * time.Millisecond)
		return begun, err
	case onItsWay:
		return w.takes(to, m, false)
	case voided:
		return w.takes(to, m, true)
	case stray:
		time.AfterFunc(3*time.Second, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.end(to, m)
		})
		return w.committed(to, m)
	case lost:
		_, _ = w.committed(to, m)
	case crashBefore:
		w.crash()
	case crashAfter:
		_, _ = w.committed(to, m)
		w.crash()
	}
	return false, errNobodyKnows
}

func (w *world) producer(target string, id int64) *modelProducer {
	t := w.targets[target]
	if t == nil {
		t = &modelTarget{producers: make(map[int64]*modelProducer)}
		w.targets[target] = t
	}
	p := t.producers[id]
	if p == nil {
		p = &modelProducer{decided: make(map[int32]fsm.Marker)}
		t.producers[id] = p
	}
	return p
}

// end is what a marker does to a target: to whatever of the producer is open there, once. It says
// whether something is open behind it.
func (w *world) end(target string, m fsm.Marker) (begun bool) {
	p := w.producer(target, m.ProducerID)
	p.guard++
	if before, ok := p.decided[m.Number]; ok && before != m {
		w.t.Errorf("%s: %+v after %+v", target, m, before)
	}
	p.decided[m.Number] = m
	if !m.Follows(p.last) {
		return len(p.open) > 0 && p.epoch == m.Epoch
	}
	if m.Epoch < p.epoch {
		w.t.Errorf("%s: %+v, the epoch is %d", target, m, p.epoch)
	}
	p.last, p.epoch = m.Number, m.Epoch
	w.markers++
	for _, v := range p.open {
		v.ended = w.markers
		if m.Epoch <= v.after {
			w.t.Errorf("%s: %+v ends a value of %s, which is of a later transaction", target, m, v.txn)
		}
		v.fate = "aborted"
		if m.Commit {
			v.fate = "committed"
		}
	}
	p.open = nil
	return false
}

// owned notes who got a producer id and epoch: nobody else may get them.
func (w *world) owned(id identity, by string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if other, ok := w.owners[id]; ok && other != by {
		w.t.Errorf("%v is %s's, and was given to %s", id, other, by)
	}
	w.owners[id] = by
}

// client is a producer: a program that asks again when it is told to.
type client struct {
	w    *world
	name string // an instance's; others of the same id have others
	id   string
	v2   bool
	identity
	pause func() time.Duration // before what it wrote gets into the log; nil: none
	// copies, if not nil, says which requests come again.
	copies *rand.Rand
}

// ask asks until there is an answer that is one.
func (c *client) ask(ctx context.Context, version int16, req kmsg.Request, code func(kmsg.Response) int16) (kmsg.Response, error) {
	for {
		c.w.mu.Lock()
		to := c.w.c
		c.w.mu.Unlock()
		resp, err := to.Handle(ctx, Client{Version: version}, req)
		c.again(ctx, version, req)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		switch {
		case err == nil:
			e := kerr.TypedErrorForCode(code(resp))
			if e == nil {
				return resp, nil
			}
			if e != kerr.NotCoordinator && e != kerr.CoordinatorNotAvailable && e != kerr.ConcurrentTransactions {
				return nil, e
			}
		case !errors.Is(err, coordinator.ErrNotLeader) && !errors.Is(err, errNobodyKnows):
			return nil, err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// again has the request come again, unless version 1 could not know it from one for the next
// transaction.
func (c *client) again(ctx context.Context, version int16, req kmsg.Request) {
	if c.copies == nil || c.copies.IntN(4) > 0 || req.Key() == kmsg.EndTxn.Int16() && version < 5 {
		return
	}
	after := []time.Duration{10, 100, 1500, 4000}[c.copies.IntN(4)] * time.Millisecond
	time.AfterFunc(after, func() {
		c.w.mu.Lock()
		to := c.w.c
		c.w.mu.Unlock()
		_, _ = to.Handle(ctx, Client{Version: version}, req)
	})
}

func (c *client) init(ctx context.Context) error { return c.initFrom(ctx, none) }

// recover is init of a producer that goes on (KIP-360).
func (c *client) recover(ctx context.Context) error { return c.initFrom(ctx, c.identity) }

func (c *client) initFrom(ctx context.Context, had identity) error {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.Version, req.TransactionalID, req.TransactionTimeoutMillis = 5, &c.id, 20_000
	req.ProducerID, req.ProducerEpoch = had.producerID, had.epoch
	resp, err := c.ask(ctx, 5, req, func(r kmsg.Response) int16 { return r.(*kmsg.InitProducerIDResponse).ErrorCode })
	if err != nil {
		return err
	}
	r := resp.(*kmsg.InitProducerIDResponse)
	c.identity = identity{r.ProducerID, r.ProducerEpoch}
	c.w.owned(c.identity, c.name)
	return nil
}

// write writes a value to a target, as a leader does that asks the coordinator first, with a guard:
// what is in the target must not have been ended meanwhile. A client of version 1 has added the
// target to its transaction before.
func (c *client) write(ctx context.Context, txn, target string) (*value, error) {
	w := c.w
	if !c.v2 {
		if err := c.add(ctx, target); err != nil {
			return nil, err
		}
	}
	for {
		w.mu.Lock()
		p := w.producer(target, c.producerID)
		guard, ended, continues := p.guard, p.last, len(p.open) > 0 && p.epoch == c.epoch
		w.mu.Unlock()
		if !continues {
			if err := c.join(ctx, target, ended); err != nil {
				return nil, err
			}
		}
		if c.pause != nil {
			time.Sleep(c.pause())
		}
		w.mu.Lock()
		if w.gone[target] {
			w.mu.Unlock()
			return nil, nil
		}
		switch {
		case p.guard != guard && (len(p.open) == 0 || p.epoch != c.epoch):
			w.mu.Unlock()
			continue
		case c.epoch < p.epoch:
			w.mu.Unlock()
			return nil, kerr.InvalidProducerEpoch
		}
		if len(p.open) > 0 && p.epoch != c.epoch {
			w.t.Errorf("%s: %s begins while epoch %d is open", target, txn, p.epoch)
		}
		if len(p.open) == 0 {
			p.guard++
		}
		v := &value{txn: txn, target: target, after: c.epoch}
		if !c.v2 {
			v.after = c.epoch - 1
		}
		p.epoch, p.open = c.epoch, append(p.open, v)
		committed := true
		if tail := w.targets[target].onItsWay; tail != nil {
			committed = w.awaits(tail)
		}
		w.mu.Unlock()
		if !committed {
			continue
		}
		return v, nil
	}
}

// add is what a client of version 1 asks.
func (c *client) add(ctx context.Context, target string) error {
	if partition, is := strings.CutPrefix(target, "t/"); is {
		n, _ := strconv.Atoi(partition)
		req := join(fsm.Transaction{ID: c.id, Add: true}, c.producerID, c.epoch, "t", int32(n))
		return c.added(ctx, 3, req)
	}
	req := kmsg.NewPtrAddOffsetsToTxnRequest()
	req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch = 4, c.id, c.producerID, c.epoch
	req.Group = strings.TrimPrefix(target, "group ")
	_, err := c.ask(ctx, 3, req, func(r kmsg.Response) int16 { return r.(*kmsg.AddOffsetsToTxnResponse).ErrorCode })
	return err
}

// join is what the leader of a target asks.
func (c *client) join(ctx context.Context, target string, ended int32) error {
	t := fsm.Transaction{ID: c.id, Add: c.v2}
	if partition, is := strings.CutPrefix(target, "t/"); is {
		n, _ := strconv.Atoi(partition)
		return c.added(ctx, 5, JoinPartition(t, c.producerID, c.epoch, fsm.PartitionID{Topic: c.w.topic, Partition: int32(n)}, ended))
	}
	return c.added(ctx, 5, JoinGroup(t, c.producerID, c.epoch, strings.TrimPrefix(target, "group ")))
}

func (c *client) added(ctx context.Context, version int16, req kmsg.Request) error {
	_, err := c.ask(ctx, version, req, func(r kmsg.Response) int16 {
		return r.(*kmsg.AddPartitionsToTxnResponse).Transactions[0].Topics[0].Partitions[0].ErrorCode
	})
	return err
}

func (c *client) end(ctx context.Context, commit bool) error {
	version := int16(4)
	if c.v2 {
		version = 5
	}
	req := kmsg.NewPtrEndTxnRequest()
	req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = 5, c.id, c.producerID, c.epoch, commit
	resp, err := c.ask(ctx, version, req, func(r kmsg.Response) int16 { return r.(*kmsg.EndTxnResponse).ErrorCode })
	if err == nil && c.v2 {
		r := resp.(*kmsg.EndTxnResponse)
		c.identity = identity{r.ProducerID, r.ProducerEpoch}
		c.w.owned(c.identity, c.name)
	}
	return err
}

// settle lets everything that was decided or is open too long end, and checks that nothing is left.
func (w *world) settle() {
	w.t.Helper()
	w.mu.Lock()
	w.decide = func(string) fate { return done }
	w.mu.Unlock()
	time.Sleep(time.Minute)
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if n, _ := w.state.Open(); n != 0 {
		for _, o := range first(w.state.opened()) {
			w.t.Errorf("%s is %s, of %+v", o.id, o.producer.Phase, o.producer)
		}
	}
	for name, target := range w.targets {
		for id, p := range target.producers {
			if len(p.open) > 0 && !w.gone[name] {
				w.t.Errorf("%s: %d values of producer %d are open", name, len(p.open), id)
			}
		}
	}
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	w.c.markers.mu.Lock()
	defer w.c.markers.mu.Unlock()
	if len(w.c.lines) > 0 || len(w.c.markers.targets) > 0 {
		w.t.Errorf("%d lines and %d targets are left in memory", len(w.c.lines), len(w.c.markers.targets))
	}
}

func first[A, B any](a A, _ B) A { return a }
