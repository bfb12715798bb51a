package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// monitor asks every node for /readyz and /metrics all the time, as a load balancer and an
// operator's dashboard do, and holds what they say against what producers got.
type monitor struct {
	w *world
	h *history

	cancel func()
	wg     sync.WaitGroup

	mu    sync.Mutex
	nodes map[string]*watched
	// no partition took records, and no node's metrics said that anything was wrong
	blind time.Duration
}

// watched is what is known of one node. The times are how long it said what was not so.
type watched struct {
	answers, ready int
	// /readyz was 200 while nothing that was produced there was acknowledged
	falseReady   time.Duration
	falseUnready time.Duration // /readyz was not 200 while produces were
}

const (
	lookEvery = 500 * time.Millisecond
	// allowed is how long /readyz and metrics may lag behind what clients see.
	allowed = 5 * time.Second
)

func startMonitor(w *world, h *history) *monitor {
	m := &monitor{w: w, h: h, nodes: map[string]*watched{}}
	stop := make(chan struct{})
	m.cancel = func() { close(stop) }
	m.wg.Go(func() {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				m.look()
			}
		}
	})
	return m
}

func (m *monitor) stop() {
	m.cancel()
	m.wg.Wait()
}

// look asks all nodes once.
func (m *monitor) look() {
	type answer struct {
		answered, ready bool
		wrong           float64 // partitions offline or under-replicated, as it says
	}
	hosts := m.w.list()
	answers := make([]answer, len(hosts))
	var wg sync.WaitGroup
	for i, h := range hosts {
		wg.Go(func() {
			_, status, err := m.w.get(h, "/readyz", time.Second)
			answers[i].answered, answers[i].ready = err == nil, err == nil && status == http.StatusOK
			if page, status, err := m.w.get(h, "/metrics", time.Second); err == nil && status == http.StatusOK {
				answers[i].wrong = gauge(page, "trimaran_offline_partitions_count") + gauge(page, "trimaran_under_replicated_partitions")
			}
		})
	}
	wg.Wait()
	now := time.Now()
	m.h.mu.Lock()
	defer m.h.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	silent, says, someReady := true, false, false
	for _, p := range m.h.partitions {
		silent = silent && now.Sub(p.last) > allowed
	}
	for i, h := range hosts {
		w := m.nodes[h.id]
		if w == nil {
			w = &watched{}
			m.nodes[h.id] = w
		}
		a, s := answers[i], m.h.node(h.id)
		says = says || a.wrong > 0
		someReady = someReady || a.ready
		if !a.answered {
			continue
		}
		w.answers++
		failing := now.Sub(s.lastFailure) < time.Second && now.Sub(s.lastAck) > allowed
		serving := now.Sub(s.lastAck) < time.Second && now.Sub(s.lastFailure) > allowed
		if a.ready {
			w.ready++
			if failing {
				w.falseReady += lookEvery
			}
		} else if serving {
			w.falseUnready += lookEvery
		}
	}
	if silent && someReady && !says {
		m.blind += lookEvery
	}
}

// gauge gives the sum of a metric's values on a page.
func gauge(page, name string) (sum float64) {
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, name); ok && rest != "" && (rest[0] == ' ' || rest[0] == '{') {
			if v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' ')+1:]), 64); err == nil {
				sum += v
			}
		}
	}
	return sum
}

func (m *monitor) report() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(m.nodes)) {
		w := m.nodes[id]
		fmt.Fprintf(&b, "%s: /readyz answered %d times, 200 %d times; 200 while nothing was taken there for %v, not 200 while it took everything for %v\n", id, w.answers, w.ready, w.falseReady, w.falseUnready)
	}
	fmt.Fprintf(&b, "no partition took records and no metric said so for %v\n", m.blind)
	return b.String()
}
