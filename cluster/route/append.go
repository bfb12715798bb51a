package route

import (
	"context"
	"fmt"
	"time"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// NewLine gives a number for the line of a connection (calls.LineOf). It is not 0, and in all
// likelihood no other connection of the cluster has it.
func (r *Router) NewLine(client uint16) uint64 {
	for {
		if line := calls.LineOf(client, r.lines.Add(1)); line != 0 {
			return line
		}
	}
}

// Append is AppendInLine for who has no line.
func (r *Router) Append(ctx context.Context, id fsm.PartitionID, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
	return r.AppendInLine(ctx, id, 0, fsm.Transaction{}, batches)
}

// AppendInLine hands record batches to the partition's leader, wherever it is, and returns when
// they are committed: on stable storage at a majority. Batches are neighbours in the log, in this
// order, but those of idempotent producers that are there already, which are answered with their
// place, or are refused (fsm.Appended.Err). txn is the transaction that they may belong to. It
// waits for a leader for 1.5 s at most. When outcome.NotAppended(err), surely nothing was written.
// If the fate is unknown and all batches have producers that make them recognizable, they are
// handed over again, for 1.5 s more at most. The batches' offset and epoch fields are overwritten.
//
// Whoever has a line waits until all that it has sent is over before it calls this; then nothing of
// that comes behind these batches. line 0 promises nothing of the kind.
func (r *Router) AppendInLine(ctx context.Context, id fsm.PartitionID, line uint64, txn fsm.Transaction, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
	appended, err := r.appendOnce(ctx, id, line, txn, batches)
	if err == nil || outcome.Code(err) != outcome.ErrUnknownFate || !idempotent(batches) {
		return appended, err
	}
	unknown := err
	until := time.Now().Add(HoldLeaderless)
	for ctx.Err() == nil && time.Now().Before(until) {
		// What was handed over may still be on its way into the log: those bytes are not to be
		// written to.
		batches = clones(batches)
		if appended, err = r.appendOnce(ctx, id, line, txn, batches); err == nil {
			return appended, nil
		}
		if outcome.Code(err) != outcome.ErrUnknownFate {
			break
		}
		select {
		case <-time.After(RetryPause):
		case <-ctx.Done():
		}
	}
	// Whatever became of trying again, the first may be in the log.
	return nil, fmt.Errorf("%w: tried again: %w", unknown, err)
}

// idempotent reports whether each of the batches can be handed over twice and is appended once.
func idempotent(batches []kafkaproto.Batch) bool {
	for _, batch := range batches {
		if !fsm.Idempotent(batch.Header()) {
			return false
		}
	}
	return len(batches) > 0
}

func clones(batches []kafkaproto.Batch) []kafkaproto.Batch {
	copies := make([]kafkaproto.Batch, len(batches))
	for i, batch := range batches {
		copies[i] = batch.Clone()
	}
	return copies
}

// appendOnce appends at the leader, each try in a run of its own.
func (r *Router) appendOnce(ctx context.Context, id fsm.PartitionID, line uint64, txn fsm.Transaction, batches []kafkaproto.Batch) (appended []fsm.Appended, err error) {
	if id.Topic == fsm.GroupShardsID {
		return nil, outcome.ErrUnknownTopicOrPartition
	}
	err = r.AtLeader(ctx, id, HoldLeaderless, func(ctx context.Context, h calls.Hint, here bool) (err error) {
		if here {
			h.Term = 0 // the replica here knows better than who was asked before
		}
		appended, err = r.appendAt(ctx, id, h, here, calls.Place{Line: line, Run: r.runs.Add(1)}, txn, batches)
		if here && outcome.Code(err) == outcome.ErrVoid {
			batches = clones(batches) // the void ones are in Raft's log
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return appended, nil
}

// appendAt hands batches to the replica that is said to lead, once.
func (r *Router) appendAt(ctx context.Context, id fsm.PartitionID, h calls.Hint, here bool, place calls.Place, txn fsm.Transaction, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
	if here {
		records := r.cfg.Host.Records(id)
		if records == nil {
			return nil, outcome.ErrNoLeader // closed this moment, or another node is mistaken
		}
		return records.AppendInLine(ctx, h.Term, place, txn, batches)
	}
	q := calls.AppendRequest{Partition: id, Term: h.Term, Batches: batches}
	if txn.ID != "" {
		inLine := calls.AppendInLineRequest{AppendRequest: q, Place: place}
		return calls.AppendTransactional.Ask(ctx, r.cfg.Caller, h.Identity, calls.AppendTransactionalRequest{AppendInLineRequest: inLine, Transaction: txn})
	}
	if place.Line == 0 || r.cfg.Host.Topics().FeatureLevel() < calls.LineFeatureLevel {
		return calls.Append.Ask(ctx, r.cfg.Caller, h.Identity, q)
	}
	return calls.AppendInLine.Ask(ctx, r.cfg.Caller, h.Identity, calls.AppendInLineRequest{AppendRequest: q, Place: place})
}

// Pipe begins a run of a line at the leader that is known now: the function hands batches to it, as
// AppendInLine does, but once, and without waiting for a leader. It is called with 0, 1 and so on,
// which is the order in the log, and any number of those may be under way. If one fails, surely
// nothing that has a higher number was appended unless it is in the log behind the one that failed.
// Then all that are under way are waited for, and nothing more goes this way.
//
// Before it is called first all that the line has sent is over. It is nil if no leader is known, or
// nodes run a program that keeps no lines.
func (r *Router) Pipe(id fsm.PartitionID, line uint64) func(ctx context.Context, number uint32, txn fsm.Transaction, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
	topics := r.cfg.Host.Topics()
	h, known := r.leaderKnown(topics, id)
	if !known || line == 0 || topics.FeatureLevel() < calls.LineFeatureLevel || id.Topic == fsm.GroupShardsID {
		return nil
	}
	here, run := h.Identity == r.cfg.Self, r.runs.Add(1)
	return func(ctx context.Context, number uint32, txn fsm.Transaction, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
		appended, err := r.appendAt(ctx, id, h, here, calls.Place{Line: line, Run: run, Number: number}, txn, batches)
		if err != nil {
			r.learn(id, h, err)
			return nil, err
		}
		return appended, nil
	}
}

// leaderKnown gives the leader of a partition if it is known and reached, and asks nobody.
func (r *Router) leaderKnown(topics *fsm.Topics, id fsm.PartitionID) (calls.Hint, bool) {
	partition, ok := topics.Partition(id)
	if !ok {
		return calls.Hint{}, false
	}
	if guide := r.cfg.Host.Guide(id); guide != nil {
		h, _ := guide.Leader()
		return h, h.Identity != "" && (h.Identity == r.cfg.Self || !r.Severed(h.Identity, identitiesOf(topics, partition.Holders())))
	}
	return r.hint(id)
}
