package gateway

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/gateway/listen"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
	"github.com/trimaran-io/trimaran/security/acl"
)

// CreateTopics, versions 0 to 7.
//
// Kept: topics fail one by one; error messages from version 1 on; validate_only.
// Partition count and replication factor -1 are the cluster's defaults (KIP-464),
// in every version, as in Kafka. A name that stands twice in a request is
// INVALID_REQUEST for all of its places. The answer comes when a topic's
// partitions have leaders, or with REQUEST_TIMED_OUT after the timeout, when the
// topic may exist already; a timeout of 0 or less only begins. From version 5 on it
// tells what was created (KIP-525), from 7 on the topic's id.
//
// Differs: a replication factor counts nodes of the cluster, though clients see
// one broker. A manual assignment can name that one only, which places the partitions
// itself; any other is INVALID_REPLICA_ASSIGNMENT.

func handleCreateTopics(r *request) {
	r.background(func() {
		req := r.body.(*kmsg.CreateTopicsRequest)
		resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
		named := map[string]int{}
		for i := range req.Topics {
			named[req.Topics[i].Topic]++
		}
		errs := r.admin(req.TimeoutMillis, len(req.Topics), func(ctx context.Context, i int) error {
			t := &req.Topics[i]
			if !r.mayTopic(t.Topic) {
				return errTopicDenied
			}
			if named[t.Topic] > 1 {
				return fmt.Errorf("%w: the topic is named more than once", errInvalidRequest)
			}
			spec, err := specOf(t)
			if err != nil {
				return err
			}
			return r.conn.server.changes.CreateTopic(ctx, spec, req.ValidateOnly)
		})
		for i := range req.Topics {
			rt := kmsg.NewCreateTopicsResponseTopic()
			rt.Topic = req.Topics[i].Topic
			if errs[i] != nil {
				rt.ErrorCode = r.fail(errs[i])
				rt.ErrorMessage = kmsg.StringPtr(message(errs[i]))
			} else {
				r.tellCreated(&rt, &req.Topics[i], req.ValidateOnly)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		r.answer(resp)
	})
}

// tellCreated says what became of a wish for a topic, or, if it was only to be
// validated, what it says: what the cluster would choose is not known then.
func (r *request) tellCreated(rt *kmsg.CreateTopicsResponseTopic, asked *kmsg.CreateTopicsRequestTopic, validateOnly bool) {
	s := r.conn.server
	topic := &fsm.Topic{Configs: map[string]string{}}
	rt.NumPartitions, rt.ReplicationFactor = asked.NumPartitions, asked.ReplicationFactor
	for _, c := range asked.Configs {
		topic.Configs[c.Name] = *c.Value
	}
	if !validateOnly {
		created, ok := s.catalog.Topics().Lookup(rt.Topic)
		if !ok {
			return // deleted again by someone else
		}
		topic = created
		rt.TopicID, rt.NumPartitions, rt.ReplicationFactor = topic.ID, int32(len(topic.Partitions)), int16(topic.ReplicationFactor)
	}
	if r.header.Version < 5 {
		return
	}
	if !r.sees(acl.DescribeConfigs, acl.Topic, rt.Topic) {
		rt.ConfigErrorCode, rt.NumPartitions, rt.ReplicationFactor = errorCode(errTopicDenied), -1, -1
		return
	}
	for _, c := range fsm.Configs() {
		value, source := s.topicConfig(topic, c)
		out := kmsg.NewCreateTopicsResponseTopicConfig()
		out.Name, out.Value, out.Source = c.Name, &value, int8(source)
		rt.Configs = append(rt.Configs, out)
	}
}

// specOf checks what can be checked without the catalog.
func specOf(t *kmsg.CreateTopicsRequestTopic) (fsm.TopicSpec, error) {
	spec := fsm.TopicSpec{Name: t.Topic, Partitions: t.NumPartitions, ReplicationFactor: t.ReplicationFactor}
	if err := kafkaproto.CheckNewTopicName(t.Topic); err != nil {
		return spec, err
	}
	if len(t.ReplicaAssignment) > 0 {
		if t.NumPartitions != -1 || t.ReplicationFactor != -1 {
			return spec, fmt.Errorf("%w: with an assignment, partition count and replication factor are -1", errInvalidRequest)
		}
		there := map[int32]bool{}
		for _, a := range t.ReplicaAssignment {
			if there[a.Partition] || a.Partition < 0 || int(a.Partition) >= len(t.ReplicaAssignment) {
				return spec, fmt.Errorf("%w: partitions are to be 0 to %d, each once, and there is a %d", outcome.ErrInvalidAssignment, len(t.ReplicaAssignment)-1, a.Partition)
			}
			there[a.Partition] = true
			if err := checkAssignment(a.Partition, a.Replicas); err != nil {
				return spec, err
			}
		}
		spec.Partitions = int32(len(t.ReplicaAssignment))
	} else if t.NumPartitions < -1 || t.NumPartitions == 0 {
		return spec, fmt.Errorf("%w: %d", outcome.ErrInvalidPartitions, t.NumPartitions)
	}
	if t.ReplicationFactor < -1 || t.ReplicationFactor == 0 {
		return spec, fmt.Errorf("%w: %d", outcome.ErrInvalidReplicationFactor, t.ReplicationFactor)
	}
	for _, c := range t.Configs {
		if c.Value == nil {
			return spec, fmt.Errorf("%w: %s has no value", outcome.ErrInvalidConfig, listen.Shown(c.Name))
		}
		if spec.Configs == nil {
			spec.Configs = map[string]string{}
		}
		spec.Configs[c.Name] = *c.Value
	}
	return spec, nil
}
