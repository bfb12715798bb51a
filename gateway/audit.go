package gateway

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/security/acl"
)

// audit tells operators of what was denied: a line of the log for each, as far as a principal does
// not cause more than a few a second, and a counter.
type audit struct {
	log     *slog.Logger
	refused *prometheus.CounterVec // by API and operation

	mu  locks.Mutex[audit] // guards the rest; nothing is taken and nobody waits under it
	who map[string]*denials
}

// denials are those of a principal.
type denials struct {
	limit   *rate.Limiter
	dropped int // since the last line
}

const (
	// auditRate and auditBurst bound the lines about one principal.
	auditRate  = 1 // per second
	auditBurst = 10
	// maxAudited bounds the principals that are told apart; with one more all begin anew.
	maxAudited = 1024
)

func newAudit(log *slog.Logger) *audit {
	return &audit{log: log, who: map[string]*denials{}, refused: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "trimaran_authorization_denied_total", Help: "What clients asked for and had no right to, by API and operation.",
	}, []string{"api", "operation"})}
}

// denied counts a denial and says so.
func (a *audit) denied(r *request, op acl.Operation, of acl.ResourceType, name, why string) {
	a.refused.WithLabelValues(r.name, op.String()).Inc()
	dropped, ok := a.admit(r.caller.principal)
	if !ok {
		return
	}
	attrs := []any{
		"principal", shownToLog(r.caller.principal), "host", r.caller.host, "client_id", shownToLog(r.header.ClientID), "api", r.name,
		"operation", op.String(), "resource_type", of.String(), "resource", shownToLog(name), "why", why,
	}
	if dropped > 0 {
		attrs = append(attrs, "not_logged_before", dropped)
	}
	a.log.Info("authorization denied", attrs...)
}

// admit says whether a line about the principal may be written, and how many were not before.
func (a *audit) admit(principal string) (dropped int, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.who[principal]
	if d == nil {
		if len(a.who) >= maxAudited {
			clear(a.who)
		}
		d = &denials{limit: rate.NewLimiter(auditRate, auditBurst)}
		a.who[principal] = d
	}
	if !d.limit.Allow() {
		d.dropped++
		return 0, false
	}
	dropped, d.dropped = d.dropped, 0
	return dropped, true
}
