package gateway

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trimaran-io/trimaran/gateway/listen"
	"github.com/trimaran-io/trimaran/gateway/session"
)

// metrics are what /metrics shows of the gateway, in Kafka's words where it has
// one. No label comes from a client: APIs are those of the table, topics those
// of the catalog.
type metrics struct {
	catalog     Catalog
	inflight    map[string]*session.Budget // by kind
	requests    *prometheus.CounterVec
	latency     *prometheus.HistogramVec
	bytesIn     prometheus.Counter
	bytesOut    prometheus.Counter
	connections *prometheus.GaugeVec
	refusals    *prometheus.CounterVec

	topics sync.Map // name → *topicCounts
}

// topicCounts are the counters of one topic.
type topicCounts struct{ bytesIn, bytesOut, messagesIn atomic.Int64 }

var (
	descBytesIn    = prometheus.NewDesc("trimaran_bytes_in_total", "Bytes of record batches appended for clients of this node.", []string{"topic"}, nil)
	descBytesOut   = prometheus.NewDesc("trimaran_bytes_out_total", "Bytes of records fetched by clients of this node.", []string{"topic"}, nil)
	descMessagesIn = prometheus.NewDesc("trimaran_messages_in_total", "Messages appended for clients of this node.", []string{"topic"}, nil)
	descInflight   = prometheus.NewDesc("trimaran_inflight_bytes", "Bytes of the memory budget in use, by requests being worked on and by fetched records being sent.", []string{"kind"}, nil)
)

func newMetrics(registry *prometheus.Registry, catalog Catalog, requests, answers *session.Budget) (*metrics, error) {
	m := &metrics{
		catalog: catalog, inflight: map[string]*session.Budget{"requests": requests, "answers": answers},
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trimaran_requests_total", Help: "Requests answered, by the first error in the answer.",
		}, []string{"api", "version", "error"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "trimaran_request_total_time_seconds", Help: "From a request's last byte until its answer is ready.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 13),
		}, []string{"api"}),
		bytesIn: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "trimaran_network_bytes_in_total", Help: "Bytes of requests read.",
		}),
		bytesOut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "trimaran_network_bytes_out_total", Help: "Bytes of answers written.",
		}),
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "trimaran_connection_count", Help: "Open client connections.",
		}, []string{"transport"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trimaran_connections_refused_total", Help: "Connections and HTTP requests refused by the listener.",
		}, []string{"reason"}),
	}
	for _, kind := range []string{listen.KindTCP, listen.KindTLS, listen.KindWebSocket, listen.KindHTTP} {
		m.connections.WithLabelValues(kind)
	}
	for _, c := range []prometheus.Collector{m.requests, m.latency, m.bytesIn, m.bytesOut, m.connections, m.refusals, m} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// request counts a request that is complete; closed says that the connection ends at it.
func (m *metrics) request(r *request, closed bool) {
	version := "unknown"
	if r.name != "unknown" {
		version = strconv.Itoa(int(r.header.Version))
	}
	result := errorName(r.code)
	if closed {
		if result = "CLOSED"; r.body == nil {
			version = "unknown" // it may not be one that is served
		}
	}
	m.requests.WithLabelValues(r.name, version, result).Inc()
	m.latency.WithLabelValues(r.name).Observe(time.Since(r.began).Seconds())
}

func (m *metrics) networkIn(n int)  { m.bytesIn.Add(float64(n)) }
func (m *metrics) networkOut(n int) { m.bytesOut.Add(float64(n)) }

// Refused implements listen.Metrics.
func (m *metrics) Refused(reason string) { m.refusals.WithLabelValues(reason).Inc() }

// Connection implements listen.Metrics.
func (m *metrics) Connection(kind string, change float64) {
	m.connections.WithLabelValues(kind).Add(change)
}

func (m *metrics) produced(topic string, bytes, messages int) {
	t := m.topic(topic)
	t.bytesIn.Add(int64(bytes))
	t.messagesIn.Add(int64(messages))
}

func (m *metrics) fetched(topic string, bytes int) {
	if bytes > 0 {
		m.topic(topic).bytesOut.Add(int64(bytes))
	}
}

// topic gives the counters of a topic that is, or was a moment ago, in the catalog.
func (m *metrics) topic(name string) *topicCounts {
	t, ok := m.topics.Load(name)
	if !ok {
		t, _ = m.topics.LoadOrStore(name, new(topicCounts))
	}
	return t.(*topicCounts)
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descBytesIn, descBytesOut, descMessagesIn, descInflight} {
		to <- d
	}
}

// Collect implements prometheus.Collector. It forgets topics that are gone.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	for kind, b := range m.inflight {
		to <- prometheus.MustNewConstMetric(descInflight, prometheus.GaugeValue, float64(b.Held()), kind)
	}
	topics := m.catalog.Topics()
	m.topics.Range(func(key, value any) bool {
		name, t := key.(string), value.(*topicCounts)
		if _, ok := topics.Lookup(name); !ok {
			m.topics.Delete(name)
			return true
		}
		counter := func(d *prometheus.Desc, v *atomic.Int64) {
			to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v.Load()), name)
		}
		counter(descBytesIn, &t.bytesIn)
		counter(descBytesOut, &t.bytesOut)
		counter(descMessagesIn, &t.messagesIn)
		return true
	})
}
