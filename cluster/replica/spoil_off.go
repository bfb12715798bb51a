//go:build !race

package replica

func spoil([]byte) {}
