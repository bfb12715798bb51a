// Package locks has mutexes whose rules are checked when the race detector is on.
//
// You are here: below everything; anyone may use this package, it uses nobody.
//
// Three rules keep a program with many mutexes alive, and no compiler knows them: mutexes are
// always taken in one order; nobody waits for a disk, the network or another goroutine while it
// holds a mutex that readers need; two mutexes of one kind are not held at once. A mutex of this
// package has a class, the type that holds it, so that the rules are about kinds and not about the
// two instances that a test happened to meet:
//
//	type Replica struct {
//		mu locks.Mutex[Replica] // guards what follows; taken under it: nothing
//
// In race builds, every order in which two classes were ever taken is remembered, and the first
// goroutine that takes them the other way round panics, whether or not it would have waited; and so
// does one that reaches MayWait, or wants a Slow mutex, with a Mutex or RWMutex held. In other
// builds the types are those of package sync and cost nothing more.
package locks

import "sync"

// A Slow mutex is one under which its holder may wait for a disk or the network, which whoever
// declares it must justify. Its order is checked like any other. C names its class.
type Slow[C any] struct{ Mutex[slow[C]] }

// slow marks the class of a mutex that may be held while its holder waits.
type slow[C any] struct{}

var _ sync.Locker = (*Mutex[int])(nil)
