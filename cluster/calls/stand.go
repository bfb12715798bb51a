package calls

// StandRequest has a group stand for election at the node that is asked.
type StandRequest struct {
	Group  string
	Term   uint64 // in which its member there was; in another one nothing happens
	Gentle bool   // an ordinary election would do
}

// A stand request is a survey, and behind it for each group in order: u64 term, u8 gentle.
var standCall = Call[[]StandRequest, Nothing]{
	request: form[[]StandRequest]{putStand, readStand},
	answer:  nothing(),
}

func putStand(all []StandRequest) ([]byte, error) {
	names := make([]string, len(all))
	for i, q := range all {
		names[i] = q.Group
	}
	out := putNames(names)
	for _, q := range all {
		gentle := uint8(0)
		if q.Gentle {
			gentle = 1
		}
		out = out.uint64(q.Term).uint8(gentle)
	}
	return out, nil
}

func readStand(payload []byte) ([]StandRequest, error) {
	names, rest, err := readNames(payload)
	if err != nil || len(rest) != 9*len(names) {
		return nil, ErrMalformed
	}
	r := Reader{B: rest}
	out := make([]StandRequest, len(names))
	for i, name := range names {
		out[i] = StandRequest{name, r.Uint64(), r.Uint8() == 1}
	}
	return out, nil
}
