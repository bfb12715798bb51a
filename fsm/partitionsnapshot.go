package fsm

import (
	"encoding/binary"
	"fmt"
	"math"
)

const (
	partitionMagic   = "TriP"
	partitionVersion = tiersVersion // 1 had no producers

	// transactionsVersion is written only where there is something of transactions in the state,
	// so that programs that know of none read all other snapshots.
	transactionsVersion = 3

	// compactionVersion is written only where something was decided, for the same reason.
	compactionVersion = 4

	// tiersVersion is written only where a tier was used, for the same reason.
	tiersVersion = 5
)

// A partition's snapshot, inside of the envelope, is a row of numbers, each a
// variable-length integer of encoding/binary but the chain, which has 8 bytes:
//
//	last applied index, next offset, log start offset, chain, producers (see producers.go),
//	from version 3 on: aborted transactions (see transactions.go),
//	from version 4 on: the newest decision on compaction, and rows (see compaction.go),
//	from version 5 on: what is in the tier, what is gone from there, the local start (see tiers.go)

// Snapshot gives the whole state as bytes; the same state, the same bytes.
func (p *PartitionState) Snapshot() []byte {
	version := uint16(transactionsVersion - 1)
	if p.transactional() {
		version = transactionsVersion
	}
	if p.compaction.Index != 0 {
		version = compactionVersion
	}
	if p.tiers.known() {
		version = tiersVersion
	}
	return seal(partitionMagic, version, func(b []byte) []byte {
		put := func(v uint64) { b = binary.AppendUvarint(b, v) }
		put(uint64(p.applied))
		put(uint64(p.next))
		put(uint64(p.logStart))
		b = binary.BigEndian.AppendUint64(b, p.chain)
		b = p.producers.snapshot(b, version)
		if version >= transactionsVersion {
			b = snapshotAborted(b, p.aborted)
		}
		if version >= compactionVersion {
			b = p.snapshotCompaction(b)
		}
		if version >= tiersVersion {
			b = p.snapshotTiers(b)
		}
		return b
	})
}

// RestorePartition gives the state that Snapshot was called on. The error wraps
// ErrSnapshot and says what is wrong: damage, another kind of file, a format
// newer than this program, or contents that no partition can have.
func RestorePartition(data []byte) (*PartitionState, error) {
	payload, version, err := unseal(partitionMagic, partitionVersion, data)
	if err != nil {
		return nil, fmt.Errorf("partition: %w", err)
	}
	r := numbers{b: payload}
	p := &PartitionState{
		applied:   Index(r.unsigned()),
		next:      Offset(r.positive()),
		logStart:  Offset(r.positive()),
		chain:     r.fixed(),
		producers: newProducerTable(),
	}
	if version >= 2 {
		p.producers.restore(&r, version)
	}
	if version >= transactionsVersion {
		p.aborted = restoreAborted(&r)
	}
	if version >= compactionVersion {
		p.restoreCompaction(&r)
	}
	if version >= tiersVersion {
		p.restoreTiers(&r)
	}
	if r.bad || len(r.b) > 0 {
		return nil, fmt.Errorf("partition: %w: malformed", ErrSnapshot)
	}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("partition: %w: %w", ErrSnapshot, err)
	}
	return p, nil
}

// check reports whether what the fields promise of each other holds.
func (p *PartitionState) check() error {
	if p.logStart > p.next {
		return fmt.Errorf("log start %d above the end %d", p.logStart, p.next)
	}
	for n := range p.producers.all() {
		if n.state.Open && n.state.First >= p.next {
			return fmt.Errorf("producer %d has a transaction open from %d on, the log ends at %d", n.state.ID, n.state.First, p.next)
		}
		for _, b := range n.state.Batches() {
			if b.Base >= p.next {
				return fmt.Errorf("producer %d has a batch at %d, the log ends at %d", n.state.ID, b.Base, p.next)
			}
		}
	}
	if n := len(p.aborted); n > 0 && p.aborted[n-1].Last >= p.next {
		return fmt.Errorf("a transaction was aborted at %d, the log ends at %d", p.aborted[n-1].Last, p.next)
	}
	if err := p.checkCompaction(); err != nil {
		return err
	}
	return p.checkTiers()
}

// numbers reads the payload. After a number that is missing or out of bounds,
// bad is true and everything reads as 0.
type numbers struct {
	b   []byte
	bad bool
}

func (r *numbers) fail() {
	r.b, r.bad = nil, true
}

func (r *numbers) unsigned() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// positive reads a number that fits an int64.
func (r *numbers) positive() int64 {
	v := r.unsigned()
	if v > math.MaxInt64 {
		r.fail()
		return 0
	}
	return int64(v)
}

// signed reads a number that may be negative.
func (r *numbers) signed() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// int32 reads a number of 32 bits that may be negative.
func (r *numbers) int32() int32 {
	v := r.signed()
	if v != int64(int32(v)) {
		r.fail()
		return 0
	}
	return int32(v)
}

// atMost reads a number up to limit.
func (r *numbers) atMost(limit uint64) uint64 {
	v := r.unsigned()
	if v > limit {
		r.fail()
		return 0
	}
	return v
}

func (r *numbers) fixed() uint64 {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	v := binary.BigEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}
