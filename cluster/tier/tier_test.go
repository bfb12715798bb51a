package tier

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
)

var testPartition = fsm.PartitionID{Topic: fsm.TopicID{1, 2, 3}, Partition: 4}

// fixture is a tier over a store in memory, and a log that is put there.
type fixture struct {
	t     *testing.T
	store *memStore
	fs    *vfs.Mem
	*Tier
	batches  []kafkaproto.Batch
	segments []fsm.TieredSegment
	next     fsm.Offset
}

func newFixture(t *testing.T, cacheBytes int64, pieceBytes int) *fixture {
	ctx, cancel := context.WithCancel(context.Background())
	f := &fixture{t: t, store: newMemStore(), fs: vfs.NewMem()}
	f.open(ctx, cacheBytes, pieceBytes)
	t.Cleanup(func() { cancel(); f.Tier.Close() })
	return f
}

func (f *fixture) open(ctx context.Context, cacheBytes int64, pieceBytes int) {
	f.t.Helper()
	if err := f.fs.MkdirAll("/data"); err != nil {
		f.t.Fatal(err)
	}
	tier, err := Open(ctx, Config{Store: f.store, ClusterID: func() string { return "c1" }, FS: f.fs, Dir: "/data/tier", CacheBytes: cacheBytes, PieceBytes: pieceBytes})
	if err != nil {
		f.t.Fatal(err)
	}
	f.Tier = tier
}

// put puts a segment of so many batches into the store; some offsets are missing in between.
func (f *fixture) put(random *rand.Rand, batches int, size int) error {
	ctx := context.Background()
	first, next := f.next, f.next
	u, err := f.Begin(ctx, testPartition, first, 1)
	if err != nil {
		return err
	}
	u.Epoch(fsm.LeaderEpoch(1+len(f.segments)), first)
	var added []kafkaproto.Batch
	for range batches {
		next += fsm.Offset(random.IntN(3) / 2 * 5)
		var values []string
		for range 1 + random.IntN(4) {
			values = append(values, string(bytes.Repeat([]byte{byte('a' + random.IntN(26))}, 1+random.IntN(size))))
		}
		b := prototest.Batch(values...)
		b.Stamp(int64(next), int32(1+len(f.segments)))
		b, err := kafkaproto.ParseBatch(b.Bytes()) // as it is read again
		if err != nil {
			return err
		}
		next = fsm.Offset(b.Header().NextOffset())
		if err := u.Add(ctx, b, next); err != nil {
			u.Abandon(ctx)
			return err
		}
		added = append(added, b)
	}
	next += fsm.Offset(random.IntN(2) * 7)
	s, err := u.Finish(ctx, next, []fsm.AbortedTransaction{{ProducerID: 9, First: first, Last: next + 5, LastStable: first}}, 99)
	if err != nil {
		u.Abandon(ctx)
		return err
	}
	f.batches, f.segments, f.next = append(f.batches, added...), append(f.segments, s), next
	return nil
}

func (f *fixture) fill(segments, batches, size int) {
	f.t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	for range segments {
		if err := f.put(random, batches, size); err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *fixture) read(from fsm.Offset, most int) (Read, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	return f.Tier.Read(ctx, testPartition, f.segments, from, most, func(n int) []byte { return make([]byte, 0, n) })
}

// all reads all from an offset on, trying again.
func (f *fixture) all(from fsm.Offset, most int) (got []byte) {
	f.t.Helper()
	for at := from; at < f.next; {
		r, err := f.read(at, most)
		if errors.Is(err, ErrLater) {
			time.Sleep(moment)
			continue
		}
		if err != nil {
			f.t.Fatal(err)
		}
		if r.End <= at {
			f.t.Fatalf("nothing is read at %d of %d", at, f.next)
		}
		if len(r.Batches) > 0 && len(r.Aborted) != 1 {
			f.t.Fatalf("at %d: aborted are %v", at, r.Aborted)
		}
		got, at = append(got, r.Batches...), r.End
	}
	return got
}

func (f *fixture) want(from fsm.Offset) (want []byte) {
	for _, b := range f.batches {
		if fsm.Offset(b.Header().NextOffset()) > from {
			want = append(want, b.Bytes()...)
		}
	}
	return want
}

// TestWhatIsPutIsRead: from any offset on, in steps of any size, through a cache that has little
// room, and with batches larger than a piece.
func TestWhatIsPutIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			cache int64
			piece int
			size  int
		}{{1 << 20, 4096, 300}, {5000, 2048, 300}, {1, 1, 300}, {1 << 30, 200 << 10, 40 << 10}} {
			f := newFixture(t, c.cache, c.piece)
			f.fill(3, 60, c.size)
			for _, most := range []int{0, 1, 1000, 1 << 20} {
				for _, from := range []fsm.Offset{0, 1, f.next / 3, f.next / 2, f.next - 1} {
					if !bytes.Equal(f.all(from, most), f.want(from)) {
						t.Fatalf("%+v: from %d in steps of %d: other records", c, from, most)
					}
				}
			}
			synctest.Wait()
			entries, err := f.fs.List("/data/tier")
			if err != nil {
				t.Fatal(err)
			}
			var sum int64
			for _, e := range entries {
				sum += e.Size
			}
			if sum > c.cache || sum != f.CacheSize() {
				t.Fatalf("%d bytes in files, %d are known, at most %d are wanted", sum, f.CacheSize(), c.cache)
			}
		}
	})
}

// TestADamagedCacheIsFetchedAgain: nobody is given what the disk made of a piece.
func TestADamagedCacheIsFetchedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 1<<20, 2048)
		f.fill(1, 100, 300)
		f.all(0, 1<<20)
		f.all(0, 1<<20) // what is read again is kept in files
		entries, err := f.fs.List("/data/tier")
		if err != nil || len(entries) <= memoryPieces {
			t.Fatal(len(entries), err)
		}
		for i, e := range entries {
			file, err := f.fs.Open("/data/tier/" + e.Name)
			if err != nil {
				t.Fatal(err)
			}
			switch i % 3 {
			case 0:
				err = file.Truncate(e.Size / 2)
			case 1:
				_, err = file.WriteAt(make([]byte, 200), e.Size/3)
			default:
				err = f.fs.Remove("/data/tier/" + e.Name)
			}
			if err = errors.Join(err, file.Close()); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(f.all(0, 1<<20), f.want(0)) {
			t.Fatal("other records")
		}
	})
}

// TestAStoreThatFailsCostsAMoment: slow, down, cut short or damaged, who reads is told to come
// again in half a second at most, and when the store is well again gets what was put there.
func TestAStoreThatFailsCostsAMoment(t *testing.T) {
	for name, break_ := range map[string]func(s *memStore){
		"down":    func(s *memStore) { s.fail = func(string, string) error { return errors.New("503") } },
		"slow":    func(s *memStore) { s.gate = make(chan struct{}) },
		"short":   func(s *memStore) { s.change = func(_ string, b []byte) []byte { return b[:len(b)/2] } },
		"damaged": func(s *memStore) { s.change = func(_ string, b []byte) []byte { b[len(b)/2] ^= 1; return b } },
		"empty":   func(s *memStore) { s.fail = func(string, string) error { return ErrNotFound } },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, 1<<20, 2048)
				f.fill(2, 60, 300)
				f.store.mu.Lock()
				break_(f.store)
				f.store.mu.Unlock()
				waited := time.Duration(0)
				for range 50 {
					began := time.Now()
					if _, err := f.read(0, 1000); !errors.Is(err, ErrLater) {
						t.Fatal(err)
					}
					if d := time.Since(began); d > 500*time.Millisecond {
						t.Fatalf("it took %v", d)
					} else {
						waited += d
					}
					time.Sleep(moment)
				}
				if _, err := f.read(0, 1000); name != "slow" && !errors.Is(err, ErrFails) {
					t.Errorf("nobody else would be asked: %v", err)
				}
				if waited > 10*time.Second {
					t.Errorf("readers have waited for %v in 50 tries", waited)
				}
				f.store.mu.Lock()
				gate := f.store.gate
				f.store.fail, f.store.change, f.store.gate = nil, nil, nil
				f.store.mu.Unlock()
				if gate != nil {
					close(gate)
				}
				if !bytes.Equal(f.all(0, 1<<20), f.want(0)) {
					t.Fatal("other records")
				}
			})
		})
	}
}

// TestAnUploadThatFailsNamesNothing: whichever request of it fails, and what is left in the store
// is found as nobody's.
func TestAnUploadThatFailsNamesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 1<<20, 2048)
		f.fill(1, 20, 300)
		kept := f.store.count("")
		failed := errors.New("503")
		for at := 1; ; at++ {
			n := 0
			f.store.fail = func(op, key string) error {
				if n++; n >= at {
					return failed
				}
				return nil
			}
			err := f.put(rand.New(rand.NewPCG(3, 4)), 20, 300)
			f.store.fail = nil
			if err == nil {
				break
			}
			if !errors.Is(err, failed) {
				t.Fatal(err)
			}
			// A leader of an earlier term leaves it alone, and so does one that knows it as named.
			named := func() (func(fsm.Offset, fsm.Term, uint64) bool, error) {
				return func(_ fsm.Offset, _ fsm.Term, id uint64) bool {
					return slices.ContainsFunc(f.segments, func(s fsm.TieredSegment) bool { return s.ID == id })
				}, nil
			}
			before := f.store.count("")
			if n, err := f.Orphans(context.Background(), testPartition, 0, named); n != 0 || err != nil {
				t.Fatal(n, err)
			}
			n, err = f.Orphans(context.Background(), testPartition, 1, named)
			if err != nil || n != before-kept || f.store.count("") != kept {
				t.Fatalf("%d orphans deleted of %d (%v), %d are left of %d", n, before-kept, err, f.store.count(""), kept)
			}
		}
		if !bytes.Equal(f.all(0, 1<<20), f.want(0)) {
			t.Fatal("other records")
		}
	})
}

// TestWhatComesBackIsCompared: an object that the store keeps otherwise is not named.
func TestWhatComesBackIsCompared(t *testing.T) {
	f := newFixture(t, 1<<20, 2048)
	if err := f.Claim(context.Background()); err != nil {
		t.Fatal(err)
	}
	f.store.change = func(_ string, b []byte) []byte { b[0] ^= 1; return b }
	if err := f.put(rand.New(rand.NewPCG(1, 2)), 3, 100); !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
}

// TestAStoreOfAnotherCluster: nothing is put there, and nothing deleted.
func TestAStoreOfAnotherCluster(t *testing.T) {
	f := newFixture(t, 1<<20, 2048)
	f.fill(1, 3, 100)
	all := f.store.count("")
	other := newFixture(t, 1<<20, 2048)
	other.Tier.Store, other.Tier.ClusterID = f.store, func() string { return "c2" }
	if err := other.put(rand.New(rand.NewPCG(1, 2)), 3, 100); !errors.Is(err, ErrForeign) {
		t.Error(err)
	}
	nobody := func() (func(fsm.Offset, fsm.Term, uint64) bool, error) {
		return func(fsm.Offset, fsm.Term, uint64) bool { return false }, nil
	}
	if _, err := other.Orphans(context.Background(), testPartition, 5, nobody); !errors.Is(err, ErrForeign) {
		t.Error(err)
	}
	if _, err := other.DropTopics(context.Background(), func(all map[fsm.TopicID]bool) (map[fsm.TopicID]bool, error) { return all, nil }); !errors.Is(err, ErrForeign) {
		t.Error(err)
	}
	if f.store.count("") != all {
		t.Error("something is gone")
	}
}

// TestAStoreThatTwoClustersClaimAtOnce: one that knows no conditions tells both that it is theirs.
// Within a minute one of them notices, and before it deletes anything.
func TestAStoreThatTwoClustersClaimAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 1<<20, 2048)
		f.fill(1, 3, 100)
		f.store.mu.Lock()
		f.store.objects[claimKey] = []byte(`{"format":1,"cluster_id":"c2"}`)
		f.store.mu.Unlock()
		all := func(all map[fsm.TopicID]bool) (map[fsm.TopicID]bool, error) { return all, nil }
		if n, err := f.DropTopics(context.Background(), all); n != 0 || !errors.Is(err, ErrForeign) {
			t.Error(n, err)
		}
		time.Sleep(claimLasts)
		if err := f.put(rand.New(rand.NewPCG(1, 2)), 3, 100); !errors.Is(err, ErrForeign) {
			t.Error(err)
		}
		if err := f.Delete(context.Background(), testPartition, fsm.GoneSegment{Term: 1, ID: f.segments[0].ID, Pieces: 1}); !errors.Is(err, ErrForeign) {
			t.Error(err)
		}
	})
}

// TestAnEmptyStoreInPlaceOfTheOldOne is not claimed by a node that knows of records in one, nor by
// who deletes.
func TestAnEmptyStoreInPlaceOfTheOldOne(t *testing.T) {
	f := newFixture(t, 1<<20, 2048)
	if _, err := f.DropTopics(context.Background(), func(all map[fsm.TopicID]bool) (map[fsm.TopicID]bool, error) { return all, nil }); err != nil {
		t.Error(err)
	}
	if n := f.store.count(""); n > 0 {
		t.Errorf("%d objects are there", n)
	}
	f.Tier.Used = func() bool { return true }
	if err := f.put(rand.New(rand.NewPCG(1, 2)), 3, 100); !errors.Is(err, ErrEmpty) || f.store.count("") > 0 {
		t.Error(err)
	}
	f.Tier.Used = func() bool { return false }
	f.fill(1, 3, 100)
	f.Tier.Used = func() bool { return true }
	f.fill(1, 3, 100)
}

// TestAStoreThatIsGoneDuringAnUpload: a folder that is not mounted any more is an empty one, which
// takes what is put there and gives it back. It is another one though it was seen to be ours a
// moment ago, and what it has is not named.
func TestAStoreThatIsGoneDuringAnUpload(t *testing.T) {
	for _, gone := range []string{".00000.batches", ".00001.batches", ".index"} {
		t.Run(gone, func(t *testing.T) {
			f := newFixture(t, 1<<20, 2048)
			f.fill(1, 30, 200)
			there := f.store.objects
			f.store.fail = func(op, key string) error {
				if op == "put" && strings.HasSuffix(key, gone) {
					f.store.objects = map[string][]byte{}
				}
				return nil
			}
			if err := f.put(rand.New(rand.NewPCG(1, 2)), 30, 200); !errors.Is(err, ErrEmpty) {
				t.Errorf("what is put beside the store: %v", err)
			}
			f.store.objects, f.store.fail = there, nil
			f.fill(1, 30, 200)
		})
	}
}

// TestAStoreThatHangsHoldsBoundedReaders: of thousands of objects that are asked for some hundred
// are waited for, once the store has not answered for a while nobody waits for any, and what comes
// meanwhile takes no memory.
func TestAStoreThatHangsHoldsBoundedReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 1<<20, 2048)
		f.store.mu.Lock()
		f.store.gate = make(chan struct{})
		gate := f.store.gate
		f.store.mu.Unlock()
		read := func(i int) (waited time.Duration) {
			began := time.Now()
			ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
			defer cancel()
			s := fsm.TieredSegment{First: 0, Next: 10, Term: 1, ID: uint64(i + 1), Pieces: 1, Bytes: 1, IndexBytes: 100}
			_, err := f.Tier.Read(ctx, testPartition, []fsm.TieredSegment{s}, 0, 1000, func(n int) []byte { return make([]byte, 0, n) })
			if !errors.Is(err, ErrLater) {
				t.Error(err)
			}
			return time.Since(began)
		}
		for i := range 4000 {
			go read(i)
		}
		synctest.Wait()
		f.mu.Lock()
		flying := len(f.flights)
		f.mu.Unlock()
		if flying != maxFlights {
			t.Errorf("%d objects are waited for", flying)
		}
		time.Sleep(slow + time.Millisecond)
		for i := range 4000 {
			if d := read(i); d > 0 {
				t.Fatalf("a reader has waited for %v", d)
			}
		}
		close(gate)
		synctest.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.flights) > 0 {
			t.Errorf("%d objects are still waited for", len(f.flights))
		}
	})
}

// TestAFullDiskGetsTheCachesRoom: and what is read comes from the store.
func TestAFullDiskGetsTheCachesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 1<<20, 2048)
		f.fill(1, 100, 300)
		f.all(0, 1<<20)
		f.all(0, 1<<20)
		if f.CacheSize() == 0 {
			t.Fatal("nothing is in the cache")
		}
		synctest.Wait() // what is fetched ahead is in no file that is being written
		f.Tier.Full = func() bool { return true }
		f.GiveUp()
		entries, err := f.fs.List("/data/tier")
		if err != nil || len(entries) > 0 || f.CacheSize() != 0 {
			t.Fatal(len(entries), f.CacheSize(), err)
		}
		if !bytes.Equal(f.all(0, 1<<20), f.want(0)) {
			t.Fatal("other records")
		}
		if f.CacheSize() != 0 {
			t.Errorf("%d bytes are in files", f.CacheSize())
		}
	})
}

// TestTopicsThatAreGone: all that they had goes, and of others nothing.
func TestTopicsThatAreGone(t *testing.T) {
	f := newFixture(t, 1<<20, 2048)
	f.fill(1, 30, 300)
	all := f.store.count("")
	for _, gone := range []bool{false, true} {
		n, err := f.DropTopics(context.Background(), func(all map[fsm.TopicID]bool) (map[fsm.TopicID]bool, error) {
			if len(all) != 1 || !all[testPartition.Topic] {
				t.Errorf("%v", all)
			}
			if !gone {
				return nil, nil
			}
			return all, nil
		})
		if want := map[bool]int{true: all - 1}[gone]; err != nil || n != want || f.store.count("") != all-want {
			t.Errorf("%d deleted, %v", n, err)
		}
	}
}

// TestTimesAndEpochs are found in the index.
// Who deletes what a topic had does so only as long as the store is its cluster's, and lists first.
func TestTopicsGoWithTheirListsFirst(t *testing.T) {
	f := newFixture(t, 1<<20, 2048)
	f.fill(1, 30, 300)
	ctx := context.Background()
	end := f.segments[len(f.segments)-1].Next
	l := &List{Term: 3, Index: 9, Start: f.segments[0].First, End: end, Segments: f.segments}
	if err := f.PutList(ctx, testPartition, l, nil); err != nil {
		t.Fatal(err)
	}
	drop := func(meanwhile func()) (int, error) {
		return f.DropTopics(ctx, func(all map[fsm.TopicID]bool) (map[fsm.TopicID]bool, error) {
			meanwhile()
			return all, nil
		})
	}
	f.store.fail = func(op, key string) error {
		if op == "delete" && !strings.HasSuffix(key, listEnd) {
			return errors.New("cut")
		}
		return nil
	}
	if n, err := drop(func() {}); err == nil || n != 1 {
		t.Errorf("%d deleted, %v", n, err)
	}
	if l, err := (Remains{f.store}).List(ctx, testPartition); l != nil || !errors.Is(err, ErrUnlisted) {
		t.Errorf("%+v, %v", l, err)
	}
	f.store.fail = nil
	successor := newFixture(t, 1<<20, 2048)
	successor.store, successor.Tier.Store = f.store, f.store
	successor.Tier.ClusterID = func() string { return f.ClusterID() + ".0000000a" }
	n, err := drop(func() {
		if err := successor.Claim(ctx); err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		f.claimed = time.Time{} // that was long ago
		f.mu.Unlock()
	})
	if !errors.Is(err, ErrForeign) || n != 0 {
		t.Errorf("%d deleted, %v", n, err)
	}
}

// A list that is not what was put is not the newest: the next one of the same name takes its place.
func TestADamagedListIsPutAgain(t *testing.T) {
	f := newFixture(t, 1<<20, 2048)
	f.fill(1, 30, 300)
	ctx := context.Background()
	l := &List{Term: 3, Index: 9, Start: f.segments[0].First, End: f.segments[len(f.segments)-1].Next, Segments: f.segments}
	f.store.objects[listKey(testPartition, l.name())] = []byte("what came there")
	if err := f.PutList(ctx, testPartition, l, nil); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	if err := f.PutList(ctx, testPartition, l, nil); err != nil {
		t.Error(err)
	}
	if got, err := (Remains{f.store}).List(ctx, testPartition); err != nil || got.name() != l.name() {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestTimesAndEpochs(t *testing.T) {
	f := newFixture(t, 1<<20, 2048)
	ctx := context.Background()
	u, err := f.Begin(ctx, testPartition, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	u.Epoch(3, 0)
	u.Epoch(3, 5)
	u.Epoch(4, 50)
	u.Epoch(5, 50)
	for i := range 100 {
		b := prototest.Batch(string(make([]byte, 200)))
		b.Stamp(int64(i), 3)
		if err := u.Add(ctx, b, fsm.Offset(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := u.Finish(ctx, 100, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for offset, want := range map[fsm.Offset]fsm.LeaderEpoch{0: 3, 49: 3, 50: 5, 99: 5} {
		if e, err := f.EpochAt(ctx, testPartition, s, offset); err != nil || e != want {
			t.Errorf("offset %d is of epoch %d (%v), want %d", offset, e, err, want)
		}
	}
	if from, err := f.Since(ctx, testPartition, s, s.MaxTime); err != nil || from != 0 {
		t.Error(from, err)
	}
	if _, err := f.Since(ctx, testPartition, s, s.MaxTime+1); !errors.Is(err, ErrNoneThere) {
		t.Error(err)
	}
}

// TestNames: what no program put there is nobody's to delete.
func TestNames(t *testing.T) {
	n := name{33, 7, 1 << 60}
	for _, key := range []string{indexKey(testPartition, n), pieceKey(testPartition, n, 12), pieceKey(testPartition, n, 123456)} {
		if got, ok := parseName(key[len(partitionDir(testPartition)):]); !ok || got != n {
			t.Errorf("%s is %+v, %v", key, got, ok)
		}
		if id, ok := topicOf(key); !ok || id != testPartition.Topic {
			t.Errorf("%s is of topic %v, %v", key, id, ok)
		}
	}
	for _, text := range []string{"", "x", "a.index", n.String(), n.String() + ".batches", n.String() + ".1.batches", n.String() + ".index.tmp", "-" + n.String()[1:] + ".index"} {
		if _, ok := parseName(text); ok {
			t.Errorf("%q is a name", text)
		}
	}
}

// FuzzParseIndex: any bytes may lie in a store.
func FuzzParseIndex(f *testing.F) {
	x := index{
		first: 10, next: 30, pieces: []piece{{next: 20, bytes: 100, maxTime: 5}, {next: 28, bytes: 7, maxTime: noTime}},
		epochs: []epoch{{1, 3}, {2, 15}}, aborted: []fsm.AbortedTransaction{{ProducerID: 4, First: 2, Last: 11, LastStable: 2}},
	}
	f.Add(x.encode())
	f.Add([]byte(indexMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := parseIndex(data)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
			return
		}
		again, err := parseIndex(x.encode())
		if err != nil || !bytes.Equal(again.encode(), x.encode()) {
			t.Fatalf("what was read is refused, or differs: %v", err)
		}
		for _, at := range []fsm.Offset{x.first, x.next - 1} {
			_ = x.epochAt(at)
			_ = x.at(at)
			_ = x.concerning(at, at+1)
		}
	})
}

// TestARecoveredClusterTakesTheStore: what became of a cluster goes on with its store, and what is
// left of the one before, or became of it another time, changes nothing there any more.
func TestARecoveredClusterTakesTheStore(t *testing.T) {
	f := newFixture(t, 1<<20, 2048)
	f.fill(1, 3, 100)
	is := func(id string) *fixture {
		other := newFixture(t, 1<<20, 2048)
		other.store, other.Tier.Store = f.store, f.store
		other.Tier.ClusterID, other.Tier.Used = func() string { return id }, func() bool { return true }
		return other
	}
	before := f.ClusterID()
	for i, id := range []string{before + ".0000000a", before + ".0000000a.0000000b.0000000c"} {
		if err := is(id).put(rand.New(rand.NewPCG(1, uint64(i))), 3, 100); err != nil {
			t.Fatal(err)
		}
		if got, err := (Remains{f.store}).Owner(context.Background()); err != nil || got != id {
			t.Fatalf("%s, %v", got, err)
		}
	}
	all := f.store.count("")
	nobody := func() (func(fsm.Offset, fsm.Term, uint64) bool, error) {
		return func(fsm.Offset, fsm.Term, uint64) bool { return false }, nil
	}
	for _, id := range []string{before, before + ".0000000a", before + ".0000000d", before + "0", before + ".0000000a.0000000b"} {
		old := is(id)
		if err := old.put(rand.New(rand.NewPCG(1, 2)), 3, 100); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", id, err)
		}
		if _, err := old.Orphans(context.Background(), testPartition, 99, nobody); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", id, err)
		}
		if err := old.Delete(context.Background(), testPartition, fsm.GoneSegment{}); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if now := f.store.count(""); now != all {
		t.Errorf("%d objects were there, and are %d", all, now)
	}
}

// TestTheNewestListCounts: of a higher term, or in that with a higher index, whatever is left of
// others and however they were put there; and one that is damaged does not.
func TestTheNewestListCounts(t *testing.T) {
	f := newFixture(t, 1<<20, 2048)
	r, ctx := Remains{f.store}, context.Background()
	lists := func() (n int) {
		for key := range f.store.objects {
			if strings.HasSuffix(key, listEnd) {
				n++
			}
		}
		return n
	}
	if l, err := r.List(ctx, testPartition); l != nil || err != nil {
		t.Fatal(l, err)
	}
	f.fill(1, 20, 300)
	if _, err := r.List(ctx, testPartition); !errors.Is(err, ErrUnlisted) {
		t.Fatal(err)
	}
	end := f.segments[len(f.segments)-1].Next
	list := func(term fsm.Term, index fsm.Index) *List {
		return &List{Term: term, Index: index, Start: f.segments[0].First, End: end + 5, Segments: f.segments}
	}
	var last *List
	for _, l := range []*List{list(3, 9), list(3, 12), list(4, 2)} {
		if last != nil && last.Term != l.Term {
			last = nil
		}
		if err := f.PutList(ctx, testPartition, l, last); err != nil {
			t.Fatal(err)
		}
		last = l
		if n := lists(); n != 1 {
			t.Errorf("%d lists", n)
		}
	}
	if err := f.PutList(ctx, testPartition, list(3, 99), nil); err != nil { // by one that is late
		t.Fatal(err)
	}
	got, err := r.List(ctx, testPartition)
	if err != nil || got.Term != 4 || got.Index != 2 || !slices.EqualFunc(got.Segments, f.segments, func(a, b fsm.TieredSegment) bool {
		a.Named, b.Named = 0, 0
		return a == b
	}) {
		t.Fatalf("%+v, %v", got, err)
	}
	next := f.segments[0].First
	for _, s := range got.Segments {
		pieces, _, err := r.Pieces(ctx, testPartition, s)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pieces {
			if data := f.store.objects[p.Key]; p.First != next || !same(data, p.Bytes, p.Sum) {
				t.Errorf("%+v", p)
			}
			next = p.Next
		}
	}
	if next != end {
		t.Errorf("the pieces end at %d, the segments at %d", next, end)
	}
	key := listKey(testPartition, got.name())
	whole := f.store.objects[key]
	for at := range whole {
		bad := bytes.Clone(whole)
		bad[at] ^= 1
		f.store.objects[key] = bad
		if _, err := r.List(ctx, testPartition); !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d is another: %v", at, err)
		}
		if at%7 == 0 {
			f.store.objects[key] = whole[:at]
			if _, err := r.List(ctx, testPartition); !errors.Is(err, ErrDamaged) {
				t.Fatalf("cut at %d: %v", at, err)
			}
		}
	}
	f.store.objects[key] = whole
	if err := f.DropLists(ctx, testPartition, 3); err != nil {
		t.Fatal(err)
	}
	if got, err := r.List(ctx, testPartition); err != nil || got.Term != 4 {
		t.Errorf("%+v, %v", got, err)
	}
	if err := f.DropLists(ctx, testPartition, 4); err != nil || lists() != 0 {
		t.Errorf("%d lists are left, %v", lists(), err)
	}
}

// endless lists a key again and again.
type endless struct {
	*memStore
	key string
}

func (s endless) List(_ context.Context, prefix string, each func(string) error) error {
	for {
		if err := each(prefix + s.key); err != nil {
			return err
		}
	}
}

// TestAListThatDoesNotEnd: who looks at a store that nobody vouches for comes to an end.
func TestAListThatDoesNotEnd(t *testing.T) {
	r := Remains{endless{newMemStore(), "x"}}
	if _, err := r.List(context.Background(), testPartition); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "keys below") {
		t.Errorf("%v", err)
	}
}

// TestTooManyLists: which of them is the newest cannot be known where not all are looked at.
func TestTooManyLists(t *testing.T) {
	store := newMemStore()
	for i := range maxOrphans {
		store.objects[listKey(testPartition, name{0, 1, uint64(i + 1)})] = nil
	}
	if _, err := (Remains{store}).List(context.Background(), testPartition); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "lists below") {
		t.Errorf("%v", err)
	}
}

// TestHolds: a store has a segment if it has all its objects, as they were put there; no piece is
// read for it.
func TestHolds(t *testing.T) {
	f := newFixture(t, 1<<20, 500)
	ctx := context.Background()
	f.fill(1, 50, 100)
	s := f.segments[0]
	if err := f.Holds(ctx, testPartition, s); err != nil {
		t.Fatal(err)
	}
	if s.Pieces < 2 {
		t.Fatalf("%d pieces", s.Pieces)
	}
	f.store.gets, f.store.sizes = 0, 0
	if err := f.Holds(ctx, testPartition, s); err != nil || f.store.gets != 1 || f.store.sizes != int(s.Pieces) {
		t.Errorf("%v after %d objects that were read and %d of %d that were asked for", err, f.store.gets, f.store.sizes, s.Pieces)
	}
	broken := errors.New("503")
	for what, test := range map[string]struct {
		spoil func(key string)
		want  error
	}{
		"not there":   {func(key string) { delete(f.store.objects, key) }, ErrNotFound},
		"cut":         {func(key string) { f.store.objects[key] = f.store.objects[key][1:] }, ErrDamaged},
		"not to tell": {func(key string) { f.store.fail = func(_, k string) error { return map[string]error{key: broken}[k] } }, broken},
	} {
		for _, key := range []string{indexKey(testPartition, nameOf(s)), pieceKey(testPartition, nameOf(s), 0), pieceKey(testPartition, nameOf(s), int(s.Pieces)-1)} {
			was := f.store.objects[key]
			test.spoil(key)
			if err := f.Holds(ctx, testPartition, s); !errors.Is(err, test.want) {
				t.Errorf("%s is %s: %v", key, what, err)
			}
			f.store.objects[key], f.store.fail = was, nil
		}
	}
}

// TestALostAnswer: an object that is there is there, whatever its upload was told, and counts.
func TestALostAnswer(t *testing.T) {
	f := newFixture(t, 1<<20, 500)
	f.store.lost = func(string) error { return errors.New("the connection is cut") }
	if err := f.Claim(context.Background()); err == nil {
		t.Error("who it belongs to is not put like a segment")
	}
	f.fill(1, 50, 100)
	all := int64(0)
	for key, data := range f.store.objects {
		if strings.HasPrefix(key, segmentsDir) {
			all += int64(len(data))
		}
	}
	if got := f.Uploaded.Load(); got != all || all < f.segments[0].Bytes {
		t.Errorf("%d bytes are counted of %d", got, all)
	}
	// What cannot be read back was put there, too.
	f.store.lost, f.store.fail = nil, func(op, key string) error {
		if op == "get" && strings.HasSuffix(key, pieceEnd) {
			return errors.New("503")
		}
		return nil
	}
	if err := f.put(rand.New(rand.NewPCG(3, 4)), 1, 100); err == nil {
		t.Fatal("a segment is named that was not read back")
	}
	if got := f.Uploaded.Load(); got <= all {
		t.Errorf("%d bytes are counted, as before", got)
	}
}
