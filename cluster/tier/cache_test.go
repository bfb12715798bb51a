package tier

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/trimaran-io/trimaran/fsm"
)

// TestWhatIsReadOnceIsNotWritten: a reader from start to end costs the disk nothing. What is read
// again gets a file, and is not fetched a third time.
func TestWhatIsReadOnceIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 1<<20, 2048)
		f.fill(3, 100, 300)
		for _, want := range []struct{ fetched, files bool }{{true, false}, {true, true}, {false, true}} {
			gets := f.store.gets
			if !bytes.Equal(f.all(0, 700), f.want(0)) {
				t.Fatal("other records")
			}
			synctest.Wait()
			if fetched := f.store.gets > gets; fetched != want.fetched || f.CacheSize() > 0 != want.files {
				t.Fatalf("%+v: fetched %d, %d bytes in files", want, f.store.gets-gets, f.CacheSize())
			}
		}
	})
}

// TestWhatTwoReadOnceIsNotWritten: as little as of one, though both read beside each other.
func TestWhatTwoReadOnceIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 1<<20, 2048)
		f.fill(2, 100, 300)
		both := f.segments
		ats := []fsm.Offset{both[0].First, both[1].First}
		for left := 2; left > 0; {
			left = 0
			for i, s := range both {
				if ats[i] >= s.Next {
					continue
				}
				left++
				f.segments = both[i : i+1]
				r, err := f.read(ats[i], 700)
				if err != nil {
					t.Fatal(err)
				}
				ats[i] = r.End
				synctest.Wait()
			}
		}
		if n := f.cache.files.Load(); n != 0 {
			t.Errorf("%d files were written", n)
		}
	})
}

// TestASlowerReaderNeedsNoSecondFetch: a piece that one has read to its end is kept for another
// that has begun it, and is fetched once.
func TestASlowerReaderNeedsNoSecondFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 1<<20, 2048)
		f.fill(1, 100, 300)
		s := f.segments[0]
		first, fetched := pieceKey(testPartition, nameOf(s), 0), 0
		f.store.fail = func(op, key string) error {
			if op == "get" && key == first {
				fetched++
			}
			return nil
		}
		read := func(at fsm.Offset, most int) fsm.Offset {
			t.Helper()
			r, err := f.read(at, most)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			return r.End
		}
		begun := read(s.First, 1<<20)
		// It asks once more of the first piece, for an offset behind its last batch.
		fast := read(begun, 1<<20)
		slow := read(s.First, 1)
		if slow >= begun || s.Pieces <= 2*memoryPieces {
			t.Fatalf("at %d and %d, of %d pieces", slow, fast, s.Pieces)
		}
		for fast < s.Next {
			fast = read(fast, 1<<20)
		}
		for slow < begun {
			slow = read(slow, 1)
		}
		if fetched != 1 {
			t.Errorf("it was fetched %d times", fetched)
		}
	})
}

// TestWhatWasFetchedSinceStays: two find the file of a piece damaged, and the second has not seen
// that the first has fetched it again.
func TestWhatWasFetchedSinceStays(t *testing.T) {
	c := newCache(nil, "", 0)
	c.put("a", []byte("old"), nil, false)
	old, _ := c.get("a")
	if c.drop("a", old); c.has("a") {
		t.Fatal("it was not taken out")
	}
	c.put("a", []byte("new"), nil, false)
	c.drop("a", old)
	if _, data := c.get("a"); string(data) != "new" {
		t.Errorf("%q is there", data)
	}
	if c.drop("a", nil); c.has("a") {
		t.Error("it is there though its object is deleted")
	}
}

// TestMemoryIsBoundedByBytes: pieces that are larger than usual are fewer.
func TestMemoryIsBoundedByBytes(t *testing.T) {
	c := newCache(nil, "", 0)
	for i := range memoryPieces {
		c.put(fmt.Sprint(i), make([]byte, memoryBytes/4+1), nil, false)
		if n := c.memoryLocked(); n > memoryBytes {
			t.Fatalf("%d bytes are in memory", n)
		}
	}
	if c.put("huge", make([]byte, memoryBytes+1), nil, false); !c.has("huge") || len(c.inMemory) != 1 {
		t.Fatal("one that is larger by itself is not kept alone")
	}
}

// TestAScanLargerThanTheCacheIsNotWritten: what comes again only after more than files have room
// for would be gone from them.
func TestAScanLargerThanTheCacheIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 20000, 2048)
		f.fill(1, 200, 300)
		for range 4 {
			if f.all(0, 700); f.cache.files.Load() != 0 {
				t.Fatalf("%d files were written", f.cache.files.Load())
			}
		}
	})
}

// TestWhatIsAheadIsFetchedOnce: of more readers than memory has room for each reads what was
// fetched ahead for it.
func TestWhatIsAheadIsFetchedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 1<<20, 2048)
		f.fill(10, 60, 300)
		const readers = 10
		ats := make([]fsm.Offset, readers)
		pieces, gets := 0, f.store.gets
		for i, s := range f.segments {
			ats[i], pieces = s.First, pieces+int(s.Pieces)
		}
		for left := readers; left > 0; {
			left = 0
			for i, s := range f.segments {
				if ats[i] >= s.Next {
					continue
				}
				left++
				r, err := f.read(ats[i], 700)
				if err != nil {
					t.Fatal(err)
				}
				ats[i] = r.End
				synctest.Wait()
			}
		}
		// Ahead of who is at a segment's end is the beginning of another, which was read long ago.
		if got, most := f.store.gets-gets, pieces+len(f.segments)+readers*readAhead; got > most {
			t.Fatalf("%d objects were fetched of %d pieces", got, pieces)
		}
	})
}

// TestPiecesThatGoAreBounded: by their bytes, and by how many there are.
func TestPiecesThatGoAreBounded(t *testing.T) {
	c := newCache(nil, "", 1000)
	for i := range 100 {
		c.gone.add(fmt.Sprint(i), 100, c.limit)
		c.gone.add("again", 100, c.limit)
	}
	if c.gone.bytes != 1000 || len(c.gone.by) != 10 || c.gone.order.Len() != 10 || !c.gone.take("99") || c.gone.take("99") || c.gone.take("90") {
		t.Fatal(c.gone.bytes, len(c.gone.by), c.gone.order.Len())
	}
	for i := range 2 * maxGone {
		c.gone.add(fmt.Sprint(i), 0, c.limit)
	}
	if len(c.gone.by) != maxGone {
		t.Fatal(len(c.gone.by))
	}
	c.gone.add("too large", 1001, c.limit)
	if c.gone.take("too large") || c.gone.bytes != 0 || len(c.gone.by) != 0 {
		t.Fatal(c.gone.bytes, len(c.gone.by))
	}
}
