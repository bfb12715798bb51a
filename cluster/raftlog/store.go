package raftlog

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// Options says how a node's store works. The zero value is for production.
type Options struct {
	FS     vfs.FS // nil: the machine's
	Logger *slog.Logger
	// OnFail is told once when the store takes nothing more, since a sync failed:
	// nobody knows what is on the disk, and only a restart finds out. nil: it is logged.
	OnFail func(error)

	JournalBytes int64 // size of a journal file; 0: 64 MiB, less on a disk below 2 GiB; negative: no journal
	BypassBytes  int   // appends of this size go straight to their segment; 0: 64 KiB
	CacheBytes   int64 // of the newest entries, all groups; 0: 64 MiB
	ReserveBytes int64 // disk space kept for Raft's own small writes; 0: 64 MiB; negative: none

	// Format is that of new segments and journal files: 2, or 1 for those that programs from before format 2 read. 0:
	// 2 if some that are there have it, else 1; see Upgrade.
	Format int

	// NoSync acknowledges what is not on stable storage. For measuring only.
	NoSync bool

	files int // in place of what the process may have open; 0: that
}

// Store holds the partition logs of one node: a folder per group below Groups(),
// one journal, one cache.
type Store struct {
	fs      vfs.FS
	dir     string
	opts    Options
	logger  *slog.Logger
	journal *journal // nil: none
	cache   *cache
	handles handles
	space   *space

	stamped atomic.Bool // new files are of format 2

	closed closed // what was noted when the store was closed last

	failure atomic.Pointer[error] // nil: it has not failed

	mu     sync.Mutex
	logs   int                   // open
	ends   map[string]closedEnds // of those that were closed, by folder
	tidyAt int                   // number of ends
}

var errClosed = errors.New("the log is closed")

// OpenStore opens or creates the store in the folder dir, which must be there. It
// plays back the journal, so no group may be open yet. If acknowledged bytes of it are
// damaged, the logs that are there are refused with ErrDamaged from now on.
func OpenStore(dir string, opts Options) (*Store, error) {
	if opts.FS == nil {
		opts.FS = vfs.OS
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	// What an earlier process kept in reserve is room for the journal; the rest is
	// taken again below if there is enough.
	if err := opts.FS.Remove(filepath.Join(dir, reserveName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if opts.JournalBytes == 0 {
		opts.JournalBytes = defaultJournal
		if _, total, err := opts.FS.Space(dir); err == nil {
			opts.JournalBytes = min(defaultJournal, max(total/32, smallJournal))
		}
	}
	if opts.BypassBytes == 0 {
		opts.BypassBytes = 64 << 10
	}
	opts.BypassBytes = min(opts.BypassBytes, maxJournalBatch/2)
	if opts.CacheBytes == 0 {
		opts.CacheBytes = 64 << 20
	}
	if opts.ReserveBytes == 0 {
		opts.ReserveBytes = 64 << 20
	}
	st := &Store{fs: opts.FS, dir: dir, opts: opts, logger: opts.Logger, cache: newCache(opts.CacheBytes), ends: map[string]closedEnds{}}
	st.handles.init(cmp.Or(opts.files, vfs.MaxFiles()))
	if err := st.fs.MkdirAll(st.Groups()); err != nil {
		return nil, err
	}
	st.stamped.Store(opts.Format >= segmentFormat)
	st.closed = st.readClosed()
	j, err := openJournal(st, filepath.Join(dir, "journal"), st.Groups(), max(opts.JournalBytes, 0))
	if err != nil {
		return nil, err
	}
	if opts.JournalBytes > 0 {
		st.journal = j
		j.start()
	}
	st.space = newSpace(st)
	return st, nil
}

// Upgrade is told that no older program will open the store again: new segments are of format 2, and each log begins one at
// its next append. The journal is, too, from the next start on.
func (st *Store) Upgrade() { st.stamped.Store(true) }

func (st *Store) stamping() bool { return st.stamped.Load() }

// Groups is the folder that the groups' folders are in.
func (st *Store) Groups() string { return filepath.Join(st.dir, "partitions") }

// Close ends the journal. All logs must be closed.
func (st *Store) Close() error {
	st.space.close()
	if st.journal != nil {
		st.journal.close()
	}
	if err := st.failed(); err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.logs > 0 { // not in good order
		return nil
	}
	if err := st.writeClosed(); err != nil {
		st.logger.Warn("it is not noted where the logs end", "error", err)
	}
	return nil
}

// opened and ended keep the books of open logs.
func (st *Store) opened(dir string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.logs++
	delete(st.ends, dir)
}

// ended is told that a log was closed; good is that all of it is on stable storage, up to its last segment's end.
func (st *Store) ended(dir string, last *segment, good bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.logs--
	if len(st.ends) >= st.tidyAt { // most are of partitions that were deleted
		maps.DeleteFunc(st.ends, func(dir string, _ closedEnds) bool {
			_, err := st.fs.List(dir)
			return err != nil
		})
		st.tidyAt = max(1024, 2*len(st.ends))
	}
	if good && last != nil {
		st.ends[dir] = closedEnds{last.id.Load(), last.last}
	}
}

// endedAt gives the last entry of a segment when the store was closed last; 0: not known.
func (st *Store) endedAt(id uint64) uint64 {
	for _, end := range st.closed.Ends {
		if end.ID == id {
			return end.Last
		}
	}
	return 0
}

// newID gives a name for a segment's content that no other has had.
func (st *Store) newID() uint64 { return rand.Uint64() }

func (st *Store) random32() uint32 { return rand.Uint32() }

// fail makes the store take nothing more.
func (st *Store) fail(err error) {
	cause := fmt.Errorf("the log store has failed: %w", err)
	if st.failure.CompareAndSwap(nil, &cause) {
		if st.opts.OnFail == nil {
			st.logger.Error("the log store takes nothing more until it is opened again", "error", err)
			return
		}
		st.opts.OnFail(err)
	}
}

func (st *Store) failed() error {
	if err := st.failure.Load(); err != nil {
		return *err
	}
	return nil
}

func nowMillis() int64 { return time.Now().UnixMilli() }
