package link

import (
	"sync/atomic"
)

type counters struct {
	bytesIn, bytesOut, framesIn, framesOut, writes atomic.Uint64
	calls, callsFailed, callsServed, refused       atomic.Uint64
	dials, dialsFailed, accepted, sessionsLost     atomic.Uint64
	handlers                                       atomic.Int64
}

// Stats are counters since New, for metrics.
type Stats struct {
	BytesIn, BytesOut   uint64
	FramesIn, FramesOut uint64
	// Writes counts system calls: FramesOut / Writes tells how well messages are batched.
	Writes uint64
	// Calls were made here, CallsFailed of them ended with an error, CallsServed were worked on
	// here.
	Calls, CallsFailed, CallsServed uint64
	// Refused counts connections and requests that were turned away here.
	Refused                      uint64
	Dials, DialsFailed, Accepted uint64
	SessionsLost                 uint64
	HandlersRunning              int64
	Connections                  int
}

// Stats reads all counters.
func (l *Link) Stats() Stats {
	s := &l.stats
	return Stats{
		BytesIn: s.bytesIn.Load(), BytesOut: s.bytesOut.Load(), FramesIn: s.framesIn.Load(), FramesOut: s.framesOut.Load(), Writes: s.writes.Load(),
		Calls: s.calls.Load(), CallsFailed: s.callsFailed.Load(), CallsServed: s.callsServed.Load(), Refused: s.refused.Load(),
		Dials: s.dials.Load(), DialsFailed: s.dialsFailed.Load(), Accepted: s.accepted.Load(), SessionsLost: s.sessionsLost.Load(),
		HandlersRunning: s.handlers.Load(), Connections: l.conns.count(),
	}
}
