package peer_test

import (
	"bytes"
	"slices"
	"time"
)

// finish judges a group when everything is quiet: logs is what each member's state machine holds.
func (c *checker) finish(group string, mostLate time.Duration, logs map[string][]entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.of(group)
	nodes := make([]string, 0, len(logs))
	for node := range logs {
		nodes = append(nodes, node)
	}
	slices.Sort(nodes)
	for _, node := range nodes {
		c.judgeLogLocked(group, f, node, logs[node])
		if first := logs[nodes[0]]; !slices.EqualFunc(first, logs[node], sameEntry) {
			c.failLocked("%s: %s and %s do not hold the same at the end: %d and %d entries", group, nodes[0], node, len(first), len(logs[node]))
		}
	}
	c.judgeConfirmationsLocked(group, f, mostLate)
}

func sameEntry(a, b entry) bool {
	return a.index == b.index && a.term == b.term && a.data == b.data && bytes.Equal(a.chain[:], b.chain[:])
}

func (c *checker) judgeLogLocked(group string, f *facts, node string, log []entry) {
	at := map[string]uint64{}
	for _, e := range log {
		p := f.proposals[e.data]
		switch was, twice := at[e.data]; {
		case p == nil:
			c.failLocked("%s: %s holds %q at %d, which nobody proposed", group, node, e.data, e.index)
		case twice:
			c.failLocked("%s: %s holds %q twice, at %d and %d", group, node, e.data, was, e.index)
		case p.outcome == refused:
			c.failLocked("%s: %s holds %q at %d, which was refused", group, node, e.data, e.index)
		}
		at[e.data] = e.index
	}
	before := map[string]*proposal{}
	for _, p := range f.order {
		if p.outcome != acknowledged {
			continue
		}
		i, ok := at[p.value]
		if !ok || i != p.index {
			c.failLocked("%s: %q was acknowledged at %d and %s holds it at %d (0: not at all)", group, p.value, p.index, node, i)
			continue
		}
		if b := before[p.proposer]; b != nil && at[b.value] >= i {
			c.failLocked("%s: %s holds %q at %d before %q at %d, its proposer had them acknowledged the other way round", group, node, p.value, i, b.value, at[b.value])
		}
		before[p.proposer] = p
	}
}

// judgeConfirmationsLocked looks for leaders that were confirmed although another had acknowledged something by then.
func (c *checker) judgeConfirmationsLocked(group string, f *facts, mostLate time.Duration) {
	for _, v := range f.confirmed {
		for _, a := range f.acks {
			if !a.at.Before(v.began) {
				continue
			}
			if a.term > v.term && !f.stale(v, mostLate) {
				c.failLocked("%s: %s was confirmed as leader of term %d at %.4f, asked %v before; %q had been acknowledged in term %d at %.4f",
					group, v.node, v.term, v.ended.Sub(c.began).Seconds(), v.ended.Sub(v.began), a.value, a.term, a.at.Sub(c.began).Seconds())
				break
			}
			if a.term > v.term {
				c.excused++
				break
			}
			if a.index > v.last {
				c.failLocked("%s: %s was confirmed in term %d and its log ends at %d, acknowledged was %d in term %d", group, v.node, v.term, v.last, a.index, a.term)
				break
			}
		}
	}
}

// stale says whether an answer explains a confirmation that should not have been: hashicorp/raft (replication.go,
// notifyAll) counts every yes for all calls of VerifyLeader that wait when it arrives, also for those that began after
// the follower had said it. It must have been asked for before the newer leader was elected, and if it carries no
// entries the link lets none pass that took longer than mostLate.
func (f *facts) stale(v confirmation, mostLate time.Duration) bool {
	var elected time.Time
	for term, l := range f.leaders {
		if term > v.term && (elected.IsZero() || l.at.Before(elected)) {
			elected = l.at
		}
	}
	for _, a := range f.answers {
		if a.node == v.node && a.term == v.term && a.began.Before(elected) && !a.ended.Before(v.began) && !a.ended.After(v.ended) &&
			(a.entries || a.ended.Sub(a.began) <= mostLate) {
			return true
		}
	}
	return false
}
