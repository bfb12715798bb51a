package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/outcome"
)

// What clients are told of a partition, whichever node they ask, goes with the time: once an answer
// has shown an end, no question that begins later is answered with less, and no offset up to it is
// out of range. The same for what a group has committed. Meanwhile state machines apply late, on
// one replica at a time, leadership moves and nodes are cut off.
//
// LINEAR_SEED begins with another seed. What is done comes from it, when it is done does not.
func TestWhatClientsAreToldNeverGoesBack(t *testing.T) {
	seed := uint64(1)
	if s := os.Getenv("LINEAR_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	for i := range uint64(2) {
		runInBubble(t, fmt.Sprint(seed+i), func(t *testing.T) { whatClientsAreTold(t, seed+i) })
	}
}

// told is what an answer has shown, whoever got it.
type told struct {
	what string
	t    *testing.T
	at   atomic.Int64
}

// atLeast holds an answer against what was told before the question.
func (v *told) atLeast(before, now int64, from string) {
	if now < before {
		v.t.Errorf("%s: %s says %d, and %d was told before it was asked", v.what, from, now, before)
	}
	v.raise(now)
}

func (v *told) raise(now int64) {
	for {
		was := v.at.Load()
		if now <= was || v.at.CompareAndSwap(was, now) {
			return
		}
	}
}

func whatClientsAreTold(t *testing.T, seed uint64) {
	c := newTestCluster(t, 3)
	var lateNode atomic.Int64 // that applies late, -1: none
	lateNode.Store(-1)
	for i, node := range c.nodes {
		dice := rand.New(rand.NewPCG(seed, uint64(i)))
		var mu sync.Mutex
		node.cfg.beforeApply = func(fsm.PartitionID, uint64) {
			if lateNode.Load() != int64(i) {
				return
			}
			mu.Lock()
			d := time.Duration(dice.Int64N(int64(60 * time.Millisecond)))
			mu.Unlock()
			time.Sleep(d)
		}
	}
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	c.mustAppend(0, id, "the first")
	c.commit(0, "g", "a", 0)
	const group = "g"

	ends := &told{what: "the end", t: t}
	starts := &told{what: "the log start", t: t}
	commits := &told{what: "the commit", t: t}
	ctx, stop := context.WithCancel(t.Context()) // how long it takes depends on the machine
	defer stop()
	var answers [6]atomic.Int64
	var wg sync.WaitGroup
	client := func(name int, do func(n *Node, from string, dice *rand.Rand) (asked bool)) {
		dice := rand.New(rand.NewPCG(seed, uint64(100+name)))
		wg.Go(func() {
			for ctx.Err() == nil {
				i := dice.IntN(len(c.nodes))
				if do(c.nodes[i].Node, fmt.Sprintf("node %d", i+1), dice) {
					answers[name].Add(1)
				}
				time.Sleep(time.Duration(dice.IntN(3)) * time.Millisecond)
			}
		})
	}
	short := func() (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, 2*time.Second) }
	client(0, func(n *Node, _ string, _ *rand.Rand) bool { // produces
		ctx, cancel := short()
		defer cancel()
		appended, err := n.Append(ctx, id, batchList{prototest.Batch("v")})
		if err == nil {
			ends.raise(int64(appended[0].BaseOffset) + 1)
		}
		return err == nil
	})
	for _, name := range []int{1, 2} { // fetches at the tail
		client(name, func(n *Node, from string, _ *rand.Rand) bool {
			ctx, cancel := short()
			defer cancel()
			at := ends.at.Load()
			slice, err := n.Read(ctx, id, fsm.Offset(at), 1<<20, fsm.ReadUncommitted)
			switch {
			case outcome.Code(err) == outcome.ErrOffsetOutOfRange:
				t.Errorf("%s says that offset %d is out of range, which was told as the end: %v", from, at, err)
				return false
			case err != nil:
				return false
			}
			ends.atLeast(at, int64(slice.HighWatermark), from+", to a fetch at the tail,")
			for batch, err := range kafkaproto.Batches(slice.Batches) {
				if err == nil {
					ends.raise(batch.Header().NextOffset()) // also a follower's own
				}
			}
			return true
		})
	}
	client(3, func(n *Node, from string, dice *rand.Rand) bool { // asks for offsets
		ctx, cancel := short()
		defer cancel()
		before, beforeStart := ends.at.Load(), starts.at.Load()
		switch dice.IntN(5) {
		case 0, 1:
			offsets, err := n.ListOffsets(ctx, id, -1, 1)
			if err != nil {
				return false
			}
			ends.atLeast(before, int64(offsets[0]), from+", to ListOffsets,")
		case 2:
			offset, _, _, ok, err := n.OffsetForTime(ctx, id, replica.MaxTimestamp)
			if err != nil || !ok {
				return false
			}
			ends.raise(int64(offset) + 1)
		case 3:
			offsets, err := n.ListOffsets(ctx, id, -2, 1)
			if err != nil {
				return false
			}
			starts.atLeast(beforeStart, int64(offsets[0]), from)
		case 4:
			epoch, _ := n.LeaderEpoch(id)
			found, end, err := n.EpochEnd(ctx, id, epoch)
			if err != nil || found != epoch || end < 0 {
				return false
			}
			ends.raise(int64(end))
		}
		return true
	})
	client(4, func(n *Node, _ string, dice *rand.Rand) bool { // deletes a little, waits at the end
		ctx, cancel := short()
		defer cancel()
		if dice.IntN(3) > 0 {
			at := ends.at.Load()
			if n.Await(ctx, id, fsm.Offset(at), fsm.ReadUncommitted) != nil {
				return false
			}
			ends.raise(at + 1)
			return true
		}
		if low, err := n.DeleteRecords(ctx, id, fsm.Offset(ends.at.Load()/2)); err == nil {
			starts.raise(int64(low))
			return true
		}
		return false
	})
	// commits, and asks what is committed
	client(5, func(n *Node, from string, dice *rand.Rand) bool {
		ctx, cancel := short()
		defer cancel()
		before := commits.at.Load()
		if dice.IntN(2) == 0 { // only this client commits, and one after the other
			if tryCommit(ctx, n, group, "a", before+1) != nil {
				return false
			}
			commits.raise(before + 1)
			return true
		}
		offsets, err := fetchOffsets(ctx, n, group, "a", 1)
		if err == nil {
			commits.atLeast(before, offsets[0], from)
		}
		return err == nil
	})

	dice := rand.New(rand.NewPCG(seed, 99))
	handOver := func(id fsm.PartitionID) {
		for _, n := range c.nodes {
			if r := n.replica(id); r != nil {
				if _, err := r.Leads(); err == nil {
					_ = n.handOver(r.Member)
					return
				}
			}
		}
	}
	var did []string
	for step := range 25 {
		what := ""
		switch dice.IntN(6) {
		case 0, 1:
			late := dice.Int64N(int64(len(c.nodes)))
			what = fmt.Sprintf("node %d applies late", late+1)
			lateNode.Store(late)
		case 2:
			what = "leadership moves"
			handOver(id)
			handOver(shardID(coordinator.ShardOf(group)))
		case 3:
			n := dice.IntN(len(c.nodes))
			what = fmt.Sprintf("node %d is cut off", n+1)
			c.net.isolate(n, len(c.nodes), true)
		default:
			what = "the network is whole"
			for n := range c.nodes {
				c.net.isolate(n, len(c.nodes), false)
			}
		}
		did = append(did, what)
		// The next step comes when clients have seen this one, or are cut off.
		before, began := answers[3].Load(), time.Now()
		for answers[3].Load() < before+20 && time.Since(began) < 500*time.Millisecond && !t.Failed() {
			time.Sleep(5 * time.Millisecond)
		}
		if t.Failed() {
			t.Errorf("seed %d, step %d: %s", seed, step, strings.Join(did, "; "))
			break
		}
	}
	lateNode.Store(-1)
	for n := range c.nodes {
		c.net.isolate(n, len(c.nodes), false)
	}
	var before [len(answers)]int64
	for i := range answers {
		before[i] = answers[i].Load()
	}
	eventually(t, "all clients are served again", func() error {
		for i := range answers {
			if answers[i].Load() < before[i]+3 {
				return fmt.Errorf("client %d had %d answers", i, answers[i].Load())
			}
		}
		return nil
	})
	stop()
	wg.Wait()
	t.Logf("seed %d: end %d, log start %d, commit %d", seed, ends.at.Load(), starts.at.Load(), commits.at.Load())
}
