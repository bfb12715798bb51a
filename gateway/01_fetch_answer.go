package gateway

import (
	"encoding/binary"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/kafkaproto"
)

// gatherFrom is the size of record batches from which an answer is sent in
// parts, with the batches where they are; smaller ones are cheaper to copy.
const gatherFrom = 16 << 10

// fetchParts encodes the answer of a fetch in version 4 or above as kmsg does, size
// prefix and header included, but leaves record batches where they are: the frame
// is the parts one after another. Tagged fields are not written; a fetch never has any.
func fetchParts(h kafkaproto.Header, resp *kmsg.FetchResponse) [][]byte {
	e := fetchEncoder{b: make([]byte, 4, 256), flexible: resp.IsFlexible()}
	v := resp.Version
	e.b = kafkaproto.AppendResponseHeader(e.b, h)
	e.int32(resp.ThrottleMillis)
	if v >= 7 {
		e.int16(resp.ErrorCode)
		e.int32(resp.SessionID)
	}
	e.length(len(resp.Topics), true)
	for i := range resp.Topics {
		t := &resp.Topics[i]
		if v >= 13 {
			e.b = append(e.b, t.TopicID[:]...)
		} else {
			e.string(t.Topic)
		}
		e.length(len(t.Partitions), true)
		for j := range t.Partitions {
			p := &t.Partitions[j]
			e.int32(p.Partition)
			e.int16(p.ErrorCode)
			e.int64(p.HighWatermark)
			e.int64(p.LastStableOffset)
			if v >= 5 {
				e.int64(p.LogStartOffset)
			}
			e.length(len(p.AbortedTransactions), p.AbortedTransactions != nil)
			for _, a := range p.AbortedTransactions {
				e.int64(a.ProducerID)
				e.int64(a.FirstOffset)
				e.tags()
			}
			if v >= 11 {
				e.int32(p.PreferredReadReplica)
			}
			e.records(p.RecordBatches)
			e.tags()
		}
		e.tags()
	}
	e.tags()
	return e.parts()
}

// fetchEncoder writes fields in the encoding of a version.
type fetchEncoder struct {
	b        []byte // all but the records that are left where they are
	flexible bool   // compact lengths and tagged fields (KIP-482)
	cuts     []cut
	left     int // bytes of records that are not in b
}

// cut is a place in the encoder's bytes where records belong.
type cut struct {
	at      int
	records []byte
}

func (e *fetchEncoder) int16(v int16) { e.b = binary.BigEndian.AppendUint16(e.b, uint16(v)) }
func (e *fetchEncoder) int32(v int32) { e.b = binary.BigEndian.AppendUint32(e.b, uint32(v)) }
func (e *fetchEncoder) int64(v int64) { e.b = binary.BigEndian.AppendUint64(e.b, uint64(v)) }

// length writes the length of an array or of bytes, or that there is none.
func (e *fetchEncoder) length(n int, there bool) {
	switch {
	case e.flexible && there:
		e.b = binary.AppendUvarint(e.b, uint64(n)+1)
	case e.flexible:
		e.b = append(e.b, 0)
	case there:
		e.int32(int32(n))
	default:
		e.int32(-1)
	}
}

func (e *fetchEncoder) string(s string) {
	if e.flexible {
		e.length(len(s), true)
	} else {
		e.int16(int16(len(s)))
	}
	e.b = append(e.b, s...)
}

func (e *fetchEncoder) records(b []byte) {
	e.length(len(b), b != nil)
	if len(b) < gatherFrom {
		e.b = append(e.b, b...)
		return
	}
	e.cuts = append(e.cuts, cut{len(e.b), b})
	e.left += len(b)
}

func (e *fetchEncoder) tags() {
	if e.flexible {
		e.b = append(e.b, 0)
	}
}

// parts fills in the frame's size and gives its parts.
func (e *fetchEncoder) parts() [][]byte {
	binary.BigEndian.PutUint32(e.b, uint32(len(e.b)-4+e.left))
	parts := make([][]byte, 0, 2*len(e.cuts)+1)
	from := 0
	for _, c := range e.cuts {
		parts = append(parts, e.b[from:c.at], c.records)
		from = c.at
	}
	return append(parts, e.b[from:])
}
