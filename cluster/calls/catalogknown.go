package calls

import "github.com/trimaran-io/trimaran/fsm"

// catalogKnownCall is answered when the catalog at the node that is asked has come so far.
var catalogKnownCall = Call[fsm.Index, Nothing]{
	request: fixed(ErrMalformed,
		func(f fields, index fsm.Index) fields { return f.uint64(uint64(index)) },
		func(r *Reader) fsm.Index { return fsm.Index(r.Uint64()) }),
	answer: nothing(),
}
