package calls

import "github.com/trimaran-io/trimaran/fsm"

// EntriesRequest asks for entries of a partition's log, to copy them (raftlog.ParseEntries).
type EntriesRequest struct {
	Partition   fsm.PartitionID
	First, Last uint64
	MaxBytes    uint32 // a single entry may be larger
}

// maxEntriesBytes bounds EntriesRequest.MaxBytes.
const maxEntriesBytes = 1 << 26

var entriesCall = Call[EntriesRequest, []byte]{
	request: form[EntriesRequest]{entriesRequest.put, func(b []byte) (EntriesRequest, error) {
		q, err := entriesRequest.get(b)
		if err == nil && q.MaxBytes > maxEntriesBytes {
			err = ErrMalformed
		}
		return q, err
	}},
	answer: raw(),
}

var entriesRequest = fixed(ErrMalformed,
	func(f fields, q EntriesRequest) fields {
		return f.partition(q.Partition).uint64(q.First).uint64(q.Last).uint32(q.MaxBytes)
	},
	func(r *Reader) EntriesRequest {
		return EntriesRequest{r.Partition(), r.Uint64(), r.Uint64(), r.Uint32()}
	})
