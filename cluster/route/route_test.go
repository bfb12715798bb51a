package route

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/outcome"
)

var topicID = fsm.TopicID{1}

func part(p int32) fsm.PartitionID { return fsm.PartitionID{Topic: topicID, Partition: p} }

// catalog has nodes n1 to n4, and a topic with two partitions: 0 on n1, n2, n3, and 1 on n2, n3,
// n4.
func catalog(t *testing.T) *fsm.Topics {
	t.Helper()
	c := fsm.NewCatalog()
	var nodes []fsm.Node
	for i := range 4 {
		nodes = append(nodes, fsm.Node{ID: fsm.NodeID(fmt.Sprint("n", i+1)), Incarnation: "00000000", FeatureLevel: fsm.FeatureLevel})
	}
	topic := fsm.Topic{Name: "t", ID: topicID, ReplicationFactor: 3}
	for _, replicas := range [][]fsm.NodeID{{"n1", "n2", "n3"}, {"n2", "n3", "n4"}} {
		topic.Partitions = append(topic.Partitions, fsm.Partition{Replicas: replicas, Bootstrap: replicas})
	}
	commands := []fsm.CatalogCommand{{FormCluster: &fsm.FormCluster{ClusterID: "c", Nodes: nodes}}}
	for i := range nodes {
		commands = append(commands, fsm.CatalogCommand{RegisterNode: &nodes[i]})
	}
	for level := 2; level <= RelayFeatureLevel; level++ {
		commands = append(commands, fsm.CatalogCommand{RaiseFeatureLevel: &fsm.RaiseFeatureLevel{FeatureLevel: level}})
	}
	shards := &fsm.CreateGroupShards{ReplicationFactor: 3}
	for range coordinator.Shards {
		replicas := []fsm.NodeID{"n2", "n3", "n4"}
		shards.Partitions = append(shards.Partitions, fsm.Partition{Replicas: replicas, Bootstrap: replicas})
	}
	commands = append(commands, fsm.CatalogCommand{CreateGroupShards: shards})
	for i, command := range commands {
		if r := c.Apply(fsm.Index(i+1), command.Encode()); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if r := c.Apply(100, fsm.CatalogCommand{CreateTopic: &fsm.CreateTopic{Topic: topic}}.Encode()); r.Err != nil {
		t.Fatal(r.Err)
	}
	return c.View()
}

// cluster is what the router of n1 is told.
type cluster struct {
	t      *testing.T
	topics *fsm.Topics

	mu      sync.Mutex
	guides  map[fsm.PartitionID]*guide
	local   map[fsm.PartitionID]Records
	cut     map[string]bool // nodes that n1 does not hear
	asked   []string        // "<node> <call>" of each call that arrived
	answers func(identity string, kind uint8, payload []byte) ([]byte, error)
}

type guide struct {
	hint    calls.Hint
	changed chan struct{}
}

func (g *guide) Leader() (calls.Hint, <-chan struct{}) { return g.hint, g.changed }

func (c *cluster) Topics() *fsm.Topics { return c.topics }
func (c *cluster) Guide(id fsm.PartitionID) Guide {
	if g := c.guides[id]; g != nil {
		return g
	}
	return nil
}
func (c *cluster) Broken(fsm.PartitionID) error            { return nil }
func (c *cluster) Records(id fsm.PartitionID) Records      { return c.local[id] }
func (c *cluster) Coordinator(fsm.PartitionID) Coordinator { return nil }

func (c *cluster) Reached(identity string) bool { return !c.cut[identity] }
func (c *cluster) Severed(leader string, members []string) bool {
	return leader == "" && slices.ContainsFunc(members, func(m string) bool { return c.cut[m] })
}

func (c *cluster) SuspectedBy(string) ([]string, bool) { return nil, false }

// Call is a node's link: what is cut is never sent.
func (c *cluster) Call(_ context.Context, identity string, kind uint8, payload ...[]byte) ([]byte, error) {
	if c.cut[identity] {
		return nil, errors.New("no way")
	}
	return c.answer(identity, kind, slices.Concat(payload...)), nil
}

func (c *cluster) answer(identity string, kind uint8, payload []byte) []byte {
	row, _ := calls.ByKind(kind)
	c.mu.Lock()
	c.asked = append(c.asked, identity+" "+row.Name)
	c.mu.Unlock()
	if kind == calls.Relay.Kind {
		s := &calls.Server{}
		calls.Handle(s, calls.Relay, func(_ context.Context, _ string, q calls.RelayRequest) ([]byte, error) {
			return c.answer(q.Identity, q.Kind, slices.Concat(q.Payload...)), nil
		})
		return s.Serve(context.Background(), "n1.00000000", kind, payload)
	}
	return calls.EncodeReply(c.answers(identity, kind, payload))
}

func (c *cluster) router(t *testing.T) *Router {
	caller := &Caller{Self: "n1.00000000", Link: c, Presence: c, Topics: c.Topics}
	return New(Config{Self: "n1.00000000", NodeID: "n1", Host: c, Caller: caller, Presence: c, Stopped: t.Context(),
		Unreadable: func(fsm.PartitionID, fsm.Offset, error) {}})
}

func (c *cluster) wasAsked(what string, want ...string) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(c.asked, want) {
		c.t.Errorf("%s: asked were %q, want %q", what, c.asked, want)
	}
	c.asked = nil
}

func newCluster(t *testing.T) *cluster {
	return &cluster{t: t, topics: catalog(t), guides: map[fsm.PartitionID]*guide{}, local: map[fsm.PartitionID]Records{}, cut: map[string]bool{}}
}

func leads(identity string) error {
	return calls.NotLeader{Hint: calls.Hint{Identity: identity, Term: 4}}
}

// TestAHintIsFollowedAndRemembered: the first replica that is asked tells who leads, and next time
// that one is asked first.
func TestAHintIsFollowedAndRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.answers = func(identity string, _ uint8, _ []byte) ([]byte, error) {
			if identity != "n4.00000000" {
				return nil, leads("n4.00000000")
			}
			return make([]byte, 16), nil
		}
		r := c.router(t)
		if _, err := r.Read(t.Context(), part(1), 0, 100, fsm.ReadUncommitted); err != nil {
			t.Fatal(err)
		}
		c.wasAsked("at first", "n2.00000000 Read", "n4.00000000 Read")
		if _, err := r.Read(t.Context(), part(1), 0, 100, fsm.ReadUncommitted); err != nil {
			t.Fatal(err)
		}
		c.wasAsked("then", "n4.00000000 Read")
		if epoch, newest := r.LeaderEpoch(part(1), nil); epoch != fsm.Term(4).Epoch() || newest {
			t.Errorf("epoch %d, newest %v", epoch, newest)
		}
		r.Tidy(fsm.NewCatalog().View())
		if epoch, _ := r.LeaderEpoch(part(1), nil); epoch != -1 {
			t.Error("a partition that is gone is remembered")
		}
	})
}

// remote is a replica whose old records lie in a store that does not give them yet.
type remote struct{ Records }

func (remote) ReadHere(fsm.Offset, int, fsm.Isolation) (fsm.Slice, bool, error) {
	return fsm.Slice{}, false, fmt.Errorf("%w: busy", outcome.ErrRemote)
}

// TestWhatLiesInAStoreIsNotAskedOfTheLeader: it would ask the same store for the same.
func TestWhatLiesInAStoreIsNotAskedOfTheLeader(t *testing.T) {
	c := newCluster(t)
	c.local[part(0)] = remote{}
	if _, err := c.router(t).Read(t.Context(), part(0), 0, 100, fsm.ReadUncommitted); outcome.Code(err) != outcome.ErrRemote {
		t.Error(err)
	}
	c.wasAsked("for the leader's")
}

// TestAProduceWaitsForALeader, and no longer than holdLeaderless; a read does not wait.
func TestAProduceWaitsForALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		began := time.Now()
		elected := began.Add(time.Second)
		c.answers = func(string, uint8, []byte) ([]byte, error) {
			if time.Now().Before(elected) {
				return nil, leads("")
			}
			return make([]byte, 26), nil
		}
		r := c.router(t)
		if _, err := r.Read(t.Context(), part(1), 0, 100, fsm.ReadUncommitted); !outcome.NotAppended(err) || time.Since(began) > 0 {
			t.Errorf("a read: %v after %v", err, time.Since(began))
		}
		if _, err := r.Append(t.Context(), part(1), []kafkaproto.Batch{prototest.Batch("x")}); err != nil || time.Since(began) < time.Second {
			t.Errorf("an append: %v after %v", err, time.Since(began))
		}
		elected = time.Now().Add(time.Hour)
		began = time.Now()
		if _, err := r.Append(t.Context(), part(1), []kafkaproto.Batch{prototest.Batch("x")}); !outcome.NotAppended(err) || time.Since(began) > HoldLeaderless+2*RetryPause {
			t.Errorf("nobody is elected: %v after %v", err, time.Since(began))
		}
	})
}

// TestAnUnknownFateIsNotTriedAgain: it could double the records.
func TestAnUnknownFateIsNotTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.answers = func(string, uint8, []byte) ([]byte, error) { return nil, outcome.ErrUnknownFate }
		if _, err := c.router(t).Append(t.Context(), part(1), []kafkaproto.Batch{prototest.Batch("x")}); outcome.Code(err) != outcome.ErrUnknownFate {
			t.Error(err)
		}
		c.wasAsked("once", "n2.00000000 Append")
	})
}

// TestACallGoesThroughAThirdNode where the link to the leader is cut, and only if it may be
// relayed.
func TestACallGoesThroughAThirdNode(t *testing.T) {
	c := newCluster(t)
	c.cut["n4.00000000"] = true
	c.answers = func(identity string, _ uint8, _ []byte) ([]byte, error) { return make([]byte, 16), nil }
	caller := &Caller{Self: "n1.00000000", Link: c, Presence: c, Topics: c.Topics}
	if _, err := calls.Read.Ask(t.Context(), caller, "n4.00000000", calls.ReadRequest{Partition: part(1)}); err != nil {
		t.Error(err)
	}
	c.wasAsked("a read", "n2.00000000 Relay", "n4.00000000 Read")
	if _, err := calls.Survey.Ask(t.Context(), caller, "n4.00000000", []string{"g"}); err == nil {
		t.Error("a survey was answered")
	}
	c.wasAsked("a survey")
	if _, err := caller.Relay(t.Context(), "n4.00000000", calls.RelayRequest{Kind: calls.Read.Kind, Identity: "n4.00000000"}); !errors.Is(err, calls.ErrMalformed) {
		t.Errorf("back to who asked: %v", err)
	}
}

// TestAMemberThatIsSeveredAsksWhoLeads, not more often than askWhoEvery.
func TestAMemberThatIsSeveredAsksWhoLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.cut["n3.00000000"] = true
		c.guides[part(0)] = &guide{changed: make(chan struct{})}
		leader := ""
		c.answers = func(identity string, kind uint8, _ []byte) ([]byte, error) {
			if kind == calls.Who.Kind {
				return nil, leads(leader)
			}
			return make([]byte, 16), nil
		}
		r := c.router(t)
		for range 3 {
			if _, err := r.Read(t.Context(), part(0), 0, 100, fsm.ReadUncommitted); !outcome.NotAppended(err) {
				t.Errorf("nobody knows: %v", err)
			}
		}
		c.wasAsked("three reads at once", "n2.00000000 Who")
		time.Sleep(askWhoEvery)
		leader = "n3.00000000"
		if _, err := r.Read(t.Context(), part(0), 0, 100, fsm.ReadUncommitted); err != nil {
			t.Error(err)
		}
		c.wasAsked("a moment later", "n2.00000000 Who", "n2.00000000 Relay", "n3.00000000 Read")
	})
}

// TestAShardHasNoRecords for clients, and its requests find the coordinator.
func TestAShardHasNoRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		req := kmsg.NewPtrHeartbeatRequest()
		version, _ := coordinator.Version(req.Key())
		req.SetVersion(version)
		resp := req.ResponseKind()
		resp.SetVersion(version)
		c.answers = func(identity string, kind uint8, _ []byte) ([]byte, error) {
			if identity != "n3.00000000" {
				return nil, leads("n3.00000000")
			}
			return resp.AppendTo(nil), nil
		}
		r := c.router(t)
		if _, err := r.Append(t.Context(), ShardID(0), []kafkaproto.Batch{prototest.Batch("x")}); outcome.Code(err) != outcome.ErrUnknownTopicOrPartition {
			t.Errorf("append: %v", err)
		}
		g := NewGroups(r, func(context.Context) error { return errors.New("there are shards") })
		if _, err := g.Coordinate(t.Context(), 0, coordinator.Client{ID: "c"}, req); err != nil {
			t.Error(err)
		}
		c.wasAsked("a heartbeat", "n2.00000000 Coordinate", "n3.00000000 Coordinate")
		if _, err := g.Coordinate(t.Context(), coordinator.Shards, coordinator.Client{}, req); outcome.Code(err) != outcome.ErrUnknown {
			t.Errorf("a shard that is none: %v", err)
		}
	})
}
