package listen

import (
	"net/http"
	"time"

	"github.com/trimaran-io/trimaran/gateway/shim"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/internal/ticks"
)

// A node that is cut off from the majority sends its clients elsewhere: sessions are ended in good
// order, and new ones refused, as long as that lasts. A client that asked to be told whether this
// node serves (shim.ServingHeader) decides for itself.

const (
	servingTick = 100 * time.Millisecond
	// awayGrace is how long sessions that are sent elsewhere may take to answer what they have
	// read: what waits for the majority would wait as long as the cut lasts.
	awayGrace = 500 * time.Millisecond
)

// Node is what a node says of itself.
type Node interface {
	// Ready is nil when this node serves: catalog known, caught up, leader known.
	// The error says what is missing.
	Ready() error
	// Serving is nil while this node serves as well as any. elsewhere says that it is cut off,
	// and that others may serve. It is asked ten times a second and must not wait.
	Serving() (elsewhere bool, err error)
}

// serving is whether this node serves, as its cluster said last.
type serving struct {
	mu        locks.Mutex[serving] // guards the rest; nothing is taken and nobody waits under it
	why       error                // nil: it does
	elsewhere bool                 // others may, and this one does not
	changed   chan struct{}        // closed and replaced when that changes
}

// now gives the state, and a channel that is closed when it changes.
func (v *serving) now() (elsewhere bool, changed <-chan struct{}, why error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.elsewhere, v.changed, v.why
}

func (v *serving) set(elsewhere bool, why error) (was, is bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	was = v.elsewhere
	if (why == nil) != (v.why == nil) || elsewhere != was {
		close(v.changed)
		v.changed = make(chan struct{})
	}
	v.why, v.elsewhere = why, elsewhere
	return was, elsewhere
}

// watchServing runs until the server stops.
func (s *Server) watchServing() {
	tick := ticks.New(servingTick)
	defer tick.Stop()
	for {
		elsewhere, why := s.cfg.Node.Serving()
		switch was, is := s.serving.set(elsewhere, why); {
		case is && !was:
			s.cfg.Logger.Warn("clients are sent to other nodes", "error", why)
			s.sendAway()
		case was && !is:
			s.cfg.Logger.Info("clients are taken again")
		}
		select {
		case <-tick.C:
		case <-s.leaving.Done():
			return
		}
	}
}

// sendAway ends the sessions of clients that do not know by themselves.
func (s *Server) sendAway() {
	var sent []*conn
	s.mu.Lock()
	for c := range s.conns {
		if c.drain != nil && !c.told {
			sent = append(sent, c)
		}
	}
	s.mu.Unlock()
	for _, c := range sent {
		c.drain()
	}
	s.wg.Go(func() {
		select {
		case <-time.After(awayGrace):
		case <-s.leaving.Done():
			return // Shutdown has its own patience
		}
		for _, c := range sent {
			c.Close()
		}
	})
}

// tells says whether a WebSocket client asks to be told whether this node serves.
func tells(r *http.Request) bool { return r.Header.Get(shim.ServingHeader) != "" }

func servingWord(why error) string {
	if why != nil {
		return shim.NotServing
	}
	return shim.Serving
}
