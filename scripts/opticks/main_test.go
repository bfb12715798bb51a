package main

import (
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

func records(lines ...string) []*kgo.Record {
	var all []*kgo.Record
	for i, s := range lines {
		key, value, _ := strings.Cut(s, " ")
		all = append(all, &kgo.Record{Offset: int64(i), Key: []byte(key), Value: []byte(value)})
	}
	return all
}

func TestRestoreTakesTheFirstOfARepeatedLine(t *testing.T) {
	text, repeats, err := restore(records("0 a", "1 ", "2 b", "1 ", "2 b", "3 c"))
	if err != nil || repeats != 2 || string(text) != "a\n\nb\nc" {
		t.Fatalf("got %q, %d repeats, %v", text, repeats, err)
	}
}

func TestRestoreRefusesWhatIsNotTheText(t *testing.T) {
	for name, log := range map[string][]*kgo.Record{
		"a line missing":      records("0 a", "2 c"),
		"lines swapped":       records("0 a", "2 c", "1 b"),
		"a repeat that lies":  records("0 a", "1 b", "1 B"),
		"a key of no line":    records("0 a", "x b"),
		"not from the start":  records("1 b", "2 c"),
		"a number too high":   records("0 a", strconv.Itoa(1<<40)+" b"),
		"a negative number":   records("-1 a"),
		"an empty key":        records(" a"),
		"the end comes first": records("1 b", "0 a"),
	} {
		if text, _, err := restore(log); err == nil {
			t.Errorf("%s: restored as %q", name, text)
		}
	}
}
