package calls

import "github.com/trimaran-io/trimaran/fsm"

// ListOffsetsRequest asks a partition's leader as ListOffsets v0 does.
type ListOffsetsRequest struct {
	Partition fsm.PartitionID
	Time      int64 // ms since epoch; -1 for the end, -2 for the log start, -4 to -6 of the tier
	Max       uint32
}

// MaxOffsets bounds ListOffsetsRequest.Max.
const MaxOffsets = 1 << 20

var listOffsetsCall = Call[ListOffsetsRequest, []fsm.Offset]{
	request: form[ListOffsetsRequest]{listOffsetsRequest.put, func(b []byte) (ListOffsetsRequest, error) {
		q, err := listOffsetsRequest.get(b)
		if err == nil && q.Max > MaxOffsets {
			err = ErrMalformed
		}
		return q, err
	}},
	answer: form[[]fsm.Offset]{putOffsets, readOffsets},
}

var listOffsetsRequest = fixed(ErrMalformed,
	func(f fields, q ListOffsetsRequest) fields {
		return f.partition(q.Partition).uint64(uint64(q.Time)).uint32(q.Max)
	},
	func(r *Reader) ListOffsetsRequest {
		return ListOffsetsRequest{r.Partition(), int64(r.Uint64()), r.Uint32()}
	})

func putOffsets(offsets []fsm.Offset) ([]byte, error) {
	out := fields(make([]byte, 0, 8*len(offsets)))
	for _, o := range offsets {
		out = out.uint64(uint64(o))
	}
	return out, nil
}

func readOffsets(answer []byte) ([]fsm.Offset, error) {
	r := Reader{B: answer}
	offsets := make([]fsm.Offset, 0, len(answer)/8)
	for len(r.B) >= 8 {
		offsets = append(offsets, fsm.Offset(r.Uint64()))
	}
	if len(r.B) > 0 {
		return nil, ErrMalformedAnswer
	}
	return offsets, nil
}
