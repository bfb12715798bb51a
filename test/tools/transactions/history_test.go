package main

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

var t0 = time.Unix(1000, 0)

// story is a history of one partition of each topic in which nothing is wrong: transaction 0/0 of
// two records and 1/0 of one are committed, 0/1 is aborted, and message 7 went one hop.
func story() (h *history, final map[place][]read) {
	h = newHistory()
	for id, f := range map[txnID]fate{{0, 0}: committed, {1, 0}: committed, {0, 1}: aborted} {
		partitions := []int32{0}
		if id == (txnID{0, 0}) {
			partitions = []int32{0, 0}
		}
		h.transactions[id] = &transaction{partitions: partitions, needed: len(partitions), fate: f}
		if f == committed {
			h.transactions[id].asked = t0
		}
	}
	final = map[place][]read{
		{appendTopic, 0}: {{0, "0/0/0/0", t0}, {1, "0/0/1/0", t0}, {5, "1/0/0/0", t0}},
		{ring0, 0}:       {{0, "7/0", t0}},
		{ring1, 0}:       {{3, "7/1", t0}},
	}
	h.messages[message{7, 0}] = true
	for level := range h.reads {
		for p, all := range final {
			h.reads[level][p] = slices.Clone(all)
		}
	}
	h.works = []work{{[]message{{7, 0}}, []message{{7, 1}}}}
	return h, final
}

// TestEachAnomalyIsFound spoils the story in one place each.
func TestEachAnomalyIsFound(t *testing.T) {
	appends, one := place{appendTopic, 0}, place{ring1, 0}
	seen := func(h *history) []read { return h.reads[readCommitted][appends] }
	for _, c := range []struct {
		want  string
		spoil func(h *history, final map[place][]read)
	}{
		{"", func(*history, map[place][]read) {}},
		{"lost-write", func(_ *history, f map[place][]read) { f[appends] = f[appends][:2] }},
		{"lost-write", func(_ *history, f map[place][]read) { f[appends] = slices.Delete(f[appends], 1, 2) }},
		{"torn", func(h *history, f map[place][]read) {
			f[appends] = slices.Delete(f[appends], 1, 2)
			h.transactions[txnID{0, 0}].fate = unknown
		}},
		{"duplicate", func(_ *history, f map[place][]read) { f[appends] = append(f[appends], read{9, "1/0/0/0", t0}) }},
		{"duplicate", func(_ *history, f map[place][]read) { f[one] = append(f[one], read{9, "7/1", t0}) }},
		{"lost-message", func(_ *history, f map[place][]read) { f[one] = nil }},
		{"aborted-read (G1a)", func(_ *history, f map[place][]read) { f[appends] = append(f[appends], read{9, "0/1/0/0", t0}) }},
		{"aborted-read (G1a)", func(h *history, _ map[place][]read) {
			h.reads[readCommitted][appends] = append(seen(h), read{9, "0/1/0/0", t0})
		}},
		{"aborted-read (G1a)", func(h *history, f map[place][]read) {
			h.transactions[txnID{1, 0}].fate, h.transactions[txnID{1, 0}].asked = unknown, time.Time{}
		}},
		{"intermediate-read (G1b)", func(_ *history, f map[place][]read) {
			f[appends][0].value, f[appends][1].value = f[appends][1].value, f[appends][0].value
		}},
		{"cyclic-read (G1c)", func(h *history, _ map[place][]read) {
			h.works = append(h.works, work{[]message{{7, 1}}, []message{{7, 0}}})
		}},
		{"precommitted-read", func(h *history, _ map[place][]read) { seen(h)[2].at = t0.Add(-time.Millisecond) }},
		{"unwritten-read", func(_ *history, f map[place][]read) { f[appends] = append(f[appends], read{9, "3/0/0/0", t0}) }},
		{"unwritten-read", func(_ *history, f map[place][]read) { f[one] = append(f[one], read{9, "8/1", t0}) }},
		{"nonmonotonic-poll", func(h *history, _ map[place][]read) {
			h.reads[readUncommitted][appends] = append(h.reads[readUncommitted][appends], seen(h)[2])
		}},
		{"nonmonotonic-send", func(h *history, f map[place][]read) {
			h.transactions[txnID{1, 0}] = &transaction{partitions: []int32{0}, needed: 1, fate: unknown, asked: t0}
			h.transactions[txnID{1, 1}] = &transaction{partitions: []int32{0}, needed: 1, fate: committed, asked: t0}
			f[appends][2].value = "1/1/0/0"
			f[appends] = append(f[appends], read{9, "1/0/0/0", t0})
		}},
		{"int-poll-skip", func(h *history, _ map[place][]read) {
			h.reads[readUncommitted][appends] = slices.Delete(h.reads[readUncommitted][appends], 1, 2)
		}},
		{"unseen", func(h *history, _ map[place][]read) { h.reads[readCommitted][one] = nil }},
		{"inconsistent-offsets", func(h *history, _ map[place][]read) { seen(h)[2].value = "0/0/0/0" }},
		{"inconsistent-offsets", func(h *history, _ map[place][]read) {
			h.reads[readCommitted][appends] = slices.Insert(seen(h), 2, read{3, "0/0/9/0", t0})
		}},
	} {
		h, final := story()
		c.spoil(h, final)
		h.check(final, 1)
		if c.want == "" && !h.good() || c.want != "" && len(h.found[c.want]) == 0 {
			t.Errorf("%q is to be found, and it is %v", c.want, h.found)
		}
	}
}

// A commit of unknown fate may be there as a whole, or not at all.
func TestUnknownFatesAreNoAnomalies(t *testing.T) {
	h, final := story()
	h.transactions[txnID{1, 0}].fate = unknown
	h.transactions[txnID{2, 0}] = &transaction{partitions: []int32{0, 0}, fate: unknown, asked: t0}
	if h.check(final, 1); !h.good() {
		t.Errorf("found %v", h.found)
	}
}

func TestWriteCyclesAreCounted(t *testing.T) {
	a, b := txnID{1, 1}, txnID{2, 2}
	if n := writeCycles(map[int32][]txnID{0: {a, b}, 1: {b, a}}); n != 1 {
		t.Errorf("%d cycles, want 1", n)
	}
	if n := writeCycles(map[int32][]txnID{0: {a, b}, 1: {a, b}}); n != 0 {
		t.Errorf("%d cycles, want 0", n)
	}
}

func TestWhatFollowersWereGivenIsCompared(t *testing.T) {
	h, final := story()
	if !h.caughtUp(final) {
		t.Error("all was read, and it is said not to be")
	}
	h.reads[readCommitted][place{ring0, 0}] = nil
	if h.caughtUp(final) {
		t.Error("nothing was read, and it is said to be")
	}
	h.followed(readCommitted, place{ring1, 0}, read{3, "7/1", t0})
	if n := h.underWay(1); n != 0 {
		t.Errorf("%d messages under way, and the only one has arrived", n)
	}
	var c counts
	c.add("x", errors.New("y"))
	c.each(func(what string, n int) {
		if what != "x: y" || n != 1 {
			t.Errorf("%s %d", what, n)
		}
	})
	for range 2 {
		c.add("x", fmt.Errorf("as a client says: %w", kerr.InvalidTxnState))
	}
	if got := c.byCode(); got != "2 × x INVALID_TXN_STATE" {
		t.Errorf("error codes %q", got)
	}
}
