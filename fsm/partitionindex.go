package fsm

import "sort"

// pointEvery bounds in bytes what stands between two points of the sparse index:
// at most this much or a single entry.
const pointEvery = 64 << 10

// Position is where to begin to look for a record: at the entry at Index, in
// front of which the next offset was Next.
type Position struct {
	Index Index
	Next  Offset
}

// Locate gives the last known position at or before the record at offset o.
// Whoever scans forward from there and takes the batches that GoodBatch takes,
// counting offsets from Next, meets the record within pointEvery bytes of
// entries. ok is false if o is below the log start or not yet written.
func (p *PartitionState) Locate(o Offset) (at Position, ok bool) {
	if o < p.logStart || o >= p.next {
		return Position{}, false
	}
	i := sort.Search(len(p.points), func(i int) bool { return p.points[i].Next > o })
	return p.points[i-1], true // there is one: see points
}

// point keeps the entry, which added records and in front of which the next
// offset was before, as a point when the last one is too far back.
func (p *PartitionState) point(e Entry, before Offset) {
	if len(p.points) > 0 && p.sincePoint <= pointEvery {
		return
	}
	p.points = append(p.points, Position{Index: e.Index, Next: before})
	p.sincePoint = int64(len(e.Data))
}

// trimPoints drops the points that no record from the log start on needs.
func (p *PartitionState) trimPoints() {
	if p.logStart == p.next {
		p.points, p.sincePoint = nil, 0
		return
	}
	i := sort.Search(len(p.points), func(i int) bool { return p.points[i].Next > p.logStart })
	p.points = append([]Position(nil), p.points[i-1:]...) // a copy: let the dropped ones go
}
