package calls

// memberCall asks whether the node that asks belongs to the cluster, of which a confirmed leader of
// the catalog can tell.
var memberCall = Call[Nothing, bool]{request: nothing(), answer: form[bool]{putBool, func(b []byte) (bool, error) {
	if len(b) != 1 {
		return false, ErrMalformedAnswer
	}
	return b[0] != 0, nil
}}}

// putBool is one byte, 1 for true.
func putBool(v bool) ([]byte, error) {
	if v {
		return []byte{1}, nil
	}
	return []byte{0}, nil
}
