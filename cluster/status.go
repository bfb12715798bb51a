package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/fsm"
)

// report is what this node says of its replicas (calls.ReplicaStatus).
func (n *Node) report() nodeReport {
	report := nodeReport{Replicas: map[string]replicaReport{}, Broken: map[string]string{}, DiskFull: n.logs.Full()}
	report.DiskFree, report.DiskTotal = n.logs.Space()
	broken, hurtBy := n.replicas.Troubles()
	for id, err := range broken {
		report.Broken[id.String()] = err.Error()
	}
	hurt := make(map[fsm.PartitionID]string, len(hurtBy))
	for id, err := range hurtBy {
		hurt[id] = err.Error()
	}
	for _, r := range n.runningReplicas() {
		start, next := r.Bounds()
		identity, term := r.Member.Leader()
		var ids []string
		if identity == n.identity {
			ids = r.Member.Voters()
		}
		report.Replicas[r.ID.String()] = replicaReport{Leads: identity == n.identity, Voters: ids, Term: fsm.Term(term), LogStart: start, Applied: next, Bytes: r.Log.Bytes(), CatchUp: r.CatchUp(), Hurt: hurt[r.ID]}
	}
	if g := n.catalog.Member(); g != nil {
		report.Catalog = "voter"
		report.Term, report.End = fsm.Term(g.Raft.CurrentTerm()), int64(g.Raft.LastIndex())+1
		if g.Raft.State() == raft.Leader {
			report.Catalog, report.CatalogVoters = "leader", g.Voters()
		} else if future := g.Raft.GetConfiguration(); future.Error() == nil {
			for _, s := range future.Configuration().Servers {
				if string(s.ID) == n.identity && s.Suffrage != raft.Voter {
					report.Catalog = "nonvoter"
				}
			}
		}
	}
	return report
}

// statusTimeout bounds the wait for a node that does not answer.
const statusTimeout = 2 * time.Second

// reports asks nodes for their replicas; nil for those that do not answer in time.
func (n *Node) reports(ctx context.Context, nodes []fsm.Node) []*nodeReport {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	reports := make([]*nodeReport, len(nodes))
	places := make([]int, len(nodes))
	for i := range places {
		places[i] = i
	}
	calls.AskAll(ctx, places, func(ctx context.Context, i int) (nodeReport, error) {
		if nodes[i].Identity() == n.identity {
			return n.report(), nil
		}
		return calls.ReplicaStatus.Ask(ctx, n.caller, nodes[i].Identity(), calls.Nothing{})
	}, func(i int, report nodeReport, err error) bool {
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
func (n *Node) confirm(ctx context.Context) error {
	if n.ClusterID() == "" {
		return errors.New("this node is not in a cluster yet: " + n.formation.Waiting())
	}
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	switch err := n.catalog.CatchUp(ctx); {
	case err == nil && n.Topics().ClusterID() == "":
		return errors.New("the cluster is being formed")
	case err == nil:
		return nil
	case !n.CatalogKnown():
		return fmt.Errorf("this node has just started and does not know the newest catalog yet: %w", err)
	default:
		return fmt.Errorf("the catalog's leader is not reached, what is shown may be old: %w", err)
	}
}

// Status asks every node for its replicas and puts the answers together. Nodes that do not answer
// within two seconds are shown as not alive. Where the catalog's leader cannot be asked, for a
// second, it is not Confirmed.
func (n *Node) Status(ctx context.Context) (*admin.Status, error) {
	doubt := n.confirm(ctx)
	topics := n.Topics()
	status := &admin.Status{ClusterID: n.ClusterID(), Level: topics.Level(), Confirmed: doubt == nil}
	if doubt != nil {
		status.Unconfirmed = doubt.Error()
	}
	leads := fsm.Term(0) // the term of the catalog's leader
	nodes := topics.Nodes()
	reports := n.reports(ctx, nodes)
	members := map[string]int{}
	live := n.nodes.Members()
	for i, m := range live {
		members[m.Identity] = i
	}
	index := map[fsm.NodeID]int{}
	for i, node := range nodes {
		index[node.ID] = i
		s := admin.NodeStatus{ID: node.ID, Identity: node.Identity(), Zone: node.Zone, Alive: reports[i] != nil, State: node.State, Level: max(node.Level, 1)}
		if m, ok := members[node.Identity()]; ok {
			s.PeerAddress, s.ClientAddress, s.Version = live[m].PeerAddr, live[m].ClientAddr, live[m].Version
		}
		if reports[i] != nil {
			s.CatalogRole, s.CatalogTerm, s.CatalogEnd = reports[i].Catalog, reports[i].Term, reports[i].End
			s.DiskFree, s.DiskTotal, s.DiskFull = reports[i].DiskFree, reports[i].DiskTotal, reports[i].DiskFull
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

func partitionStatus(topic fsm.TopicID, p int32, partition fsm.Partition, nodes []fsm.Node, index map[fsm.NodeID]int, reports []*nodeReport) admin.PartitionStatus {
	name := fsm.PartitionID{Topic: topic, Partition: p}.String()
	s := admin.PartitionStatus{Partition: p}
	var voters []string
	find := func(node fsm.NodeID) (replicaReport, bool) {
		if i, ok := index[node]; ok && reports[i] != nil {
			r, ok := reports[i].Replicas[name]
			if broken, is := reports[i].Broken[name]; is && !ok {
				return replicaReport{Error: broken}, true
			}
			return r, ok
		}
		return replicaReport{}, false
	}
	for _, node := range partition.Holders() {
		if r, ok := find(node); ok {
			// Of two that think they lead, the one with the higher term does.
			if r.Leads && (s.Leader == "" || r.Term > s.Term) {
				s.Leader, s.Term, voters = node, r.Term, r.Voters
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
			replica.Bytes = r.Bytes
			replica.Applied, replica.Lag = r.Applied, int64(s.HighWatermark-r.Applied)
		}
		s.Replicas = append(s.Replicas, replica)
	}
	return s
}

// collector gives the node's gauges, with Kafka's words.
type collector struct{ n *Node }

var (
	metricPartitions = prometheus.NewDesc("trimaran_partition_count", "Replicas running on this node.", nil, nil)
	metricLeaders    = prometheus.NewDesc("trimaran_leader_count", "Partitions that this node leads.", nil, nil)
	metricOffline    = prometheus.NewDesc("trimaran_offline_partitions_count", "Partitions of the cluster that have no leader, as far as this node can tell.", nil, nil)
	metricBroken     = prometheus.NewDesc("trimaran_offline_replica_count", "Replicas that should run on this node and cannot.", nil, nil)
	metricHurt       = prometheus.NewDesc("trimaran_damaged_replica_count", "Replicas that run on this node and have records that they cannot read, and that no other replica can give now.", nil, nil)
	metricUnder      = prometheus.NewDesc("trimaran_under_replicated_partitions", "Partitions that this node leads, and of which a replica is on a node that is gone, is being rebuilt or does not vote yet.", nil, nil)

	metricOfflineShards  = prometheus.NewDesc("trimaran_offline_group_shards_count", "Shards of consumer groups that have no leader, as far as this node can tell.", nil, nil)
	metricUnderShards    = prometheus.NewDesc("trimaran_under_replicated_group_shards", "As trimaran_under_replicated_partitions, of the shards of consumer groups.", nil, nil)
	metricOfflineCatalog = prometheus.NewDesc("trimaran_offline_catalog_count", "1 if the catalog has no leader, as far as this node can tell.", nil, nil)
	metricUnderCatalog   = prometheus.NewDesc("trimaran_under_replicated_catalog", "1 if this node leads the catalog, and a node that votes there is gone, or one that should vote does not yet.", nil, nil)

	metricController = prometheus.NewDesc("trimaran_active_controller_count", "1 if this node leads the catalog.", nil, nil)
	metricDiskFree   = prometheus.NewDesc("trimaran_disk_free_bytes", "Bytes free on the disk of the data directory.", nil, nil)
	metricDiskFull   = prometheus.NewDesc("trimaran_disk_full", "1 if this node takes no records since its disk is full.", nil, nil)
	metricShards     = prometheus.NewDesc("trimaran_group_shard_count", "Replicas of shards of consumer groups running on this node.", nil, nil)
	metricShardsLed  = prometheus.NewDesc("trimaran_group_shard_leader_count", "Shards of consumer groups that this node coordinates.", nil, nil)
	metricLogEnd     = prometheus.NewDesc("trimaran_log_end_offset", "Next offset of the replica on this node.", []string{"topic", "partition"}, nil)
	metricLogStart   = prometheus.NewDesc("trimaran_log_start_offset", "First offset that can be read from the replica on this node.", []string{"topic", "partition"}, nil)
)

// Describe implements prometheus.Collector.
func (c collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{metricPartitions, metricLeaders, metricOffline, metricBroken, metricHurt, metricUnder, metricOfflineShards, metricUnderShards, metricOfflineCatalog, metricUnderCatalog, metricController, metricDiskFree, metricDiskFull, metricShards, metricShardsLed, metricLogEnd, metricLogStart} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	short := c.n.health.shortcomings()
	running := 0
	topics := c.n.Topics()
	here := c.n.nodesHere(topics)
	controller := 0.0
	if g := c.n.catalog.Member(); g != nil && g.Raft.State() == raft.Leader {
		controller = 1
	}
	partitions, catalog := c.n.health.of(topics, topics.All(), here), c.n.health.ofCatalog(topics, controller == 1)
	var groups groupsHealth
	if shards, ok := topics.GroupShards(); ok {
		groups = c.n.health.of(topics, []*fsm.Topic{shards}, here)
	}
	for _, topic := range topics.All() {
		for p := range topic.Partitions {
			r := c.n.replica(fsm.PartitionID{Topic: topic.ID, Partition: int32(p)})
			if r == nil {
				continue
			}
			running++
			start, next := r.Bounds()
			labels := []string{topic.Name, strconv.Itoa(p)}
			gauge(metricLogEnd, float64(next), labels...)
			gauge(metricLogStart, float64(start), labels...)
		}
	}
	shards, led := 0, 0
	for _, r := range c.n.runningReplicas() {
		if r.ID.Topic != fsm.GroupShardsID {
			continue
		}
		shards++
		if _, err := r.Leads(); err == nil {
			led++
		}
	}
	gauge(metricShards, float64(shards))
	gauge(metricShardsLed, float64(led))
	gauge(metricPartitions, float64(running))
	gauge(metricLeaders, float64(partitions.led))
	gauge(metricOffline, float64(partitions.offline))
	gauge(metricBroken, float64(short.closed))
	_, hurt := c.n.replicas.Troubles()
	gauge(metricHurt, float64(len(hurt)))
	gauge(metricUnder, float64(partitions.under))
	gauge(metricOfflineShards, float64(groups.offline))
	gauge(metricUnderShards, float64(groups.under))
	gauge(metricOfflineCatalog, float64(catalog.offline))
	gauge(metricUnderCatalog, float64(catalog.under))
	gauge(metricController, controller)
	free, _ := c.n.logs.Space()
	gauge(metricDiskFree, float64(free))
	full := 0.0
	if c.n.logs.Full() {
		full = 1
	}
	gauge(metricDiskFull, full)
}
