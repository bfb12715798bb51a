package harness

import (
	"reflect"
	"testing"
	"time"
)

const valueSize = 40

// logOf gives a log as readAll would.
func logOf(ids ...Attempt) []Record {
	var log []Record
	for _, i := range ids {
		log = append(log, Record{Attempt: i})
	}
	return log
}

// told gives a ledger of producer 1 that wrote values 0 to 3: value 1 needed a
// second attempt, value 3 was never acknowledged.
func told() *Ledger {
	l := NewLedger(1, time.Unix(0, 0))
	l.Sent([]Attempt{{1, 0, 0}})
	l.Acknowledged(0, []Attempt{{1, 0, 0}}, 0, 1, time.Unix(1, 0))
	l.Sent([]Attempt{{1, 1, 0}})
	l.Unknown([]Attempt{{1, 1, 0}}, "x")
	l.Sent([]Attempt{{1, 1, 1}, {1, 2, 0}})
	l.Acknowledged(0, []Attempt{{1, 1, 1}, {1, 2, 0}}, 2, 1, time.Unix(5, 0))
	l.Sent([]Attempt{{1, 3, 0}})
	l.Unknown([]Attempt{{1, 3, 0}}, "x")
	return l
}

func TestCheckFindsEachKindOfDamage(t *testing.T) {
	a, b0, b1, c, d := Attempt{1, 0, 0}, Attempt{1, 1, 0}, Attempt{1, 1, 1}, Attempt{1, 2, 0}, Attempt{1, 3, 0}
	for name, test := range map[string]struct {
		log  []Record
		want Verdict
	}{
		"as told":                         {logOf(a, b0, b1, c), Verdict{Again: 1}},
		"unknown fates went in later":     {logOf(a, b0, b1, c, d), Verdict{Again: 1}},
		"the end is missing":              {logOf(a, b0, b1), Verdict{Again: 1, Lost: 1}},
		"the first attempt only":          {logOf(a, b0), Verdict{Lost: 2}},
		"one is moved":                    {logOf(a, b0, c, b1), Verdict{Again: 1, Moved: 2}},
		"one attempt twice":               {logOf(a, b0, b1, c, c), Verdict{Again: 1, Duplicated: 1}},
		"an attempt that nobody made":     {logOf(a, b0, b1, c, Attempt{1, 2, 1}), Verdict{Again: 1, Foreign: 1}},
		"a value that nobody wrote":       {logOf(a, b0, b1, c, Attempt{2, 0, 0}), Verdict{Again: 1, Foreign: 1}},
		"content that nobody wrote":       {append(logOf(a, b0, b1, c), Record{Foreign: true}), Verdict{Again: 1, Foreign: 1}},
		"everything is gone":              {nil, Verdict{Lost: 3}},
		"another record took a cut place": {logOf(a, d, b1, c), Verdict{}},
	} {
		var got Verdict
		got.Check("gateway", 0, test.log, told())
		got.Examples = nil
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: got %+v, want %+v", name, got, test.want)
		}
	}
}

func TestCheckFindsAcknowledgementsOutOfOrder(t *testing.T) {
	l := NewLedger(1, time.Unix(0, 0))
	l.Sent([]Attempt{{1, 0, 0}})
	l.Acknowledged(0, []Attempt{{1, 0, 0}}, 1, 1, time.Unix(1, 0))
	l.Sent([]Attempt{{1, 1, 0}})
	l.Acknowledged(0, []Attempt{{1, 1, 0}}, 0, 1, time.Unix(1, 0))
	var v Verdict
	v.Check("gateway", 0, logOf(Attempt{1, 1, 0}, Attempt{1, 0, 0}), l)
	if v.Disordered != 1 || v.Good() {
		t.Fatalf("got %+v", v)
	}
}

func TestCompareAndWatchedFindDifferences(t *testing.T) {
	a, b := Attempt{1, 0, 0}, Attempt{1, 1, 0}
	var v Verdict
	v.Compare("x", "y", 0, logOf(a, b), logOf(a, b))
	v.Watched(0, logOf(a), logOf(a, b))
	if !v.Good() {
		t.Fatalf("equal logs: %+v", v)
	}
	v.Compare("x", "y", 0, logOf(a, b), logOf(a, a))
	v.Compare("x", "y", 0, logOf(a, b), logOf(a))
	v.Watched(0, logOf(a, b), logOf(b))
	if v.Differ != 2 || v.Changed != 2 || v.Good() {
		t.Fatalf("different logs: %+v", v)
	}
}

func TestSilenceCountsUpToTheEnd(t *testing.T) {
	l := told()
	if l.silence.Length != 4*time.Second {
		t.Fatalf("longest silence %v, want 4s", l.silence.Length)
	}
	l.Close(time.Unix(15, 0))
	if p, g := l.Longest(); l.silence.Length != 10*time.Second || p != 0 || g.Length != 10*time.Second {
		t.Fatalf("longest silence %v and %v", l.silence.Length, g.Length)
	}
}

// TestAnOffsetIsToldOnce: two acknowledgements of one offset cannot both be true.
func TestAnOffsetIsToldOnce(t *testing.T) {
	l := NewLedger(1, time.Unix(0, 0))
	l.Acknowledged(0, []Attempt{{1, 0, 0}, {1, 1, 0}}, 0, 1, time.Unix(1, 0))
	if l.Impossible() != nil || l.End(0) != 2 || l.Count() != 2 {
		t.Fatalf("%v, ends at %d with %d", l.Impossible(), l.End(0), l.Count())
	}
	l.Acknowledged(0, []Attempt{{2, 0, 0}}, 1, 1, time.Unix(1, 0))
	if l.Impossible() == nil {
		t.Fatal("offset 1 was told twice")
	}
}
