package peer

import (
	"sort"
	"sync/atomic"
	"time"
)

type counters struct {
	bytesIn, bytesOut, framesIn, framesOut, writes                       atomic.Uint64
	calls, callsFailed, callsServed, refused                             atomic.Uint64
	raftOut, raftIn, heartbeatsIn, groupOverflow, unknownGroup           atomic.Uint64
	dials, dialsFailed, accepted, sessionsLost                           atomic.Uint64
	signsOut, signsIn                                                    atomic.Uint64
	heartbeatsVouched, heartbeatsFed, appendsSwallowed, parked, barriers atomic.Uint64
	handlers                                                             atomic.Int64
}

// Stats are counters since New, for metrics.
type Stats struct {
	BytesIn, BytesOut   uint64
	FramesIn, FramesOut uint64
	// Writes counts system calls: FramesOut / Writes tells how well messages are batched.
	Writes uint64
	// Calls were made here, CallsFailed of them ended with an error, CallsServed were worked on here.
	Calls, CallsFailed, CallsServed uint64
	// Refused counts connections and requests that were turned away here.
	Refused uint64
	// RaftOut and RaftIn count Raft's requests, HeartbeatsIn those of them that took the fast path.
	RaftOut, RaftIn, HeartbeatsIn uint64
	// GroupOverflow counts requests refused because a group's queue was full, UnknownGroup those for groups that are not here.
	GroupOverflow, UnknownGroup  uint64
	Dials, DialsFailed, Accepted uint64
	SessionsLost                 uint64
	// SignsOut and SignsIn count signs of life. They spared HeartbeatsVouched heartbeats and AppendsSwallowed
	// empty AppendEntries, for which groups here were given HeartbeatsFed. Parked counts requests that waited for a node
	// that is gone, Barriers those proposed where a leader waited for a commit.
	SignsOut, SignsIn                                                    uint64
	HeartbeatsVouched, HeartbeatsFed, AppendsSwallowed, Parked, Barriers uint64
	HandlersRunning                                                      int64
	Groups, Connections                                                  int
}

// Stats reads all counters.
func (l *Link) Stats() Stats {
	s := &l.stats
	out := Stats{
		BytesIn: s.bytesIn.Load(), BytesOut: s.bytesOut.Load(), FramesIn: s.framesIn.Load(), FramesOut: s.framesOut.Load(), Writes: s.writes.Load(),
		Calls: s.calls.Load(), CallsFailed: s.callsFailed.Load(), CallsServed: s.callsServed.Load(), Refused: s.refused.Load(),
		RaftOut: s.raftOut.Load(), RaftIn: s.raftIn.Load(), HeartbeatsIn: s.heartbeatsIn.Load(), GroupOverflow: s.groupOverflow.Load(), UnknownGroup: s.unknownGroup.Load(),
		Dials: s.dials.Load(), DialsFailed: s.dialsFailed.Load(), Accepted: s.accepted.Load(), SessionsLost: s.sessionsLost.Load(),
		SignsOut: s.signsOut.Load(), SignsIn: s.signsIn.Load(),
		HeartbeatsVouched: s.heartbeatsVouched.Load(), HeartbeatsFed: s.heartbeatsFed.Load(), AppendsSwallowed: s.appendsSwallowed.Load(), Parked: s.parked.Load(), Barriers: s.barriers.Load(),
		HandlersRunning: s.handlers.Load(),
	}
	l.mu.Lock()
	out.Groups, out.Connections = len(l.groups), len(l.conns)
	l.mu.Unlock()
	return out
}

// PeerStats is what the link knows about one other node.
type PeerStats struct {
	Identity string
	// Connected: a session from or to that node is open.
	Connected bool
	// LastHeard is when the last byte of that node arrived; zero if never.
	LastHeard time.Time
	// LastError is why the last attempt to reach it failed; "" if it did not.
	LastError string
}

// Peers lists the nodes this link has had to do with, by identity.
func (l *Link) Peers() []PeerStats {
	l.mu.Lock()
	peers := make([]*peerState, 0, len(l.peers))
	for _, p := range l.peers {
		peers = append(peers, p)
	}
	l.mu.Unlock()
	out := make([]PeerStats, 0, len(peers))
	for _, p := range peers {
		out = append(out, p.snapshot())
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Identity < out[j].Identity })
	return out
}
