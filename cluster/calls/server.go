package calls

import (
	"context"
	"fmt"

	"github.com/trimaran-io/trimaran/outcome"
)

// Server answers the calls of other nodes. Its functions are given by Handle before it is used
// by more than one goroutine; from then on nothing in it changes.
type Server struct {
	// Open says whether this node answers a call now. One that it does not is told NotLeader.
	Open    func(Row) bool
	answers [256]func(ctx context.Context, from string, payload []byte) ([]byte, error)
}

// Handle gives the function that answers a call. It runs in a goroutine of its own for each
// request; from is the identity of the node that asks, and the request is the function's to keep.
func Handle[Q, A any](s *Server, c *Call[Q, A], answer func(ctx context.Context, from string, q Q) (A, error)) {
	s.answers[c.Kind] = func(ctx context.Context, from string, payload []byte) ([]byte, error) {
		q, err := c.request.get(payload)
		if err != nil {
			return nil, err
		}
		a, err := answer(ctx, from, q)
		if err != nil {
			return nil, err
		}
		return c.answer.put(a)
	}
}

// Serve gives the whole answer to a call, with the error in it if there is one.
func (s *Server) Serve(ctx context.Context, from string, kind uint8, payload []byte) []byte {
	return EncodeReply(s.Answer(ctx, from, kind, payload))
}

// Answer gives the payload of the answer to a call. A kind that is not known is outcome.ErrUnknown.
func (s *Server) Answer(ctx context.Context, from string, kind uint8, payload []byte) ([]byte, error) {
	row, known := ByKind(kind)
	if s.Open != nil && !s.Open(row) {
		return nil, NotLeader{}
	}
	answer := s.answers[kind]
	if !known || answer == nil {
		return nil, fmt.Errorf("%w: call %d is not known here", outcome.ErrUnknown, kind)
	}
	return answer(ctx, from, payload)
}
