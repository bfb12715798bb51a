package cluster

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/cluster/calls"
)

// createShardsTimeout bounds how long the first request for a consumer group waits for the catalog.
const createShardsTimeout = 3 * time.Second

// answerCoordinate answers calls.Coordinate.
func (n *Node) answerCoordinate(ctx context.Context, _ string, q calls.CoordinateRequest) (kmsg.Response, error) {
	s := n.shard(q.Shard)
	if s == nil {
		return nil, errNotLeader{}
	}
	s.Settle(ctx)
	return s.Coordinate(ctx, q.Client, q.Request)
}

// answerEndOffsets answers calls.EndOffsets.
func (n *Node) answerEndOffsets(ctx context.Context, _ string, q calls.EndOffsetsRequest) (calls.Nothing, error) {
	s := n.shard(q.Shard)
	if s == nil {
		return calls.Nothing{}, errNotLeader{}
	}
	s.Settle(ctx)
	return calls.Nothing{}, s.EndOffsets(ctx, q.Group, q.Marker)
}

// answerHoldCommits answers calls.HoldCommits.
func (n *Node) answerHoldCommits(ctx context.Context, _ string, q calls.HoldCommitsRequest) (uint64, error) {
	s := n.shard(q.Shard)
	if s == nil {
		return 0, errNotLeader{}
	}
	s.Settle(ctx)
	return s.HoldCommits(ctx, q.Hold)
}
