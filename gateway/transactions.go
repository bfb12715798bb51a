package gateway

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// Transactions: a transactional id's requests go to its coordinator, which runs where the shard of
// consumer groups with that id is led, as those of groups go to theirs.

// transactional says whether the cluster has transactions, which is when all nodes know them. The
// error is errTransactionsComing where they do and the level is about to rise, as in a cluster's
// first second, or where this node does not know the catalog yet; else outcome.ErrFeatureLevel.
func (s *Server) transactional() error {
	topics := s.catalog.Topics()
	switch {
	case topics.FeatureLevel() >= fsm.LevelTransactions:
		return nil
	case s.catalog.Ready() != nil, topics.NextFeatureLevel() >= fsm.LevelTransactions:
		return errTransactionsComing
	}
	return outcome.ErrFeatureLevel
}

// transact runs the rest of a handler in the background, when what was read before it is worked on,
// with the time that it may take from then on.
//
// What came over a connection that its client has closed does nothing: ctx has ended then. A client
// that gave it up asks somewhere else, and goes on to its next transaction: before KIP-890 that has
// the same epoch, and nothing else tells a request of the former one. So after this node stood
// still, the requests that it finds do nothing. They are answered like all others, since there are
// clients that close their half and count on an answer for each request.
func (r *request) transact(work func(ctx context.Context)) { r.during(r.reply.Awaited, work) }

// look is transact for what changes nothing, whoever is there.
func (r *request) look(work func(ctx context.Context)) { r.during(r.reply.Open, work) }

func (r *request) during(within func() context.Context, work func(ctx context.Context)) {
	r.background(func() {
		ctx, cancel := context.WithTimeout(within(), coordinateTimeout)
		defer cancel()
		work(ctx)
	})
}

// noTransactions is what a request is told that there are none, or that the caller may not use that
// transactional id; nil: go on.
func (r *request) noTransactions(id string) error {
	if !r.mayTransactionalID(id) {
		return errTransactionalIDDenied
	}
	return r.conn.server.transactional()
}

// answered is a code that a coordinator answered, as the version of the request knows it.
func (r *request) answered(code int16) int16 {
	if e := kerr.TypedErrorForCode(code); e != nil {
		code = asKnown(e, kmsg.Key(r.header.Key), r.header.Version).Code
	}
	return r.note(code)
}
