package kafkaproto

import (
	"errors"
	"testing"
)

// A batch of some KiB can have millions of records, none of which a topic takes. Beyond those that
// are told they cost no more than records that it does.
func TestRecordsBeyondThoseThatAreNamedCostNothing(t *testing.T) {
	b := newBlame(Limits{NeedKeys: true, Earliest: 10, Latest: 20})
	look := func() {
		b.look(0, []byte{}, 21)
		b.look(0, []byte{}, -2)
		b.look(0, nil, 15)
	}
	for range maxBlamed {
		look()
	}
	if allocated := testing.AllocsPerRun(100, look); allocated != 0 {
		t.Errorf("%v allocations", allocated)
	}
	var found *InvalidRecords
	if !errors.As(b.err(), &found) || len(found.Records) != maxBlamed || !errors.Is(found, ErrInvalidTimestamp) {
		t.Errorf("%v", b.err())
	}
}
