// Package monitor has Go's monitor thread look less often at a process that does little things
// many times a second.
package monitor

import "time"

// Go's runtime has a thread that takes the processor away from a goroutine whose system call takes
// long, and preempts one that computes for long. It is woken by whatever goes on in the process
// after a pause, looks every 20 µs for the first millisecond, and sleeps again when all is quiet
// (runtime.sysmon). A node that takes a record now and then, or a few hundred a second, is busy for
// a millisecond each time, most of it waiting for its disk: a third of all its context switches
// were this thread's. The runtime has no setting for it, but Linux may let a thread sleep longer
// than it asked for, by its timer slack, which it has from who started it. So a process sets its
// own and starts itself once more.
//
// The monitor is the first thread that the runtime starts, before any code of ours runs, and all
// others have the slack from it or beside it: none can be given another one without rights that a
// node does not have. So any timer may come a millisecond later, and a thread that is about to take
// the one goroutine that another has ready (runtime.runqgrab, 3 µs) leaves it there for longer,
// which saves changes of thread, too.
//
// What it costs: a processor that a system call holds is given to others after a millisecond or two
// where it was a tenth of that, if all of them are held. So it is not done with one processor.
const relaxed = time.Millisecond
