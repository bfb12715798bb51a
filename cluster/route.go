package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// This file is the way from a partition to the node that leads it. A partition
// that has a replica here is known by that replica; for others the last answer
// of its replicas is remembered and tried first.

// holdLeaderless is how long a produce waits for a partition that has no leader:
// one producer's connection carries all partitions and is answered in order, so
// one leaderless partition must not stall the rest for longer.
const holdLeaderless = 1500 * time.Millisecond

// retryPause is the pause before a replica on another node is asked again who
// leads. Replicas here tell without being asked.
const retryPause = 25 * time.Millisecond

// CatalogKnown says whether the catalog here was once as new as the leader's since this node has started.
func (n *Node) CatalogKnown() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.caughtUp
}

// Gateways gives the addresses, host:port, at which the registered nodes that are there take clients; "" for one that
// has not said so.
func (n *Node) Gateways() map[fsm.NodeID]string {
	view := n.Topics()
	out := map[fsm.NodeID]string{}
	for id := range n.nodesHere(view) {
		out[id] = ""
	}
	for _, m := range n.gossip.Members() {
		id := fsm.NodeID(m.NodeID)
		if node, ok := view.Node(id); ok && node.Identity() == m.Identity && n.connected(m.Identity) {
			out[id] = m.ClientAddr
		}
	}
	return out
}

func (n *Node) replica(id fsm.PartitionID) *replica {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.replicas[id]
}

// guide gives the replica here that knows who leads a partition, nil if there is none: one that hangs hears of nobody.
func (n *Node) guide(id fsm.PartitionID) *replica {
	if r := n.replica(id); r != nil && !r.group.stuck() {
		return r
	}
	return nil
}

// leaderOf gives the node to try for a partition, and a channel that is closed
// when a replica here learns of another leader (nil without a replica here).
func (n *Node) leaderOf(id fsm.PartitionID, attempt int) (hint, <-chan struct{}, error) {
	topics := n.Topics()
	partition, ok := topics.Partition(id)
	if !ok {
		return hint{}, nil, outcome.ErrUnknownTopicOrPartition
	}
	n.mu.Lock()
	told, ok := n.hints[id]
	broken := n.broken[id]
	n.mu.Unlock()
	if replica := n.guide(id); replica != nil {
		h, changed := replica.leader()
		members := identitiesOf(topics, partition.Holders())
		if !n.severed(h.identity, members) {
			return h, changed, nil
		}
		if !ok {
			if told, ok = n.askWho(id.String(), members); !ok {
				return h, changed, nil
			}
			n.mu.Lock()
			n.hints[id] = told
			n.mu.Unlock()
		}
		return told, changed, nil
	}
	if ok {
		return told, nil, nil
	}
	// This node has none that runs.
	holders := slices.DeleteFunc(slices.Clone(partition.Holders()), func(holder fsm.NodeID) bool { return holder == n.nodeID })
	if len(holders) == 0 {
		if broken != nil {
			return hint{}, nil, fmt.Errorf("%w: the only replica is out of service: %w", outcome.ErrStorage, damageOf(broken))
		}
		return hint{}, nil, nil
	}
	// Nothing known: any replica answers with a hint.
	node, ok := topics.Node(holders[attempt%len(holders)])
	if !ok {
		return hint{}, nil, nil
	}
	return hint{identity: node.Identity()}, nil, nil
}

// learn keeps or forgets what a node that was asked said of the leader.
func (n *Node) learn(id fsm.PartitionID, asked hint, err error) {
	guided := n.guide(id) != nil
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, told := n.hints[id]; guided && !told {
		return // the replica here knows
	}
	var notLeader errNotLeader
	switch {
	case err == nil:
		n.hints[id] = asked
	case errors.As(err, &notLeader) && notLeader.hint.identity != "":
		n.hints[id] = notLeader.hint
	default:
		delete(n.hints, id)
	}
}

// atLeader runs try at the partition's leader, again as long as the answer says
// that nothing happened, until hold has passed or ctx ends. hold 0 tries what is
// known and what the first answer points to, and does not wait.
func (n *Node) atLeader(ctx context.Context, id fsm.PartitionID, hold time.Duration, try func(ctx context.Context, h hint, local *replica) error) error {
	deadline := time.Now().Add(hold)
	pause := time.NewTimer(hold)
	defer pause.Stop()
	var last error
	for attempt := 0; ; attempt++ {
		h, changed, err := n.leaderOf(id, attempt)
		if err != nil {
			return err
		}
		if h.identity != "" {
			var local *replica
			if h.identity == n.identity {
				local = n.replica(id)
			}
			err := error(outcome.ErrNoLeader)
			if local != nil || h.identity != n.identity {
				err = try(ctx, h, local)
			} // else it is closed this moment, or another node is mistaken
			n.learn(id, h, err)
			if err == nil || !outcome.NotAppended(err) || errors.Is(err, outcome.ErrShuttingDown) && local != nil {
				return err
			}
			last = err
			var notLeader errNotLeader
			if errors.As(err, &notLeader) && notLeader.hint.identity != "" && notLeader.hint != h && attempt == 0 {
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
		pause.Reset(min(retryPause, time.Until(deadline)))
		select {
		case <-changed:
		case <-pause.C:
		case <-ctx.Done():
		case <-n.ctx.Done():
			return outcome.ErrShuttingDown
		}
	}
}

// atRecords is atLeader for what concerns the records of a partition.
func (n *Node) atRecords(ctx context.Context, id fsm.PartitionID, hold time.Duration, try func(ctx context.Context, h hint, local *records) error) error {
	if id.Topic == fsm.GroupShardsID {
		return outcome.ErrUnknownTopicOrPartition
	}
	return n.atLeader(ctx, id, hold, func(ctx context.Context, h hint, local *replica) error {
		if local == nil {
			return try(ctx, h, nil)
		}
		return try(ctx, h, local.machine.(*records))
	})
}

// Append hands record batches to the partition's leader, wherever it is, and
// returns when they are committed: on stable storage at a majority. Batches are
// neighbours in the log, in this order, but those of idempotent producers that are
// there already, which are answered with their place, or are refused
// (fsm.Appended.Err). It waits for a leader for 1.5 s at most. When
// outcome.NotAppended(err), surely nothing was written. If the fate is unknown and all
// batches have producers that make them recognizable, they are handed over again,
// for 1.5 s more at most. The batches' offset and epoch fields are overwritten.
func (n *Node) Append(ctx context.Context, id fsm.PartitionID, batches [][]byte) ([]fsm.Appended, error) {
	appended, err := n.appendOnce(ctx, id, batches)
	if err == nil || outcome.Code(err) != outcome.ErrUnknownFate || !idempotent(batches) {
		return appended, err
	}
	unknown := err
	until := time.Now().Add(holdLeaderless)
	for ctx.Err() == nil && time.Now().Before(until) {
		// What was handed over may still be on its way into the log: those bytes are
		// not to be written to.
		batches = clones(batches)
		if appended, err = n.appendOnce(ctx, id, batches); err == nil {
			return appended, nil
		}
		if outcome.Code(err) != outcome.ErrUnknownFate {
			break
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
		}
	}
	// Whatever became of trying again, the first may be in the log.
	return nil, fmt.Errorf("%w: tried again: %w", unknown, err)
}

// idempotent reports whether each of the batches can be handed over twice and is
// appended once.
func idempotent(batches [][]byte) bool {
	for _, batch := range batches {
		header, err := kafkaproto.ParseBatchHeader(batch)
		if err != nil || !fsm.Idempotent(header) {
			return false
		}
	}
	return len(batches) > 0
}

func clones(batches [][]byte) [][]byte {
	copies := make([][]byte, len(batches))
	for i, batch := range batches {
		copies[i] = bytes.Clone(batch)
	}
	return copies
}

func (n *Node) appendOnce(ctx context.Context, id fsm.PartitionID, batches [][]byte) ([]fsm.Appended, error) {
	var appended []fsm.Appended
	err := n.atRecords(ctx, id, holdLeaderless, func(ctx context.Context, h hint, local *records) (err error) {
		if local != nil {
			if appended, err = local.append(ctx, 0, batches); outcome.Code(err) == outcome.ErrVoid {
				batches = clones(batches) // the void ones are in Raft's log
			}
			return err
		}
		reply, err := n.call(ctx, h.identity, callAppend, appendCall(id, h.term, batches)...)
		if err != nil {
			return err
		}
		appended, err = parseAppendReply(reply, len(batches))
		return err
	})
	if err != nil {
		return nil, err
	}
	return appended, nil
}

// Read gives committed batches from offset from on, without waiting for records
// or for a leader. A replica on this node answers for what it has; the rest is
// asked of the leader, so that an offset that is valid there and not yet here is
// never said to be out of range.
func (n *Node) Read(ctx context.Context, id fsm.PartitionID, from fsm.Offset, maxBytes int) (fsm.Slice, error) {
	if _, ok := n.Topics().Partition(id); !ok {
		return fsm.Slice{}, outcome.ErrUnknownTopicOrPartition
	}
	here := n.records(id)
	if here != nil {
		slice, ok, err := here.readCommitted(from, maxBytes)
		if ok && err == nil {
			return slice, nil
		}
		if err != nil {
			n.logger.Debug("a replica cannot read its log; the leader is asked instead", "partition", id, "offset", from, "error", err)
		}
	}
	var slice fsm.Slice
	err := n.atRecords(ctx, id, 0, func(ctx context.Context, h hint, local *records) (err error) {
		if local != nil {
			slice, err = local.readAsLeader(ctx, from, maxBytes)
			return err
		}
		head := appendPartition(nil, id)
		head = binary.BigEndian.AppendUint64(head, uint64(from))
		head = binary.BigEndian.AppendUint32(head, uint32(min(max(maxBytes, 0), 1<<30)))
		reply, err := n.ask(ctx, h.identity, callRead, head)
		if err != nil {
			return err
		}
		r := reader{b: reply}
		slice.HighWatermark, slice.LogStart = fsm.Offset(r.uint64()), fsm.Offset(r.uint64())
		slice.Batches = r.b
		if r.bad {
			return outcome.ErrUnknown
		}
		return nil
	})
	if err != nil && here != nil && outcome.NotAppended(err) {
		// No leader to ask: at the end of what this replica has there is nothing to read yet.
		if start, next := here.bounds(); from == next {
			return fsm.Slice{HighWatermark: next, LogStart: start}, nil
		}
	}
	return slice, err
}

// Await returns nil when a record at offset from is committed, ctx.Err() when
// ctx ends first. While the partition has no leader it waits on.
func (n *Node) Await(ctx context.Context, id fsm.PartitionID, from fsm.Offset) error {
	if here := n.records(id); here != nil {
		if _, next := here.bounds(); next > from {
			return nil // the leader's state machine may be behind
		}
	}
	for {
		err := n.atRecords(ctx, id, holdLeaderless, func(ctx context.Context, h hint, local *records) error {
			if local != nil {
				return local.awaitAsLeader(ctx, from)
			}
			head := binary.BigEndian.AppendUint64(appendPartition(nil, id), uint64(from))
			_, err := n.ask(ctx, h.identity, callAwait, head)
			return err
		})
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, outcome.ErrUnknownTopicOrPartition), errors.Is(err, outcome.ErrShuttingDown):
			return err
		}
		// The leader was lost while it was waited at: wait at the next one.
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ListOffsets answers in the form of ListOffsets v0, as the partition's leader
// confirmed by a majority: timestamp -1 is the log end, -2 the log start, else
// the base offsets of segments last written at or before timestamp (ms), newest
// first, at most max.
func (n *Node) ListOffsets(ctx context.Context, id fsm.PartitionID, timestamp int64, max int) ([]fsm.Offset, error) {
	if max <= 0 {
		return nil, nil
	}
	max = min(max, 1<<20)
	var offsets []fsm.Offset
	err := n.atRecords(ctx, id, holdLeaderless, func(ctx context.Context, h hint, local *records) (err error) {
		if local != nil {
			offsets, err = local.offsetsBefore(ctx, timestamp, max)
			return err
		}
		head := binary.BigEndian.AppendUint64(appendPartition(nil, id), uint64(timestamp))
		head = binary.BigEndian.AppendUint32(head, uint32(max))
		reply, err := n.ask(ctx, h.identity, callListOffsets, head)
		if err != nil {
			return err
		}
		r := reader{b: reply}
		offsets = make([]fsm.Offset, 0, len(reply)/8)
		for len(r.b) > 0 && !r.bad {
			offsets = append(offsets, fsm.Offset(r.uint64()))
		}
		return nil
	})
	return offsets, err
}

// awaitLeader returns when the partition's leader is known and takes records.
func (n *Node) awaitLeader(ctx context.Context, id fsm.PartitionID) error {
	for {
		err := n.atRecords(ctx, id, holdLeaderless, func(ctx context.Context, h hint, local *records) error {
			if local != nil {
				_, _, _, err := local.asConfirmedLeader(ctx)
				return err
			}
			_, err := n.ask(ctx, h.identity, callListOffsets, binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(appendPartition(nil, id), ^uint64(0)), 1))
			return err
		})
		if err == nil || !outcome.NotAppended(err) && !errors.Is(err, outcome.ErrUnknownFate) || errors.Is(err, outcome.ErrShuttingDown) {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", outcome.ErrTimeout, err)
		}
	}
}
