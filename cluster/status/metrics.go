package status

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trimaran-io/trimaran/fsm"
)

// Collector gives the node's gauges, with Kafka's words.
type Collector struct{ *Health }

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
	metricStableLag  = prometheus.NewDesc("trimaran_last_stable_offset_lag", "Offsets of the replica on this node that readers of committed records do not get yet, since a transaction is open.", []string{"topic", "partition"}, nil)
	metricOpen       = prometheus.NewDesc("trimaran_open_transaction_count", "Transactions that are open in partitions that this node leads; one that writes to several counts in each.", nil, nil)
	metricOldest     = prometheus.NewDesc("trimaran_oldest_open_transaction_age_seconds", "Age of the oldest of them; 0: none.", nil, nil)
	metricLate       = prometheus.NewDesc("trimaran_partitions_with_late_transactions_count", "Partitions that this node leads with a transaction that should have been ended: it may be hanging.", nil, nil)
	metricDirty      = prometheus.NewDesc("trimaran_dirty_ratio", "Of a compacted topic: of the bytes of the replica's closed segments on this node, those that are not compacted yet.", []string{"topic", "partition"}, nil)
	metricTier       = prometheus.NewDesc("trimaran_tier_bytes", "Bytes of the records of a partition that this node leads that are in the tier.", []string{"topic", "partition"}, nil)
	metricTierLag    = prometheus.NewDesc("trimaran_tier_waiting_bytes", "Bytes of closed segments of a partition that this node leads that are still to go there.", []string{"topic", "partition"}, nil)
	metricWaiting    = prometheus.NewDesc("trimaran_compactions_waiting_count", "Replicas on this node that have not carried out a compaction that is decided.", nil, nil)
	metricUnseen     = prometheus.NewDesc("trimaran_tier_unseen_count", "Replicas on this node of whose tier the node does not see something in its store; what they have of that they keep.", nil, nil)
	metricLogStart   = prometheus.NewDesc("trimaran_log_start_offset", "First offset that can be read from the replica on this node.", []string{"topic", "partition"}, nil)
)

// Describe implements prometheus.Collector.
func (c Collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{metricPartitions, metricLeaders, metricOffline, metricBroken, metricHurt, metricUnder, metricOfflineShards, metricUnderShards, metricOfflineCatalog, metricUnderCatalog, metricController, metricDiskFree, metricDiskFull, metricShards, metricShardsLed, metricLogEnd, metricLogStart, metricStableLag, metricOpen, metricOldest, metricLate, metricDirty, metricTier, metricTierLag, metricWaiting, metricUnseen} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c Collector) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	short := c.Shortcomings()
	running, waiting, unseen := 0, 0, 0
	transactions, late, oldest := 0, 0, time.Duration(0)
	topics := c.Here.Topics()
	here := c.Presence.Here(topics)
	controller := 0.0
	if m := c.Here.Catalog(); m != nil && m.Leads() {
		controller = 1
	}
	partitions, catalog := c.of(topics, topics.All(), here), c.ofCatalog(topics, controller == 1)
	var groups raftGroupsHealth
	if shards, ok := topics.GroupShards(); ok {
		groups = c.of(topics, []*fsm.Topic{shards}, here)
	}
	for _, topic := range topics.All() {
		for p := range topic.Partitions {
			r := c.Here.Replica(fsm.PartitionID{Topic: topic.ID, Partition: int32(p)})
			if r == nil {
				continue
			}
			running++
			start, next := r.Bounds()
			labels := []string{topic.Name, strconv.Itoa(p)}
			gauge(metricLogEnd, float64(next), labels...)
			gauge(metricLogStart, float64(start), labels...)
			open := r.Transactions()
			gauge(metricStableLag, float64(open.Behind), labels...)
			if c := r.Compaction(); c.Compacted {
				gauge(metricDirty, c.DirtyRatio, labels...)
				if c.Waits {
					waiting++
				}
			}
			if r.Unseen() != "" {
				unseen++
			}
			if !r.ServesAsLeader() {
				continue
			}
			if t := r.Tier(); t != nil {
				gauge(metricTier, float64(t.Bytes), labels...)
				gauge(metricTierLag, float64(t.Waiting), labels...)
			}
			transactions += open.Open
			oldest = max(oldest, open.Oldest)
			if open.Late {
				late++
			}
		}
	}
	gauge(metricOpen, float64(transactions))
	gauge(metricOldest, oldest.Seconds())
	gauge(metricLate, float64(late))
	gauge(metricWaiting, float64(waiting))
	gauge(metricUnseen, float64(unseen))
	shards, led := 0, 0
	for _, r := range c.Here.Running() {
		if r.ID().Topic != fsm.GroupShardsID {
			continue
		}
		shards++
		if r.ServesAsLeader() {
			led++
		}
	}
	gauge(metricShards, float64(shards))
	gauge(metricShardsLed, float64(led))
	gauge(metricPartitions, float64(running))
	gauge(metricLeaders, float64(partitions.led))
	gauge(metricOffline, float64(partitions.offline))
	gauge(metricBroken, float64(short.Closed))
	_, hurt := c.Here.Troubles()
	gauge(metricHurt, float64(len(hurt)))
	gauge(metricUnder, float64(partitions.under))
	gauge(metricOfflineShards, float64(groups.offline))
	gauge(metricUnderShards, float64(groups.under))
	gauge(metricOfflineCatalog, float64(catalog.offline))
	gauge(metricUnderCatalog, float64(catalog.under))
	gauge(metricController, controller)
	free, _ := c.Here.Space()
	gauge(metricDiskFree, float64(free))
	full := 0.0
	if c.Here.Full() {
		full = 1
	}
	gauge(metricDiskFull, full)
}
