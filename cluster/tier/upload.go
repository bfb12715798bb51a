package tier

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// Upload is a segment that is on its way to the store. One goroutine may use it.
type Upload struct {
	t         *Tier
	partition fsm.PartitionID
	name      name
	index     index
	buf       []byte
	maxTime   int64 // of what is in buf
	total     int64
	newest    int64
}

// Begin begins a segment at an offset, as the leader of a term.
func (t *Tier) Begin(ctx context.Context, partition fsm.PartitionID, first fsm.Offset, term fsm.Term) (*Upload, error) {
	if err := t.Claim(ctx); err != nil {
		return nil, err
	}
	var chance [8]byte
	_, _ = rand.Read(chance[:]) // never fails (crypto/rand)
	id := max(binary.LittleEndian.Uint64(chance[:]), 1)
	return &Upload{t: t, partition: partition, name: name{first, term, id}, index: index{first: first}, maxTime: noTime, newest: noTime}, nil
}

// Epoch tells the leader epoch of what follows, from an offset on.
func (u *Upload) Epoch(of fsm.LeaderEpoch, from fsm.Offset) {
	epochs := u.index.epochs
	switch {
	case len(epochs) == 0:
		from = min(from, u.index.first)
	case epochs[len(epochs)-1].epoch >= of:
		return
	case epochs[len(epochs)-1].from >= from:
		u.index.epochs[len(epochs)-1].epoch = of
		return
	}
	u.index.epochs = append(epochs, epoch{of, from})
}

// Add adds a batch; next is the offset behind it.
func (u *Upload) Add(ctx context.Context, batch kafkaproto.Batch, next fsm.Offset) error {
	if len(u.buf) > 0 && len(u.buf)+batch.Size() > u.t.PieceBytes {
		if err := u.flush(ctx, fsm.Offset(batch.Header().BaseOffset)); err != nil {
			return err
		}
	}
	if room := len(u.buf) + batch.Size(); room > cap(u.buf) {
		// In few steps, which are copies, and not more than small uploads need.
		u.buf = slices.Grow(u.buf, max(room, min(8*room, u.t.PieceBytes))-len(u.buf))
	}
	u.buf = append(u.buf, batch.Bytes()...)
	u.maxTime = max(u.maxTime, batch.Header().MaxTimestamp)
	u.index.next = next
	return nil
}

// flush puts what is collected into an object that ends in front of an offset.
func (u *Upload) flush(ctx context.Context, next fsm.Offset) error {
	if len(u.buf) > maxPiece {
		return fmt.Errorf("a batch of %d bytes is too large for the tier", len(u.buf))
	}
	p := piece{next: next, bytes: int64(len(u.buf)), maxTime: u.maxTime, sum: sha256.Sum256(u.buf)}
	if err := u.t.put(ctx, pieceKey(u.partition, u.name, len(u.index.pieces)), u.buf); err != nil {
		return err
	}
	u.index.pieces = append(u.index.pieces, p)
	u.total += p.bytes
	u.newest = max(u.newest, u.maxTime)
	u.buf, u.maxTime = u.buf[:0], noTime
	return nil
}

// Finish ends the segment in front of an offset, with the transactions that were aborted and
// concern it, and gives what names it. lastWrite is when its last records were appended, ms since
// epoch. Everything has been read back from the store by then, and compared.
func (u *Upload) Finish(ctx context.Context, next fsm.Offset, aborted []fsm.AbortedTransaction, lastWrite int64) (s fsm.TieredSegment, err error) {
	if len(u.buf) > 0 {
		if err := u.flush(ctx, next); err != nil {
			return s, err
		}
	}
	x := &u.index
	x.next = next
	x.aborted = slices.Clone(aborted)
	slices.SortFunc(x.aborted, func(a, b fsm.AbortedTransaction) int { return cmp.Compare(a.Last, b.Last) })
	data := x.encode()
	if len(data) > maxIndex {
		return s, fmt.Errorf("an index of %d bytes is too large for the tier", len(data))
	}
	if _, err := parseIndex(data); err != nil {
		return s, fmt.Errorf("what was read for the tier does not fit together: %w", err)
	}
	if err := u.t.put(ctx, indexKey(u.partition, u.name), data); err != nil {
		return s, err
	}
	return fsm.TieredSegment{
		First: x.first, Next: next, Term: u.name.term, ID: u.name.id, Pieces: uint32(len(x.pieces)),
		IndexBytes: int64(len(data)), IndexSum: sha256.Sum256(data), Bytes: u.total, MaxTime: u.newest, LastWrite: lastWrite,
		FirstEpoch: x.epochs[0].epoch, LastEpoch: x.epochs[len(x.epochs)-1].epoch,
	}, nil
}

// Abandon deletes what was put, as far as that goes: what is left is found as nobody's.
func (u *Upload) Abandon(ctx context.Context) {
	for i := range len(u.index.pieces) + 1 {
		if u.t.Store.Delete(ctx, pieceKey(u.partition, u.name, i)) != nil {
			return
		}
	}
	_ = u.t.Store.Delete(ctx, indexKey(u.partition, u.name))
}

// pace waits until so many bytes may go to the store.
func (t *Tier) pace(ctx context.Context, bytes int) error {
	for left := bytes; left > 0; left -= uploadBurst {
		if err := t.uploads.WaitN(ctx, min(left, uploadBurst)); err != nil {
			return err
		}
	}
	return nil
}

// put stores an object and reads it back: a replica lets go of its copy for it.
func (t *Tier) put(ctx context.Context, key string, data []byte) error {
	if err := t.pace(ctx, len(data)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, putTimeout)
	defer cancel()
	// An attempt that seemed to fail may have stored it; nobody else has the name.
	if err := t.Store.Put(ctx, key, data); err != nil && !errors.Is(err, ErrExists) {
		if size, gone := t.Store.Size(ctx, key); gone != nil || size != int64(len(data)) {
			return err
		}
		// Where it lies the store may have failed to make sure that it stays.
		if err := t.Store.Put(ctx, key, data); err != nil && !errors.Is(err, ErrExists) {
			return err
		}
	}
	t.Uploaded.Add(int64(len(data)))
	// A folder that was mounted may be gone since the store was last seen to be ours: what was put
	// is then below the mount point, of this node alone. If it is back it is read back, too.
	if err := t.there(ctx); err != nil {
		return err
	}
	same, err := compare(ctx, t.Store, key, data)
	if err != nil {
		return fmt.Errorf("%s was stored and cannot be read back: %w", key, err)
	}
	if !same {
		return fmt.Errorf("%s %w: %d bytes were put there, and what comes back is something else", key, ErrDamaged, len(data))
	}
	return nil
}
