package bolt

import (
	"fmt"
	"runtime/debug"
)

// guarded does what reads a bbolt file. bbolt reads by memory, where a page that the disk does not
// give is a fault that would end the process, and panics on some that are not what was written.
func guarded(path string, do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("%s cannot be read: %v", path, reason)
		}
	}()
	return do()
}
