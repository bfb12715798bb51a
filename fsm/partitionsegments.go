package fsm

// segmentBytes is where a logical segment ends, Kafka's default of segment.bytes.
const segmentBytes = 1 << 30

// segment is a stretch of the log as ListOffsets v0 tells of it. It is logical:
// how the log is cut into files is the store's affair.
type segment struct {
	base     Offset
	bytes    int64 // of record batches
	appended int64 // ms since epoch, when it was last written; 0 if never
}

// grow counts a batch that is about to be appended, in a new segment if it does
// not fit the last one.
func (p *PartitionState) grow(bytes, at int64) {
	last := &p.segments[len(p.segments)-1]
	if last.bytes > 0 && last.bytes+bytes > segmentBytes {
		p.segments = append(p.segments, segment{base: p.next})
		last = &p.segments[len(p.segments)-1]
	}
	last.bytes += bytes
	last.appended = at
}

// trimSegments drops the segments that lie wholly below the log start. When
// nothing is left to read, an empty one begins there.
func (p *PartitionState) trimSegments() {
	last := p.segments[len(p.segments)-1]
	if p.logStart == p.next {
		p.segments = []segment{{base: p.next, appended: last.appended}}
		return
	}
	first := 0
	for first+1 < len(p.segments) && p.segments[first+1].base <= p.logStart {
		first++
	}
	p.segments = append([]segment(nil), p.segments[first:]...) // a copy: let the dropped ones go
}

// Timestamps of ListOffsets v0 that are no times (Kafka's OffsetRequest).
const (
	LatestOffset   = -1
	EarliestOffset = -2
)

// OffsetsBefore answers ListOffsets v0 as Kafka 0.8's Log.getOffsetsBefore does.
// The log is a list of (base offset, time last written), one per segment, and
// unless the last segment is empty, (log end offset, now). From the newest of
// them whose time is at or before timestamp, or from the log end for
// LatestOffset, or only the first for EarliestOffset, the offsets are given
// newest first, at most max. Times are ms since epoch. The result may be empty.
func (p *PartitionState) OffsetsBefore(timestamp int64, max int, now int64) []Offset {
	type point struct {
		offset Offset
		time   int64
	}
	list := make([]point, 0, len(p.segments)+1)
	for _, s := range p.segments {
		offset := s.base
		if offset < p.logStart {
			offset = p.logStart // the segment's head is gone already
		}
		list = append(list, point{offset, s.appended})
	}
	if p.segments[len(p.segments)-1].bytes > 0 {
		list = append(list, point{p.next, now})
	}
	var newest int
	switch timestamp {
	case LatestOffset:
		newest = len(list) - 1
	case EarliestOffset:
		newest = 0
	default:
		for newest = len(list) - 1; newest >= 0 && list[newest].time > timestamp; newest-- {
		}
	}
	var offsets []Offset
	for ; newest >= 0 && len(offsets) < max; newest-- {
		offsets = append(offsets, list[newest].offset)
	}
	return offsets
}
