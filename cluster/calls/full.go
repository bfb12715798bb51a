package calls

// fullCall says that the caller's disk is full, or not any more.
var fullCall = Call[bool, Nothing]{
	request: form[bool]{putBool, func(b []byte) (bool, error) {
		if len(b) != 1 || b[0] > 1 {
			return false, ErrMalformed
		}
		return b[0] == 1, nil
	}},
	answer: nothing(),
}
