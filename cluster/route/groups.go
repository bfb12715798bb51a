package route

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/semaphore"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// The way from a request of a consumer group, or of a transactional id, to its coordinator, which
// runs where its shard is led. Requests and responses are those of Kafka, of which this package
// looks at nothing but their kind.

const (
	// firstShardsHold is how long the first request for a consumer group waits for the leaders
	// of the new shards.
	firstShardsHold = 5 * time.Second

	// maxForwarded bounds what requests of groups that wait at other nodes hold there, in bytes
	// and forwardedOverhead each: a JoinGroup may take minutes, and records share the way. It is
	// half of what the peer link allows for one node.
	maxForwarded      = 64 << 20
	forwardedOverhead = 8 << 10
)

// Coordinator is a replica on this node of a shard of consumer groups. Where it does not lead the
// error is calls.NotLeader.
type Coordinator interface {
	// Coordinate hands a request to the coordinator here.
	Coordinate(ctx context.Context, client coordinator.Client, req kmsg.Request) (kmsg.Response, error)
	// EndOffsets ends a transaction in the offsets of a group.
	EndOffsets(ctx context.Context, group string, m fsm.Marker) error
	// HoldCommits begins to hold commits of transactions, if hold is 0, and else lets go of one.
	HoldCommits(ctx context.Context, hold uint64) (uint64, error)
}

// Groups finds the coordinators of consumer groups.
type Groups struct {
	router *Router
	// create returns when the catalog here has the shards.
	create    func(ctx context.Context) error
	forwarded *semaphore.Weighted // requests that wait at other nodes
}

// NewGroups gives the way to coordinators; create has the catalog create the shards.
func NewGroups(r *Router, create func(ctx context.Context) error) *Groups {
	return &Groups{router: r, create: create, forwarded: semaphore.NewWeighted(maxForwarded)}
}

// ShardID is how the catalog calls a shard of consumer groups.
func ShardID(index int) fsm.PartitionID {
	return fsm.PartitionID{Topic: fsm.GroupShardsID, Partition: int32(index)}
}

// Coordinate hands a request to the coordinator of a shard (coordinator.ShardOf), wherever it is,
// and returns its response. Both have the version that calls.CoordinatedVersion names. The first
// request creates the shards. JoinGroup and SyncGroup wait there as long as ctx allows.
//
// The error says that there is no answer. If outcome.NotAppended(err), surely nothing was done:
// there is no leader, or it went. Else it may have been, for instance because the connection to the
// leader's node broke.
func (g *Groups) Coordinate(ctx context.Context, index int, client coordinator.Client, req kmsg.Request) (resp kmsg.Response, err error) {
	id, hold := ShardID(index), HoldLeaderless
	host := g.router.cfg.Host
	if _, ok := host.Topics().Partition(id); !ok {
		if index < 0 || index >= coordinator.Shards {
			return nil, fmt.Errorf("%w: shard %d of %d", outcome.ErrUnknown, index, coordinator.Shards)
		}
		if err := g.create(ctx); err != nil {
			return nil, err
		}
		hold = firstShardsHold
	}
	err = g.router.AtLeader(ctx, id, hold, func(ctx context.Context, h calls.Hint, here bool) (err error) {
		if !here {
			resp, err = g.forward(ctx, h.Identity, calls.CoordinateRequest{Shard: id, Client: client, Request: req})
			return err
		}
		local := host.Coordinator(id)
		if local == nil {
			return outcome.ErrNoLeader // closed this moment, or another node is mistaken
		}
		resp, err = local.Coordinate(ctx, client, req)
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// forward hands a request to another node.
func (g *Groups) forward(ctx context.Context, identity string, q calls.CoordinateRequest) (kmsg.Response, error) {
	payload, err := calls.Coordinate.Payload(q)
	if err != nil {
		return nil, err
	}
	cost := min(int64(len(payload))+forwardedOverhead, maxForwarded)
	if !g.forwarded.TryAcquire(cost) {
		return nil, fmt.Errorf("%w: too many requests of consumer groups wait at other nodes", outcome.ErrNoLeader)
	}
	defer g.forwarded.Release(cost)
	return calls.Coordinate.AskWith(ctx, g.router.cfg.Caller, identity, q, payload)
}

// EndOffsets ends a transaction in the offsets of a group, at the leader of its shard. If it
// returns nil that is committed there; after any error it may be asked again.
func (g *Groups) EndOffsets(ctx context.Context, group string, m fsm.Marker) error {
	id := ShardID(coordinator.ShardOf(group))
	return g.router.AtLeader(ctx, id, HoldLeaderless, func(ctx context.Context, h calls.Hint, here bool) error {
		if !here {
			_, err := calls.EndOffsets.Ask(ctx, g.router.cfg.Caller, h.Identity, calls.EndOffsetsRequest{Shard: id, Group: group, Marker: m})
			return err
		}
		local := g.router.cfg.Host.Coordinator(id)
		if local == nil {
			return outcome.ErrNoLeader // closed this moment, or another node is mistaken
		}
		return local.EndOffsets(ctx, group, m)
	})
}

// HoldCommits has the leader of a shard hold commits of transactions, and gives the hold. Or, if
// that is not 0, it has it let go, and gives it back if it stood all along, else 0.
func (g *Groups) HoldCommits(ctx context.Context, index int, hold uint64) (held uint64, err error) {
	id := ShardID(index)
	err = g.router.AtLeader(ctx, id, HoldLeaderless, func(ctx context.Context, h calls.Hint, here bool) (err error) {
		if !here {
			held, err = calls.HoldCommits.Ask(ctx, g.router.cfg.Caller, h.Identity, calls.HoldCommitsRequest{Shard: id, Hold: hold})
			return err
		}
		local := g.router.cfg.Host.Coordinator(id)
		if local == nil {
			return outcome.ErrNoLeader // closed this moment, or another node is mistaken
		}
		held, err = local.HoldCommits(ctx, hold)
		return err
	})
	return held, err
}
