package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/outcome"
)

// liner is one line: a client with a window of appends under way, as a gateway's queue has them.
type liner struct {
	name     string
	node     *Node
	id       fsm.PartitionID
	line     uint64
	window   int
	producer int64 // -1: it is not idempotent
	sent     int
	piped    int // appends that succeeded in a pipe
	acked    map[string]fsm.Offset
	deadline func() (context.Context, context.CancelFunc)
}

func (l *liner) batch(n int) batchList {
	value := fmt.Sprintf("%s %06d", l.name, n)
	if l.producer >= 0 {
		return batchList{batchFrom(l.producer, 0, int32(n), value)}
	}
	return batchList{prototest.Batch(value)}
}

// piece is one append of a run.
type piece struct {
	n        int
	appended []fsm.Appended
	err      error
}

// run sends until over ends.
func (l *liner) run(over context.Context) {
	for over.Err() == nil {
		pipe := l.node.Pipe(l.id, l.line)
		if pipe == nil {
			l.alone(l.sent)
			l.sent++
			continue
		}
		done := make(chan piece, l.window)
		var failed []piece
		under := 0
		take := func() {
			p := <-done
			under--
			if p.err != nil {
				failed = append(failed, p)
				return
			}
			l.piped++
			l.take(p.n, p.appended)
		}
		for number := uint32(0); over.Err() == nil && failed == nil; number++ {
			n := l.sent
			l.sent++
			under++
			if n%8 == 0 { // a window of 64 fills up while there is no leader, which takes longer
				time.Sleep(40 * time.Millisecond)
			}
			go func() {
				ctx, end := l.deadline()
				defer end()
				appended, err := pipe(ctx, number, fsm.Transaction{}, l.batch(n))
				done <- piece{n, appended, err}
			}()
			for under >= l.window {
				take()
			}
		}
		for under > 0 {
			take()
		}
		slices.SortFunc(failed, func(a, b piece) int { return a.n - b.n })
		for _, p := range failed {
			if outcome.NotAppended(p.err) || l.producer >= 0 {
				l.alone(p.n)
			}
		}
	}
}

// alone appends when nothing else is under way, until that is done or its fate is not known.
func (l *liner) alone(n int) {
	for range 100 {
		ctx, end := l.deadline()
		appended, err := l.node.AppendInLine(ctx, l.id, l.line, fsm.Transaction{}, l.batch(n))
		end()
		if err == nil {
			l.take(n, appended)
			return
		}
		if !outcome.NotAppended(err) && l.producer < 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (l *liner) take(n int, appended []fsm.Appended) {
	if appended[0].Err != 0 {
		panic(fmt.Sprintf("%s %d: %v", l.name, n, appended[0].Err))
	}
	l.acked[fmt.Sprintf("%s %06d", l.name, n)] = appended[0].BaseOffset
}

// Lines keep their order through changes of leaders, cut networks and nodes that end: through nodes
// that lead and others, by producers that are idempotent and others.
func TestPipelinesKeepTheirOrder(t *testing.T) {
	for seed := range uint64(2) {
		runInBubble(t, fmt.Sprint("seed ", seed), func(t *testing.T) { testPipelinesKeepTheirOrder(t, seed) })
	}
}

func testPipelinesKeepTheirOrder(t *testing.T, seed uint64) {
	dice := rand.New(rand.NewPCG(seed, 8))
	c := newTestCluster(t, 3)
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	c.leaderOf(id)
	over, end := context.WithCancel(context.Background())
	defer end()
	var lines []*liner
	var all sync.WaitGroup
	for i, window := range []int{1, 5, 5, 64} {
		l := &liner{
			name: fmt.Sprint("line ", i), node: c.nodes[i%2].Node, id: id, window: window, producer: -1, acked: map[string]fsm.Offset{},
			deadline: func() (context.Context, context.CancelFunc) {
				return context.WithTimeout(context.Background(), 5*time.Second)
			},
		}
		if i == 2 {
			l.producer = 70
		}
		l.line = l.node.NewLine(0)
		lines = append(lines, l)
		all.Go(func() { l.run(over) })
	}
	for range 12 {
		time.Sleep(time.Duration(dice.IntN(700)) * time.Millisecond)
		a, b := dice.IntN(3), dice.IntN(3)
		switch dice.IntN(4) {
		case 0, 1:
			for _, n := range c.nodes {
				if r := n.replica(id); n.running && r != nil && r.Member.Raft.State() == raft.Leader {
					all.Go(func() { _ = n.handOver(r.Member) })
				}
			}
		case 2:
			c.net.under.Cut(fmt.Sprint("n", a+1), fmt.Sprint("n", b+1))
			time.Sleep(time.Duration(dice.IntN(1500)) * time.Millisecond)
			c.net.under.HealAll()
		case 3:
			c.kill(2)
			time.Sleep(time.Duration(dice.IntN(1500)) * time.Millisecond)
			c.start(2)
		}
	}
	end()
	all.Wait()
	c.leaderOf(id)
	values, err := valuesFrom(within(t), c.nodes[0].Node, id)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		l.check(t, values)
	}
}

func (l *liner) check(t *testing.T, values []string) {
	t.Helper()
	last, count := "", 0
	for at, value := range values {
		if len(value) < len(l.name) || value[:len(l.name)] != l.name {
			continue
		}
		count++
		if value <= last {
			t.Errorf("%q is at %d, behind %q", value, at, last)
		}
		last = value
		if base, ok := l.acked[value]; ok && base != fsm.Offset(at) {
			t.Errorf("%q is at %d, and was acknowledged at %d", value, at, base)
		}
	}
	for value, base := range l.acked {
		if int(base) >= len(values) || values[base] != value {
			t.Errorf("%q was acknowledged at %d and is not there", value, base)
		}
	}
	if l.piped < 20 || l.producer >= 0 && (count != l.sent || len(l.acked) != l.sent) {
		t.Errorf("%s: %d sent, %d in pipes, %d acknowledged, %d in the log", l.name, l.sent, l.piped, len(l.acked), count)
	}
}

// A pipe's append waits for the one in front of it, is refused when that does not come, and so is
// what comes late.
func TestWhatIsMissingInAPipeIsMissed(t *testing.T) { inBubble(t, testWhatIsMissingInAPipeIsMissed) }

func testWhatIsMissingInAPipeIsMissed(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	leader := c.leaderOf(id)
	var want []string
	for i, n := range c.nodes {
		where := fmt.Sprintf("node %d, the leader is %d", i+1, leader+1)
		line := n.NewLine(0)
		pipe := n.Pipe(id, line)
		if pipe == nil {
			eventually(t, "a leader is known at "+where, func() error {
				if pipe = n.Pipe(id, line); pipe == nil {
					return outcome.ErrNoLeader
				}
				return nil
			})
		}
		value := func(k int) string { return fmt.Sprintf("%d-%d", i, k) }
		put := func(k uint32, v string) error {
			_, err := pipe(within(t), k, fsm.Transaction{}, []kafkaproto.Batch{prototest.Batch(v)})
			return err
		}
		second := make(chan error, 1)
		go func() { second <- put(1, value(1)) }()
		time.Sleep(50 * time.Millisecond)
		if err := put(0, value(0)); err != nil {
			t.Errorf("%s: the first: %v", where, err)
		}
		if err := <-second; err != nil {
			t.Errorf("%s: the second, which came early: %v", where, err)
		}
		if err := put(3, "no"); !outcome.NotAppended(err) {
			t.Errorf("%s: one whose predecessor is missing: %v", where, err)
		}
		if err := put(2, "no"); !outcome.NotAppended(err) {
			t.Errorf("%s: the predecessor, late: %v", where, err)
		}
		if _, err := n.AppendInLine(within(t), id, line, fsm.Transaction{}, batchList{prototest.Batch(value(2))}); err != nil {
			t.Errorf("%s: in a new run: %v", where, err)
		}
		want = append(want, value(0), value(1), value(2))
	}
	c.wantEverywhere(id, want)
}

// An append in a line says which leadership it means: a node without a replica that does not know
// hears of it from the leader.
func TestALineKnowsItsLeadersTerm(t *testing.T) { inBubble(t, testALineKnowsItsLeadersTerm) }

func testALineKnowsItsLeadersTerm(t *testing.T) {
	c := newTestCluster(t, 2)
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 1).ID}
	leader := c.nodes[c.leaderOf(id)].Node
	other := c.nodes[1-c.leaderOf(id)].Node
	p, err := leader.records(id).Leads()
	if err != nil {
		t.Fatal(err)
	}
	q := calls.AppendInLineRequest{
		AppendRequest: calls.AppendRequest{Partition: id, Batches: []kafkaproto.Batch{prototest.Batch("no")}},
		Place:         calls.Place{Line: other.NewLine(0), Run: 1},
	}
	want := errNotLeader{Hint: hint{Identity: leader.identity, Term: uint64(p.InTerm())}}
	if _, err := calls.AppendInLine.Ask(within(t), other.caller, leader.identity, q); err != want {
		t.Fatalf("without a term: %v, not %v", err, want)
	}
	q.Term, q.Batches = want.Hint.Term, []kafkaproto.Batch{prototest.Batch("0")}
	if _, err := calls.AppendInLine.Ask(within(t), other.caller, leader.identity, q); err != nil {
		t.Fatalf("with its term: %v", err)
	}

	// The other node asks as its gateway does.
	line := other.NewLine(0)
	if _, err := other.AppendInLine(within(t), id, line, fsm.Transaction{}, batchList{prototest.Batch("1")}); err != nil {
		t.Fatal(err)
	}
	pipe := other.Pipe(id, line)
	if pipe == nil {
		t.Fatal("no leader is known")
	}
	if _, err := pipe(within(t), 0, fsm.Transaction{}, []kafkaproto.Batch{prototest.Batch("2")}); err != nil {
		t.Errorf("the first of a run, which must know the term: %v", err)
	}
	c.wantEverywhere(id, []string{"0", "1", "2"})
}
