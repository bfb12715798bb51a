package cluster

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cluster/peer"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// Kinds of calls between nodes. Numbers are never reused; a node that does not
// know a kind answers outcome.ErrUnknown.
const (
	callAppend           = 1  // partition, term, batches -> offsets
	callRead             = 2  // partition, offset, max bytes -> slice
	callAwait            = 3  // partition, offset -> nothing, when there is something to read
	callListOffsets      = 4  // partition, timestamp, max -> offsets
	callLeader           = 5  // partition -> nothing, when its leader is known; the leader is the answer's hint
	callDescribe         = 6  // partition, index had -> what must be known to copy the rest
	callEntries          = 7  // partition, first and last index, limit -> entries
	callApplied          = 8  // partition -> index applied
	callLeave            = 9  // partition -> term; the caller's replica leaves the group
	callCatalogApply     = 10 // catalog command -> catalogReply
	callCreateTopic      = 11 // createTopicCall -> catalogReply
	callCatalogIndex     = 12 // nothing -> catalogReply: the index that a confirmed leader has committed
	callCatalogKnown     = 13 // index -> nothing, when the catalog of this node has come that far
	callForm             = 20 // formation -> nothing, when granted
	callJoin             = 21 // fsm.Node -> joinReply
	callReplicaStatus    = 30 // nothing -> nodeReport
	callOffsetForTime    = 40 // partition, timestamp -> nothing, or offset, timestamp, epoch
	callEpochEnd         = 41 // partition, epoch -> epoch, offset
	callCreatePartitions = 50 // createPartitionsCall -> catalogReply
	callDeleteRecords    = 51 // partition, offset -> log start
	callProducers        = 52 // partition -> fsm.ActiveProducer list
	callAdminister       = 80 // admin.Request -> catalogReply
	callSurvey           = 31 // groups -> what this node knows of the leader of each, see failover.go
	callStand            = 32 // groups and terms -> nothing: they stand for election if nothing has changed
	callMember           = 33 // nothing -> 1 if the caller is in the cluster, 0 if it has left it
	callFull             = 60 // 1: the caller's disk is full; 0: not any more -> nothing
	callHash             = 61 // partition, offsets from and to, most bytes -> offset reached, bytes, SHA-256
	callCoordinate       = 70 // shard, request of a consumer group -> response, see groups.go
	callCreateShards     = 71 // nothing -> catalogReply: the shards of consumer groups are there
	callRelay            = 90 // a call to a third node, see reach.go -> its whole answer; from level 3 on
	callWho              = 91 // name of a group -> nothing, when its leader is known; the leader is the answer's hint; from level 3 on
)

// An answer is: code (2), length of detail (2), detail, length of the hint's
// identity (1), identity, term (8), then the payload if code is 0.

func encodeReply(payload []byte, err error) []byte {
	code := outcome.Code(err)
	detail := ""
	var h hint
	if err != nil {
		detail = err.Error()
		if len(detail) > 1024 {
			detail = detail[:1024]
		}
		var notLeader errNotLeader
		if errors.As(err, &notLeader) {
			h = notLeader.hint
		}
	}
	out := make([]byte, 0, 13+len(detail)+len(h.identity)+len(payload))
	out = binary.BigEndian.AppendUint16(out, uint16(code))
	out = binary.BigEndian.AppendUint16(out, uint16(len(detail)))
	out = append(out, detail...)
	out = append(out, byte(len(h.identity)))
	out = append(out, h.identity...)
	out = binary.BigEndian.AppendUint64(out, h.term)
	return append(out, payload...)
}

// remoteError is an error that another node answered with.
type remoteError struct {
	code   outcome.Error
	detail string
}

func (e remoteError) Error() string { return e.detail }
func (e remoteError) Unwrap() error { return e.code }

func decodeReply(reply []byte) ([]byte, error) {
	r := reader{b: reply}
	code := outcome.Error(r.uint16())
	detail := string(r.bytes(int(r.uint16())))
	h := hint{identity: string(r.bytes(int(r.uint8())))}
	h.term = r.uint64()
	if r.bad {
		return nil, fmt.Errorf("%w: malformed answer of another node", outcome.ErrUnknown)
	}
	switch code {
	case 0:
		return r.b, nil
	case outcome.ErrNotLeader:
		return nil, errNotLeader{h}
	default:
		return nil, remoteError{code, detail}
	}
}

// reader takes fixed-width fields off a message; bad says that it was too short.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) bytes(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) uint8() uint8 {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) partition() (id fsm.PartitionID) {
	copy(id.Topic[:], r.bytes(len(id.Topic)))
	id.Partition = int32(r.uint32())
	return id
}

func appendPartition(dst []byte, id fsm.PartitionID) []byte {
	dst = append(dst, id.Topic[:]...)
	return binary.BigEndian.AppendUint32(dst, uint32(id.Partition))
}

var errMalformed = fmt.Errorf("%w: malformed call of another node", outcome.ErrUnknown)

// decodeCall reads the JSON of a call. What is asked may rest on a field that is not known here, so there must be none.
func decodeCall(payload []byte, call any) error {
	err := fsm.DecodeStrictly(payload, call)
	if err != nil && !errors.Is(err, fsm.ErrNewer) {
		return errMalformed
	}
	return err
}

// maxBatchesPerCall bounds what a call of another node makes us allocate.
const maxBatchesPerCall = 1 << 16

// serve answers the calls of other nodes (peer.Handler).
func (n *Node) serve(ctx context.Context, from string, kind uint8, payload []byte) []byte {
	return encodeReply(n.answer(ctx, from, kind, payload))
}

func (n *Node) answer(ctx context.Context, from string, kind uint8, payload []byte) ([]byte, error) {
	if !n.isWired() {
		return nil, errNotLeader{}
	}
	switch kind {
	case callForm, callJoin, callSurvey, callStand: // the catalog's group elects before this node is in a cluster
	default:
		if n.ClusterID() == "" {
			return nil, errNotLeader{}
		}
	}
	r := reader{b: payload}
	switch kind {
	case callAppend:
		id, term, batches, err := parseAppend(payload)
		if err != nil {
			return nil, err
		}
		replica := n.records(id)
		if replica == nil {
			return nil, errNotLeader{}
		}
		replica.settle(ctx)
		appended, err := replica.append(ctx, term, batches)
		if err != nil {
			return nil, err
		}
		return appendReply(appended), nil

	case callRead, callAwait, callListOffsets, callLeader, callOffsetForTime, callEpochEnd:
		id := r.partition()
		replica := n.records(id)
		if r.bad {
			return nil, errMalformed
		}
		if replica == nil {
			return nil, errNotLeader{}
		}
		replica.settle(ctx)
		return n.answerRead(ctx, replica, kind, &r)

	case callDeleteRecords, callProducers:
		return n.answerAdmin(ctx, kind, &r)
	case callAdminister:
		var request admin.Request
		if err := decodeCall(payload, &request); err != nil {
			return nil, err
		}
		return n.administerAsLeader(ctx, request)
	case callCreatePartitions:
		var call createPartitionsCall
		if err := decodeCall(payload, &call); err != nil {
			return nil, err
		}
		return n.createPartitionsAsLeader(ctx, call)
	case callHash:
		id, from, to, limit := r.partition(), fsm.Offset(r.uint64()), fsm.Offset(r.uint64()), r.uint64()
		replica := n.records(id)
		if r.bad || len(r.b) > 0 || limit > 1<<40 {
			return nil, errMalformed
		}
		if replica == nil {
			return nil, errNotLeader{}
		}
		h, err := replica.hash(ctx, from, to, int64(limit))
		return h.encode(), err

	case callDescribe, callEntries, callApplied, callLeave:
		id := r.partition()
		replica := n.replica(id)
		if r.bad {
			return nil, errMalformed
		}
		if replica == nil {
			return nil, errNotLeader{}
		}
		return n.answerCopy(ctx, from, replica, kind, &r)

	case callCatalogApply:
		return n.catalog.applyAsLeader(ctx, payload)
	case callCatalogKnown:
		index := fsm.Index(r.uint64())
		if r.bad {
			return nil, errMalformed
		}
		return nil, n.catalog.awaitIndex(ctx, index)
	case callCreateTopic:
		var call createTopicCall
		if err := decodeCall(payload, &call); err != nil {
			return nil, err
		}
		return n.createTopicAsLeader(ctx, call)
	case callCoordinate:
		return n.answerCoordinate(ctx, payload)
	case callCreateShards:
		return n.createGroupShardsAsLeader(ctx)
	case callCatalogIndex:
		return n.catalog.indexAsLeader(ctx)
	case callForm:
		return nil, n.grant(payload)
	case callJoin:
		return n.admit(ctx, from, payload)
	case callSurvey:
		return n.failover.answer(from, payload)
	case callStand:
		return nil, n.failover.told(from, payload)
	case callFull:
		return nil, n.heardFull(from, payload)
	case callMember:
		return n.answerMember(ctx, from)
	case callReplicaStatus:
		return json.Marshal(n.report())
	case callRelay:
		return n.relay(ctx, from, payload)
	case callWho:
		return nil, n.answerWho(ctx, string(payload))
	}
	return nil, fmt.Errorf("%w: call %d is not known here", outcome.ErrUnknown, kind)
}

// appendCall is the payload of callAppend in front of and between the batches.
func appendCall(id fsm.PartitionID, term uint64, batches [][]byte) [][]byte {
	head := appendPartition(nil, id)
	head = binary.BigEndian.AppendUint64(head, term)
	head = binary.BigEndian.AppendUint32(head, uint32(len(batches)))
	parts := append(make([][]byte, 0, 1+2*len(batches)), head)
	for _, batch := range batches {
		parts = append(parts, binary.BigEndian.AppendUint32(nil, uint32(len(batch))), batch)
	}
	return parts
}

// appendReply is the payload of the answer to callAppend.
func appendReply(appended []fsm.Appended) []byte {
	out := make([]byte, 0, appendedSize*len(appended))
	for _, a := range appended {
		out = binary.BigEndian.AppendUint64(out, uint64(a.BaseOffset))
		out = binary.BigEndian.AppendUint64(out, uint64(a.LogStart))
		out = binary.BigEndian.AppendUint64(out, uint64(a.Timestamp))
		out = binary.BigEndian.AppendUint16(out, uint16(a.Err))
	}
	return out
}

const appendedSize = 8 + 8 + 8 + 2

// parseAppendReply is the reverse of appendReply for so many batches.
func parseAppendReply(reply []byte, batches int) ([]fsm.Appended, error) {
	if len(reply) != appendedSize*batches {
		return nil, fmt.Errorf("%w: malformed answer of another node", outcome.ErrUnknownFate)
	}
	r := reader{b: reply}
	appended := make([]fsm.Appended, batches)
	for i := range appended {
		appended[i] = fsm.Appended{
			BaseOffset: fsm.Offset(r.uint64()),
			LogStart:   fsm.Offset(r.uint64()),
			Timestamp:  int64(r.uint64()),
			Err:        outcome.Error(r.uint16()),
		}
	}
	return appended, nil
}

// parseAppend is the reverse of appendCall. The batches alias payload.
func parseAppend(payload []byte) (id fsm.PartitionID, term uint64, batches [][]byte, err error) {
	r := reader{b: payload}
	id, term = r.partition(), r.uint64()
	count := r.uint32()
	// A batch has at least its length and its header.
	if r.bad || count > maxBatchesPerCall || int64(count)*(4+kafkaproto.BatchHeaderSize) > int64(len(r.b)) {
		return id, term, nil, errMalformed
	}
	batches = make([][]byte, 0, count)
	for range count {
		batch := r.bytes(int(r.uint32()))
		if r.bad || kafkaproto.CheckBatch(batch) != nil {
			return id, term, nil, errMalformed
		}
		batches = append(batches, batch)
	}
	if len(r.b) > 0 {
		return id, term, nil, errMalformed
	}
	return id, term, batches, nil
}

// answerCopy answers a node that copies a partition, or that leaves its group.
func (n *Node) answerCopy(ctx context.Context, from string, replica *replica, kind uint8, r *reader) ([]byte, error) {
	switch kind {
	case callDescribe:
		have := r.uint64()
		if r.bad {
			return nil, errMalformed
		}
		return replica.describe(have)
	case callEntries:
		first, last, limit := r.uint64(), r.uint64(), r.uint32()
		if r.bad || limit > 1<<26 {
			return nil, errMalformed
		}
		return replica.entries(first, last, int(limit))
	case callApplied:
		return binary.BigEndian.AppendUint64(nil, replica.group.raft.AppliedIndex()), nil
	default: // callLeave
		return n.release(ctx, replica, from)
	}
}

func (n *Node) answerRead(ctx context.Context, replica *records, kind uint8, r *reader) ([]byte, error) {
	switch kind {
	case callOffsetForTime, callEpochEnd:
		return answerOffsets(ctx, replica, kind, r)
	case callRead:
		from, maxBytes := fsm.Offset(r.uint64()), r.uint32()
		if r.bad {
			return nil, errMalformed
		}
		slice, err := replica.readAsLeader(ctx, from, int(maxBytes))
		if err != nil {
			return nil, err
		}
		out := make([]byte, 0, 16+len(slice.Batches))
		out = binary.BigEndian.AppendUint64(out, uint64(slice.HighWatermark))
		out = binary.BigEndian.AppendUint64(out, uint64(slice.LogStart))
		return append(out, slice.Batches...), nil
	case callAwait:
		from := fsm.Offset(r.uint64())
		if r.bad {
			return nil, errMalformed
		}
		return nil, replica.awaitAsLeader(ctx, from)
	case callListOffsets:
		timestamp, max := int64(r.uint64()), r.uint32()
		if r.bad || max > 1<<20 {
			return nil, errMalformed
		}
		offsets, err := replica.offsetsBefore(ctx, timestamp, int(max))
		if err != nil {
			return nil, err
		}
		out := make([]byte, 0, 8*len(offsets))
		for _, o := range offsets {
			out = binary.BigEndian.AppendUint64(out, uint64(o))
		}
		return out, nil
	default: // callLeader
		for {
			h, changed := replica.leader()
			if h.identity != "" {
				return nil, errNotLeader{h}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return nil, outcome.ErrNoLeader
			}
		}
	}
}

// call asks another node, through a third one if it is not reached directly and the kind is
// relayed. An error for which outcome.NotAppended holds means that nothing was changed there.
func (n *Node) call(ctx context.Context, identity string, kind uint8, payload ...[]byte) ([]byte, error) {
	if relayed[kind] && n.link.Reach(identity) != peer.Reached {
		if reply, err, asked := n.callThrough(ctx, identity, kind, payload); asked {
			return reply, err
		}
	}
	reply, err := n.link.Call(ctx, identity, kind, payload...)
	if err != nil {
		return nil, callError(ctx, err)
	}
	return decodeReply(reply)
}

// ask is call for what changes nothing: an answer that did not come is as good
// as a request that was not sent.
func (n *Node) ask(ctx context.Context, identity string, kind uint8, payload ...[]byte) ([]byte, error) {
	reply, err := n.call(ctx, identity, kind, payload...)
	if outcome.Code(err) == outcome.ErrUnknownFate {
		err = fmt.Errorf("%w: %v", outcome.ErrNoLeader, err)
	}
	return reply, err
}

func callError(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, peer.ErrNotSent):
		return fmt.Errorf("%w: %w", outcome.ErrNoLeader, err)
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", outcome.ErrTimeout, err)
	default:
		return fmt.Errorf("%w: %w", outcome.ErrUnknownFate, err)
	}
}

// callTimeout bounds calls that have no deadline of their own.
const callTimeout = 5 * time.Second
