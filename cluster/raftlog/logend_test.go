package raftlog

import (
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// Where a log ends is told of what a member could start with, and of nothing else. TestCrashes
// holds that against what opening a log gives.
func TestTheEndOfALogThatIsDamagedIsNotTold(t *testing.T) {
	const dir = "/data/partitions/g/"
	for name, test := range map[string]struct {
		hurt func(files map[string][]byte)
		want error
	}{
		"sound":       {func(map[string][]byte) {}, nil},
		"no manifest": {func(files map[string][]byte) { delete(files, dir+"manifest") }, ErrLost},
		"suspected":   {func(files map[string][]byte) { files[dir+"damaged"] = []byte("the journal was") }, ErrDamaged},
		"behind the snapshot": {func(files map[string][]byte) {
			files[dir+"00000000000000000029-1.log"][segmentHeader+100] ^= 1
		}, ErrDamaged},
		"in front of it": {func(files map[string][]byte) {
			files[dir+"00000000000000000001-1.log"][segmentHeader+100] ^= 1
		}, nil},
		"a segment is gone": {func(files map[string][]byte) { delete(files, dir+"00000000000000000029-1.log") }, ErrDamaged},
	} {
		files := format1(t)
		test.hurt(files)
		a, err := OpenArchiveOn(fromFiles(t, files), "/data")
		if err != nil {
			t.Fatal(err)
		}
		read := 0
		end, err := a.End("g", testSpan, func(*raft.Log) error { read++; return nil })
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if err == nil && (end.Index != 40 || end.Term != 1 || end.Snapshot != 20 || read != 20) {
			t.Errorf("%s: %+v, and %d entries were read", name, end, read)
		}
	}
	if _, err := decodeConfiguration([]byte{0xc1}); err == nil || !strings.Contains(err.Error(), "no configuration") {
		t.Error("what is no configuration was read as one:", err)
	}
}

// A log that has nothing behind its snapshot tells when its last records came: an idle partition is
// in its snapshot after minutes, and who looks at it asks whether the node was there to the end.
func TestTheEndOfALogThatIsAllInItsSnapshotHasATime(t *testing.T) {
	dir, l, stop := filled(t, 30)
	if err := snapshotAt(l, 30); err != nil {
		t.Fatal(err)
	}
	stop()
	a, err := OpenArchive(dir)
	if err != nil {
		t.Fatal(err)
	}
	end, err := a.End("g", testSpan, nil)
	if err != nil || end.Index != 30 || end.Snapshot != 30 || end.At.UnixMilli() != 30 {
		t.Errorf("%+v, %v; want entry 30, which was written at 30 ms", end, err)
	}
}
