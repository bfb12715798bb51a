//go:build !linux

package soon

// newAlarm gives none: Go's own timers have to do.
func newAlarm() alarm { return nil }
