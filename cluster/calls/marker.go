package calls

import "github.com/trimaran-io/trimaran/fsm"

// markerSize is what a marker takes on the way, in bytes: u64 producer id, u16 epoch, u32 number,
// u8 of flags.
const markerSize = 8 + 2 + 4 + 1

const (
	markerCommit = 1 << iota
	markerForced
	markerKnown // all that are known
)

func (f fields) marker(m fsm.Marker) fields {
	var flags uint8
	if m.Commit {
		flags |= markerCommit
	}
	if m.Forced {
		flags |= markerForced
	}
	return f.uint64(uint64(m.ProducerID)).uint16(uint16(m.Epoch)).uint32(uint32(m.Number)).uint8(flags)
}

// Marker takes a marker. One with a flag that is not known here is malformed, and one that forces a
// commit, which nobody decided.
func (r *Reader) Marker() fsm.Marker {
	m := fsm.Marker{ProducerID: int64(r.Uint64()), Epoch: int16(r.Uint16()), Number: int32(r.Uint32())}
	flags := r.Uint8()
	m.Commit, m.Forced = flags&markerCommit != 0, flags&markerForced != 0
	if m.ProducerID < 0 || m.Epoch < 0 || flags >= markerKnown || m.Commit && m.Forced {
		r.Bad = true
	}
	return m
}
