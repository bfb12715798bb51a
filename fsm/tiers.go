package fsm

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"

	"github.com/trimaran-io/trimaran/outcome"
)

// Records of a partition may lie in a store that all nodes reach, its tier, so that replicas need
// not keep them. What lies there is named here, by entries of the partition's log: whoever applies
// such an entry may read the records from the store, and once the leader says so by another entry
// (localStart) may let go of its own copy. A leader puts objects into the store before it names
// them, under names that nobody had before. What is there and not named is nobody's, and what is
// named stays named until it is below the log start: so the log is the fence between leaders, and
// the store needs none.
//
// The command's version and kind are known to a program or it does not go on (ErrNewer).

// LevelTiers is the level from which on records go to a tier.
const LevelTiers = 8

// TieredSegment is a range of offsets whose records are in the tier.
type TieredSegment struct {
	First, Next Offset
	Named       Index  // entry that named it
	Term        Term   // of the leader that put it there, and with ID, by chance, its name
	ID          uint64 // not 0
	Pieces      uint32 // objects with records
	IndexBytes  int64  // of the object that lists the pieces
	IndexSum    [32]byte
	Bytes       int64 // of the records
	// MaxTime is the largest timestamp of the records, LastWrite when the last were appended, both
	// ms since epoch; MaxTime is negative if there are none.
	MaxTime, LastWrite int64
	// The leader epochs of the first offset and of the last.
	FirstEpoch, LastEpoch LeaderEpoch
	// Clean: no record below it of a topic that is compacted has a newer one of its key there; 0:
	// that is not so.
	Clean Offset
}

// GoneSegment is one that is not named any more; its objects are to be deleted.
type GoneSegment struct {
	First  Offset
	Term   Term
	ID     uint64
	Pieces uint32
	At     int64 // since when, ms since epoch, by the clock of the leader then
}

const (
	// MaxTiered bounds the segments of a partition that are named at once. Leaders put more into
	// each before that.
	MaxTiered = 1 << 16
	// maxGone bounds what is remembered for deletion. What is forgotten is found in the store, as
	// what nobody names.
	maxGone = 1 << 16

	maxTieredPieces = 1 << 20
	tierVersion     = 1
)

// The kinds of a tier's command.
const (
	tierAdd     = 1 // a segment is there
	tierLocal   = 2 // replicas may let go of what is below an offset
	tierForget  = 3 // segments' objects are deleted
	tierEnd     = 4 // nothing is there any more: the log starts where replicas have it
	tierReplace = 5 // a segment is there in place of others
)

// tiers is what a partition knows of its tier.
type tiers struct {
	// segments are ascending, without a hole between them. What is in it does not change.
	segments []TieredSegment
	gone     []GoneSegment // in the order in which they went; likewise
	// localStart is where what replicas have to keep begins; it counts while it is above the log
	// start, and is never above the end of segments.
	localStart Offset
	localNamed Index // entry that moved it
}

// end gives the offset behind what is in the tier, ok is false if nothing is.
func (t *tiers) end() (end Offset, ok bool) {
	if len(t.segments) == 0 {
		return 0, false
	}
	return t.segments[len(t.segments)-1].Next, true
}

// known reports whether the tier was ever used.
func (t *tiers) known() bool {
	return len(t.segments) > 0 || len(t.gone) > 0 || t.localNamed != 0
}

// Tiered gives the segments in the tier, ascending. They must not be changed.
func (p *PartitionState) Tiered() []TieredSegment { return slices.Clip(p.tiers.segments) }

// TieredGone gives the segments whose objects are to be deleted. They must not be changed.
func (p *PartitionState) TieredGone() []GoneSegment { return slices.Clip(p.tiers.gone) }

// LocalStart is the first offset that every replica has to keep, and the entry that said so.
func (p *PartitionState) LocalStart() (Offset, Index) {
	if p.tiers.localStart <= p.logStart {
		return p.logStart, 0
	}
	return p.tiers.localStart, p.tiers.localNamed
}

// TieredAt finds the segment that has an offset among ascending ones; ok is false if none has.
func TieredAt(segments []TieredSegment, offset Offset) (s TieredSegment, ok bool) {
	i := sort.Search(len(segments), func(i int) bool { return segments[i].Next > offset })
	if i == len(segments) || segments[i].First > offset {
		return s, false
	}
	return segments[i], true
}

func tierCommand(kind uint64, numbers ...uint64) []byte {
	b := binary.AppendUvarint([]byte{controlTier}, tierVersion)
	b = binary.AppendUvarint(b, kind)
	for _, v := range numbers {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// TierAddCommand gives the data of an entry that names a segment, which must be in the store by
// then, and proven to be. Named does not count, and Term must be that of the entry. horizon is that
// of the decision on compaction that had been carried out, all of it, in the log that the segment
// was read from: with a later one a tombstone may be gone, and the segment have what it stood for.
func TierAddCommand(s TieredSegment, horizon Offset) []byte {
	return s.append(tierCommand(tierAdd, uint64(horizon)))
}

// TierLocalCommand gives the data of an entry that lets replicas let go of what is below an offset.
func TierLocalCommand(start Offset) []byte { return tierCommand(tierLocal, uint64(start)) }

// TierForgetCommand gives the data of an entry that says that the objects of segments are deleted,
// those that were not named first, count of them.
func TierForgetCommand(gone []GoneSegment) []byte {
	b := tierCommand(tierForget, uint64(len(gone)))
	for _, g := range gone {
		b = binary.AppendUvarint(b, g.ID)
	}
	return b
}

// TierEndCommand gives the data of an entry that ends the tier: the log starts where replicas have
// it, and all that is in the store is to be deleted.
func TierEndCommand() []byte { return tierCommand(tierEnd) }

// TierReplaceCommand gives the data of an entry that names a segment in place of one or more that
// follow each other, whose offsets it has, without records that have newer ones of their keys.
// Otherwise it is as with TierAddCommand. A horizon does not matter: while something is in the tier
// it stands still.
func TierReplaceCommand(old []TieredSegment, s TieredSegment) []byte {
	b := tierCommand(tierReplace, uint64(len(old)))
	for _, o := range old {
		b = binary.AppendUvarint(b, o.ID)
	}
	return s.append(b)
}

// AppendSegments appends what names segments to b, so that ParseSegments reads it. The entries that
// named them are not part of it.
func AppendSegments(b []byte, segments []TieredSegment) []byte {
	b = binary.AppendUvarint(b, uint64(len(segments)))
	for _, s := range segments {
		b = s.append(b)
	}
	return b
}

// ParseSegments reads what AppendSegments gave: segments that can be ones and follow each other.
func ParseSegments(b []byte) (segments []TieredSegment, err error) {
	r := numbers{b: b}
	if n := r.atMost(min(uint64(len(b))/leastTiered, MaxTiered)); n > 0 {
		segments = make([]TieredSegment, n)
	}
	for i := range segments {
		segments[i] = readTiered(&r)
	}
	if r.bad || len(r.b) > 0 {
		return nil, fmt.Errorf("%w: malformed list of a tier's segments", outcome.ErrUnknown)
	}
	for i, s := range segments {
		if err := s.check(); err != nil {
			return nil, err
		}
		if i > 0 && s.First != segments[i-1].Next {
			return nil, fmt.Errorf("a segment of the tier from %d on does not follow one to %d", s.First, segments[i-1].Next)
		}
	}
	return segments, nil
}

// append appends what names the segment.
func (s TieredSegment) append(b []byte) []byte {
	for _, v := range [...]uint64{uint64(s.First), uint64(s.Next), uint64(s.Term), s.ID, uint64(s.Pieces), uint64(s.IndexBytes), uint64(s.Bytes), uint64(s.Clean)} {
		b = binary.AppendUvarint(b, v)
	}
	for _, v := range [...]int64{s.MaxTime, s.LastWrite, int64(s.FirstEpoch), int64(s.LastEpoch)} {
		b = binary.AppendVarint(b, v)
	}
	return append(b, s.IndexSum[:]...)
}

// readTiered reads what append gave.
func readTiered(r *numbers) TieredSegment {
	s := TieredSegment{
		First: Offset(r.positive()), Next: Offset(r.positive()), Term: Term(r.unsigned()), ID: r.unsigned(),
		Pieces: uint32(r.atMost(maxTieredPieces)), IndexBytes: r.positive(), Bytes: r.positive(), Clean: Offset(r.positive()),
		MaxTime: r.signed(), LastWrite: r.signed(), FirstEpoch: LeaderEpoch(r.int32()), LastEpoch: LeaderEpoch(r.int32()),
	}
	if len(r.b) < len(s.IndexSum) {
		r.fail()
		return TieredSegment{}
	}
	r.b = r.b[copy(s.IndexSum[:], r.b):]
	return s
}

// tierOp is a tier's command as it is read.
type tierOp struct {
	kind    uint64
	segment TieredSegment
	horizon Offset
	start   Offset
	forget  map[uint64]bool
	replace []uint64
}

// parseTier reads a tier's command. The error is ErrNewer for one of a later version or kind,
// whatever it has, else ErrUnknown.
func parseTier(data []byte) (op tierOp, err error) {
	r := numbers{b: data[1:]}
	version := r.unsigned()
	if !r.bad && version > tierVersion {
		return op, newer("command of a tier, version %d", version)
	}
	op.kind = r.unsigned()
	switch {
	case r.bad || version == 0 || op.kind == 0:
		r.fail()
	case op.kind == tierAdd:
		op.horizon = Offset(r.positive())
		op.segment = readTiered(&r)
	case op.kind == tierLocal:
		op.start = Offset(r.positive())
	case op.kind == tierForget:
		op.forget = map[uint64]bool{}
		for range r.atMost(min(uint64(len(r.b)), maxGone)) {
			op.forget[r.unsigned()] = true
		}
	case op.kind == tierEnd:
	case op.kind == tierReplace:
		for range r.atMost(min(uint64(len(r.b)), MaxTiered)) {
			op.replace = append(op.replace, r.unsigned())
		}
		op.segment = readTiered(&r)
	default:
		return op, newer("command of a tier, kind %d", op.kind)
	}
	if r.bad || len(r.b) > 0 {
		return op, fmt.Errorf("%w: malformed command of a tier", outcome.ErrUnknown)
	}
	return op, nil
}

// isTier reports whether an entry's data are a tier's command.
func isTier(data []byte) bool { return len(data) > 0 && data[0] == controlTier }

// tier takes a command. One that does not fit has no effect on any replica: another leader may have
// been faster. The error is then ErrVoid if it was to name a segment, which nobody names then.
func (p *PartitionState) tier(e Entry) error {
	op, err := parseTier(e.Data)
	if err != nil {
		return err
	}
	t := &p.tiers
	end, any := t.end()
	switch op.kind {
	case tierAdd:
		s := op.segment
		if s.Term != e.Term || any && s.First != end || !any && s.First > p.logStart || s.Next > p.LastStable() || s.Next <= p.logStart {
			return fmt.Errorf("%w: offsets %d to %d of term %d do not follow what is in the tier: it ends at %d, the log is of term %d, %d to %d",
				outcome.ErrVoid, s.First, s.Next, s.Term, end, e.Term, p.logStart, p.LastStable())
		}
		if op.horizon != p.compaction.Horizon {
			return fmt.Errorf("%w: offsets %d to %d were read with horizon %d, and it is %d", outcome.ErrVoid, s.First, s.Next, op.horizon, p.compaction.Horizon)
		}
		if len(t.segments) >= MaxTiered {
			return fmt.Errorf("%w: the tier has %d segments", outcome.ErrVoid, len(t.segments))
		}
		s.Named = e.Index
		if err := p.checkNamed(s); err != nil {
			return fmt.Errorf("%w: %w", outcome.ErrVoid, err)
		}
		t.segments = append(t.segments, s)
	case tierReplace:
		s, n := op.segment, len(op.replace)
		s.Named = e.Index
		at := slices.IndexFunc(t.segments, func(o TieredSegment) bool { return o.First == s.First })
		if s.Term != e.Term || at < 0 || n == 0 || at+n > len(t.segments) || t.segments[at+n-1].Next != s.Next ||
			!slices.EqualFunc(t.segments[at:at+n], op.replace, func(o TieredSegment, id uint64) bool { return o.ID == id }) {
			return fmt.Errorf("%w: a segment from %d to %d of term %d in place of others that are not all there", outcome.ErrVoid, s.First, s.Next, s.Term)
		}
		if err := p.checkNamed(s); err != nil {
			return fmt.Errorf("%w: %w", outcome.ErrVoid, err)
		}
		t.bury(t.segments[at:at+n], e.AppendedAt)
		t.segments = slices.Replace(slices.Clone(t.segments), at, at+n, s)
	case tierLocal:
		if !any || op.start > end {
			return fmt.Errorf("%w: replicas would have nothing below %d, the tier ends at %d", outcome.ErrUnknown, op.start, end)
		}
		if op.start > max(p.logStart, t.localStart) {
			t.localStart, t.localNamed = op.start, e.Index
		}
	case tierForget:
		t.gone = slices.DeleteFunc(slices.Clone(t.gone), func(g GoneSegment) bool { return op.forget[g.ID] })
	case tierEnd:
		start, _ := p.LocalStart()
		t.letGo(len(t.segments), e.AppendedAt)
		p.moveLogStart(start, e.AppendedAt)
	}
	return nil
}

// checkNamed reports whether the segment can be named now.
func (p *PartitionState) checkNamed(s TieredSegment) error {
	if s.Clean > p.compaction.Bound {
		return fmt.Errorf("a segment of a tier that is compacted up to %d, and the log up to %d", s.Clean, p.compaction.Bound)
	}
	return s.check()
}

// check reports whether the segment can be one.
func (s TieredSegment) check() error {
	if s.First >= s.Next || s.ID == 0 || s.IndexBytes == 0 || (s.Pieces == 0) != (s.Bytes == 0) || s.FirstEpoch < 0 || s.LastEpoch < s.FirstEpoch {
		return fmt.Errorf("a segment of a tier from %d to %d, %d bytes in %d pieces, of epochs %d to %d", s.First, s.Next, s.Bytes, s.Pieces, s.FirstEpoch, s.LastEpoch)
	}
	return nil
}

// letGo makes the first n segments nobody's, at a time, ms since epoch.
func (t *tiers) letGo(n int, at int64) {
	if n == 0 {
		return
	}
	t.bury(t.segments[:n], at)
	t.segments = slices.Clone(t.segments[n:])
}

// bury notes segments whose objects are to be deleted, since a time, ms since epoch.
func (t *tiers) bury(segments []TieredSegment, at int64) {
	for _, s := range segments {
		t.gone = append(t.gone, GoneSegment{First: s.First, Term: s.Term, ID: s.ID, Pieces: s.Pieces, At: max(at, 0)})
	}
	t.gone = t.gone[max(len(t.gone)-maxGone, 0):]
}

// below makes what is wholly below the log start nobody's.
func (t *tiers) below(start Offset, at int64) {
	t.letGo(sort.Search(len(t.segments), func(i int) bool { return t.segments[i].Next > start }), at)
}

// snapshotTiers appends, each with its count in front, the segments, each with the entry that named
// it and what names it, and those that are gone; then the local start and the entry that moved it.
func (p *PartitionState) snapshotTiers(b []byte) []byte {
	t := &p.tiers
	put := func(v uint64) { b = binary.AppendUvarint(b, v) }
	put(uint64(len(t.segments)))
	for _, s := range t.segments {
		put(uint64(s.Named))
		b = s.append(b)
	}
	put(uint64(len(t.gone)))
	for _, g := range t.gone {
		for _, v := range [...]uint64{uint64(g.First), uint64(g.Term), g.ID, uint64(g.Pieces), uint64(g.At)} {
			put(v)
		}
	}
	put(uint64(t.localStart))
	put(uint64(t.localNamed))
	return b
}

// Each segment takes so many bytes in a snapshot at least: what is claimed has its bytes.
const (
	leastTiered = 13 + 32
	leastGone   = 5
)

func (p *PartitionState) restoreTiers(r *numbers) {
	t := &p.tiers
	if n := r.atMost(min(uint64(len(r.b))/leastTiered, MaxTiered)); n > 0 {
		t.segments = make([]TieredSegment, n)
	}
	for i := range t.segments {
		named := Index(r.unsigned())
		t.segments[i] = readTiered(r)
		t.segments[i].Named = named
	}
	if n := r.atMost(min(uint64(len(r.b))/leastGone, maxGone)); n > 0 {
		t.gone = make([]GoneSegment, n)
	}
	for i := range t.gone {
		t.gone[i] = GoneSegment{First: Offset(r.positive()), Term: Term(r.unsigned()), ID: r.unsigned(), Pieces: uint32(r.atMost(maxTieredPieces)), At: r.positive()}
	}
	t.localStart, t.localNamed = Offset(r.positive()), Index(r.unsigned())
}

// checkTiers reports whether the tier can be this partition's.
func (p *PartitionState) checkTiers() error {
	t := &p.tiers
	for i, s := range t.segments {
		if err := s.check(); err != nil {
			return err
		}
		if s.Named > p.applied || s.Clean > p.compaction.Bound || i > 0 && s.First != t.segments[i-1].Next {
			return fmt.Errorf("a segment of the tier from %d on, named by entry %d, does not follow", s.First, s.Named)
		}
	}
	end, any := t.end()
	switch {
	case any && (t.segments[0].First > p.logStart || t.segments[0].Next <= p.logStart || end > p.LastStable()):
		return fmt.Errorf("a tier of %d to %d, and a log of %d to %d", t.segments[0].First, end, p.logStart, p.LastStable())
	case t.localNamed > p.applied, t.localStart > max(end, p.logStart):
		return fmt.Errorf("what replicas have begins at %d by entry %d, the tier ends at %d", t.localStart, t.localNamed, end)
	}
	return nil
}
