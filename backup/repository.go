package backup

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// Repository is the backups of one cluster in a store.
type Repository struct {
	Store Store
	Tier  Tier // that objects lie in which are not in Store (Gather); nil: there are none
}

// Where things lie.
const (
	clusterKey   = "cluster.json"
	manifestsDir = "backups/"
	segmentsDir  = "segments/"
)

// clusterFile says whose backups these are.
type clusterFile struct {
	Format    int    `json:"format"`
	ClusterID string `json:"cluster_id"`
}

const maxClusterFile = 4 << 10

// objectKey gives where an object of a partition lies: by its hash, so a name is always the same
// bytes.
func objectKey(topic fsm.TopicID, partition int32, o Object) string {
	return fmt.Sprintf("%s%s/%d/%020d-%s.batches", segmentsDir, topic, partition, o.First, o.SHA256)
}

func manifestKey(id string) string { return manifestsDir + id + ".json" }

// idTime is how a manifest's id begins: sorted by name, the newest is the last.
const idTime = "20060102T150405.000Z"

const idChance = 8 // digits

// newID gives the id of a backup that is begun now.
func newID(now time.Time) string {
	var chance [idChance / 2]byte
	_, _ = rand.Read(chance[:]) // never fails (crypto/rand)
	return now.UTC().Format(idTime) + "-" + hex.EncodeToString(chance[:])
}

// isID says whether a text can be the id of a backup.
func isID(id string) bool {
	at, chance, ok := strings.Cut(id, "-")
	if !ok || len(chance) != idChance || strings.Trim(chance, "0123456789abcdef") != "" {
		return false
	}
	_, err := time.Parse(idTime, at)
	return err == nil
}

// claim says that the store has backups of this cluster, or that it has those of another one.
func (r *Repository) claim(ctx context.Context, clusterID string) error {
	text, err := json.Marshal(clusterFile{Format: format, ClusterID: clusterID})
	if err != nil {
		return err
	}
	// Where two clusters come at once, and the store does not know conditions, both find out when
	// they read what is there.
	for range 2 {
		owner, err := r.owner(ctx)
		switch {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			return err
		case owner != clusterID:
			return fmt.Errorf("%s has the backups of another cluster, %s, and this one is %s: give each a place of its own", r.Store, owner, clusterID)
		default:
			return nil
		}
		if err := r.Store.Put(ctx, clusterKey, text); err != nil && !errors.Is(err, ErrExists) {
			return err
		}
	}
	owner, err := r.owner(ctx)
	if err == nil && owner != clusterID {
		err = fmt.Errorf("%s has the backups of another cluster, %s: give each a place of its own", r.Store, owner)
	}
	return err
}

// owner gives the cluster whose backups these are. The error is ErrNotFound where there are none.
func (r *Repository) owner(ctx context.Context) (clusterID string, err error) {
	data, err := r.Store.Get(ctx, clusterKey, maxClusterFile)
	if err != nil {
		return "", err
	}
	var file clusterFile
	if err := json.Unmarshal(data, &file); err != nil {
		return "", fmt.Errorf("%s: %w: %w", clusterKey, ErrDamaged, err)
	}
	if file.Format > format {
		return "", fmt.Errorf("%s: %w: format %d, this program knows %d", clusterKey, ErrNewer, file.Format, format)
	}
	if file.Format < 1 || file.ClusterID == "" || len(file.ClusterID) > 64 {
		return "", fmt.Errorf("%s: %w: format %d", clusterKey, ErrDamaged, file.Format)
	}
	return file.ClusterID, nil
}

// IDs gives the ids of all backups, the oldest first.
func (r *Repository) IDs(ctx context.Context) (ids []string, err error) {
	err = r.Store.List(ctx, manifestsDir, func(o Stored) error {
		id, ok := strings.CutSuffix(strings.TrimPrefix(o.Key, manifestsDir), ".json")
		if ok && isID(id) {
			ids = append(ids, id)
		}
		return nil
	})
	slices.Sort(ids)
	return ids, err
}

// Manifest reads a backup's manifest. Errors wrap ErrNotFound, ErrDamaged or ErrNewer.
func (r *Repository) Manifest(ctx context.Context, id string) (*Manifest, error) {
	if !isID(id) {
		return nil, fmt.Errorf("backup %q: that is no id of one; 'trimaran backup list' shows them", id)
	}
	data, err := r.Store.Get(ctx, manifestKey(id), maxManifest)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(data)
	if err == nil && m.ID != id {
		err = fmt.Errorf("%w: it says that it is %s", ErrDamaged, m.ID)
	}
	if err != nil {
		return nil, fmt.Errorf("backup %s: %w", id, err)
	}
	return m, nil
}

// clockSlack is how far a clock may be ahead of ours. A backup that was begun after that was made
// while a clock was wrong: it is not the newest of anything, or all that follow would be older.
const clockSlack = time.Hour

// begun gives the time that an id begins with.
func begun(id string) time.Time {
	at, _ := time.Parse(idTime, id[:len(idTime)])
	return at
}

// ahead reports whether a backup was begun in the future.
func ahead(id string) bool { return begun(id).After(time.Now().Add(clockSlack)) }

// Newest reads the newest backup that was begun before a time; zero: the newest of all but those
// from the future. The error is ErrNotFound where there is none.
func (r *Repository) Newest(ctx context.Context, before time.Time) (*Manifest, error) {
	ids, err := r.IDs(ctx)
	if err != nil {
		return nil, err
	}
	for _, id := range slices.Backward(ids) {
		if before.IsZero() && ahead(id) || !before.IsZero() && !begun(id).Before(before) {
			continue
		}
		return r.Manifest(ctx, id)
	}
	switch {
	case len(ids) == 0:
		return nil, fmt.Errorf("%s: a backup %w", r.Store, ErrNotFound)
	case before.IsZero():
		return nil, fmt.Errorf("%s: a backup from before now, %s by the clock here, %w; the oldest is %s (--backup takes any)", r.Store, time.Now().UTC().Format(time.RFC3339), ErrNotFound, ids[0])
	}
	return nil, fmt.Errorf("%s: a backup from before %s %w; the oldest is %s", r.Store, before.UTC().Format(time.RFC3339), ErrNotFound, ids[0])
}

// NewestKnown is Newest without those of a newer program, which may have been put back to this one.
func (r *Repository) NewestKnown(ctx context.Context) (*Manifest, error) {
	return r.newestKnown(ctx, func(*Manifest) bool { return true })
}

func (r *Repository) newestKnown(ctx context.Context, fits func(*Manifest) bool) (*Manifest, error) {
	ids, err := r.IDs(ctx)
	if err != nil {
		return nil, err
	}
	for _, id := range slices.Backward(ids) {
		if ahead(id) {
			continue
		}
		m, err := r.Manifest(ctx, id)
		if errors.Is(err, ErrNewer) || err == nil && !fits(m) {
			continue
		}
		return m, err
	}
	return nil, fmt.Errorf("%s: a backup that this program knows %w", r.Store, ErrNotFound)
}

// put stores a manifest under its id, which nobody else has.
func (r *Repository) put(ctx context.Context, m *Manifest) error {
	data, err := m.encode()
	if err != nil {
		return err
	}
	err = r.Store.Put(ctx, manifestKey(m.ID), data)
	if !errors.Is(err, ErrExists) {
		return err
	}
	// An attempt that seemed to fail, perhaps.
	there, gerr := r.Store.Get(ctx, manifestKey(m.ID), maxManifest)
	if gerr == nil && bytes.Equal(there, data) {
		return nil
	}
	return cmp.Or(gerr, err)
}

// object reads an object of a partition and checks it against the manifest.
func (r *Repository) object(ctx context.Context, topic fsm.TopicID, partition int32, o Object) ([]kafkaproto.Batch, error) {
	if o.tierKey != "" {
		return tierBatches(ctx, r.Tier, o)
	}
	key := objectKey(topic, partition, o)
	data, err := r.Store.Get(ctx, key, o.Bytes)
	if errors.Is(err, errTooLarge) {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return nil, err
	}
	if int64(len(data)) != o.Bytes {
		return nil, fmt.Errorf("%s: %w: %d bytes, the manifest says %d", key, ErrDamaged, len(data), o.Bytes)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != o.SHA256 {
		return nil, fmt.Errorf("%s: %w: its SHA-256 is not that in the manifest", key, ErrDamaged)
	}
	batches, err := parseObject(data, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", key, ErrDamaged, err)
	}
	return batches, nil
}

// parseObject reads the batches of an object.
func parseObject(data []byte, o Object) (batches []kafkaproto.Batch, err error) {
	next := o.First
	for batch, err := range kafkaproto.Batches(data) {
		if err != nil {
			return nil, err
		}
		h := batch.Header()
		if h.BaseOffset < next || h.NextOffset() > o.Next || h.NextOffset() <= h.BaseOffset {
			return nil, fmt.Errorf("a batch with offsets %d to %d where %d to %d are wanted", h.BaseOffset, h.NextOffset(), next, o.Next)
		}
		if err := batch.CheckCRC(); err != nil {
			return nil, err
		}
		next = h.NextOffset()
		batches = append(batches, batch)
	}
	if len(batches) == 0 || next != o.Next {
		return nil, fmt.Errorf("it ends at offset %d, the manifest says %d", next, o.Next)
	}
	return batches, nil
}
