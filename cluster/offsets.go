package cluster

import (
	"context"
	"encoding/binary"

	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// This file is the way from a question for an offset, by time or by leader epoch, to the leader
// that answers it (lookup.go).

// OffsetForTime finds the first record whose timestamp is at or after timestamp
// (ms since epoch), for -3 the first of those with the largest timestamp. ok is
// false if there is none. ctx bounds the time that it takes.
func (n *Node) OffsetForTime(ctx context.Context, id fsm.PartitionID, timestamp int64) (offset fsm.Offset, at int64, epoch fsm.LeaderEpoch, ok bool, err error) {
	var found kafkaproto.TimestampedOffset
	err = n.atRecords(ctx, id, holdLeaderless, func(ctx context.Context, h hint, local *replica.Records) (err error) {
		if local != nil {
			found, ok, err = local.OffsetForTime(ctx, timestamp)
			return err
		}
		reply, err := n.ask(ctx, h.Identity, callOffsetForTime, binary.BigEndian.AppendUint64(appendPartition(nil, id), uint64(timestamp)))
		if err != nil {
			return err
		}
		if ok = len(reply) > 0; ok {
			r := reader{b: reply}
			found = kafkaproto.TimestampedOffset{Offset: int64(r.uint64()), Timestamp: int64(r.uint64()), LeaderEpoch: int32(r.uint32())}
			if r.bad {
				return fsm.ErrUnknown
			}
		}
		return nil
	})
	if err != nil || !ok {
		return -1, -1, -1, false, err
	}
	return fsm.Offset(found.Offset), found.Timestamp, fsm.LeaderEpoch(found.LeaderEpoch), true, nil
}

// EpochEnd gives the largest epoch at or below epoch that has records, and the
// offset at which the next one begins, or the log end (KIP-101, KIP-279). Where
// no epoch at or below has records, it gives the asked one and where the first
// one begins; for an epoch that is still to come -1 and -1.
func (n *Node) EpochEnd(ctx context.Context, id fsm.PartitionID, epoch fsm.LeaderEpoch) (found fsm.LeaderEpoch, end fsm.Offset, err error) {
	err = n.atRecords(ctx, id, holdLeaderless, func(ctx context.Context, h hint, local *replica.Records) (err error) {
		if local != nil {
			found, end, err = local.EpochEnd(ctx, epoch)
			return err
		}
		reply, err := n.ask(ctx, h.Identity, callEpochEnd, binary.BigEndian.AppendUint32(appendPartition(nil, id), uint32(epoch)))
		if err != nil {
			return err
		}
		r := reader{b: reply}
		if found, end = fsm.LeaderEpoch(r.uint32()), fsm.Offset(r.uint64()); r.bad {
			return fsm.ErrUnknown
		}
		return nil
	})
	if err != nil {
		return -1, -1, err
	}
	return found, end, nil
}

// LeaderEpoch gives the epoch of the leader that this node knows, -1 for none.
// newest is true where a replica here follows the leader and hears of the next
// one by itself; what is only remembered of other nodes may be long over.
func (n *Node) LeaderEpoch(id fsm.PartitionID) (epoch fsm.LeaderEpoch, newest bool) {
	if replica := n.replica(id); replica != nil {
		if h, _ := replica.Leader(); h.Identity != "" {
			return fsm.Term(h.Term).Epoch(), true
		}
		return -1, false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if h, ok := n.hints[id]; ok && h.Identity != "" && h.Term != 0 {
		return fsm.Term(h.Term).Epoch(), false
	}
	return -1, false
}

// answerOffsets answers other nodes' calls for what is in this file.
func answerOffsets(ctx context.Context, replica *replica.Records, kind uint8, r *reader) ([]byte, error) {
	switch kind {
	case callOffsetForTime:
		timestamp := int64(r.uint64())
		if r.bad {
			return nil, errMalformed
		}
		found, ok, err := replica.OffsetForTime(ctx, timestamp)
		if err != nil || !ok {
			return nil, err
		}
		out := binary.BigEndian.AppendUint64(nil, uint64(found.Offset))
		out = binary.BigEndian.AppendUint64(out, uint64(found.Timestamp))
		return binary.BigEndian.AppendUint32(out, uint32(found.LeaderEpoch)), nil
	default: // callEpochEnd
		epoch := fsm.LeaderEpoch(r.uint32())
		if r.bad {
			return nil, errMalformed
		}
		found, end, err := replica.EpochEnd(ctx, epoch)
		if err != nil {
			return nil, err
		}
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, uint32(found)), uint64(end)), nil
	}
}
