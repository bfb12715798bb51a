package status

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/membership"
	"github.com/trimaran-io/trimaran/fsm"
)

// Config is what an Overview asks. The functions are called from many goroutines and return what
// is in memory, but for CatchUp.
type Config struct {
	Self      string // this node's identity
	Here      Here
	Caller    calls.Caller
	ClusterID func() string // "" until the node is in a cluster
	Waiting   func() string // what it waits for until then
	// Members are the nodes that gossip knows, with what they say of themselves.
	Members func() []membership.Member
	// CatchUp returns nil when this node knows the catalog as it was, or newer, when the call
	// began.
	CatchUp func(ctx context.Context) error
	// CaughtUp reports whether CatchUp was nil once since the start.
	CaughtUp func() bool
	// Digest hashes what this node's replica of a partition has on its disk of a range of offsets,
	// up to limit bytes.
	Digest func(ctx context.Context, id fsm.PartitionID, from, to fsm.Offset, limit int64) (calls.ReplicaHash, error)
	// Backup says how it stands with the backups that this node makes; nil: it makes none.
	Backup func() *admin.BackupStatus
	// Compaction says what this node has compacted; nil, or nil from it: nothing.
	Compaction func() *admin.NodeCompaction
}

// Overview asks all nodes and puts their answers together. It has no state and takes no lock.
type Overview struct{ cfg Config }

// New makes an Overview.
func New(cfg Config) *Overview { return &Overview{cfg} }

// statusTimeout bounds the wait for a node that does not answer.
const statusTimeout = 2 * time.Second

// reports asks nodes for their replicas; nil for those that do not answer in time.
func (o *Overview) reports(ctx context.Context, nodes []fsm.Node) []*calls.NodeReport {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	reports := make([]*calls.NodeReport, len(nodes))
	places := make([]int, len(nodes))
	for i := range places {
		places[i] = i
	}
	calls.AskAll(ctx, places, func(ctx context.Context, i int) (calls.NodeReport, error) {
		if nodes[i].Identity() == o.cfg.Self {
			return o.Report(), nil
		}
		return calls.ReplicaStatus.Ask(ctx, o.cfg.Caller, nodes[i].Identity(), calls.Nothing{})
	}, func(i int, report calls.NodeReport, err error) bool {
		if err == nil {
			reports[i] = &report
		}
		return false
	})
	return reports
}

// confirmTimeout bounds the wait for the catalog's leader to confirm that the catalog here is the
// newest.
const confirmTimeout = time.Second

// confirm returns nil when the catalog here is as new as it was when this was called, and else why
// that is not known.
func (o *Overview) confirm(ctx context.Context) error {
	if o.cfg.ClusterID() == "" {
		return errors.New("this node is not in a cluster yet: " + o.cfg.Waiting())
	}
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	switch err := o.cfg.CatchUp(ctx); {
	case err == nil && o.cfg.Here.Topics().ClusterID() == "":
		return errors.New("the cluster is being formed")
	case err == nil:
		return nil
	case !o.cfg.CaughtUp():
		return fmt.Errorf("this node has just started and does not know the newest catalog yet: %w", err)
	default:
		return fmt.Errorf("the catalog's leader is not reached, what is shown may be old: %w", err)
	}
}

// Status asks every node for its replicas and puts the answers together. Nodes that do not answer
// within two seconds are shown as not alive. Where the catalog's leader cannot be asked, for a
// second, it is not Confirmed.
func (o *Overview) Status(ctx context.Context) (*admin.Status, error) {
	doubt := o.confirm(ctx)
	topics := o.cfg.Here.Topics()
	status := &admin.Status{ClusterID: o.cfg.ClusterID(), FeatureLevel: topics.FeatureLevel(), Confirmed: doubt == nil}
	if doubt != nil {
		status.Unconfirmed = doubt.Error()
	}
	leads := fsm.Term(0) // the term of the catalog's leader
	nodes := topics.Nodes()
	reports := o.reports(ctx, nodes)
	members := map[string]int{}
	live := o.cfg.Members()
	for i, m := range live {
		members[m.Identity] = i
	}
	index := map[fsm.NodeID]int{}
	for i, node := range nodes {
		index[node.ID] = i
		s := admin.NodeStatus{ID: node.ID, Identity: node.Identity(), Zone: node.Zone, Alive: reports[i] != nil, State: node.State, FeatureLevel: max(node.FeatureLevel, 1)}
		if m, ok := members[node.Identity()]; ok {
			s.PeerAddress, s.ClientAddress, s.Version = live[m].PeerAddr, live[m].ClientAddr, live[m].Version
		}
		if reports[i] != nil {
			s.CatalogRole, s.CatalogTerm, s.CatalogEnd = reports[i].Catalog, reports[i].Term, reports[i].End
			s.DiskFree, s.DiskTotal, s.DiskFull = reports[i].DiskFree, reports[i].DiskTotal, reports[i].DiskFull
			s.Backup, s.Compaction = reports[i].Backup, reports[i].Compaction
			// Of two that think they lead, the one with the higher term does.
			if s.CatalogRole == "leader" && (status.Controller == "" || reports[i].Term > leads) {
				status.Controller, leads, status.CatalogVoters = node.ID, reports[i].Term, reports[i].CatalogVoters
			}
			for name, r := range reports[i].Replicas {
				if isShard(name) {
					continue
				}
				s.Replicas++
				if r.Leads {
					s.Leaders++
				}
			}
		}
		status.Nodes = append(status.Nodes, s)
	}
	for _, topic := range topics.All() {
		t := admin.TopicStatus{Name: topic.Name, ID: topic.ID, ReplicationFactor: topic.ReplicationFactor, Configs: topic.Configs}
		for p, partition := range topic.Partitions {
			t.Partitions = append(t.Partitions, partitionStatus(topic.ID, int32(p), partition, nodes, index, reports))
		}
		status.Topics = append(status.Topics, t)
	}
	if shards, ok := topics.GroupShards(); ok {
		for p, partition := range shards.Partitions {
			status.GroupShards = append(status.GroupShards, partitionStatus(shards.ID, int32(p), partition, nodes, index, reports))
		}
	}
	return status, nil
}

// isShard reports whether a replica's name is that of a shard of consumer groups.
func isShard(name string) bool {
	id, err := fsm.ParsePartitionID(name)
	return err == nil && id.Topic == fsm.GroupShardsID
}

func partitionStatus(topic fsm.TopicID, p int32, partition fsm.Partition, nodes []fsm.Node, index map[fsm.NodeID]int, reports []*calls.NodeReport) admin.PartitionStatus {
	name := fsm.PartitionID{Topic: topic, Partition: p}.String()
	s := admin.PartitionStatus{Partition: p}
	var voters []string
	find := func(node fsm.NodeID) (calls.ReplicaReport, bool) {
		if i, ok := index[node]; ok && reports[i] != nil {
			r, ok := reports[i].Replicas[name]
			if broken, is := reports[i].Broken[name]; is && !ok {
				return calls.ReplicaReport{Error: broken}, true
			}
			return r, ok
		}
		return calls.ReplicaReport{}, false
	}
	for _, node := range partition.Holders() {
		if r, ok := find(node); ok {
			// Of two that think they lead, the one with the higher term does.
			if r.Leads && (s.Leader == "" || r.Term > s.Term) {
				s.Leader, s.Term, voters, s.Tier = node, r.Term, r.Voters, r.Tier
			}
			s.HighWatermark = max(s.HighWatermark, r.Applied)
			s.LogStart = max(s.LogStart, r.LogStart)
		}
	}
	for _, node := range partition.Holders() {
		replica := admin.ReplicaStatus{Node: node, Role: "offline", Leaving: slices.Contains(partition.Leaving, node)}
		if r, ok := find(node); ok {
			replica.Role = "follower"
			if node == s.Leader {
				replica.Role = "leader"
			}
			if len(voters) > 0 && !slices.Contains(voters, nodes[index[node]].Identity()) {
				replica.Role = "non-voter"
			}
			if replica.CatchUp = r.CatchUp; r.CatchUp != nil {
				replica.Role = "copying"
			}
			if replica.Error = r.Error; r.Error != "" {
				replica.Role = "damaged"
			} else {
				replica.Error = r.Hurt
			}
			replica.Bytes, replica.Compaction, replica.Unseen = r.Bytes, r.Compaction, r.Unseen
			replica.Applied, replica.Lag = r.Applied, int64(s.HighWatermark-r.Applied)
		}
		s.Replicas = append(s.Replicas, replica)
	}
	return s
}
