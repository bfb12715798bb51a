package session

import (
	"errors"
	"fmt"
)

// Framer carries requests and answers over one kind of connection.
type Framer interface {
	// ReadFrame gives the next request without its size prefix. reserve is called
	// with the bytes that the request takes from then on, before they are taken, and
	// again when it takes more. io.EOF is the orderly end; ErrInterrupted follows
	// Interrupt.
	ReadFrame(reserve func(size int) error) ([]byte, error)
	// Write sends an answer with its size prefix, in parts that are one frame; more
	// says that another follows at once, so that both may travel together.
	Write(frame [][]byte, more bool) error
	// Flush sends what Write may have kept.
	Flush() error
	// Interrupt ends ReadFrame, now and for ever.
	Interrupt()
	// Gone reports whether the client has closed its side, also where something that it sent before
	// is still to be read. false where that cannot be known.
	Gone() bool
	// Close says why, where the transport has words for it, and closes the connection so that
	// what was written arrives. why is nil or has one of the errors below, or one of package
	// kafkaproto or of the transport.
	Close(why error)
}

// Why a session ends.
var (
	// ErrInterrupted: the server asked for the end.
	ErrInterrupted = errors.New("interrupted")
	ErrIdle        = errors.New("idle for too long")
	ErrSlow        = errors.New("a request came too slowly")
	ErrCrowded     = errors.New("the memory for requests is used up, and does not get free")
	ErrText        = errors.New("a text message; Kafka is binary")
	ErrAcksZero    = errors.New("a produce with acks=0 failed")
	// ErrLogin: it is not known who the client is. The request that it ends at may have its answer.
	ErrLogin = errors.New("the client is not logged in")
	// ErrServerLeaves: nothing more is read.
	ErrServerLeaves = errors.New("the node takes no more requests")
	// ErrAllAnswered: and whatever was read has its answer, so a client may send
	// elsewhere what it has none for.
	ErrAllAnswered = fmt.Errorf("%w: what was read is answered", ErrServerLeaves)
)
