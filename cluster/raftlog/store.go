package raftlog

import (
	"cmp"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
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

	// Outbox is told before an append waits. nil: nobody is.
	Outbox Outbox

	// size of a journal file; 0: 64 MiB, less on a disk below 2 GiB; negative: no journal
	JournalBytes int64
	BypassBytes  int   // appends of this size go straight to their segment; 0: 64 KiB
	CacheBytes   int64 // of the newest entries, all raft groups; 0: 64 MiB
	ReserveBytes int64 // disk space kept for Raft's own small writes; 0: 64 MiB; negative: none

	// Format is that of new segments and journal files: 2, or 1 for those that programs from before
	// format 2 read. 0: 2 if some that are there have it, else 1; see Upgrade.
	Format int

	// NoSync acknowledges what is not on stable storage. For measuring only.
	NoSync bool

	files     int   // how many files may be open; 0: what the process may
	voteBytes int64 // in place of minVotesFile; 0: that
}

// Outbox has what should leave the node while its disk works. Its methods must not wait.
type Outbox interface {
	// Enter and Leave enclose an append. While there is one, what is to be sent for others is
	// better sent by somebody else, who has more to gather then.
	Enter()
	Leave()
	// Write sends what is there: its caller is about to wait for the disk.
	Write()
	// Wake has others send it: its caller is about to wait for another goroutine, or does not get
	// to the disk at all.
	Wake()
}

// noOutbox is where nobody has one.
type noOutbox struct{}

func (noOutbox) Enter() {}
func (noOutbox) Leave() {}
func (noOutbox) Write() {}
func (noOutbox) Wake()  {}

// Store holds the partition logs of one node: a folder per raft group below Groups(), one journal,
// one cache.
type Store struct {
	*disk
	dir     string
	bypass  int      // bytes; see Options.BypassBytes
	votes   int64    // bytes; see Options.voteBytes
	journal *journal // nil: none
	cache   *cache
	space   *space
	ledger  ledger
	noted   closed // when the store was closed last

	stamped atomic.Bool // new files are of format 2
}

var errClosed = errors.New("the log is closed")

// withDefaults gives the options of a store in the folder dir with what was left open.
func (opts Options) withDefaults(dir string) Options {
	if opts.JournalBytes == 0 {
		opts.JournalBytes = defaultJournal
		if _, total, err := opts.FS.Space(dir); err == nil {
			opts.JournalBytes = min(defaultJournal, max(total/32, smallJournal))
		}
	}
	opts.BypassBytes = min(cmp.Or(opts.BypassBytes, 64<<10), maxJournalBatch/2)
	opts.CacheBytes = cmp.Or(opts.CacheBytes, 64<<20)
	opts.ReserveBytes = cmp.Or(opts.ReserveBytes, 64<<20)
	return opts
}

// newStore gives a store of which nothing is opened yet.
func newStore(dir string, d *disk, cacheBytes int64, files int) *Store {
	st := &Store{disk: d, dir: dir, cache: newCache(cacheBytes)}
	st.ledger.disk, st.ledger.ends = d, map[string]closedEnds{}
	d.handles.init(cmp.Or(files, vfs.MaxFiles()))
	return st
}

// OpenStore opens or creates the store in the folder dir, which must be there. It plays back the
// journal, so no raft group may be open yet. If acknowledged bytes of it are damaged, the logs that
// are there are refused with ErrDamaged from now on.
func OpenStore(dir string, opts Options) (*Store, error) {
	if opts.FS == nil {
		opts.FS = vfs.OS
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	// What an earlier process kept in reserve is room for the journal; the rest is taken again
	// below if there is enough.
	if err := opts.FS.Remove(filepath.Join(dir, reserveName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	opts = opts.withDefaults(dir)
	if opts.Outbox == nil {
		opts.Outbox = noOutbox{}
	}
	d := &disk{fs: opts.FS, logger: opts.Logger, noSync: opts.NoSync, onFail: opts.OnFail, outbox: opts.Outbox}
	st := newStore(dir, d, opts.CacheBytes, opts.files)
	st.bypass, st.votes = opts.BypassBytes, opts.voteBytes
	if err := d.fs.MkdirAll(st.Groups()); err != nil {
		return nil, err
	}
	st.noted = readClosed(d, dir)
	j, stamped, err := openJournal(d, filepath.Join(dir, "journal"), st.Groups(), max(opts.JournalBytes, 0), st.noted, opts.Format >= segmentFormat)
	if err != nil {
		return nil, err
	}
	st.stamped.Store(stamped)
	if opts.JournalBytes > 0 {
		st.journal = j
	}
	st.space = newSpace(d, dir, opts.ReserveBytes)
	return st, nil
}

// Upgrade is told that no older program will open the store again: new segments are of format 2,
// and each log begins one at its next append. The journal is, too, from the next start on.
func (st *Store) Upgrade() { st.stamped.Store(true) }

func (st *Store) stamping() bool { return st.stamped.Load() }

// Groups is the folder that the raft groups' folders are in.
func (st *Store) Groups() string { return filepath.Join(st.dir, "partitions") }

// Full reports whether records should be refused since the disk is full.
func (st *Store) Full() bool { return st.space.full.Load() }

// Space gives the bytes free and in all on the disk, as of the last look.
func (st *Store) Space() (free, total int64) { return st.space.free.Load(), st.space.size.Load() }

// Close ends the journal. All logs must be closed.
func (st *Store) Close() error {
	st.space.close()
	if st.journal != nil {
		st.journal.close()
	}
	if err := st.failed(); err != nil {
		return err
	}
	ends, ok := st.ledger.all()
	if !ok { // not in good order
		return nil
	}
	c := closed{Ends: ends}
	if st.journal != nil {
		c.Epoch, c.Next = st.journal.epoch, st.journal.files.next
	}
	if err := c.write(st.disk, st.dir); err != nil {
		st.logger.Warn("it is not noted where the logs end", "error", err)
	}
	return nil
}

func nowMillis() int64 { return time.Now().UnixMilli() }
