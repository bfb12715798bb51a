package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics is what the proxy counts; GET /metrics shows it.
type metrics struct {
	registry *prometheus.Registry
	clients  prometheus.Gauge
	accepted prometheus.Counter
	refused  prometheus.Counter
	requests prometheus.Counter
	answers  prometheus.Counter
	moves    prometheus.Counter
	unknown  prometheus.Counter
	gateways *gateways
}

var (
	descGateway = prometheus.NewDesc("trimaran_shim_gateway_up", "1 if the gateway is there.", []string{"gateway"}, nil)
	descServing = prometheus.NewDesc("trimaran_shim_gateway_serving", "1 if the gateway is there and says that it serves.", []string{"gateway"}, nil)
)

func newMetrics(p *proxy) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	memory := func(kind string, b *budget) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "trimaran_shim_memory_bytes", Help: "Memory that messages hold.", ConstLabels: prometheus.Labels{"kind": kind},
		}, func() float64 { return float64(b.held.Load()) })
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		clients:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "trimaran_shim_clients", Help: "Client connections."}),
		accepted: counter("trimaran_shim_clients_total", "Client connections that were taken."),
		refused:  counter("trimaran_shim_clients_refused_total", "Client connections that were refused because there were too many."),
		requests: counter("trimaran_shim_requests_total", "Requests that came from clients."),
		answers:  counter("trimaran_shim_answers_total", "Answers that came from gateways."),
		moves:    counter("trimaran_shim_moves_total", "Times that a client was moved to another gateway without noticing."),
		unknown:  counter("trimaran_shim_fate_unknown_total", "Client connections closed because a gateway was lost over a request that may have changed something."),
		gateways: p.gateways,
	}
	if dropped := p.settings.logDropped; dropped != nil {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "trimaran_shim_log_lines_dropped_total", Help: "Lines of the log that were dropped since nobody read them.",
		}, func() float64 { return float64(dropped()) }))
	}
	m.registry.MustRegister(m.clients, m.accepted, m.refused, m.requests, m.answers, m.moves, m.unknown, m,
		memory("request", p.requestMemory), memory("answer", p.answerMemory),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	to <- descGateway
	to <- descServing
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	m.gateways.mu.Lock()
	defer m.gateways.mu.Unlock()
	for _, g := range m.gateways.list {
		up, serving := 0.0, 0.0
		if g.up {
			up = 1
		}
		if g.up && g.serves {
			serving = 1
		}
		to <- prometheus.MustNewConstMetric(descGateway, prometheus.GaugeValue, up, g.name)
		to <- prometheus.MustNewConstMetric(descServing, prometheus.GaugeValue, serving, g.name)
	}
}

// serveWeb answers /healthz, /readyz and /metrics until stop is called.
func (p *proxy) serveWeb(listener net.Listener) (stop func()) {
	mux := http.NewServeMux()
	handle := func(path string, answer http.HandlerFunc) { // load balancers check with either
		mux.HandleFunc("GET "+path, answer)
		mux.HandleFunc("OPTIONS "+path, answer)
	}
	handle("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	handle("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !p.gateways.ready() {
			http.Error(w, "no gateway serves", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ready\n")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(p.metrics.registry, promhttp.HandlerOpts{}))
	server := &http.Server{
		Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(p.logger.Handler(), slog.LevelDebug),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
		<-done
	}
}
