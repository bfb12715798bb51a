package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

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
	controlShard    = 0x83 // of consumer groups and transactions, see groupshards.go; likewise
	controlCompact  = 0x84 // then numbers, see compaction.go
	controlTier     = 0x85 // then numbers, see tiers.go
	controlLast     = controlTier

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

// GoodBatch decides whether the batch, which stands in an entry with that stamp,
// has its place in the log when the next offset is next: its base offset is
// next, its leader epoch is the term's, and it has no gaps; a restored one, see
// checkRestored. Apply and whoever reads the log again decide by it, or they would see different
// logs.
// The CRC is not looked at: it was checked where the batch came in.
func GoodBatch(batch kafkaproto.Batch, next Offset, stamp Stamp) bool {
	return checkPlace(batch.Header(), next, stamp) == nil
}

// checkPlace is GoodBatch with the reason, ErrCorruptMessage or ErrVoid.
func checkPlace(h kafkaproto.BatchHeader, next Offset, stamp Stamp) error {
	term := stamp.Term
	switch {
	case stamp.Restored:
		return checkRestored(h, next, stamp)
	case h.Records < 1 || int64(h.Records) != int64(h.LastOffsetDelta)+1:
		// Gaps come from compaction, which never goes through the Raft log.
		return fmt.Errorf("%w: batch of %d records in %d offsets", outcome.ErrCorruptMessage, h.Records, int64(h.LastOffsetDelta)+1)
	case LeaderEpoch(h.LeaderEpoch) != term.Epoch():
		return fmt.Errorf("%w: stamped in epoch %d, committed in %d", outcome.ErrVoid, h.LeaderEpoch, term.Epoch())
	case Offset(h.BaseOffset) != next:
		return fmt.Errorf("%w: stamped with offset %d, the next is %d", outcome.ErrVoid, h.BaseOffset, next)
	}
	return nil
}

// Entry is one committed command of a partition's Raft log.
type Entry struct {
	Index      Index
	Term       Term  // of the leader that proposed it
	AppendedAt int64 // ms since epoch, by that leader's clock
	Data       []byte
	Extensions []byte // RestoredExtensions or nothing
}

// Applied is what the proposer of an entry is told.
type Applied struct {
	// Batches has one element per record batch of the entry, in order. The
	// BaseOffset of a void batch, which took no offsets, is -1. Bytes that are no
	// batch count as one void batch, up to the entry's end.
	Batches []Appended
	// MaxTimestamp is the largest timestamp of the batches that were appended, ms since epoch;
	// math.MinInt64 if none was.
	MaxTimestamp int64
	// Err says why the first void batch or the control command had no effect. With ErrNewer nothing
	// was applied at all.
	Err error
	// Breach, if not nil, says that a batch or marker was appended which its producer's state
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

	// of the good batches up to next; decides nothing here, see producers.go
	producers producerTable
	// aborted is in the order of Last, appended to and cut only; see transactions.go
	aborted []AbortedTransaction

	compaction Compaction // the newest decision
	cleaned    []cleaned  // what earlier ones left clean above the horizon, ascending

	tiers tiers
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

// Apply takes the next entry of the log. It decides by the state and the entry
// alone, so a batch that is void here is void on every replica. An entry at or
// below LastApplied is not applied again, and one that a newer program wrote not at all (ErrNewer).
func (p *PartitionState) Apply(e Entry) Applied {
	if e.Index <= p.applied {
		return none(fmt.Errorf("%w: entry %d applied after %d", outcome.ErrUnknown, e.Index, p.applied))
	}
	if err := knownExtensions(e.Extensions); err != nil {
		return none(err)
	}
	if !IsRecords(e.Data) {
		if err := knownControl(e.Data); err != nil {
			return none(err)
		}
		if IsCompact(e.Data) {
			if _, _, err := parseCompact(e.Data); errors.Is(err, ErrNewer) {
				return none(err)
			}
		}
		if isTier(e.Data) {
			if _, err := parseTier(e.Data); errors.Is(err, ErrNewer) {
				return none(err)
			}
		}
		p.applied = e.Index
		return none(p.control(e))
	}
	// The entry's bytes come from Raft's log or from another node: they are looked at here, once.
	var few [4]kafkaproto.Batch
	batches, rest, err := splitRecords(e.Data, few[:0])
	if err != nil && errors.Is(err, ErrNewer) {
		return none(err)
	}
	p.applied = e.Index
	return p.applyRecords(e, batches, rest, err)
}

// none is what becomes of an entry that appends no records.
func none(err error) Applied { return Applied{MaxTimestamp: math.MinInt64, Err: err} }

// splitRecords gives the batches that an entry's data begin with, in the memory of into if they
// have room there, and what is left when there are no more. The error says why that is not nothing:
// ErrNewer if a newer program wrote it, else ErrCorruptMessage.
func splitRecords(data []byte, into []kafkaproto.Batch) (batches []kafkaproto.Batch, rest []byte, err error) {
	batches, rest = into, data
	for batch, bad := range kafkaproto.Batches(data) {
		if bad != nil {
			if err = newerBatch(bad, rest); err == nil {
				err = outcome.With(outcome.ErrCorruptMessage, bad)
			}
			break
		}
		batches, rest = append(batches, batch), rest[batch.Size():]
	}
	return batches, rest, err
}

func (p *PartitionState) applyRecords(e Entry, batches []kafkaproto.Batch, rest []byte, bad error) Applied {
	result := none(nil)
	result.Batches = make([]Appended, 0, len(batches)+min(len(rest), 1))
	void := func(err error) {
		result.Batches = append(result.Batches, Appended{BaseOffset: -1, LogStart: p.logStart})
		if result.Err == nil {
			result.Err = err
		}
	}
	stamp := StampOf(uint64(e.Term), e.Extensions)
	for i := range batches {
		header := batches[i].Header()
		if err := checkPlace(header, p.next, stamp); err != nil {
			void(err)
			continue
		}
		p.next = Offset(header.BaseOffset) // where it is not that already, offsets are missing
		result.Batches = append(result.Batches, Appended{BaseOffset: p.next, LogStart: p.logStart, Timestamp: header.MaxTimestamp})
		result.MaxTimestamp = max(result.MaxTimestamp, header.MaxTimestamp)
		var breach error
		if stamp.Restored {
			p.restore(batches[i], e.AppendedAt)
		} else if header.Control() {
			breach = p.endTransaction(batches[i], e.AppendedAt)
		} else {
			breach = p.producers.append(header, p.next, e.AppendedAt)
		}
		if breach != nil && result.Breach == nil {
			result.Breach = breach
		}
		p.extend(header)
	}
	if len(rest) > 0 {
		void(bad)
	}
	return result
}

// extend takes a good batch into the log.
func (p *PartitionState) extend(h kafkaproto.BatchHeader) {
	p.chain = chain(p.chain, h)
	p.next = Offset(h.NextOffset())
}

func (p *PartitionState) control(e Entry) error {
	switch data := e.Data; {
	case len(data) == 0:
		return fmt.Errorf("%w: empty entry", outcome.ErrUnknown)
	case data[0] == controlNone:
		return nil
	case data[0] == controlLogStart && len(data) == logStartSize:
		return p.advanceLogStart(Offset(binary.BigEndian.Uint64(data[1:])), e.AppendedAt)
	case data[0] == controlCompact:
		return p.compact(e.Index, data)
	case data[0] == controlTier:
		return p.tier(e)
	}
	return fmt.Errorf("%w: control command %#x of %d bytes", outcome.ErrUnknown, e.Data[0], len(e.Data))
}

// advanceLogStart moves the log start up, at a time, ms since epoch. A start that is reached
// already is no error: the deciding leader may have been overtaken by another.
func (p *PartitionState) advanceLogStart(start Offset, at int64) error {
	if start < 0 || start > p.next {
		return fmt.Errorf("%w: log start %d, the log ends at %d", outcome.ErrOffsetOutOfRange, start, p.next)
	}
	p.moveLogStart(start, at)
	return nil
}

// moveLogStart moves the log start up if it is below.
func (p *PartitionState) moveLogStart(start Offset, at int64) {
	if start <= p.logStart {
		return
	}
	p.logStart = start
	p.tiers.below(start, at)
	p.DropAborted(start)
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
