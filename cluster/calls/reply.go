package calls

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/outcome"
)

// An answer is: code (2), length of detail (2), detail, length of the hint's
// identity (1), identity, term (8), then the payload if code is 0.

// maxDetail bounds the text of an error that travels, in bytes.
const maxDetail = 1024

type (
	// Hint names a group's leader.
	Hint = raftgroup.Hint
	// NotLeader is outcome.ErrNotLeader with what the node that was asked knows of the leader.
	NotLeader = raftgroup.NotLeader
)

// remoteError is an error that another node answered with.
type remoteError struct {
	code   outcome.Error
	detail string
}

func (e remoteError) Error() string { return e.detail }
func (e remoteError) Unwrap() error { return e.code }

var (
	// ErrMalformed answers a request that is none.
	ErrMalformed = fmt.Errorf("%w: malformed call of another node", outcome.ErrUnknown)
	// ErrMalformedAnswer is for an answer that is none.
	ErrMalformedAnswer = fmt.Errorf("%w: malformed answer of another node", outcome.ErrUnknown)
	// errMalformedFate is for an answer that is none to a request that may have changed something.
	errMalformedFate = fmt.Errorf("%w: malformed answer of another node", outcome.ErrUnknownFate)
)

// EncodeReply gives the bytes of an answer; payload is left out if err is not nil.
func EncodeReply(payload []byte, err error) []byte {
	code := outcome.Code(err)
	detail := ""
	var h Hint
	if err != nil {
		payload = nil
		detail = err.Error()
		if len(detail) > maxDetail {
			detail = detail[:maxDetail]
		}
		var notLeader NotLeader
		if errors.As(err, &notLeader) {
			h = notLeader.Hint
		}
	}
	out := make([]byte, 0, 13+len(detail)+len(h.Identity)+len(payload))
	out = binary.BigEndian.AppendUint16(out, uint16(code))
	out = binary.BigEndian.AppendUint16(out, uint16(len(detail)))
	out = append(out, detail...)
	out = append(out, byte(len(h.Identity)))
	out = append(out, h.Identity...)
	out = binary.BigEndian.AppendUint64(out, h.Term)
	return append(out, payload...)
}

// DecodeReply gives the payload of an answer, or the error that it says: a NotLeader, or one
// that has the code that was sent. The payload aliases reply.
func DecodeReply(reply []byte) ([]byte, error) {
	r := Reader{B: reply}
	code := outcome.Error(r.Uint16())
	detail := string(r.Bytes(int(r.Uint16())))
	h := Hint{Identity: string(r.Bytes(int(r.Uint8())))}
	h.Term = r.Uint64()
	if r.Bad {
		return nil, ErrMalformedAnswer
	}
	switch code {
	case 0:
		return r.B, nil
	case outcome.ErrNotLeader:
		return nil, NotLeader{Hint: h}
	default:
		return nil, remoteError{code, detail}
	}
}
