package replica

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// Digest is a hash over batches up to an offset.
type Digest struct {
	UpTo  fsm.Offset // offset behind the last batch
	Bytes int64
	Sum   [sha256.Size]byte
	// Mark says how far what was hashed is compacted (raftlog.Compaction); 0: nothing of it is.
	// Replicas that differ in it need not have the same.
	Mark uint64
}

// Digest reads the batches that have offsets from from to below to, until limit
// bytes are read. The bytes come from this replica's own files.
func (r *Records) Digest(ctx context.Context, from, to fsm.Offset, limit int64) (h Digest, err error) {
	select {
	case r.env.hashing <- struct{}{}:
		defer func() { <-r.env.hashing }()
	case <-ctx.Done():
		return h, fmt.Errorf("%w: another check is reading", outcome.ErrTimeout)
	}
	r.mu.Lock()
	start, next, last := r.seen.start, r.seen.next, r.seen.last
	compacted := r.state.Compaction().Bound
	r.mu.Unlock()
	h.UpTo = from
	rewritten := r.Log.Rewritten() // before the mark: what is rewritten in between is found to be
	if from < compacted {
		h.Mark = r.Log.Compaction().Mark
	}
	if from < start || to > next || from > to {
		return h, fmt.Errorf("%w: %d to %d of %d to %d", outcome.ErrOffsetOutOfRange, from, to, start, next)
	}
	if from == to {
		h.Sum = sha256.Sum256(nil)
		return h, nil
	}
	log, err := r.Log.ReadAt(int64(from), 1<<20)
	if errors.Is(err, raftlog.ErrNotInLog) {
		return h, fmt.Errorf("%w: %w", outcome.ErrOffsetOutOfRange, err)
	}
	if err != nil {
		r.keeper.ReadFailed(r.Replica, err, 0)
		return h, fmt.Errorf("%w: %w", outcome.ErrStorage, err)
	}
	defer log.Close()
	sum := sha256.New()
	for h.UpTo < to && h.Bytes < limit {
		if err := ctx.Err(); err != nil {
			return h, fmt.Errorf("%w: %w", outcome.ErrTimeout, err)
		}
		entry, err := log.Next(uint64(last))
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("offset %d is committed and not in the log", h.UpTo)
			}
			r.keeper.ReadFailed(r.Replica, err, 0)
			return h, fmt.Errorf("%w: %w", outcome.ErrStorage, err)
		}
		if entry.Type != raft.LogCommand {
			continue
		}
		s := stored(&entry, fsm.Offset(log.Expected()))
		for batch := range s.Batches() {
			header := batch.Header()
			if s.Next <= from || fsm.Offset(header.BaseOffset) >= to {
				continue
			}
			head := binary.BigEndian.AppendUint64(nil, uint64(header.BaseOffset))
			sum.Write(binary.BigEndian.AppendUint32(head, uint32(batch.Size())))
			sum.Write(batch.Bytes())
			h.Bytes += int64(batch.Size())
		}
		log.Passed(int64(s.Next))
		h.UpTo = max(h.UpTo, s.Next)
	}
	h.UpTo = min(h.UpTo, to)
	if from < compacted && rewritten != r.Log.Rewritten() {
		h.Mark = math.MaxUint64 // some of both
	}
	sum.Sum(h.Sum[:0])
	return h, nil
}
