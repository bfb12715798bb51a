package raftlog

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// archived gives the folder of a stopped store with a log of n entries, the
// snapshot at entry n-10.
func archived(t *testing.T, n uint64) (dir string) {
	t.Helper()
	dir, l, stop := filled(t, n)
	if err := snapshotAt(l, n); err != nil {
		t.Fatal(err)
	}
	next := l.next
	for i := n + 1; i <= n+10; i++ {
		entry := &raft.Log{Index: i, Term: 1, Type: raft.LogCommand, Data: fmt.Appendf(nil, "entry %0300d", i)}
		if err := l.StoreLog(entry); err != nil {
			t.Fatal(err)
		}
		if l.Crosses(i) {
			l.Cross(i, nil)
		}
		next += int64(len(entry.Data))
		l.Applied(i, next, int64(i), int64(i))
	}
	stop()
	return dir
}

func snapshotAt(l *PartitionLog, index uint64) error {
	sink, err := l.Snapshots().Create(1, index, 1, raft.Configuration{}, 1, nil)
	if err != nil {
		return err
	}
	sink.(*Sink).SetNext(l.next)
	if _, err := sink.Write([]byte("state")); err != nil {
		return err
	}
	return sink.Close()
}

// sumsOf gives a hash of every file below dir, and of the names.
func sumsOf(t *testing.T, dir string) (sums string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		sums += fmt.Sprintf("%s %x\n", path, sha256.Sum256(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

func verified(t *testing.T, dir string) (Verified, []error) {
	t.Helper()
	before := sumsOf(t, dir)
	a, err := OpenArchive(dir)
	if err != nil {
		t.Fatal(err)
	}
	if a.JournalErr != nil {
		t.Error(a.JournalErr)
	}
	found, bad := a.Verify("g", testSpan, nil, nil)
	if sumsOf(t, dir) != before {
		t.Error("something was changed")
	}
	return found, bad
}

func TestVerifyAcceptsWhatTheLogWrites(t *testing.T) {
	dir := archived(t, 40)
	found, bad := verified(t, dir)
	if len(bad) > 0 || found.Entries != 50 || found.First != 1 || found.Last != 50 || found.Start != 0 || found.Next != 50*306 || found.Torn != 0 {
		t.Errorf("%+v, %v", found, bad)
	}
	a, err := OpenArchive(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := a.Describe("g")
	if err != nil || l.Snapshot == nil || l.Snapshot.Index != 40 || len(l.Segments) != found.Segments {
		t.Fatalf("%+v, %v", l, err)
	}
	last := uint64(0)
	for _, s := range l.Segments {
		err := a.Entries("g", s.Base, func(pos int64, entry *raft.Log) error {
			if entry.Index != last+1 || pos < segmentHeader {
				t.Errorf("entry %d at %d behind %d", entry.Index, pos, last)
			}
			last = entry.Index
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if last != 50 {
		t.Errorf("the entries end with %d", last)
	}
}

// A journal that is to be played back counts, though the segments do not have it.
func TestVerifySeesWhatTheJournalHas(t *testing.T) {
	dir := archived(t, 40)
	segments, _ := filepath.Glob(filepath.Join(dir, "partitions/g/*.log"))
	path := segments[len(segments)-1]
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	clear(data[segmentHeader+100:]) // as after a power loss
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if found, bad := verified(t, dir); len(bad) > 0 || found.Last != 50 {
		t.Errorf("%+v, %v", found, bad)
	}
	if err := os.RemoveAll(filepath.Join(dir, "journal")); err != nil {
		t.Fatal(err)
	}
	if found, bad := verified(t, dir); found.Last == 50 || len(bad) != 1 || !strings.Contains(bad[0].Error(), "acknowledged up to entry 50") {
		t.Errorf("stopped in good order, and without the journal: %+v, %v", found, bad)
	}
	if err := os.Remove(filepath.Join(dir, closedName)); err != nil {
		t.Fatal(err)
	}
	if found, bad := verified(t, dir); found.Last == 50 || len(bad) > 0 || found.Torn == 0 {
		t.Errorf("without the journal: %+v, %v", found, bad)
	}
}

func TestVerifyTellsWhatIsWrong(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(t *testing.T, dir string, segments, indexes []string)
		want  string
	}{
		"a flipped byte": {func(t *testing.T, _ string, segments, _ []string) { flipAt(t, segments[1], 500) }, "CRC"},
		"a flipped byte of a later append": {func(t *testing.T, _ string, segments, _ []string) {
			flipAt(t, segments[len(segments)-1], segmentHeader+50)
		}, "acknowledged"},
		"a segment is gone":   {func(t *testing.T, _ string, segments, _ []string) { os.Remove(segments[1]) }, "missing"},
		"a segment is short":  {func(t *testing.T, _ string, segments, _ []string) { os.Truncate(segments[1], 700) }, "has 700 bytes"},
		"the first is gone":   {func(t *testing.T, _ string, segments, _ []string) { os.Remove(segments[0]) }, "missing"},
		"the manifest":        {func(t *testing.T, dir string, _, _ []string) { flipAt(t, dir+"/manifest", 60) }, "manifest"},
		"no manifest":         {func(t *testing.T, dir string, _, _ []string) { os.Remove(dir + "/manifest") }, "no manifest"},
		"an index":            {func(t *testing.T, _ string, _, indexes []string) { flipAt(t, indexes[0], indexHeader+3) }, "its points give"},
		"an index is gone":    {func(t *testing.T, _ string, _, indexes []string) { os.Remove(indexes[1]) }, "index"},
		"a segment's head":    {func(t *testing.T, _ string, segments, _ []string) { flipAt(t, segments[0], 20) }, "good header"},
		"a segment of others": {func(t *testing.T, _ string, segments, _ []string) { swap(t, segments[0], segments[1]) }, "says that it is"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := archived(t, 40)
			if err := os.RemoveAll(filepath.Join(dir, "journal")); err != nil {
				t.Fatal(err)
			}
			group := filepath.Join(dir, "partitions/g")
			segments, _ := filepath.Glob(group + "/*.log")
			indexes, _ := filepath.Glob(group + "/*.idx")
			test.spoil(t, group, segments, indexes)
			_, bad := verified(t, dir)
			if text := fmt.Sprint(bad); len(bad) == 0 || !strings.Contains(text, test.want) {
				t.Errorf("got %v, want something of %q", text, test.want)
			}
		})
	}
}

func flipAt(t *testing.T, path string, at int64) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[at] ^= 4
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func swap(t *testing.T, a, b string) {
	t.Helper()
	for _, step := range [][2]string{{a, a + "x"}, {b, a}, {a + "x", b}} {
		if err := os.Rename(step[0], step[1]); err != nil {
			t.Fatal(err)
		}
	}
}

// The times of an index and of a manifest bound those of the records from above. Later ones, as snapshots had that were taken
// while more was applied, cost a lookup some reading; earlier ones hide records.
func TestVerifyTakesTimesForUpperBounds(t *testing.T) {
	for name, test := range map[string]struct {
		point   point
		latest  int64
		maxTime int64
		want    string // "": nothing is wrong
	}{
		"the very time":    {point{5, 64, 7, 30}, 20, 30, ""},
		"a later one":      {point{5, 64, 7, 90}, 20, 30, ""},
		"none, and none":   {point{5, 64, 7, noTime}, noTime, noTime, ""},
		"an earlier one":   {point{5, 64, 7, 29}, 20, 30, "s: its index at position 64: largest time 29 in front of entry 5, the segment has 30"},
		"none":             {point{5, 64, 7, noTime}, noTime, 30, "s: its index at position 64: largest time none in front of entry 5, the segment has 30"},
		"it goes back":     {point{5, 64, 7, 40}, 50, 30, "s: its index at position 64: largest time 40 in front of entry 5, the point before has 50"},
		"another offset":   {point{5, 64, 8, 30}, 20, 30, "s: its index at position 64: offset 8 in front of entry 5, the segment has 7"},
		"of another entry": {point{6, 64, 7, 30}, 20, 30, "s: its index at position 64: entry 6, the segment has entry 5 there"},
	} {
		v := &verifier{recovery: &recovery{home: &home{opts: LogOptions{Span: testSpan}}}, next: 7, maxTime: test.maxTime}
		v.point("s", test.point, 5, test.latest)
		got := ""
		for _, bad := range v.bad {
			got += bad.Error()
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// A manifest that hides records from a lookup by time is wrong.
func TestVerifyComparesTheManifestsTimes(t *testing.T) {
	for _, shift := range []int64{-1, 0, 1000} {
		dir, l, stop := filled(t, 40)
		l.view.mu.Lock()
		for _, s := range l.segments {
			s.maxTime += shift
		}
		l.view.mu.Unlock()
		if err := snapshotAt(l, 40); err != nil {
			t.Fatal(err)
		}
		stop()
		if _, bad := verified(t, dir); (len(bad) > 0) != (shift < 0) || shift < 0 && !strings.Contains(bad[0].Error(), "as the largest time of its records, one of them has") {
			t.Errorf("times %+d ms off: %v", shift, bad)
		}
	}
}
