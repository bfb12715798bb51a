//go:build !linux

package monitor

// Relax does nothing: only Linux has a timer slack.
func Relax() {}
