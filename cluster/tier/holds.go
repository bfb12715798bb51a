package tier

import (
	"context"
	"fmt"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
)

const (
	// holdTimeout is how long a look at one object may take, and holdsTimeout one at all of a
	// segment, of which there may be a hundred and more.
	holdTimeout  = time.Minute
	holdsTimeout = 15 * time.Minute
	// looksLeft bounds the looks that have not ended, of those that were left since they took too
	// long too: a file of a mount that hangs does not know of timeouts.
	looksLeft = 8
)

// look asks the store something and waits for that as long as a look may take, whether or not the
// store ends then.
func look[T any](ctx context.Context, t *Tier, ask func(context.Context) (T, error)) (answer T, err error) {
	ctx, cancel := context.WithTimeout(ctx, holdTimeout)
	defer cancel()
	select {
	case t.looks <- struct{}{}:
	case <-ctx.Done():
		return answer, fmt.Errorf("the store has not answered %d times: %w", looksLeft, ctx.Err())
	}
	type result struct {
		answer T
		err    error
	}
	came := make(chan result, 1)
	go func() { // nobody waits for it where the store hangs
		defer func() { <-t.looks }()
		answer, err := ask(ctx)
		came <- result{answer, err}
	}()
	select {
	case r := <-came:
		return r.answer, r.err
	case <-ctx.Done():
		return answer, ctx.Err()
	}
}

// HasIndex returns nil if the store has an index of that size for a segment: it is asked for that
// and no more. Errors are those of Holds.
func (t *Tier) HasIndex(ctx context.Context, id fsm.PartitionID, s fsm.TieredSegment) error {
	key := indexKey(id, nameOf(s))
	bytes, err := look(ctx, t, func(ctx context.Context) (int64, error) { return t.Store.Size(ctx, key) })
	if err == nil && bytes != s.IndexBytes {
		err = fmt.Errorf("%s %w: it has %d bytes, and %d were put there", key, ErrDamaged, bytes, s.IndexBytes)
	}
	return err
}

// Holds returns nil if the store has all objects of a segment: its index, which is read and
// checked, and its pieces, which are asked for their sizes. The error wraps ErrNotFound where one
// is not there, ErrDamaged where one is something else, or says why the store does not answer.
func (t *Tier) Holds(ctx context.Context, id fsm.PartitionID, s fsm.TieredSegment) error {
	ctx, cancel := context.WithTimeout(ctx, holdsTimeout)
	defer cancel()
	key := indexKey(id, nameOf(s))
	if s.IndexBytes > maxIndex {
		return fmt.Errorf("%s %w: an index of %d bytes", key, ErrDamaged, s.IndexBytes)
	}
	data, err := look(ctx, t, func(ctx context.Context) ([]byte, error) { return t.fetch(ctx, key, s.IndexBytes, s.IndexSum) })
	if err != nil {
		return err
	}
	x, err := parseIndex(data)
	if err == nil && !x.of(s) {
		err = fmt.Errorf("%w: the index of offsets %d to %d is of %d to %d", ErrDamaged, s.First, s.Next, x.first, x.next)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	for i, p := range x.pieces {
		key := pieceKey(id, nameOf(s), i)
		bytes, err := look(ctx, t, func(ctx context.Context) (int64, error) { return t.Store.Size(ctx, key) })
		switch {
		case err != nil:
			return err
		case bytes != p.bytes:
			return fmt.Errorf("%s %w: it has %d bytes, and %d were put there", key, ErrDamaged, bytes, p.bytes)
		}
	}
	return nil
}
