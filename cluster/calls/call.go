package calls

import (
	"context"
	"fmt"

	"github.com/trimaran-io/trimaran/outcome"
)

// Row is what the table says of a call.
type Row struct {
	Kind    uint8  // its number on the wire, never used again for another
	Name    string // in docs and logs
	Request string // what is asked, for docs/calls.md
	Answer  string // what comes back, for docs/calls.md
	// Relayed: it may go through a third node. Only what is answered alike whoever asks may.
	Relayed bool
	// Early: a node answers it before it is in a cluster.
	Early bool
	// Repeats: it changes nothing, or nothing that a second one would change again. An answer
	// that did not come is as good as a request that was not sent.
	Repeats bool
	// FeatureLevel is that of the cluster from which on all nodes know it; 0: all do.
	FeatureLevel int
}

// Caller takes a call to a node, and gives the payload of its answer. The parts of a payload are
// sent one after another and must not be changed any more. An error for which outcome.NotAppended
// holds means that nothing was changed there; one with the code outcome.ErrUnknownFate that it is
// not known.
type Caller interface {
	Call(ctx context.Context, identity string, kind uint8, payload ...[]byte) ([]byte, error)
}

// Call is one thing that a node asks another: Q is the request, A its answer.
type Call[Q, A any] struct {
	Row
	request form[Q]
	answer  form[A]
	parts   func(Q) [][]byte           // the request in more than one piece; nil: it is one
	reads   func(Q, []byte) (A, error) // the answer to that request; nil: answer.get
	repeats func(Q) bool               // Repeats of that request; nil: of all
}

// Ask asks a node. Errors are those of the other node's answer, those of the Caller, and
// ErrMalformedAnswer. Where the call Repeats none has the code outcome.ErrUnknownFate.
func (c *Call[Q, A]) Ask(ctx context.Context, to Caller, identity string, q Q) (answer A, err error) {
	payload, err := c.payload(q)
	if err != nil {
		return answer, err
	}
	return c.AskWith(ctx, to, identity, q, payload...)
}

// AskWith is Ask with the bytes of the request, for who had to look at them first (Payload).
func (c *Call[Q, A]) AskWith(ctx context.Context, to Caller, identity string, q Q, payload ...[]byte) (answer A, err error) {
	reply, err := to.Call(ctx, identity, c.Kind, payload...)
	if outcome.Code(err) == outcome.ErrUnknownFate && c.repeated(q) {
		err = fmt.Errorf("%w: %v", outcome.ErrNoLeader, err)
	}
	if err != nil {
		return answer, err
	}
	return c.Read(q, reply)
}

func (c *Call[Q, A]) payload(q Q) ([][]byte, error) {
	if c.parts != nil {
		return c.parts(q), nil
	}
	payload, err := c.request.put(q)
	if err != nil || payload == nil {
		return nil, err
	}
	return [][]byte{payload}, nil
}

func (c *Call[Q, A]) repeated(q Q) bool {
	if c.repeats != nil {
		return c.repeats(q)
	}
	return c.Repeats
}

// Payload gives the bytes of a request, which AskWith takes.
func (c *Call[Q, A]) Payload(q Q) ([]byte, error) { return c.request.put(q) }

// Read gives what an answer to that request says, for who did not Ask.
func (c *Call[Q, A]) Read(q Q, answer []byte) (A, error) {
	if c.reads != nil {
		return c.reads(q, answer)
	}
	return c.answer.get(answer)
}
