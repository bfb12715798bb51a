package gateway

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// ReplicaCheck, version 0: Trimaran's own, for `trimaran cluster verify`, and like
// Status not listed by ApiVersions.
//
// The request has header version 1 and the topic's name (its length in int16),
// the partition (int32) and the offset to begin at (int64; negative: the log
// start). Every replica that is online is asked for a hash over the same records
// from there on, some tens of megabytes of them; who asks goes on where the answer
// ends. A node works on one at a time. The response is as that of Status, with the JSON of
// admin.PartitionCheck.

// ReplicaCheckKey is the API key of ReplicaCheck.
const ReplicaCheckKey = StatusKey + 1

const replicaCheckTimeout = time.Minute

// serveReplicaCheck begins to answer. An error ends the connection.
func (r *request) serveReplicaCheck(body []byte) error {
	name, partition, from, ok := parseReplicaCheck(body)
	if r.header.Version != 0 || !ok {
		err := fmt.Errorf("%w: ReplicaCheck version %d with %d bytes", kafkaproto.ErrNotServed, r.header.Version, len(body))
		r.hangUp(err)
		return err
	}
	r.background(func() {
		ctx, cancel := context.WithTimeout(r.reply.Open(), replicaCheckTimeout)
		defer cancel()
		s := r.conn.server
		var check *admin.PartitionCheck
		topic, unknown := r.findNamed(s.catalog.Topics(), name)
		id, err := r.findPartitionHere(topic, unknown, partition)
		if err == nil {
			// Every replica reads and hashes tens of megabytes for it.
			if err = s.checks.Acquire(ctx, 1); err != nil {
				err = fmt.Errorf("%w: another check is under way", outcome.ErrTimeout)
			}
		}
		if err == nil {
			defer s.checks.Release(1)
			check, err = s.operations.CheckReplicas(ctx, id, from)
		}
		r.answerJSON(ReplicaCheckKey, check, err)
	})
	return nil
}

func parseReplicaCheck(body []byte) (topic string, partition int32, from fsm.Offset, ok bool) {
	if len(body) < 2 {
		return "", 0, 0, false
	}
	n := int(binary.BigEndian.Uint16(body))
	if n == 0 || len(body) != 2+n+4+8 {
		return "", 0, 0, false
	}
	rest := body[2+n:]
	return string(body[2 : 2+n]), int32(binary.BigEndian.Uint32(rest)), fsm.Offset(binary.BigEndian.Uint64(rest[4:])), true
}

// answerJSON answers one of Trimaran's own APIs: an error code (int16) and, with
// its length (int32), JSON, which is empty when the code is not 0.
func (r *request) answerJSON(key int16, what any, err error) {
	var text []byte
	if err == nil {
		if text, err = json.Marshal(what); err != nil {
			err = fmt.Errorf("%w: %w", outcome.ErrUnknown, err)
		}
	}
	code := r.note(codeOf(err, kmsg.Key(key), 0))
	frame := make([]byte, 4, 16+len(text))
	frame = kafkaproto.AppendResponseHeader(frame, r.header)
	frame = binary.BigEndian.AppendUint16(frame, uint16(code))
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(text)))
	r.answerFrame(append(frame, text...))
}
