package calls

import "github.com/trimaran-io/trimaran/fsm"

// ReadStableRequest asks a partition's leader for batches that a reader of that isolation may see.
type ReadStableRequest struct {
	ReadRequest
	Isolation fsm.Isolation
}

var readStableCall = Call[ReadStableRequest, fsm.Slice]{
	request: form[ReadStableRequest]{readStableRequest.put, func(b []byte) (ReadStableRequest, error) {
		q, err := readStableRequest.get(b)
		if err == nil && q.Isolation != fsm.ReadUncommitted && q.Isolation != fsm.ReadCommitted {
			err = ErrMalformed
		}
		return q, err
	}},
	answer: form[fsm.Slice]{putStableSlice, readStableSlice},
}

var readStableRequest = fixed(ErrMalformed,
	func(f fields, q ReadStableRequest) fields {
		return f.partition(q.Partition).uint64(uint64(q.From)).uint32(q.MaxBytes).uint8(uint8(q.Isolation))
	},
	func(r *Reader) ReadStableRequest {
		return ReadStableRequest{ReadRequest{r.Partition(), fsm.Offset(r.Uint64()), r.Uint32()}, fsm.Isolation(r.Uint8())}
	})

// abortedSize is that of an aborted transaction: producer id, first offset, marker's offset, last
// stable offset.
const abortedSize = 4 * 8

// putStableSlice is done with the slice's batches when it returns.
func putStableSlice(s fsm.Slice) ([]byte, error) {
	out := fields(make([]byte, 0, 28+abortedSize*len(s.Aborted)+len(s.Batches)))
	out = out.uint64(uint64(s.HighWatermark)).uint64(uint64(s.LastStable)).uint64(uint64(s.LogStart)).uint32(uint32(len(s.Aborted)))
	for _, a := range s.Aborted {
		out = out.uint64(uint64(a.ProducerID)).uint64(uint64(a.First)).uint64(uint64(a.Last)).uint64(uint64(a.LastStable))
	}
	out = append(out, s.Batches...)
	if s.Done != nil {
		s.Done()
	}
	return out, nil
}

// readStableSlice aliases the answer.
func readStableSlice(answer []byte) (s fsm.Slice, err error) {
	r := Reader{B: answer}
	s.HighWatermark, s.LastStable, s.LogStart = fsm.Offset(r.Uint64()), fsm.Offset(r.Uint64()), fsm.Offset(r.Uint64())
	rows := Reader{B: r.Bytes(int(min(uint64(r.Uint32())*abortedSize, uint64(len(answer)+1))))}
	if n := len(rows.B) / abortedSize; n > 0 {
		s.Aborted = make([]fsm.AbortedTransaction, n)
	}
	for i := range s.Aborted {
		s.Aborted[i] = fsm.AbortedTransaction{
			ProducerID: int64(rows.Uint64()), First: fsm.Offset(rows.Uint64()), Last: fsm.Offset(rows.Uint64()), LastStable: fsm.Offset(rows.Uint64()),
		}
	}
	s.Batches = r.B
	if r.Bad {
		return fsm.Slice{}, ErrMalformedAnswer
	}
	return s, nil
}
