package main

import (
	"reflect"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

const size = 40

// logOf gives a log as readAll would.
func logOf(ids ...id) []entry {
	var log []entry
	for _, i := range ids {
		log = append(log, entry{id: i})
	}
	return log
}

// told gives a ledger of producer 1 that wrote values 0 to 3: value 1 needed a
// second attempt, value 3 was never acknowledged.
func told() *ledger {
	l := newLedger(1, time.Unix(0, 0))
	l.attempt([]id{{1, 0, 0}})
	l.acknowledge(0, []id{{1, 0, 0}}, 0, 1, time.Unix(1, 0))
	l.attempt([]id{{1, 1, 0}})
	l.unknownFate([]id{{1, 1, 0}}, "x")
	l.attempt([]id{{1, 1, 1}, {1, 2, 0}})
	l.acknowledge(0, []id{{1, 1, 1}, {1, 2, 0}}, 2, 1, time.Unix(5, 0))
	l.attempt([]id{{1, 3, 0}})
	l.unknownFate([]id{{1, 3, 0}}, "x")
	return l
}

func TestCheckFindsEachKindOfDamage(t *testing.T) {
	a, b0, b1, c, d := id{1, 0, 0}, id{1, 1, 0}, id{1, 1, 1}, id{1, 2, 0}, id{1, 3, 0}
	for name, test := range map[string]struct {
		log  []entry
		want verdict
	}{
		"as told":                         {logOf(a, b0, b1, c), verdict{again: 1}},
		"unknown fates went in later":     {logOf(a, b0, b1, c, d), verdict{again: 1}},
		"the end is missing":              {logOf(a, b0, b1), verdict{again: 1, lost: 1}},
		"the first attempt only":          {logOf(a, b0), verdict{lost: 2}},
		"one is moved":                    {logOf(a, b0, c, b1), verdict{again: 1, moved: 2}},
		"one attempt twice":               {logOf(a, b0, b1, c, c), verdict{again: 1, duplicated: 1}},
		"an attempt that nobody made":     {logOf(a, b0, b1, c, id{1, 2, 1}), verdict{again: 1, foreign: 1}},
		"a value that nobody wrote":       {logOf(a, b0, b1, c, id{2, 0, 0}), verdict{again: 1, foreign: 1}},
		"content that nobody wrote":       {append(logOf(a, b0, b1, c), entry{foreign: true}), verdict{again: 1, foreign: 1}},
		"everything is gone":              {nil, verdict{lost: 3}},
		"another record took a cut place": {logOf(a, d, b1, c), verdict{}},
	} {
		var got verdict
		got.check("gateway", 0, test.log, told())
		got.examples = nil
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: got %+v, want %+v", name, got, test.want)
		}
	}
}

func TestCheckFindsAcknowledgementsOutOfOrder(t *testing.T) {
	l := newLedger(1, time.Unix(0, 0))
	l.attempt([]id{{1, 0, 0}})
	l.acknowledge(0, []id{{1, 0, 0}}, 1, 1, time.Unix(1, 0))
	l.attempt([]id{{1, 1, 0}})
	l.acknowledge(0, []id{{1, 1, 0}}, 0, 1, time.Unix(1, 0))
	var v verdict
	v.check("gateway", 0, logOf(id{1, 1, 0}, id{1, 0, 0}), l)
	if v.disordered != 1 || v.good() {
		t.Fatalf("got %+v", v)
	}
}

func TestCompareAndWatchedFindDifferences(t *testing.T) {
	a, b := id{1, 0, 0}, id{1, 1, 0}
	var v verdict
	v.compare("x", "y", 0, logOf(a, b), logOf(a, b))
	v.watched(0, logOf(a), logOf(a, b))
	if !v.good() {
		t.Fatalf("equal logs: %+v", v)
	}
	v.compare("x", "y", 0, logOf(a, b), logOf(a, a))
	v.compare("x", "y", 0, logOf(a, b), logOf(a))
	v.watched(0, logOf(a, b), logOf(b))
	if v.differ != 2 || v.changed != 2 || v.good() {
		t.Fatalf("different logs: %+v", v)
	}
}

func TestSilenceCountsUpToTheEnd(t *testing.T) {
	l := told()
	if l.silence.length != 4*time.Second {
		t.Fatalf("longest silence %v, want 4s", l.silence.length)
	}
	l.end(time.Unix(15, 0))
	if p, g := l.longest(); l.silence.length != 10*time.Second || p != 0 || g.length != 10*time.Second {
		t.Fatalf("longest silence %v and %v", l.silence.length, g.length)
	}
}

func TestMessagesComeBackAsWritten(t *testing.T) {
	var set []byte
	var want []message
	for n := range int64(3) {
		i := id{7, int32(n), 2}
		m := message{offset: n, key: []byte(i.key()), value: []byte(i.value(size))}
		want = append(want, m)
		set = appendMessage(set, m)
	}
	got, err := parseMessages(set)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %v, %v", got, err)
	}
	if e := take(got[1], size); e != (entry{id: id{7, 1, 2}}) {
		t.Fatalf("taken as %+v", e)
	}
	if e := take(message{key: got[1].key, value: got[2].value}, size); !e.foreign {
		t.Fatal("a value under another's key passes")
	}
	got, err = parseMessages(set[:len(set)-1])
	if err != nil || len(got) != 2 {
		t.Fatalf("a cut set gives %d messages, %v", len(got), err)
	}
	set[len(set)-1] ^= 1
	if _, err := parseMessages(set); err == nil {
		t.Fatal("a flipped bit passes")
	}
}

func TestReasonsAreFewAndPlain(t *testing.T) {
	if got := reason(kerr.NotLeaderForPartition); got != "NOT_LEADER_FOR_PARTITION" {
		t.Fatalf("got %q", got)
	}
}

func FuzzParseMessages(f *testing.F) {
	f.Add(appendMessage(nil, message{key: []byte("k"), value: []byte("v")}))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, set []byte) {
		messages, err := parseMessages(set)
		if err != nil {
			return
		}
		var again []byte
		for _, m := range messages {
			if m.key == nil || m.value == nil {
				return
			}
			again = appendMessage(again, m)
		}
		if len(again) > len(set) || string(again) != string(set[:len(again)]) {
			t.Fatal("what was parsed is not what was there")
		}
	})
}
