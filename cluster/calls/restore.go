package calls

import (
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// RestoreRequest hands batches of a backup to the leader of a partition that is being restored.
type RestoreRequest struct {
	Partition fsm.PartitionID
	End       bool // these are the last
	Batches   []kafkaproto.Batch
}

// endsRestore in a RestoreRequest's flags is End.
const endsRestore = 1

// restoreCall may be asked again where no answer came: batches that are there are left out.
var restoreCall = Call[RestoreRequest, fsm.Offset]{
	request: form[RestoreRequest]{func(q RestoreRequest) ([]byte, error) { return joined(restoreParts(q)), nil }, readRestore},
	parts:   restoreParts,
	answer: fixed(ErrMalformedAnswer,
		func(f fields, next fsm.Offset) fields { return f.uint64(uint64(next)) },
		func(r *Reader) fsm.Offset { return fsm.Offset(r.Uint64()) }),
}

func restoreParts(q RestoreRequest) [][]byte {
	flags := uint8(0)
	if q.End {
		flags |= endsRestore
	}
	return withBatches(fields(nil).partition(q.Partition).uint8(flags), q.Batches)
}

// readRestore is the reverse of restoreParts, as readAppend.
func readRestore(payload []byte) (q RestoreRequest, err error) {
	r := Reader{B: payload}
	q.Partition = r.Partition()
	flags := r.Uint8()
	if flags&^endsRestore != 0 {
		return q, ErrMalformed
	}
	q.End = flags&endsRestore != 0
	q.Batches, err = readBatches(r)
	return q, err
}
