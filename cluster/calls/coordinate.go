package calls

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
	"github.com/trimaran-io/trimaran/transaction"
)

// CoordinateRequest hands a request of a consumer group or of a transactional id to its
// coordinator. Request and response are Kafka's, in the version that CoordinatedVersion names.
type CoordinateRequest struct {
	Shard   fsm.PartitionID
	Client  coordinator.Client
	Request kmsg.Request
}

var coordinateCall = Call[CoordinateRequest, kmsg.Response]{
	request: form[CoordinateRequest]{putCoordinate, readCoordinate},
	answer:  form[kmsg.Response]{put: func(resp kmsg.Response) ([]byte, error) { return resp.AppendTo(nil), nil }},
	reads:   readCoordinated,
	repeats: func(q CoordinateRequest) bool { return Repeatable(q.Request) },
}

// CoordinatedVersion is coordinator.Version, for requests of transactions transaction.Version.
func CoordinatedVersion(key int16) (int16, bool) {
	if version, ok := coordinator.Version(key); ok {
		return version, true
	}
	return transaction.Version(key)
}

// Repeatable reports whether it does no harm that a request is handled twice, by two
// coordinators: it changes nothing, or nothing that is replicated, or nothing that the second one
// would change again.
func Repeatable(req kmsg.Request) bool {
	switch kmsg.Key(req.Key()) {
	case kmsg.OffsetFetch, kmsg.Heartbeat, kmsg.DescribeGroups, kmsg.ListGroups,
		kmsg.AddPartitionsToTxn, kmsg.AddOffsetsToTxn, kmsg.DescribeTransactions, kmsg.ListTransactions:
		return true
	}
	return false
}

// The request is the shard's partition, u16 key and version of Kafka's request, u16 version that
// the client spoke, id and host of the client (u16 length, bytes), and the body in Kafka's
// encoding.

func putCoordinate(q CoordinateRequest) ([]byte, error) {
	if len(q.Client.ID) > math.MaxUint16 || len(q.Client.Host) > math.MaxUint16 {
		return nil, fmt.Errorf("%w: a client's id of %d bytes", outcome.ErrUnknown, len(q.Client.ID))
	}
	out := []byte(fields(nil).partition(q.Shard))
	out = binary.BigEndian.AppendUint16(out, uint16(q.Request.Key()))
	out = binary.BigEndian.AppendUint16(out, uint16(q.Request.GetVersion()))
	out = binary.BigEndian.AppendUint16(out, uint16(q.Client.Version))
	for _, s := range []string{q.Client.ID, q.Client.Host} {
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(s))), s...)
	}
	return q.Request.AppendTo(out), nil
}

func readCoordinate(payload []byte) (q CoordinateRequest, err error) {
	r := Reader{B: payload}
	q.Shard = r.Partition()
	key, version := int16(r.Uint16()), int16(r.Uint16())
	q.Client.Version = int16(r.Uint16())
	q.Client.ID = string(r.Bytes(int(r.Uint16())))
	q.Client.Host = string(r.Bytes(int(r.Uint16())))
	if r.Bad || q.Shard.Topic != fsm.GroupShardsID {
		return q, ErrMalformed
	}
	// Both nodes must mean the same by a field.
	if known, ok := CoordinatedVersion(key); !ok || known != version {
		return q, fmt.Errorf("%w: a request %d of version %d for a coordinator is not known here", outcome.ErrUnknown, key, version)
	}
	q.Request = kmsg.RequestForKey(key)
	q.Request.SetVersion(version)
	// What the coordinator keeps must not hold the whole message, nor change with it.
	if err := q.Request.ReadFrom(bytes.Clone(r.B)); err != nil {
		return q, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return q, nil
}

func readCoordinated(q CoordinateRequest, answer []byte) (kmsg.Response, error) {
	resp := q.Request.ResponseKind()
	resp.SetVersion(q.Request.GetVersion())
	if err := resp.ReadFrom(answer); err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformedFate, err)
	}
	return resp, nil
}
