package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/backup"
	"github.com/trimaran-io/trimaran/cluster/route"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/transaction"
)

// heapStore is a store of backups in memory.
type heapStore struct {
	mu      sync.Mutex
	objects map[string][]byte
}

func (s *heapStore) String() string { return "memory" }

func (s *heapStore) Put(_ context.Context, key string, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.objects[key] != nil {
		return backup.ErrExists
	}
	s.objects[key] = bytes.Clone(data)
	return nil
}

func (s *heapStore) Get(_ context.Context, key string, _ int64) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.objects[key] == nil {
		return nil, backup.ErrNotFound
	}
	return bytes.Clone(s.objects[key]), nil
}

func (s *heapStore) Size(ctx context.Context, key string) (int64, error) {
	there, err := s.Get(ctx, key, 0)
	return int64(len(there)), err
}

func (s *heapStore) Same(ctx context.Context, key string, data []byte) (bool, error) {
	there, err := s.Get(ctx, key, 0)
	return err == nil && bytes.Equal(there, data), err
}

func (s *heapStore) List(_ context.Context, prefix string, each func(backup.Stored) error) error {
	s.mu.Lock()
	var all []backup.Stored
	for key, data := range s.objects {
		if strings.HasPrefix(key, prefix) {
			all = append(all, backup.Stored{Key: key, Bytes: int64(len(data))})
		}
	}
	s.mu.Unlock()
	for _, o := range all {
		if err := each(o); err != nil {
			return err
		}
	}
	return nil
}

func (s *heapStore) Delete(context.Context, string) error { return errors.New("nothing is deleted") }

// backedUp is a cluster as backups see it, through a node that runs. Each step takes a while.
type backedUp struct {
	c     *testCluster
	dice  *rand.Rand
	holds bool // else it only says so
	lost  int  // holds that did not stand all along
}

// through does it at some node, again until it succeeds or ctx ends.
func (b *backedUp) through(ctx context.Context, do func(n *Node) error) error {
	for {
		time.Sleep(time.Duration(b.dice.IntN(15)) * time.Millisecond)
		err := do(b.c.any())
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (b *backedUp) Catalog(ctx context.Context) (copy *admin.CatalogCopy, err error) {
	err = b.through(ctx, func(n *Node) error { copy, err = n.CopyCatalog(ctx); return err })
	return copy, err
}

func (b *backedUp) Groups(ctx context.Context) (groups []backup.Group, err error) {
	for i := range wholeProducers {
		g := backup.Group{ID: fmt.Sprint("group-", i)}
		err = b.through(ctx, func(n *Node) error {
			offsets, err := fetchOffsets(ctx, n, g.ID, "t", 1)
			if err == nil && offsets[0] >= 0 {
				g.Offsets = []backup.GroupOffset{{Topic: "t", Offset: offsets[0], Epoch: -1}}
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		groups = append(groups, g)
	}
	return groups, nil
}

func (b *backedUp) at(ctx context.Context, id fsm.PartitionID, which int64) (at int64, err error) {
	err = b.through(ctx, func(n *Node) error {
		offsets, err := n.ListOffsets(ctx, id, which, 1)
		if err == nil {
			at = int64(offsets[0])
		}
		return err
	})
	return at, err
}

func (b *backedUp) Bounds(ctx context.Context, t admin.TopicCopy, partition int32) (start, end int64, epoch int32, err error) {
	id := fsm.PartitionID{Topic: t.ID, Partition: partition}
	if start, err = b.at(ctx, id, fsm.EarliestOffset); err == nil {
		end, err = b.at(ctx, id, fsm.LatestOffset)
	}
	return start, end, 1, err
}

func (b *backedUp) Ends(ctx context.Context, topics []admin.TopicCopy) (all [][]backup.End, err error) {
	for _, t := range topics {
		if b.dice.IntN(3) == 0 {
			b.c.moveProducer(b.dice.IntN(wholeProducers), b.dice.IntN(3))
		}
		ends := make([]backup.End, t.Partitions)
		for _, p := range b.dice.Perm(t.Partitions) {
			if ends[p].Offset, err = b.at(ctx, fsm.PartitionID{Topic: t.ID, Partition: int32(p)}, fsm.LatestOffset); err != nil {
				return nil, err
			}
			ends[p].Epoch = 1
		}
		all = append(all, ends)
	}
	return all, nil
}

func (b *backedUp) Read(ctx context.Context, t admin.TopicCopy, partition int32, offset int64) (batches []byte, err error) {
	err = b.through(ctx, func(n *Node) error {
		slice, err := n.Read(ctx, fsm.PartitionID{Topic: t.ID, Partition: partition}, fsm.Offset(offset), 1<<20, fsm.ReadUncommitted)
		if batches = slice.Batches; err == nil && len(batches) == 0 {
			err = errors.New("nothing is there yet")
		}
		return err
	})
	return batches, err
}

func (b *backedUp) Hold(ctx context.Context) (func(context.Context) (bool, error), error) {
	if !b.holds {
		return func(context.Context) (bool, error) { return true, nil }, nil
	}
	holds, err := b.c.any().HoldCommits(ctx)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (bool, error) {
		held, err := b.c.any().ReleaseCommits(ctx, holds)
		if !held {
			b.lost++
		}
		return held, err
	}, nil
}

// move has another node lead a partition or a shard, if it has a leader and the other may.
func (c *testCluster) move(id fsm.PartitionID, node int) {
	to := c.nodes[node].identity
	for _, n := range c.nodes {
		if r := n.replica(id); r != nil {
			if _, err := r.Leads(); err == nil {
				r.Member.Raft.LeadershipTransferToServer(raft.ServerID(to), raft.ServerAddress(to))
			}
		}
	}
}

// moveProducer moves the shard of a producer.
func (c *testCluster) moveProducer(producer, node int) {
	c.move(route.ShardID(coordinator.ShardOf(fmt.Sprint("id-", producer))), node)
}

// wholeProducers is how many producers run, each with a transactional id and a group of its own.
const wholeProducers = 4

// wholeProducer writes transactions to several partitions of topic t, and the offset of its group
// to be the number of the transaction.
type wholeProducer struct {
	c     *testCluster
	index int
	topic fsm.TopicID
	dice  *rand.Rand

	id       int64
	epoch    int16
	sequence map[int32]int32
	waited   time.Duration // the longest for a commit
	// written are the partitions of each transaction that was to be committed, by its name.
	written map[string][]int32
}

func (p *wholeProducer) name() string { return fmt.Sprint("id-", p.index) }

// ask asks a coordinator until it answers anything else than to ask again.
func (p *wholeProducer) ask(ctx context.Context, key string, req kmsg.Request, code func(kmsg.Response) int16) (kmsg.Response, error) {
	version, ok := transaction.Version(req.Key())
	if !ok {
		version, _ = coordinator.Version(req.Key())
	}
	req.SetVersion(version)
	for {
		within, cancel := context.WithTimeout(ctx, 5*time.Second)
		resp, err := p.c.any().Coordinate(within, coordinator.ShardOf(key), coordinator.Client{Version: 5}, req)
		cancel()
		if err == nil {
			if err = kerr.ErrorForCode(code(resp)); err == nil {
				return resp, nil
			}
		}
		if ctx.Err() != nil || !retriable(err) && !errors.Is(err, kerr.ConcurrentTransactions) && !errors.Is(err, kerr.CoordinatorLoadInProgress) {
			return nil, err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (p *wholeProducer) init(ctx context.Context) error {
	req := kmsg.NewPtrInitProducerIDRequest()
	name := p.name()
	req.TransactionalID, req.TransactionTimeoutMillis, req.ProducerID, req.ProducerEpoch = &name, 60_000, -1, -1
	resp, err := p.ask(ctx, name, req, func(r kmsg.Response) int16 { return r.(*kmsg.InitProducerIDResponse).ErrorCode })
	if err == nil {
		r := resp.(*kmsg.InitProducerIDResponse)
		p.id, p.epoch, p.sequence = r.ProducerID, r.ProducerEpoch, map[int32]int32{}
	}
	return err
}

// write writes a value to a partition, until it is there once.
func (p *wholeProducer) write(ctx context.Context, partition int32, value string) error {
	batch := transactionalBatch(p.id, p.epoch, p.sequence[partition], value)
	for {
		within, cancel := context.WithTimeout(ctx, 5*time.Second)
		n := p.c.any()
		appended, err := n.AppendInLine(within, fsm.PartitionID{Topic: p.topic, Partition: partition}, n.NewLine(0), fsm.Transaction{ID: p.name(), Add: true}, []kafkaproto.Batch{batch})
		cancel()
		if err == nil && appended[0].Err != 0 {
			err = appended[0].Err
		}
		if err == nil {
			p.sequence[partition]++
			return nil
		}
		if ctx.Err() != nil || !retriable(err) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// transact runs one transaction.
func (p *wholeProducer) transact(ctx context.Context, number int) error {
	name := fmt.Sprintf("%d/%d", p.index, number)
	commit := p.dice.IntN(4) > 0
	var partitions []int32
	for _, partition := range p.dice.Perm(5)[:2+p.dice.IntN(3)] {
		partitions = append(partitions, int32(partition))
	}
	if commit {
		p.written[name] = partitions
	}
	for _, partition := range partitions {
		if err := p.write(ctx, partition, name); err != nil {
			return err
		}
	}
	group := fmt.Sprint("group-", p.index)
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch, req.Generation = p.name(), group, p.id, p.epoch, -1
	t := kmsg.NewTxnOffsetCommitRequestTopic()
	t.Topic = "t"
	tp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	tp.Offset = int64(number)
	t.Partitions = append(t.Partitions, tp)
	req.Topics = append(req.Topics, t)
	if _, err := p.ask(ctx, group, req, func(r kmsg.Response) int16 {
		return r.(*kmsg.TxnOffsetCommitResponse).Topics[0].Partitions[0].ErrorCode
	}); err != nil {
		return err
	}
	end := kmsg.NewPtrEndTxnRequest()
	end.TransactionalID, end.ProducerID, end.ProducerEpoch, end.Commit = p.name(), p.id, p.epoch, commit
	began := time.Now()
	resp, err := p.ask(ctx, p.name(), end, func(r kmsg.Response) int16 { return r.(*kmsg.EndTxnResponse).ErrorCode })
	if err != nil {
		return err
	}
	p.waited = max(p.waited, time.Since(began))
	r := resp.(*kmsg.EndTxnResponse)
	if p.id, p.epoch = r.ProducerID, r.ProducerEpoch; p.epoch == 0 {
		return errors.New("another producer id")
	}
	clear(p.sequence) // each epoch begins anew
	return nil
}

func (p *wholeProducer) run(ctx context.Context) {
	number := 0
	for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		if p.init(ctx) != nil {
			continue
		}
		for ctx.Err() == nil {
			number++
			if p.transact(ctx, number) != nil {
				break
			}
			time.Sleep(time.Duration(p.dice.IntN(300)) * time.Millisecond)
		}
	}
}

// committedIn gives the names of transactions that are committed in a partition of a backup.
func (s *heapStore) committedIn(t *testing.T, topic fsm.TopicID, partition int, p backup.Partition) map[string]bool {
	t.Helper()
	open, committed := map[int64][]string{}, map[string]bool{}
	for _, o := range p.Objects {
		key := fmt.Sprintf("segments/%s/%d/%020d-%s.batches", topic, partition, o.First, o.SHA256)
		for batch, err := range kafkaproto.Batches(s.objects[key]) {
			if err != nil {
				t.Fatal(key, err)
			}
			h := batch.Header()
			m, err := kafkaproto.ParseMarker(batch)
			if err != nil {
				var record kmsg.Record // one in each
				if err := record.ReadFrom(batch.Bytes()[kafkaproto.BatchHeaderSize:]); err != nil {
					t.Fatal(key, err)
				}
				open[h.ProducerID] = append(open[h.ProducerID], string(record.Value))
				continue
			}
			for _, name := range open[h.ProducerID] {
				if m.Commit {
					committed[name] = true
				}
			}
			delete(open, h.ProducerID)
		}
	}
	return committed
}

// Backups are made while transactions over several partitions and a group run, and leaders change:
// each backup that says so has every transaction in all partitions and the group's offset, or in
// none.
func TestTransactionsAreWholeInBackups(t *testing.T) {
	for seed := range uint64(2) {
		runInBubble(t, fmt.Sprint("seed ", seed), func(t *testing.T) {
			whole, torn := transactionsInBackups(t, seed, true)
			for _, err := range torn {
				t.Error(err)
			}
			if whole < 5 {
				t.Errorf("only %d backups say that transactions are whole", whole)
			}
		})
	}
	// The same, where nothing is held: so the test sees what it is for.
	runInBubble(t, "without holding", func(t *testing.T) {
		if _, torn := transactionsInBackups(t, 0, false); len(torn) == 0 {
			t.Error("no transaction is torn in any backup")
		}
	})
}

// transactionsInBackups gives how many backups say that transactions are whole in them, and what is
// torn in these.
func transactionsInBackups(t *testing.T, seed uint64, holds bool) (whole int, torn []error) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.ready()
	topic := c.topic("t", 5, 3)
	over, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	producers := make([]*wholeProducer, wholeProducers)
	for i := range producers {
		producers[i] = &wholeProducer{c: c, index: i, topic: topic.ID, dice: rand.New(rand.NewPCG(seed, uint64(i))), written: map[string][]int32{}}
		clients.Go(func() { producers[i].run(over) })
	}
	clients.Go(func() {
		dice := rand.New(rand.NewPCG(seed, 50))
		for over.Err() == nil {
			time.Sleep(time.Duration(200+dice.IntN(1500)) * time.Millisecond)
			if node := dice.IntN(3); dice.IntN(2) == 0 {
				c.move(fsm.PartitionID{Topic: topic.ID, Partition: int32(dice.IntN(5))}, node)
			} else {
				c.moveProducer(dice.IntN(wholeProducers), node)
			}
		}
	})
	store := &heapStore{objects: map[string][]byte{}}
	var manifests []*backup.Manifest
	from := &backedUp{c: c, dice: rand.New(rand.NewPCG(seed, 60)), holds: holds}
	backups := 15
	if testing.Short() {
		backups = 8
	}
	for range backups {
		time.Sleep(time.Duration(from.dice.IntN(500)) * time.Millisecond)
		made, err := backup.Create(t.Context(), from, &backup.Repository{Store: store}, backup.Options{Parallel: 1})
		if err != nil {
			t.Fatal(err)
		}
		manifests = append(manifests, made.Manifest)
	}
	stop()
	clients.Wait()

	var waited time.Duration
	committed := 0
	for _, m := range manifests {
		if !m.Whole {
			t.Logf("%s: %s", m.ID, m.Torn)
			continue
		}
		whole++
		var in []map[string]bool
		for i, p := range m.Topics[0].Partitions {
			in = append(in, store.committedIn(t, topic.ID, i, p))
		}
		committed = 0
		for i, p := range producers {
			waited = max(waited, p.waited)
			last := int64(-1)
			for name, partitions := range p.written {
				there := slices.DeleteFunc(slices.Clone(partitions), func(partition int32) bool { return !in[partition][name] })
				if len(there) > 0 && len(there) < len(partitions) {
					torn = append(torn, fmt.Errorf("%s: transaction %s to partitions %v is committed in %v", m.ID, name, partitions, there))
				}
				if len(there) > 0 {
					var producer int
					var number int64
					_, _ = fmt.Sscanf(name, "%d/%d", &producer, &number)
					last = max(last, number)
					committed++
				}
			}
			offset := int64(-1)
			for _, g := range m.Groups {
				if g.ID == fmt.Sprint("group-", i) {
					offset = g.Offsets[0].Offset
				}
			}
			if offset != last {
				torn = append(torn, fmt.Errorf("%s: transaction %d is the last of producer %d, and its group is at %d", m.ID, last, i, offset))
			}
		}
	}
	t.Logf("%d of %d backups say that transactions are whole, %d holds did not stand; %d transactions are in the last, %d times one is torn, and no commit took longer than %v",
		whole, len(manifests), from.lost, committed, len(torn), waited)
	return whole, torn
}

// Who lets go of what was never held does not begin to hold.
func TestHoldsThatCannotBeAreRefused(t *testing.T) {
	for _, h := range []admin.Hold{{Shard: 3}, {Shard: -1, Hold: 7}, {Shard: coordinator.Shards, Hold: 7}} {
		if held, err := (&front{}).ReleaseCommits(t.Context(), []admin.Hold{h}); held || err == nil || !strings.Contains(err.Error(), "invalid request") {
			t.Errorf("%+v: %v, %v", h, held, err)
		}
	}
}
