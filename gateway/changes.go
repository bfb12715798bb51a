package gateway

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
	"github.com/trimaran-io/trimaran/security/acl"
)

// Changes is what clients change in the catalog. Each returns when the change is known at all
// connected nodes; validateOnly checks and changes nothing.
type Changes interface {
	// CreateTopic waits for the partitions' leaders, too, or until ctx ends (then
	// outcome.ErrTimeout: the topic exists).
	CreateTopic(ctx context.Context, spec fsm.TopicSpec, validateOnly bool) error
	DeleteTopic(ctx context.Context, name string) error
	// DeleteTopicByID is DeleteTopic of the topic that has that id.
	DeleteTopicByID(ctx context.Context, id fsm.TopicID) error
	// CreatePartitions gives a topic so many partitions in all, as CreateTopic.
	CreatePartitions(ctx context.Context, id fsm.TopicID, count int, validateOnly bool) error
	AlterConfigs(ctx context.Context, alter fsm.AlterConfigs, validateOnly bool) error
	// AlterBrokerConfigs is AlterConfigs for the one broker, of what has no effect here.
	AlterBrokerConfigs(ctx context.Context, alter fsm.AlterBrokerConfigs, validateOnly bool) error
	// AlterACLs adds ACLs, and removes those that filters select, which it gives filter by filter.
	AlterACLs(ctx context.Context, add []acl.Binding, remove []acl.Filter) (removed [][]acl.Binding, err error)
	AlterCredentials(ctx context.Context, alter fsm.AlterCredentials) error
	// AlterTokens changes keys of tokens and what is revoked.
	AlterTokens(ctx context.Context, alter fsm.AlterTokens) error
}

// parallelAdmin bounds the topics of one request that are worked on at once.
const parallelAdmin = 16

// admin runs work for n topics, some at once, within the request's timeout. What
// is not over then goes on for a while, and is outcome.ErrTimeout.
func (r *request) admin(timeoutMillis int32, n int, work func(ctx context.Context, i int) error) []error {
	timeout := min(max(time.Duration(timeoutMillis)*time.Millisecond, 0), maxWait)
	type result struct {
		i   int
		err error
	}
	outcomes := make(chan result, n)
	s := r.conn.server
	s.listener.Go(func() {
		ctx, cancel := context.WithTimeout(s.listener.Context(), max(timeout, minAppend))
		defer cancel()
		var all errgroup.Group
		all.SetLimit(parallelAdmin)
		for i := range n {
			all.Go(func() (_ error) {
				err := error(outcome.ErrUnknown)
				defer func() {
					if v := recover(); v != nil {
						_ = r.reply.Panicked(v)
					}
					outcomes <- result{i, err}
				}()
				err = work(ctx, i)
				return nil
			})
		}
		_ = all.Wait()
	})
	errs := make([]error, n)
	for i := range errs {
		errs[i] = fmt.Errorf("%w: still at it", outcome.ErrTimeout)
	}
	expired := time.NewTimer(timeout)
	defer expired.Stop()
	for range n {
		select {
		case o := <-outcomes:
			errs[o.i] = o.err
		case <-expired.C:
			return errs
		}
	}
	return errs
}
