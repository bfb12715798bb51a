package raftlog

import (
	"errors"

	"github.com/hashicorp/raft"
)

// SnapshotTerm is a log that has a hole in front of what came after an installed snapshot, as those
// of hashicorp/raft have, and knows the term of the entry that the snapshot ends with.
//
// Without it a follower can refuse everything for ever. It has a snapshot up to entry S, which it
// was sent, no entry S, and entries behind it of a leader that died. The next leader sends what
// follows S; Raft compares the term of S with that of the newest snapshot only if nothing is behind
// it, and else looks for the entry. So it asks for the snapshot again, at once and without an end,
// until there is a newer one.
//
// What is made up here is compared and nothing else. A leader never sends it: for that it would
// need the entry in front of it, and where that is in the log nothing is made up.
type SnapshotTerm struct {
	raft.LogStore
	Snapshots raft.SnapshotStore // nil: none
}

// GetLog implements raft.LogStore.
func (s SnapshotTerm) GetLog(index uint64, out *raft.Log) error {
	err := s.LogStore.GetLog(index, out)
	if !errors.Is(err, raft.ErrLogNotFound) || s.Snapshots == nil || index < 2 {
		return err
	}
	if last, lerr := s.LastIndex(); lerr != nil || last <= index {
		return err // Raft takes the snapshot's own word then
	}
	list, lerr := s.Snapshots.List()
	if lerr != nil || len(list) == 0 || list[0].Index != index {
		return err
	}
	if before := s.LogStore.GetLog(index-1, new(raft.Log)); !errors.Is(before, raft.ErrLogNotFound) {
		return err
	}
	*out = raft.Log{Index: index, Term: list[0].Term, Type: raft.LogNoop}
	return nil
}
