package gateway

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DeleteTopics, versions 0 to 3.
//
// Kept: topics fail one by one. A name that stands twice in a request is
// INVALID_REQUEST for all of its places. The answer comes when the deletion is
// committed and known at this node, or with REQUEST_TIMED_OUT after the timeout,
// when it may have happened; a timeout of 0 or less only begins. Disk space is
// freed a little later.
//
// Left out: nothing disables deleting (delete.topic.enable).

func handleDeleteTopics(r *request) {
	r.background(func() {
		req := r.body.(*kmsg.DeleteTopicsRequest)
		resp := req.ResponseKind().(*kmsg.DeleteTopicsResponse)
		named := map[string]int{}
		for _, name := range req.TopicNames {
			named[name]++
		}
		errs := r.admin(req.TimeoutMillis, len(req.TopicNames), func(ctx context.Context, i int) error {
			if named[req.TopicNames[i]] > 1 {
				return fmt.Errorf("%w: the topic is named more than once", errInvalidRequest)
			}
			return r.session.server.cluster.DeleteTopic(ctx, req.TopicNames[i])
		})
		for i, name := range req.TopicNames {
			rt := kmsg.NewDeleteTopicsResponseTopic()
			rt.Topic = kmsg.StringPtr(name)
			if errs[i] != nil {
				rt.ErrorCode = r.fail(errs[i])
				rt.ErrorMessage = kmsg.StringPtr(message(errs[i]))
			}
			resp.Topics = append(resp.Topics, rt)
		}
		r.answer(resp)
	})
}
