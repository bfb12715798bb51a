package cluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/cluster/tier"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/outcome"
)

// simStore is a store that all nodes of a test reach, and that fails as it is told to.
type simStore struct {
	t *testing.T

	mu      sync.Mutex // nothing is waited for under it
	objects map[string]simObject
	random  *rand.Rand
	down    bool
	// Of a hundred calls, how many fail, take seconds, and give half of what is there; and for how
	// long lists lack what was put.
	fails, slow, short int
	late               time.Duration
	room               int                  // bytes of records that it takes; 0: any
	noRoom             error                // what it says to more; nil: that it has no room
	fullLists          bool                 // what it has room for is without lists but one, too
	sent               int                  // bytes that came, taken or not
	got                map[string]bool      // keys that were read; nil: nobody wants to know
	noLists            bool                 // no list of segments can be put there
	dropped            map[fsm.TopicID]bool // topics that the test has deleted
}

type simObject struct {
	data []byte
	at   time.Time
}

// newSimStore gives an empty store.
func newSimStore(t *testing.T, seed uint64) *simStore {
	return &simStore{t: t, objects: map[string]simObject{}, random: rand.New(rand.NewPCG(seed, 99))}
}

func (s *simStore) String() string { return "simulated" }

var (
	errStore  = errors.New("503 slow down")
	errNoRoom = fmt.Errorf("507: %w", tier.ErrFull)
)

// call is the beginning of each: it takes its time, and may fail.
func (s *simStore) call(ctx context.Context) (short bool, err error) {
	s.mu.Lock()
	down, fails, short := s.down, s.random.IntN(100) < s.fails, s.random.IntN(100) < s.short
	wait := time.Duration(1+s.random.IntN(20)) * time.Millisecond
	if s.random.IntN(100) < s.slow {
		wait = time.Duration(s.random.IntN(5000)) * time.Millisecond
	}
	s.mu.Unlock()
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if down || fails {
		return false, errStore
	}
	return short, nil
}

func (s *simStore) Put(ctx context.Context, key string, data []byte) error {
	short, err := s.call(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent += len(data)
	if s.room > 0 && strings.HasSuffix(key, ".batches") {
		used := len(data)
		for key, o := range s.objects {
			if strings.HasSuffix(key, ".batches") {
				used += len(o.data)
			}
		}
		if used > s.room {
			return cmp.Or(s.noRoom, errNoRoom)
		}
	}
	if s.fullLists && strings.HasSuffix(key, ".list") {
		used, lists := 0, 0
		for key, o := range s.objects {
			switch {
			case strings.HasSuffix(key, ".batches"):
				used += len(o.data)
			case strings.HasSuffix(key, ".list"):
				lists++
			}
		}
		if lists > 0 && used > s.room/2 || used > s.room*3/4 {
			return errNoRoom
		}
	}
	if s.noLists && strings.HasSuffix(key, ".list") {
		return errStore
	}
	if old, ok := s.objects[key]; ok {
		if !bytes.Equal(old.data, data) {
			s.t.Errorf("%s is written over", key)
		}
		return tier.ErrExists
	}
	s.objects[key] = simObject{bytes.Clone(data), time.Now()}
	if short {
		return errStore // it is there, and nobody is told
	}
	return nil
}

func (s *simStore) Get(ctx context.Context, key string, limit int64) ([]byte, error) {
	short, err := s.call(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.got != nil {
		s.got[key] = true
	}
	o, ok := s.objects[key]
	if !ok {
		return nil, tier.ErrNotFound
	}
	if int64(len(o.data)) > limit {
		return nil, errors.New("too large")
	}
	if short {
		return bytes.Clone(o.data[:len(o.data)/2]), nil
	}
	return bytes.Clone(o.data), nil
}

func (s *simStore) Size(ctx context.Context, key string) (int64, error) {
	if _, err := s.call(ctx); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	if !ok {
		return 0, tier.ErrNotFound
	}
	return int64(len(o.data)), nil
}

func (s *simStore) List(ctx context.Context, prefix string, each func(string) error) error {
	if _, err := s.call(ctx); err != nil {
		return err
	}
	for _, key := range s.keys(prefix) {
		s.mu.Lock()
		late := time.Since(s.objects[key].at) < s.late
		s.mu.Unlock()
		if late {
			continue
		}
		if err := each(key); err != nil {
			return err
		}
	}
	return nil
}

func (s *simStore) Delete(ctx context.Context, key string) error {
	if _, err := s.call(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.frozen()
	delete(s.objects, key)
	s.wholeWithout(key, was)
	return nil
}

// frozenStore is what a store had at a moment.
type frozenStore map[string][]byte

func (s *simStore) frozen() frozenStore {
	f := frozenStore{}
	for key, o := range s.objects {
		f[key] = o.data
	}
	return f
}

func (f frozenStore) String() string                            { return "frozen" }
func (f frozenStore) Put(context.Context, string, []byte) error { return errStore }
func (f frozenStore) Delete(context.Context, string) error      { return errStore }

func (f frozenStore) Get(_ context.Context, key string, _ int64) ([]byte, error) {
	data, ok := f[key]
	if !ok {
		return nil, tier.ErrNotFound
	}
	return data, nil
}

func (f frozenStore) Size(_ context.Context, key string) (int64, error) {
	data, ok := f[key]
	if !ok {
		return 0, tier.ErrNotFound
	}
	return int64(len(data)), nil
}

func (f frozenStore) List(_ context.Context, prefix string, each func(string) error) error {
	for key := range f {
		if strings.HasPrefix(key, prefix) {
			if err := each(key); err != nil {
				return err
			}
		}
	}
	return nil
}

// remains gives what somebody finds of a partition who has nothing but the store: its newest list,
// and the objects that this names. The error says what is not there.
func (f frozenStore) remains(id fsm.PartitionID) (l *tier.List, pieces []tier.Piece, err error) {
	r := tier.Remains{Store: f}
	if l, err = r.List(context.Background(), id); err != nil || l == nil {
		return l, nil, err
	}
	for _, s := range l.Segments {
		more, _, err := r.Pieces(context.Background(), id, s)
		if err != nil {
			return nil, nil, err
		}
		for _, p := range more {
			if data, ok := f[p.Key]; !ok || int64(len(data)) != p.Bytes {
				return nil, nil, fmt.Errorf("%s is named and has %d bytes", p.Key, len(data))
			}
		}
		pieces = append(pieces, more...)
	}
	return l, pieces, nil
}

// wholeWithout holds that what is deleted is not named by the newest list of its partition, unless
// its topic is.
func (s *simStore) wholeWithout(key string, was frozenStore) {
	parts := strings.Split(key, "/")
	if len(parts) != 4 || strings.HasSuffix(key, ".list") {
		return
	}
	id, err := fsm.ParsePartitionID(parts[1] + "-" + parts[2])
	if err != nil || s.dropped[id.Topic] {
		return
	}
	l, _, err := was.remains(id)
	if err != nil || l == nil {
		return
	}
	if _, _, err := s.frozen().remains(id); err != nil {
		s.t.Errorf("%s is deleted, and the list of term %d, entry %d has it: %v", key, l.Term, l.Index, err)
	}
}

func (s *simStore) keys(prefix string) (keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.objects {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// set changes how the store fails.
func (s *simStore) set(change func(s *simStore)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *simStore) well() {
	s.set(func(s *simStore) {
		s.down, s.fails, s.slow, s.short, s.late, s.room, s.noRoom = false, 0, 0, 0, 0, 0, nil
	})
}

// tierCluster has three nodes with a store, whose topics have a tier.
func tierCluster(t *testing.T, seed uint64, more map[string]string) (*testCluster, *simStore) {
	t.Helper()
	c, store := newTestCluster(t, 3), newSimStore(t, seed)
	configs := map[string]string{"remote.storage.enable": "true", "segment.bytes": "8000", "local.retention.bytes": "12000"}
	for name, value := range more {
		configs[name] = value
	}
	small(c, configs)
	for _, n := range c.nodes {
		n.cfg.TierTo, n.cfg.tierPieceBytes, n.cfg.TierCacheBytes, n.cfg.tierSegmentBytes = store, 2000, 20000, 1+int64(seed%2)*20000
		n.cfg.joinTransaction = func(context.Context, fsm.Transaction, int64, int16, fsm.PartitionID, int32) error { return nil }
	}
	c.startAll()
	c.atLevel(fsm.LevelTiers)
	return c, store
}

// tiered waits until all that a leader can bring to the tier is there, and all replicas have let go
// of their copies.
func (c *testCluster) tiered(id fsm.PartitionID) (local fsm.Offset) {
	c.t.Helper()
	check := func() error {
		leader := c.nodes[c.leaderOf(id)].records(id)
		if leader == nil {
			return errors.New("no leader")
		}
		s := leader.TierStatus()
		if s.Waiting > 0 || s.Segments == 0 {
			return fmt.Errorf("%+v", s)
		}
		local = s.Local
		for i, n := range c.nodes {
			if !n.running {
				continue
			}
			r := n.records(id)
			if r == nil {
				return fmt.Errorf("node %d: it does not run", i+1)
			}
			if got, _ := r.LocalStart(); got != local {
				return fmt.Errorf("node %d keeps offsets from %d on, node %d from %d", i+1, got, c.leaderOf(id)+1, local)
			}
			if all := r.Log.Segments(); len(all) > 1 && all[1].Start >= 0 && fsm.Offset(all[1].Start) <= local {
				return fmt.Errorf("node %d has kept %+v, and needs from %d on", i+1, all[0], local)
			}
		}
		return nil
	}
	// Retention looks from time to time, what is copied is kept for a while, and a leader whose
	// store was full pauses for five minutes at most.
	for range 6 {
		if time.Sleep(time.Minute); check() == nil {
			return local
		}
	}
	eventually(c.t, "old records are in the tier alone", check)
	return local
}

// allVote waits until all three replicas of a partition vote: the group can do without any of them.
func (c *testCluster) allVote(id fsm.PartitionID) {
	c.t.Helper()
	eventually(c.t, "all vote", func() error {
		if r := c.nodes[c.leaderOf(id)].replica(id); r == nil || len(r.Member.Voters()) < 3 {
			return errors.New("one does not")
		}
		return nil
	})
}

// localFrom gives the first offset in a replica's own log.
func localFrom(n *Node, id fsm.PartitionID) fsm.Offset {
	return fsm.Offset(n.records(id).Log.Segments()[0].Start)
}

// TestOldRecordsLieInTheTier: every node reads all of it, finds times and epochs there, and says
// where it begins and ends.
func TestOldRecordsLieInTheTier(t *testing.T) { inBubble(t, testOldRecordsLieInTheTier) }

func testOldRecordsLieInTheTier(t *testing.T) {
	c, store := tierCluster(t, 1, nil)
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	want := c.fill(0, id, "first", 38)
	c.appendAt(id, 7000, "early")
	c.appendAt(id, 5000, "earlier")
	want = append(want, "early", "earlier")
	first := c.leaderOf(id)
	epoch := c.nodes[first].records(id).Member.Raft.CurrentTerm()
	c.kill(first)
	c.start(first)
	c.leaderOf(id)
	want = append(want, c.fill(1, id, "second", 60)...)
	local := c.tiered(id)
	if local < 50 {
		t.Fatalf("replicas keep offsets from %d on", local)
	}
	c.wantEverywhere(id, want)
	for i, n := range c.nodes {
		if from := localFrom(n.Node, id); from <= 40 || from > local {
			t.Errorf("node %d has offsets from %d on, it has to from %d on", i+1, from, local)
		}
		if bytes := n.records(id).Log.Bytes(); bytes > 40000 {
			t.Errorf("node %d has %d bytes", i+1, bytes)
		}
		if _, values := localValues(t, n.Node, id); values != 100 {
			t.Errorf("node %d gives %d values", i+1, values)
		}
		_, end := c.nodes[c.leaderOf(id)].records(id).LocalStart()
		for which, want := range map[int64]fsm.Offset{fsm.EarliestOffset: 0, fsm.LatestOffset: 100, fsm.EarliestLocalOffset: local, fsm.LatestTieredOffset: end - 1, fsm.EarliestPendingOffset: end} {
			if got, err := n.ListOffsets(within(t), id, which, 1); err != nil || len(got) != 1 || got[0] != want {
				t.Errorf("node %d: offset for %d is %v (%v), want %d", i+1, which, got, err, want)
			}
		}
		found, end, err := n.EpochEnd(within(t), id, fsm.LeaderEpoch(epoch))
		if err != nil || end != 40 {
			t.Errorf("node %d: epoch %d ends at %d (epoch %d, %v), want 40", i+1, epoch, end, found, err)
		}
		for at, want := range map[int64]fsm.Offset{0: 38, 6000: 38, 7001: -1, -3: 38} {
			if offset, _, _, ok, err := n.OffsetForTime(within(t), id, at); err != nil || ok != (want >= 0) || offset != want {
				t.Errorf("node %d: time %d is at %d, %v, %v, want %d", i+1, at, offset, ok, err, want)
			}
		}
		if offsets, err := n.ListOffsets(within(t), id, time.Now().UnixMilli(), 100); err != nil || len(offsets) < 5 || offsets[len(offsets)-1] != 0 {
			t.Errorf("node %d: segments at %v, %v", i+1, offsets, err)
		}
	}
	check, err := c.any().CheckReplicas(within(t), id, -1)
	if err != nil || check.DiffersAt != -1 || check.From < local {
		t.Errorf("%+v, %v", check, err)
	}
	// A node that has nothing copies what replicas keep, and reads the rest in the tier.
	lost := (c.leaderOf(id) + 1) % 3
	c.kill(lost)
	if err := c.nodes[lost].on().RemoveAll(c.nodes[lost].partitionDir(id)); err != nil {
		t.Fatal(err)
	}
	c.start(lost)
	c.rebuilt(lost, id, 100)
	if _, values := localValues(t, c.nodes[lost].Node, id); values != 100 || localFrom(c.nodes[lost].Node, id) == 0 {
		t.Errorf("the node that was made anew gives %d values, its log begins at %d", values, localFrom(c.nodes[lost].Node, id))
	}
	if len(store.keys("tiers/")) == 0 {
		t.Error("the store is empty")
	}
}

// TestANodeThatIsToldOfNoStore takes records, and says why it neither reads old ones nor puts any
// there.
func TestANodeThatIsToldOfNoStore(t *testing.T) { inBubble(t, testANodeThatIsToldOfNoStore) }

func testANodeThatIsToldOfNoStore(t *testing.T) {
	c, _ := tierCluster(t, 6, nil)
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	c.fill(0, id, "v", 60)
	c.tiered(id)
	for i := range c.nodes {
		c.kill(i)
		c.nodes[i].cfg.TierTo = nil
	}
	c.startAll()
	at := c.leaderOf(id)
	c.fill(at, id, "w", 60)
	if s := c.nodes[at].records(id).TierStatus(); !strings.Contains(s.Err, "--tier-to") || s.Segments == 0 {
		t.Errorf("%+v", s)
	}
	if _, err := c.nodes[at].Read(within(t), id, 0, 100, fsm.ReadUncommitted); !errors.Is(err, outcome.ErrStorage) || !strings.Contains(err.Error(), "--tier-to") {
		t.Errorf("offset 0: %v", err)
	}
}

// TestATierEndsWithWhatItIsFor: what is below the log start goes from the store, by DeleteRecords
// and by retention, and all that a topic has when it is deleted. What nobody names is found.
func TestATierEndsWithWhatItIsFor(t *testing.T) { inBubble(t, testATierEndsWithWhatItIsFor) }

func testATierEndsWithWhatItIsFor(t *testing.T) {
	c, store := tierCluster(t, 2, map[string]string{"retention.bytes": "60000"})
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	orphan := fmt.Sprintf("tiers/%s/0/%020d-%016x-%016x.00000.batches", id.Topic, 0, 1, 77)
	if err := store.Put(context.Background(), orphan, []byte("x")); err != nil {
		t.Fatal(err)
	}
	c.fill(0, id, "v", 50)
	c.tiered(id)
	if _, err := c.any().DeleteRecords(within(t), id, 20); err != nil {
		t.Fatal(err)
	}
	gone := func(what string, below fsm.Offset) {
		t.Helper()
		time.Sleep(2 * time.Minute) // readers of what was named have a while
		eventually(t, what, func() error {
			for _, key := range store.keys("tiers/") {
				var first int64
				if _, err := fmt.Sscanf(key[strings.LastIndex(key, "/")+1:], "%d-", &first); err != nil {
					return err
				}
				if first < int64(below)-8 { // a segment begins that far in front
					return fmt.Errorf("%s is still there, the log starts at %d", key, below)
				}
			}
			if s := c.nodes[c.leaderOf(id)].records(id).TierStatus(); s.Gone > 0 {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
	}
	gone("what was deleted", 20)
	for i, n := range c.nodes {
		if start, values := localValues(t, n.Node, id); start != 20 || values != 30 {
			t.Errorf("node %d gives %d values from %d on", i+1, values, start)
		}
	}
	c.fill(0, id, "w", 100)
	eventually(t, "retention", func() error {
		if start, _ := c.nodes[c.leaderOf(id)].records(id).Bounds(); start < 80 {
			return fmt.Errorf("the log starts at %d", start)
		}
		return nil
	})
	c.tiered(id)
	start, next := c.nodes[c.leaderOf(id)].records(id).Bounds()
	if kept := int64(next-start) * 1000; kept < 50000 || kept > 80000 {
		t.Errorf("the log starts at %d of %d, about 60000 bytes are to be kept", start, next)
	}
	gone("what is too old", start)
	store.set(func(s *simStore) { s.dropped = map[fsm.TopicID]bool{topic.ID: true} })
	if err := c.any().DeleteTopic(within(t), "a"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Minute)
	eventually(t, "the deleted topic", func() error {
		if keys := store.keys("tiers/"); len(keys) > 0 {
			return fmt.Errorf("%v", keys)
		}
		return nil
	})
}

// TestAStoreThatIsDownHoldsUpNothing: records are taken and the newest are read at once; old ones
// that replicas have let go of are an error that says so, soon, and come back with the store. What
// is not in the tier stays.
func TestAStoreThatIsDownHoldsUpNothing(t *testing.T) {
	inBubble(t, testAStoreThatIsDownHoldsUpNothing)
}

func testAStoreThatIsDownHoldsUpNothing(t *testing.T) {
	c, store := tierCluster(t, 3, nil)
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	// What is there at once when the store comes goes to it in larger segments: the first epoch
	// ends in the middle of one.
	store.set(func(s *simStore) { s.down = true })
	want := c.fill(0, id, "v", 10)
	var epochs []fsm.LeaderEpoch
	restart := func() {
		epochs = append(epochs, fsm.Term(c.nodes[c.leaderOf(id)].records(id).Member.Raft.CurrentTerm()).Epoch())
		for i := range c.nodes {
			c.kill(i)
		}
	}
	restart()
	c.startAll()
	want = append(want, c.fill(0, id, "v", 40)...)
	store.well()
	local := c.tiered(id)
	_, end := c.nodes[c.leaderOf(id)].records(id).LocalStart()
	for _, n := range c.nodes { // the caches are empty after a start
		n.cfg.TierCacheBytes = 1
	}
	restart()
	store.set(func(s *simStore) { s.down = true })
	c.startAll()
	began := time.Now()
	want = append(want, c.fill(0, id, "w", 50)...)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("50 records took %v", took)
	}
	c.rebuilt(0, id, 100)
	c.rebuilt(1, id, 100)
	c.rebuilt(2, id, 100)
	for i, n := range c.nodes {
		began = time.Now()
		if slice, err := n.Read(within(t), id, end, 1000, fsm.ReadUncommitted); err != nil || len(slice.Batches) == 0 {
			t.Errorf("node %d: %v", i+1, err)
		}
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("node %d: what is here took %v", i+1, took)
		}
		// Where the epoch ended that who reads at the end was in.
		if _, at, err := n.EpochEnd(within(t), id, epochs[1]); err != nil || at != 50 {
			t.Errorf("node %d: epoch %d ends at %d, %v", i+1, epochs[1], at, err)
		}
		if _, at, err := n.EpochEnd(within(t), id, epochs[0]); !errors.Is(err, outcome.ErrStorage) {
			t.Errorf("node %d: epoch %d ends at %d, %v", i+1, epochs[0], at, err)
		}
		for range 10 {
			began = time.Now()
			if _, err := n.Read(within(t), id, 0, 1000, fsm.ReadUncommitted); !errors.Is(err, outcome.ErrStorage) && !errors.Is(err, outcome.ErrRemote) {
				t.Errorf("node %d: %v", i+1, err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("node %d: it took %v to say so", i+1, took)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if got, _ := n.records(id).LocalStart(); got > end {
			t.Errorf("node %d has let go of what is below %d, the tier ends at %d", i+1, got, end)
		}
	}
	time.Sleep(5 * time.Minute)
	store.well()
	c.wantEverywhere(id, want)
	if after := c.tiered(id); after <= local {
		t.Errorf("replicas still keep offsets from %d on", after)
	}
}

// TestReadersOfATierGetWhatWasWritten: at both isolation levels, on every replica, while nodes die
// and come back, are made anew, leaders change, and the store fails in every way.
func TestReadersOfATierGetWhatWasWritten(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, func(t *testing.T) { testReadersOfATierGetWhatWasWritten(t, seed) })
		})
	}
}

func testReadersOfATierGetWhatWasWritten(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 5))
	c, store := tierCluster(t, seed, map[string]string{"local.retention.bytes": "5000"})
	store.set(func(s *simStore) { s.fails, s.slow, s.short, s.late = 5, 10, 5, time.Minute })
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	p := newProducerLog(c, id)
	nodes := make([]atomic.Pointer[Node], len(c.nodes))
	for i, node := range c.nodes {
		nodes[i].Store(node.Node)
	}
	stop := watchReads(c, nodes, id, seed)
	for round := range 4 {
		p.some(rnd, 60)
		time.Sleep(time.Duration(rnd.IntN(10)) * time.Second)
		away := rnd.IntN(3)
		nodes[away].Store(nil)
		switch round % 3 {
		case 0:
			c.crash(away, true)
		default:
			c.kill(away)
		}
		if round == 2 {
			if err := c.nodes[away].on().RemoveAll(c.nodes[away].partitionDir(id)); err != nil {
				t.Fatal(err)
			}
		}
		p.some(rnd, 60)
		time.Sleep(time.Duration(rnd.IntN(20)) * time.Second)
		c.start(away)
		nodes[away].Store(c.nodes[away].Node)
		c.rebuilt(away, id, fsm.Offset(p.next))
		c.allVote(id)
	}
	for producer := range int64(6) {
		p.end(producer, false)
	}
	p.some(rnd, 1)
	for producer := range int64(6) {
		p.end(producer, true)
	}
	// What is copied is kept for a minute, and the store has its moods.
	fromTier := int64(0)
	for tries := 0; fromTier < 200 && tries < 100; tries++ {
		time.Sleep(10 * time.Second)
		fromTier = 0 // since nodes were started last
		for _, n := range c.nodes {
			fromTier += n.tier.Hits.Load() + n.tier.Misses.Load()
		}
	}
	reads := stop()
	store.well()
	local := c.tiered(id)
	if local < fsm.Offset(p.next)/2 {
		t.Errorf("replicas keep offsets from %d on of %d", local, p.next)
	}
	for i := range c.nodes {
		c.rebuilt(i, id, fsm.Offset(p.next))
		for _, isolation := range []fsm.Isolation{fsm.ReadCommitted, fsm.ReadUncommitted} {
			p.readPatiently(i, isolation)
		}
	}
	given, old := 0, 0
	for _, o := range reads {
		if o.nothing {
			continue
		}
		given++
		if o.from < int64(local) {
			old++
		}
		if _, err := p.check(o); err != nil {
			t.Fatalf("%s, beside: %v", o.who, err)
		}
	}
	t.Logf("%d transactions, offsets to %d, %d reads beside them gave records, %d of them below %d, about %d from the tier", len(p.all), p.next, given, old, local, fromTier)
	if fromTier < 200 {
		t.Errorf("only %d reads were of the tier", fromTier)
	}
	p.checkRemains(store, seed)
	c.noOrphans(id, store)
	for i := range c.nodes {
		c.rebuilt(i, id, fsm.Offset(p.next))
		p.readPatiently(i, fsm.ReadCommitted)
	}
}

// noOrphans has another node lead, which looks for what nobody names in the store, and waits until
// nothing else is there.
func (c *testCluster) noOrphans(id fsm.PartitionID, store *simStore) {
	c.t.Helper()
	c.kill(c.leaderOf(id))
	for i, n := range c.nodes {
		if !n.running {
			c.start(i)
		}
	}
	eventually(c.t, "no orphans", func() error {
		leader := c.nodes[c.leaderOf(id)].records(id)
		if leader == nil {
			return errors.New("no leader")
		}
		objects := leader.TierObjects() + 1 // the list of them
		if keys := store.keys("tiers/"); len(keys) != objects {
			return fmt.Errorf("%d objects in the store, %d are named", len(keys), objects)
		}
		return nil
	})
}

// readPatiently is readAll by a reader that comes again where it is told to.
func (p *producerLog) readPatiently(i int, isolation fsm.Isolation) {
	p.c.t.Helper()
	r := p.c.nodes[i].records(p.id)
	start, next, stable := r.Ends()
	end := next
	if isolation == fsm.ReadCommitted {
		end = stable
	}
	for at := int64(start); at < int64(end); {
		var slice fsm.Slice
		eventually(p.c.t, fmt.Sprintf("a read at %d", at), func() error {
			var ok bool
			var err error
			if slice, ok, err = r.ReadHere(fsm.Offset(at), 3000, isolation); err == nil && !ok {
				err = errors.New("nothing")
			}
			return err
		})
		before := at
		var err error
		if at, err = p.check(observedRead{isolation: isolation, from: at, slice: slice}); err != nil {
			p.c.t.Fatalf("node %d: %v", i+1, err)
		}
		if at <= before {
			p.c.t.Fatalf("node %d: nothing at %d", i+1, at)
		}
	}
}

// TestACompactedTopicHasATier: a reader from the start gets the newest of every key and no key that
// was deleted, with what is old in the tier.
func TestACompactedTopicHasATier(t *testing.T) { inBubble(t, testACompactedTopicHasATier) }

func testACompactedTopicHasATier(t *testing.T) {
	c, _ := tierCluster(t, 4, map[string]string{
		"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.2", "max.compaction.lag.ms": "5000", "delete.retention.ms": "1000",
		"local.retention.bytes": "3000",
	})
	k := newKeyedLog(c, fsm.PartitionID{Topic: c.topic("a", 1, 3).ID})
	random := rand.New(rand.NewPCG(4, 4))
	for range 4 {
		k.storeSome(random, 80, 40)
		k.finishAll()
		k.caughtUp()
		k.compacted(fsm.Offset(k.next) - 60)
		c.tiered(k.id)
		k.check(false)
		away := random.IntN(3)
		c.kill(away)
		k.put(-1, false, prototest.Keyed{Key: "while one is away", Value: "v"})
		c.start(away)
	}
	k.caughtUp()
	k.check(false)
	if s := c.nodes[c.leaderOf(k.id)].records(k.id).TierStatus(); s.Local == 0 || s.Segments == 0 {
		t.Errorf("%+v", s)
	}
}

// TestAnUploadThatFailedIsWhole: where an upload has ended within an entry, the next one and all
// who read at its offset find all of it.
func TestAnUploadThatFailedIsWhole(t *testing.T) { inBubble(t, testAnUploadThatFailedIsWhole) }

func testAnUploadThatFailedIsWhole(t *testing.T) {
	c, store := tierCluster(t, 3, nil)
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	c.allVote(id)
	lead := c.leaderOf(id)
	store.set(func(s *simStore) { s.room = 1 }) // no piece of records
	const entries, each = 30, 3
	for range entries {
		var batches batchList
		for range each {
			batches = append(batches, prototest.Batch(strings.Repeat("v", 1500)))
		}
		if _, err := c.nodes[lead].Append(within(t), id, batches); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "an upload fails", func() error {
		if s := c.nodes[lead].records(id).TierStatus(); s.Err == "" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if lead != c.leaderOf(id) {
		t.Fatal("another leads")
	}
	c.eachOffset(lead, id, entries*each)
	store.well()
	c.tiered(id)
	for at := range c.nodes {
		c.eachOffset(at, id, entries*each)
	}
}

// TestWhatANodeHasIsNotFetchedAhead: who reads up to where the tier is left gets what follows from
// the node's own log, and none of that comes from the store.
func TestWhatANodeHasIsNotFetchedAhead(t *testing.T) { inBubble(t, testWhatANodeHasIsNotFetchedAhead) }

func testWhatANodeHasIsNotFetchedAhead(t *testing.T) {
	c, store := tierCluster(t, 8, nil)
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	c.allVote(id)
	c.fill(c.leaderOf(id), id, "v", 100)
	c.tiered(id)
	at := c.leaderOf(id)
	store.set(func(s *simStore) { s.got = map[string]bool{} })
	for i := range fsm.Offset(200) { // each twice: who finds a piece there has others fetched
		offset := i / 2
		slice, ok, err := c.nodes[at].records(id).ReadHere(offset, 1, fsm.ReadUncommitted)
		if err != nil || !ok {
			t.Fatalf("at %d: %v, %v", offset, ok, err)
		}
		if slice.Done != nil {
			slice.Done()
		}
		time.Sleep(100 * time.Millisecond) // what is fetched ahead comes
	}
	store.mu.Lock()
	got := store.got
	store.got = nil
	_, pieces, err := store.frozen().remains(id)
	store.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	from := localFrom(c.nodes[at].Node, id)
	away, here := 0, 0
	for _, p := range pieces {
		switch {
		case p.First < from:
			if away++; !got[p.Key] {
				t.Errorf("offsets %d to %d were read, and not from the store", p.First, p.Next-1)
			}
		default:
			if here++; got[p.Key] {
				t.Errorf("offsets %d to %d were fetched, and the node has all from %d on", p.First, p.Next-1, from)
			}
		}
	}
	if away == 0 || here == 0 {
		t.Errorf("%d pieces are in the store alone, and %d are here, too", away, here)
	}
}

// eachOffset reads at each offset on a node, whose batches have one record each.
func (c *testCluster) eachOffset(at int, id fsm.PartitionID, end fsm.Offset) {
	c.t.Helper()
	r := c.nodes[at].records(id)
	for offset := range end {
		slice, ok, err := r.ReadHere(offset, 1, fsm.ReadUncommitted)
		if err != nil || !ok {
			c.t.Fatalf("node %d at %d: %v, %v", at+1, offset, ok, err)
		}
		if h := headersOf(c.t, slice.Batches)[0]; fsm.Offset(h.BaseOffset) != offset {
			c.t.Errorf("node %d: who reads at %d gets what is at %d", at+1, offset, h.BaseOffset)
		}
		if slice.Done != nil {
			slice.Done()
		}
	}
}

// TestTheTierOfACompactedTopicIsCompacted: however often keys are written, what is in the store is
// bounded by how many there are, whatever becomes of leaders and of the store meanwhile.
func TestTheTierOfACompactedTopicIsCompacted(t *testing.T) {
	inBubble(t, testTheTierOfACompactedTopicIsCompacted)
}

func testTheTierOfACompactedTopicIsCompacted(t *testing.T) {
	c, store := tierCluster(t, 9, map[string]string{
		"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.3", "max.compaction.lag.ms": "5000", "delete.retention.ms": "1000",
		"local.retention.bytes": "3000",
	})
	stores := dying(c, store)
	k := newKeyedLog(c, fsm.PartitionID{Topic: c.topic("a", 1, 3).ID})
	random := rand.New(rand.NewPCG(8, 8))
	largest := int64(0)
	for round := range 4 {
		store.set(func(s *simStore) { s.fails, s.short = 1, 1 })
		k.put(-1, false, prototest.Keyed{Key: fmt.Sprint("once ", round), Value: "v"})
		k.storeSome(random, 80, 30)
		k.finishAll()
		if round > 0 { // its leader dies, in the middle of it
			away := c.leaderOf(k.id)
			stores[away].strike(c, away, random, 60, 3*time.Minute)
			c.start(away)
			c.rebuilt(away, k.id, fsm.Offset(k.next))
		}
		k.caughtUp()
		k.compacted(fsm.Offset(k.next) - 60)
		c.tiered(k.id)
		k.checkRemains(store, random)
		eventually(t, "the tier is compacted", func() error {
			s := c.nodes[c.leaderOf(k.id)].records(k.id).TierStatus()
			if s.Dirty {
				return fmt.Errorf("%+v", s)
			}
			largest = max(largest, s.Bytes)
			return nil
		})
		store.well()
		k.check(false)
		k.same(round % 3)
		k.checkRemains(store, random)
	}
	s := c.nodes[c.leaderOf(k.id)].records(k.id).TierStatus()
	t.Logf("the log ends at %d; the tier has %d bytes in %d segments, it had up to %d", k.next, s.Bytes, s.Segments, largest)
	if largest > 20_000 { // 30 keys with 470 bytes at most, in each of the rounds
		t.Errorf("the tier had up to %d bytes", largest)
	}
	time.Sleep(3 * time.Minute)
	eventually(t, "what took no part any more is deleted", func() error {
		leader := c.nodes[c.leaderOf(k.id)].records(k.id)
		if s := leader.TierStatus(); s.Gone > 0 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	k.check(false)
}

// TestNothingThatIsListedIsDeleted: while no newer list can be put there, the store keeps what the
// one that is there names, though the log names it no more.
func TestNothingThatIsListedIsDeleted(t *testing.T) {
	inBubble(t, testNothingThatIsListedIsDeleted)
}

func testNothingThatIsListedIsDeleted(t *testing.T) {
	c, store := tierCluster(t, 2, nil)
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	c.fill(0, id, "v", 50)
	c.tiered(id)
	store.set(func(s *simStore) { s.noLists = true })
	if _, err := c.any().DeleteRecords(within(t), id, 30); err != nil {
		t.Fatal(err)
	}
	first := func() (fsm.Offset, error) {
		store.mu.Lock()
		defer store.mu.Unlock()
		l, _, err := store.frozen().remains(id)
		if err != nil || l == nil {
			return 0, fmt.Errorf("%v, %w", l, err)
		}
		return l.Start, nil
	}
	gone := func() int { return c.nodes[c.leaderOf(id)].records(id).TierStatus().Gone }
	time.Sleep(5 * time.Minute)
	if start, err := first(); start != 0 || err != nil || gone() == 0 {
		t.Errorf("the list begins at %d, %v; %d segments are to be deleted", start, err, gone())
	}
	store.well()
	store.set(func(s *simStore) { s.noLists = false })
	eventually(t, "what is gone is deleted", func() error {
		if start, err := first(); start != 30 || err != nil || gone() > 0 {
			return fmt.Errorf("the list begins at %d, %w; %d segments are to be deleted", start, err, gone())
		}
		return nil
	})
}

// restored makes a partition of what is left in a store of another one, as a restore does.
func (c *testCluster) restored(store *simStore, from fsm.PartitionID, seed uint64) (id fsm.PartitionID, l *tier.List) {
	c.t.Helper()
	var frozen frozenStore
	var pieces []tier.Piece
	eventually(c.t, "a list", func() (err error) {
		store.mu.Lock()
		frozen = store.frozen()
		store.mu.Unlock()
		if l, pieces, err = frozen.remains(from); err == nil && l == nil {
			err = errors.New("nothing is there")
		}
		return err
	})
	var batches []kafkaproto.Batch
	for _, p := range pieces {
		for batch, err := range kafkaproto.Batches(frozen[p.Key]) {
			if err != nil {
				c.t.Fatal(err)
			}
			batches = append(batches, batch)
		}
	}
	return c.restoredOf(batches, fsm.Begin{Offset: l.Segments[0].First, Term: l.Term}, seed), l
}

// restoredOf makes a partition of batches.
func (c *testCluster) restoredOf(batches []kafkaproto.Batch, begin fsm.Begin, seed uint64) fsm.PartitionID {
	c.t.Helper()
	id := fsm.PartitionID{Topic: fsm.TopicID{1, byte(seed), byte(seed >> 8), byte(seed >> 16), 0xff}}
	spec := fsm.TopicSpec{
		Name: fmt.Sprint("restored-", seed), Partitions: 1, ReplicationFactor: 3, Configs: map[string]string{"cleanup.policy": "delete", "remote.storage.enable": "false"},
		Restore: &fsm.RestoreSpec{ID: id.Topic, Origin: "a tier", Begin: []fsm.Begin{begin}},
	}
	eventually(c.t, "the topic", func() error { return c.any().CreateTopic(within(c.t), spec, false) })
	eventually(c.t, "restore", func() error {
		_, err := c.any().RestoreBatches(within(c.t), id, batches, true)
		return err
	})
	eventually(c.t, "the end", func() error { return c.any().EndRestore(within(c.t), fsm.EndRestore{Topic: id.Topic, Producers: -1}) })
	return id
}

// TestWhoReadsACompactedTierOnMeetsTheMarkers: who has read the records of a transaction, and reads
// on when the tier was compacted, gets the marker of what was committed. Without it a backup that
// was begun before and goes on behind would be restored with the transaction aborted.
func TestWhoReadsACompactedTierOnMeetsTheMarkers(t *testing.T) {
	inBubble(t, testWhoReadsACompactedTierOnMeetsTheMarkers)
}

func testWhoReadsACompactedTierOnMeetsTheMarkers(t *testing.T) {
	c, _ := tierCluster(t, 9, map[string]string{
		"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.2", "max.compaction.lag.ms": "5000", "delete.retention.ms": "600000",
		"local.retention.bytes": "3000",
	})
	k := newKeyedLog(c, fsm.PartitionID{Topic: c.topic("a", 1, 3).ID})
	random := rand.New(rand.NewPCG(9, 9))
	more := func() {
		k.storeSome(random, 80, 40)
		k.finishAll()
		k.caughtUp()
		k.compacted(fsm.Offset(k.next) - 60)
		c.tiered(k.id)
		eventually(t, "the tier is compacted", func() error {
			if s := c.nodes[c.leaderOf(k.id)].records(k.id).TierStatus(); s.Dirty {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
	}
	// A transaction is open where the backup ends. The next one goes on within delete.retention.ms.
	k.put(7, true, prototest.Keyed{Key: "in the transaction before", Value: "v"})
	k.finish(7, true)
	k.put(7, true, prototest.Keyed{Key: "kept", Value: "v"})
	cut := fsm.Offset(k.next)
	batches := k.raw(0, cut)
	k.finish(7, true)
	for range 3 { // it goes to the tier, and is compacted there twice
		more()
	}
	batches = append(batches, k.raw(cut, fsm.Offset(k.next))...)
	id := c.restoredOf(batches, fsm.Begin{Term: fsm.Term(k.epoch()) + 1}, 1)
	copied := &keyedLog{producerLog: &producerLog{c: c, id: id}}
	found, _, err := copied.read(c.leaderOf(id), 0)
	if err != nil {
		t.Fatal(err)
	}
	for key, at := range k.newest {
		if got, ok := found[key]; !ok && at >= 0 || ok && got != at {
			t.Errorf("key %q is restored at %d (%v), it was at %d", key, got, ok, at)
		}
	}

	// Nobody needs them any more.
	time.Sleep(13 * time.Minute)
	more()
	n := 0
	for _, b := range k.raw(0, fsm.Offset(k.next)) {
		if h := b.Header(); h.Control() && h.ProducerID == 7 {
			n++
		}
	}
	if n > 1 {
		t.Errorf("%d markers of the first transactions are there", n)
	}
}

// TestWhatIsInATierNeedsNoMarker: a marker goes from the log, as none of its transaction is left
// that replicas have to keep, while records of it are in the tier. Who has read all of that and
// restores it has what was committed.
func TestWhatIsInATierNeedsNoMarker(t *testing.T) { inBubble(t, testWhatIsInATierNeedsNoMarker) }

func testWhatIsInATierNeedsNoMarker(t *testing.T) {
	c, store := tierCluster(t, 8, map[string]string{
		"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.2", "max.compaction.lag.ms": "5000", "delete.retention.ms": "1000",
	})
	k := newKeyedLog(c, fsm.PartitionID{Topic: c.topic("a", 1, 3).ID})
	c.allVote(k.id)
	lead := func() *replica.Records { return c.nodes[c.leaderOf(k.id)].records(k.id) }
	fill := func(name string, n int) {
		for i := range n {
			k.put(-1, false, prototest.Keyed{Key: fmt.Sprint(name, i), Value: strings.Repeat("v", 1000)})
		}
	}
	// The horizon moves while nothing is in the tier.
	store.set(func(s *simStore) { s.down = true })
	k.put(7, true, prototest.Keyed{Key: "kept", Value: "v"})
	fill("first ", 40)
	k.finish(7, true)
	marker := fsm.Offset(k.next) - 1
	fill("second ", 1)
	for try := 0; fsm.Offset(lead().Log.Compaction().Horizon) <= marker; try++ {
		if time.Sleep(10 * time.Second); try == 60 {
			t.Fatalf("%+v, and the marker is at %d", lead().Log.Compaction(), marker)
		}
	}
	k.compacted(marker)
	store.well()
	local := c.tiered(k.id)
	if local < 10 || local >= marker {
		t.Fatalf("replicas keep offsets from %d on, and the marker is at %d", local, marker)
	}
	store.set(func(s *simStore) { s.room = 1 }) // what is there stays as it is
	fill("third ", 2)
	k.caughtUp()
	k.compacted(fsm.Offset(k.next) - 2)
	batches := k.raw(0, fsm.Offset(k.next))
	for _, b := range batches {
		if h := b.Header(); h.Control() && h.ProducerID == 7 {
			t.Fatalf("the marker at %d is there", h.BaseOffset)
		}
	}
	k.put(7, true, prototest.Keyed{Key: "of another transaction", Value: "v"})
	k.finish(7, false)
	batches = k.raw(0, fsm.Offset(k.next))
	id := c.restoredOf(batches, fsm.Begin{Term: fsm.Term(k.epoch()) + 1}, 1)
	found, _, err := (&keyedLog{producerLog: &producerLog{c: c, id: id}}).read(c.leaderOf(id), 0)
	if err != nil {
		t.Fatal(err)
	}
	for key, at := range k.newest {
		if got, ok := found[key]; !ok || got != at {
			t.Errorf("key %q is restored at %d (%v), it was at %d", key, got, ok, at)
		}
	}
}

// raw gives the batches from an offset to another, as readers of all records get them.
func (k *keyedLog) raw(from, end fsm.Offset) (batches []kafkaproto.Batch) {
	t := k.c.t
	t.Helper()
	for at := from; at < end; {
		var slice fsm.Slice
		eventually(t, "read", func() (err error) {
			if slice, err = k.c.any().Read(within(t), k.id, at, 1<<20, fsm.ReadUncommitted); err == nil && len(slice.Batches) == 0 {
				err = fmt.Errorf("nothing at %d", at)
			}
			return err
		})
		for batch, err := range kafkaproto.Batches(slice.Batches) {
			if err != nil {
				t.Fatal(err)
			}
			if next := fsm.Offset(batch.Header().NextOffset()); next > at && at < end {
				batches, at = append(batches, batch.Clone()), next
			}
		}
		if slice.Done != nil {
			slice.Done()
		}
	}
	return batches
}

// checkRemains holds what can be restored from the store alone against what is there: the same
// batches at the same offsets, byte for byte, up to where the tier ends.
func (p *producerLog) checkRemains(store *simStore, seed uint64) {
	t := p.c.t
	t.Helper()
	id, l := p.c.restored(store, p.id, seed)
	from, end := l.Start, l.Segments[len(l.Segments)-1].Next
	batches := func(id fsm.PartitionID) (all []byte) {
		for at := from; at < end; {
			var slice fsm.Slice
			eventually(t, "read", func() (err error) {
				slice, err = p.c.any().Read(within(t), id, at, 1<<20, fsm.ReadUncommitted)
				return err
			})
			for batch, err := range kafkaproto.Batches(slice.Batches) {
				if err != nil {
					t.Fatal(err)
				}
				if at = fsm.Offset(batch.Header().NextOffset()); at <= end {
					all = append(all, batch.Bytes()...)
				}
			}
			if slice.Done != nil {
				slice.Done()
			}
		}
		return all
	}
	if want, got := batches(p.id), batches(id); !bytes.Equal(want, got) {
		t.Errorf("of offsets %d to %d %d bytes are restored, and %d were there, or others", from, end, len(got), len(want))
	}
}

// checkRemains holds what can be restored from the store alone against what was written: of each
// key whose newest committed record is there, this one, and never one that was aborted.
func (k *keyedLog) checkRemains(store *simStore, random *rand.Rand) {
	t := k.c.t
	t.Helper()
	id, l := k.c.restored(store, k.id, random.Uint64())
	end := int64(l.Segments[len(l.Segments)-1].Next)
	for _, span := range k.all {
		if span.first < end && (span.marker < 0 || span.marker >= end) {
			end = span.first // it is aborted there
		}
	}
	copied := &keyedLog{producerLog: &producerLog{c: k.c, id: id}}
	leader := k.c.leaderOf(id)
	found, _, err := copied.read(leader, 0)
	if err != nil {
		t.Fatal(err)
	}
	for key, at := range k.newest {
		got, ok := found[key]
		if place(at) >= end || at < 0 && !ok {
			continue
		}
		if !ok || got != at {
			t.Fatalf("key %q is restored at %d (%v), it was at %d; the tier has offsets to %d", key, got, ok, at, l.Segments[len(l.Segments)-1].Next)
		}
	}
	for key := range found {
		if _, ok := k.newest[key]; !ok {
			t.Fatalf("key %q is restored and was never committed", key)
		}
	}
	eventually(t, "the restored topic is deleted", func() error { return k.c.any().DeleteTopic(within(t), k.c.topicName(id)) })
}

func (c *testCluster) topicName(id fsm.PartitionID) string {
	topic, _ := c.any().Topics().ByID(id.Topic)
	if topic == nil {
		return ""
	}
	return topic.Name
}

// TestATierThatIsSwitchedOff: first nothing more goes there, then all of it is deleted, and the log
// starts where all replicas have it.
func TestATierThatIsSwitchedOff(t *testing.T) { inBubble(t, testATierThatIsSwitchedOff) }

func testATierThatIsSwitchedOff(t *testing.T) {
	c, store := tierCluster(t, 5, map[string]string{"remote.storage.enable": "false"})
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	alter := func(changes ...fsm.ConfigChange) error {
		ctx := within(t)
		return c.any().AlterConfigs(ctx, fsm.AlterConfigs{Topic: topic.ID, Changes: changes}, false)
	}
	set := func(name, value string) fsm.ConfigChange {
		return fsm.ConfigChange{Name: name, Op: fsm.SetConfig, Value: value}
	}
	c.fill(0, id, "v", 30)
	time.Sleep(time.Minute)
	if len(store.keys("tiers/")) > 0 {
		t.Fatal("something is in the store")
	}
	if err := alter(set("remote.storage.enable", "true")); err != nil {
		t.Fatal(err)
	}
	c.tiered(id)
	if err := alter(set("remote.storage.enable", "false")); !errors.Is(err, outcome.ErrInvalidConfig) {
		t.Fatal(err)
	}
	if err := alter(set("remote.log.copy.disable", "true")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute)
	before := len(store.keys("tiers/"))
	c.fill(0, id, "w", 30)
	time.Sleep(time.Minute)
	if after := len(store.keys("tiers/")); after != before {
		t.Errorf("%d objects were in the store, and %d now", before, after)
	}
	if _, values := localValues(t, c.nodes[0].Node, id); values != 60 {
		t.Errorf("%d values", values)
	}
	local, _ := c.nodes[c.leaderOf(id)].records(id).LocalStart()
	if err := alter(set("remote.storage.enable", "false"), set("remote.log.delete.on.disable", "true")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Minute)
	eventually(t, "an empty store", func() error {
		if keys := store.keys("tiers/"); len(keys) > 0 {
			return fmt.Errorf("%v", keys)
		}
		return nil
	})
	for i, n := range c.nodes {
		if start, values := localValues(t, n.Node, id); start != local || values != int(60-local) {
			t.Errorf("node %d gives %d values from %d on, want from %d on", i+1, values, start, local)
		}
	}
}

// dyingStore is the store as one node reaches it, which dies at one of its requests: before it, or
// when it is done and nobody has heard of that.
type dyingStore struct {
	*simStore
	left  atomic.Int64 // requests until then; below 0: it does not
	after atomic.Bool
	blow  func() // called once, in the middle of what the node does: it must not wait
	dead  atomic.Bool
}

var errDied = errors.New("the node is dead")

// dying starts the nodes of a cluster anew, each with a store that it may die at.
func dying(c *testCluster, store *simStore) (stores []*dyingStore) {
	for i := range c.nodes {
		c.kill(i)
		s := &dyingStore{simStore: store}
		s.left.Store(-1)
		c.nodes[i].cfg.TierTo = s
		stores = append(stores, s)
	}
	c.startAll()
	return stores
}

// strike ends a node at one of its next requests, most of them, or after a time, with or without
// its power, and reports whether it was at one.
func (s *dyingStore) strike(c *testCluster, at int, rnd *rand.Rand, most int, within time.Duration) (died bool) {
	struck, power := make(chan struct{}), rnd.IntN(2) == 0
	s.blow = func() {
		c.nodes[at].disk.die(power)
		close(struck)
	}
	s.after.Store(rnd.IntN(2) == 0)
	s.left.Store(int64(rnd.IntN(most)))
	select {
	case <-struck:
		died = true
	case <-time.After(within):
		s.left.Store(-1)
	}
	c.crash(at, power)
	s.dead.Store(false)
	s.left.Store(-1)
	return died
}

func (s *dyingStore) step(do func() error) error {
	if s.dead.Load() {
		return errDied
	}
	last := s.left.Load() >= 0 && s.left.Add(-1) == -1
	if last && !s.after.Load() {
		s.dead.Store(true)
		s.blow()
		return errDied
	}
	err := do()
	if last {
		s.dead.Store(true)
		s.blow()
		return errDied
	}
	return err
}

func (s *dyingStore) Put(ctx context.Context, key string, data []byte) error {
	return s.step(func() error { return s.simStore.Put(ctx, key, data) })
}

func (s *dyingStore) Get(ctx context.Context, key string, limit int64) (data []byte, err error) {
	return data, s.step(func() error {
		data, err = s.simStore.Get(ctx, key, limit)
		return err
	})
}

func (s *dyingStore) Size(ctx context.Context, key string) (bytes int64, err error) {
	err = s.step(func() (err error) {
		bytes, err = s.simStore.Size(ctx, key)
		return err
	})
	return bytes, err
}

func (s *dyingStore) List(ctx context.Context, prefix string, each func(string) error) error {
	return s.step(func() error { return s.simStore.List(ctx, prefix, each) })
}

func (s *dyingStore) Delete(ctx context.Context, key string) error {
	return s.step(func() error { return s.simStore.Delete(ctx, key) })
}

// TestALeaderDiesAtAnyStepOfATier: while it puts objects there, reads them back, has them named,
// deletes them, or looks for orphans; also with a loss of power. Nothing is lost, nothing is left.
func TestALeaderDiesAtAnyStepOfATier(t *testing.T) {
	inBubble(t, testALeaderDiesAtAnyStepOfATier)
}

func testALeaderDiesAtAnyStepOfATier(t *testing.T) {
	rnd := rand.New(rand.NewPCG(6, 6))
	c, store := tierCluster(t, 6, map[string]string{"local.retention.bytes": "5000", "retention.bytes": "120000"})
	stores := dying(c, store)
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	p := newProducerLog(c, id)
	write := func(n int) {
		for range n {
			p.write(100, false, fmt.Sprintf("at %d-%s", p.next, strings.Repeat("v", rnd.IntN(2000))))
		}
	}
	died := 0
	rounds := 24
	if testing.Short() {
		rounds = 10
	}
	for range rounds {
		write(2 + rnd.IntN(15))
		at := c.leaderOf(id)
		if stores[at].strike(c, at, rnd, 14, time.Duration(2+rnd.IntN(100))*time.Second) {
			died++
		}
		if rnd.IntN(2) == 0 {
			write(1 + rnd.IntN(5))
		}
		c.start(at)
		c.rebuilt(at, id, fsm.Offset(p.next))
	}
	if died < rounds/2 {
		t.Errorf("in %d rounds the leader died %d times at the store", rounds, died)
	}
	c.tiered(id)
	time.Sleep(3 * time.Minute)
	c.noOrphans(id, store)
	for i := range c.nodes {
		c.rebuilt(i, id, fsm.Offset(p.next))
		p.readPatiently(i, fsm.ReadUncommitted)
	}
	start, next := c.nodes[c.leaderOf(id)].records(id).Bounds()
	t.Logf("the leader died %d times at the store; offsets %d to %d", died, start, next)
	if start == 0 {
		t.Error("retention has not come to what is in the tier")
	}
}
