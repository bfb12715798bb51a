package raftgroup

import (
	"fmt"

	"github.com/trimaran-io/trimaran/outcome"
)

// Hint names a raft group's leader: the identity and the term in which it leads. It may be old; ""
// is nobody.
type Hint struct {
	Identity string
	Term     uint64
}

// NotLeader is outcome.ErrNotLeader with what is known of the leader.
type NotLeader struct{ Hint Hint }

func (e NotLeader) Error() string {
	return fmt.Sprintf("%v; it may be %q", outcome.ErrNotLeader, e.Hint.Identity)
}
func (e NotLeader) Unwrap() error { return outcome.ErrNotLeader }
