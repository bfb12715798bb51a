//go:build !race

package locks

import "sync"

// A Mutex is a sync.Mutex of class C: the type that holds it.
type Mutex[C any] struct{ sync.Mutex }

// An RWMutex is a sync.RWMutex of class C: the type that holds it.
type RWMutex[C any] struct{ sync.RWMutex }

// MayWait says that its caller is about to wait for a disk, the network or another goroutine.
func MayWait(what string) {}
