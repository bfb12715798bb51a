package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
)

// Raft timings. A follower stands for election after one to two heartbeat timeouts without its
// leader; a leader that a majority does not answer steps down after the lease. They are slow
// because a raft group costs something at each of them, and because they are not what anybody waits
// for: the node notices sooner who is gone (cluster/election), has leaders step down that no
// majority follows, and has them send to a follower that is back. The lease must be longer than the
// time between two contacts: a heartbeat comes after a fifth of the heartbeat timeout at most, to a
// follower that is back 10.3 s later (hashicorp/raft's backoff), and is answered within 0.3 s.
const (
	DefaultHeartbeatTimeout = 15 * time.Minute
	DefaultCommitTimeout    = 10 * time.Minute
	maxLeaderLease          = 5 * time.Minute
	// snapshotInterval is how often Raft looks for SnapshotThreshold. Replicas look for bytes more
	// often (cluster/replica/housekeeping.go).
	snapshotInterval = 5 * time.Minute

	// MaxInFlight bounds what a proposer has handed to Raft and not seen committed, in entries. It
	// stays below MaxAppendEntries: with more, hashicorp/raft sends one batch per wake-up and
	// throughput falls while the cores idle.
	MaxInFlight      = 32
	MaxAppendEntries = 64
)

// Config gives the settings of a member; trailing is the number of entries below a snapshot that
// Raft still has for followers that are a little behind.
func Config(self string, heartbeat, commit time.Duration, trailing uint64, logger hclog.Logger) *raft.Config {
	config := raft.DefaultConfig()
	config.LocalID = raft.ServerID(self)
	config.HeartbeatTimeout = heartbeat
	config.ElectionTimeout = heartbeat
	config.LeaderLeaseTimeout = LeaderLease(heartbeat)
	config.CommitTimeout = commit
	config.MaxAppendEntries = MaxAppendEntries
	// What waits in a buffered channel when Raft is shut down never gets an answer. A
	// proposer puts what waits together itself.
	config.BatchApplyCh = false
	config.TrailingLogs = trailing
	config.SnapshotInterval = snapshotInterval
	config.SnapshotThreshold = 8192
	config.ShutdownOnRemove = false
	config.NoLegacyTelemetry = true
	config.Logger = logger
	return config
}

// LeaderLease is below the heartbeat timeout: by the time followers stand for
// election by their own timers, an old leader has stepped down.
func LeaderLease(heartbeat time.Duration) time.Duration {
	return min(heartbeat*4/5, maxLeaderLease)
}

// LostError means that this node once had the raft group's member and has lost its log.
type LostError struct{ Group string }

func (e LostError) Error() string {
	return fmt.Sprintf("replica %s was here and its log is gone: it may have lost acknowledged records, so it stays out of the group", e.Group)
}

// Files is where a member keeps its log and its snapshots.
type Files struct {
	Log       raftlog.Log
	Snapshots raft.SnapshotStore
	Serving   func() // told when Raft runs
}

// OpenFiles opens the files of a member; fresh says that there need not be any.
// The error wraps raftlog.ErrLost if they should be there and are not.
type OpenFiles func(fresh bool) (Files, error)

// Options say what Open opens.
type Options struct {
	Name      string // of the raft group
	Files     OpenFiles
	Config    *raft.Config
	Machine   raft.FSM
	Stable    *raftlog.MemberStable
	Transport Transport // ends with the member, also when Open fails
	// Voters and Nonvoters are the identities that the raft group is first formed with if nothing
	// of it is here yet; no voters means that the configuration comes from the raft group's leader.
	Voters, Nonvoters []string
	// Ends is the life of who opens. Raft stores its term while it starts, and waits for ever where
	// the disk has failed; there is no member yet that could be told to let go of it.
	Ends context.Context
}

// Open opens the files of a member and starts Raft. A member that may have lost what it
// acknowledged or voted is not started: the error is a LostError, or wraps raftlog.ErrDamaged.
func Open(o Options) (_ *Member, err error) {
	defer func() {
		if err != nil {
			o.Transport.Close() // else messages for the raft group wait for someone to take them
		}
	}()
	if err := o.Stable.Check(); err != nil {
		return nil, err
	}
	created, err := o.Stable.Created()
	if err != nil {
		return nil, err
	}
	files, err := o.Files(!created)
	if errors.Is(err, raftlog.ErrLost) {
		return nil, LostError{o.Name}
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			files.Log.Close()
		}
	}()
	if err := o.prepare(files, created); err != nil {
		return nil, err
	}
	appends := &timedLog{LogStore: files.Log, ahead: o.Transport.Ahead}
	started := context.AfterFunc(o.Ends, o.Stable.Abandon)
	r, err := raft.NewRaft(o.Config, o.Machine, appends, o.Stable, files.Snapshots, o.Transport)
	started()
	if err != nil {
		return nil, fmt.Errorf("start group %s: %w", o.Name, err)
	}
	files.Serving()
	m := &Member{Name: o.Name, Raft: r, Log: files.Log, appends: appends, Transport: o.Transport, stable: o.Stable, stopped: make(chan struct{})}
	// A dropped observation is no loss: whoever is woken looks at the state itself.
	m.Observations = make(chan raft.Observation, 1)
	m.observer = raft.NewObserver(m.Observations, false, func(o *raft.Observation) bool {
		appends.observed(o)
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			return true
		}
		return false
	})
	r.RegisterObserver(m.observer)
	return m, nil
}

// prepare checks that the files go with each other and with what was voted, and forms the raft
// group if nothing of it is here yet.
func (o *Options) prepare(files Files, created bool) error {
	last, err := files.Log.LastIndex()
	if err != nil {
		return err
	}
	snapshots, err := files.Snapshots.List()
	if err != nil {
		return err
	}
	if err := follows(files.Log, files.Snapshots, snapshots); err != nil {
		return fmt.Errorf("group %s: %w", o.Name, err)
	}
	// Retention can leave a snapshot and nothing behind it.
	empty := last == 0 && len(snapshots) == 0
	// The first term is stored before the first entry.
	if known, err := o.Stable.Known(); err != nil || !known && !empty {
		return errors.Join(err, fmt.Errorf("%w: what group %s has voted is gone", raftlog.ErrDamaged, o.Name))
	}
	// The mark is written after the first entry, so a member that is marked and
	// should have formed the raft group has lost its entries.
	if empty && created && len(o.Voters) > 0 {
		return LostError{o.Name}
	}
	if empty && len(o.Voters) > 0 {
		if err := o.form(files.Log); err != nil {
			return err
		}
	}
	if !created {
		if err := o.Stable.MarkCreated(); err != nil {
			return err
		}
	}
	o.Stable.Serving()
	return nil
}

// form writes the raft group's first configuration.
func (o *Options) form(log raftlog.Log) error {
	var servers []raft.Server
	add := func(ids []string, suffrage raft.ServerSuffrage) {
		for _, id := range ids {
			servers = append(servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id), Suffrage: suffrage})
		}
	}
	add(o.Voters, raft.Voter)
	add(o.Nonvoters, raft.Nonvoter)
	// Snapshots in memory: BootstrapCluster only looks whether there is one.
	err := raft.BootstrapCluster(o.Config, log, unformed{o.Stable}, raft.NewInmemSnapshotStore(), o.Transport, raft.Configuration{Servers: servers})
	if err != nil {
		return fmt.Errorf("bootstrap group %s: %w", o.Name, err)
	}
	return nil
}

// unformed is what the member has stored that forms its raft group, whose log is empty.
// BootstrapCluster stores the first term and then the configuration, and refuses a store with a
// term: who was cut short between the two would never start again.
type unformed struct{ *raftlog.MemberStable }

// GetUint64 implements raft.StableStore: the first term without a vote is what BootstrapCluster
// left.
func (u unformed) GetUint64(key []byte) (uint64, error) {
	value, err := u.MemberStable.GetUint64(key)
	if string(key) != "CurrentTerm" || err != nil || value != 1 {
		return value, err
	}
	if voted, err := u.MemberStable.GetUint64([]byte("LastVoteTerm")); err != nil || voted != 0 {
		return value, err
	}
	return 0, nil
}

// follows gives an error if the newest snapshot that can be read is not where the log begins, or
// before: another has been lost.
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
