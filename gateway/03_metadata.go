package gateway

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/security/acl"
)

// Metadata, versions 0 to 13.
//
// Kept: no topics named means all; from version 1 on, "all" is null and an empty list is none.
// Naming a topic that is not there creates it with the cluster's defaults, if that is enabled and
// the request does not forbid it (from version 4), and answers LEADER_NOT_AVAILABLE until it is in
// the catalog; from then on requests wait for the partitions' leaders. A topic named twice is
// answered once. From version 7 on partitions have leader epochs (terms of their Raft groups), from
// 10 on topics have ids, and from 12 on they can be asked for by id, which creates nothing
// (KIP-516): an id counts whatever the name beside it, which Java's admin client leaves empty.
//
// Differs: there is one broker, with the address that this client used, and it leads every
// partition, with no replicas and none in sync, unless nodes are shown (brokers.go). What happens
// to a partition's real leader is hidden; a partition that has none says so to who produces or
// fetches. A name that Kafka forbids is INVALID_TOPIC_EXCEPTION (17), as since 0.8.2; 0.8.0 failed
// the whole request.
//
// Where rights are judged, a topic that the client may not describe is
// TOPIC_AUTHORIZATION_FAILED whether it is there or not, and missing among all. Who asks for
// authorized operations (from version 8) is told what it may do.
//
// Left out: the request to bootstrap again (from 13).

// BrokerID is the id of the one broker that clients see. It is the same on every
// node and never changes: clients key what they know by it. It is not 0, since 0
// is also what a field that was never set holds.
const BrokerID int32 = 1

const (
	// catalogPatience is how long a list of all topics waits for a node that has just started.
	catalogPatience = 10 * time.Second
	catalogTick     = 20 * time.Millisecond
)

func handleMetadata(r *request) {
	req := r.body.(*kmsg.MetadataRequest)
	if all := len(req.Topics) == 0 && (req.Version == 0 || req.Topics == nil); !all || r.catalogKnown() {
		r.answerMetadata(req)
		return
	}
	// A list of all topics has no place to say that some may be missing, and who keeps it takes
	// them for gone.
	r.background(func() {
		if r.awaitCatalog() {
			r.answerMetadata(req)
		} else {
			r.hangUp(errCatalogUnknown)
		}
	})
}

// catalogKnown says whether this node knows all topics. One that is in no cluster yet does not: it
// may be about to join one that has some.
func (r *request) catalogKnown() bool { return r.conn.server.catalog.CatalogKnown() }

// awaitCatalog waits for a moment until this node, which has just started, knows all topics.
func (r *request) awaitCatalog() bool { return r.conn.server.awaitCatalog(r.reply.Patient()) }

func (s *Server) awaitCatalog(ctx context.Context) bool {
	if s.catalog.CatalogKnown() {
		return true
	}
	tick := time.NewTicker(catalogTick)
	defer tick.Stop()
	for range int(catalogPatience / catalogTick) {
		if s.catalog.CatalogKnown() {
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return false
}

func (r *request) answerMetadata(req *kmsg.MetadataRequest) {
	resp := req.ResponseKind().(*kmsg.MetadataResponse)
	shown := r.brokers()
	for _, b := range shown.list {
		broker := kmsg.NewMetadataResponseBroker()
		broker.NodeID, broker.Host, broker.Port = b.id, b.at.Host, b.at.Port
		if b.rack != "" {
			broker.Rack = &b.rack
		}
		resp.Brokers = append(resp.Brokers, broker)
	}
	resp.ControllerID = shown.controller()
	if req.IncludeClusterAuthorizedOperations {
		resp.AuthorizedOperations = r.operationsOnCluster()
	}
	s := r.conn.server
	resp.ClusterID = kmsg.StringPtr(s.nodes.ClusterID())
	mayCreate := req.Version < 4 || req.AllowAutoTopicCreation
	topics := s.catalog.Topics()
	if len(req.Topics) == 0 && (req.Version == 0 || req.Topics == nil) {
		all := topics.All()
		resp.Topics = make([]kmsg.MetadataResponseTopic, 0, len(all))
		for _, topic := range all {
			if r.seesTopic(topic.Name) {
				resp.Topics = append(resp.Topics, r.describe(topic, shown))
			}
		}
	}
	type key struct {
		name string
		id   [16]byte
	}
	seen := make(map[key]bool, len(req.Topics))
	for i := range req.Topics {
		name, id := req.Topics[i].Topic, req.Topics[i].TopicID
		byID := req.Version >= 12 && id != [16]byte{} || req.Version >= 10 && name == nil
		asked := key{id: id}
		if !byID && name != nil {
			asked = key{name: *name}
		}
		if seen[asked] {
			continue
		}
		seen[asked] = true
		topic, err := r.findTopic(topics, asked.name, asked.id, byID)
		if topic != nil {
			resp.Topics = append(resp.Topics, r.describe(topic, shown))
			continue
		}
		rt := kmsg.NewMetadataResponseTopic()
		rt.TopicID = asked.id
		if req.Version < 12 || !byID {
			rt.Topic = kmsg.StringPtr(asked.name)
		}
		if !byID && !errors.Is(err, errTopicDenied) {
			err = r.missing(asked.name, mayCreate)
		}
		rt.ErrorCode = r.fail(err)
		resp.Topics = append(resp.Topics, rt)
	}
	if req.IncludeTopicAuthorizedOperations {
		for i := range resp.Topics {
			if resp.Topics[i].ErrorCode == 0 {
				resp.Topics[i].AuthorizedOperations = r.operationsOn(acl.Topic, *resp.Topics[i].Topic, topicOperations)
			}
		}
	}
	size := 64
	for i := range resp.Topics {
		size += 40 + 34*len(resp.Topics[i].Partitions)
		for _, p := range resp.Topics[i].Partitions {
			size += 4 * (len(p.Replicas) + len(p.ISR) + len(p.OfflineReplicas))
		}
		if name := resp.Topics[i].Topic; name != nil {
			size += len(*name)
		}
	}
	r.answerSized(resp, size)
}

// missing says what to answer for a topic that is not there, and begins to create it where the
// caller may. Who may not is told that, as Kafka does, if the topic would be created.
func (r *request) missing(name string, mayCreate bool) error {
	s := r.conn.server
	if mayCreate && s.cfg.AutoCreateTopics && kafkaproto.CheckTopicName(name) == nil &&
		!r.sees(acl.Create, acl.Cluster, acl.ClusterName) && !r.may(acl.Create, acl.Topic, name) {
		return errTopicDenied
	}
	return s.topics.missing(name, mayCreate)
}

func (r *request) describe(topic *fsm.Topic, shown *brokers) kmsg.MetadataResponseTopic {
	rt := kmsg.NewMetadataResponseTopic()
	rt.Topic = kmsg.StringPtr(topic.Name)
	rt.TopicID = topic.ID
	rt.Partitions = make([]kmsg.MetadataResponseTopicPartition, len(topic.Partitions))
	for i := range rt.Partitions {
		rt.Partitions[i].Default()
		epoch, _ := r.conn.server.catalog.LeaderEpoch(fsm.PartitionID{Topic: topic.ID, Partition: int32(i)})
		rt.Partitions[i].Partition, rt.Partitions[i].Leader, rt.Partitions[i].LeaderEpoch = int32(i), shown.leader(&topic.Partitions[i]).id, int32(epoch)
		rt.Partitions[i].Replicas, rt.Partitions[i].ISR, rt.Partitions[i].OfflineReplicas = shown.replicas(&topic.Partitions[i])
	}
	return rt
}
