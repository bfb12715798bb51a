package raftgroup

import (
	"cmp"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
)

// MajorityWithout reports whether a majority of the voters that are left without a member is there.
// If not it must not go: a configuration counts from the moment at which it is in the leader's log,
// and such a one could neither be committed nor taken back, so that the raft group would be without
// a leader until others return. there says whether a node is reached right now.
func MajorityWithout(servers []raft.Server, identity string, there func(identity string) bool) bool {
	voters, here := 0, 0
	for _, s := range servers {
		if id := string(s.ID); id != identity && s.Suffrage == raft.Voter {
			voters++
			if there(id) {
				here++
			}
		}
	}
	return here > voters/2
}

// MajorityWith is MajorityWithout for one more voter, which must be there itself: it counts for the
// majority from now on.
func MajorityWith(servers []raft.Server, identity string, there func(identity string) bool) bool {
	with := []raft.Server{{ID: raft.ServerID(identity), Suffrage: raft.Voter}}
	for _, s := range servers {
		if string(s.ID) != identity {
			with = append(with, s)
		}
	}
	return there(identity) && MajorityWithout(with, "", there)
}

// LeastMissed gives the members of a raft group that are to go: those first that are not there,
// since while they are members the others need more of each other, and self last.
func LeastMissed(servers []raft.Server, self string, there, goes func(identity string) bool) (out []string) {
	for _, s := range servers {
		if goes(string(s.ID)) {
			out = append(out, string(s.ID))
		}
	}
	missed := func(identity string) int {
		switch {
		case identity == self:
			return 2
		case there(identity):
			return 1
		}
		return 0
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Or(missed(a)-missed(b), strings.Compare(a, b)) })
	return out
}
