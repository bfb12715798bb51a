package calls

import "github.com/trimaran-io/trimaran/fsm"

var lastStableCall = Call[fsm.PartitionID, fsm.Offset]{
	request: onPartition(),
	answer: fixed(ErrMalformedAnswer,
		func(f fields, o fsm.Offset) fields { return f.uint64(uint64(o)) },
		func(r *Reader) fsm.Offset { return fsm.Offset(r.Uint64()) }),
}
