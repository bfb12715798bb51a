package cluster

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trimaran-io/trimaran/cluster/status"
)

// metrics are the node's, beside those that its gateway has.
type metrics struct {
	node    *Node
	flushes prometheus.Histogram
	syncs   atomic.Int64
}

func newMetrics(n *Node) *metrics {
	return &metrics{node: n, flushes: prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "trimaran_log_flush_time_seconds", Help: "Syncs of files of the data directory: how long each took.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 2, 15), // 0.1 ms to 1.6 s
	})}
}

// synced is told of each sync of a file.
func (m *metrics) synced(took time.Duration) {
	m.flushes.Observe(took.Seconds())
	m.syncs.Add(1)
}

// all gives what there is to register. Status and link must be there.
func (m *metrics) all() []prometheus.Collector {
	stats := m.node.link.Stats
	counter := func(name, help string, read func() uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(read()) })
	}
	ended := &m.node.transactionCounters
	transactions := func(how string, count *atomic.Int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "trimaran_transactions_ended_total", Help: "Transactions whose end was decided by the coordinators on this node, by how.",
			ConstLabels: prometheus.Labels{"how": how},
		}, func() float64 { return float64(count.Load()) })
	}
	compacted := &m.node.compactionCounters
	count := func(of *atomic.Int64) func() uint64 { return func() uint64 { return uint64(max(of.Load(), 0)) } }
	return append(m.tier(), []prometheus.Collector{
		counter("trimaran_compaction_rounds_total", "Compactions that replicas on this node have carried out.", count(&compacted.Rounds)),
		counter("trimaran_compaction_bytes_total", "Bytes that were read and written for them.", count(&compacted.Bytes)),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "trimaran_compaction_saved_bytes", Help: "Bytes by which segments on this node became smaller since it was started.",
		}, func() float64 { return float64(compacted.Saved.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "trimaran_compaction_last_round_timestamp_seconds", Help: "When the last of them ended, in seconds since 1970; 0: none has since the node was started.",
		}, func() float64 { return float64(compacted.Last.Load()) }),
		transactions("committed", &ended.Committed),
		transactions("aborted", &ended.Aborted),
		transactions("timed-out", &ended.TimedOut),
		transactions("fenced", &ended.Fenced),
		status.Collector{Health: m.node.health},
		m.flushes,
		counter("trimaran_peer_messages_in_total", "Messages that came from other nodes.", func() uint64 { return stats().FramesIn }),
		counter("trimaran_peer_messages_out_total", "Messages that were sent to other nodes.", func() uint64 { return stats().FramesOut }),
		counter("trimaran_peer_writes_total", "System calls that sent messages to other nodes; one may send many.", func() uint64 { return stats().Writes }),
		counter("trimaran_peer_bytes_in_total", "Bytes that came from other nodes.", func() uint64 { return stats().BytesIn }),
		counter("trimaran_peer_bytes_out_total", "Bytes that were sent to other nodes.", func() uint64 { return stats().BytesOut }),
		counter("trimaran_peer_appends_ahead_total", "AppendEntries that were sent before the leader had stored their entries.", func() uint64 { return m.node.rafts.Stats().Ahead }),
		counter("trimaran_peer_appends_ahead_used_total", "Those of them that were what Raft sends then; the others were sent in vain.", func() uint64 { return m.node.rafts.Stats().AheadUsed }),
	}...)
}

// tier gives what there is to register of the store that old records go to.
func (m *metrics) tier() (all []prometheus.Collector) {
	t := m.node.tier
	if t == nil {
		return nil
	}
	for _, c := range []struct {
		name, help string
		of         *atomic.Int64
	}{
		{"trimaran_tier_segments_total", "Segments that this node has put into the tier's store and had named.", &t.Segments},
		{"trimaran_tier_uploaded_bytes_total", "Bytes of objects that this node has put there.", &t.Uploaded},
		{"trimaran_tier_upload_errors_total", "Attempts to bring a partition's tier up to date that failed.", &t.UploadErrors},
		{"trimaran_tier_fetched_bytes_total", "Bytes of objects that were read from there.", &t.Fetched},
		{"trimaran_tier_fetch_errors_total", "Objects that could not be read from there, or were not what was put.", &t.FetchErrors},
		{"trimaran_tier_cache_hits_total", "Reads of old records that were in the cache.", &t.Hits},
		{"trimaran_tier_cache_misses_total", "Reads of old records that were not, and had to wait for the store.", &t.Misses},
		{"trimaran_tier_saved_bytes_total", "Bytes of records by which this node has made tiers of compacted topics smaller.", &t.Saved},
		{"trimaran_tier_deleted_objects_total", "Objects that were deleted there.", &t.Deleted},
		{"trimaran_tier_orphans_total", "Those of them that nobody had named.", &t.Counters.Orphans},
	} {
		all = append(all, prometheus.NewCounterFunc(prometheus.CounterOpts{Name: c.name, Help: c.help}, func() float64 { return float64(c.of.Load()) }))
	}
	return append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "trimaran_tier_cache_bytes", Help: "Bytes of the cache's files in the data directory.",
	}, func() float64 { return float64(t.CacheSize()) }))
}

// register adds all metrics, or none.
func (m *metrics) register(to prometheus.Registerer) error {
	for i, c := range m.all() {
		if err := to.Register(c); err != nil {
			for _, done := range m.all()[:i] {
				to.Unregister(done)
			}
			return err
		}
	}
	return nil
}

func (m *metrics) unregister(from prometheus.Registerer) {
	for _, c := range m.all() {
		from.Unregister(c)
	}
}
