package calls

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/fsm"
)

// DescribeRequest asks what must be known to copy a partition's log.
type DescribeRequest struct {
	Partition fsm.PartitionID
	Have      uint64 // entry of the snapshot that the caller has
}

var describeCall = Call[DescribeRequest, raftlog.Described]{
	request: fixed(ErrMalformed,
		func(f fields, q DescribeRequest) fields { return f.partition(q.Partition).uint64(q.Have) },
		func(r *Reader) DescribeRequest { return DescribeRequest{r.Partition(), r.Uint64()} }),
	answer: form[raftlog.Described]{putDescribed, readDescribed},
}

// A described log travels as the length of the JSON (4), the JSON, the state.

func putDescribed(d raftlog.Described) ([]byte, error) {
	text, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	out := binary.BigEndian.AppendUint32(nil, uint32(len(text)))
	return append(append(out, text...), d.State...), nil
}

// readDescribed gives fsm.ErrNewer for a field that is not known: a newer program holds its log to more.
func readDescribed(answer []byte) (d raftlog.Described, err error) {
	r := Reader{B: answer}
	text := r.Bytes(int(r.Uint32()))
	if r.Bad {
		return d, ErrMalformedAnswer
	}
	if err := fsm.DecodeStrictly(text, &d); err != nil {
		return d, fmt.Errorf("answer of another node: %w", err)
	}
	if d.First == 0 || d.Index < d.First-1 {
		return d, ErrMalformedAnswer
	}
	d.State = r.B
	return d, nil
}
