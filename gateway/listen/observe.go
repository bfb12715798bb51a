package listen

import (
	"log"
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/trimaran-io/trimaran/gateway/login"
	"github.com/trimaran-io/trimaran/security"
)

const (
	// parallelMetrics is how many requests for metrics are answered at once.
	parallelMetrics = 8
	// topicLabel is that of metrics that tell which topics there are.
	topicLabel = "topic"
)

// metricsHandler serves /metrics. Where clients have to log in, what names topics is only for who
// has a right to it: to others topics that are there and topics that are not look alike.
func (s *Server) metricsHandler() http.Handler {
	options := promhttp.HandlerOpts{ErrorLog: log.New(webErrors{s.cfg.Refusals}, "", 0), MaxRequestsInFlight: parallelMetrics}
	all := promhttp.HandlerFor(s.cfg.Registry, options)
	public := promhttp.HandlerFor(withoutTopics{s.cfg.Registry}, options)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.cfg.Login.Required() {
			all.ServeHTTP(w, r)
			return
		}
		id, ok := s.observer(w, r)
		switch {
		case !ok: // answered
		case id != nil && (s.cfg.Observes == nil || s.cfg.Observes(*id)):
			all.ServeHTTP(w, r)
		default:
			public.ServeHTTP(w, r)
		}
	})
}

// observer says who asks for a page, nil for nobody that is known. ok is false when the request has
// been refused.
func (s *Server) observer(w http.ResponseWriter, r *http.Request) (_ *security.Identity, ok bool) {
	facts, _, ok := s.judge(w, r, r.Context().Value(webConnKey{}).(*webConn))
	if !ok || facts.Who == nil {
		return nil, ok
	}
	return login.IdentityOf(*facts.Who, facts.Host), true
}

// withoutTopics leaves out what has a label with a topic's name.
type withoutTopics struct{ prometheus.Gatherer }

// Gather implements prometheus.Gatherer.
func (g withoutTopics) Gather() ([]*dto.MetricFamily, error) {
	all, err := g.Gatherer.Gather()
	kept := slices.DeleteFunc(all, func(f *dto.MetricFamily) bool {
		f.Metric = slices.DeleteFunc(f.Metric, func(m *dto.Metric) bool {
			return slices.ContainsFunc(m.Label, func(l *dto.LabelPair) bool { return l.GetName() == topicLabel })
		})
		return len(f.Metric) == 0
	})
	return kept, err
}
