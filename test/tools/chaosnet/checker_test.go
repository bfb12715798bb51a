package main

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
)

// told is a history of one partition: a and b acknowledged at 0 and 1, c of unknown fate, d
// refused.
func told() *history {
	h := newHistory(1)
	for _, v := range []string{"a", "b", "c", "d"} {
		h.sent(0, v)
	}
	h.acknowledged(0, "a", 0, "n1")
	h.acknowledged(0, "b", 1, "n2")
	h.unknown("n1")
	h.refused(0, "d", "n1")
	return h
}

func TestTheCheckerNamesEachAnomaly(t *testing.T) {
	for name, test := range map[string]struct {
		logs map[string][]string
		want []string
	}{
		"as told":                           {map[string][]string{"n1": {"a", "b"}, "n2": {"a", "b"}}, nil},
		"unknown fate is in the log":        {map[string][]string{"n1": {"a", "b", "c"}}, nil},
		"the end is missing":                {map[string][]string{"n1": {"a"}}, []string{"lost-write", "nonmonotonic-latest"}},
		"missing at one node":               {map[string][]string{"n1": {"a", "b"}, "n2": {"a"}}, []string{"lost-write", "nonmonotonic-latest"}},
		"another value is there":            {map[string][]string{"n1": {"a", "c", "b"}}, []string{"inconsistent-offsets", "lost-write"}},
		"one is there twice":                {map[string][]string{"n1": {"a", "b", "a"}}, []string{"duplicate"}},
		"a refused one is there":            {map[string][]string{"n1": {"a", "b", "d"}}, []string{"aborted-read"}},
		"nobody sent it":                    {map[string][]string{"n1": {"a", "b", "x"}}, []string{"unwritten-read"}},
		"nodes differ behind what is known": {map[string][]string{"n1": {"a", "b", "c"}, "n2": {"a", "b", "x"}}, []string{"inconsistent-offsets", "unwritten-read"}},
		"nothing was read back":             {nil, []string{"lost-write"}},
	} {
		h := told()
		for node, log := range test.logs {
			h.final(0, node, log)
		}
		v := h.judge()
		if got := slices.Sorted(maps.Keys(v.found)); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
		if v.acknowledged != 2 || v.refused != 1 || v.unanswered != 1 {
			t.Errorf("%s: %s", name, v)
		}
	}
}

// A value of unknown fate that a reader was given, or an end that somebody was told, may not be
// gone in the end.
func TestWhatAReaderWasGivenMustBeThereInTheEnd(t *testing.T) {
	for name, tell := range map[string]func(h *history){
		"a record": func(h *history) { h.read(0, 2, "c", "n3") },
		"an end":   func(h *history) { h.seen(0, 3) },
	} {
		h := told()
		tell(h)
		h.final(0, "n1", []string{"a", "b"})
		if got := slices.Sorted(maps.Keys(h.judge().found)); !slices.Equal(got, []string{"nonmonotonic-latest"}) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestAReaderAndAnAcknowledgementThatDifferAreSeenAtOnce(t *testing.T) {
	h := told()
	h.read(0, 1, "b", "n3")
	if len(h.found) > 0 {
		t.Error(h.found)
	}
	h.read(0, 1, "c", "n3")
	if list := h.found["inconsistent-offsets"]; len(list) != 1 || !strings.Contains(list[0], "n3") {
		t.Error(h.found)
	}
	if h.seen(0, 7); h.end(0) != 7 {
		t.Error(h.end(0))
	}
	if h.seen(0, 3); h.end(0) != 7 {
		t.Error("the known end went back")
	}
}

func TestGaugesAreAddedUp(t *testing.T) {
	page := "# HELP x y\nx 1\nx{a=\"b c\"} 2.5\nxy 7\n"
	if got := gauge(page, "x"); got != 3.5 {
		t.Error(got)
	}
}

// A commit of unknown fate may come at any time, once; one that was acknowledged, or a late one
// that was seen, gives way only to what was committed, and never comes back.
func TestWhatAGroupMayHaveCommitted(t *testing.T) {
	lost := errors.New("no answer")
	type step struct {
		commit bool
		offset int64
		err    error // of a commit
		wrong  bool  // for a fetch
	}
	commit := func(offset int64, err error) step { return step{true, offset, err, false} }
	may := func(offset int64) step { return step{offset: offset} }
	mayNot := func(offset int64) step { return step{offset: offset, wrong: true} }
	for name, steps := range map[string][]step{
		"nothing":              {may(-1), mayNot(0)},
		"the last one":         {commit(0, nil), commit(1, nil), may(1), mayNot(0), mayNot(-1), mayNot(2)},
		"unknown, or not":      {commit(0, nil), commit(1, lost), may(0), may(1), mayNot(0)},
		"late":                 {commit(0, lost), commit(1, nil), may(1), may(0), may(0), mayNot(1)},
		"late, and over":       {commit(0, lost), commit(1, nil), may(0), commit(2, nil), mayNot(0), mayNot(1), may(2)},
		"two that are late":    {commit(0, lost), commit(1, lost), commit(2, nil), may(1), may(0), mayNot(1), mayNot(2)},
		"late, and not seen":   {commit(0, lost), commit(1, nil), commit(2, nil), may(0)},
		"what was not sent":    {commit(0, lost), mayNot(1)},
		"what was there first": {commit(0, lost), may(-1), may(0), mayNot(-1)},
	} {
		c := newCommits()
		for i, s := range steps {
			if s.commit {
				c.answered(s.offset, s.err)
			} else if got := c.fetched(s.offset); got == s.wrong {
				t.Errorf("%s, step %d: a fetch of %d may be: %v", name, i, s.offset, got)
			}
		}
	}
}
