package election

import (
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// heartbeat answers a heartbeat by a beacon of the follower's node that was made after the call
// began and says that the follower still follows; false means that it has to go on the wire (rule
// 1).
func (m *Member) heartbeat(id raft.ServerID, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) bool {
	c := m.common
	every := c.cfg.HeartbeatTimeout / 10
	if every < 2*c.cfg.BeaconInterval {
		return false // beacons would come too late to be of use
	}
	began := c.link.Now()
	if !m.beats.periodic(id, args.Term, began, every) {
		return false
	}
	w := c.nodes.expect(string(id), m.RaftGroup(), args.Term)
	if w == nil {
		return false
	}
	locks.MayWait("a beacon")
	limit := c.cfg.fresh()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case ok := <-w.got:
		// A process that was stopped meanwhile finds the beacon in its socket, and it may be old by
		// now.
		if !ok || c.link.Now()-began > int64(limit) {
			return false
		}
	case <-timer.C:
		return false
	case <-m.Done():
		return false
	}
	*resp = raft.AppendEntriesResponse{RPCHeader: args.RPCHeader, Term: args.Term, Success: true}
	c.stats.spared.Add(1)
	return true
}

// timelyHeartbeat sends a heartbeat on the wire. A yes that was long on its way is not passed on:
// Raft takes it for contact at the moment at which it arrives, and it may have been said before
// another was elected.
func (m *Member) timelyHeartbeat(id raft.ServerID, addr raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	c := m.common
	limit := int64(c.cfg.fresh())
	for first := c.link.Now(); ; {
		began := c.link.Now()
		if err := m.Transport.AppendEntries(id, addr, args, resp); err != nil {
			return err
		}
		now := c.link.Now()
		if !resp.Success || now-began <= limit {
			return nil
		}
		if now-first > int64(c.timeout) {
			return fmt.Errorf("peer: %s: %w: its answers are late", id, link.ErrTimeout)
		}
	}
}

// ledEvery is how often it is looked whether a leader says that it leads.
const ledEvery = 5 * time.Second

// feedTick is how often those are looked for that are due.
const feedTick = 500 * time.Millisecond

// feed gives followers here the heartbeats that their leaders did not have to send (rule 3), and
// notes where leaders do not say that they lead. A candidate may have a leader, too: by a
// TimeoutNow it lost to that one and goes on to know it, whatever becomes of it (raft.go,
// appendEntries), and as long as it does it denies all others its vote.
func (b *Beacons) feed(groups []*Member, now int64) (unled bool) {
	every, look := int64(b.cfg.HeartbeatTimeout/3), int64(min(b.cfg.HeartbeatTimeout/3, ledEvery))
	for i, m := range groups {
		v := &m.polled
		stands := v.state == raft.Candidate
		if v.since == 0 || v.state != raft.Follower && !stands || v.leader == "" || v.leader == b.link.Self() || now-v.led < look {
			continue
		}
		n := b.nodes.known(v.leader)
		if n == nil {
			continue
		}
		c, boot := b.nodes.claimed(n, m.RaftGroup())
		if boot == 0 {
			v.unled = 0 // its beacons are late, or it sends none
			continue
		}
		if c.kind != claimLeads || c.term != v.term {
			if v.unled == 0 {
				v.unled = now
			}
			unled, b.glances[i].calm = true, false
			continue
		}
		v.unled, v.led = 0, now
		if now-v.fed < every {
			continue
		}
		r, beat := m.Raft(), m.HeartbeatHandler()
		if stands || r == nil || beat == nil || !m.feeding.CompareAndSwap(false, true) {
			continue
		}
		v.fed = now
		term, leader := v.term, v.leader
		// Not here: the handler takes Raft's locks, and one raft group must not hold up the others.
		if !b.link.Go(func() {
			defer m.feeding.Store(false)
			if r.State() != raft.Follower || r.CurrentTerm() != term {
				return
			}
			b.stats.fed.Add(1)
			beat(raft.RPC{
				Command: &raft.AppendEntriesRequest{
					RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(leader), Addr: []byte(leader)},
					Term:      term,
				},
				// Nobody waits: a raft group that was shut down never answers.
				RespChan: make(chan raft.RPCResponse, 1),
			})
		}) {
			m.feeding.Store(false)
		}
	}
	return unled
}
