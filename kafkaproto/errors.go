package kafkaproto

import "errors"

// The conditions of this package. Errors returned here wrap exactly one of
// them, with what was found where.
var (
	// ErrFrameSize: a size prefix that no frame may have. The connection cannot
	// be read any further.
	ErrFrameSize = errors.New("invalid frame size")
	// ErrMalformed: a request header or body that does not follow its schema.
	ErrMalformed = errors.New("malformed request")
	// ErrNotServed: no schema is served for that API key and version.
	ErrNotServed = errors.New("API or version not served")
	// ErrCorrupt: lengths, CRC or structure of a message set or record batch are
	// wrong (Kafka's CORRUPT_MESSAGE, 0.8's InvalidMessage, code 2).
	ErrCorrupt = errors.New("corrupt message")
	// ErrTooLarge: a message or its decompressed content is larger than allowed
	// (0.8's MessageSizeTooLarge, code 10).
	ErrTooLarge = errors.New("message too large")
	// ErrUnsupportedCompression: a codec that this format cannot carry.
	ErrUnsupportedCompression = errors.New("unsupported compression")
	// ErrUnknownMagic: a message format version that is not known there.
	ErrUnknownMagic = errors.New("unknown message format version")
	// ErrInvalidTimestamp: a producer claimed the broker's timestamp type.
	ErrInvalidTimestamp = errors.New("invalid timestamp type")
	// ErrInvalidRecord: a record batch that breaks a rule for producers (Kafka's
	// INVALID_RECORD, code 87).
	ErrInvalidRecord = errors.New("invalid record")
	// ErrTransactional: a record batch that belongs to a transaction, where none are allowed.
	ErrTransactional = errors.New("transactions are not supported yet")
	// ErrTopicName: a topic name that Kafka's rules forbid.
	ErrTopicName = errors.New("invalid topic name")
)
