package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// A log that is compacted has less than a backup of it soon, also where it was just restored. So it
// is compared by what compaction may do: each batch that is there is what may be left of the one in
// the backup, and of each key the newest record is there, or a newer one.

// compactedLog is such a comparison.
type compactedLog struct {
	// gone has the keys of which the newest record so far is not there, and its offset. Keys are
	// known by their SHA-256.
	gone map[[sha256.Size]byte]int64
}

func compareCompacted(ctx context.Context, r *Repository, with Source, here admin.TopicCopy, id fsm.TopicID, partition int32, old *Partition, end int64, progress *Progress) error {
	c, l := &creation{from: with}, &compactedLog{gone: map[[sha256.Size]byte]int64{}}
	for _, o := range old.Objects {
		want, err := r.object(ctx, id, partition, o)
		if err != nil {
			return err
		}
		have, err := c.batches(ctx, here, partition, max(o.First, old.Start), o.Next)
		if err != nil {
			return err
		}
		if err := l.compare(want, have, old.Start); err != nil {
			return err
		}
		progress.Bytes.Add(o.Bytes)
		progress.Objects.Add(1)
	}
	for from := old.End; from < end && len(l.gone) > 0; {
		o, data, err := c.gather(ctx, here, partition, from, end)
		if err != nil {
			return err
		}
		if len(data) == 0 {
			break
		}
		for batch, err := range kafkaproto.Batches(data) {
			if err != nil {
				return err
			}
			if !batch.Header().Control() {
				if err := batch.Records(func(record kafkaproto.Record) bool { l.there(record); return true }); err != nil {
					return err
				}
			}
		}
		from = o.Next
	}
	for _, offset := range l.gone {
		return differs(fmt.Sprintf("the record at offset %d is the newest of its key in the backup, and neither it nor a newer one is there", offset))
	}
	return nil
}

// batches reads the batches from an offset on that begin below end.
func (c *creation) batches(ctx context.Context, t admin.TopicCopy, partition int32, from, end int64) (all []kafkaproto.Batch, err error) {
	for from < end {
		o, data, err := c.gather(ctx, t, partition, from, end)
		if err != nil {
			return nil, err
		}
		if len(data) == 0 {
			break
		}
		for batch, err := range kafkaproto.Batches(data) {
			if err != nil {
				return nil, err
			}
			all = append(all, batch)
		}
		from = o.Next
	}
	return all, nil
}

// compare takes the batches of a range of the backup, and those that are there of it, in order.
// Records below start need not be there.
func (l *compactedLog) compare(want, have []kafkaproto.Batch, start int64) error {
	for _, b := range want {
		h := b.Header()
		if h.NextOffset() <= start {
			continue
		}
		offsets := map[int64]bool{}
		if len(have) > 0 && have[0].Header().BaseOffset == h.BaseOffset {
			if err := have[0].Records(func(record kafkaproto.Record) bool { offsets[record.Offset] = true; return true }); err != nil {
				return differs(err.Error())
			}
			rest, _, err := b.Retain(func(record kafkaproto.Record) bool { return offsets[record.Offset] })
			// A tier has what is committed as if it were in no transaction.
			if err != nil || !bytes.Equal(rest.Bytes(), have[0].Bytes()) && !bytes.Equal(rest.OutsideTransaction().Bytes(), have[0].Bytes()) {
				return differs(fmt.Sprintf("the batch at offset %d is not what may be left of that of the backup", h.BaseOffset))
			}
			have = have[1:]
		}
		if h.Control() {
			continue
		}
		err := b.Records(func(record kafkaproto.Record) bool {
			switch {
			case offsets[record.Offset] || record.Null: // a tombstone may be gone
				l.there(record)
			case !h.Transactional() && record.Offset >= start && record.Key != nil:
				// One of a transaction may have been aborted.
				l.gone[sha256.Sum256(record.Key)] = record.Offset
			}
			return true
		})
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	if len(have) > 0 {
		return differs(fmt.Sprintf("a batch is at offset %d, the backup has none there", have[0].Header().BaseOffset))
	}
	return nil
}

// there notes a record that is newer than those before.
func (l *compactedLog) there(record kafkaproto.Record) { delete(l.gone, sha256.Sum256(record.Key)) }
