package calls

import (
	"crypto/sha256"

	"github.com/trimaran-io/trimaran/fsm"
)

// HashRequest has a node hash what its own replica of a partition has on its disk.
type HashRequest struct {
	Partition fsm.PartitionID
	From, To  fsm.Offset
	MaxBytes  uint64
}

// ReplicaHash is over batches up to an offset.
type ReplicaHash struct {
	UpTo  fsm.Offset // offset behind the last batch
	Bytes int64
	Sum   [sha256.Size]byte
	// Mark says how far what was hashed is compacted; 0: nothing of it is. Replicas that differ in
	// it need not have the same.
	Mark uint64
}

// maxHashed bounds HashRequest.MaxBytes.
const maxHashed = 1 << 40

var hashCall = Call[HashRequest, ReplicaHash]{
	request: form[HashRequest]{putHash, readHash},
	answer:  form[ReplicaHash]{putReplicaHash, readReplicaHash},
}

func putHash(q HashRequest) ([]byte, error) {
	return fields(nil).partition(q.Partition).uint64(uint64(q.From)).uint64(uint64(q.To)).uint64(q.MaxBytes), nil
}

func readHash(payload []byte) (HashRequest, error) {
	r := Reader{B: payload}
	q := HashRequest{r.Partition(), fsm.Offset(r.Uint64()), fsm.Offset(r.Uint64()), r.Uint64()}
	if r.Bad || len(r.B) > 0 || q.MaxBytes > maxHashed {
		return q, ErrMalformed
	}
	return q, nil
}

func putReplicaHash(h ReplicaHash) ([]byte, error) {
	f := append(fields(nil).uint64(uint64(h.UpTo)).uint64(uint64(h.Bytes)), h.Sum[:]...)
	if h.Mark != 0 { // older programs know of none
		f = f.uint64(h.Mark)
	}
	return f, nil
}

func readReplicaHash(answer []byte) (h ReplicaHash, err error) {
	r := Reader{B: answer}
	h.UpTo, h.Bytes = fsm.Offset(r.Uint64()), int64(r.Uint64())
	copy(h.Sum[:], r.Bytes(len(h.Sum)))
	if len(r.B) > 0 {
		h.Mark = r.Uint64()
	}
	if r.Bad || len(r.B) > 0 {
		return h, ErrMalformedAnswer
	}
	return h, nil
}
