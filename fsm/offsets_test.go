package fsm

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// As Kafka 0.8 answers (kafka.log.Log.getOffsetsBefore).
func TestOffsetsBefore(t *testing.T) {
	empty := []Segment{{0, 0}}
	three := []Segment{{0, 1000}, {1600, 3000}, {3200, 3000}}
	const now = 9000
	for _, c := range []struct {
		segments   []Segment
		start, end Offset
		timestamp  int64
		max        int
		want       []Offset
	}{
		{empty, 0, 0, LatestOffset, 100, []Offset{0}},
		{empty, 0, 0, EarliestOffset, 100, []Offset{0}},
		{empty, 0, 0, 5000, 100, []Offset{0}},
		{three[:1], 0, 1600, LatestOffset, 100, []Offset{1600, 0}},
		// Latest begins at the log end, earliest is the first segment alone.
		{three, 0, 3300, LatestOffset, 100, []Offset{3300, 3200, 1600, 0}},
		{three, 0, 3300, LatestOffset, 1, []Offset{3300}},
		{three, 0, 3300, EarliestOffset, 100, []Offset{0}},
		// A time: the newest last written at or before it, and all older ones. The
		// log end counts as written now.
		{three, 0, 3300, 9000, 100, []Offset{3300, 3200, 1600, 0}},
		{three, 0, 3300, 8999, 100, []Offset{3200, 1600, 0}},
		{three, 0, 3300, 2999, 100, []Offset{0}},
		{three, 0, 3300, 999, 100, nil},
		{three, 0, 3300, 8999, 2, []Offset{3200, 1600}},
		// Nothing was asked for.
		{three, 0, 3300, LatestOffset, 0, nil},
		{three, 0, 3300, LatestOffset, -1, nil},
		{three, 0, 3300, -3, 100, nil},
		// A log start within a segment is its first offset; a segment below is gone.
		{three, 1700, 3300, LatestOffset, 100, []Offset{3300, 3200, 1700}},
		{three, 1700, 3300, EarliestOffset, 100, []Offset{1700}},
		// Nothing left: the log goes on from there.
		{three, 3300, 3300, LatestOffset, 100, []Offset{3300}},
		{three, 3300, 3300, EarliestOffset, 100, []Offset{3300}},
	} {
		if got := OffsetsBefore(c.segments, c.start, c.end, c.timestamp, c.max, now); !slices.Equal(got, c.want) {
			t.Errorf("%v, %d to %d, time %d, at most %d: %v, want %v", c.segments, c.start, c.end, c.timestamp, c.max, got, c.want)
		}
	}
}

func TestOffsetsBeforeIsNewestFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var segments []Segment
		base := Offset(0)
		for range rapid.IntRange(1, 6).Draw(t, "segments") {
			segments = append(segments, Segment{base, rapid.Int64Range(0, 20_000).Draw(t, "written")})
			base += Offset(rapid.Int64Range(1, 100).Draw(t, "records"))
		}
		start := Offset(rapid.Int64Range(0, int64(base)).Draw(t, "start"))
		if got := OffsetsBefore(segments, start, base, LatestOffset, 1, 20_000); !slices.Equal(got, []Offset{base}) {
			t.Fatalf("latest is %d, want %d", got, base)
		}
		if got := OffsetsBefore(segments, start, base, EarliestOffset, 9, 20_000); !slices.Equal(got, []Offset{start}) {
			t.Fatalf("earliest is %d, want %d", got, start)
		}
		limit := rapid.IntRange(-1, 5).Draw(t, "max")
		got := OffsetsBefore(segments, start, base, rapid.Int64Range(-3, 30_000).Draw(t, "time"), limit, 20_000)
		if len(got) > max(limit, 0) || !slices.IsSortedFunc(got, func(a, b Offset) int { return int(b - a) }) {
			t.Fatal(fmt.Sprint(got), limit)
		}
	})
}
