package cluster

import "github.com/trimaran-io/trimaran/cluster/raftgroup"

// What this package's files call what they know of a leader.
type (
	hint         = raftgroup.Hint
	errNotLeader = raftgroup.NotLeader
)
