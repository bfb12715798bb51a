package gateway

import (
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// Catalog is what the gateway knows of topics and partitions. It asks nobody and does not wait.
type Catalog interface {
	// Topics gives the catalog as this node knows it: immutable, do not change.
	Topics() *fsm.Topics
	// CatalogKnown says whether Topics was once as new as the cluster's since this node has
	// started.
	CatalogKnown() bool
	// CatalogChanged gives a channel that is closed when Topics may have changed.
	CatalogChanged() <-chan struct{}
	// Ready is nil when this node serves: catalog known, caught up, leader known.
	// The error says what is missing.
	Ready() error
	// LeaderEpoch gives the epoch of the leader that this node knows, -1 for none.
	// newest is false where a newer one may have begun without this node hearing of it.
	LeaderEpoch(p fsm.PartitionID) (epoch fsm.LeaderEpoch, newest bool)
}

// findTopic finds the topic that a request means, by its id where the request's
// version has ids instead of names. The error says what to answer if it is not
// in the catalog, or if the caller has no right to it.
func (r *request) findTopic(topics *fsm.Topics, name string, id [16]byte, byID bool) (*fsm.Topic, error) {
	s := r.conn.server
	if byID {
		if topic, ok := topics.ByID(id); ok {
			if !r.mayTopic(topic.Name) {
				return nil, errTopicDenied
			}
			return topic, nil
		}
		if s.catalog.Ready() != nil {
			return nil, errTopicComing
		}
		return nil, errUnknownTopicID
	}
	return r.findNamed(topics, name)
}

// findNamed is findTopic for an API that knows topics by their names only.
func (r *request) findNamed(topics *fsm.Topics, name string) (*fsm.Topic, error) {
	if !r.mayTopic(name) {
		return nil, errTopicDenied
	}
	if topic, ok := topics.Lookup(name); ok {
		return topic, nil
	}
	return nil, r.conn.server.unknownTopic()
}

// noEpoch is the leader epoch of a client that says none.
const noEpoch = -1

// findPartition gives the id of a partition that a request names. topic and unknown are what
// findTopic gave. epoch is the leader epoch that the client knows (KIP-320), noEpoch if it says
// none. The error is what to answer: why there is no such topic, that it has no such partition as
// far as this node can know, or that the epoch is not the leader's; codeOf makes of it what the
// API's version knows.
func (r *request) findPartition(topic *fsm.Topic, unknown error, partition, epoch int32) (fsm.PartitionID, error) {
	s := r.conn.server
	if unknown != nil {
		return fsm.PartitionID{}, unknown
	}
	if partition < 0 || int(partition) >= len(topic.Partitions) {
		return fsm.PartitionID{}, s.unknownTopic()
	}
	id := fsm.PartitionID{Topic: topic.ID, Partition: partition}
	return id, s.checkLeaderEpoch(id, epoch)
}

// findPartitionHere is findPartition for an API that takes the catalog at its word: a topic that is
// in it has all of its partitions, even if this node is about to hear of more.
func (r *request) findPartitionHere(topic *fsm.Topic, unknown error, partition int32) (fsm.PartitionID, error) {
	id, err := r.findPartition(topic, unknown, partition, noEpoch)
	if err != nil && unknown == nil {
		err = outcome.ErrUnknownTopicOrPartition
	}
	return id, err
}

// unknownTopic is what to say of a topic or partition that is not in the catalog
// here: that it is not there, if this node can know.
func (s *Server) unknownTopic() error {
	if s.catalog.Ready() != nil {
		return errTopicComing
	}
	return outcome.ErrUnknownTopicOrPartition
}

// checkLeaderEpoch compares the leader epoch that a client knows, -1 for none,
// with what this node knows (KIP-320). A client may know a newer one than a node
// that only remembers what it heard: then its word counts.
func (s *Server) checkLeaderEpoch(id fsm.PartitionID, epoch int32) error {
	if epoch < 0 {
		return nil
	}
	known, newest := s.catalog.LeaderEpoch(id)
	switch {
	case known < 0 || fsm.LeaderEpoch(epoch) == known:
		return nil
	case fsm.LeaderEpoch(epoch) < known:
		return errFencedLeaderEpoch
	case newest:
		return errUnknownLeaderEpoch
	}
	return nil
}
