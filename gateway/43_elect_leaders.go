package gateway

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ElectLeaders, versions 0 to 2 (KIP-183, KIP-460).
//
// Kept: the one broker leads every partition and is its preferred replica, so each partition that
// is named is ELECTION_NOT_NEEDED; asked for all, null, Kafka leaves those out, and so the
// answer is empty. An election type that nobody knows is INVALID_REQUEST.
//
// Differs: which node really leads is evened out by the cluster itself, and an unclean election is
// never held.

func handleElectLeaders(r *request) {
	req := r.body.(*kmsg.ElectLeadersRequest)
	resp := req.ResponseKind().(*kmsg.ElectLeadersResponse)
	const preferred, unclean = 0, 1
	s := r.conn.server
	topics := s.catalog.Topics()
	for _, t := range req.Topics {
		rt := kmsg.NewElectLeadersResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			failure, why := kerr.ElectionNotNeeded, "the broker leads the partition already"
			switch {
			case req.ElectionType != preferred && req.ElectionType != unclean:
				failure, why = kerr.InvalidRequest, "unknown election type"
			case !topics.Has(t.Topic, p):
				failure, why = kafkaError(s.unknownTopic()), "no such partition"
			}
			rp := kmsg.NewElectLeadersResponseTopicPartition()
			rp.Partition, rp.ErrorCode, rp.ErrorMessage = p, r.note(failure.Code), &why
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	r.answer(resp)
}
