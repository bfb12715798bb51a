package calls

// RelayRequest is a call to a third node.
type RelayRequest struct {
	Kind     uint8
	Identity string // of the node that is meant
	Payload  [][]byte
}

// relayCall hands a call on to a node that the caller does not reach. Its answer is the whole
// answer of that node (DecodeReply).
var relayCall = Call[RelayRequest, []byte]{
	request: form[RelayRequest]{func(q RelayRequest) ([]byte, error) { return joined(relayParts(q)), nil }, readRelay},
	parts:   relayParts,
	answer:  raw(),
}

func relayParts(q RelayRequest) [][]byte {
	return append([][]byte{fields(nil).uint8(q.Kind).short(q.Identity)}, q.Payload...)
}

// readRelay takes calls only that may go through a third node.
func readRelay(payload []byte) (q RelayRequest, err error) {
	r := Reader{B: payload}
	q.Kind, q.Identity = r.Uint8(), r.Short()
	if row, known := ByKind(q.Kind); r.Bad || !known || !row.Relayed {
		return q, ErrMalformed
	}
	q.Payload = [][]byte{r.B}
	return q, nil
}
