package cluster

import (
	"context"
	"fmt"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// answers gives the functions that answer the calls of other nodes.
func (n *Node) answers() *calls.Server {
	s := &calls.Server{Open: func(row calls.Row) bool {
		// The catalog's group elects before this node is in a cluster.
		return n.isWired() && (row.Early || n.ClusterID() != "")
	}}
	n.answerRecords(s)
	n.answerReplicas(s)
	n.catalog.Answers(s)
	n.answerFormation(s)
	calls.Handle(s, calls.Survey, n.failover.Answer)
	calls.Handle(s, calls.Stand, n.failover.Told)
	calls.Handle(s, calls.Full, n.room.Heard)
	calls.Handle(s, calls.ReplicaStatus, func(context.Context, string, calls.Nothing) (calls.NodeReport, error) {
		return n.overview.Report(), nil
	})
	calls.Handle(s, calls.Relay, func(ctx context.Context, from string, q calls.RelayRequest) ([]byte, error) {
		return n.caller.Relay(ctx, from, q)
	})
	calls.Handle(s, calls.Who, func(ctx context.Context, _ string, group string) (calls.Nothing, error) {
		return calls.Nothing{}, n.answerWho(ctx, group)
	})
	calls.Handle(s, calls.Twin, n.answerTwin)
	return s
}

// onRecords answers a call at this node's replica of a partition, which waits for a barrier that is
// under way.
func onRecords[Q, A any](n *Node, s *calls.Server, c *calls.Call[Q, A], partition func(Q) fsm.PartitionID, answer func(ctx context.Context, r *replica.Records, q Q) (A, error)) {
	calls.Handle(s, c, func(ctx context.Context, _ string, q Q) (a A, err error) {
		r := n.records(partition(q))
		if r == nil {
			return a, errNotLeader{}
		}
		r.Settle(ctx)
		return answer(ctx, r, q)
	})
}

// appendInLine is Records.AppendInLine of an append that says which leadership it means: one that
// was long on its way could come behind what was sent later in another.
func (n *Node) appendInLine(ctx context.Context, r *replica.Records, q calls.AppendInLineRequest, txn fsm.Transaction) ([]fsm.Appended, error) {
	if q.Term == 0 {
		p, err := r.Leads()
		if err == nil {
			err = errNotLeader{Hint: hint{Identity: n.identity, Term: uint64(p.InTerm())}}
		}
		return nil, err
	}
	return r.AppendInLine(ctx, q.Term, q.Place, txn, q.Batches)
}

// transactional says whether a batch is part of a transaction, or a marker.
func transactional(batches []byte) bool {
	for batch, err := range kafkaproto.Batches(batches) {
		if err == nil && batch.Header().Transactional() {
			return true
		}
	}
	return false
}

// answerRecords answers what is asked of the leader of a partition or a shard.
func (n *Node) answerRecords(s *calls.Server) {
	onRecords(n, s, calls.Append, func(q calls.AppendRequest) fsm.PartitionID { return q.Partition },
		func(ctx context.Context, r *replica.Records, q calls.AppendRequest) ([]fsm.Appended, error) {
			return r.Append(ctx, q.Term, q.Batches)
		})
	onRecords(n, s, calls.AppendInLine, func(q calls.AppendInLineRequest) fsm.PartitionID { return q.Partition },
		func(ctx context.Context, r *replica.Records, q calls.AppendInLineRequest) ([]fsm.Appended, error) {
			return n.appendInLine(ctx, r, q, fsm.Transaction{})
		})
	onRecords(n, s, calls.AppendTransactional, func(q calls.AppendTransactionalRequest) fsm.PartitionID { return q.Partition },
		func(ctx context.Context, r *replica.Records, q calls.AppendTransactionalRequest) ([]fsm.Appended, error) {
			return n.appendInLine(ctx, r, q.AppendInLineRequest, q.Transaction)
		})
	onRecords(n, s, calls.WriteMarkers, func(q calls.WriteMarkersRequest) fsm.PartitionID { return q.Partition },
		func(ctx context.Context, r *replica.Records, q calls.WriteMarkersRequest) ([]outcome.Error, error) {
			return r.WriteMarkers(ctx, q.Term, q.Markers)
		})
	onRecords(n, s, calls.Read, func(q calls.ReadRequest) fsm.PartitionID { return q.Partition },
		func(ctx context.Context, r *replica.Records, q calls.ReadRequest) (fsm.Slice, error) {
			slice, err := r.ReadAsLeader(ctx, q.From, int(q.MaxBytes), fsm.ReadUncommitted)
			if err == nil && transactional(slice.Batches) {
				// Who asks so has not heard of the level at which there are transactions, and may
				// ask for a reader of committed records: it is to ask again when it has.
				if slice.Done != nil {
					slice.Done()
				}
				return fsm.Slice{}, fmt.Errorf("%w: records of transactions for a node that knows of none yet", outcome.ErrNoLeader)
			}
			return slice, err
		})
	onRecords(n, s, calls.ReadStable, func(q calls.ReadStableRequest) fsm.PartitionID { return q.Partition },
		func(ctx context.Context, r *replica.Records, q calls.ReadStableRequest) (fsm.Slice, error) {
			return r.ReadAsLeader(ctx, q.From, int(q.MaxBytes), q.Isolation)
		})
	onRecords(n, s, calls.Await, func(q calls.AwaitRequest) fsm.PartitionID { return q.Partition },
		func(ctx context.Context, r *replica.Records, q calls.AwaitRequest) (calls.Nothing, error) {
			return calls.Nothing{}, r.AwaitAsLeader(ctx, q.From, fsm.ReadUncommitted)
		})
	onRecords(n, s, calls.AwaitStable, func(q calls.AwaitRequest) fsm.PartitionID { return q.Partition },
		func(ctx context.Context, r *replica.Records, q calls.AwaitRequest) (calls.Nothing, error) {
			return calls.Nothing{}, r.AwaitAsLeader(ctx, q.From, fsm.ReadCommitted)
		})
	onRecords(n, s, calls.LastStable, func(id fsm.PartitionID) fsm.PartitionID { return id },
		func(ctx context.Context, r *replica.Records, _ fsm.PartitionID) (fsm.Offset, error) {
			return r.LastStable(ctx)
		})
	onRecords(n, s, calls.ListOffsets, func(q calls.ListOffsetsRequest) fsm.PartitionID { return q.Partition },
		func(ctx context.Context, r *replica.Records, q calls.ListOffsetsRequest) ([]fsm.Offset, error) {
			return r.OffsetsBefore(ctx, q.Time, int(q.Max))
		})
	onRecords(n, s, calls.Leader, func(id fsm.PartitionID) fsm.PartitionID { return id },
		func(ctx context.Context, r *replica.Records, _ fsm.PartitionID) (calls.Nothing, error) {
			return calls.Nothing{}, tellLeader(ctx, r)
		})
	onRecords(n, s, calls.OffsetForTime, func(q calls.OffsetForTimeRequest) fsm.PartitionID { return q.Partition },
		func(ctx context.Context, r *replica.Records, q calls.OffsetForTimeRequest) (a calls.OffsetForTimeReply, err error) {
			a.TimestampedOffset, a.Found, err = r.OffsetForTime(ctx, q.Time)
			return a, err
		})
	onRecords(n, s, calls.EpochEnd, func(q calls.EpochEndRequest) fsm.PartitionID { return q.Partition },
		func(ctx context.Context, r *replica.Records, q calls.EpochEndRequest) (a calls.EpochEndReply, err error) {
			a.Epoch, a.End, err = r.EpochEnd(ctx, q.Epoch)
			return a, err
		})
	calls.Handle(s, calls.DeleteRecords, func(ctx context.Context, _ string, q calls.DeleteRecordsRequest) (fsm.Offset, error) {
		r := n.records(q.Partition)
		if r == nil {
			return -1, errNotLeader{}
		}
		return r.DeleteRecords(ctx, q.Before)
	})
	calls.Handle(s, calls.Producers, func(ctx context.Context, _ string, id fsm.PartitionID) ([]fsm.ActiveProducer, error) {
		r := n.records(id)
		if r == nil {
			return nil, errNotLeader{}
		}
		return r.ActiveProducers(ctx)
	})
	onRecords(n, s, calls.Restore, func(q calls.RestoreRequest) fsm.PartitionID { return q.Partition },
		func(ctx context.Context, r *replica.Records, q calls.RestoreRequest) (fsm.Offset, error) {
			return r.RestoreBatches(ctx, q.Batches, q.End)
		})
	calls.Handle(s, calls.Coordinate, n.answerCoordinate)
	calls.Handle(s, calls.EndOffsets, n.answerEndOffsets)
	calls.Handle(s, calls.HoldCommits, n.answerHoldCommits)
}

// tellLeader returns errNotLeader with the leader in it when that is known.
func tellLeader(ctx context.Context, r *replica.Records) error {
	for {
		h, changed := r.Leader()
		if h.Identity != "" {
			return errNotLeader{Hint: h}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return outcome.ErrNoLeader
		}
	}
}

// onReplica answers a call at whichever replica of a partition or shard is here.
func onReplica[Q, A any](n *Node, s *calls.Server, c *calls.Call[Q, A], partition func(Q) fsm.PartitionID, answer func(ctx context.Context, from string, r *replica.Replica, q Q) (A, error)) {
	calls.Handle(s, c, func(ctx context.Context, from string, q Q) (a A, err error) {
		r := n.replica(partition(q))
		if r == nil {
			return a, errNotLeader{}
		}
		return answer(ctx, from, r, q)
	})
}

// answerReplicas answers what other members of a group ask, or who compares them.
func (n *Node) answerReplicas(s *calls.Server) {
	onReplica(n, s, calls.Describe, func(q calls.DescribeRequest) fsm.PartitionID { return q.Partition },
		func(_ context.Context, _ string, r *replica.Replica, q calls.DescribeRequest) (raftlog.Described, error) {
			return r.Describe(q.Have)
		})
	onReplica(n, s, calls.Entries, func(q calls.EntriesRequest) fsm.PartitionID { return q.Partition },
		func(_ context.Context, _ string, r *replica.Replica, q calls.EntriesRequest) ([]byte, error) {
			return r.Entries(q.First, q.Last, int(q.MaxBytes))
		})
	onReplica(n, s, calls.Applied, func(id fsm.PartitionID) fsm.PartitionID { return id },
		func(_ context.Context, _ string, r *replica.Replica, _ fsm.PartitionID) (uint64, error) {
			return r.Member.Raft.AppliedIndex(), nil
		})
	onReplica(n, s, calls.Leave, func(id fsm.PartitionID) fsm.PartitionID { return id },
		func(ctx context.Context, from string, r *replica.Replica, _ fsm.PartitionID) (uint64, error) {
			return r.Release(ctx, from)
		})
	calls.Handle(s, calls.Hash, func(ctx context.Context, _ string, q calls.HashRequest) (calls.ReplicaHash, error) {
		r := n.records(q.Partition)
		if r == nil {
			return calls.ReplicaHash{}, errNotLeader{}
		}
		h, err := r.Digest(ctx, q.From, q.To, int64(q.MaxBytes))
		return calls.ReplicaHash(h), err
	})
}
