package gateway

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
	"github.com/trimaran-io/trimaran/transaction"
)

// fakeCluster is a cluster in memory: the true catalog's state machine, and per
// partition a list of batches. Every method can be replaced by a test.
type fakeCluster struct {
	gateways       map[fsm.NodeID]string
	catalogUnknown atomic.Bool
	cutOff         atomic.Pointer[error] // what Serving says; nil: that it serves

	coordinating  sync.Mutex
	coordinators  [coordinator.Shards]*coordinator.Coordinator
	transactions  [coordinator.Shards]*transaction.Coordinator
	written       map[fsm.PartitionID][]fsm.Marker // in their order
	markerErr     error                            // of WriteMarkers
	coordinateErr error

	mu      sync.Mutex
	catalog *fsm.Catalog
	index   fsm.Index
	changed chan struct{} // closed and replaced with every command
	logs    map[fsm.PartitionID]*fakeLog
	appends [][]int // records per batch of each Append, in order

	ready   func() error
	append  func(ctx context.Context, p fsm.PartitionID, batches []kafkaproto.Batch) ([]fsm.Appended, error)
	read    func(ctx context.Context, p fsm.PartitionID, from fsm.Offset, max int) (fsm.Slice, error)
	await   func(ctx context.Context, p fsm.PartitionID, from fsm.Offset) error
	offsets func(ctx context.Context, p fsm.PartitionID, timestamp int64, max int) ([]fsm.Offset, error)
	create  func(ctx context.Context, spec fsm.TopicSpec, validateOnly bool) error
	remove  func(ctx context.Context, name string) error
	status  func(ctx context.Context) (*admin.Status, error)
	newID   func(ctx context.Context) (int64, error)
	lastID  int64
	epoch   fsm.LeaderEpoch // of all leaders; 0: 1
}

// newFake makes a cluster of three nodes with topics "name:partitions".
func newFake(t testing.TB, topics ...string) *fakeCluster {
	t.Helper()
	return newFakeAt(t, fsm.FeatureLevel, topics...)
}

// newFakeAt is newFake of a cluster of that feature level.
func newFakeAt(t testing.TB, level int, topics ...string) *fakeCluster {
	t.Helper()
	f := &fakeCluster{catalog: fsm.NewCatalog(), changed: make(chan struct{}), logs: map[fsm.PartitionID]*fakeLog{}}
	t.Cleanup(func() {
		for shard, c := range f.coordinators {
			if c != nil {
				c.Close()
				f.transactions[shard].Close()
			}
		}
	})
	form := &fsm.FormCluster{ClusterID: "fake"}
	for i := range 3 {
		form.Nodes = append(form.Nodes, fsm.Node{ID: fsm.NodeID(fmt.Sprintf("n%d", i+1)), Incarnation: fmt.Sprintf("%08x", i+1), FeatureLevel: level})
	}
	for _, command := range []fsm.CatalogCommand{{FormCluster: form}, {RaiseFeatureLevel: &fsm.RaiseFeatureLevel{FeatureLevel: level}}} {
		if err := f.apply(command); err != nil {
			t.Fatal(err)
		}
	}
	for _, topic := range topics {
		name, count, _ := strings.Cut(topic, ":")
		var partitions int32 = 1
		if count != "" {
			if _, err := fmt.Sscan(count, &partitions); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.CreateTopic(t.Context(), fsm.TopicSpec{Name: name, Partitions: partitions, ReplicationFactor: 3}, false); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func (f *fakeCluster) apply(c fsm.CatalogCommand) error {
	f.index++
	defer func() {
		close(f.changed)
		f.changed = make(chan struct{})
	}()
	return f.catalog.Apply(f.index, c.Encode()).Err
}

// id names a partition of a topic that is there.
func (f *fakeCluster) id(name string, partition int32) fsm.PartitionID {
	topic, _ := f.Topics().Lookup(name)
	return fsm.PartitionID{Topic: topic.ID, Partition: partition}
}

func (f *fakeCluster) Topics() *fsm.Topics {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.catalog.View()
}

func (f *fakeCluster) leaderEpoch() fsm.LeaderEpoch { return max(f.epoch, 1) }

func (f *fakeCluster) LeaderEpoch(p fsm.PartitionID) (fsm.LeaderEpoch, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leaderEpoch(), true
}

func (f *fakeCluster) Ready() error {
	if f.ready != nil {
		return f.ready()
	}
	return nil
}

func (f *fakeCluster) Serving() (bool, error) {
	if why := f.cutOff.Load(); why != nil {
		return true, *why
	}
	return false, nil
}

// ClusterID implements Nodes.
func (f *fakeCluster) ClusterID() string { return "fake" }

func (f *fakeCluster) CheckReplicas(_ context.Context, p fsm.PartitionID, from fsm.Offset) (*admin.PartitionCheck, error) {
	return &admin.PartitionCheck{Partition: p.Partition, From: from, To: 5, End: 7}, nil
}

func (f *fakeCluster) Status(ctx context.Context) (*admin.Status, error) {
	if f.status != nil {
		return f.status(ctx)
	}
	return &admin.Status{ClusterID: "fake", Controller: "n1"}, nil
}

// CatalogKnown implements Catalog.
func (f *fakeCluster) CatalogKnown() bool { return !f.catalogUnknown.Load() }

// Gateways implements Nodes.
func (f *fakeCluster) Gateways() map[fsm.NodeID]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gateways
}

// Administer implements Operations.
func (f *fakeCluster) Administer(_ context.Context, request admin.Request) error {
	if request.Op != admin.OpDrain {
		return outcome.ErrInvalidAssignment
	}
	return nil
}

// CopyCatalog implements Backups.
func (f *fakeCluster) CopyCatalog(context.Context) (*admin.CatalogCopy, error) {
	return &admin.CatalogCopy{ClusterID: "fake", Topics: []admin.TopicCopy{}}, nil
}

// RestoreBatches implements Backups: nothing is being restored.
func (f *fakeCluster) RestoreBatches(context.Context, fsm.PartitionID, []kafkaproto.Batch, bool) (fsm.Offset, error) {
	return -1, outcome.ErrInvalidConfig
}

// HoldCommits implements Backups.
func (f *fakeCluster) HoldCommits(context.Context) ([]admin.Hold, error) { return nil, nil }

// ReleaseCommits implements Backups.
func (f *fakeCluster) ReleaseCommits(context.Context, []admin.Hold) (bool, error) { return true, nil }

// EndRestore implements Backups.
func (f *fakeCluster) EndRestore(context.Context, fsm.EndRestore) error { return nil }

// Coordinate implements Coordinators, with coordinators over states in memory.
