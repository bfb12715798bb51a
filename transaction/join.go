package transaction

import (
	"encoding/binary"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// What names begin with in AddPartitionsToTxn between nodes; no topic can be called so. A group's
// offsets are named by the group, a topic by its id: the leader of one of its partitions knows
// which it means, and as the coordinator's node knows the catalog another one may have its name
// still.
const (
	groupPrefix = "group:"
	idPrefix    = "id:" // then fsm.TopicID.String
)

// Leader is the Client that JoinPartition and JoinGroup are sent as.
func Leader() Client { return Client{Version: 5} }

// JoinPartition is what a partition's leader asks the transaction's coordinator before it takes the
// first batch of a transaction: to add the partition (t.Add), or whether the client has. ended is
// the number of the producer's last marker, in the partition's log or on its way there: until the
// leader has the answer and uses it there must be no other. 0: none is known. The answer is for
// Joined.
func JoinPartition(t fsm.Transaction, producerID int64, epoch int16, p fsm.PartitionID, ended int32) kmsg.Request {
	req := join(t, producerID, epoch, idPrefix+p.Topic.String(), p.Partition)
	if ended != 0 {
		req.Transactions[0].UnknownTags.Set(endedTag, binary.BigEndian.AppendUint32(nil, uint32(ended)))
	}
	return req
}

// endedTag is the tag that JoinPartition's ended stands in, 4 bytes, big endian. Kafka's are
// counted from 0 on.
const endedTag = 10_000

// endedOf gives JoinPartition's ended.
func endedOf(t kmsg.AddPartitionsToTxnRequestTransaction) (ended int32) {
	t.UnknownTags.Each(func(tag uint32, value []byte) {
		if tag == endedTag && len(value) == 4 {
			ended = int32(binary.BigEndian.Uint32(value))
		}
	})
	return ended
}

func join(t fsm.Transaction, producerID int64, epoch int16, topic string, partition int32) *kmsg.AddPartitionsToTxnRequest {
	named := kmsg.NewAddPartitionsToTxnRequestTransactionTopic()
	named.Topic, named.Partitions = topic, []int32{partition}
	txn := kmsg.NewAddPartitionsToTxnRequestTransaction()
	txn.TransactionalID, txn.ProducerID, txn.ProducerEpoch, txn.VerifyOnly = t.ID, producerID, epoch, !t.Add
	txn.Topics = append(txn.Topics, named)
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.Version = 5
	req.Transactions = append(req.Transactions, txn)
	return req
}

// JoinGroup is the same for the offsets of a group, asked by the group's leader.
func JoinGroup(t fsm.Transaction, producerID int64, epoch int16, group string) kmsg.Request {
	return join(t, producerID, epoch, groupPrefix+group, 0)
}

// Joined says what became of JoinPartition or JoinGroup: nil, it is in the transaction;
// outcome.ErrInvalidTxnState, it is not, and the client should have added it;
// ErrConcurrentTransactions, ErrProducerFenced, ErrInvalidProducerEpoch,
// ErrInvalidProducerIDMapping, ErrTransactionAbortable, ErrUnknownTopicOrPartition; or
// outcome.ErrNoLeader, nothing happened and asking again helps.
func Joined(resp kmsg.Response) error {
	r, ok := resp.(*kmsg.AddPartitionsToTxnResponse)
	if !ok || len(r.Transactions) != 1 || len(r.Transactions[0].Topics) != 1 || len(r.Transactions[0].Topics[0].Partitions) != 1 {
		return outcome.ErrUnknown
	}
	code := r.ErrorCode
	if code == 0 {
		code = r.Transactions[0].Topics[0].Partitions[0].ErrorCode
	}
	switch code {
	case 0:
		return nil
	case kerr.InvalidTxnState.Code:
		return outcome.ErrInvalidTxnState
	case kerr.ConcurrentTransactions.Code:
		return outcome.ErrConcurrentTransactions
	case kerr.ProducerFenced.Code:
		return outcome.ErrProducerFenced
	case kerr.InvalidProducerEpoch.Code:
		return outcome.ErrInvalidProducerEpoch
	case kerr.InvalidProducerIDMapping.Code, kerr.InvalidRequest.Code: // an id that nobody can have
		return outcome.ErrInvalidProducerIDMapping
	case kerr.TransactionAbortable.Code:
		return outcome.ErrTransactionAbortable
	case kerr.UnknownTopicOrPartition.Code:
		return outcome.ErrUnknownTopicOrPartition
	case kerr.NotCoordinator.Code, kerr.CoordinatorNotAvailable.Code:
		return outcome.ErrNoLeader
	}
	return outcome.ErrUnknown
}
