package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// Source is a cluster that is backed up. Methods find a node that answers, and try again for a
// while; they may be called concurrently.
type Source interface {
	Catalog(ctx context.Context) (*admin.CatalogCopy, error)
	// Groups gives the offsets that all groups have committed.
	Groups(ctx context.Context) ([]Group, error)
	// Bounds gives the first offset, the next offset and the leader epoch of a partition, as a
	// confirmed leader knows them. The error is ErrGone if the topic is not there.
	Bounds(ctx context.Context, topic admin.TopicCopy, partition int32) (start, end int64, epoch int32, err error)
	// Ends gives the ends of all partitions of topics, each as a confirmed leader knows it after
	// the call began; nil where the topic is not there.
	Ends(ctx context.Context, topics []admin.TopicCopy) ([][]End, error)
	// Hold has no transaction commit for a moment, and returns when all that were decided have
	// their markers and their groups' offsets everywhere. release ends it, which it does by itself
	// after seconds, and says whether it was so all along. The error wraps ErrNeverHeld if to try
	// again is of no use.
	Hold(ctx context.Context) (release func(ctx context.Context) (held bool, err error), err error)
	// Read gives whole record batches, the first of which has the offset, or is the next one
	// behind it; at least one. Errors are ErrGone, ErrTrimmed if the log begins above the offset,
	// and ErrNothing if no batch stands from the offset to the log's end.
	Read(ctx context.Context, topic admin.TopicCopy, partition int32, offset int64) (batches []byte, err error)
}

var (
	// ErrGone says that a topic was deleted.
	ErrGone = errors.New("the topic is not there any more")
	// ErrTrimmed says that a log begins above the offset that was asked for.
	ErrTrimmed = errors.New("the log begins further on")
	// ErrNothing says that offsets at a log's end have no records any more: they were compacted.
	ErrNothing = errors.New("no records are left to the log's end")
)

// Progress is how far something is. Total is 0 while it is not known.
type Progress struct{ Bytes, Total, Objects atomic.Int64 }

// Options are what backups and restores have in common.
type Options struct {
	// Patterns select topics by name, with '*', '?' and '[…]' (path.Match). None: all.
	Patterns []string
	// Parallel is how many partitions are worked on at once; 0: 4. Each takes some 50 MiB.
	Parallel int
	Progress *Progress // nil: nobody looks
	// CatalogOnly, of Create: no records are read (Manifest.CatalogOnly).
	CatalogOnly bool
}

func (o *Options) defaults() error {
	if o.Parallel <= 0 {
		o.Parallel = 4
	}
	if o.Progress == nil {
		o.Progress = &Progress{}
	}
	for _, p := range o.Patterns {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("pattern %q: %w", p, err)
		}
	}
	return nil
}

func (o *Options) selects(topic string) bool {
	return len(o.Patterns) == 0 || slices.ContainsFunc(o.Patterns, func(p string) bool {
		ok, _ := path.Match(p, topic)
		return ok
	})
}

// Created is what became of a backup.
type Created struct {
	Manifest *Manifest
	// Uploaded counts bytes and objects that were new to the store.
	Uploaded, Objects int64
	// Torn says why transactions may be torn in it; "": they are not, or no records were read.
	Torn    string
	Skipped []string // topics that are being restored, or were deleted meanwhile
}

// maxTails is how many objects that are not full may stand at a partition's end. Then they are read
// anew, into one.
const maxTails = 8

// Create makes a backup. What earlier ones have stored is named and not stored again. The manifest
// is written last: where anything fails there is no backup, and what was stored is of use to the
// next.
func Create(ctx context.Context, from Source, to *Repository, o Options) (*Created, error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	now := time.Now()
	catalog, err := from.Catalog(ctx)
	if err != nil {
		return nil, fmt.Errorf("the cluster's catalog: %w", err)
	}
	if err := to.claim(ctx, catalog.ClusterID); err != nil {
		return nil, err
	}
	before, err := to.base(ctx, o.CatalogOnly)
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrDamaged) && !o.CatalogOnly:
		before = &Manifest{} // all is stored again, or found to be there
	case err != nil:
		return nil, err
	case before.ClusterID != catalog.ClusterID:
		return nil, fmt.Errorf("%s has a backup of another cluster, %s", to.Store, before.ClusterID)
	}
	if len(o.Patterns) > 0 && !slices.ContainsFunc(catalog.Topics, func(t admin.TopicCopy) bool { return o.selects(t.Name) }) {
		return nil, fmt.Errorf("no topic fits %s", strings.Join(o.Patterns, ", "))
	}
	c := &creation{from: from, to: to, options: o, created: &Created{}}
	// Compaction goes on, and of what ends somewhere may take records that stand for others behind
	// that. So those topics are read before it is looked where they end, and what is left after.
	early := &Manifest{Started: time.Now().UnixMilli()}
	if !o.CatalogOnly {
		if early.Topics, _, err = c.topics(ctx, compacted(catalog), nil, before); err != nil {
			return nil, err
		}
	}
	moment, torn, never, err := c.moment(ctx)
	if err != nil {
		return nil, err
	}
	m := &Manifest{
		Format: format, ID: newID(now), ClusterID: catalog.ClusterID, Started: now.UnixMilli(), Patterns: o.Patterns,
		Whole: torn == "" && !o.CatalogOnly, Torn: torn, Topics: []Topic{}, Security: moment.catalog.Security, CatalogOnly: o.CatalogOnly,
	}
	if o.CatalogOnly && before.ID != "" {
		m.Records = before.recordsTime().UnixMilli()
	}
	var topics []Topic
	if topics, c.created.Skipped, err = c.topics(ctx, moment.catalog, moment.ends, early, before); err != nil {
		return nil, err
	}
	m.Topics = append(m.Topics, topics...)
	if m.Whole {
		m.Torn = moment.beyond(m.Topics)
		m.Whole = m.Torn == ""
	}
	c.created.Torn = m.Torn
	if never || moment.catalog.FeatureLevel < fsm.LevelHolds {
		// Its nodes may be of before, and take a manifest with what they do not know for damaged.
		m.Torn = ""
	}
	if err := c.dropGone(ctx, m); err != nil {
		return nil, err
	}
	m.Groups = keepTopics(moment.groups, m)
	m.Finished = max(time.Now().UnixMilli(), m.Started)
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("the cluster gave what cannot be: %w", err)
	}
	if err := c.allThere(ctx, m); err != nil {
		return nil, err
	}
	if err := to.put(ctx, m); err != nil {
		return nil, fmt.Errorf("the manifest: %w", err)
	}
	c.created.Manifest, c.created.Uploaded, c.created.Objects = m, c.uploaded.Load(), c.objects.Load()
	return c.created, nil
}

// base gives the manifest whose objects a new backup names again: the newest that is known, and for
// one that stores nothing itself the newest of these that has all topics. The error is ErrNotFound
// if there is none.
func (r *Repository) base(ctx context.Context, catalogOnly bool) (*Manifest, error) {
	return r.newestKnown(ctx, func(m *Manifest) bool { return !catalogOnly || len(m.Patterns) == 0 })
}

// keepTopics leaves out offsets of topics that are not in a backup.
func keepTopics(groups []Group, m *Manifest) []Group {
	kept := []Group{}
	for _, g := range groups {
		g.Offsets = slices.DeleteFunc(slices.Clone(g.Offsets), func(o GroupOffset) bool {
			return !slices.ContainsFunc(m.Topics, func(t Topic) bool { return t.Name == o.Topic && int(o.Partition) < len(t.Partitions) })
		})
		if len(g.Offsets) > 0 {
			kept = append(kept, g)
		}
	}
	return kept
}

// creation is one backup that is being made.
type creation struct {
	from    Source
	to      *Repository
	options Options

	created *Created

	uploaded, objects atomic.Int64 // of created
}

// compacted leaves out topics that are not.
func compacted(catalog *admin.CatalogCopy) *admin.CatalogCopy {
	c := *catalog
	c.Topics = slices.DeleteFunc(slices.Clone(c.Topics), func(t admin.TopicCopy) bool { return !t.Compacted })
	return &c
}

// topics backs up all topics that are selected, up to ends; nil: to where they end now. before are
// earlier backups, of which the first that has a topic is gone on from.
func (c *creation) topics(ctx context.Context, catalog *admin.CatalogCopy, ends map[fsm.TopicID][]End, before ...*Manifest) (topics []Topic, skipped []string, err error) {
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(c.options.Parallel)
	type selected struct {
		topic Topic
		gone  atomic.Bool
	}
	var all []*selected
	for _, t := range catalog.Topics {
		if !c.options.selects(t.Name) {
			continue
		}
		if t.Restoring {
			skipped = append(skipped, t.Name)
			continue
		}
		to, there := ends[t.ID]
		if ends != nil && !there {
			skipped = append(skipped, t.Name)
			continue
		}
		s := &selected{topic: Topic{
			Name: t.Name, ID: t.ID, ReplicationFactor: t.ReplicationFactor, Configs: t.Configs,
			Compacted: t.Compacted, DeleteRetentionMs: t.DeleteRetentionMs, Partitions: make([]Partition, t.Partitions),
		}}
		all = append(all, s)
		old, began := newestOf(before, t.ID)
		if old != nil && old.Compacted && c.options.CatalogOnly {
			// The records are as old as they were.
			s.topic.Compacted, s.topic.DeleteRetentionMs = true, min(old.DeleteRetentionMs, t.DeleteRetentionMs)
		}
		for p := range t.Partitions {
			work.Go(func() (err error) {
				var had Partition
				if old != nil && p < len(old.Partitions) && (c.options.CatalogOnly || old.goesOn(&s.topic, began, 2)) {
					had = old.Partitions[p]
				}
				var end *End
				if to != nil {
					end = &to[p]
				}
				s.topic.Partitions[p], err = c.partition(ctx, t, int32(p), end, had)
				if err == nil && len(had.Objects) > 0 && !c.options.CatalogOnly && !old.goesOn(&s.topic, began, 1) {
					// The reading took longer than it may.
					s.topic.Partitions[p], err = c.partition(ctx, t, int32(p), end, Partition{})
				}
				if errors.Is(err, ErrGone) {
					s.gone.Store(true)
					return nil
				}
				if err != nil {
					return fmt.Errorf("partition %d of %s: %w", p, t.Name, err)
				}
				return nil
			})
		}
	}
	if err := work.Wait(); err != nil {
		return nil, nil, err
	}
	for _, s := range all {
		if s.gone.Load() {
			skipped = append(skipped, s.topic.Name)
			continue
		}
		topics = append(topics, s.topic)
	}
	return topics, skipped, nil
}

// newestOf gives a topic in the first of some backups that has it, and when that was begun.
func newestOf(all []*Manifest, id fsm.TopicID) (*Topic, time.Time) {
	for _, m := range all {
		if t := m.topic(id); t != nil {
			return t, m.recordsTime()
		}
	}
	return nil, time.Time{}
}

// goesOn reports whether what a backup that was begun then has of a topic may be a part of one now.
// Of a compacted topic both the record and the tombstone that stood for its end may be gone since:
// the log has neither any more, and the earlier backup has the record. So it is with markers of
// transactions. As for every consumer, what is behind the earlier backup has to be read within
// delete.retention.ms, or a share of it.
func (t *Topic) goesOn(now *Topic, began time.Time, share int64) bool {
	if !t.Compacted && !now.Compacted {
		return true
	}
	since := time.Since(began).Milliseconds()
	return since >= 0 && since < min(t.DeleteRetentionMs, now.DeleteRetentionMs)/share
}

// dropGone leaves out topics that were deleted meanwhile, and perhaps created again.
func (c *creation) dropGone(ctx context.Context, m *Manifest) error {
	catalog, err := c.from.Catalog(ctx)
	if err != nil {
		return fmt.Errorf("the cluster's catalog: %w", err)
	}
	m.Topics = slices.DeleteFunc(m.Topics, func(t Topic) bool {
		there := slices.ContainsFunc(catalog.Topics, func(now admin.TopicCopy) bool { return now.ID == t.ID })
		if !there {
			c.created.Skipped = append(c.created.Skipped, t.Name)
		}
		return !there
	})
	return nil
}

// unlessGone gives err, or ErrGone if the topic is not there any more: bounds are asked for by
// name, and may be those of another topic that has it now.
func (c *creation) unlessGone(ctx context.Context, t admin.TopicCopy, err error) error {
	catalog, cerr := c.from.Catalog(ctx)
	if cerr == nil && !slices.ContainsFunc(catalog.Topics, func(now admin.TopicCopy) bool { return now.ID == t.ID }) {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return err
}

// partition backs up a partition up to end; nil: to where it ends now. had is what the backup
// before has of it.
func (c *creation) partition(ctx context.Context, t admin.TopicCopy, partition int32, end *End, had Partition) (Partition, error) {
	const most = 10 // how often retention may be faster
	for try := 0; ; try++ {
		p, err := c.once(ctx, t, partition, end, had)
		if errors.Is(err, ErrTrimmed) && try < most {
			continue
		}
		return p, err
	}
}

func (c *creation) once(ctx context.Context, t admin.TopicCopy, partition int32, end *End, had Partition) (p Partition, err error) {
	if p.Start, p.End, p.Epoch, err = c.from.Bounds(ctx, t, partition); err != nil {
		return p, err
	}
	if end != nil {
		if err := p.cut(*end); err != nil {
			return p, c.unlessGone(ctx, t, err)
		}
	}
	if int64(p.Epoch)-int64(had.Epoch) >= fsm.RecoveryGap/2 {
		// The log has gone on without a majority since. What the earlier backup has of its end may
		// have been lost, and other records stand there.
		had = Partition{}
	}
	p.Objects = had.reusable(p.Start, p.End, !c.options.CatalogOnly)
	if c.options.CatalogOnly {
		return p, nil
	}
	next := p.Start
	if n := len(p.Objects); n > 0 {
		next = p.Objects[n-1].Next
	}
	for range maxReads {
		var whole bool
		if next, whole, err = c.read(ctx, t, partition, next, &p); err != nil {
			return p, err
		}
		if whole {
			return p, nil
		}
		// What is missing was compacted, some of it perhaps a moment ago: the newer record that it
		// gave way to is below the end of now, and would be behind the backup's.
		_, end, epoch, err := c.from.Bounds(ctx, t, partition)
		if err != nil {
			return p, err
		}
		if end < p.End || int64(epoch)-int64(p.Epoch) >= fsm.RecoveryGap/2 {
			return p, ErrTrimmed // by a recovery; from the beginning, then
		}
		if end == p.End {
			return p, nil
		}
		// From here on it is not where the others end (moment.beyond).
		p.End, p.Epoch = end, max(p.Epoch, epoch)
	}
	return p, fmt.Errorf("it was compacted while it was read, %d times in a row", maxReads)
}

// maxReads is how often the end of a partition that is compacted may move while it is read. Each
// time only what came meanwhile is read, which is soon in a segment that is written to, and none
// of these is compacted.
const maxReads = 100

// read reads a partition from an offset on up to its end, and stores that. whole: it has every
// offset of that.
func (c *creation) read(ctx context.Context, t admin.TopicCopy, partition int32, from int64, p *Partition) (next int64, whole bool, err error) {
	next, whole = from, true
	for next < p.End {
		o, data, err := c.gather(ctx, t, partition, next, p.End)
		if err != nil {
			return next, false, err
		}
		if len(data) == 0 {
			return next, false, nil
		}
		if err := c.store(ctx, objectKey(t.ID, partition, o), data); err != nil {
			return next, false, err
		}
		p.Objects = append(p.Objects, o)
		next, whole = o.Next, whole && !o.gaps
	}
	return next, whole, nil
}

// reusable gives the objects of an earlier backup of a log that reaches from start to end now.
// Where too many that are not full stand at its end, they are left out if they can be made one.
func (p *Partition) reusable(start, end int64, again bool) (objects []Object) {
	for _, o := range p.Objects {
		if o.Next > start && o.Next <= end {
			objects = append(objects, o)
		}
	}
	if len(objects) > 0 && objects[0].First > start {
		return nil // there is more than there was, so it is another log
	}
	tails := 0
	for tails < len(objects) && objects[len(objects)-1-tails].Bytes < objectBytes {
		tails++
	}
	if again && tails >= maxTails && objects[len(objects)-1].Next < end {
		objects = objects[:len(objects)-tails]
	}
	return slices.Clone(objects)
}

// gather reads batches from an offset on, up to end, that make an object.
func (c *creation) gather(ctx context.Context, t admin.TopicCopy, partition int32, first, end int64) (o Object, data []byte, err error) {
	o = Object{First: first, Next: first, MaxProducer: -1}
	for o.Next < end && len(data) < objectBytes {
		read, err := c.from.Read(ctx, t, partition, o.Next)
		if errors.Is(err, ErrNothing) {
			break
		}
		if err != nil {
			return o, nil, err
		}
		if room := len(read); room > cap(data)-len(data) {
			if len(data) > 0 {
				room += max(objectBytes-len(data), 0) // of all that comes
			}
			data = slices.Grow(data, room)
		}
		before, over := o.Next, false
		for batch, err := range kafkaproto.Batches(read) {
			if err != nil && o.Next > before {
				break // the answer was cut behind whole batches
			}
			if err == nil {
				err = batch.CheckCRC()
			}
			if err != nil {
				return o, nil, fmt.Errorf("at offset %d: %w", o.Next, err)
			}
			h := batch.Header()
			if h.NextOffset() <= o.Next {
				continue
			}
			if len(data) == 0 {
				// Records in front of the log start are in its batch.
				o.First = min(o.First, h.BaseOffset)
			} else if h.BaseOffset < o.Next {
				return o, nil, fmt.Errorf("a batch begins at offset %d, where %d comes next", h.BaseOffset, o.Next)
			}
			o.gaps = o.gaps || h.BaseOffset > o.Next || int64(h.Records) < h.NextOffset()-h.BaseOffset
			if over = h.BaseOffset >= end; over || len(data) >= objectBytes {
				break
			}
			data = append(data, batch.Bytes()...)
			o.Next, o.MaxProducer, o.MaxEpoch = h.NextOffset(), max(o.MaxProducer, h.ProducerID), max(o.MaxEpoch, h.LeaderEpoch)
		}
		if over {
			break // what was in front of the end, if anything, was compacted meanwhile
		}
		if o.Next == before {
			return o, nil, fmt.Errorf("nothing is there from offset %d to %d", o.Next, end)
		}
	}
	sum := sha256.Sum256(data)
	o.Bytes, o.SHA256 = int64(len(data)), hex.EncodeToString(sum[:])
	return o, data, nil
}

// store stores an object that may be there already. Whether it is new is asked first: an attempt
// whose answer was lost may have stored it, and it is there at the next one.
func (c *creation) store(ctx context.Context, key string, data []byte) error {
	_, asked := c.to.Store.Size(ctx, key)
	if asked != nil && !errors.Is(asked, ErrNotFound) {
		return asked
	}
	// What is there counts as stored when it was made sure that it stays.
	if err := c.to.Store.Put(ctx, key, data); err != nil && !errors.Is(err, ErrExists) {
		return err
	}
	c.options.Progress.Bytes.Add(int64(len(data)))
	c.options.Progress.Objects.Add(1)
	if asked != nil {
		c.uploaded.Add(int64(len(data)))
		c.objects.Add(1)
	}
	return nil
}

// allThere makes sure that what a manifest names is in the store, and has its size: somebody may
// have deleted what an earlier backup stored.
func (c *creation) allThere(ctx context.Context, m *Manifest) error {
	missing, err := missing(ctx, c.to, m)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("%d objects that are needed are missing or have another size, %s among them: make a backup to another place, and look who writes to this one",
			len(missing), missing[0])
	}
	return nil
}

// missing gives the keys of objects that a manifest names and that are not there with their size.
func missing(ctx context.Context, r *Repository, m *Manifest) (keys []string, err error) {
	sizes := map[string]int64{}
	for o, key := range m.objects() {
		sizes[key] = o.Bytes
	}
	for i := range m.Topics {
		err := r.Store.List(ctx, segmentsDir+m.Topics[i].ID.String()+"/", func(s Stored) error {
			if size, named := sizes[s.Key]; named && size == s.Bytes {
				delete(sizes, s.Key)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for key := range sizes {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys, nil
}
