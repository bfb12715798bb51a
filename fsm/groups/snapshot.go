package groups

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"

	"github.com/trimaran-io/trimaran/fsm/fields"
)

// A snapshot, numbers of fixed size big endian, the others as in commands:
//
//	magic      4   "TriG"
//	version    2   1, or 2 where there is something of transactions
//	number of groups, then each, in the order of their ids:
//	  id; 0 or 1 and its Group
//	  number of topics, then each, in the order of their names:
//	    name; id; number of partitions, then each, ascending: partition, Offset
//	in version 2, number of groups with transactional producers, then each, ordered by id:
//	  id; number of producers, at least one, then each, ascending:
//	    id; epoch; 0, or 1 and number and time of its last marker
//	    number of topics, then each, in the order of their names:
//	      name; id; number of partitions, then each, ascending:
//	        partition, 0 or 1 for overtaken, Offset
//	CRC-32C    4   over everything before it
const (
	snapshotMagic   = "TriG"
	snapshotVersion = 2
	// snapshotWithout is the version without transactions, which earlier programs know, too.
	snapshotWithout = 1
	snapshotHead    = len(snapshotMagic) + 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Snapshot gives the whole state as bytes; the same state, the same bytes.
func (s *State) Snapshot() []byte {
	b := append(make([]byte, 0, 64+s.bytes/2), snapshotMagic...)
	version := uint16(snapshotWithout)
	if len(s.pending) > 0 {
		version = snapshotVersion
	}
	b = binary.BigEndian.AppendUint16(b, version)
	b = binary.AppendUvarint(b, uint64(len(s.groups)))
	for _, id := range slices.Sorted(maps.Keys(s.groups)) {
		g := s.groups[id]
		b = fields.AppendString(b, id)
		if g.meta == nil {
			b = append(b, 0)
		} else {
			b = appendGroup(append(b, 1), *g.meta)
		}
		b = binary.AppendUvarint(b, uint64(len(g.topics)))
		for _, topic := range slices.Sorted(maps.Keys(g.topics)) {
			t := g.topics[topic]
			b = append(fields.AppendString(b, topic), t.id[:]...)
			b = binary.AppendUvarint(b, uint64(len(t.partitions)))
			for _, partition := range slices.Sorted(maps.Keys(t.partitions)) {
				b = appendOffset(binary.AppendVarint(b, int64(partition)), t.partitions[partition])
			}
		}
	}
	if version > snapshotWithout {
		b = s.appendPending(b)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func (s *State) appendPending(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(s.pending)))
	for _, group := range slices.Sorted(maps.Keys(s.pending)) {
		t := s.pending[group]
		b = binary.AppendUvarint(fields.AppendString(b, group), uint64(len(t.producers)))
		for _, id := range slices.Sorted(maps.Keys(t.producers)) {
			p := t.producers[id]
			b = binary.AppendVarint(binary.AppendVarint(b, id), int64(p.epoch))
			if b = fields.AppendBool(b, p.ended); p.ended {
				b = binary.AppendVarint(binary.AppendVarint(b, int64(p.number)), p.at)
			}
			b = binary.AppendUvarint(b, uint64(len(p.topics)))
			for _, topic := range slices.Sorted(maps.Keys(p.topics)) {
				on := p.topics[topic]
				b = append(fields.AppendString(b, topic), on.id[:]...)
				b = binary.AppendUvarint(b, uint64(len(on.partitions)))
				for _, partition := range slices.Sorted(maps.Keys(on.partitions)) {
					o := on.partitions[partition]
					b = appendOffset(fields.AppendBool(binary.AppendVarint(b, int64(partition)), o.overtaken), o.Offset)
				}
			}
		}
	}
	return b
}

// RestoreState gives the state that Snapshot was called on. The error wraps
// ErrMalformed and says what is wrong: damage, another kind of file, a format newer
// than this program (fsm.ErrNewer), or contents that no state can have. What it allocates is within
// a small multiple of len(data).
func RestoreState(data []byte) (*State, error) {
	s, err := restoreState(data)
	if err != nil {
		return nil, fmt.Errorf("snapshot of consumer groups: %w", err)
	}
	return s, nil
}

func restoreState(data []byte) (*State, error) {
	if len(data) < snapshotHead+4 {
		return nil, fields.Malformed("%d bytes are too few", len(data))
	}
	if string(data[:4]) != snapshotMagic {
		return nil, fields.Malformed("it begins with %q, want %q", data[:4], snapshotMagic)
	}
	body, sum := data[:len(data)-4], binary.BigEndian.Uint32(data[len(data)-4:])
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return nil, fields.Malformed("damaged: CRC %08x, its bytes give %08x", sum, got)
	}
	version := binary.BigEndian.Uint16(data[4:])
	if v := version; v > snapshotVersion {
		return nil, fields.Newer("format %d, this program knows %d", v, snapshotVersion)
	} else if v < snapshotWithout {
		return nil, fields.Malformed("format %d, this program knows %d", v, snapshotVersion)
	}
	s := NewState()
	r := &reader{fields.Reader{B: body[snapshotHead:]}}
	lastID := ""
	for i := range r.count(3) {
		id := r.String(MaxGroupID)
		if i > 0 && id <= lastID {
			r.Fail("group %q is out of order", id)
		}
		if lastID = id; r.Err != nil {
			break
		}
		s.restoreGroup(r, id)
	}
	if version > snapshotWithout {
		s.restorePending(r)
	}
	if err := r.End(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *State) restoreGroup(r *reader, id string) {
	switch r.Byte() {
	case 0:
	case 1:
		if meta := r.group(); r.Err == nil {
			s.setGroup(id, meta)
		}
	default:
		r.Fail("group %q neither has members nor has it none", id)
	}
	lastTopic := ""
	for i := range r.count(len([16]byte{}) + 2) {
		topic, topicID := r.String(MaxTopic), r.TopicID()
		if i > 0 && topic <= lastTopic {
			r.Fail("topic %q is out of order", topic)
		}
		lastTopic = topic
		n, last := r.count(5), int32(0)
		if n == 0 {
			r.Fail("no offsets in topic %q", topic)
		}
		for j := range n {
			partition, offset := r.Int32(), r.offset()
			if j > 0 && partition <= last {
				r.Fail("partition %d is out of order", partition)
			}
			if last = partition; r.Err != nil {
				return
			}
			s.setOffset(id, topic, topicID, partition, offset)
		}
	}
	if r.Err == nil && s.groups[id] == nil {
		r.Fail("nothing of group %q", id)
	}
}

// leastProducer is what a producer takes at least.
const leastProducer = 4

func (s *State) restorePending(r *reader) {
	n, last := r.count(2+leastProducer), ""
	if n == 0 {
		r.Fail("no transactions")
	}
	for i := range n {
		group := r.String(MaxGroupID)
		if i > 0 && group <= last {
			r.Fail("transactions of group %q are out of order", group)
		}
		last = group
		count, lastID := r.count(leastProducer), int64(-1)
		if count == 0 {
			r.Fail("no producers in group %q", group)
		}
		for range count {
			id := r.producerID()
			if id <= lastID {
				r.Fail("producer %d is out of order", id)
			}
			if lastID = id; r.Err != nil {
				return
			}
			s.restoreProducer(r, group, id)
		}
	}
	s.idle.sort()
}

func (s *State) restoreProducer(r *reader, group string, id int64) {
	epoch, ended := r.epoch(), r.Bool()
	if r.Err != nil {
		return
	}
	p := s.producer(group, id)
	p.epoch = epoch
	if p.ended = ended; ended {
		p.number, p.at = r.Int32(), r.Varint()
	}
	lastTopic := ""
	topics := r.count(len([16]byte{}) + 2)
	if topics == 0 && !ended {
		r.Fail("nothing of producer %d", id)
	} else if topics == 0 {
		s.idle.push(p)
	}
	for i := range topics {
		topic, topicID := r.String(MaxTopic), r.TopicID()
		if i > 0 && topic <= lastTopic {
			r.Fail("topic %q is out of order", topic)
		}
		lastTopic = topic
		n, last := r.count(6), int32(0)
		if n == 0 {
			r.Fail("nothing pending in topic %q", topic)
		}
		for _, other := range s.pending[group].open {
			if on := other.topics[topic]; on != nil && on.id != topicID {
				r.Fail("two topics are called %q in group %q", topic, group)
			}
		}
		for j := range n {
			partition, o := r.Int32(), pendingOffset{overtaken: r.Bool(), Offset: r.offset()}
			if j > 0 && partition <= last {
				r.Fail("partition %d is out of order", partition)
			}
			if last = partition; r.Err != nil {
				return
			}
			s.setPending(group, id, epoch, topic, topicID, partition, o)
		}
	}
}
