package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/route"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
)

// The shards of consumer groups are created when a client first uses a group.

// createShardsTimeout bounds how long the first request for a consumer group waits for the catalog.
const createShardsTimeout = 3 * time.Second

func shardID(index int) fsm.PartitionID { return route.ShardID(index) }

// answerCoordinate answers calls.Coordinate.
func (n *Node) answerCoordinate(ctx context.Context, _ string, q calls.CoordinateRequest) (kmsg.Response, error) {
	s := n.shard(q.Shard)
	if s == nil {
		return nil, errNotLeader{}
	}
	s.Settle(ctx)
	return s.Coordinate(ctx, q.Client, q.Request)
}

// createGroupShards returns when the catalog here has the shards of consumer groups.
func (n *Node) createGroupShards(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, createShardsTimeout)
	defer cancel()
	return n.catalog.change(ctx, calls.CreateShards.Kind, nil, func(ctx context.Context) ([]byte, error) {
		return n.createGroupShardsAsLeader(ctx)
	})
}

// createGroupShardsAsLeader places and creates the shards.
func (n *Node) createGroupShardsAsLeader(ctx context.Context) ([]byte, error) {
	c := n.catalog
	if err := c.placing(ctx); err != nil {
		return nil, err
	}
	defer c.placed()
	if _, err := c.indexAsLeader(ctx); err != nil {
		return nil, err
	}
	view := c.view.Load()
	if view.ClusterID() == "" {
		return nil, fmt.Errorf("%w: the cluster is being formed", fsm.ErrNoLeader)
	}
	if _, ok := view.GroupShards(); ok {
		return json.Marshal(catalogReply{Index: view.Version()})
	}
	// Clients ask again, also while a node's program is too old.
	if err := view.CheckLevel(&fsm.CatalogCommand{CreateGroupShards: &fsm.CreateGroupShards{}}); err != nil {
		return nil, fmt.Errorf("%w: %w", fsm.ErrNoLeader, err)
	}
	create := &fsm.CreateGroupShards{ReplicationFactor: min(max(int(n.cfg.DefaultReplicationFactor), 3), len(view.Nodes()))}
	assignment, err := n.place(view, coordinator.Shards, create.ReplicationFactor, fsm.GroupShardsID)
	if err != nil {
		return nil, err
	}
	for _, replicas := range assignment {
		create.Partitions = append(create.Partitions, fsm.Partition{Replicas: replicas, Bootstrap: replicas})
	}
	n.logger.Info("the shards of consumer groups are created", "shards", coordinator.Shards, "replicas", create.ReplicationFactor)
	return c.applyAsLeader(ctx, fsm.CatalogCommand{CreateGroupShards: create}.Encode())
}
