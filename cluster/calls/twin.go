package calls

// Nonce is what a caller makes up so that no answer of before fits.
type Nonce [16]byte

// TwinReply says which process answers for an identity, and proves that it has the data directory.
type TwinReply struct {
	Boot    uint64 // random, one per process
	Started uint64 // ms since the epoch
	Proof   [32]byte
}

// twinCall asks whoever has this node's identity whether it has its data directory, too.
var twinCall = Call[Nonce, TwinReply]{
	request: fixed(ErrMalformed,
		func(f fields, q Nonce) fields { return append(f, q[:]...) },
		func(r *Reader) (q Nonce) { copy(q[:], r.Bytes(len(q))); return q }),
	answer: fixed(ErrMalformedAnswer,
		func(f fields, a TwinReply) fields { return append(f.uint64(a.Boot).uint64(a.Started), a.Proof[:]...) },
		func(r *Reader) (a TwinReply) {
			a.Boot, a.Started = r.Uint64(), r.Uint64()
			copy(a.Proof[:], r.Bytes(len(a.Proof)))
			return a
		}),
}
