package fsm

import (
	"encoding/binary"
	"fmt"

	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// The first byte of an entry's data tells what it is. Below 0x80 it is the high
// byte of a base offset, which is never negative, so the data are record batches
// (magic 2), one or more, exactly as clients will read them. From 0x80 on it is
// a control command.
const (
	controlFirst    = 0x80
	controlNone     = 0x80 // does nothing
	controlLogStart = 0x81 // then 8 bytes, big endian: the new log start offset
	controlGroups   = 0x82 // of consumer groups, see groupshards.go; never in a partition's log
	controlLast     = controlGroups

	logStartSize = 9
)

// IsRecords reports whether an entry's data are record batches rather than a
// control command.
func IsRecords(data []byte) bool { return len(data) > 0 && data[0] < controlFirst }

// LogStartCommand gives the data of an entry that advances the log start offset,
// so that records below it are gone on all replicas alike.
func LogStartCommand(start Offset) []byte {
	return binary.BigEndian.AppendUint64([]byte{controlLogStart}, uint64(start))
}

// ParseLogStart gives the offset of a LogStartCommand; ok is false for other data.
func ParseLogStart(data []byte) (start Offset, ok bool) {
	if len(data) != logStartSize || data[0] != controlLogStart {
		return 0, false
	}
	return Offset(binary.BigEndian.Uint64(data[1:])), true
}

// GoodBatch decides whether the batch, which stands in an entry of that term,
// has its place in the log when the next offset is next: its base offset is
// next, its leader epoch is the term's, and its header is sound. Apply and
// whoever reads the log again decide by it, or they would see different logs.
// The CRC is not looked at: it was checked where the batch came in.
func GoodBatch(batch []byte, next Offset, term Term) (kafkaproto.BatchHeader, bool) {
	h, err := checkPlace(batch, next, term)
	return h, err == nil
}

// checkPlace is GoodBatch with the reason, ErrCorruptMessage or ErrVoid.
func checkPlace(batch []byte, next Offset, term Term) (kafkaproto.BatchHeader, error) {
	h, err := kafkaproto.ParseBatchHeader(batch)
	switch {
	case err != nil:
		return h, outcome.With(outcome.ErrCorruptMessage, err)
	case h.Size() != len(batch):
		return h, fmt.Errorf("%w: batch of %d bytes says it has %d", outcome.ErrCorruptMessage, len(batch), h.Size())
	case h.Records < 1 || int64(h.Records) != int64(h.LastOffsetDelta)+1:
		// Gaps come from compaction, which never goes through the Raft log.
		return h, fmt.Errorf("%w: batch of %d records in %d offsets", outcome.ErrCorruptMessage, h.Records, int64(h.LastOffsetDelta)+1)
	case LeaderEpoch(h.LeaderEpoch) != term.Epoch():
		return h, fmt.Errorf("%w: stamped in epoch %d, committed in %d", outcome.ErrVoid, h.LeaderEpoch, term.Epoch())
	case Offset(h.BaseOffset) != next:
		return h, fmt.Errorf("%w: stamped with offset %d, the next is %d", outcome.ErrVoid, h.BaseOffset, next)
	}
	return h, nil
}

// Entry is one committed command of a partition's Raft log.
type Entry struct {
	Index      Index
	Term       Term  // of the leader that proposed it
	AppendedAt int64 // ms since epoch, by that leader's clock
	Data       []byte
}

// Applied is what the proposer of an entry is told.
type Applied struct {
	// Batches has one element per record batch of the entry, in order. The
	// BaseOffset of a void batch, which took no offsets, is -1. Bytes that are no
	// batch count as one void batch, up to the entry's end.
	Batches []Appended
	// Err says why the first void batch or the control command had no effect. With ErrNewer nothing was
	// applied at all.
	Err error
	// Breach, if not nil, says that a batch was appended which its producer's state
	// does not allow: its proposer was wrong. See producers.go.
	Breach error
}

// PartitionState is the state machine of one partition. It holds no records and
// does not know where they are: the records stay in the Raft log, which has an
// index of its own. It is not safe for
// concurrent use.
type PartitionState struct {
	applied  Index  // of the last entry applied
	next     Offset // of the next record
	logStart Offset // 0 <= logStart <= next
	chain    uint64 // over every good batch up to next

	producers producerTable // of the good batches up to next; decides nothing here, see producers.go
}

// NewPartition gives the machine of an empty partition.
func NewPartition() *PartitionState {
	return &PartitionState{chain: chainSeed, producers: newProducerTable()}
}

// NextOffset is the offset that the next record gets: the log end offset, and
// since only committed entries are applied, this replica's high watermark.
func (p *PartitionState) NextOffset() Offset { return p.next }

// LogStart is the first offset that can be read.
func (p *PartitionState) LogStart() Offset { return p.logStart }

// LastApplied is the Raft index of the last entry applied; 0 before the first.
func (p *PartitionState) LastApplied() Index { return p.applied }

// HashChain is a hash over all batches ever applied: base offset, leader epoch
// and CRC of each. Two replicas with the same next offset have the same chain,
// or their logs differ somewhere below. It detects bugs and bit rot, not forgery.
func (p *PartitionState) HashChain() uint64 { return p.chain }

// Apply takes the next entry of the log. It decides by the state and the entry
// alone, so a batch that is void here is void on every replica. An entry at or
// below LastApplied is not applied again, and one that a newer program wrote not at all (ErrNewer).
func (p *PartitionState) Apply(e Entry) Applied {
	if e.Index <= p.applied {
		return Applied{Err: fmt.Errorf("%w: entry %d applied after %d", outcome.ErrUnknown, e.Index, p.applied)}
	}
	if err := checkKnown(e.Data); err != nil {
		return Applied{Err: err}
	}
	p.applied = e.Index
	if IsRecords(e.Data) {
		return p.applyRecords(e)
	}
	return Applied{Err: p.control(e.Data)}
}

func (p *PartitionState) applyRecords(e Entry) Applied {
	var result Applied
	void := func(err error) {
		result.Batches = append(result.Batches, Appended{BaseOffset: -1, LogStart: p.logStart})
		if result.Err == nil {
			result.Err = err
		}
	}
	for batch, err := range kafkaproto.SplitBatches(e.Data) {
		if err != nil {
			void(outcome.With(outcome.ErrCorruptMessage, err))
			break
		}
		header, err := checkPlace(batch, p.next, e.Term)
		if err != nil {
			void(err)
			continue
		}
		result.Batches = append(result.Batches, Appended{BaseOffset: p.next, LogStart: p.logStart, Timestamp: header.MaxTimestamp})
		if err := p.producers.append(header, p.next, e.AppendedAt); err != nil && result.Breach == nil {
			result.Breach = err
		}
		p.extend(header)
	}
	return result
}

// extend takes a good batch into the log.
func (p *PartitionState) extend(h kafkaproto.BatchHeader) {
	p.chain = chain(p.chain, h)
	p.next = Offset(h.NextOffset())
}

func (p *PartitionState) control(data []byte) error {
	switch {
	case len(data) == 0:
		return fmt.Errorf("%w: empty entry", outcome.ErrUnknown)
	case data[0] == controlNone:
		return nil
	case data[0] == controlLogStart && len(data) == logStartSize:
		return p.advanceLogStart(Offset(binary.BigEndian.Uint64(data[1:])))
	}
	return fmt.Errorf("%w: control command %#x of %d bytes", outcome.ErrUnknown, data[0], len(data))
}

// advanceLogStart moves the log start up. A start that is reached already is
// no error: the deciding leader may have been overtaken by another.
func (p *PartitionState) advanceLogStart(start Offset) error {
	if start < 0 || start > p.next {
		return fmt.Errorf("%w: log start %d, the log ends at %d", outcome.ErrOffsetOutOfRange, start, p.next)
	}
	if start <= p.logStart {
		return nil
	}
	p.logStart = start
	return nil
}

// chainSeed and chainPrime are those of FNV-1a, 64 bits.
const (
	chainSeed  = 14695981039346656037
	chainPrime = 1099511628211
)

// chain mixes the batch's place and content into the chain before it. The CRC
// stands for everything that the header and the records say.
func chain(c uint64, h kafkaproto.BatchHeader) uint64 {
	for _, v := range [...]uint64{uint64(h.BaseOffset), uint64(uint32(h.LeaderEpoch))<<32 | uint64(h.CRC)} {
		for range 8 {
			c = (c ^ v&0xff) * chainPrime
			v >>= 8
		}
	}
	return c
}
