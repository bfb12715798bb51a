package raftlog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
)

// filled gives a log with entries 1 to n of some hundred bytes, all applied, in
// segments of 2000 bytes.
func filled(t *testing.T, n uint64) (dir string, log *PartitionLog, stop func()) {
	t.Helper()
	dir = t.TempDir()
	st, err := OpenStore(dir, Options{ReserveBytes: -1, JournalBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	l, err := st.OpenLog(filepath.Join(st.Groups(), "g"), LogOptions{
		Group: "g", Span: testSpan, Trailing: 3, Fresh: true, SegmentBytes: func() int64 { return 2000 },
	})
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		if err := errors.Join(l.Close(), st.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	next := int64(0)
	for i := uint64(1); i <= n; i++ {
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
	return dir, l, stop
}

func unpaced(int) error { return nil }

func TestScrubFindsAnyFlippedByte(t *testing.T) {
	_, l, _ := filled(t, 40)
	read := 0
	if err := l.Scrub(func(n int) error { read += n; return nil }); err != nil || read < 30*340 {
		t.Fatalf("a good log: %v, %d bytes read", err, read)
	}
	segments := l.Segments()
	path := l.segments[2].path
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	missed := 0
	for at := range data {
		f.WriteAt([]byte{data[at] ^ 4}, int64(at))
		if err := l.Scrub(unpaced); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
			// what fills an entry up to a multiple of 8 is nobody's, as is a segment's name for the
			// journal
			missed++
			if missed > 8*int(segments[2].Last-segments[2].Base+1) {
				t.Fatalf("byte %d of %d: %v", at, len(data), err)
			}
		}
		f.WriteAt([]byte{data[at]}, int64(at))
	}
	if err := l.Scrub(unpaced); err != nil {
		t.Fatalf("good again: %v", err)
	}
}

func TestScrubLooksOnlyAtWhatIsCompleteAndStops(t *testing.T) {
	_, l, _ := filled(t, 40)
	last := l.segments[len(l.segments)-1]
	f, err := os.OpenFile(last.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte{0xff}, segmentHeader+50)
	f.Close()
	if err := l.Scrub(unpaced); err != nil {
		t.Errorf("the segment that is written to was read: %v", err)
	}
	n := 0
	err = l.Scrub(func(int) error {
		if n++; n > 3 {
			return context.Canceled
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrDamaged) || n != 4 {
		t.Errorf("stopped: %v after %d", err, n)
	}
}
