package raftgroup

import (
	"errors"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
)

// notes is a log that notes what is done with it.
type notes struct {
	inMemory
	done *[]string
	err  error
}

func (n notes) StoreLogs([]*raft.Log) error {
	*n.done = append(*n.done, "stored")
	return n.err
}

// TestEntriesGoAheadOfTheirSync: followers are sent what is about to be stored, and Raft hears that
// it is stored when it is: what returned earlier would count as the leader's own vote.
func TestEntriesGoAheadOfTheirSync(t *testing.T) {
	for _, err := range []error{nil, errors.New("no room")} {
		var done []string
		var sent []*raft.Log
		log := &timedLog{LogStore: notes{done: &done, err: err}}
		log.ahead = func(entries []*raft.Log) {
			if log.count.Load()%2 == 0 {
				t.Error("it is sent while nothing is being stored")
			}
			done, sent = append(done, "sent"), entries
		}
		entry := &raft.Log{Index: 7}
		if got := log.StoreLog(entry); !errors.Is(got, err) {
			t.Errorf("%v instead of %v", got, err)
		}
		if !slices.Equal(done, []string{"sent", "stored"}) || len(sent) != 1 || sent[0] != entry {
			t.Errorf("%v, of %v", done, sent)
		}
	}
}
