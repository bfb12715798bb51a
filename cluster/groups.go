package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/semaphore"

	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
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

// Coordinate hands a request to the coordinator of a shard (coordinator.ShardOf),
// wherever it is, and returns its response. Both have the version that
// coordinator.Version names. The first request creates the shards. JoinGroup and
// SyncGroup wait there as long as ctx allows.
//
// The error says that there is no answer. If fsm.NotAppended(err), surely nothing
// was done: there is no leader, or it went. Else it may have been, for instance
// because the connection to the leader's node broke.
func (n *Node) Coordinate(ctx context.Context, index int, client coordinator.Client, req kmsg.Request) (kmsg.Response, error) {
	id, hold := shardID(index), holdLeaderless
	if _, ok := n.Topics().Partition(id); !ok {
		if index < 0 || index >= coordinator.Shards {
			return nil, fmt.Errorf("%w: shard %d of %d", fsm.ErrUnknown, index, coordinator.Shards)
		}
		if err := n.createGroupShards(ctx); err != nil {
			return nil, err
		}
		hold = firstShardsHold
	}
	var resp kmsg.Response
	err := n.atLeader(ctx, id, hold, func(ctx context.Context, h hint, local *replica.Replica) (err error) {
		if local != nil {
			resp, err = local.Shard().Coordinate(ctx, client, req)
			return err
		}
		resp, err = n.forwardCoordinate(ctx, h.Identity, id, client, req)
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
		return nil, fmt.Errorf("%w: too many requests of consumer groups wait at other nodes", fsm.ErrNoLeader)
	}
	defer n.forwarded.Release(cost)
	call := n.call
	if replica.Repeatable(req) {
		call = n.ask
	}
	reply, err := call(ctx, identity, callCoordinate, payload)
	if err != nil {
		return nil, err
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if err := resp.ReadFrom(reply); err != nil {
		return nil, fmt.Errorf("%w: malformed answer of another node: %w", fsm.ErrUnknownFate, err)
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
	s.Settle(ctx)
	resp, err := s.Coordinate(ctx, client, req)
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
		return nil, fmt.Errorf("%w: a client's id of %d bytes", fsm.ErrUnknown, len(client.ID))
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
		return id, client, nil, fmt.Errorf("%w: a request %d of version %d for a consumer group is not known here", fsm.ErrUnknown, key, version)
	}
	req = kmsg.RequestForKey(key)
	req.SetVersion(version)
	// What the coordinator keeps must not hold the whole message, nor change with it.
	if err := req.ReadFrom(bytes.Clone(r.b)); err != nil {
		return id, client, nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return id, client, req, nil
}
