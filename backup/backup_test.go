package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
)

var errFault = errors.New("503 slow down")

// memStore is a store in memory that fails as told.
type memStore struct {
	mu      sync.Mutex
	objects map[string][]byte
	times   map[string]time.Time
	puts    []string
	// fault is asked before an operation is done, and after: an answer may be lost.
	fault func(op, key string) error
}

func newMemStore() *memStore {
	return &memStore{objects: map[string][]byte{}, times: map[string]time.Time{}}
}

func (s *memStore) String() string { return "memory" }

func (s *memStore) do(op, key string, f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil {
		if err := s.fault(op, key); err != nil {
			return err
		}
	}
	err := f()
	if s.fault != nil && err == nil {
		return s.fault("answer of "+op, key)
	}
	return err
}

func (s *memStore) Put(_ context.Context, key string, data []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	return s.do("put", key, func() error {
		if _, ok := s.objects[key]; ok {
			return fmt.Errorf("%s %w", key, ErrExists)
		}
		s.objects[key], s.times[key] = bytes.Clone(data), time.Now()
		s.puts = append(s.puts, key)
		return nil
	})
}

func (s *memStore) Size(ctx context.Context, key string) (int64, error) {
	data, err := s.Get(ctx, key, 1<<30)
	return int64(len(data)), err
}

func (s *memStore) Same(ctx context.Context, key string, data []byte) (bool, error) {
	there, err := s.Get(ctx, key, 1<<30)
	return err == nil && bytes.Equal(there, data), err
}

func (s *memStore) Get(_ context.Context, key string, limit int64) (data []byte, err error) {
	err = s.do("get", key, func() error {
		d, ok := s.objects[key]
		if !ok {
			return fmt.Errorf("%s %w", key, ErrNotFound)
		}
		if int64(len(d)) > limit {
			return errTooLarge
		}
		data = bytes.Clone(d)
		return nil
	})
	return data, err
}

func (s *memStore) List(_ context.Context, prefix string, each func(Stored) error) error {
	var all []Stored
	err := s.do("list", prefix, func() error {
		for key, data := range s.objects {
			if strings.HasPrefix(key, prefix) {
				all = append(all, Stored{key, int64(len(data)), s.times[key]})
			}
		}
		return nil
	})
	for _, o := range all {
		if err == nil {
			err = each(o)
		}
	}
	return err
}

func (s *memStore) Delete(_ context.Context, key string) error {
	return s.do("delete", key, func() error { delete(s.objects, key); return nil })
}

func (s *memStore) segments() (keys []string) {
	for key := range s.objects {
		if strings.HasPrefix(key, segmentsDir) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// hasty is a store that is asked again at once.
func hasty(s Store) Store {
	return patient{store: s, backoff: func(ctx context.Context, _ int) error { return ctx.Err() }}
}

// memCluster is a cluster in memory.
type memCluster struct {
	mu        sync.Mutex
	copy      admin.CatalogCopy
	logs      map[fsm.TopicID][]*memLog
	groups    []Group
	committed []Group
	asked     []string                                  // which of groups and bounds came first
	fault     func(op string) error                     // before an operation is done, and after
	changed   func(op string, id fsm.TopicID, part int) // told of each read
	producers int64
	hold      func() (func(context.Context) (bool, error), error) // nil: commits are always held
}

type memLog struct {
	start, next int64
	epoch       int32
	batches     []kafkaproto.Batch
	last        bool // all was restored
}

func newMemCluster(id string) *memCluster {
	return &memCluster{copy: admin.CatalogCopy{ClusterID: id, FeatureLevel: fsm.FeatureLevel, Nodes: 3, Topics: []admin.TopicCopy{}}, logs: map[fsm.TopicID][]*memLog{}}
}

func (c *memCluster) topic(name string, id byte, partitions int) fsm.TopicID {
	t := fsm.TopicID{id}
	c.copy.Topics = append(c.copy.Topics, admin.TopicCopy{Name: name, ID: t, Partitions: partitions, ReplicationFactor: 3, Configs: map[string]string{"retention.ms": "-1"}})
	for range partitions {
		c.logs[t] = append(c.logs[t], &memLog{epoch: 3})
	}
	return t
}

// add appends n batches of about size bytes.
func (c *memCluster) add(id fsm.TopicID, partition, n, size int) {
	l := c.logs[id][partition]
	for range n {
		b := prototest.Batch(strings.Repeat("x", size), fmt.Sprint(l.next))
		if l.next%3 == 0 {
			b = prototest.Of(b, 40+l.next, 0, 0, false)
		}
		b.Stamp(l.next, l.epoch)
		l.batches = append(l.batches, b)
		l.next = b.Header().NextOffset()
	}
}

func (c *memCluster) do(op string) (func(*error), error) {
	c.mu.Lock()
	if c.fault != nil {
		if err := c.fault(op); err != nil {
			c.mu.Unlock()
			return nil, err
		}
	}
	return func(err *error) {
		if c.fault != nil && *err == nil {
			*err = c.fault("answer of " + op)
		}
		c.mu.Unlock()
	}, nil
}

func (c *memCluster) Catalog(context.Context) (*admin.CatalogCopy, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.copy
	out.Topics = slices.Clone(c.copy.Topics)
	return &out, nil
}

func (c *memCluster) Groups(context.Context) ([]Group, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, "groups")
	return append(slices.Clone(c.groups), c.committed...), nil
}

func (c *memCluster) log(id fsm.TopicID, partition int32) (*memLog, error) {
	logs := c.logs[id]
	if int(partition) >= len(logs) {
		return nil, ErrGone
	}
	return logs[partition], nil
}

func (c *memCluster) Bounds(_ context.Context, t admin.TopicCopy, partition int32) (start, end int64, epoch int32, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, "bounds")
	l, err := c.log(t.ID, partition)
	if err != nil {
		return 0, 0, 0, err
	}
	return l.start, l.next, l.epoch, nil
}

func (c *memCluster) Ends(_ context.Context, topics []admin.TopicCopy) (all [][]End, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, "ends")
	for _, t := range topics {
		var ends []End
		for _, l := range c.logs[t.ID] {
			ends = append(ends, End{l.next, l.epoch})
		}
		all = append(all, ends)
	}
	return all, nil
}

func (c *memCluster) Hold(context.Context) (func(context.Context) (bool, error), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hold == nil {
		return func(context.Context) (bool, error) { return true, nil }, nil
	}
	return c.hold()
}

func (c *memCluster) Read(_ context.Context, t admin.TopicCopy, partition int32, offset int64) (data []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, err := c.log(t.ID, partition)
	if err != nil {
		return nil, err
	}
	if offset < l.start {
		return nil, ErrTrimmed
	}
	for _, b := range l.batches {
		if b.Header().NextOffset() > offset && len(data) < 1<<20 {
			data = append(data, b.Bytes()...)
		}
	}
	if c.changed != nil {
		c.changed("read", t.ID, int(partition))
	}
	if len(data) == 0 && offset < l.next {
		return nil, ErrNothing
	}
	return data, nil
}

func (c *memCluster) CreateRestoring(_ context.Context, spec fsm.TopicSpec) (err error) {
	done, err := c.do("create")
	if err != nil {
		return err
	}
	defer done(&err)
	if c.logs[spec.Restore.ID] != nil {
		return nil
	}
	c.copy.Topics = append(c.copy.Topics, admin.TopicCopy{
		Name: spec.Name, ID: spec.Restore.ID, Partitions: int(spec.Partitions), ReplicationFactor: int(spec.ReplicationFactor), Configs: spec.Configs,
		Origin: spec.Restore.Origin, Restoring: true,
	})
	for _, b := range spec.Restore.Begin {
		c.logs[spec.Restore.ID] = append(c.logs[spec.Restore.ID], &memLog{start: int64(b.Offset), next: int64(b.Offset), epoch: int32(b.Term) + 1})
	}
	return nil
}

func (c *memCluster) Append(_ context.Context, id fsm.TopicID, partition int32, data []byte, last bool) (next int64, err error) {
	done, err := c.do("append")
	if err != nil {
		return 0, err
	}
	defer done(&err)
	l, err := c.log(id, partition)
	if err != nil {
		return 0, err
	}
	for b, err := range kafkaproto.Batches(data) {
		if err != nil {
			return 0, err
		}
		if b.Header().NextOffset() <= l.next {
			continue
		}
		if b.Header().BaseOffset < l.next || b.Header().LeaderEpoch >= l.epoch {
			return 0, errors.New("a batch out of place")
		}
		l.batches = append(l.batches, b.Clone())
		l.next = b.Header().NextOffset()
	}
	l.last = l.last || last
	return l.next, nil
}

func (c *memCluster) DeleteBefore(_ context.Context, topic string, partition int32, offset int64) (err error) {
	done, err := c.do("delete")
	if err != nil {
		return err
	}
	defer done(&err)
	for _, t := range c.copy.Topics {
		if t.Name == topic {
			c.logs[t.ID][partition].start = offset
		}
	}
	return nil
}

func (c *memCluster) Commit(_ context.Context, g Group) (err error) {
	done, err := c.do("commit")
	if err != nil {
		return err
	}
	defer done(&err)
	for _, t := range c.copy.Topics {
		for _, o := range g.Offsets {
			if o.Topic == t.Name && !c.logs[t.ID][o.Partition].last {
				return errors.New("offsets before the records")
			}
		}
	}
	c.committed = slices.DeleteFunc(c.committed, func(old Group) bool { return old.ID == g.ID })
	c.committed = append(c.committed, g)
	return nil
}

func (c *memCluster) Secure(_ context.Context, s admin.CatalogSecurity) (err error) {
	done, err := c.do("secure")
	if err != nil {
		return err
	}
	defer done(&err)
	c.copy.Security.Credentials = append(c.copy.Security.Credentials, s.Credentials...)
	return nil
}

func (c *memCluster) End(_ context.Context, id fsm.TopicID, producers int64) (err error) {
	done, err := c.do("end")
	if err != nil {
		return err
	}
	defer done(&err)
	for i := range c.copy.Topics {
		if c.copy.Topics[i].ID == id {
			c.copy.Topics[i].Restoring = false
		}
	}
	c.producers = max(c.producers, producers)
	return nil
}

// sample is a cluster with something of everything.
func sample() *memCluster {
	c := newMemCluster("source")
	orders, other := c.topic("orders", 1, 3), c.topic("other", 2, 1)
	c.add(orders, 0, 13, 100_000)
	c.add(orders, 1, 3, 10)
	c.logs[orders][1].start = 3 // within the second batch
	c.add(other, 0, 100, 10)
	c.logs[other][0].next += 50 // compacted
	c.add(other, 0, 10, 10)
	emptied := c.topic("emptied", 3, 2) // their last records were compacted away, or all
	c.add(emptied, 0, 3, 10)
	c.logs[emptied][0].next += 7
	c.logs[emptied][1].start, c.logs[emptied][1].next = 5, 9
	c.groups = []Group{{ID: "g", Offsets: []GroupOffset{{Topic: "orders", Partition: 0, Offset: 7, Epoch: 2}, {Topic: "gone", Offset: 1}}}}
	c.copy.Security.Credentials = []fsm.Credential{{User: "u", Mechanism: "SCRAM-SHA-256"}}
	return c
}

func create(t *testing.T, c *memCluster, r *Repository, o Options) *Created {
	t.Helper()
	made, err := Create(t.Context(), c, r, o)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// sameAs compares a cluster with a backup.
func sameAs(t *testing.T, m *Manifest, r *Repository, c *memCluster) {
	t.Helper()
	v, err := Compare(t.Context(), m, r, c, RestoreOptions{})
	if err != nil || len(v.Wrong) > 0 {
		t.Fatalf("%v, %v", v, err)
	}
}

func TestASecondBackupStoresWhatIsNew(t *testing.T) {
	c, store := sample(), newMemStore()
	r := &Repository{Store: store}
	first := create(t, c, r, Options{})
	if c.asked[0] != "groups" {
		t.Errorf("asked in the order %v: offsets of groups may be ahead of the records", c.asked[:2])
	}
	if g := first.Manifest.Groups; len(g) != 1 || len(g[0].Offsets) != 1 {
		t.Errorf("groups %+v: what has no topic in the backup is left out", g)
	}
	if last := store.puts[len(store.puts)-1]; last != manifestKey(first.Manifest.ID) || store.puts[0] != clusterKey {
		t.Errorf("stored in the order %v", store.puts)
	}
	if again := create(t, c, r, Options{}); again.Objects != 0 || again.Uploaded != 0 || again.Manifest.Bytes() != first.Manifest.Bytes() {
		t.Errorf("nothing is new, and %d objects were stored", again.Objects)
	}
	c.add(fsm.TopicID{2}, 0, 1, 10)
	next := create(t, c, r, Options{})
	if next.Objects != 1 || next.Uploaded > 200 {
		t.Errorf("%d objects with %d bytes were stored for a record", next.Objects, next.Uploaded)
	}
	sameAs(t, next.Manifest, r, c)
	// Small ones do not pile up, and a log that lost its beginning needs no old objects.
	for range 3 * maxTails {
		c.add(fsm.TopicID{2}, 0, 1, 10)
		next = create(t, c, r, Options{})
	}
	if n := len(next.Manifest.topic(fsm.TopicID{2}).Partitions[0].Objects); n > maxTails {
		t.Errorf("a partition of little has %d objects", n)
	}
	c.logs[fsm.TopicID{2}][0].start = 200
	next = create(t, c, r, Options{})
	for _, o := range next.Manifest.topic(fsm.TopicID{2}).Partitions[0].Objects {
		if o.Next <= 200 {
			t.Errorf("an object up to %d is named, the log begins at 200", o.Next)
		}
	}
	sameAs(t, next.Manifest, r, c)
}

// TestALogThatWentOnWithoutAMajority has lost its end, which the backup before has, and has other
// records there. It is backed up as it is.
func TestALogThatWentOnWithoutAMajority(t *testing.T) {
	c, r := sample(), &Repository{Store: newMemStore()}
	id := fsm.TopicID{2}
	create(t, c, r, Options{})
	l := c.logs[id][0]
	l.batches = l.batches[:len(l.batches)-5]
	l.next = l.batches[len(l.batches)-1].Header().NextOffset()
	l.epoch += fsm.RecoveryGap
	c.add(id, 0, 10, 10)
	next := create(t, c, r, Options{})
	sameAs(t, next.Manifest, r, c)
	c.add(id, 0, 1, 10)
	if again := create(t, c, r, Options{}); again.Objects != 1 {
		t.Errorf("%d objects were stored for a record behind that", again.Objects)
	}
}

// Of a compacted topic tombstones go, and what they stood for. Where one may have come and gone
// since the last backup, which has the record, nothing of that is used.
func TestBackupsOfCompactedTopics(t *testing.T) {
	const hour = 3_600_000
	type state struct {
		compacted bool
		kept      int64
	}
	for _, test := range []struct {
		before, now state
		goesOn      bool
	}{
		{state{true, hour}, state{true, hour}, true},
		{state{true, 0}, state{true, hour}, false},
		{state{true, hour}, state{false, 0}, false},
		{state{false, hour}, state{true, 1}, false},
		{state{false, 0}, state{false, 0}, true},
	} {
		c, store := newMemCluster("one"), newMemStore()
		id, r := c.topic("compacted", 5, 1), &Repository{Store: store}
		c.add(id, 0, 4, 100)
		is := func(s state) { c.copy.Topics[0].Compacted, c.copy.Topics[0].DeleteRetentionMs = s.compacted, s.kept }
		is(test.before)
		create(t, c, r, Options{})
		log := c.logs[id][0]
		c.add(id, 0, 2, 100)
		if !test.goesOn {
			log.batches = slices.Delete(log.batches, 1, 5) // some records, and a tombstone
		}
		is(test.now)
		second := create(t, c, r, Options{})
		sameAs(t, second.Manifest, r, c)
		if n := len(second.Manifest.Topics[0].Partitions[0].Objects); test.goesOn != (n == 2) {
			t.Errorf("%+v: %d objects", test, n)
		}
	}
}

// A backup that takes longer than tombstones stay does not go on behind an earlier one.
func TestABackupOfACompactedTopicTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, store := newMemCluster("one"), newMemStore()
		id, r := c.topic("compacted", 5, 1), &Repository{Store: store}
		c.copy.Topics[0].Compacted, c.copy.Topics[0].DeleteRetentionMs = true, 3_600_000
		c.add(id, 0, 4, 100)
		create(t, c, r, Options{})
		c.add(id, 0, 2, 100)
		c.changed = func(string, fsm.TopicID, int) {
			c.changed = nil
			time.Sleep(61 * time.Minute) // of the reading
		}
		second := create(t, c, r, Options{})
		if n := len(second.Manifest.Topics[0].Partitions[0].Objects); n != 1 {
			t.Errorf("%d objects", n)
		}
	})
}

// A compacted log is compared by what compaction may have left of it.
func TestCompareCompacted(t *testing.T) {
	keyed := func(key, value string) prototest.Keyed {
		return prototest.Keyed{Key: key, Value: value, Null: value == ""}
	}
	full := [][]prototest.Keyed{
		{keyed("a", "1"), keyed("b", "1"), keyed("c", "1")}, // 0 to 2
		{keyed("a", "2"), keyed("d", "1")},                  // 3, 4
		{keyed("b", ""), keyed("c", "2")},                   // 5, 6
	}
	for name, test := range map[string]struct {
		leave func(offset int64) bool
		more  []prototest.Keyed
		alter bool
		wrong string
	}{
		"nothing is compacted":          {leave: func(int64) bool { return true }},
		"all that may go is gone":       {leave: func(o int64) bool { return o == 3 || o == 4 || o == 6 }},
		"the newest of a key is gone":   {leave: func(o int64) bool { return o != 4 }, wrong: "offset 4"},
		"all is gone":                   {leave: func(o int64) bool { return false }, wrong: "newest of its key"},
		"it is, and there is a newer":   {leave: func(o int64) bool { return o != 4 }, more: []prototest.Keyed{keyed("d", "2")}},
		"and there is a newer of other": {leave: func(o int64) bool { return o != 4 }, more: []prototest.Keyed{keyed("e", "2")}, wrong: "offset 4"},
		"a record is another one":       {leave: func(o int64) bool { return o > 2 }, alter: true, wrong: "offset 3"},
	} {
		c, store := newMemCluster("one"), newMemStore()
		id, r := c.topic("compacted", 5, 1), &Repository{Store: store}
		c.copy.Topics[0].Compacted = true
		log := c.logs[id][0]
		add := func(records []prototest.Keyed) {
			b := prototest.KeyedBatch(records...)
			b.Stamp(log.next, 3)
			log.batches = append(log.batches, b)
			log.next = b.Header().NextOffset()
		}
		for _, records := range full {
			add(records)
		}
		m := create(t, c, r, Options{}).Manifest
		var left []kafkaproto.Batch
		for i, b := range log.batches {
			if test.alter && i == 1 {
				other := prototest.KeyedBatch(keyed("a", "x"), keyed("d", "1"))
				other.Stamp(3, 3)
				b = other
			}
			rest, kept, err := b.Retain(func(record kafkaproto.Record) bool { return test.leave(record.Offset) })
			if err != nil {
				t.Fatal(err)
			}
			if kept > 0 || i == len(full)-1 {
				left = append(left, rest)
			}
		}
		if log.batches = left; test.more != nil {
			add(test.more)
		}
		v, err := Compare(t.Context(), m, r, c, RestoreOptions{})
		if err != nil || test.wrong == "" && len(v.Wrong) > 0 || test.wrong != "" && !strings.Contains(strings.Join(v.Wrong, ", "), test.wrong) {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
}

// A topic is compacted while it is read, and goes on to be written to: a backup has a record of
// every key that there was when it was begun, though the one that was below the end then may be
// gone. What was written last, the segment that is written to, is not compacted.
func TestATopicIsCompactedWhileItIsRead(t *testing.T) {
	const open = 3 // batches that are not compacted
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 7))
		c, store := newMemCluster("one"), newMemStore()
		id, r := c.topic("compacted", 5, 1), &Repository{Store: store}
		log := c.logs[id][0]
		keyOf := func(b kafkaproto.Batch) (key string) {
			if err := b.Records(func(r kafkaproto.Record) bool { key = string(r.Key); return true }); err != nil {
				t.Fatal(err)
			}
			return key
		}
		write := func(size int) {
			b := prototest.KeyedBatch(prototest.Keyed{Key: fmt.Sprint("key-", random.IntN(8)), Value: strings.Repeat("x", size)})
			b.Stamp(log.next, log.epoch)
			log.batches, log.next = append(log.batches, b), b.Header().NextOffset()
		}
		for range 15 {
			write(random.IntN(600 << 10)) // one read has one or two
		}
		want := map[string]bool{}
		for _, b := range log.batches {
			want[keyOf(b)] = true
		}
		reads := 0
		c.changed = func(string, fsm.TopicID, int) {
			if reads++; reads > 30 {
				return
			}
			for range random.IntN(6) {
				write(random.IntN(600 << 10))
			}
			newest := map[string]int64{}
			for _, b := range log.batches {
				newest[keyOf(b)] = b.Header().BaseOffset
			}
			closed := len(log.batches) - open
			log.batches = slices.Concat(slices.DeleteFunc(slices.Clone(log.batches[:closed]), func(b kafkaproto.Batch) bool {
				return newest[keyOf(b)] > b.Header().BaseOffset
			}), log.batches[closed:])
		}
		p := create(t, c, r, Options{}).Manifest.Topics[0].Partitions[0]
		for _, o := range p.Objects {
			batches, err := r.object(t.Context(), id, 0, o)
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range batches {
				delete(want, keyOf(b))
			}
		}
		if len(want) > 0 {
			t.Errorf("seed %d: of the keys %v nothing is in the backup, which ends at %d; the log ends at %d, after %d reads", seed, slices.Sorted(maps.Keys(want)), p.End, log.next, reads)
		}
	}
}

// writtenTopic is a topic of one partition that is written to, in transactions and without, and
// compacted. all is what was ever written.
type writtenTopic struct {
	t      *testing.T
	random *rand.Rand
	id     fsm.TopicID
	log    *memLog
	all    []kafkaproto.Batch
	open   map[int64]int64 // where the transactions of producers begin
}

// add appends a batch.
func (w *writtenTopic) add(b kafkaproto.Batch) {
	b.Stamp(w.log.next, w.log.epoch)
	w.log.batches, w.all, w.log.next = append(w.log.batches, b), append(w.all, b), b.Header().NextOffset()
}

// some does n steps.
func (w *writtenTopic) some(n, size int) {
	for range n {
		producer := int64(w.random.IntN(3))
		at, open := w.open[producer]
		if open && w.random.IntN(3) == 0 {
			delete(w.open, producer)
			w.add(kafkaproto.NewMarker(kafkaproto.Marker{Commit: w.random.IntN(2) == 0}, producer, 0, at))
			continue
		}
		b := prototest.KeyedBatch(prototest.Keyed{
			Key: fmt.Sprint("key-", w.random.IntN(12)), Value: strings.Repeat("x", w.random.IntN(size)), Null: w.random.IntN(5) == 0,
		})
		if producer > 0 {
			if !open {
				w.open[producer] = w.log.next
			}
			b = prototest.Of(b, producer, 0, int32(len(w.all)), true)
		}
		w.add(b)
	}
}

// state gives the newest committed record of each key, by offset, that is below an offset, where a
// log is cut and what is open there is aborted.
func (w *writtenTopic) state(batches []kafkaproto.Batch, below, cut int64) map[string]int64 {
	state, pending := map[string]int64{}, map[int64]map[string]int64{}
	for _, b := range batches {
		h := b.Header()
		if h.NextOffset() > cut {
			break
		}
		if m, err := kafkaproto.ParseMarker(b); h.Control() && err == nil {
			for key, at := range pending[h.ProducerID] {
				if m.Commit && state[key] < at {
					state[key] = at
				}
			}
			delete(pending, h.ProducerID)
			continue
		}
		into := state
		if h.BaseOffset >= below {
			continue
		}
		if h.Transactional() {
			if pending[h.ProducerID] == nil {
				pending[h.ProducerID] = map[string]int64{}
			}
			into = pending[h.ProducerID]
		}
		if err := b.Records(func(r kafkaproto.Record) bool { into[string(r.Key)] = r.Offset; return true }); err != nil {
			w.t.Fatal(err)
		}
	}
	return state
}

// compact leaves of what is below the last stable offset, but the newest batches, what compaction
// does, tombstones and markers included.
func (w *writtenTopic) compact(active int) {
	bound := w.log.next
	for _, at := range w.open {
		bound = min(bound, at)
	}
	closed := 0
	for closed < len(w.log.batches)-active && w.log.batches[closed].Header().NextOffset() <= bound {
		closed++
	}
	if closed == 0 {
		return
	}
	end := w.log.batches[closed-1].Header().NextOffset()
	newest := w.state(w.all, end, w.log.next)
	left := slices.DeleteFunc(slices.Clone(w.log.batches[:closed]), func(b kafkaproto.Batch) bool {
		stays := b.Header().Control()
		if err := b.Records(func(r kafkaproto.Record) bool { stays = stays || newest[string(r.Key)] == r.Offset; return true }); err != nil {
			w.t.Fatal(err)
		}
		return !stays
	})
	w.log.batches = slices.Concat(left, w.log.batches[closed:])
}

// TestBackupsOfACompactedTopicAreItsState: backups of a topic that is written to and compacted
// while they are made, one on top of the other, are what the topic was where they end: of each key
// the newest committed record.
func TestBackupsOfACompactedTopicAreItsState(t *testing.T) {
	for seed := range uint64(20) {
		c, store := newMemCluster("one"), newMemStore()
		r := &Repository{Store: store}
		w := &writtenTopic{t: t, random: rand.New(rand.NewPCG(seed, 11)), id: c.topic("compacted", 5, 1), open: map[int64]int64{}}
		w.log = c.logs[w.id][0]
		c.copy.Topics[0].Compacted, c.copy.Topics[0].DeleteRetentionMs = true, 86_400_000
		w.add(prototest.KeyedBatch(prototest.Keyed{Key: "first"}))
		reads := 0
		c.changed = func(string, fsm.TopicID, int) {
			if reads++; reads < 30 {
				w.some(w.random.IntN(6), 400<<10)
				w.compact(w.random.IntN(4))
			}
		}
		for backup := range 4 {
			w.some(15, 400<<10)
			if w.random.IntN(2) == 0 {
				w.compact(3)
			}
			reads = 0
			p := create(t, c, r, Options{}).Manifest.Topics[0].Partitions[0]
			var batches []kafkaproto.Batch
			for _, o := range p.Objects {
				more, err := r.object(t.Context(), w.id, 0, o)
				if err != nil {
					t.Fatal(err)
				}
				batches = append(batches, more...)
			}
			if want, got := w.state(w.all, p.End, p.End), w.state(batches, p.End, p.End); !maps.Equal(want, got) {
				t.Errorf("seed %d, backup %d to %d, after %d reads: %v, want %v", seed, backup, p.End, reads, got, want)
			}
		}
	}
}

// A restore that is cut at each of its steps, before the step or after it, goes on where it was,
// and ends as one that was not.
func TestARestoreGoesOnWhereItWas(t *testing.T) {
	c, store := sample(), newMemStore()
	r := &Repository{Store: store}
	m := create(t, c, r, Options{}).Manifest
	for cut := 0; ; cut++ {
		to := newMemCluster("target")
		steps := 0
		to.fault = func(op string) error {
			if steps++; steps-1 == cut {
				return errFault
			}
			return nil
		}
		_, err := Restore(t.Context(), m, r, to, RestoreOptions{Options: Options{Parallel: 1}})
		if err == nil {
			if cut < 20 {
				t.Fatalf("only %d steps", cut)
			}
			checkRestored(t, m, r, to)
			return
		}
		if !errors.Is(err, errFault) {
			t.Fatalf("cut at step %d: %v", cut, err)
		}
		to.fault = nil
		checkNothingIsEndedEarly(t, c, to)
		for range 2 { // the second has nothing to do
			if _, err := Restore(t.Context(), m, r, to, RestoreOptions{}); err != nil {
				t.Fatalf("cut at step %d, and begun again: %v", cut, err)
			}
		}
		checkRestored(t, m, r, to)
	}
}

// checkNothingIsEndedEarly: what is open in a partition is ended when all partitions have all that
// they get, since whoever begins again may find more (--from-tier).
func checkNothingIsEndedEarly(t *testing.T, from, to *memCluster) {
	t.Helper()
	ended, whole := false, true
	for id, logs := range from.logs {
		for p, l := range logs {
			if len(to.logs[id]) <= p {
				whole = false
				continue
			}
			ended = ended || to.logs[id][p].last
			whole = whole && to.logs[id][p].next == l.next
		}
	}
	if ended && !whole {
		t.Error("a partition was ended while others had not all yet")
	}
}

func checkRestored(t *testing.T, m *Manifest, r *Repository, to *memCluster) {
	t.Helper()
	for i := range m.Topics {
		for p, l := range to.logs[m.Topics[i].ID] {
			if want := m.Topics[i].Partitions[p]; l.start != want.Start || l.next != want.End {
				t.Errorf("partition %d of %s has %d to %d, want %d to %d", p, m.Topics[i].Name, l.start, l.next, want.Start, want.End)
			}
		}
	}
	sameAs(t, m, r, to)
	if len(to.committed) != 1 || to.committed[0].Offsets[0] != (GroupOffset{Topic: "orders", Partition: 0, Offset: 7, Epoch: 2}) {
		t.Errorf("groups %+v", to.committed)
	}
	if len(to.copy.Security.Credentials) != 1 || to.producers < 40 {
		t.Errorf("%d credentials, producer ids up to %d", len(to.copy.Security.Credentials), to.producers)
	}
	for _, topic := range to.copy.Topics {
		if topic.Restoring || topic.Configs["retention.ms"] != "-1" {
			t.Errorf("%+v", topic)
		}
	}
}

// TestUploadedIsWhatIsNew: what a store has kept and not answered counts as new, and what was there
// before does not, however often it has to be tried.
func TestUploadedIsWhatIsNew(t *testing.T) {
	c, store := sample(), newMemStore()
	r := &Repository{Store: hasty(store)}
	failed := map[string]bool{}
	fails := func(at string) {
		clear(failed)
		store.fault = func(op, key string) error {
			if op != at || failed[key] {
				return nil
			}
			failed[key] = true
			return errFault
		}
	}
	fails("answer of put")
	first := create(t, c, r, Options{})
	if n := int64(len(store.segments())); n == 0 || first.Objects != n || first.Uploaded != first.Manifest.Bytes() {
		t.Errorf("%d objects with %d bytes are new, and %d are there with %d", first.Objects, first.Uploaded, n, first.Manifest.Bytes())
	}
	delete(store.objects, manifestKey(first.Manifest.ID)) // of one that was cut short at its end
	fails("put")
	if again := create(t, c, r, Options{}); again.Objects != 0 || again.Uploaded != 0 {
		t.Errorf("nothing is new, and %d objects with %d bytes count", again.Objects, again.Uploaded)
	}
}

// Stores fail now and then, before they have done something and after it; nothing comes of it.
func TestStoresThatFailNowAndThen(t *testing.T) {
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		c, store := sample(), newMemStore()
		store.fault = func(string, string) error {
			if rnd.IntN(4) == 0 {
				return errFault
			}
			return nil
		}
		r := &Repository{Store: hasty(store)}
		var m *Manifest
		for range 3 {
			c.add(fsm.TopicID{1}, 2, 2, 1000)
			made, err := Create(t.Context(), c, r, Options{})
			if errors.Is(err, errFault) {
				continue // seven times in a row
			}
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			m = made.Manifest
		}
		store.fault = nil
		if m == nil {
			continue
		}
		to := newMemCluster("target")
		if _, err := Restore(t.Context(), m, r, to, RestoreOptions{}); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		checkRestored(t, m, r, to)
		// What was cut short leaves nothing for ever.
		if _, err := Prune(t.Context(), r, PruneOptions{Keep: 1, Grace: 1}); err != nil {
			t.Fatal(err)
		}
		named := map[string]bool{}
		for _, key := range m.objects() {
			named[key] = true
		}
		for _, key := range store.segments() {
			if !named[key] {
				t.Errorf("seed %d: %s is left", seed, key)
			}
		}
		sameAs(t, m, r, to)
	}
}

func TestWhatIsNotAsItWas(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(s *memStore, m *Manifest, object string)
		want  error
		// verify: the manifest is read, and Verify says what is wrong
		verify bool
	}{
		"a bit of an object": {func(s *memStore, _ *Manifest, o string) { s.objects[o][70] ^= 1 }, ErrDamaged, true},
		"the end of one":     {func(s *memStore, _ *Manifest, o string) { s.objects[o] = s.objects[o][:len(s.objects[o])-1] }, ErrDamaged, true},
		"more at its end":    {func(s *memStore, _ *Manifest, o string) { s.objects[o] = append(s.objects[o], 0) }, ErrDamaged, true},
		"none":               {func(s *memStore, _ *Manifest, o string) { delete(s.objects, o) }, ErrNotFound, true},
		"another's": {func(s *memStore, m *Manifest, o string) {
			for other := range s.objects {
				if strings.HasPrefix(other, segmentsDir) && other != o && len(s.objects[other]) != len(s.objects[o]) {
					s.objects[o] = s.objects[other]
				}
			}
		}, ErrDamaged, true},
		"a bit of a manifest": {func(s *memStore, m *Manifest, _ string) { s.objects[manifestKey(m.ID)][200] ^= 1 }, ErrDamaged, false},
		"half of one": {func(s *memStore, m *Manifest, _ string) {
			s.objects[manifestKey(m.ID)] = s.objects[manifestKey(m.ID)][:100]
		}, ErrDamaged, false},
		"a newer one": {func(s *memStore, m *Manifest, _ string) {
			s.objects[manifestKey(m.ID)] = []byte("trimaran-backup 2 whatever\n{}")
		}, ErrNewer, false},
	} {
		t.Run(name, func(t *testing.T) {
			c, store := sample(), newMemStore()
			r := &Repository{Store: store}
			m := create(t, c, r, Options{}).Manifest
			test.spoil(store, m, store.segments()[0])
			read, err := r.Newest(t.Context(), time.Time{})
			if !test.verify {
				if !errors.Is(err, test.want) {
					t.Errorf("%v, want %v", err, test.want)
				}
				if _, err := Prune(t.Context(), r, PruneOptions{Grace: 1}); !errors.Is(err, test.want) {
					t.Errorf("objects were deleted that it may name: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			v, err := Verify(t.Context(), read, r, Options{}, Known{})
			if err != nil || len(v.Wrong) != 1 {
				t.Errorf("verify: %+v, %v", v, err)
			}
			if _, err := Restore(t.Context(), read, r, newMemCluster("target"), RestoreOptions{}); !errors.Is(err, test.want) {
				t.Errorf("restore: %v, want %v", err, test.want)
			}
		})
	}
}

func TestAPlaceIsOneClusters(t *testing.T) {
	store := newMemStore()
	r := &Repository{Store: store}
	create(t, sample(), r, Options{})
	before := len(store.objects)
	other := sample()
	other.copy.ClusterID = "another"
	if _, err := Create(t.Context(), other, r, Options{}); err == nil || !strings.Contains(err.Error(), "another cluster, source") {
		t.Errorf("%v", err)
	}
	if len(store.objects) != before {
		t.Error("something was stored")
	}
	store.objects[clusterKey] = []byte(`{"format":2,"cluster_id":"source"}`)
	if _, err := Create(t.Context(), sample(), r, Options{}); !errors.Is(err, ErrNewer) {
		t.Errorf("a newer place: %v", err)
	}
}

// A restore meets nothing that is there.
func TestWhatIsThereStays(t *testing.T) {
	c, store := sample(), newMemStore()
	r := &Repository{Store: store}
	m := create(t, c, r, Options{}).Manifest
	if _, err := Restore(t.Context(), m, r, c, RestoreOptions{}); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("into the cluster that it is of: %v", err)
	}
	o := RestoreOptions{Rename: map[string]string{"orders": "orders-again"}}
	for range 2 {
		if _, err := Restore(t.Context(), m, r, c, o); err != nil {
			t.Fatal(err)
		}
	}
	if v, err := Compare(t.Context(), m, r, c, o); err != nil || len(v.Wrong) > 0 {
		t.Errorf("%+v, %v", v, err)
	}
	if len(c.committed) > 0 {
		t.Errorf("groups were set: %v", c.committed)
	}
	o.Rename["orders"] = "other"
	if _, err := Restore(t.Context(), m, r, c, o); err == nil {
		t.Error("over another topic")
	}
	o.Rename = map[string]string{"none": "x"}
	if _, err := Restore(t.Context(), m, r, c, o); err == nil {
		t.Error("a topic that is not in it")
	}
	to := newMemCluster("target")
	if _, err := Restore(t.Context(), m, r, to, RestoreOptions{Options: Options{Patterns: []string{"or*"}}, NewIDs: true}); err != nil {
		t.Fatal(err)
	}
	if len(to.copy.Topics) != 1 || to.copy.Topics[0].ID == (fsm.TopicID{1}) || len(to.copy.Security.Credentials) > 0 {
		t.Errorf("%+v", to.copy)
	}
}

// TestAClockThatWasAhead: what was backed up while a clock was years ahead is not the newest backup
// when it is right again, and does not take the place of one among those that are kept.
func TestAClockThatWasAhead(t *testing.T) {
	c, store := sample(), newMemStore()
	r := &Repository{Store: store}
	var future, now string
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(10 * 365 * 24 * time.Hour)
		future = create(t, c, r, Options{}).Manifest.ID
		if m, err := r.Newest(t.Context(), time.Time{}); err != nil || m.ID != future {
			t.Errorf("%v, %v", m, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		if m, err := r.Newest(t.Context(), time.Time{}); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), future) {
			t.Errorf("with nothing but a backup from the future: %v, %v", m, err)
		}
		for range 2 {
			c.add(fsm.TopicID{1}, 0, 1, 100)
			time.Sleep(time.Minute)
			now = create(t, c, r, Options{}).Manifest.ID
			if _, err := Prune(t.Context(), r, PruneOptions{Keep: 1}); err != nil {
				t.Fatal(err)
			}
			if m, err := r.Newest(t.Context(), time.Time{}); err != nil || m.ID != now {
				t.Errorf("%v, %v", m, err)
			}
		}
		if ids, err := r.IDs(t.Context()); err != nil || !slices.Equal(ids, []string{now, future}) {
			t.Errorf("there are %v, %v", ids, err)
		}
		if m, err := r.Newest(t.Context(), time.Now().AddDate(20, 0, 0)); err != nil || m.ID != future {
			t.Errorf("from before a time that is later: %v, %v", m, err)
		}
	})
}

// TestNothingIsMeant: a backup of no topic, and two topics of one name, are refused before anything
// is done.
func TestNothingIsMeant(t *testing.T) {
	c, store := sample(), newMemStore()
	r := &Repository{Store: store}
	if made, err := Create(t.Context(), c, r, Options{Patterns: []string{"nobody-*", "x"}}); err == nil || !strings.Contains(err.Error(), "nobody-*, x") {
		t.Errorf("%+v, %v", made, err)
	}
	m := create(t, c, r, Options{}).Manifest
	to, rename := newMemCluster("other"), map[string]string{}
	for _, topic := range m.Topics[:2] {
		rename[topic.Name] = "same"
	}
	if _, err := Restore(t.Context(), m, r, to, RestoreOptions{Rename: rename}); err == nil || len(to.copy.Topics) > 0 {
		t.Errorf("%v, and there are %v", err, to.copy.Topics)
	}
}

func TestPrune(t *testing.T) {
	c, store := sample(), newMemStore()
	r := &Repository{Store: store}
	var ids []string
	for range 4 {
		ids = append(ids, create(t, c, r, Options{}).Manifest.ID)
		c.add(fsm.TopicID{1}, 0, 1, 100)
		time.Sleep(2 * time.Millisecond) // ids begin with the time
	}
	if err := store.Put(t.Context(), segmentsDir+"00/0/x.batches", []byte("of a backup that was cut short")); err != nil {
		t.Fatal(err)
	}
	all := len(store.segments())
	dry, err := Prune(t.Context(), r, PruneOptions{Keep: 2, DryRun: true, Grace: 1})
	if err != nil || !slices.Equal(dry.Backups, ids[:2]) || len(store.segments()) != all {
		t.Fatalf("%+v, %v", dry, err)
	}
	young, err := Prune(t.Context(), r, PruneOptions{})
	if err != nil || young.Young != 1 || len(young.Orphans) != 0 {
		t.Errorf("what may belong to a backup that is being made: %+v, %v", young, err)
	}
	for grace, isYoung := range map[time.Duration]bool{0: true, 1: false} {
		// All backups are there still, and name the rest.
		orphans, err := Orphans(t.Context(), r, grace)
		if err != nil || len(orphans) != 1 || orphans[0].Key != segmentsDir+"00/0/x.batches" || orphans[0].Bytes != 30 || orphans[0].Young != isYoung {
			t.Errorf("with a grace of %s: %+v, %v", grace, orphans, err)
		}
	}
	done, err := Prune(t.Context(), r, PruneOptions{Keep: 2, Grace: 1})
	if err != nil || !slices.Equal(done.Backups, ids[:2]) || !slices.Equal(done.Orphans, dry.Orphans) {
		t.Errorf("%+v, and it was to be %+v, %v", done, dry, err)
	}
	if orphans, err := Orphans(t.Context(), r, 1); err != nil || len(orphans) != 0 {
		t.Errorf("orphans are left: %+v, %v", orphans, err)
	}
	left, err := r.IDs(t.Context())
	if err != nil || !slices.Equal(left, ids[2:]) {
		t.Errorf("%v, %v", left, err)
	}
	known := Known{}
	for _, id := range left {
		m, err := r.Manifest(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := Verify(t.Context(), m, r, Options{}, known); err != nil || len(v.Wrong) > 0 {
			t.Errorf("what another backup names is gone: %+v, %v", v, err)
		}
	}
	if got := slices.Sorted(maps.Keys(known)); !slices.Equal(got, store.segments()) {
		t.Errorf("there is %v, and %v is named", store.segments(), got)
	}
	at, _ := time.Parse(idTime, ids[3][:len(idTime)])
	if m, err := r.Newest(t.Context(), at); err != nil || m.ID != ids[2] {
		t.Errorf("before the newest: %v", err)
	}
	if _, err := r.Newest(t.Context(), at.Add(-time.Hour)); !errors.Is(err, ErrNotFound) {
		t.Errorf("before all: %v", err)
	}
	store.objects[manifestKey(ids[3])][100] ^= 1
	if orphans, err := Orphans(t.Context(), r, 1); !errors.Is(err, ErrDamaged) {
		t.Errorf("a manifest that may name anything: %+v, %v", orphans, err)
	}
	if _, err := Orphans(t.Context(), &Repository{Store: newMemStore()}, 1); !errors.Is(err, ErrNotFound) {
		t.Errorf("a place without backups: %v", err)
	}
}

// A topic that is deleted meanwhile is left out, and one whose log loses its beginning is read
// anew.
func TestTopicsChangeMeanwhile(t *testing.T) {
	c := sample()
	once := true
	c.changed = func(_ string, id fsm.TopicID, part int) {
		switch {
		case id == fsm.TopicID{2}:
			delete(c.logs, id)
			c.copy.Topics = slices.DeleteFunc(c.copy.Topics, func(t admin.TopicCopy) bool { return t.ID == id })
		case part == 0 && once:
			once = false
			c.logs[id][0].start = 24
		}
	}
	r := &Repository{Store: newMemStore()}
	made := create(t, c, r, Options{Parallel: 1})
	if len(made.Manifest.Topics) != 2 || !slices.Equal(made.Skipped, []string{"other"}) || made.Manifest.Topics[0].Partitions[0].Start != 24 {
		t.Errorf("%+v, left out %v", made.Manifest.Topics, made.Skipped)
	}
	c.changed = nil
	sameAs(t, made.Manifest, r, c)
}

// What comes is compared piece by piece, and an answer that was cut short is an error and not
// another object.
func TestSame(t *testing.T) {
	whole := bytes.Repeat([]byte("records "), 3*comparedAtOnce/8+1)
	other := bytes.Clone(whole)
	other[len(other)-1]++
	s := newFileStore(t.TempDir())
	if err := s.Put(t.Context(), "a/b", whole); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		data []byte
		want bool
	}{
		{"the same", whole, true}, {"another byte", other, false}, {"one byte less", whole[:len(whole)-1], false},
		{"one more", append(bytes.Clone(whole), 0), false}, {"a whole piece", whole[:comparedAtOnce], false}, {"nothing", nil, false},
	} {
		if is, err := s.Same(t.Context(), "a/b", c.data); err != nil || is != c.want {
			t.Errorf("%s: %v, %v", c.what, is, err)
		}
	}
	if _, err := s.Same(t.Context(), "a/c", nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("what is not there: %v", err)
	}
	cut := func() io.Reader {
		return io.MultiReader(bytes.NewReader(whole[:100]), iotest.ErrReader(io.ErrUnexpectedEOF))
	}
	if _, err := same(cut(), whole); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("compare what was cut short: %v", err)
	}
	for _, limit := range []int64{int64(len(whole)), readAtOnce + 1} {
		if _, err := readAll(cut(), "k", limit); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("read what was cut short, limit %d: %v", limit, err)
		}
		if data, err := readAll(iotest.OneByteReader(bytes.NewReader(whole)), "k", limit); err != nil || !bytes.Equal(data, whole) {
			t.Errorf("limit %d: %d bytes, %v", limit, len(data), err)
		}
	}
	if _, err := readAll(bytes.NewReader(whole), "k", int64(len(whole))-1); !errors.Is(err, errTooLarge) {
		t.Errorf("more than the limit: %v", err)
	}
}

func TestFileStore(t *testing.T) {
	dir := t.TempDir()
	s, err := Open("file://" + dir + "/not/there/yet")
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if err := s.List(ctx, "a/", func(Stored) error { return errors.New("there is something") }); err != nil {
		t.Error(err)
	}
	if err := s.Put(ctx, "a/b/c", []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(ctx, "a/b/c", []byte("two")); !errors.Is(err, ErrExists) {
		t.Errorf("written twice: %v", err)
	}
	if data, err := s.Get(ctx, "a/b/c", 3); err != nil || string(data) != "one" {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := s.Get(ctx, "a/b/c", 2); !errors.Is(err, errTooLarge) {
		t.Errorf("more than wanted: %v", err)
	}
	for _, key := range []string{"../x", "a/../../x", "/x", "a//b", "", ".x", "a/b\x00", "a b"} {
		if err := s.Put(ctx, key, nil); err == nil {
			t.Errorf("key %q is taken", key)
		}
		if _, err := s.Get(ctx, key, 1); err == nil {
			t.Errorf("key %q is read", key)
		}
		if err := s.Delete(ctx, key); err == nil {
			t.Errorf("key %q is deleted", key)
		}
	}
	var listed []string
	if err := s.List(ctx, "a/", func(o Stored) error { listed = append(listed, o.Key); return nil }); err != nil || !slices.Equal(listed, []string{"a/b/c"}) {
		t.Errorf("%v, %v", listed, err)
	}
	for range 2 {
		if err := s.Delete(ctx, "a/b/c"); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"file://host/x", "file:x", "ftp://x/y", "s3://", "s3://b/p?endpoint=nowhere%2Fx", "s3://k:s@b/p", "s3://b/p?secret=x", "s3://b/a%20b"} {
		if _, err := Open(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	c := sample()
	made, err := Create(context.Background(), c, &Repository{Store: newMemStore()}, Options{})
	if err != nil {
		f.Fatal(err)
	}
	data, err := made.Manifest.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[headLine:])
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := parseManifest(text); err == nil {
			t.Error("text without a first line")
		}
		m, err := parseManifest(sealed(text))
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Error(err)
			}
			return
		}
		for o, key := range m.objects() {
			if checkKey(key) != nil || o.Bytes < 0 || o.Next <= o.First {
				t.Errorf("%s, %+v", key, o)
			}
		}
	})
}

// memTier is a tier in memory. Each batch is an object.
type memTier struct {
	*memStore
	owner string
	logs  map[fsm.TopicID]map[int32]*TierLog
	odd   map[fsm.TopicID]error
}

func (m *memTier) Owner(context.Context) (string, error) { return m.owner, nil }

func (m *memTier) Log(_ context.Context, topic fsm.TopicID, partition int32) (*TierLog, error) {
	return m.logs[topic][partition], m.odd[topic]
}

// upload puts the first batches of a log into the tier.
func (m *memTier) upload(c *memCluster, id fsm.TopicID, partition int32, batches int) {
	l := c.logs[id][partition]
	log := &TierLog{Start: l.start, Tiered: l.start, End: l.next, Epoch: l.epoch}
	for i, b := range l.batches[:batches] {
		h := b.Header()
		first := max(h.BaseOffset, log.Tiered) // the log may start within it
		if h.NextOffset() <= l.start {
			continue
		}
		key := fmt.Sprintf("tiers/%s/%d/%d.batches", id, partition, i)
		m.objects[key] = bytes.Clone(b.Bytes())
		log.Objects = append(log.Objects, TierObject{Key: key, First: first, Next: h.NextOffset(), Bytes: int64(b.Size()), Sum: sha256.Sum256(b.Bytes()), MaxEpoch: h.LeaderEpoch})
		log.Tiered = h.NextOffset()
	}
	if m.logs[id] == nil {
		m.logs[id] = map[int32]*TierLog{}
	}
	m.logs[id][partition] = log
}

// lostCluster is a cluster of which a backup has a part, and a tier more; and one without records
// that was made last.
func lostCluster(t *testing.T) (c *memCluster, r *Repository, m *Manifest, tier *memTier) {
	t.Helper()
	c, r = sample(), &Repository{Store: newMemStore()}
	first := create(t, c, r, Options{}).Manifest
	orders := fsm.TopicID{1}
	c.add(orders, 0, 20, 1000)
	c.add(orders, 1, 20, 1000)
	c.groups[0].Offsets = append(c.groups[0].Offsets, GroupOffset{Topic: "orders", Partition: 1, Offset: c.logs[orders][1].next, Epoch: 3})
	tier = &memTier{memStore: newMemStore(), owner: "source.0badf00d", logs: map[fsm.TopicID]map[int32]*TierLog{}, odd: map[fsm.TopicID]error{}}
	tier.upload(c, orders, 0, 25)
	tier.upload(c, orders, 1, 15)
	made := create(t, c, r, Options{CatalogOnly: true})
	if m = made.Manifest; made.Objects != 0 || m.Bytes() != first.Bytes() || m.Records != first.Started || !m.CatalogOnly {
		t.Fatalf("%d objects were stored, %d bytes are named of %d", made.Objects, m.Bytes(), first.Bytes())
	}
	return c, r, m, tier
}

// TestWhatATierHasIsRestored: records come from the backup and those behind them from the tier,
// wherever the restore is cut, and no group is ahead of them.
func TestWhatATierHasIsRestored(t *testing.T) {
	source, r, m, tier := lostCluster(t)
	if _, err := Restore(t.Context(), m, r, newMemCluster("t"), RestoreOptions{}); err == nil || !strings.Contains(err.Error(), "--from-tier") {
		t.Fatalf("a backup without records is restored: %v", err)
	}
	for at, cut := 1, true; cut; at++ {
		to, n := newMemCluster("target"), 0
		cut = false
		to.fault = func(string) error {
			if n++; n == at {
				cut = true
				return errFault
			}
			return nil
		}
		restore := func() (*Gathered, error) {
			g, err := Gather(t.Context(), m, r, tier, RestoreOptions{})
			if err == nil {
				_, err = Restore(t.Context(), g.Manifest(), r, to, RestoreOptions{})
			}
			return g, err
		}
		g, err := restore()
		if cut {
			if err == nil {
				t.Fatalf("cut at %d, and no error", at)
			}
			g, err = restore()
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, reach := range g.Reach {
			if reach.Topic != "orders" || reach.Partition > 1 {
				continue
			}
			was, is := source.logs[fsm.TopicID{1}][reach.Partition], to.logs[fsm.TopicID{1}][reach.Partition]
			log := tier.logs[fsm.TopicID{1}][reach.Partition]
			if is.start != was.start || is.next != log.Tiered || reach.End != log.Tiered || reach.Known != was.next || reach.Tier < reach.Start || reach.Tier >= reach.End {
				t.Fatalf("cut at %d: %+v, restored are %d to %d, there were %d to %d", at, reach, is.start, is.next, was.start, was.next)
			}
			kept := slices.DeleteFunc(slices.Clone(was.batches), func(b kafkaproto.Batch) bool { return b.Header().NextOffset() <= was.start })
			for i, b := range is.batches {
				if !bytes.Equal(b.Bytes(), kept[i].Bytes()) {
					t.Fatalf("cut at %d: batch %d is another", at, i)
				}
			}
		}
		if o := to.committed[0].Offsets; len(o) != 2 || o[0].Offset != 7 || o[1].Offset != tier.logs[fsm.TopicID{1}][1].Tiered || o[1].Epoch != -1 || len(g.Back) != 1 {
			t.Fatalf("%+v, %v", o, g.Back)
		}
		// That of the last batch in the tier, or more.
		if want := int64(40 + 48); to.producers < want {
			t.Fatalf("producer ids from %d on are given again, and there are some to %d", to.producers, want)
		}
		v, err := Compare(t.Context(), g.Manifest(), r, to, RestoreOptions{})
		if err != nil || len(v.Wrong) > 0 {
			t.Fatalf("%+v, %v", v, err)
		}
	}
}

// TestATierThatIsNotAsItWas: nothing of it is left out without a word.
func TestATierThatIsNotAsItWas(t *testing.T) {
	orders := fsm.TopicID{1}
	for name, one := range map[string]struct {
		change func(m *memTier)
		want   string
	}{
		"another cluster's": {func(m *memTier) { m.owner = "another" }, "another"},
		"damaged":           {func(m *memTier) { m.objects[m.logs[orders][0].Objects[20].Key][70] ^= 1 }, "damaged"},
		"cut":               {func(m *memTier) { o := m.logs[orders][0].Objects[20]; m.objects[o.Key] = m.objects[o.Key][:50] }, "damaged"},
		"gone":              {func(m *memTier) { delete(m.objects, m.logs[orders][0].Objects[20].Key) }, "does its cluster run"},
		"no list":           {func(m *memTier) { m.odd[orders] = fmt.Errorf("x: %w", ErrUnlisted) }, ""},
		"no answer":         {func(m *memTier) { m.odd[orders] = errFault }, "503"},
	} {
		t.Run(name, func(t *testing.T) {
			_, r, m, tier := lostCluster(t)
			one.change(tier)
			g, err := Gather(t.Context(), m, r, tier, RestoreOptions{})
			if err == nil {
				_, err = Restore(t.Context(), g.Manifest(), r, newMemCluster("target"), RestoreOptions{})
			}
			if one.want == "" {
				if err != nil || !g.Reach[0].Unlisted || g.Reach[0].Tier >= 0 {
					t.Errorf("%+v, %v", g.Reach, err)
				}
			} else if err == nil || !strings.Contains(err.Error(), one.want) {
				t.Errorf("%v, want %q in it", err, one.want)
			}
		})
	}
}

// TestMarkersThatWereCompactedAway: what the tier of a compacted topic has of transactions is
// committed, or left out if its index says that it was aborted, whatever markers are there.
func TestMarkersThatWereCompactedAway(t *testing.T) {
	for _, compacted := range []bool{true, false} {
		_, r, m, tier := lostCluster(t)
		id := fsm.TopicID{1}
		var next int64
		var objects []TierObject
		add := func(b kafkaproto.Batch, aborted ...fsm.AbortedTransaction) {
			b.Stamp(next, 3)
			b, err := kafkaproto.ParseBatch(b.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			o := TierObject{Key: fmt.Sprint("tiers/t/", len(objects)), First: next, Next: b.Header().NextOffset(), Bytes: int64(b.Size()), Sum: sha256.Sum256(b.Bytes()), MaxEpoch: 3, Aborted: aborted}
			tier.objects[o.Key] = bytes.Clone(b.Bytes())
			objects, next = append(objects, o), o.Next
		}
		write := func(value string) kafkaproto.Batch {
			return prototest.Of(prototest.KeyedBatch(prototest.Keyed{Key: value, Value: value}), 7, 0, -1, true)
		}
		add(write("committed")) // and its marker is gone
		add(write("aborted"), fsm.AbortedTransaction{ProducerID: 7, First: 1, Last: 2, LastStable: 1})
		add(kafkaproto.NewMarker(kafkaproto.Marker{}, 7, 0, 0))
		add(write("the last"))
		p := &m.Topics[slices.IndexFunc(m.Topics, func(t Topic) bool { return t.ID == id })].Partitions[0]
		p.Objects, p.Start, p.End = nil, 0, 0
		tier.logs[id][0] = &TierLog{Tiered: next, End: next, Epoch: 3, Compacted: compacted, Objects: objects}
		g, err := Gather(t.Context(), m, r, tier, RestoreOptions{})
		if err != nil {
			t.Fatal(err)
		}
		to := newMemCluster("target")
		if _, err := Restore(t.Context(), g.Manifest(), r, to, RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, b := range to.logs[id][0].batches {
			text := "marker"
			if !b.Header().Control() {
				values, err := prototest.Values(b)
				if err != nil {
					t.Fatal(err)
				}
				text = fmt.Sprint(values, b.Header().Transactional())
			}
			got = append(got, text)
		}
		want := "[committed] true, [aborted] true, marker, [the last] true"
		if compacted {
			want = "[committed] false, marker, [the last] false"
		}
		if text := strings.Join(got, ", "); text != want {
			t.Errorf("compacted %v: %s, want %s", compacted, text, want)
		}
	}
}

// TestWhichOfABackupAndATierCounts: what one has that the other cannot have is not mixed.
func TestWhichOfABackupAndATierCounts(t *testing.T) {
	object := func(first, next int64) Object { return Object{First: first, Next: next, MaxEpoch: 1} }
	piece := func(first, next int64) TierObject {
		return TierObject{Key: "k", First: first, Next: next, MaxEpoch: 1}
	}
	backup := Partition{Start: 5, End: 100, Epoch: 7, Objects: []Object{object(0, 50), object(50, 90)}}
	const gap = fsm.RecoveryGap
	for name, one := range map[string]struct {
		log         TierLog
		compacted   bool
		catalogOnly bool
		objects     string
		end         int64
	}{
		"the tier goes on":          {TierLog{Start: 5, Tiered: 150, End: 170, Epoch: 8, Objects: []TierObject{piece(0, 80), piece(80, 120), piece(120, 150)}}, false, false, "0-50 50-90 k80-120 k120-150", 150},
		"behind a gap of no data":   {TierLog{Start: 5, Tiered: 150, End: 170, Epoch: 8, Objects: []TierObject{piece(0, 95), piece(95, 150)}}, false, true, "0-50 50-90 k0-95 k95-150", 150},
		"the backup goes on":        {TierLog{Start: 5, Tiered: 60, End: 170, Epoch: 7, Objects: []TierObject{piece(0, 60)}}, false, false, "0-50 50-90", 100},
		"the start has moved":       {TierLog{Start: 85, Tiered: 150, End: 170, Epoch: 8, Objects: []TierObject{piece(80, 120), piece(120, 150)}}, false, false, "50-90 k80-120 k120-150", 150},
		"over all of the backup":    {TierLog{Start: 130, Tiered: 150, End: 170, Epoch: 8, Objects: []TierObject{piece(125, 150)}}, false, false, "k125-150", 150},
		"compacted":                 {TierLog{Start: 5, Tiered: 150, End: 170, Epoch: 8, Objects: []TierObject{piece(0, 120)}}, true, false, "k0-120", 150},
		"compacted, backup newer":   {TierLog{Start: 5, Tiered: 80, End: 90, Epoch: 7, Objects: []TierObject{piece(0, 80)}}, true, false, "0-50 50-90", 100},
		"recovered since":           {TierLog{Start: 5, Tiered: 60, End: 70, Epoch: 8 + gap, Objects: []TierObject{piece(0, 60)}}, false, false, "k0-60", 60},
		"no records in the catalog": {TierLog{Start: 5, Tiered: 60, End: 70, Epoch: 7, Objects: []TierObject{piece(0, 60)}}, false, true, "0-50 50-90", 90},
	} {
		t.Run(name, func(t *testing.T) {
			store := newMemStore()
			tier := &memTier{memStore: store}
			for i := range one.log.Objects {
				o := &one.log.Objects[i]
				b := prototest.Batch("x")
				b.Stamp(o.First, 1)
				o.Bytes, o.Sum = int64(b.Size()), sha256.Sum256(b.Bytes())
				o.Key = fmt.Sprint("k", o.First, "-", o.Next)
				store.objects[o.Key] = b.Bytes()
			}
			p := backup
			r, err := p.extend(t.Context(), tier, &one.log, one.compacted, one.catalogOnly)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, o := range p.Objects {
				if text := fmt.Sprint(o.First, "-", o.Next); o.tierKey == "" {
					got = append(got, text)
				} else {
					got = append(got, o.tierKey)
				}
			}
			if strings.Join(got, " ") != one.objects || r.End != one.end || r.Known < one.log.End || r.Known < 100 {
				t.Errorf("%v, %+v, want %s to %d", got, r, one.objects, one.end)
			}
		})
	}
}

// TestBackupsOfANewerProgramAreKept: they do not count, and while they are there no object goes.
func TestBackupsOfANewerProgramAreKept(t *testing.T) {
	for name, newer := range map[string]func(m *Manifest) []byte{
		"another format": func(*Manifest) []byte { return []byte("trimaran-backup 2 whatever\n{}") },
		"another within": func(m *Manifest) []byte {
			m.Format = 2
			data, _ := m.encode()
			return data
		},
		"a field": func(m *Manifest) []byte {
			data, _ := m.encode()
			return sealed(append([]byte(`{"new":1,`), data[headLine+1:]...))
		},
	} {
		for _, which := range [][]int{{1}, {1, 4}} {
			t.Run(fmt.Sprint(name, which), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, store := sample(), newMemStore()
					r := &Repository{Store: store}
					var ids []string
					for range 5 {
						c.add(fsm.TopicID{2}, 0, 1, 10)
						time.Sleep(time.Minute)
						ids = append(ids, create(t, c, r, Options{}).Manifest.ID)
					}
					for _, at := range which {
						m, err := r.Manifest(t.Context(), ids[at])
						if err != nil {
							t.Fatal(err)
						}
						store.objects[manifestKey(ids[at])] = newer(m)
					}
					gone := []string{ids[0], ids[2]} // one that is known is kept
					if len(which) == 1 {
						gone = append(gone, ids[3])
					}
					objects := store.segments()
					out, err := Prune(t.Context(), r, PruneOptions{Keep: 1, Grace: 1})
					if !errors.Is(err, ErrNewer) {
						t.Errorf("%v, and it does not know what the newer one names", err)
					}
					if left, err := r.IDs(t.Context()); err != nil || !slices.Equal(left, slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return slices.Contains(gone, id) })) {
						t.Errorf("%v are left of %v, %v", left, ids, err)
					}
					if out == nil || !slices.Equal(out.Backups, gone) || !slices.Equal(store.segments(), objects) {
						t.Errorf("%+v, and %d objects are left of %d", out, len(store.segments()), len(objects))
					}
				})
			})
		}
	}
}

// TestABackupIsMadeAfterThoseOfANewerProgram: where the program before is put back it passes over
// them, and goes on from the newest that it knows.
func TestABackupIsMadeAfterThoseOfANewerProgram(t *testing.T) {
	for _, catalogOnly := range []bool{false, true} {
		for _, known := range []int{0, 1} {
			t.Run(fmt.Sprint(catalogOnly, known), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, store := sample(), newMemStore()
					r := &Repository{Store: store}
					for i := range known + 2 {
						time.Sleep(time.Minute)
						id := create(t, c, r, Options{}).Manifest.ID
						if i >= known {
							store.objects[manifestKey(id)] = []byte("trimaran-backup 2 whatever\n{}")
						}
					}
					time.Sleep(time.Minute)
					out := create(t, c, r, Options{CatalogOnly: catalogOnly})
					objects := 0
					for range out.Manifest.objects() {
						objects++
					}
					if (objects > 0) != (known > 0 || !catalogOnly) {
						t.Errorf("it names %d objects", objects)
					}
					if out.Objects > 0 && known > 0 {
						t.Errorf("%d objects were put there again", out.Objects)
					}
				})
			})
		}
	}
}

// TestBackupsWithoutRecordsAreKept: they do not push others out, and what they name stays.
func TestBackupsWithoutRecordsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, store := sample(), newMemStore()
		r := &Repository{Store: store}
		made := func(catalogOnly bool) string {
			c.add(fsm.TopicID{2}, 0, 1, 10)
			time.Sleep(time.Minute)
			return create(t, c, r, Options{CatalogOnly: catalogOnly}).Manifest.ID
		}
		first, _, second := made(false), made(true), made(false)
		last := []string{made(true), made(true), made(true)}
		want := append([]string{first, second}, last[1:]...)
		if _, err := Prune(t.Context(), r, PruneOptions{Keep: 2, Grace: 1}); err != nil {
			t.Fatal(err)
		}
		if ids, err := r.IDs(t.Context()); err != nil || !slices.Equal(ids, want) {
			t.Errorf("%v are kept (%v), want %v", ids, err, want)
		}
		for _, id := range want {
			m, err := r.Manifest(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if v, err := Verify(t.Context(), m, r, Options{}, Known{}); err != nil || len(v.Wrong) > 0 {
				t.Errorf("%+v, %v", v, err)
			}
		}
		// The next one with records goes on behind those that are there.
		c.add(fsm.TopicID{2}, 0, 1, 10)
		if next := create(t, c, r, Options{}); next.Objects != 1 {
			t.Errorf("%d objects were stored", next.Objects)
		}
	})
}
