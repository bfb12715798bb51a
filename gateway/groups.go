package gateway

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/outcome"
	"github.com/trimaran-io/trimaran/transaction"
)

// Consumer groups: requests go to the coordinator of their group, wherever that is, in one version,
// and the answers come back in that of the client. What a version lacks is filled in and taken out
// here.

const (
	// coordinateTimeout bounds what is answered at once.
	coordinateTimeout = 10 * time.Second
	// maxGroupWait bounds JoinGroup and SyncGroup, which wait for other members: the largest
	// session timeout and a little. The coordinator ends them sooner.
	maxGroupWait = 31 * time.Minute
	// maxGroups bounds how many groups a request may name that are asked for one by one.
	maxGroups = 10_000
	// parallelGroups is how many of them are asked for at once.
	parallelGroups = 16
)

// Coordinators is the way to the coordinators of consumer groups and transactions.
type Coordinators interface {
	// Coordinate hands a request of a consumer group or a transactional id to the coordinator of
	// its shard and returns the response. Both have the version that coordinator.Version names, or
	// transaction.Version. If outcome.NotAppended(err), surely nothing was done.
	Coordinate(ctx context.Context, shard int, client coordinator.Client, req kmsg.Request) (kmsg.Response, error)
}

// coordinate asks the coordinator of a group or a transactional id, unless ctx has ended. An error
// is no answer; coordinatorCode says what clients are told.
func (r *request) coordinate(ctx context.Context, shard int, req kmsg.Request) (kmsg.Response, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", outcome.ErrNoLeader, err)
	}
	client := coordinator.Client{ID: r.header.ClientID, Host: "/" + r.conn.remoteHost(), Version: r.header.Version}
	version, ok := coordinator.Version(req.Key())
	if !ok {
		version, _ = transaction.Version(req.Key())
	}
	req.SetVersion(version)
	resp, err := r.conn.server.coordinators.Coordinate(ctx, shard, client, req)
	if err == nil {
		resp.SetVersion(r.header.Version)
	}
	return resp, err
}

// coordinatorCode is what a client of that API asks again after: NOT_COORDINATOR where nothing was
// done, and wherever asking twice does no harm, else COORDINATOR_NOT_AVAILABLE. Java's OffsetFetch
// knows the first of these only.
func (r *request) coordinatorCode(err error) int16 { return r.note(r.coordinatorCodeQuiet(err)) }

// coordinatorCodeQuiet is coordinatorCode for several at once, who note it together.
func (r *request) coordinatorCodeQuiet(err error) int16 {
	if outcome.NotAppended(err) || kmsg.Key(r.header.Key) == kmsg.OffsetFetch {
		return kerr.NotCoordinator.Code
	}
	return kerr.CoordinatorNotAvailable.Code
}

// asked runs the rest of a handler in the background, when what was read before it about one of
// these groups, nil for all, is worked on, with the time that it may take from then on. What takes
// no longer than coordinateTimeout goes on when the connection breaks: a consumer commits, leaves
// its group and closes, and a broker that has read that does it. What waits for others is cut short
// where nothing more is read from the connection, as when the node stops.
func (r *request) asked(limit time.Duration, groups []string, work func(ctx context.Context)) {
	within := r.conn.server.listener.Context()
	if limit > coordinateTimeout {
		within = r.reply.Patient()
	}
	wait, end := r.conn.turns.Take(groups)
	r.background(func() {
		defer end()
		wait()
		ctx, cancel := context.WithTimeout(within, limit)
		defer cancel()
		work(ctx)
	})
}

// eachOf calls f for 0 to n-1, some at once.
func eachOf(n int, f func(i int)) {
	var wg sync.WaitGroup
	free := make(chan struct{}, parallelGroups)
	for i := range n {
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			f(i)
		})
	}
	wg.Wait()
}
