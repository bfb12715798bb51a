package gateway

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
)

// TxnOffsetCommit, versions 0 to 5. Member and generation are checked from 3 on (KIP-447), and from
// 5 on it adds the group to the transaction (KIP-890).
//
// Kept: the offsets are pending until the transaction ends. A partition that is not there is
// UNKNOWN_TOPIC_OR_PARTITION and does not keep the others from being committed.

func handleTxnOffsetCommit(r *request) {
	req := r.body.(*kmsg.TxnOffsetCommitRequest)
	resp := req.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
	refused := r.noTransactions(req.TransactionalID)
	if refused == nil && !r.mayGroup(req.Group) {
		refused = errGroupDenied
	}
	r.transact(func(ctx context.Context) {
		passed := *req
		passed.Topics = nil
		topics := r.conn.server.catalog.Topics()
		for _, t := range req.Topics {
			out, on := kmsg.NewTxnOffsetCommitResponseTopic(), kmsg.NewTxnOffsetCommitRequestTopic()
			out.Topic, on.Topic = t.Topic, t.Topic
			var topic *fsm.Topic
			unknown := refused
			if refused == nil {
				topic, unknown = r.findNamed(topics, t.Topic)
			}
			for _, p := range t.Partitions {
				o := kmsg.NewTxnOffsetCommitResponseTopicPartition()
				o.Partition = p.Partition
				if _, err := r.findPartitionHere(topic, unknown, p.Partition); err != nil {
					o.ErrorCode = r.fail(err)
				} else {
					on.Partitions = append(on.Partitions, p)
				}
				out.Partitions = append(out.Partitions, o)
			}
			if len(on.Partitions) > 0 {
				passed.Topics = append(passed.Topics, on)
			}
			resp.Topics = append(resp.Topics, out)
		}
		if refused == nil && (len(passed.Topics) > 0 || len(req.Topics) == 0) {
			r.commitInTransaction(ctx, &passed, resp)
		}
		r.answer(resp)
	})
}

// commitInTransaction has the group's coordinator commit, and fills in what it answers.
func (r *request) commitInTransaction(ctx context.Context, passed *kmsg.TxnOffsetCommitRequest, resp *kmsg.TxnOffsetCommitResponse) {
	answer, err := r.coordinate(ctx, coordinator.ShardOf(passed.Group), passed)
	codes := map[named]int16{}
	if err == nil {
		for _, t := range answer.(*kmsg.TxnOffsetCommitResponse).Topics {
			for _, p := range t.Partitions {
				codes[named{t.Topic, p.Partition}] = p.ErrorCode
			}
		}
	}
	for i := range resp.Topics {
		for j := range resp.Topics[i].Partitions {
			p := &resp.Topics[i].Partitions[j]
			if p.ErrorCode != 0 {
				continue
			}
			code, told := codes[named{resp.Topics[i].Topic, p.Partition}]
			switch {
			case err != nil:
				p.ErrorCode = r.coordinatorCode(err)
			case !told:
				p.ErrorCode = r.note(kerr.UnknownServerError.Code)
			default:
				p.ErrorCode = r.answered(code)
			}
		}
	}
}
