package fsm

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// This file says how a topic comes back from a backup. Its groups begin where the old ones began
// (Begin), so offsets stay and leader epochs never go down for a client that lived on. What stood
// in the old logs comes as entries that are marked as restored: their batches keep the leader
// epochs that they had, and there may be offsets missing between them, where the old log was
// compacted. While a topic is restoring, clients cannot append to it, and retention leaves it
// alone.
//
// No producer is remembered of what was restored but those with a transaction open: whoever had
// such an id is another one now, or has forgotten what it sent. New ids are above those that were
// seen (EndRestore.Producers).

// LevelRestore is the level from which on topics can be restored.
const LevelRestore = 6

// The extensions (raft.Log) of an entry that holds restored batches are
//
//	kind 1 (1), the leader epoch of its batches 4, offset of the first 8; little endian
//
// Both stay with what compaction leaves of the entry, be it nothing (raftlog.Compacted). Kind 2 is
// that of compacted entries, which are never applied.
const (
	restoredKind = 1
	restoredSize = 13
)

// RestoredExtensions gives the extensions of an entry that holds restored batches, of one leader
// epoch, the first of which is given.
func RestoredExtensions(first kafkaproto.BatchHeader) []byte {
	b := binary.LittleEndian.AppendUint32([]byte{restoredKind}, uint32(first.LeaderEpoch))
	return binary.LittleEndian.AppendUint64(b, uint64(first.BaseOffset))
}

// Stamp is what decides, with the next offset, whether batches of an entry have their place.
type Stamp struct {
	Term     Term // of the entry
	Restored bool
	// First is the offset of a restored entry's first batch: offsets in front of it that no entry
	// has were compacted before they were restored.
	First    Offset
	restored LeaderEpoch // what it was when they were appended first
}

// StampOf gives the stamp of an entry of a term with those extensions.
func StampOf(term uint64, extensions []byte) Stamp {
	if len(extensions) != restoredSize || extensions[0] != restoredKind {
		return Stamp{Term: Term(term)}
	}
	le := binary.LittleEndian
	return Stamp{Term(term), true, Offset(le.Uint64(extensions[5:])), LeaderEpoch(le.Uint32(extensions[1:]))}
}

// Epoch is the leader epoch of the entry's batches.
func (s Stamp) Epoch() LeaderEpoch {
	if s.Restored {
		return s.restored
	}
	return s.Term.Epoch()
}

// knownExtensions says whether this program knows what an entry is marked with. The error is
// ErrNewer.
func knownExtensions(extensions []byte) error {
	if len(extensions) > 0 && !StampOf(0, extensions).Restored {
		return newer("an entry with extensions of %d bytes", len(extensions))
	}
	return nil
}

// checkRestored is checkPlace for a restored batch: it may be of an older leader epoch, that which
// its entry names, and offsets may be missing in front of it and in it.
func checkRestored(h kafkaproto.BatchHeader, next Offset, stamp Stamp) error {
	epoch, most := stamp.Epoch(), stamp.Term.Epoch()
	switch {
	case h.Control() && h.LastOffsetDelta != 0:
		return fmt.Errorf("%w: a control batch of %d offsets", outcome.ErrCorruptMessage, int64(h.LastOffsetDelta)+1)
	case h.Records < 0 || h.LastOffsetDelta < 0 || int64(h.Records) > int64(h.LastOffsetDelta)+1 || h.BaseOffset > maxRestored-int64(h.LastOffsetDelta)-1:
		return fmt.Errorf("%w: batch of %d records in %d offsets from %d on", outcome.ErrCorruptMessage, h.Records, int64(h.LastOffsetDelta)+1, h.BaseOffset)
	case LeaderEpoch(h.LeaderEpoch) != epoch || epoch < 0 || epoch > most:
		return fmt.Errorf("%w: restored with epoch %d as of %d in %d", outcome.ErrVoid, h.LeaderEpoch, epoch, most)
	case Offset(h.BaseOffset) < next:
		return fmt.Errorf("%w: restored with offset %d, the next is %d", outcome.ErrVoid, h.BaseOffset, next)
	}
	return nil
}

// CheckRestored says whether batches, one behind the other, may be restored where the next offset
// is next, in one entry of a term, and gives the offset behind them: they are of one leader epoch.
// Their CRCs are checked, too. The error is ErrCorruptMessage, or ErrVoid for those that have no
// place there.
func CheckRestored(batches []kafkaproto.Batch, next Offset, term Term) (after Offset, err error) {
	for _, batch := range batches {
		h := batch.Header()
		stamp := StampOf(uint64(term), RestoredExtensions(batches[0].Header()))
		if err := checkRestored(h, next, stamp); err != nil {
			return next, err
		}
		if err := batch.CheckCRC(); err != nil {
			return next, outcome.With(outcome.ErrCorruptMessage, err)
		}
		next = Offset(h.NextOffset())
	}
	return next, nil
}

// maxRestored bounds the offsets of a restored log: sums of two of them are numbers.
const maxRestored = math.MaxInt64 >> 1

// restore takes a batch that has its place into what is known of producers and transactions.
func (p *PartitionState) restore(batch kafkaproto.Batch, at int64) {
	switch h := batch.Header(); {
	case h.Control():
		_ = p.endTransaction(batch, at) // what the old leader took is not judged again
		if n := p.producers.byID[h.ProducerID]; n != nil && !n.state.Open {
			p.producers.forget(p.producers.listOf(n), n)
		}
	case h.Transactional() && h.Records > 0: // else it is no part of its transaction any more
		_ = p.producers.append(h, p.next, at)
	}
}

// Begin is where a partition's log begins that is restored.
type Begin struct {
	Offset Offset `json:"offset"`
	// Term is one that the old group was in: the new one has higher ones.
	Term Term `json:"term"`
}

// maxBeginTerm leaves room for elections in the 31 bits that a leader epoch has.
const maxBeginTerm = 1<<31 - 1<<20

func (b *Begin) check() error {
	if b.Offset < 0 || b.Offset > maxRestored || b.Term < 1 || b.Term > maxBeginTerm {
		return fmt.Errorf("%w: a log that begins at offset %d in term %d", outcome.ErrInvalidConfig, b.Offset, b.Term)
	}
	return nil
}

// beginIndex is the index of the snapshot that a group begins with whose log is restored.
const beginIndex = 1

// NewPartitionAt gives the machine of an empty partition whose log begins at an offset: that of a
// snapshot of the entry at index 1, which no log has.
func NewPartitionAt(offset Offset) *PartitionState {
	p := NewPartition()
	p.applied, p.next, p.logStart = beginIndex, offset, offset
	return p
}

// maxOrigin bounds what a topic says of where it comes from, in bytes.
const maxOrigin = 256

// checkRestoring checks what a new topic, or one of a snapshot, says of its restore.
func (t *Topic) checkRestoring() error {
	if len(t.Origin) > maxOrigin || t.Restoring && t.Origin == "" {
		return fmt.Errorf("%w: topic %s is restored from %q", outcome.ErrInvalidConfig, t.Name, t.Origin)
	}
	for i := range t.Partitions {
		begin := t.Partitions[i].Begin
		if begin == nil {
			continue
		}
		if t.Origin == "" {
			return fmt.Errorf("%w: topic %s, partition %d begins in the middle and is not restored", outcome.ErrInvalidConfig, t.Name, i)
		}
		if err := begin.check(); err != nil {
			return err
		}
	}
	return nil
}

// RestoreSpec is a wish for a topic that is to be restored. Level LevelRestore.
type RestoreSpec struct {
	ID     TopicID `json:"id"`
	Origin string  `json:"origin"`
	Begin  []Begin `json:"begin"` // of each partition
}

// EndRestore says that all of a topic is restored: clients may append to it. LevelRestore. Done
// twice it changes nothing.
type EndRestore struct {
	Topic TopicID `json:"topic"`
	// Producers is the largest producer id in what was restored, -1 if there is none: nobody gets
	// one up to it any more.
	Producers int64 `json:"producers"`
}

func (c *Catalog) endRestore(e *EndRestore) (*Topics, error) {
	topic, ok := c.view.byID[e.Topic]
	if !ok {
		return nil, fmt.Errorf("%w: no topic has id %s", outcome.ErrUnknownTopicOrPartition, e.Topic)
	}
	if e.Producers < -1 || e.Producers > math.MaxInt64>>1 {
		return nil, fmt.Errorf("%w: producer id %d", outcome.ErrInvalidConfig, e.Producers)
	}
	floor := max(c.view.producerFloor, e.Producers+1)
	if !topic.Restoring && floor == c.view.producerFloor {
		return c.view, nil
	}
	restored := *topic
	restored.Restoring = false
	next := c.view.withTopic(&restored)
	next.producerFloor = floor
	return next, nil
}

// ProducerFloor is the first producer id that may be handed out: those below may be in what was
// restored.
func (t *Topics) ProducerFloor() int64 { return t.producerFloor }
