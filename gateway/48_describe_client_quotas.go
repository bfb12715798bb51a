package gateway

import (
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// What kafka-configs and web interfaces ask before they show anything: of quotas,
// users and resources that have configurations. There are neither quotas nor users.

// DescribeClientQuotas, versions 0 and 1 (KIP-546).
//
// Differs: the answer is empty. Nothing is ever throttled. AlterClientQuotas is not
// served, so that nobody believes to have set one.

func handleDescribeClientQuotas(r *request) {
	resp := r.body.(*kmsg.DescribeClientQuotasRequest).ResponseKind().(*kmsg.DescribeClientQuotasResponse)
	// Null entries stand for an error, an empty list for none (KIP-546).
	resp.Entries = []kmsg.DescribeClientQuotasResponseEntry{}
	r.answer(resp)
}

// DescribeUserScramCredentials, version 0 (KIP-554).
//
// Kept: of all users, nobody; of a user by name, RESOURCE_NOT_FOUND; of one who is
// named twice, DUPLICATE_RESOURCE.

func handleDescribeUserScramCredentials(r *request) {
	req := r.body.(*kmsg.DescribeUserSCRAMCredentialsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeUserSCRAMCredentialsResponse)
	resp.Results = []kmsg.DescribeUserSCRAMCredentialsResponseResult{}
	times := map[string]int{}
	for _, u := range req.Users {
		times[u.Name]++
	}
	for _, u := range req.Users {
		if times[u.Name] == 0 {
			continue // answered
		}
		failure, why := kerr.ResourceNotFound, "there are no users"
		if times[u.Name] > 1 {
			failure, why = kerr.DuplicateResource, "named twice"
		}
		delete(times, u.Name)
		out := kmsg.NewDescribeUserSCRAMCredentialsResponseResult()
		out.User, out.ErrorCode, out.ErrorMessage = u.Name, r.note(failure.Code), &why
		resp.Results = append(resp.Results, out)
	}
	r.answer(resp)
}

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
	topics := r.session.server.cluster.Topics().All()
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
			add(kind, strconv.Itoa(int(BrokerID)))
		}
	}
	r.answerSized(resp, 64*len(resp.ConfigResources))
}
