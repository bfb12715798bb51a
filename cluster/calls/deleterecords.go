package calls

import "github.com/trimaran-io/trimaran/fsm"

// DeleteRecordsRequest has a partition's leader move the log start up.
type DeleteRecordsRequest struct {
	Partition fsm.PartitionID
	Before    fsm.Offset // the first offset that can be read afterwards; -1 for the high watermark
}

// deleteRecordsCall may be asked again where no answer came: the log start only moves up.
var deleteRecordsCall = Call[DeleteRecordsRequest, fsm.Offset]{
	request: fixed(ErrMalformed,
		func(f fields, q DeleteRecordsRequest) fields {
			return f.partition(q.Partition).uint64(uint64(q.Before))
		},
		func(r *Reader) DeleteRecordsRequest {
			return DeleteRecordsRequest{r.Partition(), fsm.Offset(r.Uint64())}
		}),
	answer: fixed(ErrMalformedAnswer,
		func(f fields, start fsm.Offset) fields { return f.uint64(uint64(start)) },
		func(r *Reader) fsm.Offset { return fsm.Offset(r.Uint64()) }),
}
