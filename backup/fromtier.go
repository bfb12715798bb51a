package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// Where a cluster is lost and the store of its tier is not, records come from both: from a backup
// the topics, the offsets of groups, and the records that it has, from the tier those behind them.
// What is read from the tier is copied; nothing is changed there, so the store stays that of the
// cluster that it belongs to, whether that is gone or runs.

// Tier is the store of a lost cluster's tier. Its methods may be called concurrently.
type Tier interface {
	// Owner is the cluster that it belongs to.
	Owner(ctx context.Context) (clusterID string, err error)
	// Log gives what it has of a partition; nil: nothing. The error wraps ErrUnlisted if there is
	// something, and it cannot be known what of it counts.
	Log(ctx context.Context, topic fsm.TopicID, partition int32) (*TierLog, error)
	// Get gives an object, as Store.
	Get(ctx context.Context, key string, limit int64) ([]byte, error)
}

// ErrUnlisted says that a tier has objects of a partition and does not say which of them count.
var ErrUnlisted = errors.New("the tier has objects and no list of them")

// TierLog is what a tier has of a partition, as it was listed last.
type TierLog struct {
	// Start and End are those of the partition's log then, Epoch is the leader epoch. What is in
	// front of Tiered is there.
	Start, Tiered, End int64
	Epoch              int32
	// Compacted: some of it was compacted. Then a marker may be gone whose transaction has records
	// here: these are committed, but for those of TierObject.Aborted.
	Compacted bool
	Objects   []TierObject // ascending; of what is between them there are no records
}

// TierObject is a run of record batches, all that the log has from First to the offset before Next.
type TierObject struct {
	Key         string
	First, Next int64
	Bytes       int64
	Sum         [sha256.Size]byte
	MaxEpoch    int32 // the largest leader epoch in it, or more
	// Aborted are the transactions that were aborted and may have records in it. They are of no
	// account where nothing was compacted.
	Aborted []fsm.AbortedTransaction
}

// Reach says up to where a partition was put together.
type Reach struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Start     int64  `json:"start"`
	// End is the first offset that is not there, Tier the one from which on the tier has it; -1:
	// none of it is from there.
	End  int64 `json:"end"`
	Tier int64 `json:"tier_from"`
	// Known is the largest end that the log is known to have had: what is between End and Known is
	// missing. What was behind Known nobody knows.
	Known int64 `json:"known_end"`
	// Unlisted: the tier has objects of it that were not taken, since no list names them.
	Unlisted bool `json:"unlisted,omitempty"`
}

// Gathered is what a backup and a tier give together.
type Gathered struct {
	Reach []Reach `json:"reach"` // of each partition
	// Back are offsets of groups that are put back to what there is, and how far.
	Back []string `json:"groups_put_back,omitempty"`

	manifest *Manifest
}

// Manifest is the backup with what the tier has. It is none that can be stored.
func (g *Gathered) Manifest() *Manifest { return g.manifest }

// Gather puts the topics of a backup that are selected (Options.Patterns, Rename) together with
// what a tier has of them, and has the objects of the repository read from there. Errors say what
// is not as it was written: nothing is left out because of it.
func Gather(ctx context.Context, m *Manifest, from *Repository, t Tier, o RestoreOptions) (*Gathered, error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	owner, err := t.Owner(ctx)
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("the tier: it is no store of one: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("the tier: %w", err)
	}
	// What became of a cluster by a recovery has an id with more behind a dot.
	if formed, _, _ := strings.Cut(owner, "."); formed != m.ClusterID {
		return nil, fmt.Errorf("the tier is that of cluster %s, and backup %s is of %s", owner, m.ID, m.ClusterID)
	}
	whole := *m
	whole.Topics, whole.CatalogOnly, whole.withTier = nil, false, true
	whole.Whole, whole.Torn = false, "" // of each partition the tier has more, or not
	for _, old := range m.Topics {
		if _, renamed := o.Rename[old.Name]; len(o.Rename) > 0 && !renamed || len(o.Rename) == 0 && !o.selects(old.Name) {
			continue
		}
		old.Partitions = slices.Clone(old.Partitions)
		whole.Topics = append(whole.Topics, old)
	}
	reach := make([][]Reach, len(whole.Topics))
	work, working := errgroup.WithContext(ctx)
	work.SetLimit(o.Parallel)
	for i := range whole.Topics {
		topic := &whole.Topics[i]
		reach[i] = make([]Reach, len(topic.Partitions))
		for p := range topic.Partitions {
			work.Go(func() error {
				log, err := t.Log(working, topic.ID, int32(p))
				unlisted := errors.Is(err, ErrUnlisted)
				if unlisted {
					log, err = nil, nil
				}
				if err == nil {
					reach[i][p], err = topic.Partitions[p].extend(working, t, log, topic.Compacted, m.CatalogOnly)
				}
				if err != nil {
					return fmt.Errorf("the tier, partition %d of %s: %w", p, topic.Name, err)
				}
				reach[i][p].Topic, reach[i][p].Partition, reach[i][p].Unlisted = topic.Name, int32(p), unlisted
				return nil
			})
		}
	}
	if err := work.Wait(); err != nil {
		return nil, err
	}
	g := &Gathered{Reach: slices.Concat(reach...), manifest: &whole}
	g.putBack(m.Groups)
	from.Tier = t
	return g, nil
}

// extend makes a partition of a backup what that and the tier give together.
func (p *Partition) extend(ctx context.Context, t Tier, log *TierLog, compacted, catalogOnly bool) (r Reach, err error) {
	r = Reach{Tier: -1, Known: p.End}
	p.Objects = slices.Clip(p.Objects) // they are the manifest's
	if catalogOnly {
		// Behind its last object there was more, or nothing: it was not looked.
		p.End = p.Start
		if n := len(p.Objects); n > 0 {
			p.End = p.Objects[n-1].Next
		}
	}
	if log != nil {
		r.Known = max(r.Known, log.End)
		switch gap := int64(log.Epoch) - int64(p.Epoch); {
		case gap <= -fsm.RecoveryGap/2:
			log = nil // of before a recovery that has gone on without some of its end
		case gap >= fsm.RecoveryGap/2:
			p.Objects, p.End = nil, p.Start
		}
	}
	if log != nil {
		p.Start = max(p.Start, log.Start)
		p.Epoch = max(p.Epoch, log.Epoch)
		if (compacted || log.Compacted) && log.Tiered > p.End {
			// What one has and the other has not may have been compacted, and a tombstone that
			// stood for it with it: so either is taken whole.
			p.Objects, p.End = nil, p.Start
		}
		for _, o := range log.Objects {
			if o.Next <= max(p.End, p.Start) {
				continue
			}
			if r.Tier < 0 {
				r.Tier = max(o.First, p.End, p.Start)
			}
			p.Objects = append(p.Objects, Object{
				First: o.First, Next: o.Next, Bytes: o.Bytes, SHA256: hex.EncodeToString(o.Sum[:]), MaxProducer: -1, MaxEpoch: o.MaxEpoch, tierKey: o.Key,
				tierSettled: log.Compacted, tierAborted: o.Aborted,
			})
		}
		p.End = max(p.End, log.Tiered)
	}
	p.End = max(p.End, p.Start)
	p.Objects = slices.DeleteFunc(slices.Clone(p.Objects), func(o Object) bool { return o.Next <= p.Start })
	if len(p.Objects) > 0 && p.Objects[0].tierKey != "" {
		// The log may begin within a batch.
		first := &p.Objects[0]
		batches, err := tierBatches(ctx, t, *first)
		if err != nil {
			return r, err
		}
		if len(batches) > 0 {
			first.First = min(first.First, batches[0].Header().BaseOffset)
		}
	}
	r.Start, r.End, r.Known = p.Start, p.End, max(r.Known, p.End)
	return r, nil
}

// putBack puts offsets of groups that are ahead of what there is back to its end.
func (g *Gathered) putBack(groups []Group) {
	type place struct {
		topic     string
		partition int32
	}
	ends := map[place]int64{}
	for _, r := range g.Reach {
		ends[place{r.Topic, r.Partition}] = r.End
	}
	g.manifest.Groups = nil
	for _, group := range groups {
		kept := Group{ID: group.ID}
		for _, o := range group.Offsets {
			end, ok := ends[place{o.Topic, o.Partition}]
			if !ok {
				continue
			}
			if o.Offset > end {
				g.Back = append(g.Back, fmt.Sprintf("group %q, partition %d of %s: from %d to %d", group.ID, o.Partition, o.Topic, o.Offset, end))
				o.Offset, o.Epoch = end, -1
			}
			kept.Offsets = append(kept.Offsets, o)
		}
		if len(kept.Offsets) > 0 {
			g.manifest.Groups = append(g.manifest.Groups, kept)
		}
	}
}

// tierBatches reads an object of a tier, and checks it. Its first batch may begin in front of it.
func tierBatches(ctx context.Context, t Tier, o Object) (batches []kafkaproto.Batch, err error) {
	data, err := t.Get(ctx, o.tierKey, o.Bytes)
	switch {
	case errors.Is(err, errTooLarge):
		return nil, fmt.Errorf("%s: %w: %w", o.tierKey, ErrDamaged, err)
	case errors.Is(err, ErrNotFound):
		return nil, fmt.Errorf("%s, which the tier names, %w: does somebody delete there, or does its cluster run?", o.tierKey, err)
	case err != nil:
		return nil, err
	}
	if sum := sha256.Sum256(data); int64(len(data)) != o.Bytes || hex.EncodeToString(sum[:]) != o.SHA256 {
		return nil, fmt.Errorf("%s: %w: its SHA-256 is not that in its index", o.tierKey, ErrDamaged)
	}
	next := int64(0)
	for batch, err := range kafkaproto.Batches(data) {
		if err == nil {
			err = batch.CheckCRC()
		}
		h := batch.Header()
		if err == nil && (h.BaseOffset < next || h.NextOffset() <= max(h.BaseOffset, o.First) || h.NextOffset() > o.Next) {
			err = fmt.Errorf("a batch with offsets %d to %d where %d to %d are wanted", h.BaseOffset, h.NextOffset(), max(next, o.First), o.Next)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", o.tierKey, ErrDamaged, err)
		}
		next = h.NextOffset()
		if o.tierSettled {
			if o.aborted(h) {
				continue // as a compaction leaves it
			}
			batch = batch.OutsideTransaction()
		}
		batches = append(batches, batch)
	}
	return batches, nil
}

// aborted reports whether a batch belongs to a transaction of which it is known that it was
// aborted.
func (o Object) aborted(h kafkaproto.BatchHeader) bool {
	return h.Transactional() && !h.Control() && slices.ContainsFunc(o.tierAborted, func(a fsm.AbortedTransaction) bool {
		return a.ProducerID == h.ProducerID && int64(a.First) <= h.BaseOffset && h.BaseOffset < int64(a.Last)
	})
}

// producersSeen notes the largest producer id that is in a topic's records, for objects of which no
// manifest says it.
type producersSeen struct {
	mu      sync.Mutex // guards largest; nothing is done under it but to look and to put
	largest map[fsm.TopicID]int64
}

func (s *producersSeen) see(topic fsm.TopicID, batches []kafkaproto.Batch) {
	largest := int64(-1)
	for _, b := range batches {
		largest = max(largest, b.Header().ProducerID)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.largest == nil {
		s.largest = map[fsm.TopicID]int64{}
	}
	if before, ok := s.largest[topic]; !ok || before < largest {
		s.largest[topic] = largest
	}
}

func (s *producersSeen) of(topic fsm.TopicID) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if largest, ok := s.largest[topic]; ok {
		return largest
	}
	return -1
}
