package calls

import (
	"fmt"
	"math"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// EndOffsetsRequest ends a transaction in the offsets of a consumer group, at the leader of the
// group's shard.
type EndOffsetsRequest struct {
	Shard  fsm.PartitionID
	Group  string // at most 65535 bytes
	Marker fsm.Marker
}

var endOffsetsCall = Call[EndOffsetsRequest, Nothing]{
	request: form[EndOffsetsRequest]{putEndOffsets, readEndOffsets},
	answer:  nothing(),
}

// The request is the shard's partition, the marker, and the group's id (u16 length, bytes).

func putEndOffsets(q EndOffsetsRequest) ([]byte, error) {
	if len(q.Group) > math.MaxUint16 {
		return nil, fmt.Errorf("%w: a group's id of %d bytes", outcome.ErrUnknown, len(q.Group))
	}
	return append(fields(nil).partition(q.Shard).marker(q.Marker).uint16(uint16(len(q.Group))), q.Group...), nil
}

func readEndOffsets(payload []byte) (EndOffsetsRequest, error) {
	r := Reader{B: payload}
	q := EndOffsetsRequest{Shard: r.Partition(), Marker: r.Marker()}
	q.Group = string(r.Bytes(int(r.Uint16())))
	if r.Bad || len(r.B) > 0 || q.Shard.Topic != fsm.GroupShardsID {
		return q, ErrMalformed
	}
	return q, nil
}
