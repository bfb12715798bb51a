package status

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/membership"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// The tests of this file need no node: what runs on each, and the way to the others, is given by
// functions.

const n1, n2, n3 = "n1.00000000", "n2.00000000", "n3.00000000"

// nodes are the answers of nodes by identity; one that is not among them is away.
type nodes map[string]*calls.Server

// Call implements calls.Caller.
func (n nodes) Call(ctx context.Context, identity string, kind uint8, payload ...[]byte) ([]byte, error) {
	s := n[identity]
	if s == nil {
		return nil, outcome.ErrNoLeader
	}
	var whole []byte
	for _, part := range payload {
		whole = append(whole, part...)
	}
	return calls.DecodeReply(s.Serve(ctx, "n1", kind, whole))
}

// kept is what a node has on its disk: the bytes of each offset.
type kept string

func (k kept) digest(_ context.Context, _ fsm.PartitionID, from, to fsm.Offset, limit int64) (calls.ReplicaHash, error) {
	part := string(k)[from:to]
	part = part[:min(len(part), int(limit))]
	return calls.ReplicaHash{UpTo: from + fsm.Offset(len(part)), Bytes: int64(len(part)), Sum: sha256.Sum256([]byte(part))}, nil
}

// threeOverviews gives n1's, which asks n2 and n3, and whom it reaches. All have the topic's
// partitions, which n2 leads, and the catalog, which n1 leads.
func threeOverviews(t *testing.T, keep map[string]kept) (*Overview, nodes, fsm.TopicID) {
	view, topic := threeNodes(t)
	all := []string{n1, n2, n3}
	reach := nodes{}
	var first *Overview
	for _, self := range all {
		here := &node{view: view, catalog: &seen{led: n1, voters: all}, replicas: map[fsm.PartitionID]*seen{}, broken: map[fsm.PartitionID]error{}}
		for p := range int32(2) {
			id := fsm.PartitionID{Topic: topic, Partition: p}
			here.replicas[id] = &seen{id: id, led: n2, voters: all, known: true}
		}
		if self == n3 {
			id := fsm.PartitionID{Topic: topic, Partition: 1}
			delete(here.replicas, id)
			here.broken[id] = errors.New("it is damaged")
		}
		o := New(Config{
			Self: self, Here: as{here, self}, Caller: reach, ClusterID: func() string { return "c" },
			Waiting: func() string { return "" },
			Members: func() []membership.Member {
				return []membership.Member{{Identity: n2, PeerAddr: "two:1", ClientAddr: "two:2", Version: "v2"}}
			},
			CatchUp: func(context.Context) error { return nil }, CaughtUp: func() bool { return true },
			Digest: keep[self].digest,
		})
		if self == n1 {
			first = o
			continue
		}
		s := &calls.Server{}
		calls.Handle(s, calls.ReplicaStatus, func(context.Context, string, calls.Nothing) (calls.NodeReport, error) { return o.Report(), nil })
		calls.Handle(s, calls.Hash, func(ctx context.Context, _ string, q calls.HashRequest) (calls.ReplicaHash, error) {
			return keep[self].digest(ctx, q.Partition, q.From, q.To, int64(q.MaxBytes))
		})
		reach[self] = s
	}
	return first, reach, topic
}

// as is a node of which the leader is another one than n1.
type as struct {
	*node
	self string
}

func (a as) Catalog() CatalogMember { return ledBy{a.catalog, a.self} }

type ledBy struct {
	*seen
	self string
}

func (l ledBy) Leads() bool { return l.led == l.self }

// TestReportsBecomeOnePicture: who leads, who is away, what is damaged.
func TestReportsBecomeOnePicture(t *testing.T) {
	o, reach, _ := threeOverviews(t, nil)
	s, err := o.Status(t.Context())
	if err != nil || !s.Confirmed || s.Controller != "n1" || len(s.CatalogVoters) != 3 {
		t.Fatalf("%+v, %v", s, err)
	}
	picture := func(s *admin.Status) string {
		var out []string
		for _, n := range s.Nodes {
			out = append(out, fmt.Sprint(n.ID, " ", n.Alive, " ", n.Replicas, " ", n.Leaders, " ", n.PeerAddress))
		}
		for _, p := range s.Topics[0].Partitions {
			line := fmt.Sprint(p.Partition, " ", p.Leader, " ", p.LogStart, "-", p.HighWatermark)
			for _, r := range p.Replicas {
				line += fmt.Sprint(" ", r.Node, ":", r.Role)
			}
			out = append(out, line)
		}
		return strings.Join(out, "\n")
	}
	if got, want := picture(s), `n1 true 2 0 
n2 true 2 2 two:1
n3 true 1 0 
0 n2 2-10 n1:follower n2:leader n3:follower
1 n2 2-10 n2:leader n3:damaged n1:follower`; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	delete(reach, n2)
	o.cfg.CatchUp = func(context.Context) error { return outcome.ErrNoLeader }
	s, err = o.Status(t.Context())
	if err != nil || s.Confirmed || !strings.Contains(s.Unconfirmed, "may be old") {
		t.Fatalf("%+v, %v", s, err)
	}
	if got, want := picture(s), `n1 true 2 0 
n2 false 0 0 two:1
n3 true 1 0 
0  2-10 n1:follower n2:offline n3:follower
1  2-10 n2:offline n3:damaged n1:follower`; got != want {
		t.Errorf("without n2: got\n%s\nwant\n%s", got, want)
	}
}

// TestADifferenceIsNarrowedDown to the offset at which one replica has other bytes.
func TestADifferenceIsNarrowedDown(t *testing.T) {
	for what, test := range map[string]struct {
		third   kept
		away    string
		differs fsm.Offset
	}{
		"all are the same":      {"..abcdefgh", "", -1},
		"one differs":           {"..abcdXfgh", "", 6},
		"the first one differs": {"..Xbcdefgh", "", 2},
		"who differs is away":   {"..abcdXfgh", n3, -1},
	} {
		o, reach, topic := threeOverviews(t, map[string]kept{n1: "..abcdefgh", n2: "..abcdefgh", n3: test.third})
		delete(reach, test.away)
		c, err := o.CheckReplicas(t.Context(), fsm.PartitionID{Topic: topic}, -1)
		if err != nil || c.From != 2 || c.To != 10 || c.DiffersAt != test.differs {
			t.Errorf("%s: %+v, %v", what, c, err)
			continue
		}
		if away := c.Replicas[2].State == "offline"; away != (test.away == n3) {
			t.Errorf("%s: %+v", what, c.Replicas)
		}
	}
}

// TestTheGaugesOfANode, with one of three nodes gone.
func TestTheGaugesOfANode(t *testing.T) {
	view, topic := threeNodes(t)
	all := []string{n1, n2, n3}
	here := &node{view: view, catalog: &seen{led: n1, voters: all}, full: true, replicas: map[fsm.PartitionID]*seen{}}
	for p, led := range []string{n1, n3} {
		id := fsm.PartitionID{Topic: topic, Partition: int32(p)}
		here.replicas[id] = &seen{id: id, led: led, voters: all, barrier: led == n1, known: true}
		here.replicas[id].open = Transactions{Open: 2 + p, Oldest: time.Duration(1+p) * time.Hour, Late: true, Behind: 5}
	}
	r := prometheus.NewRegistry()
	r.MustRegister(Collector{&Health{Self: n1, NodeID: "n1", Presence: reached{n2}, Here: here}})
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		got[strings.TrimPrefix(f.GetName(), "trimaran_")] = f.Metric[0].GetGauge().GetValue()
	}
	for name, want := range map[string]float64{
		"partition_count": 2, "leader_count": 1, "offline_partitions_count": 1, "under_replicated_partitions": 1,
		"offline_replica_count": 0, "offline_catalog_count": 0, "under_replicated_catalog": 1,
		"active_controller_count": 1, "disk_full": 1, "log_end_offset": 10, "log_start_offset": 2,
		"last_stable_offset_lag": 5, "open_transaction_count": 2, "oldest_open_transaction_age_seconds": 3600,
		"partitions_with_late_transactions_count": 1,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
}
