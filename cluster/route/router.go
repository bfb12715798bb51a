package route

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/outcome"
)

// A partition that has a replica here is known by that replica; for others the last answer of its
// replicas is remembered and tried first.

const (
	// HoldLeaderless is how long a request waits for a partition that has no leader: one
	// producer's connection carries all partitions and is answered in order, so one leaderless
	// partition must not stall the rest for longer.
	HoldLeaderless = 1500 * time.Millisecond
	// RetryPause is the pause before a replica on another node is asked again who leads. Replicas
	// here tell without being asked.
	RetryPause = 25 * time.Millisecond
	// askWhoEvery is how often a group is asked about, askWhoTimeout how long that may take.
	askWhoEvery   = 100 * time.Millisecond
	askWhoTimeout = 300 * time.Millisecond
)

// Guide is a replica on this node that knows who leads.
type Guide interface {
	// Leader gives the leader, and a channel that is closed when that may have changed.
	Leader() (calls.Hint, <-chan struct{})
}

// Host is what this node has here.
type Host interface {
	// Topics is the catalog as this node knows it.
	Topics() *fsm.Topics
	// Guide gives the replica here that knows who leads a partition, nil if there is none: one
	// that hangs hears of nobody.
	Guide(id fsm.PartitionID) Guide
	// Broken says why a replica that should be here could not be opened; nil: it could, or there is
	// none.
	Broken(id fsm.PartitionID) error
	// Records gives the replica here of a partition's records, nil if there is none.
	Records(id fsm.PartitionID) Records
	// Coordinator gives the replica here of a shard of consumer groups, nil if there is none.
	Coordinator(id fsm.PartitionID) Coordinator
}

// Config says for whom a Router finds the way.
type Config struct {
	Self     string     // this node's identity
	NodeID   fsm.NodeID // and its name
	Host     Host
	Caller   calls.Caller
	Presence Presence
	Stopped  context.Context // ends when the node does
	// Unreadable is told, for the log, of a replica here that cannot read its records.
	Unreadable func(id fsm.PartitionID, from fsm.Offset, err error)
}

// Router finds who leads a partition. All methods are safe for concurrent use.
type Router struct {
	cfg Config

	lines, runs atomic.Uint64 // the last that were given out

	mu locks.Mutex[Router] // guards what follows; nothing else is done under it
	// leaders of partitions without a replica here, or that the replica does not reach
	hints    map[fsm.PartitionID]calls.Hint
	askedWho map[string]time.Time // when others may be asked again who leads a group
}

// New makes a Router that knows nothing yet.
func New(cfg Config) *Router {
	r := &Router{cfg: cfg, hints: map[fsm.PartitionID]calls.Hint{}, askedWho: map[string]time.Time{}}
	r.lines.Store(rand.Uint64()) // other nodes, and other processes of this one, have others
	return r
}

func (r *Router) hint(id fsm.PartitionID) (calls.Hint, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, ok := r.hints[id]
	return h, ok
}

// Opened is told that a replica of a partition is here now: it knows better than what was said.
func (r *Router) Opened(id fsm.PartitionID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.hints, id)
}

// Tidy forgets what was said of partitions that are not there any more.
func (r *Router) Tidy(topics *fsm.Topics) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.hints, func(id fsm.PartitionID, _ calls.Hint) bool {
		_, ok := topics.Partition(id)
		return !ok
	})
	now := time.Now()
	maps.DeleteFunc(r.askedWho, func(_ string, again time.Time) bool { return again.Before(now) })
}

// LeaderEpoch gives the epoch of the leader that this node knows, -1 for none. newest is true where
// a replica here, which may be a Guide that hangs, follows the leader and hears of the next one by
// itself; what is only remembered of other nodes may be long over.
func (r *Router) LeaderEpoch(id fsm.PartitionID, here Guide) (epoch fsm.LeaderEpoch, newest bool) {
	if here != nil {
		if h, _ := here.Leader(); h.Identity != "" {
			return fsm.Term(h.Term).Epoch(), true
		}
		return -1, false
	}
	if h, ok := r.hint(id); ok && h.Identity != "" && h.Term != 0 {
		return fsm.Term(h.Term).Epoch(), false
	}
	return -1, false
}

// leaderOf gives the node to try for a partition, and a channel that is closed when a replica
// here learns of another leader (nil without a replica here).
func (r *Router) leaderOf(id fsm.PartitionID, attempt int) (calls.Hint, <-chan struct{}, error) {
	topics := r.cfg.Host.Topics()
	partition, ok := topics.Partition(id)
	if !ok {
		return calls.Hint{}, nil, outcome.ErrUnknownTopicOrPartition
	}
	told, ok := r.hint(id)
	broken := r.cfg.Host.Broken(id)
	if guide := r.cfg.Host.Guide(id); guide != nil {
		h, changed := guide.Leader()
		members := identitiesOf(topics, partition.Holders())
		if !r.Severed(h.Identity, members) {
			return h, changed, nil
		}
		if !ok {
			if told, ok = r.AskWho(id.String(), members); !ok {
				return h, changed, nil
			}
			r.mu.Lock()
			r.hints[id] = told
			r.mu.Unlock()
		}
		return told, changed, nil
	}
	if ok {
		return told, nil, nil
	}
	// This node has none that runs.
	holders := slices.DeleteFunc(slices.Clone(partition.Holders()), func(holder fsm.NodeID) bool { return holder == r.cfg.NodeID })
	if len(holders) == 0 {
		if broken != nil {
			return calls.Hint{}, nil, fmt.Errorf("%w: the only replica is out of service: %w", outcome.ErrStorage, broken)
		}
		return calls.Hint{}, nil, nil
	}
	// Nothing known: any replica answers with a hint.
	node, ok := topics.Node(holders[attempt%len(holders)])
	if !ok {
		return calls.Hint{}, nil, nil
	}
	return calls.Hint{Identity: node.Identity()}, nil, nil
}

func identitiesOf(topics *fsm.Topics, ids []fsm.NodeID) (out []string) {
	for _, id := range ids {
		if node, ok := topics.Node(id); ok {
			out = append(out, node.Identity())
		}
	}
	return out
}

// learn keeps or forgets what a node that was asked said of the leader.
func (r *Router) learn(id fsm.PartitionID, asked calls.Hint, err error) {
	guided := r.cfg.Host.Guide(id) != nil
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, told := r.hints[id]; guided && !told {
		return // the replica here knows
	}
	var notLeader calls.NotLeader
	switch {
	case err == nil:
		r.hints[id] = asked
	case errors.As(err, &notLeader) && notLeader.Hint.Identity != "":
		r.hints[id] = notLeader.Hint
	default:
		delete(r.hints, id)
	}
}

// AtLeader runs try at the partition's leader, again as long as the answer says that nothing
// happened, until hold has passed or ctx ends. here says that the leader is this node, whose
// replica may be gone by then: try says outcome.ErrNoLeader if it is. hold 0 tries what is known
// and what the first answer points to, and does not wait.
func (r *Router) AtLeader(ctx context.Context, id fsm.PartitionID, hold time.Duration, try func(ctx context.Context, h calls.Hint, here bool) error) error {
	deadline := time.Now().Add(hold)
	pause := time.NewTimer(hold)
	defer pause.Stop()
	var last error
	for attempt := 0; ; attempt++ {
		h, changed, err := r.leaderOf(id, attempt)
		if err != nil {
			return err
		}
		if h.Identity != "" {
			here := h.Identity == r.cfg.Self
			err := try(ctx, h, here)
			r.learn(id, h, err)
			if err == nil || !outcome.NotAppended(err) || errors.Is(err, outcome.ErrShuttingDown) && here {
				return err
			}
			last = err
			var notLeader calls.NotLeader
			if errors.As(err, &notLeader) && notLeader.Hint.Identity != "" && notLeader.Hint != h && attempt == 0 {
				continue // it knows better; once without a pause
			}
		}
		if hold == 0 && attempt < 1 && changed == nil {
			continue // a stale hint was forgotten: ask one replica
		}
		if ctx.Err() != nil || hold == 0 || !time.Now().Before(deadline) {
			if last == nil {
				return outcome.ErrNoLeader
			}
			return fmt.Errorf("%w: %w", outcome.ErrNoLeader, last)
		}
		// Another node may have a leader to tell of before this one hears of it.
		pause.Reset(min(RetryPause, time.Until(deadline)))
		select {
		case <-changed:
		case <-pause.C:
		case <-ctx.Done():
		case <-r.cfg.Stopped.Done():
			return outcome.ErrShuttingDown
		}
	}
}

// Severed says whether other members of a group may know of a leader that its member here cannot
// hear of, and can be asked: what the member knows, "" for none, tells no more.
func (r *Router) Severed(leader string, members []string) bool {
	return leader != r.cfg.Self && r.cfg.Host.Topics().FeatureLevel() >= RelayFeatureLevel && r.cfg.Presence.Severed(leader, members)
}

// AskWho asks the members of a group that are reached who leads it. A group is asked about by one
// request at a time; the others come back.
func (r *Router) AskWho(group string, members []string) (calls.Hint, bool) {
	now := time.Now()
	r.mu.Lock()
	if now.Before(r.askedWho[group]) {
		r.mu.Unlock()
		return calls.Hint{}, false
	}
	r.askedWho[group] = now.Add(askWhoTimeout + askWhoEvery)
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.askedWho[group] = time.Now().Add(askWhoEvery)
	}()
	ctx, cancel := context.WithTimeout(r.cfg.Stopped, askWhoTimeout)
	defer cancel()
	for _, identity := range members {
		if identity == r.cfg.Self || !r.cfg.Presence.Reached(identity) {
			continue
		}
		_, err := calls.Who.Ask(ctx, r.cfg.Caller, identity, group)
		var who calls.NotLeader
		if errors.As(err, &who) && who.Hint.Identity != "" && who.Hint.Identity != r.cfg.Self {
			return who.Hint, true
		}
	}
	return calls.Hint{}, false
}
