package calls

import (
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// WriteMarkersRequest has a partition's leader end transactions there.
type WriteMarkersRequest struct {
	Partition fsm.PartitionID
	// Term is the leadership that the caller means, 0 for any.
	Term    uint64
	Markers []fsm.Marker // at most MaxMarkers
}

// MaxMarkers bounds the markers of one call.
const MaxMarkers = 4096

// writeMarkersCall may be asked again where no answer came, since a partition takes each number
// once; what an operator forces has none.
var writeMarkersCall = Call[WriteMarkersRequest, []outcome.Error]{
	request: form[WriteMarkersRequest]{putMarkers, readMarkers},
	answer:  form[[]outcome.Error]{put: putOutcomes},
	reads: func(q WriteMarkersRequest, answer []byte) ([]outcome.Error, error) {
		return readOutcomes(len(q.Markers), answer)
	},
	repeats: func(q WriteMarkersRequest) bool {
		for _, m := range q.Markers {
			if m.Forced {
				return false
			}
		}
		return true
	},
}

func putMarkers(q WriteMarkersRequest) ([]byte, error) {
	out := fields(make([]byte, 0, 32+markerSize*len(q.Markers))).partition(q.Partition).uint64(q.Term).uint32(uint32(len(q.Markers)))
	for _, m := range q.Markers {
		out = out.marker(m)
	}
	return out, nil
}

func readMarkers(payload []byte) (q WriteMarkersRequest, err error) {
	r := Reader{B: payload}
	q.Partition, q.Term = r.Partition(), r.Uint64()
	count := r.Uint32()
	if r.Bad || count == 0 || count > MaxMarkers || int(count)*markerSize != len(r.B) {
		return q, ErrMalformed
	}
	q.Markers = make([]fsm.Marker, count)
	for i := range q.Markers {
		q.Markers[i] = r.Marker()
	}
	if r.Bad {
		return q, ErrMalformed
	}
	return q, nil
}

func putOutcomes(outcomes []outcome.Error) ([]byte, error) {
	out := make(fields, 0, 2*len(outcomes))
	for _, o := range outcomes {
		out = out.uint16(uint16(o))
	}
	return out, nil
}

func readOutcomes(count int, answer []byte) ([]outcome.Error, error) {
	if len(answer) != 2*count {
		return nil, ErrMalformedAnswer
	}
	r := Reader{B: answer}
	outcomes := make([]outcome.Error, count)
	for i := range outcomes {
		outcomes[i] = outcome.Error(r.Uint16())
	}
	return outcomes, nil
}
