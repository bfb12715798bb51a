package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
)

// ownStores gives each node a store of its own, as folders that were meant to be one.
func ownStores(t *testing.T, configs map[string]string) (*testCluster, []*simStore) {
	t.Helper()
	c := newTestCluster(t, 3)
	small(c, configs)
	var stores []*simStore
	for i, n := range c.nodes {
		stores = append(stores, newSimStore(t, uint64(70+i)))
		n.cfg.TierTo, n.cfg.tierPieceBytes, n.cfg.TierCacheBytes, n.cfg.tierSegmentBytes = stores[i], 2000, 20000, 1
		n.cfg.joinTransaction = func(context.Context, fsm.Transaction, int64, int16, fsm.PartitionID, int32) error { return nil }
	}
	c.startAll()
	c.atLevel(fsm.LevelTiers)
	return c, stores
}

// letsGo waits until the replica of a node has let go of what is in the tier.
func (c *testCluster) letsGo(at int, id fsm.PartitionID) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("node %d lets go", at+1), func() error {
		r := c.nodes[at].records(id)
		if r == nil {
			return errors.New("it does not run")
		}
		local, _ := r.LocalStart()
		if all := r.Log.Segments(); local == 0 || len(all) > 1 && fsm.Offset(all[1].Start) <= local {
			return fmt.Errorf("it has kept %+v, and needs from %d on: %s", all[0], local, r.Unseen())
		}
		return nil
	})
}

// TestAReplicaLetsGoOfWhatItsNodeSees: where each node has a store of its own, replicas keep what
// only the leader's has, and say so; nothing is lost with the leader. When their stores have it
// they let go.
func TestAReplicaLetsGoOfWhatItsNodeSees(t *testing.T) {
	inBubble(t, testAReplicaLetsGoOfWhatItsNodeSees)
}

func testAReplicaLetsGoOfWhatItsNodeSees(t *testing.T) {
	c, stores := ownStores(t, map[string]string{"remote.storage.enable": "true", "segment.bytes": "8000", "local.retention.bytes": "12000"})
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	c.allVote(id)
	lead := c.leaderOf(id)
	c.fill(lead, id, "v", 100)
	time.Sleep(time.Minute)
	c.letsGo(lead, id)
	if lead != c.leaderOf(id) {
		t.Fatal("another leads")
	}
	others := []int{(lead + 1) % 3, (lead + 2) % 3}
	for _, at := range others {
		eventually(t, "the others know", func() error {
			r := c.nodes[at].records(id)
			if why := r.Unseen(); !strings.Contains(why, "--tier-to") || !strings.Contains(why, "offsets 0 to ") {
				return fmt.Errorf("node %d says %q", at+1, why)
			}
			return nil
		})
	}
	time.Sleep(10 * time.Minute) // snapshots, restarts of what waits: it stays so
	for _, at := range others {
		if from := localFrom(c.nodes[at].Node, id); from != 0 {
			t.Fatalf("node %d has let go of what is below %d, and its store has nothing", at+1, from)
		}
	}
	if why := c.nodes[lead].records(id).Unseen(); why != "" {
		t.Errorf("the leader: %s", why)
	}

	// Who has forgotten what it saw keeps it as well.
	c.kill(others[0])
	c.start(others[0])
	c.kill(lead)
	c.leaderOf(id)
	for _, at := range others {
		if _, values := localValues(t, c.nodes[at].Node, id); values != 100 {
			t.Errorf("without its leader the partition has %d values on node %d, want 100", values, at+1)
		}
	}

	// The store comes to be one.
	c.start(lead)
	for _, at := range others {
		stores[lead].mu.Lock()
		have := maps.Clone(stores[lead].objects)
		stores[lead].mu.Unlock()
		stores[at].set(func(s *simStore) { s.objects = have })
	}
	for _, at := range others {
		c.letsGo(at, id)
		c.seesAll(at, id)
	}
}

// seesAll waits until a node sees the tier of its replica in its store.
func (c *testCluster) seesAll(at int, id fsm.PartitionID) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("node %d sees the tier", at+1), func() error {
		if why := c.nodes[at].records(id).Unseen(); why != "" {
			return errors.New(why)
		}
		return nil
	})
}

// TestANodeSaysWhatItDoesNotSee: one whose store is another than that of the others says so, though
// it has nothing to let go of, and warns when its replica is copied from another that has let go.
func TestANodeSaysWhatItDoesNotSee(t *testing.T) { inBubble(t, testANodeSaysWhatItDoesNotSee) }

func testANodeSaysWhatItDoesNotSee(t *testing.T) {
	c, store := tierCluster(t, 8, nil)
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	c.allVote(id)
	lead := c.leaderOf(id)
	at := (lead + 1) % 3
	c.fill(lead, id, "v", 100)
	local := c.tiered(id)
	c.seesAll(at, id)
	c.kill(at)
	other, said := newSimStore(t, 80), new(lines)
	c.nodes[at].cfg.TierTo, c.nodes[at].cfg.Logger = other, slog.New(slog.NewTextHandler(said, nil))
	c.start(at)
	says := func() error {
		r := c.nodes[at].records(id)
		if r == nil {
			return errors.New("it does not run")
		}
		why := r.Unseen()
		for _, part := range []string{"--tier-to", "this replica has offsets from", "offsets 0 to "} {
			if !strings.Contains(why, part) {
				return fmt.Errorf("node %d says %q", at+1, why)
			}
		}
		return nil
	}
	eventually(t, "it says what it does not see", says)
	const warned, copied = "does not see in its store what is in the tier", "copied from another begins behind"
	if said.with(warned) != 1 || said.with(copied) != 0 {
		t.Errorf("%d and %d warnings", said.with(warned), said.with(copied))
	}
	anew := func() {
		t.Helper()
		c.kill(at)
		if err := c.nodes[at].on().RemoveAll(c.nodes[at].partitionDir(id)); err != nil {
			t.Fatal(err)
		}
		c.start(at)
		c.rebuilt(at, id, 100)
		if from := localFrom(c.nodes[at].Node, id); from == 0 || from > local {
			t.Fatalf("the replica that was made anew begins at %d", from)
		}
	}
	anew()
	eventually(t, "it says what it does not see", says)
	if said.with(copied) != 1 {
		t.Errorf("%d warnings of a copy", said.with(copied))
	}
	// It is told of the right one.
	store.mu.Lock()
	have := maps.Clone(store.objects)
	store.mu.Unlock()
	other.set(func(s *simStore) { s.objects = have })
	time.Sleep(2 * time.Minute)
	c.seesAll(at, id)
	anew()
	c.seesAll(at, id)
	if said.with(copied) != 1 {
		t.Errorf("%d warnings of copies", said.with(copied))
	}
	// Some day somebody deletes there.
	other.set(func(s *simStore) { s.objects = map[string]simObject{} })
	time.Sleep(65 * time.Minute)
	eventually(t, "it says what it does not see", says)
}

// TestANodeThatSeesNoStoreKeepsAll: one that was not told of the store lets go of nothing, until it
// is told.
func TestANodeThatSeesNoStoreKeepsAll(t *testing.T) { inBubble(t, testANodeThatSeesNoStoreKeepsAll) }

func testANodeThatSeesNoStoreKeepsAll(t *testing.T) {
	c, store := tierCluster(t, 8, nil)
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	c.allVote(id)
	lead := c.leaderOf(id)
	at := (lead + 1) % 3
	c.kill(at)
	c.nodes[at].cfg.TierTo = nil
	c.start(at)
	c.fill(lead, id, "v", 100)
	time.Sleep(time.Minute)
	c.letsGo(lead, id)
	c.letsGo((lead+2)%3, id)
	time.Sleep(5 * time.Minute)
	r := c.nodes[at].records(id)
	if from, why := localFrom(c.nodes[at].Node, id), r.Unseen(); from != 0 || !strings.Contains(why, "--tier-to") {
		t.Errorf("the node keeps offsets from %d on, and says %q", from, why)
	}
	c.kill(at)
	c.nodes[at].cfg.TierTo = store
	c.start(at)
	c.letsGo(at, id)
}

// TestWhatIsKeptUnseenIsCompacted: a replica that carries out a decision late, of what it keeps
// since its node does not see it in its store, shows no record of a transaction that was aborted
// and no key that was deleted, though the marker and the tombstone go from what all replicas keep.
func TestWhatIsKeptUnseenIsCompacted(t *testing.T) { inBubble(t, testWhatIsKeptUnseenIsCompacted) }

func testWhatIsKeptUnseenIsCompacted(t *testing.T) {
	c, stores := ownStores(t, map[string]string{
		"remote.storage.enable": "true", "cleanup.policy": "compact", "segment.bytes": "8000", "local.retention.bytes": "12000",
		"min.cleanable.dirty.ratio": "0.2", "max.compaction.lag.ms": "5000", "delete.retention.ms": "1000",
	})
	k := newKeyedLog(c, fsm.PartitionID{Topic: c.topic("a", 1, 3).ID})
	c.allVote(k.id)
	lead := c.leaderOf(k.id)
	late := (lead + 1) % 3
	// Tombstones go while nothing is in the tier.
	stores[lead].set(func(s *simStore) { s.down = true })
	// As long as it seems to be copied from, the replica compacts nothing.
	pass := func(what string, done func(r *replica.Records) error) {
		t.Helper()
		var err error
		for range 60 {
			_, _ = c.nodes[late].records(k.id).Entries(1, 1, 1)
			time.Sleep(10 * time.Second)
			if err = done(c.nodes[lead].records(k.id)); err == nil {
				return
			}
		}
		t.Fatalf("%s: %v", what, err)
	}
	fill := func(name string, n int) {
		for i := range n {
			k.put(-1, false, prototest.Keyed{Key: fmt.Sprint(name, i), Value: strings.Repeat("v", 1000)})
		}
	}
	k.put(7, true, prototest.Keyed{Key: "aborted", Value: "v"})
	k.put(-1, false, prototest.Keyed{Key: "deleted", Value: "v"})
	fill("first ", 40)
	k.finish(7, false)
	k.put(-1, false, prototest.Keyed{Key: "deleted", Null: true})
	marked := fsm.Offset(k.next)
	fill("second ", 1)
	pass("tombstones and markers go", func(r *replica.Records) error {
		if at := r.Log.Compaction(); !at.Whole() || fsm.Offset(at.Horizon) < marked {
			return fmt.Errorf("%+v, want %d", at, marked)
		}
		return nil
	})
	stores[lead].well()
	pass("what is old is in the tier", func(r *replica.Records) error {
		if local, _ := r.LocalStart(); local < 10 || localFrom(c.nodes[lead].Node, k.id) < 10 {
			return fmt.Errorf("replicas keep offsets from %d on", local)
		}
		return nil
	})
	before := c.nodes[lead].records(k.id).Log.Compaction().Decision
	fill("third ", 2)
	pass("another decision", func(r *replica.Records) error {
		if at := r.Log.Compaction(); at.Decision == before || !at.Whole() {
			return fmt.Errorf("%+v", at)
		}
		return nil
	})
	if local, _ := c.nodes[lead].records(k.id).LocalStart(); local >= marked-2 {
		t.Fatalf("replicas keep offsets from %d on, and the marker is at %d", local, marked-2)
	}
	if at := c.nodes[late].records(k.id).Log.Compaction(); at.Decision != 0 {
		t.Fatalf("the late one has carried out %+v", at)
	}
	k.compacted(marked)
	for i := range c.nodes {
		if i == lead {
			continue
		}
		if from, why := localFrom(c.nodes[i].Node, k.id), c.nodes[i].records(k.id).Unseen(); from != 0 || why == "" {
			t.Errorf("node %d keeps offsets from %d on: %s", i+1, from, why)
		}
	}
	k.check(false)
	k.same(late)
}

// TestAFullStoreIsNotSentTheSameAllTheTime: what it does not take goes there some times an hour,
// and all of it minutes after there is room. Where it fails for another reason, which may pass, it
// is tried again within 30 s.
func TestAFullStoreIsNotSentTheSameAllTheTime(t *testing.T) {
	t.Run("no room", func(t *testing.T) {
		inBubble(t, func(t *testing.T) { testAStoreThatTakesNothing(t, errNoRoom, 10*time.Minute, 3, 10, 5*time.Minute) })
	})
	t.Run("fails", func(t *testing.T) {
		inBubble(t, func(t *testing.T) { testAStoreThatTakesNothing(t, errStore, 2*time.Minute, 6, 18, 31*time.Second) })
	})
}

// testAStoreThatTakesNothing has a store refuse what is sent to it. After settles the pauses are as
// long as they get: then it should come from least to most times in twice that, and again within a
// time when the store is well.
func testAStoreThatTakesNothing(t *testing.T, why error, settles time.Duration, least, most int, again time.Duration) {
	c, store := tierCluster(t, 4, nil)
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	store.set(func(s *simStore) { s.room, s.noRoom = 5000, why })
	want := c.fill(0, id, "v", 60)
	time.Sleep(settles)
	status := func() replica.TierStatus { return c.nodes[c.leaderOf(id)].records(id).TierStatus() }
	if s := status(); !strings.Contains(s.Err, why.Error()) {
		t.Errorf("%+v", s)
	}
	store.set(func(s *simStore) { s.sent = 0 })
	time.Sleep(2 * settles)
	store.mu.Lock()
	sent := store.sent
	store.mu.Unlock()
	// An attempt sends three pieces of 2000 bytes or a little more.
	if attempts := sent / 6000; attempts < least || attempts > most {
		t.Errorf("%d bytes were sent in %s", sent, 2*settles)
	}
	before := status().Segments
	store.well()
	time.Sleep(again)
	if s := status(); s.Segments <= before {
		t.Errorf("%s behind: %+v", again, s)
	}
	c.tiered(id)
	c.wantEverywhere(id, want)
}

// TestAFullStoreIsRelieved: what retention lets go of is deleted while nothing can be put there,
// not even a list, and what waits goes there then.
func TestAFullStoreIsRelieved(t *testing.T) {
	for _, fullLists := range []bool{false, true} {
		t.Run(fmt.Sprint("full for lists: ", fullLists), func(t *testing.T) {
			inBubble(t, func(t *testing.T) { testAFullStoreIsRelieved(t, fullLists) })
		})
	}
}

func testAFullStoreIsRelieved(t *testing.T, fullLists bool) {
	c, store := tierCluster(t, 4, nil)
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	store.set(func(s *simStore) { s.room = 40000 })
	want := c.fill(0, id, "v", 80)
	time.Sleep(15 * time.Minute)
	lead := c.nodes[c.leaderOf(id)]
	full := lead.records(id).TierStatus()
	if !strings.Contains(full.Err, "507") || full.Segments < 4 || full.Waiting == 0 {
		t.Fatalf("%+v", full)
	}
	store.set(func(s *simStore) { s.fullLists = fullLists })
	first := full.End * 3 / 4
	eventually(t, "the log start moves", func() error {
		_, err := lead.DeleteRecords(within(t), id, first)
		return err
	})
	time.Sleep(10 * time.Minute)
	eventually(t, "more is in the tier", func() error {
		s := c.nodes[c.leaderOf(id)].records(id).TierStatus()
		if s.Gone > 0 || s.End < full.End+(full.End/2)/2 {
			return fmt.Errorf("%+v, and it was full at %d", s, full.End)
		}
		return nil
	})
	store.well()
	store.set(func(s *simStore) { s.fullLists = false })
	time.Sleep(5 * time.Minute)
	c.tiered(id)
	c.wantBehind(id, first, want[first:])
}
