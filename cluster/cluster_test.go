package cluster

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/cluster/link/peertest"
	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/outcome"
)

// testCluster is a cluster in this process, on loopback, with a network between
// the nodes that can be cut.
type testCluster struct {
	t    *testing.T
	base string
	// of its gossip: tests side by side must not meet when one takes a port that another had
	keys   [][]byte
	nodes  []*testNode
	net    *cuttable
	starts int
	acks   *promised
}

type testNode struct {
	*Node
	cfg     Config
	running bool
	fixed   bool     // it keeps its addresses
	disk    *memDisk // nil: the machine's
}

// cuttable is a network whose pairs of nodes can be cut: connections between
// them break and no new ones come to be.
type cuttable struct {
	under *peertest.Network
	mu    sync.Mutex
	owner map[string]int // address -> node
	cut   map[[2]int]bool
	conns map[[2]int]map[net.Conn]bool
	dead  map[int]bool // its process has ended
}

var errCut = errors.New("the test cut the network")

func newCuttable() *cuttable {
	under := peertest.New()
	// where nothing takes time, whoever does something again and again ends virtual time
	under.Latency = 200 * time.Microsecond
	return &cuttable{under: under, owner: map[string]int{}, cut: map[[2]int]bool{}, conns: map[[2]int]map[net.Conn]bool{}, dead: map[int]bool{}}
}

func (c *cuttable) dialer(from int) func(context.Context, string) (net.Conn, error) {
	dial := c.under.Dial(fmt.Sprint("n", from+1))
	return func(ctx context.Context, addr string) (net.Conn, error) {
		c.mu.Lock()
		to, known := c.owner[addr]
		pair := [2]int{min(from, to), max(from, to)}
		cut := known && c.cut[pair] || c.dead[from]
		c.mu.Unlock()
		if cut {
			return nil, errCut
		}
		conn, err := dial(ctx, addr)
		if err != nil || !known {
			return conn, err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.cut[pair] || c.dead[from] {
			conn.Close()
			return nil, errCut
		}
		if c.conns[pair] == nil {
			c.conns[pair] = map[net.Conn]bool{}
		}
		c.conns[pair][conn] = true
		return conn, nil
	}
}

// lives says whether a node's process runs. Of one that has ended all connections break, without
// a word, and none comes to be.
func (c *cuttable) lives(node int, on bool) {
	c.mu.Lock()
	c.dead[node] = !on
	others := len(c.owner)
	c.mu.Unlock()
	name := fmt.Sprint("n", node+1)
	c.under.Refuse(name, !on)
	if !on {
		for other := range others {
			c.under.Break(name, fmt.Sprint("n", other+1))
		}
	}
}

// isolate cuts a node from all others, or ends that.
func (c *cuttable) isolate(node int, all int, cut bool) {
	c.mu.Lock()
	for other := range all {
		if other != node {
			c.pairLocked([2]int{min(node, other), max(node, other)}, cut)
		}
	}
	c.mu.Unlock()
	noticed()
}

// pair cuts two nodes off from each other, or ends that.
func (c *cuttable) pair(a, b int, cut bool) {
	c.mu.Lock()
	c.pairLocked([2]int{min(a, b), max(a, b)}, cut)
	c.mu.Unlock()
	noticed()
}

func (c *cuttable) pairLocked(pair [2]int, cut bool) {
	c.cut[pair] = cut
	if cut {
		for conn := range c.conns[pair] {
			conn.Close()
		}
		delete(c.conns, pair)
	}
}

func testLogger(t *testing.T) *slog.Logger {
	if os.Getenv("TRIMARAN_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// inBubble runs a test of whole clusters in virtual time, beside others. Nodes have a network in
// memory; hours of theirs take seconds.
func inBubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	const most = 10 * time.Minute // of real time; most take less than a second
	stuck := time.AfterFunc(most, func() {
		panic(t.Name() + ": virtual time does not pass: somebody does something again and again, or waits with a mutex held")
	})
	defer stuck.Stop()
	synctest.Test(t, test)
}

// virtual reports whether this is a bubble of synctest: time begins in the year 2000 there.
func virtual() bool { return time.Now().Year() == 2000 }

// noticed waits until all have noticed what has just happened, in virtual time.
func noticed() {
	if virtual() {
		synctest.Wait()
	}
}

// inRealTime runs a test in which something waits for a disk with a mutex held, as disks that hang
// are for: virtual time would not pass.
func inRealTime(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	test(t)
}

// runInBubble is inBubble as a test within a test.
func runInBubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { inBubble(t, test) })
}

// newTestCluster makes n nodes that expect each other; none is started.
func newTestCluster(t *testing.T, n int) *testCluster {
	t.Helper()
	c := &testCluster{t: t, base: "/", keys: [][]byte{make([]byte, 16)}, net: newCuttable(), acks: newPromised(t)}
	rand.Read(c.keys[0])
	if !virtual() {
		c.base = t.TempDir()
	}
	for range n {
		c.add(n)
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.kill(i)
		}
		// a probe of gossip's outlives its node by its timeout, and the bubble's time ends with the
		// test
		if virtual() {
			time.Sleep(time.Minute)
		}
		// Package testing keeps tests that run side by side, and what they have cleaned up, until
		// all of them are over. The disks of some hundred nodes would be many gigabytes.
		for _, n := range c.nodes {
			if n.disk != nil {
				n.disk.files().Wipe()
			}
		}
	})
	return c
}

// add makes one more node; expect 0 joins an existing cluster.
func (c *testCluster) add(expect int) int {
	i := len(c.nodes)
	var disk *memDisk
	if c.base == "/" {
		disk = newMemDisk(uint64(i))
	}
	cfg := Config{
		DataDir:         filepath.Join(c.base, fmt.Sprintf("n%d", i+1)),
		NodeID:          fsm.NodeID(fmt.Sprintf("n%d", i+1)),
		GossipKeys:      c.keys,
		BootstrapExpect: expect,
		Logger:          testLogger(c.t),
		Dial:            c.net.dialer(i),
		Listen:          func(addr string) (net.Listener, error) { return c.net.under.Listen(fmt.Sprint("n", i+1), addr) },
	}
	if disk != nil {
		cfg.fs = disk.boot()
	}
	c.nodes = append(c.nodes, &testNode{cfg: cfg, disk: disk})
	return i
}

// addresses gives a node new ones, as a node in a container has them after each start.
func (c *testCluster) addresses(i int) {
	c.t.Helper()
	node := c.nodes[i]
	c.starts++
	node.cfg.PeerListen = fmt.Sprintf("10.0.%d.%d:7000", c.starts, i+1)
	node.cfg.GossipListen = fmt.Sprintf("10.0.%d.%d:7946", c.starts, i+1)
	c.gossips(i)
}

// gossips gives a node its transport of gossip, which ends with the node.
func (c *testCluster) gossips(i int) {
	c.t.Helper()
	transport, err := c.net.under.Gossip(fmt.Sprint("n", i+1), c.nodes[i].cfg.GossipListen)
	if err != nil {
		c.t.Fatal(err)
	}
	c.nodes[i].cfg.gossip = transport
}

func (c *testCluster) start(i int) *testNode {
	c.t.Helper()
	if err := c.tryStart(i); err != nil {
		c.t.Fatalf("start node %d: %v", i+1, err)
	}
	return c.nodes[i]
}

// tryStart is start, for one that may refuse.
func (c *testCluster) tryStart(i int) error {
	c.t.Helper()
	node := c.nodes[i]
	node.cfg.Join = nil
	for j, other := range c.nodes {
		if j != i && other.running {
			_, gossip := other.Addresses()
			node.cfg.Join = append(node.cfg.Join, gossip)
		}
	}
	if node.fixed {
		c.gossips(i)
	} else {
		c.addresses(i)
	}
	node.cfg.answered = c.acks.of(i)
	if node.disk != nil {
		node.cfg.fs = node.disk.boot()
	}
	c.net.lives(i, true)
	n, err := Start(node.cfg)
	if err != nil {
		_ = node.cfg.gossip.Shutdown() // it was to take that over
		if node.disk != nil {
			node.disk.dead(false)
		}
		return err
	}
	peer, _ := n.Addresses()
	c.net.mu.Lock()
	c.net.owner[peer] = i
	c.net.mu.Unlock()
	node.Node, node.running = n, true
	return nil
}

func (c *testCluster) startAll() {
	c.t.Helper()
	for i := range c.nodes {
		c.start(i)
	}
	c.ready()
}

// kill ends a node's process, where its disk is in memory. On the machine's disk it is ended
// without handing anything over.
func (c *testCluster) kill(i int) {
	if c.nodes[i].disk != nil {
		c.crash(i, false)
	} else {
		c.halt(i)
	}
}

// halt ends a node without handing anything over. Its files are closed in good order.
func (c *testCluster) halt(i int) {
	if c.nodes[i].running {
		c.nodes[i].running = false
		c.nodes[i].stop()
		if c.nodes[i].disk != nil {
			c.nodes[i].disk.dead(false)
		}
	}
}

// crash ends a node as it is: nothing of it is written, sent or closed any more. Without power
// what it has not synced is lost, too.
func (c *testCluster) crash(i int, power bool) {
	c.t.Helper()
	node := c.nodes[i]
	if !node.running {
		return
	}
	node.running = false
	node.disk.die(power)
	c.net.lives(i, false)
	node.stop()
	node.disk.dead(power)
	node.cfg.fs = node.disk.boot()
}

func (c *testCluster) ready() {
	c.t.Helper()
	ctx := within(c.t)
	for i, node := range c.nodes {
		if !node.running {
			continue
		}
		if err := node.WaitReady(ctx); err != nil {
			c.t.Fatalf("node %d is not ready: %v", i+1, err)
		}
	}
}

// within is the deadline of everything that a test waits for.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for a condition that no channel tells of.
func eventually(t *testing.T, what string, condition func() error) {
	t.Helper()
	ctx := within(t)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		case <-tick.C:
		}
	}
}

func (c *testCluster) topic(name string, partitions int32, factor int16) *fsm.Topic {
	c.t.Helper()
	ctx := within(c.t)
	if err := c.any().CreateTopic(ctx, fsm.TopicSpec{Name: name, Partitions: partitions, ReplicationFactor: factor}, false); err != nil {
		c.t.Fatalf("create topic %s: %v", name, err)
	}
	var topic *fsm.Topic
	for i, node := range c.nodes {
		if !node.running {
			continue
		}
		eventually(c.t, fmt.Sprintf("topic %s at node %d", name, i+1), func() error {
			t, ok := node.Topics().Lookup(name)
			if !ok {
				return errors.New("not known")
			}
			topic = t
			return nil
		})
	}
	return topic
}

func (c *testCluster) any() *Node {
	for _, node := range c.nodes {
		if node.running {
			return node.Node
		}
	}
	c.t.Fatal("no node runs")
	return nil
}

// leaderOf waits until one running node leads the partition.
func (c *testCluster) leaderOf(id fsm.PartitionID) int {
	c.t.Helper()
	leader := -1
	eventually(c.t, "leader of "+id.String(), func() error {
		for i, node := range c.nodes {
			if !node.running {
				continue
			}
			if r := node.replica(id); r != nil {
				if l, err := r.Leads(); err == nil && r.ReadIndex(within(c.t), l.InTerm()) == nil {
					leader = i
					return nil
				}
			}
		}
		return errors.New("none")
	})
	return leader
}

// batchList is what is appended in one call.
type batchList = []kafkaproto.Batch

// valuesFrom reads a partition from offset 0 to its end through a node.
func valuesFrom(ctx context.Context, n *Node, id fsm.PartitionID) ([]string, error) {
	return valuesBehind(ctx, n, id, 0)
}

// valuesBehind reads a partition from an offset, at which a batch begins, to its end.
func valuesBehind(ctx context.Context, n *Node, id fsm.PartitionID, next fsm.Offset) ([]string, error) {
	var values []string
	for {
		slice, err := n.Read(ctx, id, next, 1<<20, fsm.ReadUncommitted)
		if err != nil {
			return values, err
		}
		if len(slice.Batches) == 0 {
			return values, nil
		}
		for raw, err := range kafkaproto.Batches(slice.Batches) {
			if err != nil {
				return values, err
			}
			var b kmsg.RecordBatch
			if err := b.ReadFrom(raw.Bytes()); err != nil {
				return values, err
			}
			if fsm.Offset(b.FirstOffset) != next {
				return values, fmt.Errorf("batch at %d where %d was expected", b.FirstOffset, next)
			}
			records := b.Records
			for range b.NumRecords {
				var r kmsg.Record
				size := varintRecordSize(records)
				if err := r.ReadFrom(records[:size]); err != nil {
					return values, err
				}
				records = records[size:]
				values = append(values, string(r.Value))
			}
			next += fsm.Offset(b.LastOffsetDelta) + 1
		}
	}
}

func headersOf(t *testing.T, batches []byte) (headers []kafkaproto.BatchHeader) {
	t.Helper()
	for batch, err := range kafkaproto.Batches(batches) {
		if err != nil {
			t.Fatal(err)
		}
		if err := batch.CheckCRC(); err != nil {
			t.Fatal(err)
		}
		headers = append(headers, batch.Header())
	}
	return headers
}

// messageWithCRC fills in size and CRC of one encoded magic 0 message.
func messageWithCRC(raw []byte) []byte {
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[12:], crc32.ChecksumIEEE(raw[16:]))
	return raw
}

// varintRecordSize is the length of the first record of an uncompressed batch.
func varintRecordSize(records []byte) int {
	length, n := binary.Varint(records)
	return n + int(length)
}

func (c *testCluster) append(node int, id fsm.PartitionID, values ...string) ([]fsm.Appended, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return c.nodes[node].Append(ctx, id, batchList{prototest.Batch(values...)})
}

// mustAppend appends until it is acknowledged; a value may be there twice when
// a fate was unknown, so it is used where no failure is expected.
func (c *testCluster) mustAppend(node int, id fsm.PartitionID, values ...string) fsm.Offset {
	c.t.Helper()
	var base fsm.Offset
	eventually(c.t, "append", func() error {
		appended, err := c.append(node, id, values...)
		// A node that was just started may not know the topic yet.
		if err != nil && !outcome.NotAppended(err) && outcome.Code(err) != outcome.ErrUnknownTopicOrPartition {
			c.t.Fatalf("append through node %d: %v", node+1, err)
		}
		if err == nil {
			base = appended[0].BaseOffset
		}
		return err
	})
	return base
}

// wantEverywhere waits until every running node's own replica has exactly these values.
func (c *testCluster) wantEverywhere(id fsm.PartitionID, want []string) {
	c.t.Helper()
	c.wantBehind(id, 0, want)
}

// wantBehind is wantEverywhere from an offset on, at which a batch begins.
func (c *testCluster) wantBehind(id fsm.PartitionID, first fsm.Offset, want []string) {
	c.t.Helper()
	for i, node := range c.nodes {
		if !node.running {
			continue
		}
		eventually(c.t, fmt.Sprintf("records at node %d", i+1), func() error {
			got, err := valuesBehind(within(c.t), node.Node, id, first)
			if err != nil {
				return err
			}
			if !slices.Equal(got, want) {
				return fmt.Errorf("has %d records, want %d: %.200q", len(got), len(want), got)
			}
			return nil
		})
	}
}

func TestThreeNodesFormOneClusterInAnyOrder(t *testing.T) {
	inBubble(t, testThreeNodesFormOneClusterInAnyOrder)
}

func testThreeNodesFormOneClusterInAnyOrder(t *testing.T) {
	c := newTestCluster(t, 3)
	c.start(2)
	if err := c.nodes[2].Ready(); err == nil {
		t.Fatal("one of three expected nodes says it is ready")
	}
	c.start(0)
	c.start(1)
	c.ready()
	id := c.nodes[0].ClusterID()
	for i, node := range c.nodes {
		if node.ClusterID() != id {
			t.Errorf("node %d is in cluster %s, node 1 in %s", i+1, node.ClusterID(), id)
		}
		eventually(t, "nodes in the catalog", func() error {
			if got := len(node.Topics().Nodes()); got != 3 {
				return fmt.Errorf("%d", got)
			}
			return nil
		})
	}
}

func TestRecordsAppendedAtAnyNodeAreReadAtEveryNode(t *testing.T) {
	inBubble(t, testRecordsAppendedAtAnyNodeAreReadAtEveryNode)
}

func testRecordsAppendedAtAnyNodeAreReadAtEveryNode(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("a", 2, 3)
	for p := range topic.Partitions {
		id := fsm.PartitionID{Topic: topic.ID, Partition: int32(p)}
		var want []string
		for i := range 12 {
			values := []string{fmt.Sprintf("p%d-%d-x", p, i), fmt.Sprintf("p%d-%d-y", p, i)}
			if base := c.mustAppend(i%3, id, values...); base != fsm.Offset(2*i) {
				t.Fatalf("append %d got offset %d", i, base)
			}
			want = append(want, values...)
		}
		c.wantEverywhere(id, want)
		for i, node := range c.nodes {
			for timestamp, offset := range map[int64]fsm.Offset{-1: 24, -2: 0} {
				got, err := node.ListOffsets(within(t), id, timestamp, 1)
				if err != nil || len(got) != 1 || got[0] != offset {
					t.Errorf("node %d: offset for %d: %v, %v; want %d", i+1, timestamp, got, err, offset)
				}
			}
			if _, err := node.Read(within(t), id, 25, 100, fsm.ReadUncommitted); !errors.Is(err, outcome.ErrOffsetOutOfRange) {
				t.Errorf("node %d: read above the end: %v", i+1, err)
			}
			if slice, err := node.Read(within(t), id, 24, 100, fsm.ReadUncommitted); err != nil || len(slice.Batches) != 0 || slice.HighWatermark != 24 {
				t.Errorf("node %d: read at the end: %+v, %v", i+1, slice, err)
			}
			slice, err := node.Read(within(t), id, 5, 1, fsm.ReadUncommitted)
			if err != nil {
				t.Fatal(err)
			}
			if h, err := kafkaproto.ParseBatchHeader(slice.Batches); err != nil || h.BaseOffset != 4 || h.Size() != len(slice.Batches) {
				t.Errorf("node %d: a read of 1 byte at 5 gives %+v, %v", i+1, h, err)
			}
		}
	}
}

func TestAwaitWakesOnCommitAtEveryNode(t *testing.T) { inBubble(t, testAwaitWakesOnCommitAtEveryNode) }

func testAwaitWakesOnCommitAtEveryNode(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	woken := make(chan error, 3)
	for _, node := range c.nodes {
		go func() { woken <- node.Await(within(t), id, 0, fsm.ReadUncommitted) }()
	}
	select {
	case err := <-woken:
		t.Fatalf("woke before a record was there: %v", err)
	default:
	}
	c.mustAppend(1, id, "v")
	for range c.nodes {
		if err := <-woken; err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := c.nodes[0].Await(ctx, id, 1, fsm.ReadUncommitted); !errors.Is(err, context.Canceled) {
		t.Errorf("await with an ended context: %v", err)
	}
}

// acknowledgedLoad appends numbered values through every running node until it
// is stopped and keeps what was acknowledged.
type acknowledgedLoad struct {
	id    fsm.PartitionID
	nodes []*testNode

	mu    sync.Mutex
	acked map[string]fsm.Offset
	stop  context.CancelFunc
	done  sync.WaitGroup
}

func (c *testCluster) load(id fsm.PartitionID, name string, through ...int) *acknowledgedLoad {
	ctx, cancel := context.WithCancel(context.Background())
	l := &acknowledgedLoad{acked: map[string]fsm.Offset{}, stop: cancel, id: id, nodes: c.nodes}
	for _, i := range through {
		node := c.nodes[i].Node
		l.done.Add(1)
		go func() {
			defer l.done.Done()
			for seq := 0; ctx.Err() == nil; seq++ {
				value := fmt.Sprintf("%s-n%d-%d", name, i+1, seq)
				call, end := context.WithTimeout(ctx, 5*time.Second)
				appended, err := node.Append(call, id, batchList{prototest.Batch(value)})
				end()
				time.Sleep(20 * time.Millisecond)
				if err == nil {
					l.mu.Lock()
					l.acked[value] = appended[0].BaseOffset
					l.mu.Unlock()
				}
			}
		}()
	}
	return l
}

func (l *acknowledgedLoad) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// more waits until n more appends were acknowledged.
func (l *acknowledgedLoad) more(t *testing.T, n int) {
	t.Helper()
	from := l.count()
	eventually(t, "acknowledged appends", func() error {
		if got := l.count() - from; got < n {
			return fmt.Errorf("%d of %d; %s", got, n, l.groups())
		}
		return nil
	})
}

// groups tells how the partition's group stands on every node, for a test that fails.
func (l *acknowledgedLoad) groups() string {
	var b strings.Builder
	for i, node := range l.nodes {
		if !node.running {
			continue
		}
		if r := node.Node.replica(l.id); r != nil {
			fmt.Fprintf(&b, "\nnode %d: %v, servers %v", i+1, r.Member.Raft.Stats(), r.Member.Raft.GetConfiguration().Configuration().Servers)
		}
	}
	return b.String()
}

// check ends the load and compares what every running node has with what was
// acknowledged.
func (l *acknowledgedLoad) check(c *testCluster, id fsm.PartitionID) {
	c.t.Helper()
	l.stop()
	l.done.Wait()
	if len(l.acked) == 0 {
		c.t.Fatal("nothing was acknowledged")
	}
	for i, node := range c.nodes {
		if !node.running {
			continue
		}
		eventually(c.t, fmt.Sprintf("acknowledged records at node %d", i+1), func() error {
			got, err := valuesFrom(within(c.t), node.Node, id)
			if err != nil {
				return err
			}
			seen := map[string]bool{}
			for _, v := range got {
				if seen[v] {
					return fmt.Errorf("%q is there twice", v)
				}
				seen[v] = true
			}
			for value, offset := range l.acked {
				if int(offset) >= len(got) || got[offset] != value {
					return fmt.Errorf("%q was acknowledged at %d and is not there", value, offset)
				}
			}
			return nil
		})
	}
}

func TestNothingAcknowledgedIsLostWhenNodesDieInTurn(t *testing.T) {
	inBubble(t, testNothingAcknowledgedIsLostWhenNodesDieInTurn)
}

func testNothingAcknowledgedIsLostWhenNodesDieInTurn(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	var leaders []int
	for round := range 3 {
		victim := c.leaderOf(id)
		if round == 2 { // a follower this time
			victim = (victim + 1) % 3
		}
		leaders = append(leaders, victim)
		var others []int
		for i := range c.nodes {
			if i != victim {
				others = append(others, i)
			}
		}
		load := c.load(id, fmt.Sprintf("r%d", round), others...)
		load.more(t, 20)
		c.kill(victim)
		load.more(t, 20)
		c.start(victim)
		c.ready()
		load.more(t, 20)
		load.check(c, id)
	}
	t.Logf("killed nodes %v", leaders)
}

func TestTheMinoritySideRefusesAndTheMajorityGoesOn(t *testing.T) {
	inBubble(t, testTheMinoritySideRefusesAndTheMajorityGoesOn)
}

func testTheMinoritySideRefusesAndTheMajorityGoesOn(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	c.mustAppend(0, id, "before")
	cut := c.leaderOf(id)
	others := []int{(cut + 1) % 3, (cut + 2) % 3}
	c.net.isolate(cut, 3, true)
	// Not even at once, while its lease lasts: what it knows may be old by now.
	asking, stop := context.WithTimeout(t.Context(), time.Second)
	if got, err := c.nodes[cut].ListOffsets(asking, id, -1, 1); err == nil {
		t.Errorf("a leader that was cut off this moment says that the log ends at %v", got)
	}
	stop()
	load := c.load(id, "majority", others...)
	load.more(t, 10)

	// The old leader must neither acknowledge nor answer for the partition's end.
	eventually(t, "the cut leader refuses", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		began := time.Now()
		if _, err := c.nodes[cut].Append(ctx, id, batchList{prototest.Batch("minority")}); err == nil {
			t.Fatal("a cut-off leader acknowledged an append")
		} else if !outcome.NotAppended(err) {
			return err // was in flight when it noticed
		} else {
			t.Logf("refused after %v", time.Since(began))
		}
		return nil
	})
	if got, err := c.nodes[cut].ListOffsets(within(t), id, -1, 1); err == nil {
		t.Errorf("a cut-off leader says that the log ends at %v", got)
	}
	c.net.isolate(cut, 3, false)
	load.more(t, 10)
	eventually(t, "the cut node follows again", func() error {
		_, err := c.append(cut, id, "after")
		return err
	})
	load.check(c, id)
	end, err := c.nodes[cut].ListOffsets(within(t), id, -1, 1)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	eventually(t, "the cut node has all of it", func() (err error) {
		if values, err = valuesFrom(within(t), c.nodes[cut].Node, id); err == nil && len(values) < int(end[0]) {
			err = fmt.Errorf("%d records of %d", len(values), end[0])
		}
		return err
	})
	c.wantEverywhere(id, values)
}

func TestAllNodesStopAtOnceAndComeBackWithOtherAddresses(t *testing.T) {
	inBubble(t, testAllNodesStopAtOnceAndComeBackWithOtherAddresses)
}

func testAllNodesStopAtOnceAndComeBackWithOtherAddresses(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("a", 3, 3)
	want := map[int32][]string{}
	for i := range 30 {
		p := int32(i % 3)
		value := fmt.Sprintf("v%d", i)
		c.mustAppend(i%2, fsm.PartitionID{Topic: topic.ID, Partition: p}, value)
		want[p] = append(want[p], value)
	}
	for i := range c.nodes {
		c.kill(i)
	}
	c.startAll() // every port is another one
	for p, values := range want {
		c.wantEverywhere(fsm.PartitionID{Topic: topic.ID, Partition: p}, values)
	}
	id := fsm.PartitionID{Topic: topic.ID}
	if base := c.mustAppend(2, id, "next"); base != fsm.Offset(len(want[0])) {
		t.Errorf("the next offset after a restart is %d, want %d", base, len(want[0]))
	}
}

func TestAFollowerThatWasAwayGetsEverything(t *testing.T) {
	inBubble(t, testAFollowerThatWasAwayGetsEverything)
}

func testAFollowerThatWasAwayGetsEverything(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	away := (c.leaderOf(id) + 1) % 3
	other := (away + 1) % 3
	c.kill(away)
	var want []string
	for i := range 300 {
		value := fmt.Sprintf("v%d", i)
		c.mustAppend(other, id, value)
		want = append(want, value)
	}
	c.start(away)
	c.ready()
	eventually(t, "caught up on its own disk", func() error {
		if _, next := c.nodes[away].replica(id).Bounds(); next != 300 {
			return fmt.Errorf("has %d of 300", next)
		}
		return nil
	})
	c.wantEverywhere(id, want)
}

func TestASnapshotAndARestartChangeNothing(t *testing.T) {
	inBubble(t, testASnapshotAndARestartChangeNothing)
}

func testASnapshotAndARestartChangeNothing(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	topic := c.topic("a", 1, 1)
	id := fsm.PartitionID{Topic: topic.ID}
	var want []string
	for i := range 40 {
		value := fmt.Sprintf("v%d", i)
		c.mustAppend(0, id, value)
		want = append(want, value)
		if i == 25 {
			if err := c.nodes[0].replica(id).Member.Raft.Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
			if err := c.nodes[0].catalog.Member().Raft.Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.kill(0)
	c.startAll()
	c.wantEverywhere(id, want)
	if base := c.mustAppend(0, id, "next"); base != 40 {
		t.Errorf("next offset %d, want 40", base)
	}
}

func TestADeletedTopicIsAnotherTopicWhenCreatedAgain(t *testing.T) {
	inBubble(t, testADeletedTopicIsAnotherTopicWhenCreatedAgain)
}

func testADeletedTopicIsAnotherTopicWhenCreatedAgain(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	first := c.topic("a", 1, 3)
	c.mustAppend(0, fsm.PartitionID{Topic: first.ID}, "old")
	away := 2
	c.kill(away)
	if err := c.nodes[0].DeleteTopic(within(t), "a"); err != nil {
		t.Fatal(err)
	}
	if err := c.nodes[0].DeleteTopic(within(t), "a"); !errors.Is(err, outcome.ErrUnknownTopicOrPartition) {
		t.Errorf("deleting it twice: %v", err)
	}
	second := c.topic("a", 1, 3)
	if second.ID == first.ID {
		t.Fatal("the new topic has the old id")
	}
	c.start(away)
	c.ready()
	c.mustAppend(away, fsm.PartitionID{Topic: second.ID}, "new")
	c.wantEverywhere(fsm.PartitionID{Topic: second.ID}, []string{"new"})
	for i, node := range c.nodes {
		eventually(t, fmt.Sprintf("the old files are gone at node %d", i+1), func() error {
			if ok, err := vfs.Exists(node.cfg.disk(), node.partitionDir(fsm.PartitionID{Topic: first.ID})); ok || err != nil {
				return fmt.Errorf("still there: %v", err)
			}
			return nil
		})
		if _, err := node.Read(within(t), fsm.PartitionID{Topic: first.ID}, 0, 100, fsm.ReadUncommitted); !errors.Is(err, outcome.ErrUnknownTopicOrPartition) {
			t.Errorf("node %d: reading the deleted topic: %v", i+1, err)
		}
	}
}

func TestANodeIsRefusedWithTheWrongDirectoryOrName(t *testing.T) {
	inBubble(t, testANodeIsRefusedWithTheWrongDirectoryOrName)
}

func testANodeIsRefusedWithTheWrongDirectoryOrName(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	second := c.nodes[0].cfg
	if _, err := Start(second); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("second process on one directory: %v", err)
	}
	c.kill(0)
	wrong := c.nodes[0].cfg
	wrong.NodeID = "other"
	if _, err := Start(wrong); err == nil || !strings.Contains(err.Error(), `belongs to node "n1"`) {
		t.Errorf("wrong node id: %v", err)
	}
	if err := c.nodes[0].on().Remove(filepath.Join(c.nodes[0].cfg.DataDir, "node.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(c.nodes[0].cfg); err == nil || !strings.Contains(err.Error(), "lost its identity") {
		t.Errorf("without node.json: %v", err)
	}
}

func TestAWipedNodeCannotComeBackUnderItsOldName(t *testing.T) {
	inBubble(t, testAWipedNodeCannotComeBackUnderItsOldName)
}

func testAWipedNodeCannotComeBackUnderItsOldName(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.kill(1)
	if err := c.nodes[1].on().RemoveAll(c.nodes[1].cfg.DataDir); err != nil {
		t.Fatal(err)
	}
	c.nodes[1].cfg.BootstrapExpect = 3
	node := c.start(1)
	select {
	case <-node.Failed():
	case <-within(t).Done():
		t.Fatal("the node did not give up")
	}
	if err := node.Err(); !errors.Is(err, outcome.ErrNodeConflict) {
		t.Errorf("it gave up with %v", err)
	}
}

func TestAFourthNodeJoinsAndServes(t *testing.T) { inBubble(t, testAFourthNodeJoinsAndServes) }

func testAFourthNodeJoinsAndServes(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	c.mustAppend(0, id, "v0")
	fourth := c.add(0)
	c.start(fourth)
	c.ready()
	if base := c.mustAppend(fourth, id, "v1"); base != 1 {
		t.Errorf("offset %d through a node without a replica, want 1", base)
	}
	c.wantEverywhere(id, []string{"v0", "v1"})
	if err := c.nodes[fourth].Await(within(t), id, 1, fsm.ReadUncommitted); err != nil {
		t.Error(err)
	}
	wide := c.topic("wide", 1, 4)
	c.mustAppend(fourth, fsm.PartitionID{Topic: wide.ID}, "w")
	status, err := c.nodes[fourth].Status(within(t))
	if err != nil || len(status.Nodes) != 4 || status.Controller == "" {
		t.Fatalf("status: %+v, %v", status, err)
	}
}

// A replica whose files are gone may have lost what it acknowledged, and its
// group goes on without it until it has come back through the others.
func TestALostReplicaIsRebuiltAndThePartitionGoesOn(t *testing.T) {
	inBubble(t, testALostReplicaIsRebuiltAndThePartitionGoesOn)
}

func testALostReplicaIsRebuiltAndThePartitionGoesOn(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	c.mustAppend(0, id, "v0")
	c.kill(2)
	if err := c.nodes[2].on().RemoveAll(c.nodes[2].partitionDir(id)); err != nil {
		t.Fatal(err)
	}
	c.start(2)
	c.ready()
	if base := c.mustAppend(2, id, "v1"); base != 1 {
		t.Errorf("offset %d, want 1", base)
	}
	c.wantEverywhere(id, []string{"v0", "v1"})
	c.rebuilt(2, id, 2)
}

func TestAReadyNodeHasTheTopicsOfItsConfiguration(t *testing.T) {
	inBubble(t, testAReadyNodeHasTheTopicsOfItsConfiguration)
}

func testAReadyNodeHasTheTopicsOfItsConfiguration(t *testing.T) {
	c := newTestCluster(t, 3)
	for _, node := range c.nodes {
		node.cfg.InitialTopics = []fsm.TopicSpec{{Name: "events", Partitions: 3, ReplicationFactor: -1}, {Name: "one", Partitions: 1, ReplicationFactor: 1}}
	}
	for i := range c.nodes {
		c.start(i)
	}
	for i, node := range c.nodes {
		if err := node.WaitReady(within(t)); err != nil {
			t.Fatal(err)
		}
		topic, ok := node.Topics().Lookup("events")
		if !ok || len(topic.Partitions) != 3 || topic.ReplicationFactor != 3 {
			t.Fatalf("node %d is ready and has %+v", i+1, topic)
		}
	}
	// They are created once, not at every start.
	if err := c.nodes[0].DeleteTopic(within(t), "one"); err != nil {
		t.Fatal(err)
	}
	for i := range c.nodes {
		c.kill(i)
	}
	c.startAll()
	if _, ok := c.nodes[0].Topics().Lookup("one"); ok {
		t.Error("a deleted topic came back with the restart")
	}
}

// A topic that needs more nodes than there are does not keep the others, or the node, waiting.
func TestATopicOfTheConfigurationThatCannotBeYet(t *testing.T) {
	inBubble(t, testATopicOfTheConfigurationThatCannotBeYet)
}

func testATopicOfTheConfigurationThatCannotBeYet(t *testing.T) {
	c := newTestCluster(t, 1)
	c.nodes[0].cfg.InitialTopics = []fsm.TopicSpec{{Name: "three", Partitions: 1, ReplicationFactor: 3}, {Name: "one", Partitions: 1, ReplicationFactor: 1}}
	node := c.start(0)
	if err := node.WaitReady(within(t)); err != nil {
		t.Fatal(err)
	}
	if _, ok := node.Topics().Lookup("one"); !ok {
		t.Error("the topic that can be created is not there")
	}
}

// A topic that is being created takes no node out of service: what this asks is
// also how the gateway knows whether a topic is missing or not known yet.
func TestANodeStaysReadyWhileTopicsAreCreated(t *testing.T) {
	inBubble(t, testANodeStaysReadyWhileTopicsAreCreated)
}

func testANodeStaysReadyWhileTopicsAreCreated(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	ctx := within(t)
	created := make(chan error, 1)
	go func() {
		created <- c.nodes[0].CreateTopic(ctx, fsm.TopicSpec{Name: "many", Partitions: 60, ReplicationFactor: 3}, false)
	}()
	for done := false; !done; {
		select {
		case err := <-created:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		case <-time.After(time.Millisecond):
		}
		for i, n := range c.nodes {
			if err := n.Ready(); err != nil {
				t.Fatalf("node %d: %v", i+1, err)
			}
		}
	}
}
