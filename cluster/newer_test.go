package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/outcome"
)

// What a program of tomorrow may write is written here by hand, into the logs of groups of today's.

// lines are what a node logs.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// with counts the lines that hold text.
func (l *lines) with(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// logged has all nodes log to where a test reads.
func (c *testCluster) logged() []*lines {
	all := make([]*lines, len(c.nodes))
	for i, n := range c.nodes {
		all[i] = new(lines)
		n.cfg.Logger = slog.New(slog.NewTextHandler(all[i], &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return all
}

const endsHere = "a replica ends here"

// ended says why a node has no replica of a group any more; the error if it has, or for another
// reason.
func (c *testCluster) ended(i int, id fsm.PartitionID, why string) error {
	r, err := c.nodes[i].replicas.Look(id)
	if r != nil || !errors.Is(err, fsm.ErrNewer) || !strings.Contains(err.Error(), why) {
		return fmt.Errorf("node %d: its replica runs: %v; its error: %v", i+1, r != nil, err)
	}
	return nil
}

// end waits until the replicas of a majority have ended. What is left of three cannot commit
// anything, and may never hear that the others did.
func (c *testCluster) end(id fsm.PartitionID, why string) {
	c.t.Helper()
	eventually(c.t, "a majority ends", func() error {
		var errs []error
		for i := range c.nodes {
			if err := c.ended(i, id, why); err != nil {
				errs = append(errs, err)
			}
		}
		if len(errs) > 1 {
			return errors.Join(errs...)
		}
		return nil
	})
}

// A command that no program of today knows is committed to a partition and to a shard of consumer
// groups. Their replicas end, each with one line, and have applied nothing of it, nor what is
// behind; they do not come back with this program. All else goes on, and the nodes stop in order.
func TestAReplicaEndsWhereANewerProgramHasWritten(t *testing.T) {
	inBubble(t, testAReplicaEndsWhereANewerProgramHasWritten)
}

func testAReplicaEndsWhereANewerProgramHasWritten(t *testing.T) {
	c := newTestCluster(t, 3)
	logs := c.logged()
	c.startAll()
	topic := c.topic("a", 2, 3)
	c.commit(0, "g", "a", 5)
	ends := make([]int, len(c.nodes)) // replicas, by node
	for name, test := range map[string]struct {
		id       fsm.PartitionID
		data     []byte
		harmless []byte
		why      string
	}{
		"partition": {fsm.PartitionID{Topic: topic.ID}, []byte{0x86, 1}, prototest.Batch("behind").Bytes(), "control command 0x86"},
		"shard":     {shardID(0), groupEntry([]byte{1, 0}, []byte{2, 0}), groupEntry([]byte{1, 0}), "command of version 2"},
		"record":    {shardID(1), groupEntry([]byte{1, 1, 99, 1, 'g'}), groupEntry([]byte{1, 0}), "record of kind 99"},
		"kind":      {shardID(2), []byte{0x84}, groupEntry([]byte{1, 0}), "control command 0x84"},
	} {
		before := make([]fsm.Offset, len(c.nodes))
		r := c.nodes[c.leaderOf(test.id)].Node.replica(test.id)
		for i, n := range c.nodes {
			_, before[i] = n.Node.replica(test.id).Bounds()
		}
		replicas := []*replica.Replica{}
		for _, n := range c.nodes {
			replicas = append(replicas, n.Node.replica(test.id))
		}
		r.Member.Raft.Apply(test.data, 0)
		r.Member.Raft.Apply(test.harmless, 0)
		c.end(test.id, test.why)
		for i := range c.nodes {
			if c.ended(i, test.id, test.why) == nil {
				ends[i]++
			}
			if _, next := replicas[i].Bounds(); next != before[i] {
				t.Errorf("%s: node %d had applied up to %d, and %d when it ended", name, i+1, before[i], next)
			}
			if _, err := replicas[i].Machine().Snapshot(); !errors.Is(err, fsm.ErrNewer) && c.ended(i, test.id, test.why) == nil {
				t.Errorf("%s: node %d takes a snapshot: %v", name, i+1, err)
			}
		}
	}
	c.mustAppend(0, fsm.PartitionID{Topic: topic.ID, Partition: 1}, "goes on")
	// Whatever would open it again has had its turn.
	n := c.nodes[0].Node
	for range 3 {
		n.catalog.Wake()
		n.reconcile(true)
	}
	for i, log := range logs {
		if got := log.with(endsHere); got < ends[i] || got > 4 {
			t.Errorf("node %d says %d times that a replica ends, of %d", i+1, got, ends[i])
		}
	}
	// Started again it is the same.
	id := fsm.PartitionID{Topic: topic.ID}
	for i := range c.nodes {
		c.kill(i)
	}
	for i := range c.nodes {
		c.start(i)
	}
	c.end(id, "control command 0x86")
	c.mustAppend(1, fsm.PartitionID{Topic: topic.ID, Partition: 1}, "goes on")
}

// A node whose catalog was written by a newer program ends and says why, whenever it is started.
func TestANodeEndsWhereANewerProgramHasWrittenTheCatalog(t *testing.T) {
	inBubble(t, testANodeEndsWhereANewerProgramHasWrittenTheCatalog)
}

func testANodeEndsWhereANewerProgramHasWrittenTheCatalog(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	c.allKnow()
	n := c.nodes[0].Node
	const command = `{"version":1,"rename_topic":{"from":"a","to":"b"}}`
	// Nobody proposes it for another node.
	last := n.catalog.Member().Raft.LastIndex()
	_, err := n.server.Answer(within(t), "n9.00000000", calls.CatalogApply.Kind, []byte(command))
	if outcome.Code(err) != outcome.ErrFeatureLevel || n.catalog.Member().Raft.LastIndex() != last {
		t.Errorf("proposed for another node: %v", err)
	}
	view := n.Topics()
	n.catalog.Member().Raft.Apply([]byte(command), time.Second)
	n.catalog.Member().Raft.Apply(fsm.CatalogCommand{AllocateProducerIDs: &fsm.AllocateProducerIDs{Count: 1}}.Encode(), time.Second)
	const why = "rename_topic"
	for range 2 {
		select {
		case <-n.Failed():
		case <-within(t).Done():
			t.Fatal("it goes on")
		}
		if err := n.Err(); !errors.Is(err, fsm.ErrNewer) || !strings.Contains(err.Error(), why) {
			t.Errorf("it ends with: %v", err)
		}
		if n.Topics().Version() > view.Version() {
			t.Errorf("its catalog went on to %d", n.Topics().Version())
		}
		if _, err := n.catalog.Machine().Snapshot(); !errors.Is(err, fsm.ErrNewer) {
			t.Errorf("it takes a snapshot: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if err := n.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		c.nodes[0].running = false
		c.gossips(0)
		if n, err = Start(c.nodes[0].cfg); err != nil {
			t.Fatal(err)
		}
		c.nodes[0].Node, c.nodes[0].running = n, true
	}
}

// laterFormat is further than any program is.
const laterFormat = 1000

// later makes a snapshot one of laterFormat, with a right checksum.
func later(snapshot []byte) []byte {
	b := bytes.Clone(snapshot)
	binary.BigEndian.PutUint16(b[4:], laterFormat)
	body := b[:len(b)-4]
	return binary.BigEndian.AppendUint32(body, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
}

// A leader of tomorrow offers its snapshot to a follower of today. It is refused before anything is
// copied, once, and the leader does not send it again: the replica is gone.
func TestASnapshotOfANewerProgramIsRefusedOnce(t *testing.T) {
	inBubble(t, testASnapshotOfANewerProgramIsRefusedOnce)
}

func testASnapshotOfANewerProgramIsRefusedOnce(t *testing.T) {
	c := newTestCluster(t, 3)
	small(c, map[string]string{"segment.bytes": "20000"})
	logs := c.logged()
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	c.fill(0, id, "before", 10)
	away := (c.leaderOf(id) + 1) % 3
	there := []int{(away + 1) % 3, (away + 2) % 3}
	c.kill(away)
	c.fill(there[0], id, "meanwhile", 150)
	c.outOfWindow(there, id, 60)
	for _, i := range there {
		r := c.nodes[i].records(id)
		eventually(t, "the snapshot is of tomorrow", func() error {
			state, next, index := r.State()
			var entry raft.Log
			if err := r.Log.GetLog(index, &entry); err != nil {
				return err
			}
			configuration := r.Member.Raft.GetConfiguration()
			sink, err := r.Log.Snapshots().Create(1, index, entry.Term, configuration.Configuration(), configuration.Index(), nil)
			if err != nil {
				return err
			}
			sink.(*raftlog.Sink).SetNext(int64(next))
			if _, err := sink.Write(later(state)); err != nil {
				return err
			}
			return sink.Close()
		})
	}
	c.start(away)
	eventually(t, "its replica ends", func() error { return c.ended(away, id, fmt.Sprint("format ", laterFormat)) })
	c.mustAppend(there[0], id, "goes on")
	c.mustAppend(there[1], id, "goes on")
	if n := logs[away].with("copying a partition from its leader\""); n > 0 {
		t.Errorf("it was copied %d times", n)
	}
	if n := logs[away].with(endsHere); n != 1 {
		t.Errorf("it says so %d times", n)
	}
	if n := logs[away].with("was cut short"); n > 1 {
		t.Errorf("it was offered %d times", n)
	}
}

// A catalog's snapshot of tomorrow ends the node, with the reason.
func TestACatalogOfANewerProgramEndsTheNode(t *testing.T) {
	inBubble(t, testACatalogOfANewerProgramEndsTheNode)
}

func testACatalogOfANewerProgramEndsTheNode(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	c.allKnow()
	n := c.nodes[0].Node
	snapshot, err := n.catalog.Machine().Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.catalog.Machine().Restore(readCloser{bytes.NewReader(later(snapshot.(raftgroup.SnapshotBytes)))}); !errors.Is(err, fsm.ErrNewer) {
		t.Errorf("restored: %v", err)
	}
	<-n.Failed()
	if err := n.Err(); !errors.Is(err, fsm.ErrNewer) || !strings.Contains(err.Error(), "format") {
		t.Errorf("it ends with: %v", err)
	}
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

// What another node asks for with a word that is not known here is not done without it.
func TestCallsWithUnknownFieldsAreRefused(t *testing.T) {
	inBubble(t, testCallsWithUnknownFieldsAreRefused)
}

func testCallsWithUnknownFieldsAreRefused(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	c.allKnow()
	n := c.nodes[0].Node
	for kind, payload := range map[uint8]string{
		calls.Administer.Kind:       `{"op":"drain","node":"n1","gently":true}`,
		calls.CreateTopic.Kind:      `{"spec":{"name":"a","partitions":1,"replication_factor":1,"pinned":true},"id":"` + fsm.TopicID(newUUID()).String() + `"}`,
		calls.CreatePartitions.Kind: `{"topic":"` + fsm.TopicID(newUUID()).String() + `","count":3,"from":1,"pinned":true}`,
		calls.Form.Kind:             `{"cluster_id":"c","proposer":"n9.00000000","nodes":[],"quorum":2}`,
	} {
		if _, err := n.server.Answer(within(t), "n9.00000000", kind, []byte(payload)); !errors.Is(err, fsm.ErrNewer) || outcome.Code(err) != outcome.ErrFeatureLevel {
			t.Errorf("call %d: %v", kind, err)
		}
		if _, err := n.server.Answer(within(t), "n9.00000000", kind, []byte(payload[:len(payload)-1])); outcome.Code(err) != outcome.ErrUnknown {
			t.Errorf("call %d, cut short: %v", kind, err)
		}
	}
	if view := n.Topics(); len(view.All()) > 0 {
		t.Errorf("topics: %v", view.All())
	}
}

// groupEntry is an entry with these commands of consumer groups.
func groupEntry(commands ...[]byte) []byte {
	all := make([]fsm.ShardCommand, len(commands))
	for i, c := range commands {
		all[i].Bytes = c
	}
	return fsm.ShardEntry(all...)
}
