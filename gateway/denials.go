package gateway

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/trimaran-io/trimaran/gateway/audit"
	"github.com/trimaran-io/trimaran/security/acl"
)

// newDenied counts what was denied.
func newDenied() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "trimaran_authorization_denied_total", Help: "What clients asked for and had no right to, by API and operation.",
	}, []string{"api", "operation"})
}

// denied counts a denial and writes it down.
func (r *request) denied(op acl.Operation, of acl.ResourceType, name, why string) {
	s := r.conn.server
	s.denials.WithLabelValues(r.name, op.String()).Inc()
	s.cfg.Audit.Denied(audit.Event{
		Who: r.caller.principal, From: r.caller.host, What: r.name, Why: why,
		More: []any{"operation", op.String(), "resource_type", of.String(), "resource", shownToLog(name), "client_id", shownToLog(r.header.ClientID)},
	})
}
