//go:build !race

package replica

const raceBuild = false

func spoil([]byte) {}
