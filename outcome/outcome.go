// Package outcome is the list of what may become of a request besides success.
//
// You are here: the one thing that every package above kafkaproto shares. The state machines and
// the cluster say with an Error why something was not done, or that nobody knows whether it was; it
// travels between nodes as its number, and package gateway turns it into a protocol code.
package outcome

import "errors"

// Error is a condition that a client may have to be told. The list is closed:
// package gateway maps every value to a protocol code in one switch, and package
// cluster carries the value between nodes as its number, so numbers are never
// reused.
type Error uint16

// The conditions. Each says whether the request may have taken effect.
const (
	// ErrUnknown is an error that no code below describes; unknown fate.
	ErrUnknown Error = iota + 1
	// ErrUnknownTopicOrPartition: the catalog here does not list it. Nothing happened.
	ErrUnknownTopicOrPartition
	// ErrNotLeader: the replica asked does not lead the partition. Nothing happened.
	ErrNotLeader
	// ErrNoLeader: no leader was found within the time allowed. Nothing happened.
	ErrNoLeader
	// ErrUnknownFate: the request was handed to a leader and no answer came;
	// the records may or may not be in the log, now or later.
	ErrUnknownFate
	// ErrVoid: the batch lost its place to another leader's and was not appended.
	ErrVoid
	// ErrOffsetOutOfRange: below the log start or above the log end, as the leader knows it.
	ErrOffsetOutOfRange
	// ErrStorage: a replica cannot write or read its disk, or takes no records since
	// that is full. Nothing was appended.
	ErrStorage
	// ErrCorruptMessage: a record batch's length, CRC or magic is wrong. Nothing happened.
	ErrCorruptMessage
	// ErrMessageTooLarge: larger than the topic's max.message.bytes. Nothing happened.
	ErrMessageTooLarge
	// ErrTopicExists: a topic of that name is there already.
	ErrTopicExists
	// ErrInvalidTopicName: the name breaks Kafka's rules or collides in metrics.
	ErrInvalidTopicName
	// ErrInvalidPartitions: the partition count is below 1 or above the limit.
	ErrInvalidPartitions
	// ErrInvalidReplicationFactor: below 1 or above the number of nodes.
	ErrInvalidReplicationFactor
	// ErrInvalidAssignment: a manual replica assignment cannot be taken.
	ErrInvalidAssignment
	// ErrInvalidConfig: an unknown configuration name or a value out of bounds.
	ErrInvalidConfig
	// ErrTimeout: the time allowed ran out; unknown fate.
	ErrTimeout
	// ErrShuttingDown: the node is stopping. Nothing happened.
	ErrShuttingDown
	// ErrNodeConflict: a node of that name is registered with another data directory.
	ErrNodeConflict
	// ErrClusterMismatch: the other side belongs to another cluster.
	ErrClusterMismatch
	// ErrOutOfOrderSequence: a batch of an idempotent producer does not follow its
	// last one, and is none of those remembered. Nothing happened.
	ErrOutOfOrderSequence
	// ErrInvalidProducerEpoch: the producer has a newer epoch. Nothing happened.
	ErrInvalidProducerEpoch
	// ErrPolicy: what is asked contradicts the topic's configuration. Nothing happened.
	ErrPolicy
	// ErrFeatureLevel: a node's program is too old for what is asked. Nothing happened.
	ErrFeatureLevel
	// ErrInvalidTxnState: no transaction of that producer has the partition, or it is at another
	// step. Nothing happened.
	ErrInvalidTxnState
	// ErrConcurrentTransactions: the producer's last transaction is not over. Nothing happened;
	// asking again helps.
	ErrConcurrentTransactions
	// ErrProducerFenced: another producer has the transactional id by now. Nothing happened.
	ErrProducerFenced
	// ErrInvalidProducerIDMapping: the transactional id has another producer id. Nothing happened.
	ErrInvalidProducerIDMapping
	// ErrTransactionAbortable: the transaction can only be aborted. Nothing happened.
	ErrTransactionAbortable
	// ErrTransactionCoordinatorFenced: a later transaction of the producer has been ended here.
	// Nothing happened.
	ErrTransactionCoordinatorFenced
	// ErrRemote: the records lie in the tier's store, and are not here yet. Nothing happened;
	// asking again helps, and asking another node does not.
	ErrRemote

	lastError
)

var errorTexts = [lastError]string{
	ErrUnknown:                  "unexpected error",
	ErrUnknownTopicOrPartition:  "unknown topic or partition",
	ErrNotLeader:                "not the partition's leader",
	ErrNoLeader:                 "the partition has no leader",
	ErrUnknownFate:              "no answer from the leader: the records may or may not be in the log",
	ErrVoid:                     "the batch was overtaken by another leader's and not appended",
	ErrOffsetOutOfRange:         "offset out of range",
	ErrStorage:                  "storage error",
	ErrCorruptMessage:           "corrupt message",
	ErrMessageTooLarge:          "message too large",
	ErrTopicExists:              "topic already exists",
	ErrInvalidTopicName:         "invalid topic name",
	ErrInvalidPartitions:        "invalid number of partitions",
	ErrInvalidReplicationFactor: "invalid replication factor",
	ErrInvalidAssignment:        "invalid replica assignment",
	ErrInvalidConfig:            "invalid configuration",
	ErrTimeout:                  "timed out",
	ErrShuttingDown:             "the node is stopping",
	ErrNodeConflict:             "a node of that name is registered with another data directory",
	ErrClusterMismatch:          "the other side belongs to another cluster",
	ErrOutOfOrderSequence:       "sequence number out of order",
	ErrInvalidProducerEpoch:     "the producer has a newer epoch",
	ErrFeatureLevel:             "not all nodes run a program that knows this",
	ErrPolicy:                   "not allowed by the topic's configuration",

	ErrInvalidTxnState:              "the transaction is not open here",
	ErrConcurrentTransactions:       "the producer's last transaction is not over",
	ErrProducerFenced:               "another producer has the transactional id",
	ErrInvalidProducerIDMapping:     "the transactional id has another producer id",
	ErrTransactionAbortable:         "the transaction can only be aborted",
	ErrTransactionCoordinatorFenced: "a later transaction of the producer has been ended",
	ErrRemote:                       "the records lie in a store and are not here yet",
}

// Error implements error.
func (e Error) Error() string {
	if e == 0 || e >= lastError {
		return "unlisted error"
	}
	return errorTexts[e]
}

// Code finds the Error in err's chain; ErrUnknown if there is none, 0 for nil.
func Code(err error) Error {
	if err == nil {
		return 0
	}
	var e Error
	if errors.As(err, &e) && e > 0 && e < lastError {
		return e
	}
	return ErrUnknown
}

// With gives a code to an error of another package, whose text says enough.
func With(code Error, err error) error { return coded{code, err} }

type coded struct {
	code Error
	err  error
}

func (c coded) Error() string   { return c.err.Error() }
func (c coded) Unwrap() []error { return []error{c.code, c.err} }

// NotAppended reports whether err says that surely nothing was written, so that
// a produce may be tried again without doubling records.
func NotAppended(err error) bool {
	switch Code(err) {
	case ErrNotLeader, ErrNoLeader, ErrVoid, ErrShuttingDown:
		return true
	}
	return false
}
