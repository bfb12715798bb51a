package transaction

import (
	"context"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/fsm/transactions"
)

// addPartitions is AddPartitionsToTxn: of clients, one transaction; of leaders (JoinPartition,
// JoinGroup), one or more, to be added or verified.
func (c *Coordinator) addPartitions(ctx context.Context, client Client, req *kmsg.AddPartitionsToTxnRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.AddPartitionsToTxnResponse)
	for _, t := range req.Transactions {
		answer := kmsg.NewAddPartitionsToTxnResponseTransaction()
		answer.TransactionalID = t.TransactionalID
		codes, err := c.addTo(ctx, client, t)
		if err != nil {
			return nil, err
		}
		for _, topic := range t.Topics {
			answered := kmsg.NewAddPartitionsToTxnResponseTransactionTopic()
			answered.Topic = topic.Topic
			for _, partition := range topic.Partitions {
				p := kmsg.NewAddPartitionsToTxnResponseTransactionTopicPartition()
				p.Partition, p.ErrorCode = partition, codes(topic.Topic, partition)
				answered.Partitions = append(answered.Partitions, p)
			}
			answer.Topics = append(answer.Topics, answered)
		}
		resp.Transactions = append(resp.Transactions, answer)
	}
	return resp, nil
}

// addTo adds or verifies what is named for one transaction, and gives the code of each partition.
func (c *Coordinator) addTo(ctx context.Context, client Client, t kmsg.AddPartitionsToTxnRequestTransaction) (func(string, int32) int16, error) {
	all := func(code int16) func(string, int32) int16 {
		code = told(code, client.Version, 2)
		return func(string, int32) int16 { return code }
	}
	if code := c.refused(t.TransactionalID); code != 0 {
		return all(code), nil
	}
	scope, topics, ok := c.scopeOf(t.Topics)
	if !ok {
		return func(topic string, _ int32) int16 {
			if _, known := topics[topic]; !known && !strings.HasPrefix(topic, groupPrefix) {
				return kerr.UnknownTopicOrPartition.Code
			}
			return kerr.OperationNotAttempted.Code
		}, nil
	}
	from := identity{t.ProducerID, t.ProducerEpoch}
	if t.VerifyOnly {
		code, missing := c.verify(t.TransactionalID, from, scope)
		if err := c.confirm(ctx); err != nil {
			return nil, err
		}
		return func(topic string, partition int32) int16 {
			if code == 0 && missing(topic, topics[topic], partition) {
				return kerr.TransactionAbortable.Code
			}
			return code
		}, nil
	}
	version, ended := byte(0), int32(0)
	if client.Version >= 4 {
		version, ended = 2, endedOf(t)
	}
	s, err := c.ask(ctx, t.TransactionalID, func(v view) step {
		if c.stands(v, from, version, ended, scope) {
			return step{joins: true, scope: scope, told: none}
		}
		return c.decideAdd(v, from, version, scope)
	})
	if err != nil {
		return nil, err
	}
	return all(s.code), nil
}

// scopeOf gives the partitions and groups named, and the ids of topics; false: one is not known.
func (c *Coordinator) scopeOf(named []kmsg.AddPartitionsToTxnRequestTransactionTopic) (s transactions.Scope, topics map[string]fsm.TopicID, ok bool) {
	topics, ok = make(map[string]fsm.TopicID), true
	for _, topic := range named {
		if group, is := strings.CutPrefix(topic.Topic, groupPrefix); is {
			s.Groups = append(s.Groups, group)
			continue
		}
		id, known := topics[topic.Topic]
		if !known {
			id, known = c.named(topic.Topic)
		}
		if !known {
			ok = false
			continue
		}
		topics[topic.Topic] = id
		for _, partition := range topic.Partitions {
			s.Partitions = append(s.Partitions, fsm.PartitionID{Topic: id, Partition: partition})
		}
	}
	return s, topics, ok
}

// named gives the id of a topic that a client named, or a leader (idPrefix).
func (c *Coordinator) named(topic string) (id fsm.TopicID, known bool) {
	if text, is := strings.CutPrefix(topic, idPrefix); is {
		return id, id.UnmarshalText([]byte(text)) == nil
	}
	return c.topicID(topic)
}

func (c *Coordinator) addOffsets(ctx context.Context, client Client, req *kmsg.AddOffsetsToTxnRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.AddOffsetsToTxnResponse)
	switch code := c.refused(req.TransactionalID); {
	case code != 0:
		resp.ErrorCode = code
	case len(req.Group) == 0 || len(req.Group) > transactions.MaxGroupID:
		resp.ErrorCode = kerr.InvalidGroupID.Code
	default:
		from, scope := identity{req.ProducerID, req.ProducerEpoch}, transactions.Scope{Groups: []string{req.Group}}
		s, err := c.ask(ctx, req.TransactionalID, func(v view) step { return c.decideAdd(v, from, 0, scope) })
		if err != nil {
			return nil, err
		}
		resp.ErrorCode = told(s.code, client.Version, 2)
	}
	return resp, nil
}

// decideAdd adds to the transaction, which begins if there is none.
func (c *Coordinator) decideAdd(v view, from identity, version byte, scope transactions.Scope) step {
	p := v.producer
	switch {
	case v.revision == 0:
		return refuse(kerr.InvalidProducerIDMapping)
	case p.Phase.Preparing() && from == after(p):
		return step{waits: true}
	case p.ProducerID != from.producerID:
		return refuse(kerr.InvalidProducerIDMapping)
	case p.Epoch != from.epoch:
		return refuse(kerr.ProducerFenced)
	}
	missing, partitions, groups := scope, 0, 0
	if !v.cleared {
		missing, partitions, groups = c.cfg.State.missing(v.id, scope)
	}
	switch {
	case p.Phase == transactions.Ongoing && len(missing.Partitions)+len(missing.Groups) == 0:
		return step{told: none}
	case partitions+len(v.scope.Partitions)+len(missing.Partitions) > transactions.MaxPartitions,
		groups+len(v.scope.Groups)+len(missing.Groups) > transactions.MaxGroups,
		c.cfg.State.size()+costOf(missing) > c.maxState:
		return refuse(kerr.TransactionAbortable)
	}
	if p.Phase != transactions.Ongoing {
		p = begins(p, v.now)
	}
	p.Version, p.Previous, p.Updated = version, p.ProducerID, v.now
	return step{set: &p, scope: missing, told: none}
}

// begins is what becomes of p when a transaction begins.
func begins(p transactions.Producer, now int64) transactions.Producer {
	p.Phase, p.Start, p.Number = transactions.Ongoing, now, nextNumber(p.Number)
	p.Previous, p.Updated = p.ProducerID, now
	return p
}

// nextNumber is the number of the transaction after that (fsm.Marker). None is 0.
func nextNumber(n int32) int32 {
	if n == -1 {
		return 1
	}
	return n + 1
}

func costOf(s transactions.Scope) int {
	n := transactions.CostPartition * len(s.Partitions)
	for _, g := range s.Groups {
		n += transactions.CostGroup + len(g)
	}
	return n
}

// verify says whether the transaction may go on, and which partitions and groups are not in it.
func (c *Coordinator) verify(id string, from identity, scope transactions.Scope) (int16, func(topic string, id fsm.TopicID, partition int32) bool) {
	p, revision := c.cfg.State.lookUp(id)
	switch {
	case revision == 0 || p.ProducerID != from.producerID:
		return kerr.InvalidProducerIDMapping.Code, nil
	case p.Epoch != from.epoch:
		return kerr.ProducerFenced.Code, nil
	case p.Phase.Preparing():
		return kerr.ConcurrentTransactions.Code, nil
	}
	missing, _, _ := c.cfg.State.missing(id, scope)
	partitions, groups := make(map[fsm.PartitionID]bool), make(map[string]bool)
	for _, p := range missing.Partitions {
		partitions[p] = true
	}
	for _, g := range missing.Groups {
		groups[g] = true
	}
	return 0, func(topic string, id fsm.TopicID, partition int32) bool {
		if group, is := strings.CutPrefix(topic, groupPrefix); is {
			return groups[group]
		}
		return partitions[fsm.PartitionID{Topic: id, Partition: partition}]
	}
}
