package identity

import (
	"context"
	"fmt"
	"time"

	"github.com/trimaran-io/trimaran/internal/ticks"
)

// A data directory that was copied makes two nodes of one identity. Each of them acknowledges
// records and votes in the name of both, which no majority survives. The lock in the directory does
// not tell; gossip does.

// twinFor is for how long another process of this identity must be seen. One that was ended is
// taken for alive for some seconds, on a busy machine for some more; longer than that it is only if
// it answers.
const twinFor = time.Minute

// Gossip tells of another process of this identity.
type Gossip interface {
	// Twin gives where it gossips, "" if there is none, and whether this one came later.
	Twin() (addr string, younger bool)
}

// WatchForTwin returns an error when another process of this identity has been there before this
// one for that long (0: twinFor), and nil when ctx ends.
func (id *Identity) WatchForTwin(ctx context.Context, gossip Gossip, patience time.Duration) error {
	if patience == 0 {
		patience = twinFor
	}
	tick := ticks.New(time.Second)
	defer tick.Stop()
	limit := int(patience / time.Second)
	// Turns and not time: what is seen after this process itself stood still is old.
	for seen := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		addr, younger := gossip.Twin()
		if addr == "" || !younger {
			seen = 0
			continue
		}
		if seen++; seen > limit {
			return fmt.Errorf("node %s runs already, and gossips at %s: data directory %s is a copy of its own; start with an empty one", id.name, addr, id.dir.path)
		}
	}
}
