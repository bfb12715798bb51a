package replica

import (
	"math"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
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
