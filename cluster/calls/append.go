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
	// leadership went and came back must not land behind a later one. In a line 0 is answered with
	// a NotLeader that has the term.
	Term    uint64
	Batches []kafkaproto.Batch
}

// Place says where an append stands among those that one connection of a client has for one
// partition: its line. What it means is package replica's affair (lines.go there).
type Place struct {
	// Line is the connection's (LineOf); 0: the append stands in none.
	Line uint64
	// Run is larger than that of any append of the line whose fate was known when this one was
	// sent. Those of a run go to one leader, and are appended in order or not at all.
	Run uint64
	// Number counts the appends of a run from 0.
	Number uint32
}

// LineOf makes a line's number of one for whose connection it is and one for the connection. An
// older node has any number in place of the first.
func LineOf(client uint16, connection uint64) uint64 {
	return uint64(client)<<48 | connection&(1<<48-1)
}

// Client is the number of LineOf for whose connection it is.
func (p Place) Client() uint16 { return uint16(p.Line >> 48) }

// AppendInLineRequest hands batches to a partition's leader that stand in a line.
type AppendInLineRequest struct {
	AppendRequest
	Place Place
}

// AppendTransactionalRequest hands batches to a partition's leader that belong to a transaction, or
// came with those that do.
type AppendTransactionalRequest struct {
	AppendInLineRequest
	Transaction fsm.Transaction
}

// LineFeatureLevel is the level of the cluster from which on all nodes know AppendInLine.
const LineFeatureLevel = 4

// maxBatches bounds what a call of another node makes us allocate.
const maxBatches = 1 << 16

var appendCall = Call[AppendRequest, []fsm.Appended]{
	request: form[AppendRequest]{func(q AppendRequest) ([]byte, error) { return joined(appendParts(q)), nil }, readAppend},
	parts:   appendParts,
	answer:  form[[]fsm.Appended]{put: putAppended},
	reads:   readAppended,
}

var appendInLineCall = Call[AppendInLineRequest, []fsm.Appended]{
	request: form[AppendInLineRequest]{
		func(q AppendInLineRequest) ([]byte, error) { return joined(appendInLineParts(q)), nil }, readAppendInLine,
	},
	parts:  appendInLineParts,
	answer: form[[]fsm.Appended]{put: putAppended},
	reads: func(q AppendInLineRequest, answer []byte) ([]fsm.Appended, error) {
		return readAppended(q.AppendRequest, answer)
	},
}

var appendTransactionalCall = Call[AppendTransactionalRequest, []fsm.Appended]{
	request: form[AppendTransactionalRequest]{
		func(q AppendTransactionalRequest) ([]byte, error) { return joined(appendTransactionalParts(q)), nil }, readAppendTransactional,
	},
	parts:  appendTransactionalParts,
	answer: form[[]fsm.Appended]{put: putAppended},
	reads: func(q AppendTransactionalRequest, answer []byte) ([]fsm.Appended, error) {
		return readAppended(q.AppendRequest, answer)
	},
}

// appendParts is the request in front of, between and with the batches, which are not copied.
func appendParts(q AppendRequest) [][]byte {
	return withBatches(fields(nil).partition(q.Partition).uint64(q.Term), q.Batches)
}

func appendInLineParts(q AppendInLineRequest) [][]byte {
	return withBatches(inLine(q), q.Batches)
}

func inLine(q AppendInLineRequest) fields {
	head := fields(nil).partition(q.Partition).uint64(q.Term)
	return head.uint64(q.Place.Line).uint64(q.Place.Run).uint32(q.Place.Number)
}

// addsPartition in an AppendTransactionalRequest's flags is Transaction.Add.
const addsPartition = 1

func appendTransactionalParts(q AppendTransactionalRequest) [][]byte {
	flags := uint8(0)
	if q.Transaction.Add {
		flags |= addsPartition
	}
	head := inLine(q.AppendInLineRequest).uint8(flags).uint16(uint16(len(q.Transaction.ID)))
	return withBatches(append(head, q.Transaction.ID...), q.Batches)
}

// withBatches adds the batches to what stands in front of them.
func withBatches(head fields, batches []kafkaproto.Batch) [][]byte {
	parts := append(make([][]byte, 0, 1+2*len(batches)), head.uint32(uint32(len(batches))))
	for _, batch := range batches {
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
	q.Batches, err = readBatches(r)
	return q, err
}

// readAppendInLine is the reverse of appendInLineParts, as readAppend.
func readAppendInLine(payload []byte) (q AppendInLineRequest, err error) {
	r := Reader{B: payload}
	q.Partition, q.Term = r.Partition(), r.Uint64()
	q.Place = Place{Line: r.Uint64(), Run: r.Uint64(), Number: r.Uint32()}
	q.Batches, err = readBatches(r)
	return q, err
}

// readAppendTransactional is the reverse of appendTransactionalParts, as readAppend.
func readAppendTransactional(payload []byte) (q AppendTransactionalRequest, err error) {
	r := Reader{B: payload}
	q.Partition, q.Term = r.Partition(), r.Uint64()
	q.Place = Place{Line: r.Uint64(), Run: r.Uint64(), Number: r.Uint32()}
	flags := r.Uint8()
	q.Transaction = fsm.Transaction{ID: string(r.Bytes(int(r.Uint16()))), Add: flags&addsPartition != 0}
	if flags&^addsPartition != 0 || q.Transaction.ID == "" {
		return q, ErrMalformed
	}
	q.Batches, err = readBatches(r)
	return q, err
}

// readBatches reads the rest of a request, which is batches.
func readBatches(r Reader) (batches []kafkaproto.Batch, err error) {
	count := r.Uint32()
	// A batch has at least its length and its header.
	if r.Bad || count > maxBatches || int64(count)*(4+kafkaproto.BatchHeaderSize) > int64(len(r.B)) {
		return nil, ErrMalformed
	}
	batches = make([]kafkaproto.Batch, 0, count)
	for range count {
		batch, err := kafkaproto.ParseBatch(r.Bytes(int(r.Uint32())))
		if r.Bad || err != nil || batch.CheckCRC() != nil {
			return nil, ErrMalformed
		}
		batches = append(batches, batch)
	}
	if len(r.B) > 0 {
		return nil, ErrMalformed
	}
	return batches, nil
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
