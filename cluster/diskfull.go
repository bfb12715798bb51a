package cluster

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
	"github.com/trimaran-io/trimaran/outcome"
)

// A full disk is a state, not an accident. Before the disk says so itself, the
// leader refuses records (outcome.ErrStorage, nothing was appended); what is left is
// for Raft's own writes, the catalog, and retention, which makes room. Reads and
// everything else go on. It ends when there is room again.
//
// A leader whose disk is full while others have room gives its leadership away (leaders.go).
//
// A leader with room whose followers have none could commit nothing, and what it
// took would fill their last bytes. So a node whose disk is full tells all others.

const (
	tellFullEvery = time.Second
	fullFor       = 5 * time.Second // what a node said of its disk holds for so long
)

// diskRoom is what this node knows of room on disks: its own and those of the others.
type diskRoom struct {
	full   func() bool     // of the disk here
	others func() []string // identities of the nodes that are to be told, those that are there
	tell   func(ctx context.Context, identity string, full bool) error
	hangs  atomic.Bool // an append here does not end

	mu    locks.Mutex[diskRoom] // guards what follows; nothing else is done under it
	until map[string]time.Time  // nodes whose disk is full, and until when that holds
}

func newDiskRoom(full func() bool, others func() []string, tell func(ctx context.Context, identity string, full bool) error) *diskRoom {
	return &diskRoom{full: full, others: others, tell: tell, until: map[string]time.Time{}}
}

// forRecords is nil if the leader here can take records of a group with the members that servers
// gives.
func (d *diskRoom) forRecords(servers func() ([]raft.Server, error)) error {
	if d.full() {
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
		if d.saysFull(string(s.ID)) {
			full++
		}
	}
	if voters-full <= voters/2 {
		return fmt.Errorf("%w: the disks of %d of %d replicas are full", outcome.ErrStorage, full, voters)
	}
	return nil
}

// run tells the other nodes, once a second, that this node's disk is full, and once that it is not
// any more. It returns when ctx has ended and nobody is told any more.
func (d *diskRoom) run(ctx context.Context) {
	tick := time.NewTicker(tellFullEvery)
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
		full := d.full()
		if !full && !told {
			continue
		}
		told = full
		others := d.others()
		telling.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, tellFullEvery)
			defer cancel()
			// Said again if it is lost: full every second, and its end by what is not said.
			calls.AskAll(ctx, others, func(ctx context.Context, identity string) (calls.Nothing, error) {
				return calls.Nothing{}, d.tell(ctx, identity, full)
			}, func(string, calls.Nothing, error) bool { return false })
		})
	}
}

// forget forgets what was said too long ago.
func (d *diskRoom) forget(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.until, func(_ string, until time.Time) bool { return now.After(until) })
}

// saysFull reports whether a node has said just now that its disk is full.
func (d *diskRoom) saysFull(identity string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Now().Before(d.until[identity])
}

// heard answers calls.Full.
func (d *diskRoom) heard(_ context.Context, from string, full bool) (calls.Nothing, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if full {
		d.until[from] = time.Now().Add(fullFor)
	} else {
		delete(d.until, from)
	}
	return calls.Nothing{}, nil
}

// fullDisks gives the node's diskRoom.
func (n *Node) fullDisks() *diskRoom {
	others := func() (identities []string) {
		for _, node := range n.Topics().Nodes() {
			if identity := node.Identity(); identity != n.identity && n.connected(identity) {
				identities = append(identities, identity)
			}
		}
		return identities
	}
	return newDiskRoom(n.logs.Full, others, func(ctx context.Context, identity string, full bool) error {
		_, err := calls.Full.Ask(ctx, n.caller, identity, full)
		return err
	})
}
