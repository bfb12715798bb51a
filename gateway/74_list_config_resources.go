package gateway

import (
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListConfigResources, versions 0 and 1 (KIP-714, KIP-1142).
//
// Kept: version 0 asks for subscriptions to client metrics, of which there are none;
// version 1 for any kinds, or for all when it names none: topics, and the one broker
// and its loggers. A kind that nobody knows is UNSUPPORTED_VERSION, as in Kafka.

func handleListConfigResources(r *request) {
	req := r.body.(*kmsg.ListConfigResourcesRequest)
	resp := req.ResponseKind().(*kmsg.ListConfigResourcesResponse)
	const topic, broker, logger = int8(kmsg.ConfigResourceTypeTopic), int8(kmsg.ConfigResourceTypeBroker), int8(kmsg.ConfigResourceTypeBrokerLogger)
	all := []int8{topic, broker, logger, int8(kmsg.ConfigResourceTypeClientMetrics), int8(kmsg.ConfigResourceTypeGroupConfig)}
	kinds := req.ResourceTypes
	switch {
	case req.Version == 0:
		kinds = []int8{int8(kmsg.ConfigResourceTypeClientMetrics)}
	case len(kinds) == 0:
		kinds = all
	}
	add := func(kind int8, name string) {
		out := kmsg.NewListConfigResourcesResponseConfigResource()
		out.Type, out.Name = kind, name
		resp.ConfigResources = append(resp.ConfigResources, out)
	}
	if slices.Contains(kinds, topic) && !r.catalogKnown() {
		// the list has no place to say that some may be missing
		resp.ErrorCode = r.fail(errTopicComing)
		r.answer(resp)
		return
	}
	topics := r.conn.server.catalog.Topics().All()
	for i, kind := range kinds {
		switch {
		case slices.Contains(kinds[:i], kind):
			// Once is enough.
		case !slices.Contains(all, kind):
			resp.ErrorCode, resp.ConfigResources = r.note(kerr.UnsupportedVersion.Code), nil
			r.answer(resp)
			return
		case kind == topic:
			for _, t := range topics {
				add(kind, t.Name)
			}
		case kind == broker, kind == logger:
			for _, b := range r.brokers().list {
				add(kind, strconv.Itoa(int(b.id)))
			}
		}
	}
	r.answerSized(resp, 64*len(resp.ConfigResources))
}
