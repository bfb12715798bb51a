package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/semaphore"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// This file is the way from a consumer group's request to its coordinator, which
// runs where its shard is led. Requests and responses are those of Kafka, of which
// this package looks at nothing but their kind.

const (
	// createShardsTimeout bounds how long the first request for a consumer group
	// waits for the catalog, and firstShardsHold how long for the new shards' leaders.
	createShardsTimeout = 3 * time.Second
	firstShardsHold     = 5 * time.Second

	// maxForwarded bounds what requests of groups that wait at other nodes hold there,
	// in bytes and forwardedOverhead each: a JoinGroup may take minutes, and records
	// share the way. It is half of what the peer link allows for one node.
	maxForwarded      = 64 << 20
	forwardedOverhead = 8 << 10
)

func newForwarded() *semaphore.Weighted { return semaphore.NewWeighted(maxForwarded) }

func shardID(index int) fsm.PartitionID {
	return fsm.PartitionID{Topic: fsm.GroupShardsID, Partition: int32(index)}
}

// repeatable reports whether it does no harm that a request is handled twice, by two
// coordinators: it changes nothing, or nothing that is replicated.
func repeatable(req kmsg.Request) bool {
	switch kmsg.Key(req.Key()) {
	case kmsg.OffsetFetch, kmsg.Heartbeat, kmsg.DescribeGroups, kmsg.ListGroups:
		return true
	}
	return false
}

// committed reports whether a request asks for what is replicated.
func committed(req kmsg.Request) bool {
	switch kmsg.Key(req.Key()) {
	case kmsg.OffsetFetch, kmsg.DescribeGroups, kmsg.ListGroups:
		return true
	}
	return false
}

// Coordinate hands a request to the coordinator of a shard (coordinator.ShardOf),
// wherever it is, and returns its response. Both have the version that
// coordinator.Version names. The first request creates the shards. JoinGroup and
// SyncGroup wait there as long as ctx allows.
//
// The error says that there is no answer. If outcome.NotAppended(err), surely nothing
// was done: there is no leader, or it went. Else it may have been, for instance
// because the connection to the leader's node broke.
func (n *Node) Coordinate(ctx context.Context, index int, client coordinator.Client, req kmsg.Request) (kmsg.Response, error) {
	id, hold := shardID(index), holdLeaderless
	if _, ok := n.Topics().Partition(id); !ok {
		if index < 0 || index >= coordinator.Shards {
			return nil, fmt.Errorf("%w: shard %d of %d", outcome.ErrUnknown, index, coordinator.Shards)
		}
		if err := n.createGroupShards(ctx); err != nil {
			return nil, err
		}
		hold = firstShardsHold
	}
	var resp kmsg.Response
	err := n.atLeader(ctx, id, hold, func(ctx context.Context, h hint, local *replica) (err error) {
		if local != nil {
			resp, err = local.machine.(*shard).coordinate(ctx, client, req)
			return err
		}
		resp, err = n.forwardCoordinate(ctx, h.identity, id, client, req)
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// forwardCoordinate hands a request to another node.
func (n *Node) forwardCoordinate(ctx context.Context, identity string, id fsm.PartitionID, client coordinator.Client, req kmsg.Request) (kmsg.Response, error) {
	payload, err := encodeCoordinate(id, client, req)
	if err != nil {
		return nil, err
	}
	cost := min(int64(len(payload))+forwardedOverhead, maxForwarded)
	if !n.forwarded.TryAcquire(cost) {
		return nil, fmt.Errorf("%w: too many requests of consumer groups wait at other nodes", outcome.ErrNoLeader)
	}
	defer n.forwarded.Release(cost)
	call := n.call
	if repeatable(req) {
		call = n.ask
	}
	reply, err := call(ctx, identity, callCoordinate, payload)
	if err != nil {
		return nil, err
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if err := resp.ReadFrom(reply); err != nil {
		return nil, fmt.Errorf("%w: malformed answer of another node: %w", outcome.ErrUnknownFate, err)
	}
	return resp, nil
}

// answerCoordinate answers callCoordinate.
func (n *Node) answerCoordinate(ctx context.Context, payload []byte) ([]byte, error) {
	id, client, req, err := decodeCoordinate(payload)
	if err != nil {
		return nil, err
	}
	s := n.shard(id)
	if s == nil {
		return nil, errNotLeader{}
	}
	s.settle(ctx)
	resp, err := s.coordinate(ctx, client, req)
	if err != nil {
		return nil, err
	}
	return resp.AppendTo(nil), nil
}

// The payload of callCoordinate is the shard's partition, u16 key and version of the
// request, u16 version that the client spoke, id and host of the client (u16 length,
// bytes), and the request's body in Kafka's encoding.

func encodeCoordinate(id fsm.PartitionID, client coordinator.Client, req kmsg.Request) ([]byte, error) {
	if len(client.ID) > math.MaxUint16 || len(client.Host) > math.MaxUint16 {
		return nil, fmt.Errorf("%w: a client's id of %d bytes", outcome.ErrUnknown, len(client.ID))
	}
	out := appendPartition(nil, id)
	out = binary.BigEndian.AppendUint16(out, uint16(req.Key()))
	out = binary.BigEndian.AppendUint16(out, uint16(req.GetVersion()))
	out = binary.BigEndian.AppendUint16(out, uint16(client.Version))
	for _, s := range []string{client.ID, client.Host} {
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(s))), s...)
	}
	return req.AppendTo(out), nil
}

func decodeCoordinate(payload []byte) (id fsm.PartitionID, client coordinator.Client, req kmsg.Request, err error) {
	r := reader{b: payload}
	id = r.partition()
	key, version := int16(r.uint16()), int16(r.uint16())
	client.Version = int16(r.uint16())
	client.ID = string(r.bytes(int(r.uint16())))
	client.Host = string(r.bytes(int(r.uint16())))
	if r.bad || id.Topic != fsm.GroupShardsID {
		return id, client, nil, errMalformed
	}
	// Both nodes must mean the same by a field.
	if known, ok := coordinator.Version(key); !ok || known != version {
		return id, client, nil, fmt.Errorf("%w: a request %d of version %d for a consumer group is not known here", outcome.ErrUnknown, key, version)
	}
	req = kmsg.RequestForKey(key)
	req.SetVersion(version)
	// What the coordinator keeps must not hold the whole message, nor change with it.
	if err := req.ReadFrom(bytes.Clone(r.b)); err != nil {
		return id, client, nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return id, client, req, nil
}

// createGroupShards returns when the catalog here has the shards of consumer groups.
func (n *Node) createGroupShards(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, createShardsTimeout)
	defer cancel()
	return n.catalog.change(ctx, callCreateShards, nil, func(ctx context.Context) ([]byte, error) {
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
		return nil, fmt.Errorf("%w: the cluster is being formed", outcome.ErrNoLeader)
	}
	if _, ok := view.GroupShards(); ok {
		return json.Marshal(catalogReply{Index: view.Version()})
	}
	// Clients ask again, also while a node's program is too old.
	if err := view.CheckLevel(&fsm.CatalogCommand{CreateGroupShards: &fsm.CreateGroupShards{}}); err != nil {
		return nil, fmt.Errorf("%w: %w", outcome.ErrNoLeader, err)
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
