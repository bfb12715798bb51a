//go:build race

package replica

// raceBuild tells tests that sync.Pool forgets things, as it does with the race detector.
const raceBuild = true

// spoil makes memory that is free unlike any records, so that a test notices who still uses it.
func spoil(b []byte) {
	for i := range b {
		b[i] = 0xdb
	}
}
