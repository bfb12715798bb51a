package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
)

// The files of a data directory that this package reads.
const (
	VotesFile      = "votes.db"
	catalogFile    = "raft.db"
	snapshotFolder = "snapshots"
)

// maxState bounds what a snapshot makes us read, in bytes.
const maxState = 1 << 30

// Migrate brings what is in the data directory old, which is on the machine's disk, into the
// store's own files in dir, where old is, too, in the product; it changes nothing of the old. opts
// are those of the catalog's log. The new files count when the caller has said so on stable
// storage; until then the old ones do, also for an older program, and after a crash Migrate begins
// anew. Then Clean removes the old ones. The error wraps raftlog.ErrDamaged if something of the old
// is not what was written.
func Migrate(st *raftlog.Store, old, dir string, opts raftlog.LogOptions) error {
	votes, damaged, err := readVotes(filepath.Join(old, VotesFile))
	if err != nil {
		return err
	}
	if err := st.ImportVotes(votes, damaged); err != nil {
		return err
	}
	in, there, err := readCatalog(filepath.Join(old, raftlog.CatalogLog))
	if err != nil {
		return err
	}
	catalog := filepath.Join(dir, raftlog.CatalogLog)
	if !there { // a node that never was in a cluster, or has lost it: that shows when it is opened
		return st.ClearLog(catalog)
	}
	if err := st.Import(catalog, opts, in); err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	return nil
}

// Clean removes what Migrate has read, if anything, from a data directory in which the new files
// count.
func Clean(st *raftlog.Store, dir string) error {
	catalog := filepath.Join(dir, raftlog.CatalogLog)
	return st.Remove(filepath.Join(dir, VotesFile), filepath.Join(catalog, catalogFile), filepath.Join(catalog, snapshotFolder))
}

var (
	sumKey       = []byte("trimaran/crc32c")     // of all else in the bucket
	sealedBucket = []byte("\x00trimaran/sealed") // all buckets have a CRC
)

// readVotes gives what a vote file has of each raft group, and the raft groups whose votes are not
// what was written. No file is no votes.
func readVotes(path string) (votes map[string]map[string][]byte, damaged []string, err error) {
	votes = map[string]map[string][]byte{}
	err = reading(path, func(tx *bbolt.Tx) error {
		sealed := tx.Bucket(sealedBucket) != nil // else it is from before there were CRCs
		return tx.ForEach(func(name []byte, bucket *bbolt.Bucket) error {
			switch sum := bucket.Get(sumKey); {
			case string(name) == string(sealedBucket):
				return nil
			case (sealed || sum != nil) && (len(sum) != 4 || binary.LittleEndian.Uint32(sum) != sumOfBucket(bucket)):
				damaged = append(damaged, string(name))
				return nil
			}
			kept := map[string][]byte{}
			votes[string(name)] = kept
			return bucket.ForEach(func(key, value []byte) error {
				if string(key) != string(sumKey) {
					kept[string(key)] = slices.Clone(value)
				}
				return nil
			})
		})
	})
	return votes, damaged, err
}

// reading looks at a bbolt file that is there.
func reading(path string, do func(*bbolt.Tx) error) error {
	if info, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil
	}
	if err := check(path); err != nil {
		return err
	}
	return guarded(path, func() error {
		db, err := bbolt.Open(path, 0o600, readOptions())
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return errors.Join(db.View(do), db.Close())
	})
}

func sumOfBucket(bucket *bbolt.Bucket) (crc uint32) {
	_ = bucket.ForEach(func(key, value []byte) error {
		if string(key) != string(sumKey) {
			sizes := binary.LittleEndian.AppendUint64(nil, uint64(len(key))<<32|uint64(len(value)))
			for _, part := range [][]byte{sizes, key, value} {
				crc = crc32.Update(crc, castagnoli, part)
			}
		}
		return nil
	})
	return crc
}

// readCatalog gives the catalog's log and its newest snapshot. there is false if there is no log.
func readCatalog(dir string) (in raftlog.Imported, there bool, err error) {
	path := filepath.Join(dir, catalogFile)
	if info, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return in, false, nil
	} else if err != nil {
		return in, false, err
	} else if info.Size() == 0 { // it was being made
		return in, true, nil
	}
	var snapshots raft.SnapshotStore
	if _, err := os.Stat(filepath.Join(dir, snapshotFolder)); err == nil {
		files, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, hclog.NewNullLogger())
		if err != nil {
			return in, false, err
		}
		snapshots = files
		if in.Snapshot, in.State, err = newest(files); err != nil {
			return in, false, err
		}
	}
	log, err := open(path, snapshots, readOptions())
	if err != nil {
		return in, false, err
	}
	in.Entries, err = log.follow(in.Snapshot)
	return in, true, errors.Join(err, log.Close())
}

// newest gives the newest snapshot that is what was written, nil if there is none.
func newest(store *raft.FileSnapshotStore) (*raft.SnapshotMeta, []byte, error) {
	list, err := store.List()
	if err != nil {
		return nil, nil, err
	}
	for _, meta := range list {
		if meta.Size > maxState || meta.Index == 0 {
			continue
		}
		found, content, err := store.Open(meta.ID) // checks its CRC
		if err != nil {
			continue
		}
		state, err := io.ReadAll(io.LimitReader(content, maxState+1))
		if err = errors.Join(err, content.Close()); err != nil {
			return nil, nil, err
		}
		return found, state, nil
	}
	return nil, nil, nil
}

// follow gives the entries that go with a snapshot: those behind it, and those in front of it
// without a hole; none where the log is not the one that the snapshot is of.
func (l *Log) follow(snapshot *raft.SnapshotMeta) (entries []*raft.Log, err error) {
	first, last, covered := uint64(0), uint64(0), uint64(0)
	err = guarded(l.path, func() error {
		f, err := l.FirstIndex()
		if err == nil {
			first = f
			last, err = l.LastIndex()
		}
		return err
	})
	if snapshot != nil {
		covered = snapshot.Index
	}
	if err != nil || last <= covered && snapshot == nil || last < covered {
		return nil, err // an installed snapshot stands for all that there was
	}
	if first > covered+1 {
		return nil, fmt.Errorf("%s: %w: the log begins with entry %d, the newest snapshot is of entry %d", l.path, raftlog.ErrDamaged, first, covered)
	}
	for index := last; index >= max(first, 1); index-- {
		entry := new(raft.Log)
		err := guarded(l.path, func() error { return l.summed.GetLog(index, entry) })
		if errors.Is(err, raft.ErrLogNotFound) && index <= covered {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: entry %d: %w", l.path, index, err)
		}
		if index == covered && entry.Term != snapshot.Term {
			// a dead leader's, as all behind it (Raft, section 5.3): a crash kept the log
			return nil, nil
		}
		entries = append(entries, entry)
	}
	slices.Reverse(entries)
	return entries, nil
}
