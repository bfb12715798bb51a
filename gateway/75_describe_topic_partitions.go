package gateway

import (
	"cmp"
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/security/acl"
)

// DescribeTopicPartitions, version 0 (KIP-966).
//
// Says what Metadata says, sorted by topic, at most 2000 partitions at once; the
// cursor is where the next request goes on. No topics named means all. Naming a
// topic never creates it.
//
// Left out: replicas of all kinds, which replication below the protocol does not
// have. Authorized operations are all that there are, as without an authorizer.

// maxDescribed is Kafka's default of max.request.partition.size.limit.
const maxDescribed = 2000

func handleDescribeTopicPartitions(r *request) {
	req := r.body.(*kmsg.DescribeTopicPartitionsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeTopicPartitionsResponse)
	s := r.conn.server
	topics := s.catalog.Topics()
	var names []string
	for _, t := range req.Topics {
		names = append(names, t.Topic)
	}
	if len(names) == 0 && !r.catalogKnown() {
		r.hangUp(errCatalogUnknown) // the answer has no place for an error
		return
	}
	if len(names) == 0 {
		for _, t := range topics.All() {
			if r.seesTopic(t.Name) {
				names = append(names, t.Name)
			}
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	first := int32(0)
	if c := req.Cursor; c != nil {
		if c.Partition < 0 {
			r.refuseCursor(req, resp)
			return
		}
		i, found := slices.BinarySearchFunc(names, c.Topic, cmp.Compare[string])
		names = names[i:]
		if found {
			first = c.Partition
		}
	}
	left := min(max(int(req.ResponsePartitionLimit), 1), maxDescribed)
	for _, name := range names {
		if left <= 0 {
			resp.NextCursor = &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: name}
			break
		}
		rt, next := r.describePartitions(topics, name, first, left)
		if rt.ErrorCode == 0 {
			rt.AuthorizedOperations = r.operationsOn(acl.Topic, name, topicOperations)
		}
		resp.Topics = append(resp.Topics, rt)
		if next >= 0 {
			resp.NextCursor = &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: name, Partition: next}
			break
		}
		left -= max(len(rt.Partitions), 1) // a name that is not there takes room as well
		first = 0
	}
	r.answer(resp)
}

// refuseCursor answers a cursor that cannot be: only topics have a place for an error,
// so without any the connection ends.
func (r *request) refuseCursor(req *kmsg.DescribeTopicPartitionsRequest, resp *kmsg.DescribeTopicPartitionsResponse) {
	if len(req.Topics) == 0 {
		r.hangUp(errInvalidRequest)
		return
	}
	for i := range req.Topics {
		rt := kmsg.NewDescribeTopicPartitionsResponseTopic()
		rt.Topic, rt.ErrorCode = &req.Topics[i].Topic, r.fail(errInvalidRequest)
		resp.Topics = append(resp.Topics, rt)
	}
	r.answer(resp)
}

// describePartitions describes at most limit partitions of a topic, from first on.
// next is the one to go on with, -1 if there is none.
func (r *request) describePartitions(topics *fsm.Topics, name string, first int32, limit int) (rt kmsg.DescribeTopicPartitionsResponseTopic, next int32) {
	rt = kmsg.NewDescribeTopicPartitionsResponseTopic()
	rt.Topic = &name
	topic, err := r.findNamed(topics, name)
	if invalid := kafkaproto.CheckTopicName(name); invalid != nil && !errors.Is(err, errTopicDenied) {
		err = invalid
	}
	if err != nil {
		rt.ErrorCode = r.fail(err)
		return rt, -1
	}
	rt.TopicID = topic.ID
	first = min(first, int32(len(topic.Partitions)))
	last := min(first+int32(limit), int32(len(topic.Partitions)))
	rt.Partitions = make([]kmsg.DescribeTopicPartitionsResponseTopicPartition, 0, last-first)
	shown := r.brokers()
	for i := first; i < last; i++ {
		p := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
		epoch, _ := r.conn.server.catalog.LeaderEpoch(fsm.PartitionID{Topic: topic.ID, Partition: i})
		p.Partition, p.LeaderID, p.LeaderEpoch = i, shown.leader(&topic.Partitions[i]).id, int32(epoch)
		p.Replicas, p.ISR, p.OfflineReplicas = shown.replicas(&topic.Partitions[i])
		p.EligibleLeaderReplicas, p.LastKnownELR = []int32{}, []int32{} // not null: Java reads them
		rt.Partitions = append(rt.Partitions, p)
	}
	if int(last) < len(topic.Partitions) {
		return rt, last
	}
	return rt, -1
}
