package gateway

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/outcome"
)

// CreatePartitions, versions 0 to 3 (KIP-195).
//
// Kept: topics fail one by one; a count that is not more than the topic has is
// INVALID_PARTITIONS; a name that stands twice is INVALID_REQUEST for all of its
// places; validate_only. The answer comes when the new partitions have leaders, or
// with REQUEST_TIMED_OUT after the timeout, when they may exist already.
//
// Differs: as in CreateTopics, a manual assignment can name the one broker only.

func handleCreatePartitions(r *request) {
	r.background(func() {
		req := r.body.(*kmsg.CreatePartitionsRequest)
		resp := req.ResponseKind().(*kmsg.CreatePartitionsResponse)
		s := r.conn.server
		named := map[string]int{}
		for i := range req.Topics {
			named[req.Topics[i].Topic]++
		}
		errs := r.admin(req.TimeoutMillis, len(req.Topics), func(ctx context.Context, i int) error {
			t := &req.Topics[i]
			if named[t.Topic] > 1 {
				return fmt.Errorf("%w: the topic is named more than once", errInvalidRequest)
			}
			topic, err := r.findNamed(s.catalog.Topics(), t.Topic)
			if err != nil {
				return err
			}
			has := len(topic.Partitions)
			if t.Assignment != nil && int(t.Count) > has && len(t.Assignment) != int(t.Count)-has {
				return fmt.Errorf("%w: %d assignments for %d new partitions", outcome.ErrInvalidAssignment, len(t.Assignment), int(t.Count)-has)
			}
			for j, a := range t.Assignment {
				if err := checkAssignment(int32(has+j), a.Replicas); err != nil {
					return err
				}
			}
			return s.changes.CreatePartitions(ctx, topic.ID, int(t.Count), req.ValidateOnly)
		})
		for i := range req.Topics {
			rt := kmsg.NewCreatePartitionsResponseTopic()
			rt.Topic = req.Topics[i].Topic
			if errs[i] != nil {
				rt.ErrorCode, rt.ErrorMessage = r.fail(errs[i]), kmsg.StringPtr(message(errs[i]))
			}
			resp.Topics = append(resp.Topics, rt)
		}
		r.answer(resp)
	})
}
