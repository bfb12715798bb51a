package replica

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/trimaran-io/trimaran/cluster/tier"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// This file reads what lies in the tier: what the partition's log names, and this replica has let
// go of. Whoever reads that waits for the store for a moment at most, and is told to come again.

// tierPatience is how long a reader waits for the store: about as long as Kafka's, whose remote
// reads have half a second, and well within the second that a fetch gives to reading.
const tierPatience = 400 * time.Millisecond

// away reports whether an offset at or above the log start is not in this replica's log any more.
func (r *Records) away(seen seen, offset fsm.Offset) bool {
	if offset >= seen.local || len(seen.tiered) == 0 {
		return false
	}
	_, _, here := r.Log.KeptAt(int64(offset))
	return !here
}

// readTier adds to a slice what the tier has from an offset on, up to maxBytes of it, and gives the
// offset behind. Where no batch is left there, it gives the offset from which this replica has the
// log, and adds nothing. patience bounds the wait for the store; 0: ctx alone does.
func (r *Records) readTier(ctx context.Context, patience time.Duration, slice *fsm.Slice, seen seen, from fsm.Offset, maxBytes int, isolation fsm.Isolation) (end fsm.Offset, err error) {
	if r.env.Tier == nil {
		return from, r.noTier()
	}
	if patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	// What this replica has itself is not fetched ahead.
	away := seen.tiered[:sort.Search(len(seen.tiered), func(i int) bool { return !r.away(seen, seen.tiered[i].First) })]
	for at := from; ; {
		if !r.away(seen, at) {
			return at, nil
		}
		read, err := r.env.Tier.Read(ctx, r.ID, away, at, maxBytes, func(n int) []byte {
			slice.Batches, slice.Done = memoryFor(n)
			return slice.Batches
		})
		if err != nil {
			return at, r.tierError(err)
		}
		if len(read.Batches) > 0 {
			slice.Batches = read.Batches
			if isolation == fsm.ReadCommitted {
				slice.Aborted = read.Aborted
				slice.BoundAborted(maxAborted)
			}
			return read.End, nil
		}
		at = read.End
	}
}

// noTier is the error where the partition has records in a store that the node was not told of.
func (r *Records) noTier() error {
	return fmt.Errorf("%w: the records are in a tier, and this node has not been told of its store (--tier-to)", outcome.ErrStorage)
}

// tierError says to a client that it may ask again, and to this node whether to ask another one.
func (r *Records) tierError(err error) error {
	if errors.Is(err, tier.ErrLater) && !errors.Is(err, tier.ErrFails) {
		return fmt.Errorf("%w: %w", outcome.ErrRemote, err)
	}
	return fmt.Errorf("%w: the tier: %w", outcome.ErrStorage, err)
}

// tierEpochAt gives the leader epoch of an offset that is away.
func (r *Records) tierEpochAt(ctx context.Context, seen seen, offset fsm.Offset) (fsm.LeaderEpoch, error) {
	segment, ok := fsm.TieredAt(seen.tiered, offset)
	if !ok {
		return -1, fmt.Errorf("%w: offset %d is neither here nor in the tier", outcome.ErrStorage, offset)
	}
	if r.env.Tier == nil {
		return -1, r.noTier()
	}
	epoch, err := r.env.Tier.EpochAt(tier.Patient(ctx), r.ID, segment, offset)
	if err != nil {
		err = r.tierError(err)
	}
	return epoch, err
}

// tierSince gives an offset at or before the first record in the tier with a timestamp (ms) of at
// least that, and whether there is one.
func (r *Records) tierSince(ctx context.Context, seen seen, timestamp int64) (offset fsm.Offset, ok bool, err error) {
	for _, segment := range seen.tiered {
		if segment.MaxTime < timestamp || !r.away(seen, max(segment.First, seen.start)) {
			continue
		}
		if r.env.Tier == nil {
			return 0, false, r.noTier()
		}
		offset, err := r.env.Tier.Since(tier.Patient(ctx), r.ID, segment, timestamp)
		if err != nil {
			return 0, false, r.tierError(err)
		}
		return max(offset, seen.start), true, nil
	}
	return 0, false, nil
}

// tierEnd answers ListOffsets for the last offset in the tier (KIP-1005), or for the first one that
// is still to go there (KIP-1023); -1: there is none.
func (r *Records) tierEnd(seen seen, which int64) fsm.Offset {
	end := fsm.Offset(-1)
	if n := len(seen.tiered); n > 0 {
		end = seen.tiered[n-1].Next
	}
	topic, known := r.env.Host.Topics().ByID(r.ID.Topic)
	switch {
	case which == fsm.LatestTieredOffset:
		return max(end-1, -1)
	case !known || !topic.Tiered(r.env.TopicDefaults):
		return -1
	}
	return max(end, seen.start)
}

// LocalStart is the first offset that this replica has to keep itself, and tiered the offset behind
// the last one that is in the tier; -1: none is.
func (r *Records) LocalStart() (local, tiered fsm.Offset) {
	r.mu.Lock()
	defer r.mu.Unlock()
	tiered = -1
	if n := len(r.seen.tiered); n > 0 {
		tiered = r.seen.tiered[n-1].Next
	}
	return r.seen.local, tiered
}
