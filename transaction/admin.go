package transaction

import (
	"regexp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm/transactions"
)

// offsetsTopic is the topic that a group's offsets are shown as, with the shard as its partition:
// Kafka keeps them in it.
const offsetsTopic = "__consumer_offsets"

// describe is DescribeTransactions (KIP-664). Topics that are gone are left out.
func (c *Coordinator) describe(req *kmsg.DescribeTransactionsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DescribeTransactionsResponse)
	names := make(map[[16]byte]string)
	for _, id := range req.TransactionalIDs {
		d := kmsg.NewDescribeTransactionsResponseTransactionState()
		d.TransactionalID = id
		p, revision, known := c.shown(id)
		switch {
		case id == "":
			d.ErrorCode = kerr.InvalidRequest.Code
		case revision == 0:
			d.ErrorCode = kerr.TransactionalIDNotFound.Code
		default:
			d.State, d.TimeoutMillis, d.StartTimestamp = p.Phase.String(), p.Timeout, p.Start
			d.ProducerID, d.ProducerEpoch = p.ProducerID, p.Epoch
			if known == nil {
				scope := c.cfg.State.scope(id)
				known = &scope
			}
			d.Topics = c.describeScope(*known, names)
		}
		resp.TransactionStates = append(resp.TransactionStates, d)
	}
	return resp
}

func (c *Coordinator) describeScope(s transactions.Scope, names map[[16]byte]string) (topics []kmsg.DescribeTransactionsResponseTransactionStateTopic) {
	for i, p := range s.Partitions {
		if i == 0 || p.Topic != s.Partitions[i-1].Topic {
			name, seen := names[p.Topic]
			if !seen {
				name, _ = c.topicName(p.Topic)
				names[p.Topic] = name
			}
			topic := kmsg.NewDescribeTransactionsResponseTransactionStateTopic()
			topic.Topic = name
			topics = append(topics, topic)
		}
		last := &topics[len(topics)-1]
		last.Partitions = append(last.Partitions, p.Partition)
	}
	topics = slices.DeleteFunc(topics, func(t kmsg.DescribeTransactionsResponseTransactionStateTopic) bool { return t.Topic == "" })
	if len(s.Groups) > 0 {
		topic := kmsg.NewDescribeTransactionsResponseTransactionStateTopic()
		topic.Topic = offsetsTopic
		for _, group := range s.Groups {
			topic.Partitions = append(topic.Partitions, int32(coordinator.ShardOf(group)))
		}
		slices.Sort(topic.Partitions)
		topic.Partitions = slices.Compact(topic.Partitions)
		topics = append(topics, topic)
	}
	return topics
}

// list is ListTransactions (KIP-664, KIP-994, KIP-1152) for the shard, sorted by id.
func (c *Coordinator) list(req *kmsg.ListTransactionsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.ListTransactionsResponse)
	var phases []transactions.Phase
	for _, name := range req.StateFilters {
		phase := transactions.Empty
		for phase <= transactions.CompleteAbort && phase.String() != name {
			phase++
		}
		switch {
		case phase <= transactions.CompleteAbort:
			phases = append(phases, phase)
		case name != "Dead" && name != "PrepareEpochFence": // Kafka's; none is in them here
			resp.UnknownStateFilters = append(resp.UnknownStateFilters, name)
		}
	}
	var pattern *regexp.Regexp
	if p := req.TransactionalIDPattern; p != nil && *p != "" {
		if len(*p) <= maxPattern {
			if _, err := regexp.Compile(*p); err == nil {
				pattern, _ = regexp.Compile("^(?:" + *p + ")$") // all of the id
			}
		}
		if pattern == nil {
			resp.ErrorCode = kerr.InvalidRegularExpression.Code
			return resp
		}
	}
	now := time.Now().UnixMilli()
	for _, id := range c.cfg.State.ids() {
		p, revision, _ := c.shown(id)
		if revision == 0 ||
			len(req.ProducerIDFilters) > 0 && !slices.Contains(req.ProducerIDFilters, p.ProducerID) ||
			len(req.StateFilters) > 0 && !slices.Contains(phases, p.Phase) ||
			req.DurationFilterMillis >= 0 && now-p.Start <= req.DurationFilterMillis ||
			pattern != nil && !pattern.MatchString(id) {
			continue
		}
		s := kmsg.NewListTransactionsResponseTransactionState()
		s.TransactionalID, s.ProducerID, s.TransactionState = id, p.ProducerID, p.Phase.String()
		resp.TransactionStates = append(resp.TransactionStates, s)
	}
	return resp
}
