package gateway

import (
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// findTopic finds the topic that a request means, by its id where the request's
// version has ids instead of names. The error says what to answer if it is not
// in the catalog.
func (r *request) findTopic(topics *fsm.Topics, name string, id [16]byte, byID bool) (*fsm.Topic, error) {
	s := r.session.server
	if byID {
		if topic, ok := topics.ByID(id); ok {
			return topic, nil
		}
		if s.cluster.Ready() != nil {
			return nil, errTopicComing
		}
		return nil, errUnknownTopicID
	}
	if topic, ok := topics.Lookup(name); ok {
		return topic, nil
	}
	return nil, s.unknownTopic()
}

// unknownTopic is what to say of a topic or partition that is not in the catalog
// here: that it is not there, if this node can know.
func (s *Server) unknownTopic() error {
	if s.cluster.Ready() != nil {
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
	known, newest := s.cluster.LeaderEpoch(id)
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
