package replica

import (
	"math"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/fsm"
)

// The age of a segment, whatever its records say of their time.
func TestASegmentsAge(t *testing.T) {
	written := time.UnixMilli(1_000_000)
	for _, test := range []struct {
		newest int64
		write  time.Time
		ahead  int64
		want   int64
	}{
		{900_000, written, 5000, 900_000},
		{1_004_000, written, 5000, 1_004_000},
		{1_006_000, written, 5000, 1_005_000},
		{1_000_000_000, written, 5000, 1_005_000},
		{1_000_000_000, written, 0, 1_000_000},
		{1_000_000_000, written, math.MaxInt64, 1_000_000_000}, // the topic wants it so
		{0, written, 5000, 1_000_000},                          // no record has a time
		{-1, written, 5000, 1_000_000},
		{900_000, time.Time{}, 5000, 900_000},
		{0, time.Time{}, 5000, 0},
	} {
		got := retention{ahead: test.ahead}.newest(raftlog.SegmentInfo{MaxTime: test.newest, LastWrite: test.write})
		if got != test.want {
			t.Errorf("newest %d, written %v, %d ahead: %d, want %d", test.newest, test.write, test.ahead, got, test.want)
		}
	}
}

// What replicas need not keep: whole segments from the oldest on, that are in the tier and beyond a
// limit.
func TestLocalLimit(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	segment := func(start, bytes, age int64) raftlog.SegmentInfo {
		return raftlog.SegmentInfo{Start: start, Bytes: bytes, LastWrite: now.Add(-time.Duration(age) * time.Millisecond)}
	}
	segments := []raftlog.SegmentInfo{segment(0, 100, 400), segment(10, 100, 300), segment(20, 100, 200), segment(30, 50, 0)}
	segments[3].Active = true
	for _, test := range []struct {
		tiered    fsm.Offset
		ms, bytes int64
		want      fsm.Offset
	}{
		{30, -1, -1, 0},
		{30, -1, 0, 30},
		{30, -1, 150, 20},
		{30, -1, 249, 10},
		{30, -1, 250, 10},
		{30, -1, 251, 0},
		{30, -1, 350, 0},
		{30, 250, -1, 20},
		{30, 0, -1, 30},
		{30, 250, 50, 30},
		{20, -1, 0, 20},
		{19, -1, 0, 10}, // another leader's segments ended elsewhere
		{9, 0, 0, 0},
	} {
		if got := localLimit(segments, test.tiered, retention{ms: test.ms, bytes: test.bytes}, now); got != test.want {
			t.Errorf("%+v: %d", test, got)
		}
	}
	segments[2].Start = -1 // not known yet
	if got := localLimit(segments, 30, retention{ms: 0, bytes: 0}, now); got != 10 {
		t.Errorf("up to a segment whose offset is not known: %d", got)
	}
}
