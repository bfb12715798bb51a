package tier

import (
	"context"
	"fmt"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// This file reads whole segments for who makes others of them, past the cache: what is read once
// must not take the place of what is read again.

// Batches goes over the batches of a segment. aborted: the batch has records of a transaction that
// was aborted. Errors wrap ErrLater, or are those of each, which ends it.
func (t *Tier) Batches(ctx context.Context, id fsm.PartitionID, s fsm.TieredSegment, each func(batch kafkaproto.Batch, aborted bool) error) error {
	x, err := t.indexOf(Patient(ctx), id, s)
	if err != nil {
		return err
	}
	for i, p := range x.pieces {
		data, err := t.whole(ctx, pieceKey(id, nameOf(s), i), p)
		if err != nil {
			return err
		}
		for batch, err := range kafkaproto.Batches(data) {
			if err != nil {
				return fmt.Errorf("%w: %w: %w", ErrLater, ErrDamaged, err)
			}
			if err := each(batch, x.isAborted(batch.Header())); err != nil {
				return err
			}
		}
	}
	return nil
}

// whole reads a piece.
func (t *Tier) whole(ctx context.Context, key string, p piece) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, putTimeout)
	defer cancel()
	data, err := t.fetch(ctx, key, p.bytes, p.sum)
	if err != nil {
		t.FetchErrors.Add(1)
		return nil, fmt.Errorf("%w: %w", ErrLater, err)
	}
	return data, nil
}

// isAborted reports whether a batch belongs to a transaction that was aborted.
func (x *index) isAborted(h kafkaproto.BatchHeader) bool {
	if !h.Transactional() || h.Control() {
		return false
	}
	base := fsm.Offset(h.BaseOffset)
	for _, a := range x.aborted {
		if a.ProducerID == h.ProducerID && a.First <= base && base < a.Last {
			return true
		}
	}
	return false
}

// Rewrite adds what is left of a segment that begins where the upload ends: keep gives it of each
// batch, the zero Batch for nothing. It gives the segment's aborted transactions.
func (u *Upload) Rewrite(ctx context.Context, s fsm.TieredSegment, keep func(batch kafkaproto.Batch, aborted bool) (kafkaproto.Batch, error)) ([]fsm.AbortedTransaction, error) {
	x, err := u.t.indexOf(Patient(ctx), u.partition, s)
	if err != nil {
		return nil, err
	}
	for _, e := range x.epochs {
		u.Epoch(e.epoch, max(e.from, s.First))
	}
	err = u.t.Batches(ctx, u.partition, s, func(batch kafkaproto.Batch, aborted bool) error {
		rest, err := keep(batch, aborted)
		if err != nil || rest.Size() == 0 {
			return err
		}
		return u.Add(ctx, rest, fsm.Offset(batch.Header().NextOffset()))
	})
	return x.aborted, err
}
