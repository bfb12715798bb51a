package peer_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// told gives a checker a history of group g, applied on a and b: two values of proposer p in term 1, acknowledged by a.
type told struct {
	*checker
	logs map[string][]entry
}

func (h *told) apply(node string, index, term uint64, value string) {
	log := h.logs[node]
	var before chain
	if n := len(log); n > 0 {
		before = log[n-1].chain
	}
	sum := before.next(index, term, []byte(value))
	h.logs[node] = append(log, entry{index: index, term: term, data: value, chain: sum, by: node})
	h.applied("g", node, index, term, []byte(value), sum)
}

func (h *told) everywhere(index, term uint64, value string) {
	h.apply("a", index, term, value)
	h.apply("b", index, term, value)
}

func goodHistory() *told {
	h := &told{newChecker(), map[string][]entry{}}
	h.claim("g", 1, "a", "elected")
	for i, v := range []string{"one", "two"} {
		h.propose("g", "p", v)
		h.everywhere(uint64(i)+2, 1, v)
		h.settle("g", v, acknowledged, uint64(i)+2, 1)
		time.Sleep(time.Second)
	}
	return h
}

// TestCheckerSeesWhatIsWrong: each history is good but for one thing, and the checker must name that one.
func TestCheckerSeesWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		then func(h *told)
		want string // "": nothing is wrong
	}{
		"nothing": {func(*told) {}, ""},
		"an unknown outcome, not there": {func(h *told) {
			h.propose("g", "p", "three")
		}, ""},
		"an unknown outcome, there": {func(h *told) {
			h.propose("g", "p", "three")
			h.everywhere(4, 1, "three")
		}, ""},
		"two leaders in a term": {func(h *told) { h.claim("g", 1, "b", "AppendEntries") }, "two leaders in term 1"},
		"two votes in a term": {func(h *told) {
			h.voted("g", "c", 2, "a")
			h.voted("g", "c", 2, "a")
			h.voted("g", "c", 2, "b")
		}, "c voted for a and for b in term 2"},
		"another entry at an index": {func(h *told) {
			h.propose("g", "p", "three")
			h.propose("g", "q", "other")
			h.apply("a", 4, 1, "three")
			h.apply("b", 4, 1, "other")
		}, `at 4 b applied "other"`},
		"the same entry of another term": {func(h *told) {
			h.propose("g", "p", "three")
			h.apply("a", 4, 1, "three")
			h.apply("b", 4, 2, "three")
		}, "at 4 b applied"},
		"an entry left out": {func(h *told) {
			h.propose("g", "p", "three")
			h.propose("g", "p", "four")
			h.everywhere(4, 1, "three")
			h.apply("a", 5, 1, "four")
			h.logs["b"] = h.logs["b"][:2]
			h.apply("b", 5, 1, "four")
		}, "after different beginnings"},
		"a snapshot of something else": {func(h *told) { h.restored("g", "c", 3, chain{1}) }, "a snapshot up to 3"},
		"an applied entry replaced":    {func(h *told) { h.stored("g", "a", 3, 2, []byte("x")) }, "replaces what it applied at 3"},
		"an entry not applied there replaced": {func(h *told) {
			h.started("g", "b")
			h.stored("g", "b", 3, 2, []byte("x"))
		}, ""},
		"an applied entry dropped": {func(h *told) { h.truncated("g", "a", 3) }, "drops its log from 3 on"},
		"an acknowledged entry lost": {func(h *told) {
			h.propose("g", "p", "three")
			h.apply("a", 4, 1, "three")
			h.settle("g", "three", acknowledged, 4, 1)
			h.logs["a"] = h.logs["a"][:2]
		}, `"three" was acknowledged at 4`},
		"an acknowledged entry lost at one replica": {func(h *told) {
			h.propose("g", "p", "three")
			h.apply("a", 4, 1, "three")
			h.settle("g", "three", acknowledged, 4, 1)
		}, `"three" was acknowledged at 4`},
		"an entry that nobody applied, acknowledged": {func(h *told) {
			h.propose("g", "p", "three")
			h.settle("g", "three", acknowledged, 4, 1)
		}, `"three" was acknowledged at 4`},
		"an entry doubled":  {func(h *told) { h.everywhere(4, 1, "two") }, `holds "two" twice`},
		"an invented entry": {func(h *told) { h.everywhere(4, 1, "three") }, "which nobody proposed"},
		"a refused entry": {func(h *told) {
			h.propose("g", "p", "three")
			h.settle("g", "three", refused, 0, 0)
			h.everywhere(4, 1, "three")
		}, "which was refused"},
		"entries the other way round": {func(h *told) {
			h.propose("g", "q", "three")
			h.propose("g", "q", "four")
			h.everywhere(4, 1, "four")
			h.everywhere(5, 1, "three")
			h.settle("g", "three", acknowledged, 5, 1)
			h.settle("g", "four", acknowledged, 4, 1)
		}, "the other way round"},
		"another order of two proposers": {func(h *told) {
			h.propose("g", "q", "three")
			h.propose("g", "r", "four")
			h.everywhere(4, 1, "four")
			h.everywhere(5, 1, "three")
			h.settle("g", "three", acknowledged, 5, 1)
			h.settle("g", "four", acknowledged, 4, 1)
		}, ""},
		"a deposed leader confirmed":                       {deposed(0, 0, false), "a was confirmed as leader of term 1"},
		"a deposed leader confirmed by an old heartbeat":   {deposed(time.Second, 5*time.Second, false), "a was confirmed as leader of term 1"},
		"by a heartbeat that the link lets pass":           {deposed(time.Second, 1200*time.Millisecond, false), "a was confirmed as leader of term 1"},
		"by a heartbeat on its way during all of it":       {deposed(1900*time.Millisecond, 2150*time.Millisecond, false), ""},
		"by entries that were on their way":                {deposed(time.Second, 2150*time.Millisecond, true), ""},
		"by entries that were sent after the new election": {deposed(1990*time.Millisecond, 2150*time.Millisecond, true), "a was confirmed as leader of term 1"},
		"a leader confirmed whose log is too short": {func(h *told) {
			h.confirm("g", confirmation{"a", 1, time.Now(), time.Now(), 2})
		}, "its log ends at 2"},
		"a leader confirmed": {func(h *told) {
			h.confirm("g", confirmation{"a", 1, time.Now(), time.Now(), 3})
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := goodHistory()
				c.then(h)
				h.finish("g", 300*time.Millisecond, h.logs)
				switch {
				case c.want == "" && len(h.wrong) > 0:
					t.Errorf("the checker says %q", h.wrong)
				case c.want != "" && !strings.Contains(strings.Join(h.wrong, "\n"), c.want):
					t.Errorf("the checker says %q, it should say %q", h.wrong, c.want)
				}
			})
		})
	}
}

// deposed is a history in which b was elected after 1.95 s and has acknowledged an entry when a is asked after two and a
// tenth. a has got an answer, unless that began and ended at 0.
func deposed(began, ended time.Duration, entries bool) func(h *told) {
	return func(h *told) {
		start := time.Now()
		at := func(d time.Duration) { time.Sleep(time.Until(start.Add(d))) }
		at(1950 * time.Millisecond)
		h.claim("g", 2, "b", "elected")
		h.propose("g", "q", "three")
		h.everywhere(4, 2, "three")
		h.settle("g", "three", acknowledged, 4, 2)
		at(2100 * time.Millisecond)
		asked := time.Now()
		at(2200 * time.Millisecond)
		if ended > 0 {
			h.answered("g", answer{"a", 1, start.Add(began), start.Add(ended), entries})
		}
		h.confirm("g", confirmation{"a", 1, asked, time.Now(), 4})
	}
}

// TestChainDependsOnAllOfIt: place, term and bytes of everything before.
func TestChainDependsOnAllOfIt(t *testing.T) {
	seen := map[chain]string{}
	for name, c := range map[string]chain{
		"one":                chain{}.next(1, 1, []byte("x")),
		"another index":      chain{}.next(2, 1, []byte("x")),
		"another term":       chain{}.next(1, 2, []byte("x")),
		"other bytes":        chain{}.next(1, 1, []byte("y")),
		"another beginning":  chain{}.next(1, 1, []byte("x")).next(1, 1, []byte("x")),
		"a longer beginning": chain{}.next(1, 1, nil).next(1, 1, []byte("x")),
	} {
		if other, ok := seen[c]; ok {
			t.Errorf("%s and %s give the same", name, other)
		}
		seen[c] = name
	}
}

// TestDiskTellsOfVotes: the checker hears of a vote in the term in which Raft gives it.
func TestDiskTellsOfVotes(t *testing.T) {
	c := newChecker()
	d := newDisk(c, "g", "a")
	vote := func(term uint64, candidate string) {
		if err := d.SetUint64([]byte("LastVoteTerm"), term); err != nil {
			t.Fatal(err)
		}
		if err := d.Set([]byte("LastVoteCand"), []byte(candidate)); err != nil {
			t.Fatal(err)
		}
	}
	vote(1, "a")
	vote(2, "b")
	vote(2, "b")
	if c.failed() {
		t.Fatal(c.wrong)
	}
	vote(2, "a")
	if !c.failed() {
		t.Error("two votes in a term were not seen")
	}
}
