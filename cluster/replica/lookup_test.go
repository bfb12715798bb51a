package replica

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/trimaran-io/trimaran/fsm"
)

// TestWhereAnEpochEndsIsNarrowedDown: to what has it, and to one segment of the tier at most.
func TestWhereAnEpochEndsIsNarrowedDown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		epochs := []fsm.LeaderEpoch{1} // of each offset
		for range rapid.IntRange(1, 60).Draw(t, "offsets") {
			epochs = append(epochs, epochs[len(epochs)-1]+fsm.LeaderEpoch(rapid.IntRange(0, 9).Draw(t, "more")/7))
		}
		next := fsm.Offset(len(epochs))
		var segments []fsm.TieredSegment
		for at := fsm.Offset(0); at < next && rapid.IntRange(0, 5).Draw(t, "end") > 0; {
			to := min(at+fsm.Offset(rapid.IntRange(1, 12).Draw(t, "segment")), next)
			segments = append(segments, fsm.TieredSegment{First: at, Next: to, FirstEpoch: epochs[at], LastEpoch: epochs[to-1]})
			at = to
		}
		start := fsm.Offset(0)
		if len(segments) > 0 {
			start = fsm.Offset(rapid.Int64Range(0, int64(segments[0].Next-1)).Draw(t, "start"))
		}
		for epoch := fsm.LeaderEpoch(0); epoch <= epochs[next-1]; epoch++ {
			want := start
			for want < next && epochs[want] <= epoch {
				want++
			}
			from, to := epochIn(segments, epoch, start, next)
			if from > want || to < want || from < start || to > next {
				t.Fatalf("the first offset above epoch %d is %d, looked for from %d to %d", epoch, want, from, to)
			}
			both := 0
			for _, s := range segments {
				if from < to && s.First < to && s.Next > from {
					both++
				}
			}
			if both > 1 {
				t.Fatalf("%d segments of the tier are looked at, from %d to %d", both, from, to)
			}
		}
	})
}
