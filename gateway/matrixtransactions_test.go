package gateway

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/security/acl"
)

// Nobody has the transactional id txn-1 in these: who is let through hears that.
func transactionRows() (rows []matrixRow) {
	unknown := kerr.InvalidProducerIDMapping.Code
	add := func(api kmsg.Key, name string, op acl.Operation, kind acl.ResourceType, resource string, allowed, denied int16, ask func(c *matrixCase) int16, given ...acl.Binding) {
		rows = append(rows, matrixRow{api: api, name: name, op: op, kind: kind, resource: resource, given: given, allowed: allowed, denied: denied, ask: ask})
	}
	writeID, readGroup := allow(acl.TransactionalID, "txn-1", acl.Write), allow(acl.Group, "readers-1", acl.Read)
	partitions := func(version int16) func(c *matrixCase) int16 {
		return func(c *matrixCase) int16 { return addedPartition(c, version) }
	}
	add(kmsg.AddPartitionsToTxn, "of the id", acl.Write, acl.TransactionalID, "txn-1", unknown, txn53, partitions(0), allow(acl.Topic, "events-1", acl.Write))
	add(kmsg.AddPartitionsToTxn, "of the topic", acl.Write, acl.Topic, "events-1", unknown, topic29, partitions(3), writeID)
	add(kmsg.AddPartitionsToTxn, "of brokers", acl.ClusterAction, acl.Cluster, acl.ClusterName, unknown, cluster31, partitions(5), writeID, allow(acl.Topic, "events-1", acl.Write))
	offsets := func(c *matrixCase) int16 {
		req := kmsg.NewPtrAddOffsetsToTxnRequest()
		req.Version, req.TransactionalID, req.ProducerID, req.Group = 3, "txn-1", 7, "readers-1"
		return c.ask(req).(*kmsg.AddOffsetsToTxnResponse).ErrorCode
	}
	add(kmsg.AddOffsetsToTxn, "of the id", acl.Write, acl.TransactionalID, "txn-1", unknown, txn53, offsets, readGroup)
	add(kmsg.AddOffsetsToTxn, "of the group", acl.Read, acl.Group, "readers-1", unknown, group30, offsets, writeID)
	add(kmsg.EndTxn, "of the id", acl.Write, acl.TransactionalID, "txn-1", unknown, txn53, func(c *matrixCase) int16 {
		req := kmsg.NewPtrEndTxnRequest()
		req.Version, req.TransactionalID, req.ProducerID = 3, "txn-1", 7
		return c.ask(req).(*kmsg.EndTxnResponse).ErrorCode
	})
	for _, op := range []acl.Operation{acl.Alter, acl.ClusterAction} {
		add(kmsg.WriteTxnMarkers, "by "+op.String(), op, acl.Cluster, acl.ClusterName, 0, cluster31, func(c *matrixCase) int16 {
			return c.ask(markersOf(1, 7, "events-1", 0)).(*kmsg.WriteTxnMarkersResponse).Markers[0].Topics[0].Partitions[0].ErrorCode
		})
	}
	commit := func(c *matrixCase) int16 {
		return c.ask(txnCommitOf(3, 7, "events-1", 5)).(*kmsg.TxnOffsetCommitResponse).Topics[0].Partitions[0].ErrorCode
	}
	readTopic := allow(acl.Topic, "events-1", acl.Read)
	add(kmsg.TxnOffsetCommit, "of the id", acl.Write, acl.TransactionalID, "txn-1", unknown, txn53, commit, readGroup, readTopic)
	add(kmsg.TxnOffsetCommit, "of the group", acl.Read, acl.Group, "readers-1", unknown, group30, commit, writeID, readTopic)
	add(kmsg.TxnOffsetCommit, "of the topic", acl.Read, acl.Topic, "events-1", unknown, topic29, commit, readGroup, writeID)
	add(kmsg.DescribeTransactions, "of the id", acl.Describe, acl.TransactionalID, "txn-1", kerr.TransactionalIDNotFound.Code, txn53, func(c *matrixCase) int16 {
		return describedTransaction(c).ErrorCode
	})
	rows = append(rows, matrixRow{api: kmsg.DescribeTransactions, name: "of the topic", op: acl.Describe, kind: acl.Topic, resource: "events-1",
		given: []acl.Binding{allow(acl.TransactionalID, "txn-1", acl.Describe)}, denied: hidden, quiet: true, ask: func(c *matrixCase) int16 {
			c.openTransaction()
			if len(describedTransaction(c).Topics) == 0 {
				return hidden
			}
			return shown
		}},
		matrixRow{api: kmsg.ListTransactions, name: "of the id", op: acl.Describe, kind: acl.TransactionalID, resource: "txn-1", denied: hidden, quiet: true, ask: func(c *matrixCase) int16 {
			c.openTransaction()
			if len(c.ask(kmsg.NewPtrListTransactionsRequest()).(*kmsg.ListTransactionsResponse).TransactionStates) == 0 {
				return hidden
			}
			return shown
		}})
	return rows
}

// openTransaction has a super user begin a transaction of txn-1.
func (c *matrixCase) openTransaction() {
	init := kmsg.NewPtrInitProducerIDRequest()
	init.Version, init.TransactionalID, init.TransactionTimeoutMillis = 3, kmsg.StringPtr("txn-1"), 60_000
	c.asRoot(init)
	c.asRoot(partitionsOf(0, c.f.lastID, "events-1"))
}

// partitionsOf adds partition 0 of a topic to the transaction of txn-1.
func partitionsOf(version int16, producer int64, topic string) *kmsg.AddPartitionsToTxnRequest {
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.Version, req.TransactionalID, req.ProducerID = version, "txn-1", producer
	req.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: topic, Partitions: []int32{0}}}
	req.Transactions = []kmsg.AddPartitionsToTxnRequestTransaction{{TransactionalID: "txn-1", ProducerID: producer,
		Topics: []kmsg.AddPartitionsToTxnRequestTransactionTopic{{Topic: topic, Partitions: []int32{0}}}}}
	return req
}

// addedPartition is the code of that partition, or of the whole answer.
func addedPartition(c *matrixCase, version int16) int16 {
	resp := c.ask(partitionsOf(version, 7, "events-1")).(*kmsg.AddPartitionsToTxnResponse)
	switch {
	case version < 4:
		return resp.Topics[0].Partitions[0].ErrorCode
	case resp.ErrorCode != 0:
		return resp.ErrorCode
	}
	return resp.Transactions[0].Topics[0].Partitions[0].ErrorCode
}

// markersOf aborts what a producer has open in a partition.
func markersOf(version int16, producer int64, topic string, partition int32) *kmsg.WriteTxnMarkersRequest {
	req := kmsg.NewPtrWriteTxnMarkersRequest()
	req.Version = version
	req.Markers = []kmsg.WriteTxnMarkersRequestMarker{{ProducerID: producer, ProducerEpoch: 3, CoordinatorEpoch: 9,
		Topics: []kmsg.WriteTxnMarkersRequestMarkerTopic{{Topic: topic, Partitions: []int32{partition}}}}}
	return req
}

// txnCommitOf commits an offset of partition 0 in the transaction of txn-1.
func txnCommitOf(version int16, producer int64, topic string, offset int64) *kmsg.TxnOffsetCommitRequest {
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.Version, req.TransactionalID, req.Group, req.ProducerID = version, "txn-1", "readers-1", producer
	t := kmsg.NewTxnOffsetCommitRequestTopic()
	t.Topic = topic
	p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	p.Offset = offset
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	return req
}

func describedTransaction(c *matrixCase) kmsg.DescribeTransactionsResponseTransactionState {
	req := kmsg.NewPtrDescribeTransactionsRequest()
	req.TransactionalIDs = []string{"txn-1"}
	return c.ask(req).(*kmsg.DescribeTransactionsResponse).TransactionStates[0]
}
