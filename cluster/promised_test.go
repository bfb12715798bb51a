package cluster

import (
	"sync"
	"testing"

	"github.com/hashicorp/raft"
)

// promised holds every member of every group of a test's cluster to what it has acknowledged: the
// end of its log does not fall below that, unless a newer leader has other entries. Every answer of
// Raft tells where the log ended when the request came, so it is looked at before what the request
// itself does.
type promised struct {
	t *testing.T

	mu      sync.Mutex
	members map[promisedMember]promise
}

type promisedMember struct {
	node  int
	group string
}

// promise is what a member has said yes to last.
type promise struct {
	term, index uint64
}

func newPromised(t *testing.T) *promised {
	return &promised{t: t, members: map[promisedMember]promise{}}
}

// of gives what is told of a node's answers (Config.answered).
func (p *promised) of(node int) func(group string, req, resp any) {
	return func(group string, req, resp any) {
		asked, ok := req.(*raft.AppendEntriesRequest)
		if !ok || asked.PrevLogEntry == 0 && len(asked.Entries) == 0 {
			return
		}
		answer, ok := resp.(*raft.AppendEntriesResponse)
		if !ok {
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		m := promisedMember{node, group}
		was := p.members[m]
		if answer.LastLog == 0 {
			was = promise{} // it left the group and comes back with nothing
		}
		if answer.LastLog < was.index {
			p.t.Errorf("node %d, group %s: the log ends at entry %d, and entry %d was acknowledged in term %d (asked in term %d)", node+1, group, answer.LastLog, was.index, was.term, asked.Term)
		}
		if answer.Success {
			end := asked.PrevLogEntry + uint64(len(asked.Entries))
			if asked.Term == was.term {
				end = max(end, was.index)
			}
			was = promise{asked.Term, end}
		}
		p.members[m] = was
	}
}
