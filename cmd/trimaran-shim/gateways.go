package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/trimaran-io/trimaran/gateway/shim"
)

const (
	backoffLeast = 50 * time.Millisecond
	backoffMost  = 2 * time.Second
)

// gateways is what the proxy knows of its gateways: which failed lately and
// when each may be tried again. Connections share it, so a dead gateway is not
// found dead by each of them anew.
type gateways struct {
	logger *slog.Logger
	now    func() time.Time

	mu   sync.Mutex
	list []*gatewayHealth
}

type gatewayHealth struct {
	url      string
	failures int       // in a row
	retryAt  time.Time // not to be tried before
}

func newGateways(urls []string, logger *slog.Logger) *gateways {
	g := &gateways{logger: logger, now: time.Now}
	for _, url := range urls {
		g.list = append(g.list, &gatewayHealth{url: url})
	}
	return g
}

// pick gives a gateway that may be tried now, one that did not fail before one
// that did, by chance among equals. If none may be tried, wait says how long
// until one may.
func (g *gateways) pick() (h *gatewayHealth, wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	ties := 0
	for _, candidate := range g.list {
		if left := candidate.retryAt.Sub(now); left > 0 {
			if wait == 0 || left < wait {
				wait = left
			}
			continue
		}
		switch {
		case h == nil || candidate.failures < h.failures:
			h, ties = candidate, 1
		case candidate.failures == h.failures:
			if ties++; rand.IntN(ties) == 0 {
				h = candidate
			}
		}
	}
	if h != nil {
		return h, 0
	}
	return nil, wait
}

// failed notes that a gateway could not be reached or was lost.
func (g *gateways) failed(h *gatewayHealth, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	h.failures++
	backoff := min(backoffLeast<<min(h.failures-1, 10), backoffMost)
	// Half of it by chance, so that many connections do not come at once.
	h.retryAt = g.now().Add(backoff/2 + rand.N(backoff/2+1))
	if h.failures == 1 {
		g.logger.Warn("gateway lost", "gateway", h.url, "error", err)
	}
}

func (g *gateways) succeeded(h *gatewayHealth) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if h.failures > 0 {
		g.logger.Info("gateway reached again", "gateway", h.url)
	}
	h.failures, h.retryAt = 0, time.Time{}
}

var errNoGateway = errors.New("no gateway could be reached")

// dial connects to one of the gateways, trying them until ctx ends.
func (g *gateways) dial(ctx context.Context, d shim.Dialer) (*shim.Conn, *gatewayHealth, error) {
	var last error
	for {
		h, wait := g.pick()
		if h == nil {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
				continue
			case <-ctx.Done():
				timer.Stop()
				return nil, nil, fmt.Errorf("%w: %w", errNoGateway, errors.Join(ctx.Err(), last))
			}
		}
		attempt, cancel := context.WithTimeout(ctx, d.HandshakeTimeout)
		conn, err := d.DialURL(attempt, h.url)
		cancel()
		if err == nil {
			g.succeeded(h)
			return conn, h, nil
		}
		if ctx.Err() != nil {
			return nil, nil, fmt.Errorf("%w: %w", errNoGateway, errors.Join(ctx.Err(), last))
		}
		last = err
		g.failed(h, err)
	}
}
