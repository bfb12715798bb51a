package coordinator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/fsm/groups"
	"github.com/trimaran-io/trimaran/outcome"
)

// Offsets that are committed in a transaction. They are pending until EndOffsets says how it ended.
//
// Before the first of a transaction is taken, its coordinator is asked: to add the group (version 2
// of the protocol, KIP-890), or whether the client has. The transaction may end meanwhile, and what
// came behind its marker would be pending for ever. So the producer's last marker, applied or on
// its way, is noted before that, and must be the last one still when the offsets are queued, behind
// which no earlier marker can come.

// addingVersion is the version of TxnOffsetCommit from which on it adds the group to the
// transaction.
const addingVersion = 5

// markerRetention is how long the last marker of a producer is remembered in a group
// (producer.id.expiration.ms), as long as there are not more than MaxMarkers. A copy of it that
// comes later than that is no message any more.
const markerRetention = 24 * time.Hour

func txnCommitResponse(req *kmsg.TxnOffsetCommitRequest) *kmsg.TxnOffsetCommitResponse {
	resp := req.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
	for _, topic := range req.Topics {
		t := kmsg.NewTxnOffsetCommitResponseTopic()
		t.Topic = topic.Topic
		for _, partition := range topic.Partitions {
			p := kmsg.NewTxnOffsetCommitResponseTopicPartition()
			p.Partition = partition.Partition
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

// fillTxnCommit gives the code to all partitions that have none.
func fillTxnCommit(resp *kmsg.TxnOffsetCommitResponse, code int16) *kmsg.TxnOffsetCommitResponse {
	for i := range resp.Topics {
		for j := range resp.Topics[i].Partitions {
			if p := &resp.Topics[i].Partitions[j]; p.ErrorCode == 0 {
				p.ErrorCode = code
			}
		}
	}
	return resp
}

// txnOffsetCommit answers TxnOffsetCommit when the offsets are replicated, pending. That topics
// have the partitions is for the caller to check.
func (c *Coordinator) txnOffsetCommit(ctx context.Context, client Client, req *kmsg.TxnOffsetCommitRequest) (kmsg.Response, error) {
	resp := txnCommitResponse(req)
	switch {
	case req.Group == "" || len(req.Group) > groups.MaxGroupID:
		return fillTxnCommit(resp, kerr.InvalidGroupID.Code), nil
	case req.ProducerID < 0 || req.ProducerEpoch < 0:
		return fillTxnCommit(resp, kerr.InvalidProducerIDMapping.Code), nil
	}
	topics := make([]commitTopic, len(req.Topics))
	for i, topic := range req.Topics {
		topics[i].name = topic.Topic
		topics[i].id, topics[i].ok = c.topicID(topic.Topic)
	}
	g, code, err := c.lockJoined(ctx, client, req)
	if err != nil {
		return nil, err
	}
	if g == nil {
		return fillTxnCommit(resp, code), nil
	}
	code = g.validateTxnCommit(req)
	cmd := c.txnCommitCommand(g.id, topics, req, resp)
	if code == 0 && (cmd.Size() > maxCommitBytes || c.cfg.State.size()+2*cmd.Size() > c.maxState) {
		code = kerr.InvalidCommitOffsetSize.Code
	}
	if code != 0 || cmd.Len() == 0 {
		c.unlockGroup(g)
		return fillTxnCommit(resp, code), nil
	}
	w := g.write(cmd, nil)
	c.unlockGroup(g)
	if err := w.wait(ctx); err != nil {
		return nil, err
	}
	if errors.Is(w.err, ErrNotLeader) {
		return nil, w.err
	}
	return fillTxnCommit(resp, c.codeOf(w.err)), nil
}

// joinAttempts bounds how often a transaction's coordinator is asked for one request. The marker of
// the producer's transaction before mostly comes while it is asked the first time, which waits for
// that to be over.
const joinAttempts = 4

// lockJoined gives the locked group, which is in the producer's transaction. A code other than 0
// says why it is not, and an error is no answer; then the group is nil.
func (c *Coordinator) lockJoined(ctx context.Context, client Client, req *kmsg.TxnOffsetCommitRequest) (g *group, code int16, err error) {
	for range joinAttempts {
		v, code, err := c.joinTransaction(ctx, client, req)
		if err != nil || code != 0 {
			return nil, code, err
		}
		if g = c.lockGroup(req.Group, req.Generation < 0); g == nil {
			return nil, kerr.IllegalGeneration.Code, nil
		}
		if v.holds(g, req) {
			return g, 0, nil
		}
		c.unlockGroup(g)
	}
	return nil, kerr.ConcurrentTransactions.Code, nil
}

// guard is that a transaction was open while a producer's last marker in the group was this one.
type guard struct {
	last      groups.Ended
	forgotten uint64 // Coordinator.forgotten
}

// holds reports whether no marker came since, nor a newer epoch of the producer. Where none is
// known, one may have come and be forgotten.
func (v guard) holds(g *group, req *kmsg.TxnOffsetCommitRequest) bool {
	known := g.c.cfg.State.producer(g.id, req.ProducerID)
	return v.last == g.lastMarker(req.ProducerID, known) && req.ProducerEpoch >= known.Epoch &&
		(v.last.Known || v.forgotten == g.c.forgotten.Load())
}

// lastMarker gives the producer's last marker, applied or on its way.
func (g *group) lastMarker(producerID int64, known groups.Producer) groups.Ended {
	if number, ok := g.ending[producerID]; ok && (!known.Last.Known || number-known.Last.Number > 0) {
		return groups.Ended{Known: true, Number: number}
	}
	return known.Last
}

// joinTransaction finds out whether the group is in the producer's transaction. A code other than 0
// says why it is not; an error is no answer.
func (c *Coordinator) joinTransaction(ctx context.Context, client Client, req *kmsg.TxnOffsetCommitRequest) (v guard, code int16, err error) {
	g := c.lockGroup(req.Group, true)
	v.forgotten = c.forgotten.Load()
	known := c.cfg.State.producer(g.id, req.ProducerID)
	v.last = g.lastMarker(req.ProducerID, known)
	c.unlockGroup(g)
	switch {
	case req.ProducerEpoch < known.Epoch:
		return v, kerr.InvalidProducerEpoch.Code, nil
	case known.Open && req.ProducerEpoch == known.Epoch && v.last == known.Last:
		return v, 0, nil // it goes on
	case c.cfg.Join == nil:
		return v, kerr.InvalidTxnState.Code, nil
	}
	err = c.cfg.Join(ctx, fsm.Transaction{ID: req.TransactionalID, Add: client.Version >= addingVersion}, req.ProducerID, req.ProducerEpoch, req.Group)
	switch outcome.Code(err) {
	case 0:
		return v, 0, nil
	case outcome.ErrInvalidTxnState:
		return v, kerr.InvalidTxnState.Code, nil
	case outcome.ErrConcurrentTransactions:
		return v, kerr.ConcurrentTransactions.Code, nil
	case outcome.ErrProducerFenced, outcome.ErrInvalidProducerEpoch:
		// As Kafka's AddPartitionsToTxnManager has it, who asks there in the client's place.
		return v, kerr.InvalidProducerEpoch.Code, nil
	case outcome.ErrInvalidProducerIDMapping:
		return v, kerr.InvalidProducerIDMapping.Code, nil
	case outcome.ErrTransactionAbortable:
		return v, kerr.TransactionAbortable.Code, nil
	}
	if ctx.Err() != nil {
		return v, 0, ctx.Err()
	}
	c.log.Debug("a transaction's coordinator does not answer", "group", req.Group, "transactional_id", cut(req.TransactionalID, 100), "error", err)
	return v, kerr.CoordinatorNotAvailable.Code, nil
}

// validateTxnCommit is validateCommit for a transaction (KIP-447): clients that do not know of that
// name neither member nor generation, and a rebalance that goes on is no reason to wait.
func (g *group) validateTxnCommit(req *kmsg.TxnOffsetCommitRequest) int16 {
	if req.Generation < 0 && (g.state == empty || req.MemberID == "" && req.InstanceID == nil) {
		return 0
	}
	if code := g.validate(req.MemberID, req.InstanceID); code != 0 {
		return code
	}
	if req.Generation != g.generation {
		return kerr.IllegalGeneration.Code
	}
	return 0
}

// txnCommitCommand is commitCommand for a transaction.
func (c *Coordinator) txnCommitCommand(group string, topics []commitTopic, req *kmsg.TxnOffsetCommitRequest, resp *kmsg.TxnOffsetCommitResponse) groups.Changes {
	var cmd groups.Changes
	now := time.Now().UnixMilli()
	for i, topic := range req.Topics {
		for j, partition := range topic.Partitions {
			code := &resp.Topics[i].Partitions[j].ErrorCode
			metadata := ""
			if partition.Metadata != nil {
				metadata = *partition.Metadata
			}
			switch {
			case !topics[i].ok, len(topics[i].name) > groups.MaxTopic, partition.Partition < 0:
				*code = kerr.UnknownTopicOrPartition.Code
			case len(metadata) > min(c.set.OffsetMetadataMaxBytes, groups.MaxMetadata):
				*code = kerr.OffsetMetadataTooLarge.Code
			default:
				cmd.SetPending(group, req.ProducerID, req.ProducerEpoch, topics[i].name, topics[i].id, partition.Partition, groups.Offset{
					Offset: partition.Offset, LeaderEpoch: partition.LeaderEpoch, Metadata: metadata, CommittedAt: now,
				})
			}
		}
	}
	return cmd
}

// EndOffsets ends a transaction in a group: what it has pending is committed, or dropped. It
// returns nil when that is replicated. An error that wraps ErrNotLeader says that nothing was done,
// any other that this is not known; then it may be asked again, since a marker counts once.
func (c *Coordinator) EndOffsets(ctx context.Context, id string, m fsm.Marker) error {
	if len(id) > groups.MaxGroupID || m.ProducerID < 0 || m.Epoch < 0 {
		return fmt.Errorf("%w: a marker of producer %d with epoch %d for a group's id of %d bytes", outcome.ErrUnknown, m.ProducerID, m.Epoch, len(id))
	}
	if !c.tenure.Begin() {
		return ErrNotLeader
	}
	defer c.tenure.Done()
	g := c.lockGroup(id, true)
	known := c.cfg.State.producer(id, m.ProducerID)
	if known.Last.Known && !m.Follows(known.Last.Number) {
		if g.ending[m.ProducerID] == m.Number {
			delete(g.ending, m.ProducerID) // its fate was not known before
		}
		c.unlockGroup(g)
		return nil
	}
	var cmd groups.Changes
	cmd.End(id, m.ProducerID, m.Epoch, m.Number, m.Commit, time.Now().UnixMilli())
	if last := g.lastMarker(m.ProducerID, known); !last.Known || m.Follows(last.Number) {
		g.ending[m.ProducerID] = m.Number
	}
	w := g.write(cmd, func(err error) {
		// One whose fate is not known may come still; the transaction's coordinator sends it again.
		if (err == nil || errors.Is(err, ErrNotLeader)) && g.ending[m.ProducerID] == m.Number {
			delete(g.ending, m.ProducerID)
		}
		c.boundMarkers()
	})
	c.unlockGroup(g)
	if err := w.wait(ctx); err != nil {
		return err
	}
	return w.err
}
