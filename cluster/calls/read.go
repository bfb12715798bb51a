package calls

import "github.com/trimaran-io/trimaran/fsm"

// ReadRequest asks a partition's leader for committed batches.
type ReadRequest struct {
	Partition fsm.PartitionID
	From      fsm.Offset
	MaxBytes  uint32
}

var readCall = Call[ReadRequest, fsm.Slice]{
	request: fixed(ErrMalformed,
		func(f fields, q ReadRequest) fields {
			return f.partition(q.Partition).uint64(uint64(q.From)).uint32(q.MaxBytes)
		},
		func(r *Reader) ReadRequest { return ReadRequest{r.Partition(), fsm.Offset(r.Uint64()), r.Uint32()} }),
	answer: form[fsm.Slice]{putSlice, readSlice},
}

// putSlice is done with the slice's batches when it returns.
func putSlice(s fsm.Slice) ([]byte, error) {
	out := fields(make([]byte, 0, 16+len(s.Batches))).uint64(uint64(s.HighWatermark)).uint64(uint64(s.LogStart))
	out = append(out, s.Batches...)
	if s.Done != nil {
		s.Done()
	}
	return out, nil
}

// readSlice aliases the answer.
func readSlice(answer []byte) (s fsm.Slice, err error) {
	r := Reader{B: answer}
	s.HighWatermark, s.LogStart = fsm.Offset(r.Uint64()), fsm.Offset(r.Uint64())
	s.LastStable = s.HighWatermark // there are no transactions yet
	s.Batches = r.B
	if r.Bad {
		return s, ErrMalformedAnswer
	}
	return s, nil
}
