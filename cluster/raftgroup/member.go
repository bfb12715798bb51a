// Package raftgroup runs one node's member of a Raft group: hashicorp/raft, the files that it
// keeps, and what has to be known to use it without waiting for ever.
//
// You are here: below the catalog and the replicas, each of which is a state machine of one raft
// group; above the log (cluster/raftlog). The way to other nodes is a Transport that the caller
// brings. This package does not know what entries mean, who should be in a raft group, or when to
// elect.
//
// open.go opens a member and decides whether it may take part as what it was; member.go is what
// can be done with it; turnstile.go counts proposals while leadership changes hands; stall.go knows
// of appends that do not end, and has entries sent while they are stored; leader.go is how those
// who use it say who leads.
//
// Locks: a Member has none. raftLogs.mu is the only one, and nothing is called, taken or waited for
// under it.
package raftgroup

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// Member is one hashicorp/raft instance with its files: the log, the snapshots, and its part of the
// node's vote store. It belongs to whoever opened it. It has no lock: what changes are atomics.
type Member struct {
	Name      string
	Raft      *raft.Raft
	Transport Transport
	// Proposals must be entered before each proposal, and left when its fate is known.
	Proposals Turnstile
	// Observations tells that the leader or the state may have changed. One is enough: whoever is
	// woken looks at the state itself.
	Observations chan raft.Observation
	// Log is to be read only: its end belongs to Raft.
	Log raftlog.Log

	stable   *raftlog.MemberStable
	observer *raft.Observer
	appends  *timedLog

	asking atomic.Int64 // calls of Ask that Raft has not answered

	ending  sync.Once
	stopped chan struct{} // closed when Raft has ended: nothing is answered any more
	closed  error         // of the transport; set by End
	ended   error         // of Raft; set before stopped is closed
}

// Transport is a raft.Transport that ends with its member.
type Transport interface {
	raft.Transport
	Close() error
	// Confirm returns the term in which a majority has confirmed, after the call began, that this
	// member leads.
	Confirm(ctx context.Context) (term uint64, err error)
	// Ahead is told what the member is about to store, on the goroutine that stores it, and may
	// send it to followers if the member leads. It does not wait.
	Ahead(entries []*raft.Log)
}

// maxAsking bounds the requests that wait for a member whose main loop hangs, as it does with its
// disk.
const maxAsking = 4096

// changeTimeout bounds Change.
const changeTimeout = 5 * time.Second

// ErrBusy means that a request was not made: too many wait for Raft already.
var ErrBusy = errors.New("the group does not answer")

// Ask makes a request to Raft and waits for the answer until ctx ends. hashicorp/raft takes
// requests in its main loop, which may hang with the disk, so that making one can take as long.
// What becomes of the request when ctx ends first is not known: it is made and answered in a
// goroutine, which ends with the member at the latest.
func (m *Member) Ask(ctx context.Context, request func() raft.Future) error {
	locks.MayWait("Raft")
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.asking.Add(1) > maxAsking {
		m.asking.Add(-1)
		return ErrBusy
	}
	answer := make(chan error, 1)
	go func() {
		defer m.asking.Add(-1)
		answer <- m.Await(request())
	}()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Change is Ask for a change of the raft group's configuration, or a barrier in front of one: it
// waits 5 s at most.
func (m *Member) Change(ctx context.Context, request func() raft.Future) error {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	return m.Ask(ctx, request)
}

// Await waits for what Raft says of a request that was made, however long that takes: for those who
// have to know its fate. It or Ask must be used for every future: when it is shut down
// hashicorp/raft leaves those without an answer that it was about to apply, or that waited in a
// channel. Its futures can end at a shutdown, but Raft sees to that for a few of them only
// (future.go, ShutdownCh).
func (m *Member) Await(f raft.Future) error {
	locks.MayWait("Raft")
	if v := reflect.ValueOf(f); v.Kind() == reflect.Pointer && v.Elem().Kind() == reflect.Struct {
		if field := v.Elem().FieldByName("ShutdownCh"); field.CanSet() && field.Type() == reflect.TypeOf(m.stopped) && field.IsNil() {
			field.Set(reflect.ValueOf(m.stopped))
		}
	}
	return f.Error()
}

// Servers gives the members of the raft group by the newest configuration that this one has.
func (m *Member) Servers() ([]raft.Server, error) {
	future := m.Raft.GetConfiguration()
	if err := future.Error(); err != nil {
		return nil, err
	}
	return future.Configuration().Servers, nil
}

// Voters gives the identities of the raft group's voters in the order of its configuration, where
// the preferred leader is the first; nil where the configuration is not known.
func (m *Member) Voters() (out []string) {
	servers, err := m.Servers()
	if err != nil {
		return nil
	}
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			out = append(out, string(s.ID))
		}
	}
	return out
}

// Leader gives the identity of the leader that this member knows and the term in which it leads; ""
// when it knows none.
func (m *Member) Leader() (identity string, term uint64) {
	// The term is read first: if it changes in between, the pair names a leader with a term that is
	// too old, and a request fenced with it is refused.
	term = m.Raft.CurrentTerm()
	_, id := m.Raft.LeaderWithID()
	return string(id), term
}

// Close stops Raft and releases the files.
func (m *Member) Close() error {
	return errors.Join(m.Stop(), m.Log.Close())
}

// End begins to stop Raft, and lets go of whoever waits for it or in it. It does not wait.
func (m *Member) End() {
	m.ending.Do(func() {
		m.Raft.DeregisterObserver(m.observer)
		m.appends.gauge.end(true)
		shutdown := m.Raft.Shutdown()
		// Closed before Raft is waited for: calls to a node that hangs would hold it up.
		m.closed = m.Transport.Close()
		m.stable.Abandon()
		if log, ok := m.Log.(interface{ Abandon() }); ok {
			log.Abandon()
		}
		go func() {
			m.ended = shutdown.Error()
			close(m.stopped)
		}()
	})
}

// Stop stops Raft and waits for it; the files stay open.
func (m *Member) Stop() error {
	locks.MayWait("Raft to stop")
	m.End()
	<-m.stopped
	return errors.Join(m.closed, m.ended)
}
