package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
)

// stormRuns is how many seeds are tried where STORM_RUNS says nothing.
const stormRuns = 2

// TestStorm lets everything happen at once that may happen to a cluster: processes end, power goes,
// networks are cut in one direction or both or are slow, disks fill and flip bits, nodes leave and
// others join, leaders change and old records are deleted, while clients append. When it is over,
// nothing acknowledged may be lost, there twice or elsewhere, and all replicas are equal.
// STORM_SEED=n and STORM_RUNS=n try others; what is done comes from the seed, its moment does not
// quite.
func TestStorm(t *testing.T) {
	number := func(name string, otherwise uint64) uint64 {
		if n, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
			return n
		}
		return otherwise
	}
	seed, runs := number("STORM_SEED", 1), number("STORM_RUNS", stormRuns)
	for seed, end := seed, seed+runs; seed < end; seed++ {
		runInBubble(t, fmt.Sprint(seed), func(t *testing.T) { newStorm(t, seed).run() })
	}
}

// storm is one run.
type storm struct {
	*testCluster
	seed uint64
	dice *rand.Rand
	ids  []fsm.PartitionID
	log  []string // what was done, and when
	from time.Time

	// mu guards the fields below. Nothing is done under it.
	mu      sync.Mutex
	up      []*Node
	acked   []map[string]fsm.Offset // by partition
	deleted []fsm.Offset            // below which somebody has asked to delete

	over      context.Context // ends with the test
	quiet     context.Context // ends with the storm
	calm      context.CancelFunc
	clients   sync.WaitGroup
	operators sync.WaitGroup        // what was asked of the cluster and goes on
	refused   atomic.Pointer[error] // of who was told to leave, last
	leaving   chan struct{}         // closed when who was told to leave is gone; nil: nobody was
	left      map[int]bool
	damaged   bool // a bit was flipped, and it is not known to be mended
}

func newStorm(t *testing.T, seed uint64) *storm {
	dice := rand.New(rand.NewPCG(seed, 3))
	s := &storm{
		testCluster: newTestCluster(t, 3+dice.IntN(3)), seed: seed, dice: dice, from: time.Now(),
		left: map[int]bool{},
	}
	for i := range s.nodes {
		s.settings(i)
	}
	var end context.CancelFunc
	s.over, end = context.WithCancel(context.Background())
	s.quiet, s.calm = context.WithCancel(s.over)
	t.Cleanup(func() {
		end()
		if t.Failed() {
			t.Logf("STORM_SEED=%d STORM_RUNS=1 repeats it:\n%s", seed, strings.Join(s.log, "\n"))
		}
	})
	return s
}

func (s *storm) settings(i int) {
	s.nodes[i].cfg.TopicDefaults = map[string]string{"segment.bytes": "20000"}
	s.nodes[i].cfg.RetentionInterval = time.Second
	s.nodes[i].disk = newMemDisk(s.seed<<8 + uint64(i))
}

func (s *storm) note(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf("%7.3fs ", time.Since(s.from).Seconds())+fmt.Sprintf(format, args...))
}

func (s *storm) run() {
	s.form()
	s.allKnow()
	for _, name := range []string{"a", "b"} {
		s.ids = append(s.ids, fsm.PartitionID{Topic: s.topic(name, 1, 3).ID})
		s.acked = append(s.acked, map[string]fsm.Offset{})
		s.deleted = append(s.deleted, 0)
	}
	s.noteUp()
	for p := range s.ids {
		for client := range 2 {
			s.clients.Go(func() { s.append(p, client) })
		}
	}
	s.clients.Go(s.trim)
	for range 40 {
		s.fault()
		time.Sleep(time.Duration(s.dice.IntN(1500)) * time.Millisecond)
	}
	s.heal()
	s.check()
	// Whatever was acknowledged is on the disks of a majority.
	s.note("all lose power at last")
	s.strike(true, 0, s.members(true)...)
	s.heal()
	s.check()
}

// form starts the nodes. In every other storm power goes at one of them, or at all, meanwhile.
func (s *storm) form() {
	for _, i := range s.dice.Perm(len(s.nodes)) {
		s.start(i)
	}
	if s.dice.IntN(2) == 0 {
		time.Sleep(time.Duration(s.dice.IntN(3000)) * time.Millisecond)
		struck := s.dice.Perm(len(s.nodes))
		if s.dice.IntN(2) == 0 {
			struck = struck[:1]
		}
		s.note("%d lose power while they form a cluster", len(struck))
		s.strike(true, s.dice.IntN(4), struck...)
		for _, i := range struck {
			s.comeBack(i)
		}
	}
	s.ready()
}

// noteUp tells clients who runs.
func (s *storm) noteUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up = nil
	for _, n := range s.nodes {
		if n.running {
			s.up = append(s.up, n.Node)
		}
	}
}

// through gives a node that runs; nil: there is none.
func (s *storm) through() *Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.up) == 0 {
		return nil
	}
	return s.up[rand.IntN(len(s.up))]
}

// append is one client: it appends one value after the other, each once.
func (s *storm) append(p, client int) {
	for seq := 0; s.quiet.Err() == nil; seq++ {
		time.Sleep(20 * time.Millisecond)
		node := s.through()
		if node == nil {
			continue
		}
		value := fmt.Sprintf("%d-%d-%d %0200d", p, client, seq, seq)
		ctx, end := context.WithTimeout(context.Background(), 5*time.Second)
		appended, err := node.Append(ctx, s.ids[p], batchList{prototest.Batch(value)})
		end()
		if err == nil {
			s.mu.Lock()
			s.acked[p][value] = appended[0].BaseOffset
			s.mu.Unlock()
		}
	}
}

// trim is a client that deletes old records.
func (s *storm) trim() {
	for s.quiet.Err() == nil {
		time.Sleep(7 * time.Second)
		p := rand.IntN(len(s.ids))
		s.mu.Lock()
		var before fsm.Offset
		for _, offset := range s.acked[p] {
			before = max(before, offset/2)
		}
		s.deleted[p] = max(s.deleted[p], before)
		s.mu.Unlock()
		if node := s.through(); node != nil {
			ctx, end := context.WithTimeout(context.Background(), 5*time.Second)
			_, _ = node.DeleteRecords(ctx, s.ids[p], before)
			end()
		}
	}
}

// members gives the nodes that are to be there, by whether they run.
func (s *storm) members(running bool) (out []int) {
	for i, n := range s.nodes {
		if !s.left[i] && n.running == running {
			out = append(out, i)
		}
	}
	return out
}

func (s *storm) name(i int) string { return fmt.Sprint("n", i+1) }

// fault does one thing to the cluster. What is drawn does not depend on what is possible just now.
func (s *storm) fault() {
	kind, a, b, how := s.dice.IntN(20), s.dice.IntN(len(s.nodes)), s.dice.IntN(len(s.nodes)), s.dice.IntN(4)
	s.gone()
	switch kind {
	case 0, 1, 2, 3:
		if s.nodes[a].running && !s.left[a] {
			s.note("%s is killed", s.name(a))
			s.strike(false, how, a)
		}
	case 4, 5, 6:
		if s.nodes[a].running && !s.left[a] {
			s.note("%s loses power", s.name(a))
			s.strike(true, how, a)
		}
	case 7:
		s.note("all lose power")
		s.strike(true, how, s.members(true)...)
	case 8, 9, 10, 11:
		if away := s.members(false); len(away) > 0 {
			for _, i := range away {
				s.comeBack(i)
			}
			break
		}
		s.network(a, b, how)
	case 12, 13:
		s.network(a, b, how)
	case 14:
		s.note("the network is whole")
		s.net.under.HealAll()
		for i, n := range s.nodes {
			s.net.lives(i, n.running)
		}
	case 15:
		full := !s.nodes[a].disk.full.Load()
		s.note("the disk of %s is full: %v", s.name(a), full)
		for _, n := range s.nodes {
			n.disk.full.Store(false)
		}
		s.nodes[a].disk.full.Store(full)
	case 16:
		s.flip(a)
	case 17:
		s.comeAndGo(a)
	case 18, 19:
		s.moveLeader(b % len(s.ids))
	}
	s.noteUp()
}

// strike ends some nodes at once: at any operation of the first one's disk, or now.
func (s *storm) strike(power bool, how int, nodes ...int) {
	if len(nodes) == 0 {
		return
	}
	operations := s.dice.IntN(150)
	if how > 0 {
		struck := make(chan struct{})
		disk := s.nodes[nodes[0]].disk
		disk.light(operations, func() {
			for _, i := range nodes {
				s.nodes[i].disk.die(power)
			}
			close(struck)
		})
		select {
		case <-struck:
			s.note("in the middle of an operation")
		case <-time.After(2 * time.Second):
		}
		disk.fuse.Store(nil)
	}
	for _, i := range nodes {
		s.crash(i, power)
	}
}

// network does something to the way between two nodes, or from one to all.
func (s *storm) network(a, b, how int) {
	from, to := s.name(a), s.name(b)
	switch {
	case a == b:
		s.note("%s is cut off", from)
		for i := range s.nodes {
			if i != a {
				s.net.under.Cut(from, s.name(i))
			}
		}
	case how == 0:
		s.note("%s and %s are cut", from, to)
		s.net.under.Cut(from, to)
	case how == 1:
		s.note("the way from %s to %s is cut", from, to)
		s.net.under.CutOneWay(from, to)
	case how == 2:
		d := time.Duration(1+s.dice.IntN(300)) * time.Millisecond
		s.note("%s and %s are %v from each other", from, to, d)
		s.net.under.Delay(from, to, d)
	default:
		s.note("%s and %s are whole", from, to)
		s.net.under.Heal(from, to)
	}
}

// comeBack starts a node. Its disk may be full, and then it must start all the same.
func (s *storm) comeBack(i int) {
	s.note("%s starts", s.name(i))
	switch err := s.tryStart(i); {
	case errors.Is(err, ErrLeft):
		s.note("%s has left", s.name(i))
		s.left[i] = true
	case err != nil:
		s.t.Fatalf("%s does not start: %v", s.name(i), err)
	}
}

// flip damages one bit of a replica, if no other one may be damaged still.
func (s *storm) flip(i int) {
	if s.damaged && !s.mended() {
		return
	}
	if what := s.nodes[i].disk.damage(s.t, s.nodes[i].cfg.DataDir+"/partitions", s.dice); what != "" {
		s.damaged = true
		s.note("a bit flips in %s", what)
	}
}

// mended reports whether all replicas are there, whole and equal.
func (s *storm) mended() bool {
	ctx, end := context.WithTimeout(context.Background(), 5*time.Second)
	defer end()
	node := s.through()
	for _, id := range s.ids {
		for from := fsm.Offset(-1); ; {
			if node == nil {
				return false
			}
			c, err := node.CheckReplicas(ctx, id, from)
			if err != nil || whole(c) != nil {
				return false
			}
			if c.To >= c.End {
				break
			}
			from = c.To
		}
	}
	s.damaged = false
	s.note("what was damaged is mended")
	return true
}

// whole is nil if a check found replicas that are all there and equal.
func whole(c *admin.PartitionCheck) error {
	if c.DiffersAt != -1 {
		return fmt.Errorf("they differ: %+v", c)
	}
	for _, r := range c.Replicas {
		if r.State != "checked" {
			return fmt.Errorf("%s is %s: %s", r.Node, r.State, r.Error)
		}
	}
	return nil
}

// comeAndGo has a node join and another one leave, if nobody does.
func (s *storm) comeAndGo(i int) {
	if s.leaving != nil || s.left[i] || len(s.members(true)) < 3 {
		return
	}
	s.note("%s joins, and %s is to leave", s.name(len(s.nodes)), s.name(i))
	next := s.add(0)
	s.settings(next)
	s.start(next)
	s.leaving = make(chan struct{})
	leaves := s.nodes[i].cfg.NodeID
	done := s.leaving
	s.operators.Go(func() {
		defer close(done)
		for s.over.Err() == nil {
			if node := s.through(); node != nil {
				if _, there := node.Topics().Node(leaves); node.CatalogKnown() && !there {
					return
				}
				ctx, end := context.WithTimeout(context.Background(), 5*time.Second)
				if err := node.Administer(ctx, admin.Request{Op: admin.OpDecommission, Node: leaves}); err != nil {
					s.refused.Store(&err)
				}
				end()
			}
			time.Sleep(time.Second)
		}
	})
}

// gone ends the processes of nodes that have left.
func (s *storm) gone() {
	for i, n := range s.nodes {
		if !n.running || s.left[i] {
			continue
		}
		if err := n.Err(); errors.Is(err, ErrLeft) {
			s.note("%s has left", s.name(i))
			s.left[i] = true
			s.halt(i)
		} else if err != nil {
			s.t.Fatalf("%s has failed: %v", s.name(i), err)
		}
	}
	if s.leaving != nil {
		select {
		case <-s.leaving:
			s.leaving = nil
		default:
		}
	}
	s.noteUp()
}

// tell says how nodes and partitions stand.
func (s *storm) tell() string {
	var b strings.Builder
	if err := s.refused.Load(); err != nil {
		fmt.Fprintf(&b, "; it was refused: %v", *err)
	}
	for _, i := range s.members(true) {
		n := s.nodes[i]
		broken, hurt := n.replicas.Troubles()
		fmt.Fprintf(&b, "\n%s: ready %v, broken %v, hurt %v, nodes", s.name(i), n.Ready(), broken, hurt)
		for _, node := range n.Topics().Nodes() {
			fmt.Fprintf(&b, " %s %v", node.ID, node.State)
		}
		for p, id := range s.ids {
			// a node that has just come does not know it yet
			if part, ok := n.Topics().Partition(id); ok {
				fmt.Fprintf(&b, "; partition %d on %v leaving %v", p, part.Replicas, part.Leaving)
			}
			if r := n.replica(id); r != nil {
				fmt.Fprintf(&b, " %v, voters %v", r.Member.Raft.State(), r.Member.Voters())
			}
		}
		if g := n.catalog.Member(); g != nil {
			fmt.Fprintf(&b, "; catalog %v, voters %v", g.Raft.State(), g.Voters())
		}
	}
	return b.String()
}

// moveLeader gives the leadership of a partition away.
func (s *storm) moveLeader(p int) {
	for _, i := range s.members(true) {
		r := s.nodes[i].replica(s.ids[p])
		if r == nil || r.Member.Raft.State() != raft.Leader {
			continue
		}
		s.note("%s gives partition %d away", s.name(i), p)
		node := s.nodes[i].Node
		s.operators.Go(func() { _ = node.handOver(r.Member) })
	}
}

// heal ends all faults, and waits until everything is as it should be.
func (s *storm) heal() {
	s.t.Helper()
	s.note("all is healed")
	s.net.under.HealAll()
	for i, n := range s.nodes {
		s.net.lives(i, n.running)
		n.disk.full.Store(false)
	}
	s.gone()
	for _, i := range s.members(false) {
		s.comeBack(i)
	}
	s.noteUp()
	s.patiently("who leaves is gone", func() error {
		s.gone()
		if s.leaving != nil {
			return errors.New("it is there" + s.tell())
		}
		return nil
	})
	s.patiently("all are ready", func() error {
		s.gone()
		for _, i := range s.members(true) {
			if err := s.nodes[i].Ready(); err != nil {
				return fmt.Errorf("%s: %w", s.name(i), err)
			}
		}
		return nil
	})
	for p := range s.ids {
		s.patiently("a partition takes records again", func() error {
			value := fmt.Sprintf("healed %v", time.Since(s.from))
			ctx, end := context.WithTimeout(context.Background(), 5*time.Second)
			defer end()
			appended, err := s.through().Append(ctx, s.ids[p], batchList{prototest.Batch(value)})
			if err == nil {
				s.mu.Lock()
				s.acked[p][value] = appended[0].BaseOffset
				s.mu.Unlock()
			}
			return err
		})
	}
	s.calm()
	s.clients.Wait()
	s.operators.Wait()
}

// patiently waits for something that takes minutes where much was moved or copied.
func (s *storm) patiently(what string, condition func() error) {
	s.t.Helper()
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		err := condition()
		if err == nil {
			return
		}
		if time.Since(began) > 5*time.Minute {
			s.t.Fatalf("%s: %v", what, err)
		}
	}
}

// check compares what there is with what was acknowledged.
func (s *storm) check() {
	s.t.Helper()
	synctest.Wait()
	for p, id := range s.ids {
		s.patiently(fmt.Sprintf("replicas of partition %d are whole and equal", p), func() error {
			s.gone()
			for from := fsm.Offset(-1); ; {
				ctx, end := context.WithTimeout(context.Background(), 5*time.Second)
				c, err := s.through().CheckReplicas(ctx, id, from)
				end()
				if err != nil {
					return fmt.Errorf("%w%s", err, s.tell())
				}
				if c.DiffersAt != -1 {
					s.t.Fatalf("replicas of partition %d differ: %+v", p, c)
				}
				if err := whole(c); err != nil {
					return err
				}
				if c.To >= c.End {
					return nil
				}
				from = c.To
			}
		})
		for _, i := range s.members(true) {
			s.holds(i, p)
		}
	}
}

// holds looks through one node at a partition.
func (s *storm) holds(i, p int) {
	s.t.Helper()
	var start fsm.Offset
	var values []string
	s.patiently("records are read", func() error {
		offsets, err := s.nodes[i].ListOffsets(within(s.t), s.ids[p], -2, 1)
		if err != nil {
			return err
		}
		start = offsets[0]
		values, err = valuesBehind(within(s.t), s.nodes[i].Node, s.ids[p], start)
		if end, eerr := s.nodes[i].ListOffsets(within(s.t), s.ids[p], -1, 1); err == nil && eerr == nil && start+fsm.Offset(len(values)) < end[0] {
			return fmt.Errorf("it has %d behind %d, and the end is %d", len(values), start, end[0])
		}
		return err
	})
	if start > s.deleted[p] {
		s.t.Errorf("%s, partition %d: it begins at %d, and nobody deleted beyond %d", s.name(i), p, start, s.deleted[p])
	}
	seen := map[string]bool{}
	for at, value := range values {
		if seen[value] {
			s.t.Errorf("%s, partition %d: %.12q is there twice, again at %d", s.name(i), p, value, start+fsm.Offset(at))
		}
		seen[value] = true
	}
	lost := 0
	for value, offset := range s.acked[p] {
		if at := int(offset - start); at >= 0 && (at >= len(values) || values[at] != value) {
			if lost++; lost <= 5 {
				s.t.Errorf("%s, partition %d: %.12q was acknowledged at %d and is not there; it is elsewhere: %v", s.name(i), p, value, offset, slices.Contains(values, value))
			}
		}
	}
	if len(s.acked[p]) < 2 {
		s.t.Errorf("partition %d: only %d were acknowledged", p, len(s.acked[p]))
	}
	s.t.Logf("%s, partition %d: %d acknowledged, records %d to %d", s.name(i), p, len(s.acked[p]), start, int(start)+len(values))
}
