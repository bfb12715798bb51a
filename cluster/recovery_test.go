package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/cluster/identity"
	"github.com/trimaran-io/trimaran/cluster/lostquorum"
	"github.com/trimaran-io/trimaran/cluster/tier"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/transaction"
)

// stopped opens a stopped node's data directory to recover its cluster.
func (c *testCluster) stopped(i int) *Recovery {
	c.t.Helper()
	r, err := openRecovery(c.nodes[i].disk.boot(), c.nodes[i].cfg.DataDir, testLogger(c.t))
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// surveys gives what stopped nodes have.
func (c *testCluster) surveys(nodes ...int) (all []*lostquorum.Survey) {
	c.t.Helper()
	for _, i := range nodes {
		r := c.stopped(i)
		s, err := r.Survey()
		if err = errors.Join(err, r.Close()); err != nil {
			c.t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

// recover makes the stopped survivors go on without the others, and gives the plan.
func (c *testCluster) recover(lost []string, survivors ...int) *lostquorum.Plan {
	c.t.Helper()
	plan, err := lostquorum.Decide(c.surveys(survivors...), lost)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, i := range survivors {
		r := c.stopped(i)
		if err := errors.Join(r.Apply(plan), r.Close()); err != nil {
			c.t.Fatalf("node %d: %v", i+1, err)
		}
	}
	return plan
}

// fate gives what a plan says of a group.
func fate(t *testing.T, p *lostquorum.Plan, name string) lostquorum.Group {
	t.Helper()
	for _, g := range p.Groups {
		if g.Name == name {
			return g
		}
	}
	t.Fatalf("the plan has no group %s", name)
	return lostquorum.Group{}
}

// numbered gives values that are told apart.
func numbered(name string, n int) (values []string) {
	for i := range n {
		values = append(values, fmt.Sprintf("%s-%d", name, i))
	}
	return values
}

// TestOneOfThreeGoesOn: all that it had is served, in an epoch far above the one before; two new
// nodes take the places of those that were lost; one of these that comes back ends.
func TestOneOfThreeGoesOn(t *testing.T) { inBubble(t, testOneOfThreeGoesOn) }

func testOneOfThreeGoesOn(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.allKnow()
	topic := c.topic("events", 12, 3) // more than move at a time
	var ids []fsm.PartitionID
	for p := range int32(12) {
		ids = append(ids, fsm.PartitionID{Topic: topic.ID, Partition: p})
	}
	want := numbered("before", 5)
	for _, id := range ids {
		for _, value := range want {
			c.mustAppend(0, id, value)
		}
		c.wantEverywhere(id, want)
	}
	c.commit(0, "readers", "events", 5, 6, 7)
	c.wantCommitted("readers", "events", 5, 6, 7)
	clusterID := c.nodes[0].ClusterID()
	lost := []string{c.nodes[1].identity, c.nodes[2].identity}
	for i := range c.nodes {
		c.kill(i)
	}

	plan := c.recover([]string{"n2", lost[1]}, 0)
	if !slices.Equal(plan.Lost, lost) {
		t.Errorf("lost are %q, want %q", plan.Lost, lost)
	}
	for _, g := range plan.Groups {
		if g.Fate != lostquorum.Recovered || len(g.Servers) != 1 {
			t.Errorf("group %s: %+v", g, g)
		}
	}
	for _, id := range ids {
		if g := fate(t, plan, id.String()); g.MissingFrom != 5 || !g.Records() || g.String() != fmt.Sprint("events-", id.Partition) {
			t.Errorf("partition %s: %+v", id, g)
		}
	}
	c.start(0)
	c.ready()
	if got := c.nodes[0].ClusterID(); got != clusterID {
		t.Errorf("clients are told that this is cluster %s, and were told %s", got, clusterID)
	}
	c.wantCommitted("readers", "events", 5, 6, 7)
	for _, id := range ids {
		c.mustAppend(0, id, "after")
		c.wantEverywhere(id, append(slices.Clone(want), "after"))
		slice, err := c.nodes[0].Read(within(t), id, 5, 1<<20, fsm.ReadUncommitted)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range headersOf(t, slice.Batches) {
			if h.LeaderEpoch < lostquorum.TermGap {
				t.Errorf("partition %s: what came afterwards is of epoch %d", id, h.LeaderEpoch)
			}
		}
	}

	c.start(c.add(0))
	for _, id := range ids { // one new node takes part of all, and waits for no other
		eventually(t, "n4 votes", func() error {
			r := c.nodes[3].replica(id)
			if r == nil {
				return errors.New("it has no replica")
			}
			if _, next := r.Bounds(); next != 6 || len(r.Member.Voters()) != 2 {
				return fmt.Errorf("it is at %d, and %q vote", next, r.Member.Voters())
			}
			return nil
		})
	}
	c.start(c.add(0))
	for _, id := range ids {
		c.replicasAre(id, 0, "n1", "n4", "n5")
		c.wantEverywhere(id, append(slices.Clone(want), "after"))
	}
	eventually(t, "the lost nodes are forgotten", func() error {
		for _, id := range []fsm.NodeID{"n2", "n3"} {
			if node, there := c.nodes[0].Topics().Node(id); there {
				return fmt.Errorf("%+v", node)
			}
		}
		servers, err := c.nodes[0].catalog.Member().Servers()
		if len(servers) != 3 || err != nil {
			return fmt.Errorf("the catalog has %v, %w", servers, err)
		}
		return nil
	})
	c.ready()

	// Two of the old three are a majority.
	for i := 1; i < 3; i++ {
		c.start(i)
	}
	for i := 1; i < 3; i++ {
		eventually(t, "the lost node ends", func() error {
			if err := c.nodes[i].Err(); !errors.Is(err, ErrLeftOut) {
				return fmt.Errorf("it goes on: %v", err)
			}
			return nil
		})
		c.kill(i)
	}
	for _, id := range ids {
		c.mustAppend(3, id, "last")
	}
}

// TestTheNewestSurvivorIsFollowed: two of five survive a loss of power, and one of them was away
// for the last records. What it has otherwise gives way.
func TestTheNewestSurvivorIsFollowed(t *testing.T) { inBubble(t, testTheNewestSurvivorIsFollowed) }

func testTheNewestSurvivorIsFollowed(t *testing.T) {
	c := newTestCluster(t, 5)
	for _, n := range c.nodes {
		n.cfg.NoAutoBalance = true
	}
	c.startAll()
	c.allKnow()
	id := fsm.PartitionID{Topic: c.topic("events", 1, 5).ID}
	want := numbered("all", 5)
	for _, value := range want {
		c.mustAppend(0, id, value)
	}
	c.wantEverywhere(id, want)
	c.kill(1)
	for _, value := range numbered("four", 5) {
		c.mustAppend(0, id, value)
		want = append(want, value)
	}
	c.wantEverywhere(id, want)
	for i := range c.nodes {
		c.crash(i, true)
	}
	plan := c.recover([]string{"n3", "n4", "n5"}, 1, 0)
	if g := fate(t, plan, id.String()); g.Member != c.nodes[0].who.String() || len(g.Servers) != 2 || g.MissingFrom != 10 {
		t.Errorf("%+v", g)
	}
	c.start(0)
	c.start(1)
	c.ready()
	c.mustAppend(1, id, "after")
	c.wantEverywhere(id, append(want, "after"))
}

// TestOnlyWhatHasNoMajorityIsRecovered: the catalog and the partition of another three go on as
// they are, while all nodes are of the recovered cluster.
func TestOnlyWhatHasNoMajorityIsRecovered(t *testing.T) {
	inBubble(t, testOnlyWhatHasNoMajorityIsRecovered)
}

func testOnlyWhatHasNoMajorityIsRecovered(t *testing.T) {
	c := newTestCluster(t, 5)
	for _, n := range c.nodes {
		n.cfg.NoAutoBalance = true
	}
	c.startAll()
	c.allKnow()
	topic := c.topic("events", 3, 3)
	places := [][]fsm.NodeID{{"n3", "n4", "n5"}, {"n1", "n2", "n3"}, {"n1", "n2", "n4"}}
	for p, nodes := range places {
		id := fsm.PartitionID{Topic: topic.ID, Partition: int32(p)}
		c.reassign(0, id, nodes...)
		c.replicasAre(id, 0, nodes...)
		c.mustAppend(0, id, "before")
	}
	for i := range c.nodes {
		c.kill(i)
	}
	if _, err := lostquorum.Decide(c.surveys(1, 2, 3, 4), []string{"n1"}); !errors.Is(err, lostquorum.ErrMajority) {
		t.Errorf("with one of five lost: %v", err)
	}
	if _, err := lostquorum.Decide(c.surveys(2, 3), []string{"n1", "n2"}); err == nil || !strings.Contains(err.Error(), "node n5 is neither named as lost") {
		t.Errorf("a node is forgotten: %v", err)
	}
	plan := c.recover([]string{"n1", "n2"}, 2, 3, 4)
	for name, want := range map[string]lostquorum.Fate{
		"catalog":                lostquorum.Kept,
		topic.ID.String() + "-0": lostquorum.Kept,
		topic.ID.String() + "-1": lostquorum.Recovered,
		topic.ID.String() + "-2": lostquorum.Recovered,
	} {
		if g := fate(t, plan, name); g.Fate != want {
			t.Errorf("%s: %+v, want %s", g, g, want)
		}
	}
	for i := 2; i < 5; i++ {
		c.start(i)
	}
	c.ready()
	for p := range places {
		id := fsm.PartitionID{Topic: topic.ID, Partition: int32(p)}
		c.mustAppend(3, id, "after")
		c.replicasAre(id, 2, "n3", "n4", "n5") // in place of those that were lost
		c.wantEverywhere(id, []string{"before", "after"})
	}
	eventually(t, "the lost nodes are forgotten", func() error {
		if n := len(c.nodes[2].Topics().Nodes()); n != 3 {
			return fmt.Errorf("%d nodes", n)
		}
		return nil
	})
}

// TestACompactedTopicIsRecovered: power goes while its last replica compacts, or has compacted.
// What it has is told whole, with its holes, new nodes copy it as it is, and all go on to compact
// alike.
func TestACompactedTopicIsRecovered(t *testing.T) {
	for _, pause := range []time.Duration{0, 61 * time.Second, 65 * time.Second, 5 * time.Minute} {
		runInBubble(t, pause.String(), func(t *testing.T) { testACompactedTopicIsRecovered(t, pause) })
	}
}

func testACompactedTopicIsRecovered(t *testing.T, pause time.Duration) {
	c, k := compactCluster(t, nil)
	for _, n := range c.nodes {
		n.cfg.CompactionRate = 20 << 10 // so that rounds take a while
	}
	for i := range c.nodes {
		c.halt(i)
	}
	c.startAll()
	random := rand.New(rand.NewPCG(uint64(pause), 1))
	k.storeSome(random, 60, 20)
	k.finishAll()
	k.caughtUp()
	k.compacted(fsm.Offset(k.next))
	k.storeSome(random, 60, 20)
	k.finishAll()
	k.put(3, true, prototest.Keyed{Key: "open", Value: "v"})
	k.caughtUp()
	time.Sleep(pause)
	for i := range c.nodes {
		c.crash(i, true)
	}
	plan := c.recover([]string{"n2", "n3"}, 0)
	if g := fate(t, plan, k.id.String()); g.MissingFrom != k.next {
		t.Errorf("%d offsets were given, and %+v", k.next, g)
	}
	c.start(0)
	c.ready()
	k.caughtUp()
	k.check(true)
	for at := range fsm.Offset(k.next) {
		if _, _, err := k.read(0, at); err != nil {
			t.Fatalf("from %d: %v", at, err)
		}
	}
	for range 2 {
		i := c.add(0)
		small(c, c.nodes[0].cfg.TopicDefaults)
		c.nodes[i].cfg.joinTransaction = c.nodes[0].cfg.joinTransaction
		c.start(i)
	}
	k.storeSome(random, 60, 20)
	k.finishAll()
	c.replicasAre(k.id, 0, "n1", "n4", "n5")
	k.caughtUp()
	k.compacted(fsm.Offset(k.next))
	k.check(false)
	k.same(3)
}

// coordinated asks the coordinator of a transactional id, until it answers.
func coordinated[R kmsg.Response](c *testCluster, id string, fill func() kmsg.Request) (resp R) {
	c.t.Helper()
	eventually(c.t, "the coordinator of "+id, func() error {
		req := fill()
		version, _ := transaction.Version(req.Key())
		req.SetVersion(version)
		got, err := c.any().Coordinate(within(c.t), coordinator.ShardOf(id), transaction.Client{ID: "test", Host: "/127.0.0.1", Version: version}, req)
		if err == nil {
			resp = got.(R)
		}
		return err
	})
	return resp
}

// txnProgram is a program that writes to one partition in transactions.
type txnProgram struct {
	c        *testCluster
	id       string
	to       fsm.PartitionID
	producer int64
	epoch    int16
	sequence int32
}

// init begins as a program does that was started.
func (p *txnProgram) init() {
	p.c.t.Helper()
	eventually(p.c.t, "a producer id", func() error {
		resp := coordinated[*kmsg.InitProducerIDResponse](p.c, p.id, func() kmsg.Request {
			req := kmsg.NewPtrInitProducerIDRequest()
			req.TransactionalID, req.TransactionTimeoutMillis, req.ProducerID, req.ProducerEpoch = &p.id, 60_000, -1, -1
			return req
		})
		p.producer, p.epoch, p.sequence = resp.ProducerID, resp.ProducerEpoch, 0
		return kerr.ErrorForCode(resp.ErrorCode)
	})
}

func (p *txnProgram) write(value string) {
	p.c.t.Helper()
	eventually(p.c.t, "append", func() error {
		n := p.c.any()
		batch := prototest.Of(prototest.Batch(value), p.producer, p.epoch, p.sequence, true)
		appended, err := n.AppendInLine(within(p.c.t), p.to, n.NewLine(0), fsm.Transaction{ID: p.id, Add: true}, []kafkaproto.Batch{batch})
		if err == nil && appended[0].Err != 0 {
			err = appended[0].Err
		}
		return err
	})
	p.sequence++
}

// end gives what it is told.
func (p *txnProgram) end(commit bool) (code int16) {
	p.c.t.Helper()
	eventually(p.c.t, "the end of a transaction", func() error {
		resp := coordinated[*kmsg.EndTxnResponse](p.c, p.id, func() kmsg.Request {
			req := kmsg.NewPtrEndTxnRequest()
			req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = p.id, p.producer, p.epoch, commit
			return req
		})
		if err := kerr.ErrorForCode(resp.ErrorCode); errors.Is(err, kerr.ConcurrentTransactions) || errors.Is(err, kerr.NotCoordinator) {
			return err
		}
		if code = resp.ErrorCode; code == 0 {
			p.producer, p.epoch, p.sequence = resp.ProducerID, resp.ProducerEpoch, 0
		}
		return nil
	})
	return code
}

func (p *txnProgram) transact(value string) {
	p.c.t.Helper()
	p.write(value)
	if code := p.end(true); code != 0 {
		p.c.t.Fatalf("%q is not committed: %v", value, kerr.ErrorForCode(code))
	}
}

// wantCommittedValues waits until readers of committed records get these.
func (c *testCluster) wantCommittedValues(id fsm.PartitionID, want ...string) {
	c.t.Helper()
	eventually(c.t, "what is committed", func() error {
		slice, err := c.any().Read(within(c.t), id, 0, 1<<20, fsm.ReadCommitted)
		if err != nil {
			return err
		}
		var aborted []prototest.Aborted
		for _, a := range slice.Aborted {
			aborted = append(aborted, prototest.Aborted{ProducerID: a.ProducerID, First: int64(a.First)})
		}
		records, _, err := prototest.Consume(slice.Batches, 0, true, aborted)
		var got []string
		for _, r := range records {
			got = append(got, r.Value)
		}
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("%q, want %q", got, want)
		}
		return err
	})
}

// TestAShardThatHasLostTransactions: the last replica of a shard was away for some that a partition
// has. What is given out from then on the partition has never had, so it takes all of it.
func TestAShardThatHasLostTransactions(t *testing.T) {
	inBubble(t, testAShardThatHasLostTransactions)
}

func testAShardThatHasLostTransactions(t *testing.T) {
	c := newTestCluster(t, 5)
	for _, n := range c.nodes {
		n.cfg.NoAutoBalance = true
	}
	c.startAll()
	c.allKnow()
	to := fsm.PartitionID{Topic: c.topic("events", 1, 3).ID}
	payer := &txnProgram{c: c, id: "payer", to: to}
	idle := &txnProgram{c: c, to: to}
	for i := 0; idle.id == "" || coordinator.ShardOf(idle.id) != coordinator.ShardOf(payer.id); i++ {
		idle.id = fmt.Sprint("idle-", i)
	}
	payer.init()
	idle.init()
	shard := fsm.PartitionID{Topic: fsm.GroupShardsID, Partition: int32(coordinator.ShardOf(payer.id))}
	for id, nodes := range map[fsm.PartitionID][]fsm.NodeID{to: {"n3", "n4", "n5"}, shard: {"n1", "n2", "n3"}} {
		c.reassign(0, id, nodes...)
		c.replicasAre(id, 0, nodes...)
	}
	idle.transact("zero")
	payer.transact("one")
	eventually(t, "n1 has what the shard's leader has", func() error {
		_, here := c.nodes[0].replica(shard).Bounds()
		if _, there := c.nodes[c.leaderOf(shard)].replica(shard).Bounds(); here != there {
			return fmt.Errorf("%d, not %d", here, there)
		}
		return nil
	})
	c.kill(0)
	idle.write("is added where n1 does not hear of it")
	payer.transact("two")
	payer.transact("three")
	payer.write("open at the loss")
	before := *payer
	eventually(t, "n5 has all of the partition", func() error {
		_, here := c.nodes[4].replica(to).Bounds()
		if _, there := c.nodes[c.leaderOf(to)].replica(to).Bounds(); here != there {
			return fmt.Errorf("%d, not %d", here, there)
		}
		return nil
	})
	for i := range c.nodes {
		c.kill(i)
	}
	plan := c.recover([]string{"n2", "n3", "n4"}, 0, 4)
	for _, id := range []fsm.PartitionID{to, shard} {
		if g := fate(t, plan, id.String()); g.Fate != lostquorum.Recovered {
			t.Errorf("%+v", g)
		}
	}
	c.start(0)
	c.start(4)
	c.ready()
	if code := payer.end(true); !errors.Is(kerr.ErrorForCode(code), kerr.ProducerFenced) {
		t.Errorf("whoever was there before the loss goes on: %v", kerr.ErrorForCode(code))
	}
	// Of these nobody knows any more but the partition: they hang, and are ended by hand.
	for _, p := range []*txnProgram{idle, &before} {
		eventually(t, "the transaction is ended", func() error {
			outcomes, err := c.any().router.WriteMarkers(within(t), to, []fsm.Marker{{ProducerID: p.producer, Epoch: p.epoch, Forced: true}})
			if err == nil && outcomes[0] != 0 {
				err = outcomes[0]
			}
			return err
		})
	}
	c.wantCommittedValues(to, "zero", "one", "two", "three")
	payer.init()
	if payer.producer == before.producer || payer.producer < fsm.MaxProducerIDBlock*spareProducerIDs {
		t.Errorf("producer %d goes on as %d", before.producer, payer.producer)
	}
	for _, value := range []string{"four", "five", "six"} {
		payer.transact(value)
	}
	idle.init()
	idle.transact("seven")
	c.wantCommittedValues(to, "zero", "one", "two", "three", "four", "five", "six", "seven")
}

// TestTheNextTransactionHasBegun while the one before is decided and not over, as far as its
// shard's log goes, when a majority is lost. Nothing of the shard is lost, so nothing hangs.
func TestTheNextTransactionHasBegun(t *testing.T) { inBubble(t, testTheNextTransactionHasBegun) }

func testTheNextTransactionHasBegun(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.allKnow()
	to := fsm.PartitionID{Topic: c.topic("events", 1, 3).ID}
	payer := &txnProgram{c: c, id: "payer", to: to}
	payer.init()
	payer.transact("one")
	payer.write("begun")
	shard := fsm.PartitionID{Topic: fsm.GroupShardsID, Partition: int32(coordinator.ShardOf(payer.id))}
	for _, id := range []fsm.PartitionID{to, shard} {
		_, there := c.nodes[c.leaderOf(id)].replica(id).Bounds()
		eventually(t, "n1 has all", func() error {
			if _, here := c.nodes[0].replica(id).Bounds(); here < there {
				return fmt.Errorf("%d, not %d", here, there)
			}
			return nil
		})
	}
	before := *payer
	for i := range c.nodes {
		c.kill(i)
	}
	c.recover([]string{"n2", "n3"}, 0)
	c.start(0)
	c.ready()
	payer.init()
	if payer.producer == before.producer {
		t.Errorf("producer %d goes on", before.producer)
	}
	for _, value := range []string{"two", "three"} {
		payer.transact(value)
	}
	c.wantCommittedValues(to, "one", "two", "three")
}

// TestARecoveryGoesOnWhereverItWasCut: power goes at each operation of it in turn. No node starts
// with a part of it; done again it comes to what it would have been.
func TestARecoveryGoesOnWhereverItWasCut(t *testing.T) {
	runInBubble(t, "anywhere", func(t *testing.T) { testARecoveryGoesOnWhereverItWasCut(t, 1) })
	runInBubble(t, "with shards", func(t *testing.T) { testARecoveryGoesOnWhereverItWasCut(t, 41) })
}

// Every so many operations power goes. Where that is more than one there are shards, and a
// transactional id.
func testARecoveryGoesOnWhereverItWasCut(t *testing.T, every int) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.allKnow()
	id := fsm.PartitionID{Topic: c.topic("events", 1, 3).ID}
	want := numbered("before", 3)
	for _, value := range want {
		c.mustAppend(0, id, value)
	}
	c.wantEverywhere(id, want)
	if every > 1 {
		(&txnProgram{c: c, id: "payer"}).init()
	}
	for i := range c.nodes {
		c.kill(i)
	}
	disk := c.nodes[0].disk
	plan, err := lostquorum.Decide(c.surveys(0), []string{"n2", "n3"})
	if err != nil {
		t.Fatal(err)
	}
	before := disk.files()
	for steps, cut := 0, true; cut; steps += every {
		disk.mem = before.Copy()
		cut = false
		r := c.stopped(0)
		disk.light(steps, func() {
			cut = true
			disk.files().Stop()
		})
		err := r.Apply(plan)
		disk.fuse.Store(nil)
		r.Close()
		if !cut {
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d operations", steps)
			break
		}
		disk.mem = disk.mem.Crash(disk.dice)

		r = c.stopped(0)
		begun, err := r.Begun()
		if err != nil {
			t.Fatalf("step %d: %v", steps, err)
		}
		if begun != nil {
			_, err := identity.Load(r.dir, "n1")
			if !errors.Is(err, identity.ErrUnfinished) {
				t.Fatalf("step %d: a node would start in the middle: %v", steps, err)
			}
			if RecoveredID(begun) != RecoveredID(plan) {
				t.Fatalf("step %d: it would go on to %s, and began with %s", steps, RecoveredID(begun), RecoveredID(plan))
			}
		} else if r.ClusterID() != RecoveredID(plan) {
			s, err := r.Survey()
			if err != nil {
				t.Fatalf("step %d: %v", steps, err)
			}
			again, err := lostquorum.Decide([]*lostquorum.Survey{s}, []string{"n2", "n3"})
			if err != nil || RecoveredID(again) != RecoveredID(plan) {
				t.Fatalf("step %d: nothing was begun, and something is not as it was: %v", steps, err)
			}
			begun = again
		} else {
			begun = plan
		}
		if err := errors.Join(r.Apply(begun), r.Close()); err != nil {
			t.Fatalf("step %d: %v", steps, err)
		}
		disk.files().Exit()
		if steps/every%16 != 0 {
			continue
		}
		c.start(0)
		c.ready()
		c.wantEverywhere(id, want)
		c.kill(0)
	}
	c.start(0)
	c.ready()
	c.mustAppend(0, id, "after")
	c.wantEverywhere(id, append(want, "after"))
}

// TestATopicWithATierIsRecovered: one of three nodes is left, and a part of the records lies in the
// store alone. It serves all of them, and so do the nodes that come in place of the others; more
// goes to the store, which what is left of the old cluster cannot change any more.
func TestATopicWithATierIsRecovered(t *testing.T) { inBubble(t, testATopicWithATierIsRecovered) }

func testATopicWithATierIsRecovered(t *testing.T) {
	c, store := tierCluster(t, 6, nil)
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	want := c.fill(0, id, "before", 60)
	local := c.tiered(id)
	if local == 0 {
		t.Fatal("nothing is in the tier alone")
	}
	want = append(want, c.fill(0, id, "last", 3)...)
	c.wantEverywhere(id, want)
	for i := range c.nodes {
		c.crash(i, true)
	}
	plan := c.recover([]string{"n2", "n3"}, 0)
	if g := fate(t, plan, id.String()); g.MissingFrom != int64(len(want)) {
		t.Errorf("%d offsets were given, and %+v", len(want), g)
	}
	c.start(0)
	c.ready()
	if _, values := localValues(t, c.nodes[0].Node, id); values != len(want) {
		t.Errorf("the survivor gives %d values of %d", values, len(want))
	}
	if from := localFrom(c.nodes[0].Node, id); from == 0 {
		t.Error("the survivor has all of it itself")
	}
	want = append(want, c.fill(0, id, "after", 60)...)
	more := c.tiered(id)
	if more <= local {
		t.Errorf("replicas kept offsets from %d on before, and keep those from %d on", local, more)
	}
	for range 2 {
		i := c.add(0)
		c.nodes[i].cfg.TopicDefaults = c.nodes[0].cfg.TopicDefaults
		n, from := c.nodes[i], c.nodes[0].cfg
		n.cfg.TierTo, n.cfg.tierPieceBytes, n.cfg.TierCacheBytes, n.cfg.tierSegmentBytes = store, from.tierPieceBytes, from.TierCacheBytes, from.tierSegmentBytes
		n.cfg.joinTransaction = from.joinTransaction
		c.start(i)
	}
	c.replicasAre(id, 0, "n1", "n4", "n5")
	for _, i := range []int{0, 3, 4} {
		c.rebuilt(i, id, fsm.Offset(len(want)))
		if _, values := localValues(t, c.nodes[i].Node, id); values != len(want) {
			t.Errorf("node %d gives %d values of %d", i+1, values, len(want))
		}
	}
	owner, err := (tier.Remains{Store: store}).Owner(within(t))
	if now := c.nodes[0].who.ClusterID(); err != nil || owner != now || owner != RecoveredID(plan) {
		t.Errorf("the store is that of %s, %v; the cluster is %s", owner, err, now)
	}
	_, l := c.restored(store, id, 1)
	if end := l.Segments[len(l.Segments)-1].Next; end <= 63 {
		t.Errorf("the store's list ends at %d", end)
	}
}
