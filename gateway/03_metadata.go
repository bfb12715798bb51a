package gateway

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// Metadata, versions 0 to 13.
//
// Kept: no topics named means all; from version 1 on, "all" is null and an empty
// list is none. Naming a topic that is not there creates it with the cluster's
// defaults, if that is enabled and the request does not forbid it (from version
// 4), and answers LEADER_NOT_AVAILABLE until it is in the catalog; from then on
// requests wait for the partitions' leaders. A topic named twice is answered once. From version 7 on partitions have leader epochs (terms of their
// Raft groups), from 10 on topics have ids, and from 12 on they can be asked for by
// id, which creates nothing (KIP-516): an id counts whatever the name beside it,
// which Java's admin client leaves empty.
//
// Differs: there is one broker, with the address that this client used, and it
// leads every partition, with no replicas and none in sync, unless nodes are shown (brokers.go). What happens to a
// partition's real leader is hidden; a partition that has none says so to who
// produces or fetches. A name that Kafka forbids is INVALID_TOPIC_EXCEPTION (17),
// as since 0.8.2; 0.8.0 failed the whole request.
//
// Who asks for authorized operations (from version 8) is told all that there are, as by
// a broker without an authorizer.
//
// Left out: the request to bootstrap again (from 13).

// BrokerID is the id of the one broker that clients see. It is the same on every
// node and never changes: clients key what they know by it. It is not 0, since 0
// is also what a field that was never set holds.
const BrokerID int32 = 1

const (
	// maxCreating bounds the topics that are being created because somebody named
	// them; naming more begins to create them when they are asked for again.
	maxCreating = 64
	// createTimeout bounds one creation, rememberFailure how long its error is
	// told before it is tried again.
	createTimeout = 30 * time.Second
	// catalogPatience is how long a list of all topics waits for a node that has just started.
	catalogPatience = 10 * time.Second
	catalogTick     = 20 * time.Millisecond
	rememberFailure = 5 * time.Second
)

func handleMetadata(r *request) {
	req := r.body.(*kmsg.MetadataRequest)
	if all := len(req.Topics) == 0 && (req.Version == 0 || req.Topics == nil); !all || r.catalogKnown() {
		r.answerMetadata(req)
		return
	}
	// A list of all topics has no place to say that some may be missing, and who keeps it takes them for gone.
	r.background(func() {
		if r.awaitCatalog() {
			r.answerMetadata(req)
		} else {
			r.hangUp(errCatalogUnknown)
		}
	})
}

// catalogKnown says whether this node knows all topics. One that is in no cluster yet does not: it may be about to
// join one that has some.
func (r *request) catalogKnown() bool { return r.session.server.cluster.CatalogKnown() }

// awaitCatalog waits for a moment until this node, which has just started, knows all topics.
func (r *request) awaitCatalog() bool {
	tick := time.NewTicker(catalogTick)
	defer tick.Stop()
	for range int(catalogPatience / catalogTick) {
		if r.catalogKnown() {
			return true
		}
		select {
		case <-tick.C:
		case <-r.session.patient.Done():
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
		broker.NodeID, broker.Host, broker.Port = b.id, b.at.host, b.at.port
		if b.rack != "" {
			broker.Rack = &b.rack
		}
		resp.Brokers = append(resp.Brokers, broker)
	}
	resp.ControllerID = shown.controller()
	if req.IncludeClusterAuthorizedOperations {
		resp.AuthorizedOperations = clusterOperations
	}
	s := r.session.server
	resp.ClusterID = kmsg.StringPtr(s.cluster.ClusterID())
	mayCreate := req.Version < 4 || req.AllowAutoTopicCreation
	topics := s.cluster.Topics()
	if len(req.Topics) == 0 && (req.Version == 0 || req.Topics == nil) {
		all := topics.All()
		resp.Topics = make([]kmsg.MetadataResponseTopic, 0, len(all))
		for _, topic := range all {
			resp.Topics = append(resp.Topics, r.describe(topic, shown))
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
		if !byID {
			err = s.topics.missing(asked.name, mayCreate)
		}
		rt.ErrorCode = r.fail(err)
		resp.Topics = append(resp.Topics, rt)
	}
	if req.IncludeTopicAuthorizedOperations {
		for i := range resp.Topics {
			if resp.Topics[i].ErrorCode == 0 {
				resp.Topics[i].AuthorizedOperations = topicOperations
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

func (r *request) describe(topic *fsm.Topic, shown *brokers) kmsg.MetadataResponseTopic {
	rt := kmsg.NewMetadataResponseTopic()
	rt.Topic = kmsg.StringPtr(topic.Name)
	rt.TopicID = topic.ID
	rt.Partitions = make([]kmsg.MetadataResponseTopicPartition, len(topic.Partitions))
	for i := range rt.Partitions {
		rt.Partitions[i].Default()
		epoch, _ := r.session.server.cluster.LeaderEpoch(fsm.PartitionID{Topic: topic.ID, Partition: int32(i)})
		rt.Partitions[i].Partition, rt.Partitions[i].Leader, rt.Partitions[i].LeaderEpoch = int32(i), shown.leader(&topic.Partitions[i]).id, int32(epoch)
		rt.Partitions[i].Replicas, rt.Partitions[i].ISR, rt.Partitions[i].OfflineReplicas = shown.replicas(&topic.Partitions[i])
	}
	return rt
}

// topicMaker creates topics that were named and are not there, in the background.
type topicMaker struct {
	server *Server

	mu      sync.Mutex
	running int
	making  map[string]*making // also those that failed lately
}

type making struct {
	over time.Time // zero: still at it
	err  error
}

func newTopicMaker(s *Server) *topicMaker {
	return &topicMaker{server: s, making: map[string]*making{}}
}

// missing says what to answer for a topic that the catalog does not list, and
// begins to create it where that is wanted and the client may.
func (t *topicMaker) missing(name string, mayCreate bool) error {
	if err := kafkaproto.CheckTopicName(name); err != nil {
		return err
	}
	if err := t.server.unknownTopic(); !errors.Is(err, outcome.ErrUnknownTopicOrPartition) || !t.server.cfg.AutoCreateTopics || !mayCreate {
		return err
	}
	if err := kafkaproto.CheckNewTopicName(name); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.making[name]; m != nil {
		if m.over.IsZero() {
			return errTopicComing
		}
		if time.Since(m.over) < rememberFailure {
			return m.err
		}
	}
	if t.running >= maxCreating || t.server.leaving.Err() != nil {
		return errTopicComing
	}
	for old, m := range t.making {
		if !m.over.IsZero() && time.Since(m.over) >= rememberFailure {
			delete(t.making, old)
		}
	}
	t.running++
	t.making[name] = &making{}
	t.server.wg.Go(func() { t.make(name) })
	return errTopicComing
}

func (t *topicMaker) make(name string) {
	ctx, cancel := context.WithTimeout(t.server.leaving, createTimeout)
	defer cancel()
	var err error = outcome.ErrUnknown
	defer func() {
		v := recover()
		switch {
		case v != nil:
			t.server.log.Error("creating a topic on first use panicked", "topic", name, "panic", v)
		case err == nil:
			t.server.log.Info("topic created on first use", "topic", name)
		default:
			t.server.log.Warn("topic not created on first use", "topic", name, "error", err)
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.running--
		if err == nil {
			delete(t.making, name)
			return
		}
		*t.making[name] = making{over: time.Now(), err: err}
	}()
	err = t.server.cluster.CreateTopic(ctx, fsm.TopicSpec{Name: name, Partitions: -1, ReplicationFactor: -1}, false)
	switch outcome.Code(err) {
	case outcome.ErrTopicExists, outcome.ErrTimeout:
		err = nil // somebody else was faster, or it is there and some partition has no leader yet
	}
}
