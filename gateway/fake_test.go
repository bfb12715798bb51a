package gateway

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// fakeCluster is a cluster in memory: the true catalog's state machine, and per
// partition a list of batches. Every method can be replaced by a test.
type fakeCluster struct {
	gateways       map[fsm.NodeID]string
	catalogUnknown atomic.Bool
	cutOff         atomic.Pointer[error] // what Serving says; nil: that it serves

	coordinating  sync.Mutex
	coordinators  [coordinator.Shards]*coordinator.Coordinator
	coordinateErr error

	mu      sync.Mutex
	catalog *fsm.Catalog
	index   fsm.Index
	logs    map[fsm.PartitionID]*fakeLog
	appends [][]int // records per batch of each Append, in order

	ready   func() error
	append  func(ctx context.Context, p fsm.PartitionID, batches [][]byte) ([]fsm.Appended, error)
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

type fakeLog struct {
	start, next fsm.Offset
	batches     [][]byte
	changed     chan struct{} // closed and replaced at every append
}

// newFake makes a cluster of three nodes with topics "name:partitions".
func newFake(t testing.TB, topics ...string) *fakeCluster {
	t.Helper()
	f := &fakeCluster{catalog: fsm.NewCatalog(), logs: map[fsm.PartitionID]*fakeLog{}}
	t.Cleanup(func() {
		for _, c := range f.coordinators {
			if c != nil {
				c.Close()
			}
		}
	})
	form := &fsm.FormCluster{ClusterID: "fake"}
	for i := range 3 {
		form.Nodes = append(form.Nodes, fsm.Node{ID: fsm.NodeID(fmt.Sprintf("n%d", i+1)), Incarnation: fmt.Sprintf("%08x", i+1), Level: fsm.Level})
	}
	for _, command := range []fsm.CatalogCommand{{FormCluster: form}, {RaiseLevel: &fsm.RaiseLevel{Level: fsm.Level}}} {
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
	return f.catalog.Apply(f.index, c.Encode()).Err
}

// id names a partition of a topic that is there.
func (f *fakeCluster) id(name string, partition int32) fsm.PartitionID {
	topic, _ := f.Topics().Lookup(name)
	return fsm.PartitionID{Topic: topic.ID, Partition: partition}
}

func (f *fakeCluster) log(p fsm.PartitionID) (*fakeLog, error) {
	if _, ok := f.catalog.View().Partition(p); !ok {
		return nil, outcome.ErrUnknownTopicOrPartition
	}
	l := f.logs[p]
	if l == nil {
		l = &fakeLog{changed: make(chan struct{})}
		f.logs[p] = l
	}
	return l, nil
}

func (f *fakeCluster) Topics() *fsm.Topics {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.catalog.View()
}

func (f *fakeCluster) CreateTopic(ctx context.Context, spec fsm.TopicSpec, validateOnly bool) error {
	if f.create != nil {
		return f.create(ctx, spec, validateOnly)
	}
	return f.doCreate(spec, validateOnly)
}

func (f *fakeCluster) doCreate(spec fsm.TopicSpec, validateOnly bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	topic := fsm.Topic{Name: spec.Name, ReplicationFactor: int(spec.ReplicationFactor), Configs: spec.Configs}
	binary.BigEndian.PutUint64(topic.ID[8:], uint64(f.index))
	if topic.ReplicationFactor == -1 {
		topic.ReplicationFactor = 3
	}
	if spec.Partitions == -1 {
		spec.Partitions = 2
	}
	nodes := []fsm.NodeID{"n1", "n2", "n3"}
	for range spec.Partitions {
		replicas := nodes[:min(topic.ReplicationFactor, 3)]
		topic.Partitions = append(topic.Partitions, fsm.Partition{Replicas: replicas, Bootstrap: replicas})
	}
	if err := f.catalog.View().CheckCreate(&topic); err != nil || validateOnly {
		return err
	}
	return f.apply(fsm.CatalogCommand{CreateTopic: &fsm.CreateTopic{Topic: topic}})
}

func (f *fakeCluster) DeleteTopic(ctx context.Context, name string) error {
	if f.remove != nil {
		return f.remove(ctx, name)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.apply(fsm.CatalogCommand{DeleteTopic: &fsm.DeleteTopic{Name: name}})
}

func (f *fakeCluster) DeleteTopicByID(ctx context.Context, id fsm.TopicID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.apply(fsm.CatalogCommand{DeleteTopic: &fsm.DeleteTopic{ID: id}})
}

func (f *fakeCluster) AlterConfigs(ctx context.Context, alter fsm.AlterConfigs, validateOnly bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	topic, _ := f.catalog.View().ByID(alter.Topic)
	if _, err := alter.Apply(topic.Configs); err != nil || validateOnly {
		return err
	}
	return f.apply(fsm.CatalogCommand{AlterConfigs: &alter})
}

func (f *fakeCluster) AlterBrokerConfigs(ctx context.Context, alter fsm.AlterBrokerConfigs, validateOnly bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := alter.Apply(f.catalog.View().BrokerConfigs(alter.All)); err != nil || validateOnly {
		return err
	}
	return f.apply(fsm.CatalogCommand{AlterBrokerConfigs: &alter})
}

func (f *fakeCluster) CreatePartitions(ctx context.Context, id fsm.TopicID, count int, validateOnly bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	topic, _ := f.catalog.View().ByID(id)
	create := &fsm.CreatePartitions{Topic: id, From: len(topic.Partitions)}
	for range count - len(topic.Partitions) {
		replicas := topic.Partitions[0].Replicas
		create.Partitions = append(create.Partitions, fsm.Partition{Replicas: replicas, Bootstrap: replicas})
	}
	if validateOnly {
		_, err := f.catalog.View().CheckCreatePartitions(create)
		return err
	}
	return f.apply(fsm.CatalogCommand{CreatePartitions: create})
}

func (f *fakeCluster) DeleteRecords(ctx context.Context, p fsm.PartitionID, before fsm.Offset) (fsm.Offset, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.log(p)
	if err != nil {
		return -1, err
	}
	if before == -1 {
		before = l.next
	}
	if before < 0 || before > l.next {
		return -1, outcome.ErrOffsetOutOfRange
	}
	l.start = max(l.start, before)
	return l.start, nil
}

func (f *fakeCluster) Producers(ctx context.Context, p fsm.PartitionID) ([]fsm.ActiveProducer, error) {
	return []fsm.ActiveProducer{{ID: 7, Epoch: 2, LastSequence: 99, LastTimestamp: 1234}}, nil
}

func (f *fakeCluster) Append(ctx context.Context, p fsm.PartitionID, batches [][]byte) ([]fsm.Appended, error) {
	if f.append != nil {
		return f.append(ctx, p, batches)
	}
	return f.doAppend(p, batches)
}

func (f *fakeCluster) doAppend(p fsm.PartitionID, batches [][]byte) ([]fsm.Appended, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.log(p)
	if err != nil {
		return nil, err
	}
	var out []fsm.Appended
	var counts []int
	for _, b := range batches {
		if err := kafkaproto.CheckBatch(b); err != nil {
			return nil, fmt.Errorf("%w: %w", outcome.ErrCorruptMessage, err)
		}
		b = slices.Clone(b)
		kafkaproto.StampBatch(b, int64(l.next), int32(f.leaderEpoch()))
		h, _ := kafkaproto.ParseBatchHeader(b)
		out = append(out, fsm.Appended{BaseOffset: l.next, LogStart: l.start, Timestamp: h.MaxTimestamp})
		counts = append(counts, int(h.Records))
		l.next = fsm.Offset(h.NextOffset())
		l.batches = append(l.batches, b)
	}
	f.appends = append(f.appends, counts)
	close(l.changed)
	l.changed = make(chan struct{})
	return out, nil
}

func (f *fakeCluster) Read(ctx context.Context, p fsm.PartitionID, from fsm.Offset, maxBytes int) (fsm.Slice, error) {
	if f.read != nil {
		return f.read(ctx, p, from, maxBytes)
	}
	return f.doRead(p, from, maxBytes)
}

func (f *fakeCluster) doRead(p fsm.PartitionID, from fsm.Offset, maxBytes int) (fsm.Slice, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.log(p)
	if err != nil {
		return fsm.Slice{}, err
	}
	if from < l.start || from > l.next {
		return fsm.Slice{}, outcome.ErrOffsetOutOfRange
	}
	s := fsm.Slice{HighWatermark: l.next, LogStart: l.start}
	for _, b := range l.batches {
		h, _ := kafkaproto.ParseBatchHeader(b)
		if fsm.Offset(h.LastOffset()) < from {
			continue
		}
		if len(s.Batches) > 0 && len(s.Batches)+len(b) > maxBytes {
			break
		}
		s.Batches = append(s.Batches, b...)
	}
	return s, nil
}

func (f *fakeCluster) Await(ctx context.Context, p fsm.PartitionID, from fsm.Offset) error {
	if f.await != nil {
		return f.await(ctx, p, from)
	}
	return f.doAwait(ctx, p, from)
}

func (f *fakeCluster) doAwait(ctx context.Context, p fsm.PartitionID, from fsm.Offset) error {
	for {
		f.mu.Lock()
		l, err := f.log(p)
		if err != nil || l.next > from {
			f.mu.Unlock()
			return err
		}
		changed := l.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *fakeCluster) ListOffsets(ctx context.Context, p fsm.PartitionID, timestamp int64, max int) ([]fsm.Offset, error) {
	if f.offsets != nil {
		return f.offsets(ctx, p, timestamp, max)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.log(p)
	if err != nil {
		return nil, err
	}
	switch timestamp {
	case -1:
		return []fsm.Offset{l.next}, nil
	case -2:
		return []fsm.Offset{l.start}, nil
	}
	return nil, nil
}

func (f *fakeCluster) OffsetForTime(ctx context.Context, p fsm.PartitionID, timestamp int64) (fsm.Offset, int64, fsm.LeaderEpoch, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.log(p)
	if err != nil {
		return -1, -1, -1, false, err
	}
	var best kafkaproto.TimestampedOffset
	found := false
	for _, b := range l.batches {
		if timestamp == -3 {
			if at, ok, err := kafkaproto.Latest(b, int64(l.start)); err != nil {
				return -1, -1, -1, false, err
			} else if ok && (!found || at.Timestamp > best.Timestamp) {
				best, found = at, true
			}
			continue
		}
		at, ok, err := kafkaproto.FirstAtOrAfter(b, int64(l.start), timestamp)
		if err != nil {
			return -1, -1, -1, false, err
		}
		if ok {
			best, found = at, true
			break
		}
	}
	return fsm.Offset(best.Offset), best.Timestamp, fsm.LeaderEpoch(best.LeaderEpoch), found, nil
}

func (f *fakeCluster) EpochEnd(ctx context.Context, p fsm.PartitionID, epoch fsm.LeaderEpoch) (fsm.LeaderEpoch, fsm.Offset, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.log(p)
	if err != nil {
		return -1, -1, err
	}
	if epoch > f.leaderEpoch() {
		return -1, -1, nil
	}
	found, end := epoch, l.next
	for _, b := range l.batches {
		h, _ := kafkaproto.ParseBatchHeader(b)
		if fsm.LeaderEpoch(h.LeaderEpoch) > epoch {
			return found, fsm.Offset(h.BaseOffset), nil
		}
		found = fsm.LeaderEpoch(h.LeaderEpoch)
	}
	return found, end, nil
}

func (f *fakeCluster) leaderEpoch() fsm.LeaderEpoch { return max(f.epoch, 1) }

func (f *fakeCluster) LeaderEpoch(p fsm.PartitionID) (fsm.LeaderEpoch, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leaderEpoch(), true
}

func (f *fakeCluster) NewProducerID(ctx context.Context) (int64, error) {
	if f.newID != nil {
		return f.newID(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastID++
	return f.lastID, nil
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

// ClusterID implements Cluster.
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

// gatewayOf is a server on loopback, stopped when the test ends.
type gatewayOf struct {
	*Server
	t    testing.TB
	addr string
	logs *logBuffer
}

// serve starts a server for the cluster. change may be nil.
func serve(t testing.TB, c Cluster, change func(*Config)) *gatewayOf {
	t.Helper()
	logs := &logBuffer{}
	cfg := Config{
		Cluster: c, AutoCreateTopics: true, Registry: prometheus.NewRegistry(), Version: "test",
		Logger: slog.New(slog.NewTextHandler(logs, nil)),
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		<-served
	})
	return &gatewayOf{s, t, l.Addr().String(), logs}
}

type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// dial opens a plain connection that gives up after ten seconds.
func (g *gatewayOf) dial() *client {
	g.t.Helper()
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	return newClient(g.t, conn)
}

func (g *gatewayOf) dialTLS(cfg *tls.Config) *client {
	g.t.Helper()
	conn, err := tls.Dial("tcp", g.addr, cfg)
	if err != nil {
		g.t.Fatal(err)
	}
	return newClient(g.t, conn)
}

// CatalogKnown implements Cluster.
func (f *fakeCluster) CatalogKnown() bool { return !f.catalogUnknown.Load() }

// Gateways implements Cluster.
func (f *fakeCluster) Gateways() map[fsm.NodeID]string { return f.gateways }

// Administer implements Cluster.
func (f *fakeCluster) Administer(_ context.Context, request admin.Request) error {
	if request.Op != admin.OpDrain {
		return outcome.ErrInvalidAssignment
	}
	return nil
}

// Coordinate implements Cluster, with coordinators over states in memory.
func (f *fakeCluster) Coordinate(ctx context.Context, shard int, client coordinator.Client, req kmsg.Request) (kmsg.Response, error) {
	f.coordinating.Lock()
	if f.coordinateErr != nil {
		defer f.coordinating.Unlock()
		return nil, f.coordinateErr
	}
	c := f.coordinators[shard]
	if c == nil {
		state := coordinator.NewState()
		c = coordinator.New(coordinator.Config{
			State: state, Logger: slog.New(slog.DiscardHandler),
			Propose: func(_ context.Context, command []byte) error {
				f.coordinating.Lock()
				defer f.coordinating.Unlock()
				return state.Apply(command)
			},
			TopicID: func(name string) ([16]byte, bool) {
				if topic, ok := f.Topics().Lookup(name); ok {
					return topic.ID, true
				}
				return [16]byte{}, false
			},
			TopicName: func(id [16]byte) (string, bool) {
				if topic, ok := f.Topics().ByID(id); ok {
					return topic.Name, true
				}
				return "", false
			},
		})
		f.coordinators[shard] = c
	}
	f.coordinating.Unlock()
	return c.Handle(ctx, client, req)
}
