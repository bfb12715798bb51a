package tier

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// Config says how a node uses a store.
type Config struct {
	Store Store
	// ClusterID gives the id of the node's cluster, "" while it is not known. One that has gone on
	// without a majority has that of the one before, a dot, and more.
	ClusterID func() string
	// Dir is the folder of the cache on FS: whatever is in it is removed when the tier is opened.
	FS  vfs.FS
	Dir string
	// Full reports whether nothing should be written that can be done without; nil: never.
	Full func() bool
	// Used reports whether records of the cluster are known to be in its store; nil: they are not.
	Used func() bool
	// Syncs counts the syncs of logs: those who produce come before those who read old records.
	// nil: nothing is known of them.
	Syncs      func() int64
	CacheBytes int64 // of files in Dir; 0: 1 GiB
	PieceBytes int   // of records in one object, unless a batch is larger; 0: 8 MiB
	UploadRate int64 // bytes a second that are put there; 0: no bound
	Logger     *slog.Logger
}

const (
	defaultCache = 1 << 30
	defaultPiece = 8 << 20
	// readAhead is how many pieces are fetched beyond the one that is read, by who reads on.
	readAhead = 3
	// fetchesAtOnce bounds what is fetched at once, in pieces, and so the memory that it takes.
	fetchesAtOnce = 6
	// aheadAtOnce is how many of these may be what nobody waits for.
	aheadAtOnce = 4
	// fetchTimeout is how long one object may take to be read.
	fetchTimeout = time.Minute
	// putTimeout is how long one object may take to be stored and read back.
	putTimeout = 10 * time.Minute
	// uploadBurst is what may go to the store at once, in bytes.
	uploadBurst = 1 << 20
	// summedAtOnce is how many bytes are summed before others run: about 0.2 ms.
	summedAtOnce = 256 << 10
)

// Counters count what a node does with its store.
type Counters struct {
	Segments     atomic.Int64 // put there and named
	Saved        atomic.Int64 // bytes of records that compaction has made of more, there
	Uploaded     atomic.Int64 // bytes of objects put there
	UploadErrors atomic.Int64
	Fetched      atomic.Int64 // bytes of objects read from there
	FetchErrors  atomic.Int64
	Hits, Misses atomic.Int64 // reads of a piece that was in the cache, or was not
	Deleted      atomic.Int64 // objects
	Orphans      atomic.Int64 // objects that nobody named, deleted
}

// Tier is the store as a node uses it. Its methods may be called concurrently.
type Tier struct {
	Config
	Counters
	ctx   context.Context // ends with the node
	cache *cache

	fetches chan struct{} // capacity fetchesAtOnce
	ahead   chan struct{} // capacity aheadAtOnce
	sums    chan struct{} // capacity half of the processors, 1 at least
	looks   chan struct{} // capacity looksLeft
	uploads *rate.Limiter // of bytes
	pacer   *pacer        // of reads
	running sync.WaitGroup

	// mu guards what follows. Nothing is taken or waited for under it.
	mu      locks.Mutex[Tier]
	claimed time.Time // when the store was seen to be this cluster's
	closed  bool      // nothing is begun any more
	gave    time.Time // when the store last gave an object
	flights map[string]*flight
	failed  map[string]failure
	indexes map[string]*index
	// indexBytes is about what indexes take.
	indexBytes int64
}

// Open makes a tier that ends with ctx. It asks nothing of the store.
func Open(ctx context.Context, config Config) (*Tier, error) {
	if config.CacheBytes == 0 {
		config.CacheBytes = defaultCache
	}
	if config.PieceBytes == 0 {
		config.PieceBytes = defaultPiece
	}
	if config.Full == nil {
		config.Full = func() bool { return false }
	}
	if config.Used == nil {
		config.Used = func() bool { return false }
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if err := config.FS.RemoveAll(config.Dir); err != nil {
		return nil, fmt.Errorf("the cache of the tier: %w", err)
	}
	if err := config.FS.MkdirAll(config.Dir); err != nil {
		return nil, fmt.Errorf("the cache of the tier: %w", err)
	}
	limit := rate.Inf
	if config.UploadRate > 0 {
		limit = rate.Limit(config.UploadRate)
	}
	return &Tier{
		uploads: rate.NewLimiter(limit, uploadBurst), pacer: newPacer(config.Syncs),
		Config: config, ctx: ctx, cache: newCache(config.FS, config.Dir, config.CacheBytes),
		fetches: make(chan struct{}, fetchesAtOnce), ahead: make(chan struct{}, aheadAtOnce),
		sums:    make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		looks:   make(chan struct{}, looksLeft),
		flights: map[string]*flight{}, failed: map[string]failure{}, indexes: map[string]*index{},
	}, nil
}

// Close waits for what is under way; the tier's context must have ended.
func (t *Tier) Close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.running.Wait()
}

// claim is what a store says of whose it is.
type claim struct {
	Format    int    `json:"format"`
	ClusterID string `json:"cluster_id"`
}

const (
	claimFormat = 1
	maxClaim    = 4 << 10
	// claimLasts is how long it is relied on that the store is still this cluster's: where it does
	// not know conditions, two clusters may have come at once.
	claimLasts = time.Minute
)

// Claim makes the store this cluster's if it is nobody's, or that of the cluster which has become
// this one by a recovery: what is left of that may not change it any more. The error wraps
// ErrForeign if it is another's, and is ErrEmpty if it cannot be the one that has the cluster's
// records.
func (t *Tier) Claim(ctx context.Context) error {
	t.mu.Lock()
	claimed := time.Since(t.claimed) < claimLasts
	t.mu.Unlock()
	if claimed {
		return nil
	}
	ours, before, err := t.owned(ctx)
	if ours || err != nil {
		return err
	}
	key := claimKey
	if before != "" {
		key = claimAfter(before)
	} else if t.Used() {
		return fmt.Errorf("%w: %s", ErrEmpty, t.Store)
	}
	text, err := json.Marshal(claim{claimFormat, t.ClusterID()})
	if err != nil {
		return err
	}
	// Where two clusters come at once, and the store does not know conditions, both find out when
	// they read what is there.
	if err := t.Store.Put(ctx, key, text); err != nil && !errors.Is(err, ErrExists) {
		return err
	}
	if ours, _, err = t.owned(ctx); err == nil && !ours {
		err = errors.New("the store does not give what was just put there")
	}
	return err
}

// owned asks the store whether it is this cluster's; it is not, and err is nil, if it is nobody's,
// or that of the one before this, which it gives then.
func (t *Tier) owned(ctx context.Context) (ours bool, before string, err error) {
	id := t.ClusterID()
	if id == "" {
		return false, "", errors.New("the node does not know its cluster yet")
	}
	owner, err := owner(ctx, t.Store)
	switch {
	case errors.Is(err, ErrNotFound):
		return false, "", nil
	case err != nil:
		return false, "", err
	case succeeds(id, owner):
		return false, owner, nil
	case owner != id:
		return false, "", fmt.Errorf("%w: %s belongs to cluster %s, and this one is %s: give each a place of its own", ErrForeign, t.Store, owner, id)
	}
	t.mu.Lock()
	t.claimed = time.Now()
	t.mu.Unlock()
	return true, "", nil
}

// there looks whether the store is still the one that was claimed. Whether another cluster has come
// after this one is seen by Claim.
func (t *Tier) there(ctx context.Context) error {
	first, err := claimed(ctx, t.Store, claimKey)
	switch id := t.ClusterID(); {
	case errors.Is(err, ErrNotFound):
		return fmt.Errorf("%w: %s", ErrEmpty, t.Store)
	case err == nil && first != id && !succeeds(id, first):
		return fmt.Errorf("%w: %s belongs to cluster %s", ErrForeign, t.Store, first)
	}
	return err
}

// succeeds reports whether a cluster is what became of another one by recoveries.
func succeeds(clusterID, before string) bool { return strings.HasPrefix(clusterID, before+".") }

// claimAfter is where it says to which cluster a store has gone over from another one.
func claimAfter(before string) string { return "tier-after-" + before + ".json" }

// owner gives the cluster that a store belongs to: the one that had it first, or the last of those
// that it has become by recoveries.
func owner(ctx context.Context, store Store) (clusterID string, err error) {
	clusterID, err = claimed(ctx, store, claimKey)
	for err == nil {
		var next string
		next, err = claimed(ctx, store, claimAfter(clusterID))
		switch {
		case errors.Is(err, ErrNotFound):
			return clusterID, nil
		case err == nil && !succeeds(next, clusterID):
			return "", fmt.Errorf("%s: %w", claimAfter(clusterID), ErrDamaged)
		}
		clusterID = next
	}
	return "", err
}

func claimed(ctx context.Context, store Store, key string) (clusterID string, err error) {
	data, err := store.Get(ctx, key, maxClaim)
	if err != nil {
		return "", err
	}
	var c claim
	if err := json.Unmarshal(data, &c); err != nil || c.Format < 1 || c.ClusterID == "" {
		return "", fmt.Errorf("%s: %w", key, ErrDamaged)
	}
	if c.Format > claimFormat {
		return "", fmt.Errorf("%s: written by a newer program: format %d, this one knows %d", key, c.Format, claimFormat)
	}
	return c.ClusterID, nil
}

// Delete deletes the objects of a segment that is not named any more. It may be done again.
func (t *Tier) Delete(ctx context.Context, id fsm.PartitionID, gone fsm.GoneSegment) error {
	if err := t.Claim(ctx); err != nil {
		return err
	}
	n := name{gone.First, gone.Term, gone.ID}
	// The index is last: while it is there, it can be found out what else is.
	for i := range int(gone.Pieces) {
		if err := t.delete(ctx, pieceKey(id, n, i)); err != nil {
			return err
		}
	}
	return t.delete(ctx, indexKey(id, n))
}

func (t *Tier) delete(ctx context.Context, key string) error {
	t.cache.drop(key, nil)
	if err := t.Store.Delete(ctx, key); err != nil {
		return err
	}
	t.Deleted.Add(1)
	return nil
}

// deleteOwn is delete by who has looked at the store long ago: it may have gone over to the cluster
// that this one has become.
func (t *Tier) deleteOwn(ctx context.Context, key string) error {
	if err := t.Claim(ctx); err != nil {
		return err
	}
	return t.delete(ctx, key)
}

// maxOrphans bounds what one look for what is to be deleted notes.
const maxOrphans = 1 << 16

// Orphans deletes the objects of a partition that nobody will ever name: of terms up to that of the
// leader that calls, which has nothing under way, and not among what named gives. named must give
// what is named as a leader knows it that a majority has confirmed since the call: it is called
// again when the store was listed, about what was not named before. An error of it ends the look.
func (t *Tier) Orphans(ctx context.Context, id fsm.PartitionID, term fsm.Term, named func() (func(first fsm.Offset, term fsm.Term, id uint64) bool, error)) (deleted int, err error) {
	if ours, _, err := t.owned(ctx); !ours {
		return 0, err
	}
	before, err := named()
	if err != nil {
		return 0, err
	}
	dir := partitionDir(id)
	keys := map[string]name{}
	err = t.Store.List(ctx, dir, func(key string) error {
		if len(key) <= len(dir) || key[:len(dir)] != dir {
			return fmt.Errorf("the store lists %q, which does not begin with %q", key, dir)
		}
		if n, ok := parseName(key[len(dir):]); ok && n.term <= term && len(keys) < maxOrphans && !before(n.first, n.term, n.id) {
			keys[key] = n
		}
		return nil
	})
	if err != nil || len(keys) == 0 {
		return 0, err
	}
	is, err := named()
	if err != nil {
		return 0, err
	}
	for key, n := range keys {
		if is(n.first, n.term, n.id) {
			continue
		}
		if err := t.deleteOwn(ctx, key); err != nil {
			return deleted, err
		}
		deleted++
		t.Counters.Orphans.Add(1)
	}
	return deleted, nil
}

// DropTopics deletes all objects of topics that are gone for good. gone is called after the store
// was listed.
func (t *Tier) DropTopics(ctx context.Context, gone func(all map[fsm.TopicID]bool) (map[fsm.TopicID]bool, error)) (deleted int, err error) {
	if ours, _, err := t.owned(ctx); !ours {
		return 0, err
	}
	all := map[fsm.TopicID]bool{}
	err = t.Store.List(ctx, segmentsDir, func(key string) error {
		if id, ok := topicOf(key); ok {
			all[id] = true
		}
		return nil
	})
	if err != nil || len(all) == 0 {
		return 0, err
	}
	those, err := gone(all)
	if err != nil {
		return 0, err
	}
	for id := range those {
		// Lists are first: one must not name what is not there any more.
		for _, end := range []string{listEnd, ""} {
			n, err := t.dropTopic(ctx, id, end)
			if deleted += n; err != nil {
				return deleted, err
			}
		}
	}
	return deleted, nil
}

// dropTopic deletes the objects of a topic whose keys have that end.
func (t *Tier) dropTopic(ctx context.Context, id fsm.TopicID, end string) (deleted int, err error) {
	for {
		keys := map[string]bool{}
		if err := t.Store.List(ctx, topicDir(id), func(key string) error {
			if of, ok := topicOf(key); ok && of == id && strings.HasSuffix(key, end) && len(keys) < maxOrphans {
				keys[key] = true
			}
			return nil
		}); err != nil {
			return deleted, err
		}
		for key := range keys {
			if err := t.deleteOwn(ctx, key); err != nil {
				return deleted, err
			}
			deleted++
		}
		if len(keys) < maxOrphans {
			return deleted, nil
		}
	}
}

// same reports whether data are what a sum is of. Others run in between: what a node has to do at
// once would else wait for milliseconds.
func same(data []byte, size int64, sum [32]byte) bool {
	if int64(len(data)) != size {
		return false
	}
	h := sha256.New()
	for some := range slices.Chunk(data, summedAtOnce) {
		_, _ = h.Write(some) // never fails (hash.Hash)
		runtime.Gosched()
	}
	return [32]byte(h.Sum(nil)) == sum
}
