package gateway

import (
	"errors"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
	"github.com/trimaran-io/trimaran/security/acl"
)

// codeOf gives the protocol code for an error in the answer of an API in a
// version, 0 for nil. This is the only place where errors become codes.
func codeOf(err error, key kmsg.Key, version int16) int16 {
	if err == nil {
		return 0
	}
	return asKnown(kafkaError(err), key, version).Code
}

// errorCode is codeOf where every version knows the error, and nobody notes it yet.
func errorCode(err error) int16 { return kafkaError(err).Code }

// kafkaError gives Kafka's error of today for a condition.
func kafkaError(err error) *kerr.Error {
	// What the wire says of a record set has no number in outcome, unless fsm gave it one.
	switch {
	case errors.Is(err, kafkaproto.ErrTooLarge):
		return kerr.MessageTooLarge
	case errors.Is(err, kafkaproto.ErrUnsupportedCompression):
		return kerr.UnsupportedCompressionType
	case errors.Is(err, kafkaproto.ErrInvalidTimestamp):
		return kerr.InvalidTimestamp
	case errors.Is(err, kafkaproto.ErrCorrupt), errors.Is(err, kafkaproto.ErrUnknownMagic):
		return kerr.CorruptMessage
	case errors.Is(err, kafkaproto.ErrInvalidRecord):
		return kerr.InvalidRecord
	case errors.Is(err, kafkaproto.ErrTransactional):
		return kerr.InvalidTxnState
	case errors.Is(err, kafkaproto.ErrTopicName):
		return kerr.InvalidTopicException
	case errors.Is(err, errInvalidRequest), errors.Is(err, acl.ErrInvalid):
		return kerr.InvalidRequest
	case errors.Is(err, errFetchSize):
		return kerr.InvalidFetchSize
	case errors.Is(err, errTopicComing):
		return kerr.LeaderNotAvailable
	case errors.Is(err, errUnknownTopicID):
		return kerr.UnknownTopicID
	case errors.Is(err, errRequiredAcks):
		return kerr.InvalidRequiredAcks
	case errors.Is(err, errFencedLeaderEpoch):
		return kerr.FencedLeaderEpoch
	case errors.Is(err, errUnknownLeaderEpoch):
		return kerr.UnknownLeaderEpoch
	case errors.Is(err, errUnsupportedVersion):
		return kerr.UnsupportedVersion
	case errors.Is(err, errTopicDenied):
		return kerr.TopicAuthorizationFailed
	case errors.Is(err, errGroupDenied):
		return kerr.GroupAuthorizationFailed
	case errors.Is(err, errClusterDenied):
		return kerr.ClusterAuthorizationFailed
	case errors.Is(err, errTransactionalIDDenied):
		return kerr.TransactionalIDAuthorizationFailed
	case errors.Is(err, errTransactionsComing):
		return kerr.CoordinatorLoadInProgress
	}
	switch outcome.Code(err) {
	case outcome.ErrUnknown:
		return kerr.UnknownServerError
	case outcome.ErrUnknownTopicOrPartition:
		return kerr.UnknownTopicOrPartition
	case outcome.ErrNotLeader, outcome.ErrNoLeader, outcome.ErrVoid, outcome.ErrShuttingDown:
		// Surely not appended: a producer that tries again doubles nothing.
		return kerr.NotLeaderForPartition
	case outcome.ErrUnknownFate, outcome.ErrTimeout:
		return kerr.RequestTimedOut
	case outcome.ErrOffsetOutOfRange:
		return kerr.OffsetOutOfRange
	case outcome.ErrStorage, outcome.ErrRemote:
		return kerr.KafkaStorageError
	case outcome.ErrCorruptMessage:
		return kerr.CorruptMessage
	case outcome.ErrMessageTooLarge:
		return kerr.MessageTooLarge
	case outcome.ErrTopicExists:
		return kerr.TopicAlreadyExists
	case outcome.ErrInvalidTopicName:
		return kerr.InvalidTopicException
	case outcome.ErrInvalidPartitions:
		return kerr.InvalidPartitions
	case outcome.ErrInvalidReplicationFactor:
		return kerr.InvalidReplicationFactor
	case outcome.ErrInvalidAssignment:
		return kerr.InvalidReplicaAssignment
	case outcome.ErrInvalidConfig:
		return kerr.InvalidConfig
	case outcome.ErrOutOfOrderSequence:
		return kerr.OutOfOrderSequenceNumber
	case outcome.ErrInvalidProducerEpoch:
		return kerr.InvalidProducerEpoch
	case outcome.ErrFeatureLevel:
		return kerr.UnsupportedVersion
	case outcome.ErrPolicy:
		return kerr.PolicyViolation
	case outcome.ErrInvalidTxnState:
		return kerr.InvalidTxnState
	case outcome.ErrConcurrentTransactions:
		return kerr.ConcurrentTransactions
	case outcome.ErrProducerFenced:
		return kerr.ProducerFenced
	case outcome.ErrInvalidProducerIDMapping:
		return kerr.InvalidProducerIDMapping
	case outcome.ErrTransactionAbortable:
		return kerr.TransactionAbortable
	case outcome.ErrTransactionCoordinatorFenced:
		return kerr.TransactionCoordinatorFenced
	case outcome.ErrNodeConflict, outcome.ErrClusterMismatch:
		return kerr.UnknownServerError // between nodes; no client causes them
	}
	return kerr.UnknownServerError
}

// Conditions of requests that never leave the gateway.
var (
	errInvalidRequest = errors.New("invalid request")
	errFetchSize      = errors.New("negative fetch size")
	// errTopicComing: the topic is being created, or this node does not know the
	// whole catalog yet and cannot say that the topic is not there.
	errTopicComing        = errors.New("the topic cannot be used yet")
	errCatalogUnknown     = errors.New("this node has just started and does not know the topics yet")
	errUnknownTopicID     = errors.New("no topic has this id")
	errRequiredAcks       = errors.New("acks is neither -1 nor 0 nor 1")
	errUnsupportedVersion = errors.New("this version of the request does not have that")
	errTransactionsComing = errors.New("the cluster is about to know transactions")
	// What a client says of the leader's epoch, against what this node knows (KIP-320).
	errFencedLeaderEpoch  = errors.New("the leader epoch is older than the partition's")
	errUnknownLeaderEpoch = errors.New("the leader epoch is newer than the partition's")
	// What the caller has no right to. The texts name nothing: whether it is there is not to be
	// heard.
	errTopicDenied           = errors.New("not authorized to access the topic")
	errGroupDenied           = errors.New("not authorized to access the group")
	errClusterDenied         = errors.New("not authorized to do that to the cluster")
	errTransactionalIDDenied = errors.New("not authorized to use the transactional id")
)

// asKnown replaces an error by one that clients which speak that version know.
//
// Version 0 of the four old APIs is 0.8's: it knew -1 to 12, and 17 came with
// 0.8.2. How Kafka itself replaces the newer ones is kept where it does: a storage
// error is NOT_LEADER_FOR_PARTITION to whom does not know it (KIP-112), and what
// is wrong with a record was InvalidMessage. INVALID_RECORD Kafka tells everyone.
func asKnown(e *kerr.Error, key kmsg.Key, version int16) *kerr.Error {
	switch key {
	case kmsg.Fetch, kmsg.ListOffsets, kmsg.OffsetForLeaderEpoch, kmsg.DescribeProducers, kmsg.WriteTxnMarkers:
		// Of all that is worth another try, this is what each of these clients tries again at. A
		// timeout of the broker's own, or a leader who is not available, ends Java's consumer
		// (FetchCollector) and its admin client (DescribeProducersHandler,
		// AbortTransactionHandler).
		if e == kerr.RequestTimedOut || e == kerr.LeaderNotAvailable {
			e = kerr.NotLeaderForPartition
		}
	case kmsg.InitProducerID:
		// What a client asks for again, and for other reasons does not (Java's
		// TransactionManager.InitProducerIdHandler before 4.0).
		if e == kerr.NotLeaderForPartition || e == kerr.RequestTimedOut {
			e = kerr.CoordinatorLoadInProgress
		}
		return e
	case kmsg.AddPartitionsToTxn, kmsg.TxnOffsetCommit:
		// A node that does not know all topics yet.
		if e == kerr.LeaderNotAvailable {
			e = kerr.CoordinatorLoadInProgress
		}
		switch {
		case key == kmsg.TxnOffsetCommit && version < 2 && e == kerr.CoordinatorLoadInProgress:
			return kerr.CoordinatorNotAvailable // which clients before 2.0 fail at (KAFKA-7296)
		case key == kmsg.TxnOffsetCommit && version < 4 && e == kerr.TransactionAbortable:
			return kerr.InvalidTxnState // as AddPartitionsToTxnManager has it
		}
		return e
	case kmsg.OffsetCommit:
		// A node that does not know all topics yet: consumers take any other error for
		// final.
		if e == kerr.LeaderNotAvailable {
			e = kerr.CoordinatorLoadInProgress
		}
		return e
	case kmsg.Metadata:
		if e == kerr.NotLeaderForPartition || e == kerr.RequestTimedOut {
			e = kerr.LeaderNotAvailable
		}
	case kmsg.Produce:
		switch {
		case e == kerr.ConcurrentTransactions:
			// What every producer tries again without asking for metadata (ReplicaManager of
			// Kafka).
			e = kerr.NotEnoughReplicas
		case e == kerr.TransactionAbortable && version < 11:
			e = kerr.InvalidTxnState // KIP-890
		}
	default:
		return e
	}
	if e == kerr.KafkaStorageError && (key == kmsg.Produce && version <= 3 || key == kmsg.Fetch && version <= 5) {
		return kerr.NotLeaderForPartition
	}
	if version > 0 || e.Code <= kerr.OffsetMetadataTooLarge.Code || e == kerr.InvalidTopicException || e == kerr.InvalidRecord {
		return e
	}
	if e == kerr.TopicAuthorizationFailed || e == kerr.TransactionalIDAuthorizationFailed {
		return e // as Kafka says it to everyone; to those who do not know it, it is final as well
	}
	switch e {
	case kerr.KafkaStorageError:
		return kerr.NotLeaderForPartition
	case kerr.UnsupportedCompressionType, kerr.InvalidTimestamp:
		return kerr.CorruptMessage
	}
	return kerr.UnknownServerError
}

// message is an error's text for a client: what went wrong, without what wraps it
// twice, and not longer than a line.
func message(err error) string {
	text := err.Error()
	var code outcome.Error
	if text == "" && errors.As(err, &code) {
		text = code.Error()
	}
	if len(text) > 500 {
		text = strings.ToValidUTF8(text[:500], "") // a character may be cut
	}
	return text
}
