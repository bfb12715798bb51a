package gateway

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/security/acl"
)

// AddPartitionsToTxn, versions 0 to 5. Clients speak 0 to 3; from 4 on it is between brokers, with
// several transactions at once that may be looked at only (KIP-890).
//
// Kept: a partition that is not there, or that the caller may not write to, fails the whole
// transaction's part of the request, and the others are OPERATION_NOT_ATTEMPTED.
//
// Differs: brokers here have calls of their own, so versions 4 and 5 are for who has CLUSTER_ACTION
// as a broker of Kafka's does.

func handleAddPartitionsToTxn(r *request) {
	req := r.body.(*kmsg.AddPartitionsToTxnRequest)
	resp := req.ResponseKind().(*kmsg.AddPartitionsToTxnResponse)
	if req.Version >= 4 {
		r.addPartitionsToTxns(req, resp)
		return
	}
	one := kmsg.NewAddPartitionsToTxnRequestTransaction()
	one.TransactionalID, one.ProducerID, one.ProducerEpoch = req.TransactionalID, req.ProducerID, req.ProducerEpoch
	for _, t := range req.Topics {
		topic := kmsg.NewAddPartitionsToTxnRequestTransactionTopic()
		topic.Topic, topic.Partitions = t.Topic, t.Partitions
		one.Topics = append(one.Topics, topic)
	}
	r.transact(func(ctx context.Context) {
		for _, t := range r.addPartitions(ctx, one, r.noTransactions(one.TransactionalID), r.mayTopic).Topics {
			topic := kmsg.NewAddPartitionsToTxnResponseTopic()
			topic.Topic = t.Topic
			for _, p := range t.Partitions {
				topic.Partitions = append(topic.Partitions, kmsg.AddPartitionsToTxnResponseTopicPartition{Partition: p.Partition, ErrorCode: r.answered(p.ErrorCode)})
			}
			resp.Topics = append(resp.Topics, topic)
		}
		r.answer(resp)
	})
}

func (r *request) addPartitionsToTxns(req *kmsg.AddPartitionsToTxnRequest, resp *kmsg.AddPartitionsToTxnResponse) {
	if !r.caller.everything() && !r.may(acl.ClusterAction, acl.Cluster, acl.ClusterName) {
		resp.ErrorCode = r.fail(errClusterDenied)
		r.answer(resp)
		return
	}
	if len(req.Transactions) > maxGroups {
		r.hangUp(errInvalidRequest)
		return
	}
	refused := r.conn.server.transactional()
	r.transact(func(ctx context.Context) {
		resp.Transactions = make([]kmsg.AddPartitionsToTxnResponseTransaction, len(req.Transactions))
		eachOf(len(req.Transactions), func(i int) {
			resp.Transactions[i] = r.addPartitions(ctx, req.Transactions[i], refused, func(string) bool { return true })
		})
		for _, t := range resp.Transactions {
			for _, topic := range t.Topics {
				for _, p := range topic.Partitions {
					r.note(p.ErrorCode)
				}
			}
		}
		r.answer(resp)
	})
}

// addPartitions has the coordinator add partitions to a transaction, or look whether they are in
// it. refused is why nothing of it is done; may says whether the caller may write to a topic.
func (r *request) addPartitions(ctx context.Context, t kmsg.AddPartitionsToTxnRequestTransaction, refused error, may func(topic string) bool) kmsg.AddPartitionsToTxnResponseTransaction {
	topics := r.conn.server.catalog.Topics()
	bad := false
	all := func(code func(topic string, partition int32) int16) kmsg.AddPartitionsToTxnResponseTransaction {
		out := kmsg.NewAddPartitionsToTxnResponseTransaction()
		out.TransactionalID = t.TransactionalID
		for _, asked := range t.Topics {
			topic := kmsg.NewAddPartitionsToTxnResponseTransactionTopic()
			topic.Topic = asked.Topic
			for _, partition := range asked.Partitions {
				p := kmsg.NewAddPartitionsToTxnResponseTransactionTopicPartition()
				p.Partition, p.ErrorCode = partition, code(asked.Topic, partition)
				topic.Partitions = append(topic.Partitions, p)
			}
			out.Topics = append(out.Topics, topic)
		}
		return out
	}
	if refused != nil {
		code := codeOf(refused, kmsg.AddPartitionsToTxn, r.header.Version)
		return all(func(string, int32) int16 { return code })
	}
	allowed := map[string]bool{}
	for _, asked := range t.Topics {
		if _, known := allowed[asked.Topic]; !known {
			allowed[asked.Topic] = may(asked.Topic)
		}
	}
	checked := all(func(name string, partition int32) int16 {
		var err error
		topic, known := topics.Lookup(name)
		switch {
		case !allowed[name]:
			err = errTopicDenied
		case !known:
			err = r.conn.server.unknownTopic()
		default:
			_, err = r.findPartitionHere(topic, nil, partition)
		}
		bad = bad || err != nil
		return codeOf(err, kmsg.AddPartitionsToTxn, r.header.Version)
	})
	if bad {
		for i := range checked.Topics {
			for j := range checked.Topics[i].Partitions {
				if p := &checked.Topics[i].Partitions[j]; p.ErrorCode == 0 {
					p.ErrorCode = kerr.OperationNotAttempted.Code
				}
			}
		}
		return checked
	}
	passed := kmsg.NewPtrAddPartitionsToTxnRequest()
	passed.Transactions = []kmsg.AddPartitionsToTxnRequestTransaction{t}
	answer, err := r.coordinate(ctx, coordinator.ShardOf(t.TransactionalID), passed)
	if err != nil {
		code := r.coordinatorCodeQuiet(err)
		return all(func(string, int32) int16 { return code })
	}
	codes := map[named]int16{}
	added := answer.(*kmsg.AddPartitionsToTxnResponse)
	for _, one := range added.Transactions {
		for _, topic := range one.Topics {
			for _, p := range topic.Partitions {
				codes[named{topic.Topic, p.Partition}] = p.ErrorCode
			}
		}
	}
	return all(func(name string, partition int32) int16 {
		code, told := codes[named{name, partition}]
		switch {
		case added.ErrorCode != 0:
			return added.ErrorCode
		case !told:
			return kerr.UnknownServerError.Code
		}
		return code
	})
}
