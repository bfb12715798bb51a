package replica

import (
	"testing"

	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
)

// TestMarkersOfATierThatIsCompacted: a marker of a committed transaction goes when none of its
// records is in the transaction any more, and it is so old that nobody reads on in front of it.
func TestMarkersOfATierThatIsCompacted(t *testing.T) {
	const settled, old, young = 1000, 999, 1000
	marker := func(commit bool, producer, at int64) kafkaproto.Batch {
		return kafkaproto.NewMarker(kafkaproto.Marker{Commit: commit}, producer, 0, at)
	}
	for name, test := range map[string]struct {
		first *kafkaproto.Batch // marker of a transaction before
		begun bool              // records in the transaction are in front of it
		last  kafkaproto.Batch
		needs bool
	}{
		"old":                    {new(marker(true, 5, old)), false, marker(true, 5, old), false},
		"young":                  {new(marker(true, 5, old)), false, marker(true, 5, young), true},
		"with records":           {new(marker(true, 5, old)), true, marker(true, 5, old), true},
		"behind one of an abort": {new(marker(false, 5, old)), false, marker(true, 5, old), false},
		"of an abort":            {new(marker(true, 5, old)), false, marker(false, 5, old), true},
		"the first":              {nil, false, marker(true, 5, old), true},
		"the first of another":   {new(marker(true, 6, old)), false, marker(true, 5, old), true},
		"what is no marker":      {new(marker(true, 5, old)), false, prototest.Batch("x"), true},
	} {
		m := tierMarkers{settled: settled, ended: map[int64]bool{}, begun: map[int64]bool{}}
		if test.first != nil && !m.needed(*test.first) {
			t.Errorf("%s: the first marker of a producer goes", name)
		}
		m.begun[5] = test.begun
		if got := m.needed(test.last); got != test.needs {
			t.Errorf("%s: it stays: %v", name, got)
		}
	}
	m := tierMarkers{settled: settled, ended: map[int64]bool{}, begun: map[int64]bool{5: true}}
	if m.needed(marker(true, 5, old)); m.needed(marker(true, 5, old)) {
		t.Error("the records of the transaction before keep a marker")
	}
}
