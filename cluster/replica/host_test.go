package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

const (
	testNode     = fsm.NodeID("n1")
	testIdentity = "n1.aaaaaaaa"
)

var errAlone = errors.New("there is no other node")

// testHost is a node without a network: it reaches itself and nobody else.
type testHost struct {
	topics atomic.Pointer[fsm.Topics]
	woken  atomic.Int64
	// handOvers is how often leadership was to be given to anybody.
	handOvers atomic.Int64
	// join is the coordinator of all transactions; nil: there is none. Set before it is asked.
	join func(ctx context.Context, t fsm.Transaction, producerID int64, epoch int16, p fsm.PartitionID, ended int32) error

	mu sync.Mutex // guards what follows; nothing is done under it
	// leave is what the leader of a group says to a replica that wants to leave it.
	leave   func(id fsm.PartitionID) (term uint64, leader string, err error)
	members map[string]*raftgroup.Member
	opened  []fsm.PartitionID
}

func (h *testHost) Topics() *fsm.Topics                       { return h.topics.Load() }
func (h *testHost) AwaitTopics(context.Context) bool          { return true }
func (h *testHost) RefreshTopics() bool                       { return false }
func (h *testHost) Wake()                                     { h.woken.Add(1) }
func (h *testHost) Connected(identity string) bool            { return identity == testIdentity }
func (h *testHost) Room(*raftgroup.Member) error              { return nil }
func (h *testHost) SyncDir(string) error                      { return nil }
func (h *testHost) Awake() time.Time                          { return time.Now() }
func (h *testHost) HandOver(*raftgroup.Member) error          { h.handOvers.Add(1); return errAlone }
func (h *testHost) Settle(context.Context, *fsm.Settle) error { return errAlone }

func (h *testHost) JoinTransaction(ctx context.Context, t fsm.Transaction, producerID int64, epoch int16, p fsm.PartitionID, ended int32) error {
	if h.join == nil {
		return outcome.ErrInvalidTxnState
	}
	return h.join(ctx, t, producerID, epoch, p, ended)
}

func (h *testHost) HandOverTo(*raftgroup.Member, func(string) bool) error { return errAlone }

func (h *testHost) JoinTransactionGroup(context.Context, fsm.Transaction, int64, int16, string) error {
	return errAlone
}

func (h *testHost) WriteMarker(context.Context, fsm.PartitionID, fsm.Marker) (bool, error) {
	return false, errAlone
}
func (h *testHost) EndOffsets(context.Context, string, fsm.Marker) error { return errAlone }
func (h *testHost) NewProducerID(context.Context) (int64, error)         { return 0, errAlone }

func (h *testHost) Opened(id fsm.PartitionID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.opened = append(h.opened, id)
}

func (h *testHost) Describe(context.Context, string, fsm.PartitionID, uint64) (raftlog.Described, error) {
	return raftlog.Described{}, errAlone
}

func (h *testHost) Entries(context.Context, string, fsm.PartitionID, uint64, uint64, uint32) ([]byte, error) {
	return nil, errAlone
}

func (h *testHost) Applied(context.Context, string, fsm.PartitionID) (uint64, error) {
	return 0, errAlone
}

func (h *testHost) Leave(context.Context, string, fsm.PartitionID) (uint64, error) {
	return 0, errAlone
}

func (h *testHost) LeaveLeader(_ context.Context, id fsm.PartitionID) (uint64, string, error) {
	h.mu.Lock()
	leave := h.leave
	h.mu.Unlock()
	if leave == nil {
		return 0, "", errAlone
	}
	return leave(id)
}

// aloneTransport is that of a member that has no others.
type aloneTransport struct {
	*raft.InmemTransport
	h     *testHost
	group string
}

func (aloneTransport) Ahead([]*raft.Log) {}

func (t aloneTransport) Confirm(context.Context) (uint64, error) {
	t.h.mu.Lock()
	m := t.h.members[t.group]
	t.h.mu.Unlock()
	if m == nil {
		return 0, errAlone
	}
	return m.Raft.CurrentTerm(), nil
}

func (h *testHost) Transport(group string, newcomer bool) raftgroup.Transport {
	_, t := raft.NewInmemTransport(testIdentity)
	return aloneTransport{t, h, group}
}

func (h *testHost) Serve(m *raftgroup.Member, _ func(context.Context, string, *raft.InstallSnapshotRequest) (bool, error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.members[m.Name] = m
}

// testSet is a Set and what is around it.
type testSet struct {
	*Set
	t       *testing.T
	host    *testHost
	catalog *fsm.Catalog
	index   fsm.Index
	end     context.CancelFunc
}

// newTestSet gives a set without replicas. fs is the disk of the logs; nil: the machine's.
func newTestSet(t *testing.T, fs vfs.FS) *testSet {
	t.Helper()
	dir := t.TempDir()
	stable, err := raftlog.OpenStable(dir+"/votes", raftlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	logs, err := raftlog.OpenStore(dir, raftlog.Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	s := &testSet{t: t, host: &testHost{members: map[string]*raftgroup.Member{}}, catalog: fsm.NewCatalog()}
	s.apply(fsm.CatalogCommand{FormCluster: &fsm.FormCluster{ClusterID: "c", Nodes: []fsm.Node{{ID: testNode, Incarnation: "aaaaaaaa", FeatureLevel: fsm.FeatureLevel}}}})
	ctx, cancel := context.WithCancel(context.Background())
	s.end = cancel
	s.Set = New(ctx, Config{
		Host: s.host, Identity: testIdentity, NodeID: testNode,
		Logs: logs, Stable: stable, FS: vfs.OS, Dir: logs.Groups(),
		Logger: slog.New(slog.DiscardHandler), RaftLogger: hclog.NewNullLogger(),
		HeartbeatTimeout: 50 * time.Millisecond, CommitTimeout: 10 * time.Millisecond,
	})
	t.Cleanup(func() {
		cancel()
		s.End()
		for _, err := range []error{s.Close(), logs.Close(), stable.Close()} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	return s
}

// apply changes the catalog.
func (s *testSet) apply(command fsm.CatalogCommand) {
	s.t.Helper()
	s.index++
	if result := s.catalog.Apply(s.index, command.Encode()); result.Err != nil {
		s.t.Fatal(result.Err)
	}
	s.host.topics.Store(s.catalog.View())
}

// topic creates a topic of one partition here.
func (s *testSet) topic(name string, configs map[string]string) fsm.PartitionID {
	s.t.Helper()
	id := fsm.PartitionID{Topic: fsm.TopicID{15: byte(s.index + 1)}}
	here := []fsm.NodeID{testNode}
	s.apply(fsm.CatalogCommand{CreateTopic: &fsm.CreateTopic{Topic: fsm.Topic{
		Name: name, ID: id.Topic, ReplicationFactor: 1, Configs: configs,
		Partitions: []fsm.Partition{{Replicas: here, Bootstrap: here}},
	}}})
	return id
}

func (s *testSet) reconcile() { s.Reconcile(s.host.Topics(), true) }

// led waits until the replica of a partition leads, and gives it.
func (s *testSet) led(id fsm.PartitionID) *Records {
	s.t.Helper()
	var r *Records
	eventually(s.t, "it leads", func() error {
		s.reconcile()
		if r = s.Records(id); r == nil {
			return fmt.Errorf("it does not run: %v", s.WhyBroken(id))
		}
		_, err := r.Leads()
		return err
	})
	return r
}

// eventually waits until check is nil.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	var err error
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
