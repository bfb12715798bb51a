package tier

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/trimaran-io/trimaran/fsm"
)

// This file has what outlives a cluster: beside the segments of a partition lies a list of those
// that its log names, so that who has lost all logs knows which objects count. The leader puts a
// new one there whenever that changes, and deletes no object that the newest one names.

// List is what a partition's log says of its tier, as a leader has applied it.
type List struct {
	Term  fsm.Term  // of the leader that put it there
	Index fsm.Index // of the last entry that it had applied
	// Start and End are the offsets of the log then, and Segments reach from Start or below it to
	// End or below it.
	Start, End fsm.Offset
	Segments   []fsm.TieredSegment
}

// Lists are ordered by term and index: a leader knows all that those of earlier terms have named.
func (l *List) before(other name) bool {
	return l.Term < other.term || l.Term == other.term && uint64(l.Index) < other.id
}

// name is what names it within its partition: nobody else ever gives the same.
func (l *List) name() name { return name{l.Start, l.Term, uint64(l.Index)} }

const (
	listMagic = "TRMTLS\x00\x01"
	listEnd   = ".list"
	// maxList bounds a list, in bytes.
	maxList = 16 << 20
	// maxListed bounds the keys of a partition that are looked at for its list, in a store that
	// nobody vouches for: several times what a leader would ever put there.
	maxListed = 8 << 20
)

func listKey(id fsm.PartitionID, n name) string { return partitionDir(id) + n.String() + listEnd }

// parseListName reads what stands behind a partition's folder in the key of a list.
func parseListName(text string) (n name, ok bool) {
	if text, ok = strings.CutSuffix(text, listEnd); !ok {
		return n, false
	}
	return parseName(text + indexEnd)
}

func (l *List) encode() []byte {
	b := []byte(listMagic)
	for _, v := range [...]uint64{uint64(l.Term), uint64(l.Index), uint64(l.Start), uint64(l.End)} {
		b = binary.AppendUvarint(b, v)
	}
	b = fsm.AppendSegments(b, l.Segments)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// parseList reads what encode gave. The error wraps ErrDamaged.
func parseList(data []byte, n name) (*List, error) {
	end := len(data) - sha256.Size
	if end < len(listMagic) || string(data[:len(listMagic)]) != listMagic {
		return nil, fmt.Errorf("%w: no list of segments, or of a newer program", ErrDamaged)
	}
	if sha256.Sum256(data[:end]) != [sha256.Size]byte(data[end:]) {
		return nil, fmt.Errorf("%w: a list of segments with another sum", ErrDamaged)
	}
	r := reader{b: data[len(listMagic):end]}
	l := &List{Term: fsm.Term(r.positive()), Index: fsm.Index(r.positive()), Start: fsm.Offset(r.positive()), End: fsm.Offset(r.positive())}
	if r.bad || l.name() != n || l.End < l.Start {
		return nil, fmt.Errorf("%w: a list of another partition's segments", ErrDamaged)
	}
	var err error
	if l.Segments, err = fsm.ParseSegments(r.b); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if n := len(l.Segments); n == 0 || l.Segments[0].First > l.Start || l.Segments[0].Next <= l.Start || l.Segments[n-1].Next > l.End {
		return nil, fmt.Errorf("%w: a list of segments that are not those of offsets %d to %d", ErrDamaged, l.Start, l.End)
	}
	return l, nil
}

// PutList puts a list beside the segments, and deletes those before it: last, which the caller has
// put there in the same term, or, if that is nil, all that are found.
func (t *Tier) PutList(ctx context.Context, id fsm.PartitionID, l, last *List) error {
	if err := t.Claim(ctx); err != nil {
		return err
	}
	data := l.encode()
	if len(data) > maxList {
		return fmt.Errorf("a list of %d bytes is too large for the tier", len(data))
	}
	if err := t.put(ctx, listKey(id, l.name()), data); err != nil {
		if errors.Is(err, ErrDamaged) {
			// The next one may have the same name, and this one must not count as the newest.
			err = errors.Join(err, t.delete(ctx, listKey(id, l.name())))
		}
		return err
	}
	if last != nil {
		if last.name() == l.name() {
			return nil
		}
		return t.delete(ctx, listKey(id, last.name()))
	}
	return t.dropLists(ctx, id, func(n name) bool { return n == l.name() || l.before(n) })
}

// DropLists deletes all lists of a partition that has nothing in the tier, of terms up to that of
// the leader that calls.
func (t *Tier) DropLists(ctx context.Context, id fsm.PartitionID, term fsm.Term) error {
	if err := t.Claim(ctx); err != nil {
		return err
	}
	return t.dropLists(ctx, id, func(n name) bool { return n.term > term })
}

// dropLists deletes the lists of a partition but those that keep says yes to.
func (t *Tier) dropLists(ctx context.Context, id fsm.PartitionID, keep func(name) bool) error {
	names, _, err := lists(ctx, t.Store, id, math.MaxInt)
	if err != nil {
		return err
	}
	for n := range names {
		if keep(n) {
			continue
		}
		if err := t.delete(ctx, listKey(id, n)); err != nil {
			return err
		}
	}
	return nil
}

// lists gives the names of a partition's lists, maxOrphans of them at most, and whether there is
// anything else of it. A store that lists more than most keys is an error.
func lists(ctx context.Context, store Store, id fsm.PartitionID, most int) (names map[name]bool, others bool, err error) {
	dir := partitionDir(id)
	names = map[name]bool{}
	listed := 0
	err = store.List(ctx, dir, func(key string) error {
		if listed++; listed > most {
			return fmt.Errorf("%w: the store lists more than %d keys below %s", ErrDamaged, most, dir)
		}
		rest, ok := strings.CutPrefix(key, dir)
		if !ok {
			return fmt.Errorf("the store lists %q, which does not begin with %q", key, dir)
		}
		if n, ok := parseListName(rest); ok && len(names) < maxOrphans {
			names[n] = true
		}
		_, segment := parseName(rest)
		others = others || segment
		return nil
	})
	return names, others, err
}

// Remains reads what is left in a store when the cluster is gone that it belongs to. It changes
// nothing there, and asks nobody who runs.
type Remains struct{ Store Store }

// Owner gives the id of the cluster that the store belongs to. The error wraps ErrNotFound where it
// is nobody's.
func (r Remains) Owner(ctx context.Context) (clusterID string, err error) { return owner(ctx, r.Store) }

// ErrUnlisted says that segments of a partition are in the store and no list of them: its first
// was on its way when the cluster was lost, or an older program has put them there.
var ErrUnlisted = errors.New("has segments and no list of them")

// List gives the newest list of a partition; nil: it has nothing in the tier. The error may wrap
// ErrUnlisted.
func (r Remains) List(ctx context.Context, id fsm.PartitionID) (*List, error) {
	names, others, err := lists(ctx, r.Store, id, maxListed)
	if err != nil {
		return nil, err
	}
	if len(names) >= maxOrphans {
		return nil, fmt.Errorf("%w: the store has %d lists below %s or more, and there should be one", ErrDamaged, maxOrphans, partitionDir(id))
	}
	newest := List{}
	for n := range names {
		if newest.before(n) {
			newest = List{Start: n.first, Term: n.term, Index: fsm.Index(n.id)}
		}
	}
	if newest.Term == 0 {
		if others {
			return nil, fmt.Errorf("%s %w", partitionDir(id), ErrUnlisted)
		}
		return nil, nil
	}
	key := listKey(id, newest.name())
	data, err := r.Store.Get(ctx, key, maxList)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	l, err := parseList(data, newest.name())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return l, nil
}

// Piece is an object with record batches.
type Piece struct {
	Key         string
	First, Next fsm.Offset // its batches are among these, perhaps but for the first one's first
	Bytes       int64
	Sum         [sha256.Size]byte
}

// Pieces gives the objects of a segment, ascending, as its index says, which is checked, and the
// transactions that were aborted and have records in them, or reach over them. What belongs to
// another transaction was committed, whether or not the marker is still there.
func (r Remains) Pieces(ctx context.Context, id fsm.PartitionID, s fsm.TieredSegment) (pieces []Piece, aborted []fsm.AbortedTransaction, err error) {
	key := indexKey(id, nameOf(s))
	if s.IndexBytes > maxIndex {
		return nil, nil, fmt.Errorf("%s %w: an index of %d bytes", key, ErrDamaged, s.IndexBytes)
	}
	data, err := r.Store.Get(ctx, key, s.IndexBytes)
	if errors.Is(err, ErrNotFound) {
		return nil, nil, fmt.Errorf("%s, which is named, %w: does somebody delete there, or does the cluster run?", key, err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", key, err)
	}
	if !same(data, s.IndexBytes, s.IndexSum) {
		return nil, nil, fmt.Errorf("%s %w: another sum is named", key, ErrDamaged)
	}
	x, err := parseIndex(data)
	if err == nil && !x.of(s) {
		err = fmt.Errorf("%w: the index of offsets %d to %d is of %d to %d", ErrDamaged, s.First, s.Next, x.first, x.next)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", key, err)
	}
	for i, p := range x.pieces {
		pieces = append(pieces, Piece{Key: pieceKey(id, nameOf(s), i), First: x.startOf(i), Next: p.next, Bytes: p.bytes, Sum: p.sum})
	}
	return pieces, x.aborted, nil
}
