package transactions

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/trimaran-io/trimaran/fsm/fields"
)

// A snapshot, numbers of fixed size big endian, the others as in commands:
//
//	magic      4   "TriT"
//	version    2   1
//	highest revision
//	number of ids, then each, in their order:
//	  id; revision; Producer; what its transaction touches, as in a command
//	CRC-32C    4   over everything before it
const (
	snapshotMagic   = "TriT"
	snapshotVersion = 1
	snapshotHead    = len(snapshotMagic) + 2
	leastStored     = 17 // bytes of an id with what belongs to it, at least
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Snapshot gives the whole state as bytes; the same state, the same bytes.
func (s *State) Snapshot() []byte {
	b := append(make([]byte, 0, 64+s.bytes/3), snapshotMagic...)
	b = binary.BigEndian.AppendUint16(b, snapshotVersion)
	b = binary.AppendUvarint(b, s.revision)
	b = binary.AppendUvarint(b, uint64(len(s.ids)))
	for _, id := range s.IDs() {
		t := s.ids[id]
		b = binary.AppendUvarint(fields.AppendString(b, id), t.revision)
		b = appendScope(appendProducer(b, t.producer), s.Scope(id))
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// RestoreState gives the state that Snapshot was called on. The error wraps ErrMalformed and says
// what is wrong: damage, another kind of file, a format newer than this program (fsm.ErrNewer), or
// contents that no state can have. What it allocates is within a small multiple of len(data).
func RestoreState(data []byte) (*State, error) {
	s, err := restoreState(data)
	if err != nil {
		return nil, fmt.Errorf("snapshot of transactional ids: %w", err)
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
	if v := binary.BigEndian.Uint16(data[4:]); v > snapshotVersion {
		return nil, fields.Newer("format %d, this program knows %d", v, snapshotVersion)
	} else if v != snapshotVersion {
		return nil, fields.Malformed("format %d, this program knows %d", v, snapshotVersion)
	}
	s := NewState()
	r := &reader{fields.Reader{B: body[snapshotHead:]}}
	s.revision = r.Uvarint()
	lastID := ""
	for range r.Count(leastStored, len(data)) {
		id, revision, producer, scope := r.name(MaxID), r.Uvarint(), r.producer(), r.scope()
		switch {
		case r.Err != nil:
		case id <= lastID:
			r.Fail("id %q is out of order", id)
		case revision == 0 || revision > s.revision:
			r.Fail("revision %d of id %q, the highest is %d", revision, id, s.revision)
		case !producer.Phase.Open() && len(scope.Partitions)+len(scope.Groups) > 0:
			r.Fail("id %q touches something and is %s", id, producer.Phase)
		}
		if lastID = id; r.Err != nil {
			break
		}
		t := &stored{}
		s.ids[id] = t
		s.bytes += CostID + len(id)
		s.set(id, t, revision, producer)
		if s.add(t, scope); len(t.partitions) != len(scope.Partitions) || len(t.groups) != len(scope.Groups) {
			r.Fail("something is twice in the transaction of id %q", id)
		}
	}
	if err := r.End(); err != nil {
		return nil, err
	}
	return s, nil
}
