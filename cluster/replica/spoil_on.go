//go:build race

package replica

// spoil makes memory that is free unlike any records, so that a test notices who still uses it.
func spoil(b []byte) {
	for i := range b {
		b[i] = 0xdb
	}
}
