package replica

import (
	"testing"
)

// Any bytes may be on disk, or come from another node, as a snapshot.
func FuzzParseShardSnapshot(f *testing.F) {
	f.Add(appendShardSnapshot(5, 3, newShardState()))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		applied, next, state, err := parseShardSnapshot(data)
		if err != nil {
			return
		}
		if next < 0 || uint64(next) > uint64(applied) {
			t.Fatalf("%d entries up to %d", next, applied)
		}
		if again := appendShardSnapshot(applied, next, state); len(again) != len(data) {
			t.Fatalf("%d bytes became %d", len(data), len(again))
		}
	})
}
