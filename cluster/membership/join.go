package membership

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

const (
	joinFirst = 100 * time.Millisecond
	joinMost  = 3 * time.Second
	// joinAgain is how often addresses that no live member has are tried once others are known:
	// memberlist itself never goes back to a node it has given up, so two halves of a
	// cluster would stay apart after a long cut.
	joinAgain = 10 * time.Second
	// tellAfter so many rounds alone, some seconds, it is said that nobody is met: nodes that start
	// together are not there at once.
	tellAfter = 5
)

// joinLoop looks for others, quickly while alone, and keeps the hints file.
func (g *Gossip) joinLoop() {
	var known, written []string
	if g.cfg.Hints != nil {
		var err error
		if known, err = readHints(g.cfg.Hints); err != nil {
			g.log.Warn("hints about other nodes not usable", "error", err)
		}
		written = known
	}
	wait := joinFirst
	rounds := 0        // alone and in vain
	var next time.Time // when to try again
	for {
		live := g.liveAddrs()
		known = mergeHints(live, known)
		if g.cfg.Hints != nil && !slices.Equal(known, written) {
			if err := writeHints(g.cfg.Hints, known); err != nil {
				g.log.Warn("hints about other nodes not written", "error", err)
			}
			written = known
		}
		if !time.Now().Before(next) {
			var err error
			if targets := g.targets(live, known); len(targets) > 0 {
				err = g.join(targets, len(live) == 0)
			}
			if len(live) == 0 {
				if wait = min(2*wait, joinMost); err != nil {
					rounds++
				}
			} else {
				wait, rounds = joinAgain, 0
			}
			if rounds == tellAfter {
				g.log.Warn("no other node is met; it goes on trying", "error", err)
			}
			next = time.Now().Add(wait/2 + rand.N(wait))
		} else if len(live) == 0 && wait > joinMost {
			wait, next = joinFirst, time.Now() // alone again
		}
		timer := time.NewTimer(max(time.Until(next), time.Millisecond))
		select {
		case <-g.ctx.Done():
			timer.Stop()
			return
		case <-g.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// liveAddrs gives the gossip addresses of live members but this one.
func (g *Gossip) liveAddrs() []string {
	var out []string
	for _, m := range g.Members() {
		if m.Identity != g.cfg.Self.Identity {
			out = append(out, m.GossipAddr)
		}
	}
	return out
}

// targets are all addresses known that are neither this node nor live members.
func (g *Gossip) targets(live, known []string) []string {
	skip := map[string]bool{g.Addr(): true, g.cfg.BindAddr: true, g.cfg.AdvertiseAddr: true}
	for _, a := range live {
		skip[a] = true
	}
	var out []string
	for _, a := range append(slices.Clone(g.cfg.Join), known...) {
		if !skip[a] {
			skip[a] = true
			out = append(out, a)
		}
	}
	return out
}

// join tries addresses one after the other, while alone until somebody is met. The
// error tells why nobody was.
func (g *Gossip) join(targets []string, alone bool) error {
	var failed []string
	for _, a := range targets {
		if g.ctx.Err() != nil {
			return nil
		}
		g.mu.Lock()
		left := g.left
		g.mu.Unlock()
		if left {
			return nil
		}
		if _, err := g.list.Join([]string{a}); err != nil {
			if one := errors.Unwrap(err); one != nil {
				err = one // of the list of one that memberlist makes
			}
			failed = append(failed, err.Error())
			g.log.Debug("gossip: nobody met", "addr", a, "error", err)
			continue
		}
		if alone && len(g.liveAddrs()) > 0 {
			return nil
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return errors.New(strings.Join(failed, "; "))
}
