package login

import "github.com/prometheus/client_golang/prometheus"

// metrics are what /metrics shows of logins. No label comes from a client.
type metrics struct {
	logins *prometheus.CounterVec
	ended  prometheus.Counter
}

func newMetrics(registry prometheus.Registerer, required bool) (*metrics, error) {
	m := &metrics{
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trimaran_logins_total", Help: "Logins by mechanism and result: ok, failed, or not checked.",
		}, []string{"mechanism", "result"}),
		ended: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "trimaran_sessions_ended_total",
			Help: "Sessions that expired, or whose user or token was changed, deleted or revoked.",
		}),
	}
	needed := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "trimaran_login_required", Help: "1 if clients have to log in, 0 if everybody may in.",
	})
	if required {
		needed.Set(1)
	}
	if registry == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.logins, m.ended, needed} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
