package calls

import (
	"encoding/binary"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// AppendRequest hands batches to a partition's leader.
type AppendRequest struct {
	Partition fsm.PartitionID
	// Term is the leadership that the caller means, 0 for any: a request that was on its way while
	// leadership went and came back must not land behind a later one.
	Term    uint64
	Batches []kafkaproto.Batch
}

// maxBatches bounds what a call of another node makes us allocate.
const maxBatches = 1 << 16

var appendCall = Call[AppendRequest, []fsm.Appended]{
	request: form[AppendRequest]{func(q AppendRequest) ([]byte, error) { return joined(appendParts(q)), nil }, readAppend},
	parts:   appendParts,
	answer:  form[[]fsm.Appended]{put: putAppended},
	reads:   readAppended,
}

// appendParts is the request in front of, between and with the batches, which are not copied.
func appendParts(q AppendRequest) [][]byte {
	head := fields(nil).partition(q.Partition).uint64(q.Term).uint32(uint32(len(q.Batches)))
	parts := append(make([][]byte, 0, 1+2*len(q.Batches)), head)
	for _, batch := range q.Batches {
		parts = append(parts, binary.BigEndian.AppendUint32(nil, uint32(batch.Size())), batch.Bytes())
	}
	return parts
}

func joined(parts [][]byte) (out []byte) {
	for _, part := range parts {
		out = append(out, part...)
	}
	return out
}

// readAppend is the reverse of appendParts. The batches alias payload and are whole: their
// lengths and checksums fit. What another node sends is checked here and not again further in.
func readAppend(payload []byte) (q AppendRequest, err error) {
	r := Reader{B: payload}
	q.Partition, q.Term = r.Partition(), r.Uint64()
	count := r.Uint32()
	// A batch has at least its length and its header.
	if r.Bad || count > maxBatches || int64(count)*(4+kafkaproto.BatchHeaderSize) > int64(len(r.B)) {
		return q, ErrMalformed
	}
	q.Batches = make([]kafkaproto.Batch, 0, count)
	for range count {
		batch, err := kafkaproto.ParseBatch(r.Bytes(int(r.Uint32())))
		if r.Bad || err != nil || batch.CheckCRC() != nil {
			return q, ErrMalformed
		}
		q.Batches = append(q.Batches, batch)
	}
	if len(r.B) > 0 {
		return q, ErrMalformed
	}
	return q, nil
}

// appendedSize is what the answer has for each batch, in bytes.
const appendedSize = 8 + 8 + 8 + 2

func putAppended(appended []fsm.Appended) ([]byte, error) {
	out := make([]byte, 0, appendedSize*len(appended))
	for _, a := range appended {
		out = binary.BigEndian.AppendUint64(out, uint64(a.BaseOffset))
		out = binary.BigEndian.AppendUint64(out, uint64(a.LogStart))
		out = binary.BigEndian.AppendUint64(out, uint64(a.Timestamp))
		out = binary.BigEndian.AppendUint16(out, uint16(a.Err))
	}
	return out, nil
}

func readAppended(q AppendRequest, answer []byte) ([]fsm.Appended, error) {
	if len(answer) != appendedSize*len(q.Batches) {
		return nil, errMalformedFate
	}
	r := Reader{B: answer}
	appended := make([]fsm.Appended, len(q.Batches))
	for i := range appended {
		appended[i] = fsm.Appended{
			BaseOffset: fsm.Offset(r.Uint64()),
			LogStart:   fsm.Offset(r.Uint64()),
			Timestamp:  int64(r.Uint64()),
			Err:        outcome.Error(r.Uint16()),
		}
	}
	return appended, nil
}
