package backup

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// Target is a cluster into which a backup is restored, as Source.
type Target interface {
	Source
	// CreateRestoring creates a topic that is to be restored, and returns when its partitions have
	// leaders. It may be asked twice.
	CreateRestoring(ctx context.Context, spec fsm.TopicSpec) error
	// Append appends batches that keep their offsets, and gives the next offset. What is there
	// already is left out. last: none follow.
	Append(ctx context.Context, topic fsm.TopicID, partition int32, batches []byte, last bool) (next int64, err error)
	// DeleteBefore moves the start of a log up.
	DeleteBefore(ctx context.Context, topic string, partition int32, offset int64) error
	// Commit sets a group's offsets.
	Commit(ctx context.Context, group Group) error
	// Secure sets credentials and adds ACLs.
	Secure(ctx context.Context, security admin.CatalogSecurity) error
	// End lets clients append to a topic. producers is the largest producer id in it, or -1.
	End(ctx context.Context, topic fsm.TopicID, producers int64) error
}

// RestoreOptions say what is restored.
type RestoreOptions struct {
	Options
	// Rename gives topics new names, by the old ones, and with them new ids. Where there are some,
	// nothing else is restored.
	Rename map[string]string
	// NewIDs gives all topics new ids.
	NewIDs bool
	// NoGroups leaves out offsets of groups, NoSecurity users and ACLs. Neither comes with renamed
	// topics, and users and ACLs not with a choice of topics.
	NoGroups, NoSecurity bool
}

// Restored is what became of a restore.
type Restored struct {
	Topics, Partitions int
	Bytes              int64    // of records that were appended, or were there before
	Done               []string // topics that an earlier attempt has restored
	Groups             int
	Users, ACLs        int      // that were not there
	Failed             []string // groups whose offsets could not be set, and why
}

// Restore brings a backup into a cluster that has none of its topics. What an earlier attempt with
// the same backup has done is not done again.
func Restore(ctx context.Context, m *Manifest, from *Repository, to Target, o RestoreOptions) (*Restored, error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	catalog, err := catalogForRestore(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("the cluster's catalog: %w", err)
	}
	if m.CatalogOnly {
		return nil, fmt.Errorf("backup %s was made without reading records: restore it with what a tier has (--from-tier), or another one (--backup)", m.ID)
	}
	r := &restoration{manifest: m, from: from, to: to, options: o, restored: &Restored{}}
	if err := r.plan(catalog); err != nil {
		return nil, err
	}
	if err := r.topics(ctx); err != nil {
		return nil, err
	}
	// Clients can append when all else is there.
	if err := r.groups(ctx); err != nil {
		return nil, err
	}
	if err := r.security(ctx, catalog); err != nil {
		return nil, err
	}
	for _, t := range r.todo {
		if err := to.End(ctx, t.id, max(t.old.maxProducer(), r.seen.of(t.old.ID))); err != nil {
			return nil, fmt.Errorf("topic %s: %w", t.name, err)
		}
	}
	return r.restored, nil
}

// levelPatience is how long a new cluster has to reach its level, which takes it a second.
const levelPatience = 15 * time.Second

// catalogForRestore gives the catalog of a cluster that can restore.
func catalogForRestore(ctx context.Context, to Target) (*admin.CatalogCopy, error) {
	for until := time.Now().Add(levelPatience); ; {
		catalog, err := to.Catalog(ctx)
		if err != nil || catalog.FeatureLevel >= fsm.LevelRestore {
			return catalog, err
		}
		if time.Now().After(until) {
			return nil, fmt.Errorf("to restore needs level %d on all nodes, and the cluster is at %d: nodes run an older program", fsm.LevelRestore, catalog.FeatureLevel)
		}
		if err := wait(ctx, 1); err != nil {
			return nil, err
		}
	}
}

// restoration is one restore that is under way.
type restoration struct {
	manifest *Manifest
	from     *Repository
	to       Target
	options  RestoreOptions
	todo     []target
	restored *Restored
	seen     producersSeen // of records that came from a tier
}

// target is a topic that is to be restored, and how it is called here.
type target struct {
	old  *Topic
	name string
	id   fsm.TopicID
	spec fsm.TopicSpec
}

// plan says what is to be done, and refuses what would meet something else.
func (r *restoration) plan(catalog *admin.CatalogCopy) error {
	byName, byID := map[string]admin.TopicCopy{}, map[fsm.TopicID]admin.TopicCopy{}
	for _, t := range catalog.Topics {
		byName[t.Name], byID[t.ID] = t, t
	}
	for old := range r.options.Rename {
		if !slices.ContainsFunc(r.manifest.Topics, func(t Topic) bool { return t.Name == old }) {
			return fmt.Errorf("topic %s is not in backup %s", old, r.manifest.ID)
		}
	}
	for i := range r.manifest.Topics {
		old := &r.manifest.Topics[i]
		t := target{old: old, name: old.Name, id: old.ID}
		if len(r.options.Rename) > 0 {
			name, ok := r.options.Rename[old.Name]
			if !ok {
				continue
			}
			t.name = name
		} else if !r.options.selects(old.Name) {
			continue
		}
		if r.options.NewIDs || len(r.options.Rename) > 0 {
			t.id = otherID(r.manifest.ID, old.ID, t.name)
		}
		origin := fmt.Sprintf("%s of cluster %s, topic %s", r.manifest.ID, r.manifest.ClusterID, old.ID)
		if r.manifest.withTier {
			origin += " and its tier"
		}
		there, ok := byName[t.name]
		switch {
		case ok && there.Origin == origin && !there.Restoring:
			r.restored.Done = append(r.restored.Done, t.name)
			continue
		case ok && there.Origin == origin:
			t.id = there.ID
		case ok && there.Restoring:
			return fmt.Errorf("topic %s is being restored from %s: go on with that, or delete the topic", t.name, there.Origin)
		case ok:
			return fmt.Errorf("topic %s is there already: restore it under another name, or into an empty cluster", t.name)
		}
		if i := slices.IndexFunc(r.todo, func(o target) bool { return o.name == t.name }); i >= 0 {
			return fmt.Errorf("topics %s and %s would both be %s", r.todo[i].old.Name, old.Name, t.name)
		}
		if other, ok := byID[t.id]; ok && other.Name != t.name {
			return fmt.Errorf("topic %s is there already, it is called %s: restore it under another name (--topic %s=…), or with --new-ids", old.Name, other.Name, old.Name)
		}
		t.spec = fsm.TopicSpec{
			Name: t.name, Partitions: int32(len(old.Partitions)), ReplicationFactor: int16(min(old.ReplicationFactor, max(catalog.Nodes, 1))),
			Configs: old.Configs, Restore: &fsm.RestoreSpec{ID: t.id, Origin: origin},
		}
		for p := range old.Partitions {
			t.spec.Restore.Begin = append(t.spec.Restore.Begin, old.Partitions[p].begin())
			r.options.Progress.Total.Add(old.Partitions[p].bytes())
		}
		r.todo = append(r.todo, t)
	}
	if len(r.todo)+len(r.restored.Done) == 0 && len(r.manifest.Topics) > 0 {
		return fmt.Errorf("no topic of backup %s is meant", r.manifest.ID)
	}
	return nil
}

// otherID gives a topic that is restored as another one an id, which is the same at each attempt.
func otherID(backup string, old fsm.TopicID, name string) (id fsm.TopicID) {
	sum := sha256.Sum256([]byte(backup + "/" + old.String() + "/" + name))
	copy(id[:], sum[:])
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80 // a UUID of version 8 (RFC 9562)
	return id
}

// begin is where the log of a restored partition begins: with the first batch that is kept, which
// may have records in front of the log's start.
func (p *Partition) begin() fsm.Begin {
	at := p.Start
	if len(p.Objects) > 0 {
		at = p.Objects[0].First
	}
	epoch := max(p.Epoch, 1)
	for _, o := range p.Objects {
		epoch = max(epoch, o.MaxEpoch)
	}
	return fsm.Begin{Offset: fsm.Offset(at), Term: fsm.Term(epoch)}
}

func (p *Partition) bytes() (n int64) {
	for _, o := range p.Objects {
		n += o.Bytes
	}
	return n
}

// topics creates the topics and appends their records.
func (r *restoration) topics(ctx context.Context) error {
	for _, t := range r.todo {
		if err := r.to.CreateRestoring(ctx, t.spec); err != nil {
			return fmt.Errorf("topic %s: %w", t.name, err)
		}
	}
	for _, t := range r.todo {
		r.restored.Topics++
		r.restored.Partitions += len(t.old.Partitions)
	}
	err := r.each(ctx, r.partition)
	r.restored.Bytes = r.options.Progress.Bytes.Load()
	if err != nil {
		return err
	}
	// What is open is aborted when all are there: whoever begins again before that may find more.
	return r.each(ctx, r.end)
}

// each does something for all partitions, some at once.
func (r *restoration) each(ctx context.Context, do func(context.Context, target, int32) error) error {
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(r.options.Parallel)
	for _, t := range r.todo {
		for p := range t.old.Partitions {
			work.Go(func() error {
				if err := do(ctx, t, int32(p)); err != nil {
					return fmt.Errorf("partition %d of %s: %w", p, t.name, err)
				}
				return nil
			})
		}
	}
	return work.Wait()
}

// restoreBytes is about how much goes to a cluster in one request.
const restoreBytes = 1 << 20

// partition appends the records of a partition that are not there yet. While an object is appended
// the next one is fetched.
func (r *restoration) partition(ctx context.Context, t target, partition int32) error {
	old := &t.old.Partitions[partition]
	here := admin.TopicCopy{Name: t.name, ID: t.id}
	_, next, _, err := r.to.Bounds(ctx, here, partition)
	if err != nil {
		return err
	}
	type fetched struct {
		object  Object
		batches []kafkaproto.Batch
		err     error
	}
	objects := make(chan fetched)
	ctx, cancel := context.WithCancel(ctx)
	var fetching sync.WaitGroup
	defer fetching.Wait()
	defer cancel()
	fetching.Go(func() {
		defer close(objects)
		for _, o := range old.Objects {
			f := fetched{object: o}
			if o.Next > next || o.tierKey != "" { // of a tier, producers are to be seen again
				f.batches, f.err = r.from.object(ctx, t.old.ID, partition, o)
			}
			if o.tierKey != "" {
				r.seen.see(t.old.ID, f.batches)
			}
			if o.Next <= next {
				f.batches = nil
			}
			select {
			case objects <- f:
			case <-ctx.Done():
				return
			}
			if f.err != nil {
				return
			}
		}
	})
	for f := range objects {
		if f.err != nil {
			return f.err
		}
		if err := r.append(ctx, t.id, partition, f.batches); err != nil {
			return err
		}
		r.options.Progress.Bytes.Add(f.object.Bytes)
		r.options.Progress.Objects.Add(1)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.reach(ctx, t, partition)
}

// end ends what is open in a partition whose records are all there, and has its log start where it
// did.
func (r *restoration) end(ctx context.Context, t target, partition int32) error {
	old := &t.old.Partitions[partition]
	end, err := r.to.Append(ctx, t.id, partition, nil, true)
	if err != nil {
		return err
	}
	if end < old.End {
		return fmt.Errorf("it ends at offset %d, the backup at %d", end, old.End)
	}
	if old.Start > int64(old.begin().Offset) {
		return r.to.DeleteBefore(ctx, t.name, partition, old.Start)
	}
	return nil
}

// reach has the log reach to the end that it had, where no records are left of the last offsets.
func (r *restoration) reach(ctx context.Context, t target, partition int32) error {
	old := &t.old.Partitions[partition]
	next, err := r.to.Append(ctx, t.id, partition, nil, false)
	if err != nil {
		return err
	}
	for next < old.End {
		count := min(old.End-next, math.MaxInt32)
		if _, err := r.to.Append(ctx, t.id, partition, kafkaproto.NewEmpty(next, int32(count), old.Epoch).Bytes(), false); err != nil {
			return err
		}
		next += count
	}
	return nil
}

// append appends the batches of an object.
func (r *restoration) append(ctx context.Context, topic fsm.TopicID, partition int32, batches []kafkaproto.Batch) error {
	var request []byte
	for i, batch := range batches {
		request = append(request, batch.Bytes()...)
		if i+1 < len(batches) && len(request)+batches[i+1].Size() <= restoreBytes {
			continue
		}
		if _, err := r.to.Append(ctx, topic, partition, request, false); err != nil {
			return err
		}
		request = request[:0]
	}
	return nil
}

// groups sets the offsets of groups in the topics that are restored now.
func (r *restoration) groups(ctx context.Context) error {
	if r.options.NoGroups || len(r.options.Rename) > 0 {
		return nil
	}
	now := map[string]bool{}
	for _, t := range r.todo {
		now[t.old.Name] = true
	}
	for _, g := range r.manifest.Groups {
		g.Offsets = slices.DeleteFunc(slices.Clone(g.Offsets), func(o GroupOffset) bool { return !now[o.Topic] })
		if len(g.Offsets) == 0 {
			continue
		}
		if err := r.to.Commit(ctx, g); err != nil {
			if ctx.Err() != nil || !errors.Is(err, ErrGroupBusy) {
				return fmt.Errorf("group %q: %w", g.ID, err)
			}
			r.restored.Failed = append(r.restored.Failed, fmt.Sprintf("%s: %v", g.ID, err))
			continue
		}
		r.restored.Groups++
	}
	return nil
}

// ErrGroupBusy says that a group has members, whose own commits count.
var ErrGroupBusy = errors.New("the group has members here already")

// security sets users and ACLs that are not there.
func (r *restoration) security(ctx context.Context, catalog *admin.CatalogCopy) error {
	if r.options.NoSecurity || len(r.options.Rename) > 0 || len(r.options.Patterns) > 0 {
		return nil
	}
	there := map[fsm.CredentialName]bool{}
	for _, c := range catalog.Security.Credentials {
		there[fsm.CredentialName{User: c.User, Mechanism: c.Mechanism}] = true
	}
	var missing admin.CatalogSecurity
	users := map[string]bool{}
	for _, c := range r.manifest.Security.Credentials {
		if !there[fsm.CredentialName{User: c.User, Mechanism: c.Mechanism}] {
			missing.Credentials = append(missing.Credentials, c)
			users[c.User] = true
		}
	}
	for _, b := range r.manifest.Security.ACLs {
		if !slices.Contains(catalog.Security.ACLs, b) {
			missing.ACLs = append(missing.ACLs, b)
		}
	}
	r.restored.Users, r.restored.ACLs = len(slices.Collect(maps.Keys(users))), len(missing.ACLs)
	if len(missing.Credentials)+len(missing.ACLs) == 0 {
		return nil
	}
	if err := r.to.Secure(ctx, missing); err != nil {
		return fmt.Errorf("users and ACLs: %w", err)
	}
	return nil
}
