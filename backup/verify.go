package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
)

// Verified is what was found when a backup was read, or compared with a cluster.
type Verified struct {
	ID      string `json:"id"`
	Objects int64  `json:"objects"`
	Bytes   int64  `json:"bytes"`
	// Wrong is what is not as the manifest says, at most maxWrong of it.
	Wrong []string `json:"wrong,omitempty"`
}

const maxWrong = 100

// wrongs collects what is wrong.
type wrongs struct {
	mu  sync.Mutex // guards all; nothing is done under it but to append
	all []string
}

func (w *wrongs) add(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.all) < maxWrong {
		w.all = append(w.all, fmt.Sprintf(format, args...))
	}
}

// Known is what was found of objects, by key: "", or what is wrong. What several backups have is
// read once.
type Known map[string]string

// Verify reads all objects of a backup, and compares them with what its manifest says. known has
// those that were read before, and is added to.
func Verify(ctx context.Context, m *Manifest, r *Repository, o Options, known Known) (*Verified, error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	v := &Verified{ID: m.ID}
	var mu sync.Mutex // guards known; nothing is done under it but to look and to put
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(o.Parallel)
	for i := range m.Topics {
		t := &m.Topics[i]
		for p := range t.Partitions {
			for _, object := range t.Partitions[p].Objects {
				key := objectKey(t.ID, int32(p), object)
				mu.Lock()
				_, read := known[key]
				mu.Unlock()
				if read {
					continue
				}
				work.Go(func() error {
					_, err := r.object(ctx, t.ID, int32(p), object)
					o.Progress.Bytes.Add(object.Bytes)
					o.Progress.Objects.Add(1)
					what := ""
					if errors.Is(err, ErrDamaged) || errors.Is(err, ErrNotFound) {
						what, err = err.Error(), nil
					}
					mu.Lock()
					defer mu.Unlock()
					known[key] = what
					return err
				})
			}
		}
	}
	if err := work.Wait(); err != nil {
		return nil, err
	}
	for object, key := range m.objects() {
		v.Objects++
		v.Bytes += object.Bytes
		if what := known[key]; what != "" && len(v.Wrong) < maxWrong {
			v.Wrong = append(v.Wrong, what)
		}
	}
	return v, nil
}

// Compare reads the topics of a backup from a cluster, and compares them with the backup byte for
// byte: offsets, leader epochs, producers, records; and the offsets of its groups. A log may have
// more at its end, and groups may have gone on; one that is compacted may have what compaction
// leaves of it.
func Compare(ctx context.Context, m *Manifest, r *Repository, with Source, o RestoreOptions) (*Verified, error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	if m.CatalogOnly {
		return nil, fmt.Errorf("backup %s was made without reading records: compare it with what a tier has (--from-tier), or another one (--backup)", m.ID)
	}
	catalog, err := with.Catalog(ctx)
	if err != nil {
		return nil, fmt.Errorf("the cluster's catalog: %w", err)
	}
	byName := map[string]admin.TopicCopy{}
	for _, t := range catalog.Topics {
		byName[t.Name] = t
	}
	v := &Verified{ID: m.ID}
	var wrong wrongs
	work, reading := errgroup.WithContext(ctx)
	work.SetLimit(o.Parallel)
	compared := map[string]bool{}
	for i := range m.Topics {
		old := &m.Topics[i]
		name, renamed := o.Rename[old.Name]
		if !renamed {
			if name = old.Name; len(o.Rename) > 0 || !o.selects(old.Name) {
				continue
			}
		}
		here, ok := byName[name]
		if !ok || here.Partitions < len(old.Partitions) {
			wrong.add("topic %s: %d partitions are there, %d in the backup", name, here.Partitions, len(old.Partitions))
			continue
		}
		if !renamed && !o.NewIDs && here.ID != old.ID {
			wrong.add("topic %s: its id is %s, and %s in the backup", name, here.ID, old.ID)
		}
		compared[old.Name] = true
		for p := range old.Partitions {
			for _, object := range old.Partitions[p].Objects {
				v.Objects++
				v.Bytes += object.Bytes
			}
			work.Go(func() error {
				err := comparePartition(reading, r, with, here, old.ID, int32(p), &old.Partitions[p], o.Progress)
				var differs differs
				if errors.As(err, &differs) || errors.Is(err, ErrGone) || errors.Is(err, ErrTrimmed) {
					wrong.add("topic %s, partition %d: %v", name, p, err)
					return nil
				}
				if err != nil {
					return fmt.Errorf("partition %d of %s: %w", p, name, err)
				}
				return nil
			})
		}
	}
	if err := work.Wait(); err != nil {
		return nil, err
	}
	if len(o.Rename) == 0 && !o.NoGroups {
		groups, err := with.Groups(ctx)
		if err != nil {
			return nil, err
		}
		compareGroups(m.Groups, groups, compared, &wrong)
	}
	v.Wrong = wrong.all
	return v, nil
}

// differs is an error that says how something is other than in a backup.
type differs string

func (d differs) Error() string { return string(d) }

func comparePartition(ctx context.Context, r *Repository, with Source, here admin.TopicCopy, id fsm.TopicID, partition int32, old *Partition, progress *Progress) error {
	start, end, _, err := with.Bounds(ctx, here, partition)
	if err != nil {
		return err
	}
	if start != old.Start || end < old.End {
		return differs(fmt.Sprintf("it has offsets %d to %d, the backup %d to %d", start, end, old.Start, old.End))
	}
	if here.Compacted {
		return compareCompacted(ctx, r, with, here, id, partition, old, end, progress)
	}
	c := &creation{from: with}
	next := old.Start
	for _, o := range old.Objects {
		want := o.SHA256
		from := o.First
		if from < next {
			// Part of it lies in front of the log start, and is not read from the cluster, or is in
			// the object before, as where a tier goes on behind a backup.
			batches, err := r.object(ctx, id, partition, o)
			if err != nil {
				return err
			}
			sum := sha256.New()
			for _, b := range batches {
				if b.Header().NextOffset() > next {
					sum.Write(b.Bytes())
				}
			}
			want, from = hex.EncodeToString(sum.Sum(nil)), next
		}
		next = o.Next
		got, err := c.digest(ctx, here, partition, from, o.Next)
		if err != nil {
			return err
		}
		if got != want {
			return differs(fmt.Sprintf("offsets %d to %d are not those of the backup", from, o.Next))
		}
		progress.Bytes.Add(o.Bytes)
		progress.Objects.Add(1)
	}
	return nil
}

// digest gives the SHA-256 of the batches from an offset on, up to end.
func (c *creation) digest(ctx context.Context, t admin.TopicCopy, partition int32, from, end int64) (string, error) {
	sum := sha256.New()
	for from < end {
		o, data, err := c.gather(ctx, t, partition, from, end)
		if err != nil {
			return "", err
		}
		if len(data) == 0 {
			break
		}
		sum.Write(data)
		from = o.Next
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// compareGroups looks for offsets that are missing, or lower than in the backup.
func compareGroups(want, have []Group, topics map[string]bool, wrong *wrongs) {
	type place struct {
		group, topic string
		partition    int32
	}
	there := map[place]int64{}
	for _, g := range have {
		for _, o := range g.Offsets {
			there[place{g.ID, o.Topic, o.Partition}] = o.Offset
		}
	}
	for _, g := range want {
		for _, o := range g.Offsets {
			if at, ok := there[place{g.ID, o.Topic, o.Partition}]; topics[o.Topic] && (!ok || at < o.Offset) {
				wrong.add("group %q: partition %d of %s is at offset %d, in the backup at %d", g.ID, o.Partition, o.Topic, at, o.Offset)
			}
		}
	}
}
