package coordinator

import "encoding/binary"

// consumerProtocol is the protocol type of consumers; those of Connect's workers
// and others have no topics.
const consumerProtocol = "consumer"

// subscriptions gives the topics of all members under the generation's protocol;
// nil if they are not known, since this is no group of consumers or one of the
// subscriptions is none.
func (g *group) subscriptions() map[string]bool {
	if g.protocolType != consumerProtocol {
		return nil
	}
	topics := make(map[string]bool)
	for _, m := range g.members {
		if !addTopics(topics, m.metadata(g.protocol)) {
			return nil
		}
	}
	return topics
}

// addTopics reads a subscription as version 0 has it, with which all begin
// (ConsumerProtocolSubscription): version, topics.
func addTopics(topics map[string]bool, b []byte) bool {
	if len(b) < 6 {
		return false
	}
	n := int32(binary.BigEndian.Uint32(b[2:]))
	b = b[6:]
	for ; n > 0; n-- {
		if len(b) < 2 {
			return false
		}
		size := int(binary.BigEndian.Uint16(b))
		if b = b[2:]; size > len(b) {
			return false
		}
		topics[string(b[:size])] = true
		b = b[size:]
	}
	return true
}

// subscribes says whether the group's members read that topic, as far as can be
// known: a group of consumers whose subscriptions are not known may.
func (g *group) subscribes(topic string) bool {
	if g.subscribed == nil {
		return g.protocolType == consumerProtocol
	}
	return g.subscribed[topic]
}
