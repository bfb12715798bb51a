package fsm

// Timestamps of ListOffsets that are no times (Kafka's ListOffsetsRequest).
const (
	LatestOffset          = -1
	EarliestOffset        = -2
	EarliestLocalOffset   = -4 // KIP-405
	LatestTieredOffset    = -5 // KIP-1005
	EarliestPendingOffset = -6 // KIP-1023
)

// Segment is what ListOffsets v0 tells of a segment of the log.
type Segment struct {
	Base    Offset // of its first record
	Written int64  // ms since epoch, when its last records were appended; 0: never
}

// OffsetsBefore answers ListOffsets v0 as Kafka 0.8's Log.getOffsetsBefore does.
// segments are those of the log, ascending, at least one; start and end are the
// log start and the log end offset. The log is a list of (base offset, time last
// written), one per segment, and unless the last segment is empty, (log end
// offset, now). From the newest of them whose time is at or before timestamp, or
// from the log end for LatestOffset, or only the first for EarliestOffset, the
// offsets are given newest first, at most max. Times are ms since epoch. The
// result may be empty.
func OffsetsBefore(segments []Segment, start, end Offset, timestamp int64, max int, now int64) []Offset {
	var list []Segment
	for i, s := range segments {
		if i+1 < len(segments) && segments[i+1].Base <= start {
			continue // wholly below the log start
		}
		if s.Base < start {
			s.Base = start // the segment's head is gone already
		}
		list = append(list, s)
	}
	if list[len(list)-1].Base < end {
		list = append(list, Segment{end, now})
	}
	var newest int
	switch timestamp {
	case LatestOffset:
		newest = len(list) - 1
	case EarliestOffset:
		newest = 0
	default:
		for newest = len(list) - 1; newest >= 0 && list[newest].Written > timestamp; newest-- {
		}
	}
	var offsets []Offset
	for ; newest >= 0 && len(offsets) < max; newest-- {
		offsets = append(offsets, list[newest].Base)
	}
	return offsets
}
