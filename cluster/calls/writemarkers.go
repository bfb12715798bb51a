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

// A marker is producer id 8, epoch 2, number 4, flags 1.
const (
	markerSize = 8 + 2 + 4 + 1

	markerCommits = 1
	markerForced  = 2
)

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
		flags := uint8(0)
		if m.Commit {
			flags |= markerCommits
		}
		if m.Forced {
			flags |= markerForced
		}
		out = out.uint64(uint64(m.ProducerID)).uint16(uint16(m.Epoch)).uint32(uint32(m.Number)).uint8(flags)
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
		m := fsm.Marker{ProducerID: int64(r.Uint64()), Epoch: int16(r.Uint16()), Number: int32(r.Uint32())}
		flags := r.Uint8()
		m.Commit, m.Forced = flags&markerCommits != 0, flags&markerForced != 0
		if flags&^(markerCommits|markerForced) != 0 || m.Commit && m.Forced || m.ProducerID < 0 || m.Epoch < 0 {
			return q, ErrMalformed
		}
		q.Markers[i] = m
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
