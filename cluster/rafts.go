package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
)

// Raft timings. A follower stands for election after one to two heartbeat
// timeouts without its leader; a leader that a majority does not answer steps
// down after the lease. They are slow because a group costs something at each of
// them, and because they are not what failover waits for: failover.go is. The
// lease must be longer than it takes a heartbeat to be answered by a sign of life:
// a fifth of the heartbeat timeout and 0.3 s, and as much again for a late one.
const (
	defaultHeartbeatTimeout = 15 * time.Second
	defaultCommitTimeout    = 4 * time.Second
	maxLeaderLease          = 5 * time.Second

	// maxEntriesInFlight bounds what a proposer has handed to Raft and not seen
	// committed. It stays below maxAppendEntries: with more, hashicorp/raft sends
	// one batch per wake-up and throughput falls while the cores idle.
	maxEntriesInFlight = 32
	maxAppendEntries   = 64
	maxEntryBytes      = 1 << 20 // batches that wait are put together up to this
)

// raftConfig gives the settings of a group; trailing is the number of entries
// below a snapshot that Raft still has for followers that are a little behind.
func raftConfig(self string, heartbeat, commit time.Duration, trailing uint64, logger hclog.Logger) *raft.Config {
	config := raft.DefaultConfig()
	config.LocalID = raft.ServerID(self)
	config.HeartbeatTimeout = heartbeat
	config.ElectionTimeout = heartbeat
	config.LeaderLeaseTimeout = leaderLease(heartbeat)
	config.CommitTimeout = commit
	config.MaxAppendEntries = maxAppendEntries
	// What waits in a buffered channel when Raft is shut down never gets an answer. A
	// proposer puts what waits together itself.
	config.BatchApplyCh = false
	config.TrailingLogs = trailing
	config.SnapshotInterval = 30 * time.Second
	config.SnapshotThreshold = 8192
	config.ShutdownOnRemove = false
	config.NoLegacyTelemetry = true
	config.Logger = logger
	return config
}

// leaderLease is below the heartbeat timeout: by the time followers stand for
// election by their own timers, an old leader has stepped down.
func leaderLease(heartbeat time.Duration) time.Duration {
	return min(heartbeat*4/5, maxLeaderLease)
}

// group is one hashicorp/raft instance with its files: the log, the snapshots,
// and its part of the node's vote store. It belongs to whoever opened it.
type group struct {
	name      string
	raft      *raft.Raft
	log       raftlog.Log
	transport transport
	stable    *raftlog.GroupStable

	observations chan raft.Observation
	observer     *raft.Observer

	stopped chan struct{} // closed when Raft has ended: nothing is answered any more

	asking    atomic.Int64 // calls of ask that Raft has not answered
	proposals turnstile
	appends   *timedLog

	ending sync.Once
	closed error // of the transport; set by end
	ended  error // of Raft; set before stopped is closed
}

// maxAsking bounds the requests that wait for a group whose main loop hangs, as it does with its disk.
const maxAsking = 4096

var errGroupBusy = errors.New("the group does not answer")

// ask makes a request to Raft and waits for the answer until ctx ends. hashicorp/raft takes requests in its main
// loop, which may hang with the disk, so that making one can take as long. What becomes of the request
// when ctx ends first is not known: it is made and answered in a goroutine, which ends with the group at the latest.
func (g *group) ask(ctx context.Context, request func() raft.Future) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if g.asking.Add(1) > maxAsking {
		g.asking.Add(-1)
		return errGroupBusy
	}
	answer := make(chan error, 1)
	go func() {
		defer g.asking.Add(-1)
		answer <- g.await(request())
	}()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// change is ask for a change of the group's configuration, or a barrier in front of one: within callTimeout.
func (g *group) change(ctx context.Context, request func() raft.Future) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return g.ask(ctx, request)
}

// await waits for what Raft says of a request that was made, however long that takes: for those who have to know its fate. It or
// ask must be used for every future: when it is shut down hashicorp/raft leaves those without an answer that it was
// about to apply, or that waited in a channel. Its futures can end at a shutdown, but Raft sees to that for a few of
// them only (future.go, ShutdownCh).
func (g *group) await(f raft.Future) error {
	if v := reflect.ValueOf(f); v.Kind() == reflect.Pointer && v.Elem().Kind() == reflect.Struct {
		if field := v.Elem().FieldByName("ShutdownCh"); field.CanSet() && field.Type() == reflect.TypeOf(g.stopped) && field.IsNil() {
			field.Set(reflect.ValueOf(g.stopped))
		}
	}
	return f.Error()
}

// transport is a raft.Transport that ends with its group.
type transport interface {
	raft.Transport
	Close() error
	// Confirm is election.Member.Confirm.
	Confirm(ctx context.Context) (term uint64, err error)
}

// errReplicaLost means that this node once had the group and has lost its log.
type errReplicaLost struct{ group string }

func (e errReplicaLost) Error() string {
	return fmt.Sprintf("replica %s was here and its log is gone: it may have lost acknowledged records, so it stays out of the group", e.group)
}

// groupFiles is where a group keeps its log and its snapshots.
type groupFiles struct {
	log       raftlog.Log
	snapshots raft.SnapshotStore
	serving   func() // told when Raft runs
}

// openFiles opens the files of a group; fresh says that there need not be any.
// The error wraps raftlog.ErrLost if they should be there and are not.
type openFiles func(fresh bool) (groupFiles, error)

// boltFiles opens the files of a group in raft-boltdb and Raft's own snapshot files. fail is told of an error of the disk.
func boltFiles(dir string, logger hclog.Logger, fail func(error)) openFiles {
	return func(fresh bool) (files groupFiles, err error) {
		path := filepath.Join(dir, "raft.db")
		if _, statErr := os.Stat(path); !fresh && os.IsNotExist(statErr) {
			return files, raftlog.ErrLost
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return files, err
		}
		snapshots, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, logger)
		if err != nil {
			return files, err
		}
		files.snapshots = raftlog.GuardSnapshots(snapshots, fail)
		log, err := raftlog.OpenBolt(path, files.snapshots)
		if err != nil {
			return files, err
		}
		log.OnFail(fail)
		files.log, files.serving = log, log.Serving
		for _, d := range []string{filepath.Dir(dir), dir} {
			if err := syncDir(d); err != nil {
				files.log.Close()
				return files, err
			}
		}
		return files, nil
	}
}

// openGroup opens the files of a group and starts Raft. voters are the
// identities that the group is first formed with if nothing of it is here yet;
// none means that the configuration comes from the group's leader.
func openGroup(name string, open openFiles, config *raft.Config, machine raft.FSM, stable *raftlog.GroupStable, transport transport, voters, nonvoters []string) (_ *group, err error) {
	defer func() {
		if err != nil {
			transport.Close() // else messages for the group wait for someone to take them
		}
	}()
	if err := stable.Check(); err != nil {
		return nil, err
	}
	created, err := stable.Created()
	if err != nil {
		return nil, err
	}
	files, err := open(!created)
	if errors.Is(err, raftlog.ErrLost) {
		return nil, errReplicaLost{name}
	}
	if err != nil {
		return nil, err
	}
	log := files.log
	defer func() {
		if err != nil {
			log.Close()
		}
	}()
	last, err := log.LastIndex()
	if err != nil {
		return nil, err
	}
	snapshots, err := files.snapshots.List()
	if err != nil {
		return nil, err
	}
	if err := follows(log, files.snapshots, snapshots); err != nil {
		return nil, fmt.Errorf("group %s: %w", name, err)
	}
	// Retention can leave a snapshot and nothing behind it.
	empty := last == 0 && len(snapshots) == 0
	// The first term is stored before the first entry.
	if known, err := stable.Known(); err != nil || !known && !empty {
		return nil, errors.Join(err, fmt.Errorf("%w: what group %s has voted is gone", raftlog.ErrDamaged, name))
	}
	// The mark is written after the first entry, so a member that is marked and
	// should have formed the group has lost its entries.
	if empty && created && len(voters) > 0 {
		return nil, errReplicaLost{name}
	}
	if empty && len(voters) > 0 {
		var servers []raft.Server
		add := func(ids []string, suffrage raft.ServerSuffrage) {
			for _, id := range ids {
				servers = append(servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id), Suffrage: suffrage})
			}
		}
		add(voters, raft.Voter)
		add(nonvoters, raft.Nonvoter)
		// Snapshots in memory: BootstrapCluster only looks whether there is one.
		if err := raft.BootstrapCluster(config, log, stable, raft.NewInmemSnapshotStore(), transport, raft.Configuration{Servers: servers}); err != nil {
			return nil, fmt.Errorf("bootstrap group %s: %w", name, err)
		}
	}
	if !created {
		if err := stable.MarkCreated(); err != nil {
			return nil, err
		}
	}
	stable.Serving()
	appends := &timedLog{LogStore: log}
	r, err := raft.NewRaft(config, machine, appends, stable, files.snapshots, transport)
	if err != nil {
		return nil, fmt.Errorf("start group %s: %w", name, err)
	}
	files.serving()
	g := &group{name: name, raft: r, log: log, appends: appends, transport: transport, stable: stable, stopped: make(chan struct{})}
	// A dropped observation is no loss: whoever is woken looks at the state itself.
	g.observations = make(chan raft.Observation, 1)
	g.observer = raft.NewObserver(g.observations, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			return true
		}
		return false
	})
	r.RegisterObserver(g.observer)
	return g, nil
}

// follows gives an error if the newest snapshot that can be read is not where the log begins, or before: another has been lost.
func follows(log raft.LogStore, store raft.SnapshotStore, list []*raft.SnapshotMeta) error {
	first, err := log.FirstIndex()
	if err != nil || first <= 1 {
		return err
	}
	newest := uint64(0)
	for _, meta := range list {
		if _, content, err := store.Open(meta.ID); err == nil {
			content.Close()
			newest = meta.Index
			break
		}
	}
	if first > newest+1 {
		return fmt.Errorf("%w: the log begins with entry %d, the newest snapshot is of entry %d", raftlog.ErrDamaged, first, newest)
	}
	return nil
}

// servers gives the members of the group by the newest configuration that this one has.
func (g *group) servers() ([]raft.Server, error) {
	future := g.raft.GetConfiguration()
	if err := future.Error(); err != nil {
		return nil, err
	}
	return future.Configuration().Servers, nil
}

// leader gives the identity of the leader that this member knows and the term
// in which it leads; "" when it knows none.
func (g *group) leader() (identity string, term uint64) {
	// The term is read first: if it changes in between, the pair names a leader
	// with a term that is too old, and a request fenced with it is refused.
	term = g.raft.CurrentTerm()
	_, id := g.raft.LeaderWithID()
	return string(id), term
}

// close stops Raft and releases the files.
func (g *group) close() error {
	return errors.Join(g.stop(), g.log.Close())
}

// end begins to stop Raft, and lets go of whoever waits for it or in it.
func (g *group) end() {
	g.ending.Do(func() {
		g.raft.DeregisterObserver(g.observer)
		shutdown := g.raft.Shutdown()
		// Closed before Raft is waited for: calls to a node that hangs would hold it up.
		g.closed = g.transport.Close()
		g.stable.Abandon()
		if log, ok := g.log.(interface{ Abandon() }); ok {
			log.Abandon()
		}
		go func() {
			g.ended = shutdown.Error()
			close(g.stopped)
		}()
	})
}

// stop stops Raft; the files stay open.
func (g *group) stop() error {
	g.end()
	<-g.stopped
	return errors.Join(g.closed, g.ended)
}

// notSynced is an error of a sync. It ends the node: see Node.lost.
type notSynced struct{ error }

func (e notSynced) Unwrap() error { return e.error }

// syncFile brings a file or a folder to stable storage.
func syncFile(f *os.File) error {
	if err := f.Sync(); err != nil {
		return notSynced{err}
	}
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return syncFile(f)
}

// raftLogs turns what hashicorp libraries log into slog lines. Raft reports a
// dead peer several times a second for each group, so a message is let through
// once in a while and the rest are counted.
type raftLogs struct {
	logger *slog.Logger

	mu   sync.Mutex
	seen map[string]*suppressed
}

type suppressed struct {
	next  time.Time
	count int
}

const repeatEvery = 30 * time.Second

// newRaftLogger gives the hclog.Logger for all groups of a node.
func newRaftLogger(logger *slog.Logger) hclog.InterceptLogger {
	intercept := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Warn})
	intercept.RegisterSink(&raftLogs{logger: logger, seen: map[string]*suppressed{}})
	return intercept
}

// Accept implements hclog.SinkAdapter.
func (l *raftLogs) Accept(name string, level hclog.Level, msg string, args ...any) {
	if level < hclog.Warn {
		return
	}
	now := time.Now()
	l.mu.Lock()
	s := l.seen[msg]
	if s == nil {
		s = &suppressed{}
		l.seen[msg] = s
	}
	if now.Before(s.next) {
		s.count++
		l.mu.Unlock()
		return
	}
	repeated := s.count
	s.next, s.count = now.Add(repeatEvery), 0
	l.mu.Unlock()
	to := slog.LevelDebug
	if level >= hclog.Error {
		to = slog.LevelWarn
	}
	attrs := append([]any{"group", name}, args...)
	if repeated > 0 {
		attrs = append(attrs, "repeated", repeated)
	}
	l.logger.Log(context.Background(), to, "raft: "+msg, attrs...)
}
