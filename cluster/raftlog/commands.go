package raftlog

import "github.com/hashicorp/raft"

// HoldsCommand reports whether an entry above one index and up to another is one for the state
// machine. What is not there any more was applied before it went. What cannot be read may be one.
func (l *PartitionLog) HoldsCommand(above, upTo uint64) bool {
	for index := upTo; index > above; index-- {
		entry := l.cache.get(index)
		if entry == nil {
			l.state.RLock()
			gone := len(l.segments) == 0 || index < l.segments[0].base
			l.state.RUnlock()
			if gone {
				return false
			}
			entry = new(raft.Log)
			if err := l.readEntry(index, entry); err != nil {
				return true
			}
		}
		if entry.Type == raft.LogCommand {
			return true
		}
	}
	return false
}
