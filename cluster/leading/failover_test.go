package leading

import (
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/cluster/calls"
)

func TestWhoStandsForElection(t *testing.T) {
	follower := func(term, lastTerm, lastIndex uint64) calls.Standing {
		return calls.Standing{Here: true, Voter: true, Follower: true, Term: term, LastTerm: lastTerm, LastIndex: lastIndex}
	}
	led := follower(3, 3, 10)
	led.Led = true
	candidate := follower(3, 3, 10)
	candidate.Follower = false
	nonvoter := follower(3, 3, 99)
	nonvoter.Voter = false
	even := follower(3, 3, 10)
	for name, c := range map[string]struct {
		voters []string
		known  map[string]calls.Standing
		gone   string
		self   string
		best   string // "": nobody
		wait   time.Duration
	}{
		"the leader is gone, logs are equal":             {[]string{"a", "b", "c"}, map[string]calls.Standing{"b": even, "c": even}, "a", "b", "b", 0},
		"the second waits for the first":                 {[]string{"a", "b", "c"}, map[string]calls.Standing{"b": even, "c": even}, "a", "c", "b", failoverStagger},
		"the longer log stands":                          {[]string{"a", "b", "c"}, map[string]calls.Standing{"b": even, "c": follower(3, 3, 11)}, "a", "b", "c", 0},
		"the later term stands":                          {[]string{"a", "b", "c"}, map[string]calls.Standing{"b": follower(3, 2, 99), "c": follower(3, 3, 1)}, "a", "b", "c", 0},
		"somebody knows a live leader":                   {[]string{"a", "b", "c"}, map[string]calls.Standing{"b": even, "c": led}, "a", "b", "", 0},
		"nobody answers":                                 {[]string{"a", "b", "c"}, map[string]calls.Standing{"b": even}, "a", "b", "", 0},
		"two of five are no majority":                    {[]string{"a", "b", "c", "d", "e"}, map[string]calls.Standing{"b": even, "c": even}, "a", "b", "", 0},
		"three of five, one is silent":                   {[]string{"a", "b", "c", "d", "e"}, map[string]calls.Standing{"b": even, "c": even, "d": even}, "a", "b", "b", 2 * failoverStagger},
		"a non-voter asks":                               {[]string{"a", "b", "c"}, map[string]calls.Standing{"b": even, "c": even, "d": nonvoter}, "a", "d", "", 0},
		"a voter does not know yet that it is one":       {[]string{"a", "b", "c"}, map[string]calls.Standing{"b": even, "c": nonvoter}, "a", "b", "b", 0},
		"an election may be under way":                   {[]string{"a", "b", "c"}, map[string]calls.Standing{"b": even, "c": candidate}, "a", "b", "b", 2 * failoverStagger},
		"somebody has heard of a newer term":             {[]string{"a", "b", "c"}, map[string]calls.Standing{"b": even, "c": follower(4, 3, 10)}, "a", "b", "b", 2 * failoverStagger},
		"the leader's node lives and its group does not": {[]string{"a", "b", "c"}, map[string]calls.Standing{"a": {}, "b": even, "c": even}, "", "b", "b", 0},
		"one answers and has no group":                   {[]string{"a", "b", "c"}, map[string]calls.Standing{"b": even, "c": {}}, "a", "b", "", 0},
		"a group of one":                                 {[]string{"a"}, map[string]calls.Standing{"a": even}, "", "a", "a", 0},
		"the group is not here any more":                 {[]string{"a"}, map[string]calls.Standing{"a": {}}, "", "a", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			x := candidacy{voters: c.voters, known: c.known}
			best, wait, ok := x.decide(c.self, func(id string) bool { return id == c.gone })
			if ok != (c.best != "") || ok && (best != c.best || wait != c.wait) {
				t.Errorf("%q after %v, %v; want %q after %v", best, wait, ok, c.best, c.wait)
			}
		})
	}
}
