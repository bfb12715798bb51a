// Package diskroom is what a node knows of room on disks: its own and those of the others.
//
// You are here: below the node, which says whether its disk is full and takes what is told to the
// other nodes; above the table of calls (cluster/calls). Replicas ask whether records can be taken
// (ForRecords), who gives leaderships away asks which nodes have no room (SaysFull). It reads no
// disk and gives no leadership away.
//
// Lock order: Room.mu is the only one, and nothing is called while it is held.
package diskroom

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/internal/ticks"
	"github.com/trimaran-io/trimaran/outcome"
)

// A full disk is a state, not an accident. Before the disk says so itself, the
// leader refuses records (outcome.ErrStorage, nothing was appended); what is left is
// for Raft's own writes, the catalog, and retention, which makes room. Reads and
// everything else go on. It ends when there is room again.
//
// A leader whose disk is full while others have room gives its leadership away (package leading).
//
// A leader with room whose followers have none could commit nothing, and what it
// took would fill their last bytes. So a node whose disk is full tells all others.

const (
	tellFullEvery = time.Second
	fullFor       = 5 * time.Second // what a node said of its disk holds for so long
)

// Config is what a Room asks and tells. The functions are called from many goroutines.
type Config struct {
	// Full reports whether the disk here is full.
	Full func() bool
	// Others gives the identities of the nodes that are to be told, those that are there.
	Others func() []string
	// Tell tells a node whether the disk here is full. It ends with ctx.
	Tell func(ctx context.Context, identity string, full bool) error
}

// Room answers whether there is room. All methods are safe for concurrent use.
type Room struct {
	cfg   Config
	hangs atomic.Bool // an append here does not end

	mu    locks.Mutex[Room]    // guards what follows; nothing else is done under it
	until map[string]time.Time // nodes whose disk is full, and until when that holds
}

// New makes a Room that has Heard of no full disk. Run tells the others.
func New(cfg Config) *Room {
	return &Room{cfg: cfg, until: map[string]time.Time{}}
}

// SetHangs says whether an append here does not end.
func (d *Room) SetHangs(hangs bool) { d.hangs.Store(hangs) }

// Hangs reports what SetHangs said last.
func (d *Room) Hangs() bool { return d.hangs.Load() }

// ForRecords is nil if the leader here can take records of a group with the members that servers
// gives.
func (d *Room) ForRecords(servers func() ([]raft.Server, error)) error {
	if d.cfg.Full() {
		return fmt.Errorf("%w: the disk of the leader is full", outcome.ErrStorage)
	}
	d.mu.Lock()
	some := len(d.until) > 0
	d.mu.Unlock()
	if !some {
		return nil
	}
	members, err := servers()
	if err != nil {
		return nil
	}
	voters, full := 0, 0
	for _, s := range members {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if d.SaysFull(string(s.ID)) {
			full++
		}
	}
	if voters-full <= voters/2 {
		return fmt.Errorf("%w: the disks of %d of %d replicas are full", outcome.ErrStorage, full, voters)
	}
	return nil
}

// Run tells the other nodes, once a second, that this node's disk is full, and once that it is not
// any more. It returns when ctx has ended and nobody is told any more.
func (d *Room) Run(ctx context.Context) {
	tick := ticks.New(tellFullEvery)
	defer tick.Stop()
	var telling sync.WaitGroup
	defer telling.Wait()
	told := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		d.forget(time.Now())
		full := d.cfg.Full()
		if !full && !told {
			continue
		}
		told = full
		others := d.cfg.Others()
		telling.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, tellFullEvery)
			defer cancel()
			// Said again if it is lost: full every second, and its end by what is not said.
			calls.AskAll(ctx, others, func(ctx context.Context, identity string) (calls.Nothing, error) {
				return calls.Nothing{}, d.cfg.Tell(ctx, identity, full)
			}, func(string, calls.Nothing, error) bool { return false })
		})
	}
}

// forget forgets what was said too long ago.
func (d *Room) forget(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.until, func(_ string, until time.Time) bool { return now.After(until) })
}

// SaysFull reports whether another node has said within the last 5 s that its disk is full.
func (d *Room) SaysFull(identity string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Now().Before(d.until[identity])
}

// Heard answers calls.Full: the node from says whether its disk is full.
func (d *Room) Heard(_ context.Context, from string, full bool) (calls.Nothing, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if full {
		d.until[from] = time.Now().Add(fullFor)
	} else {
		delete(d.until, from)
	}
	return calls.Nothing{}, nil
}
