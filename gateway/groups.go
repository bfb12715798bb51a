package gateway

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/outcome"
)

// Consumer groups: requests go to the coordinator of their group, wherever that is, in one version, and the
// answers come back in that of the client. What a version lacks is filled in and taken out here.

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

// coordinate asks the coordinator of a group. An error is no answer; coordinatorCode says what clients are told.
func (r *request) coordinate(ctx context.Context, shard int, req kmsg.Request) (kmsg.Response, error) {
	client := coordinator.Client{ID: r.header.ClientID, Host: "/" + r.session.remoteHost(), Version: r.header.Version}
	version, _ := coordinator.Version(req.Key())
	req.SetVersion(version)
	resp, err := r.session.server.cluster.Coordinate(ctx, shard, client, req)
	if err == nil {
		resp.SetVersion(r.header.Version)
	}
	return resp, err
}

// coordinatorCode is what a client of that API asks again after: NOT_COORDINATOR where nothing was done, and
// wherever asking twice does no harm, else COORDINATOR_NOT_AVAILABLE. Java's OffsetFetch knows the
// first of these only.
func (r *request) coordinatorCode(err error) int16 { return r.note(r.coordinatorCodeQuiet(err)) }

// coordinatorCodeQuiet is coordinatorCode for several at once, who note it together.
func (r *request) coordinatorCodeQuiet(err error) int16 {
	if outcome.NotAppended(err) || kmsg.Key(r.header.Key) == kmsg.OffsetFetch {
		return kerr.NotCoordinator.Code
	}
	return kerr.CoordinatorNotAvailable.Code
}

// asked runs the rest of a handler in the background, when what was read before it about one of these groups, nil for
// all, is worked on, with the time that it may take from then on. It is cut short where nothing more is read from the
// connection, as when the node stops.
func (r *request) asked(limit time.Duration, groups []string, work func(ctx context.Context)) {
	within := r.session.open
	if limit > coordinateTimeout {
		within = r.session.patient
	}
	wait, end := r.session.turns.take(groups)
	r.background(func() {
		defer end()
		wait()
		ctx, cancel := context.WithTimeout(within, limit)
		defer cancel()
		work(ctx)
	})
}

// turns keeps the requests of one connection about one group in line. A broker of Kafka's works on one request of a
// connection at a time, and clients rely on it: Java's commitAsync sends the next commit before the last one is
// answered, and the last one sent is to count.
type turns struct {
	mu sync.Mutex
	// last has, by group, what is closed when the last request about it that was read is worked on. Then the key
	// is gone.
	last map[string]chan struct{}
}

// take puts a request about these groups at the end of their lines. It must call end when it is worked on, and not
// begin before wait has returned.
func (t *turns) take(groups []string) (wait, end func()) {
	done := make(chan struct{})
	before := make([]chan struct{}, 0, len(groups))
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == nil {
		t.last = map[string]chan struct{}{}
	}
	if groups == nil {
		for _, last := range t.last {
			before = append(before, last)
		}
	}
	for _, group := range groups {
		if last, ok := t.last[group]; ok && last != done {
			before = append(before, last)
		}
		t.last[group] = done
	}
	wait = func() {
		for _, last := range before {
			<-last
		}
	}
	end = func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, group := range groups {
			if t.last[group] == done {
				delete(t.last, group)
			}
		}
		close(done)
	}
	return wait, end
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

// remoteHost is the address that the connection comes from, without its port.
func (s *session) remoteHost() string {
	addr := s.peer.String()
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}
