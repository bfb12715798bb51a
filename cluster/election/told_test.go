package election_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link/peertest"
)

// busyLogs is a member's log on a disk that others write to as well: each append takes another
// time. What is stored goes to followers meanwhile.
type busyLogs struct {
	raft.LogStore
	m    *member
	dice *dice
}

// maxBusy is how long an append takes at most.
const maxBusy = 400 * time.Millisecond

func (l *busyLogs) StoreLogs(entries []*raft.Log) error {
	l.m.trans.Ahead(entries)
	time.Sleep(l.dice.upTo(maxBusy))
	return l.LogStore.StoreLogs(entries)
}

// TestFollowersHearOfTheLastCommit soon, whatever was on its way to them when it was committed:
// nothing is proposed behind it.
func TestFollowersHearOfTheLastCommit(t *testing.T) {
	const (
		rounds   = 20
		maxDelay = 250 * time.Millisecond // of a link, one way
		maxPause = 200 * time.Millisecond // between proposals
		soon     = 10 * time.Second
	)
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, dice := peertest.New(), newDice(seed)
				ms := ledOf(t, n, []string{"a", "b", "c", "d", "e"}, func(m *member) raft.LogStore {
					return &busyLogs{m.logs, m, dice}
				})
				defer stopAll(ms)
				leader, count := ms[0], 10
				for range rounds {
					for _, m := range ms[1:] {
						n.Delay(leader.id, m.id, dice.upTo(maxDelay))
					}
					var futures []raft.ApplyFuture
					for range 1 + dice.n(6) {
						time.Sleep(dice.upTo(maxPause))
						futures = append(futures, leader.raft.Apply(fmt.Appendf(nil, "entry %d", count), 0))
						count++
					}
					for _, f := range futures {
						if err := f.Error(); err != nil {
							t.Fatal(err)
						}
					}
					for end := time.Now().Add(soon); ; time.Sleep(20 * time.Millisecond) {
						behind := slices.IndexFunc(ms, func(m *member) bool { return len(m.fsm.applied()) != count })
						if behind < 0 {
							break
						}
						if m := ms[behind]; time.Now().After(end) {
							t.Fatalf("%s has %d entries of %d: it was told of %d, and its log ends at %d",
								m.id, len(m.fsm.applied()), count, m.raft.CommitIndex(), m.raft.LastIndex())
						}
					}
				}
			})
		})
	}
}
