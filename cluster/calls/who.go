package calls

// whoCall asks a node who leads a group, by its name. It is answered by NotLeader as soon as the
// member there follows a leader that its node reaches.
var whoCall = Call[string, Nothing]{
	request: form[string]{
		func(group string) ([]byte, error) { return []byte(group), nil },
		func(b []byte) (string, error) { return string(b), nil },
	},
	answer: nothing(),
}
