package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// Stable keeps the votes and terms (raft.StableStore) of all groups of a node
// in one bbolt file, a bucket per group. Writes that arrive together are
// committed together, with one sync: an election writes three times per voter,
// and many groups elect at once when a node dies.
type Stable struct {
	db *bbolt.DB
}

// batchDelay is how long a vote waits for others to share its sync. It adds to
// every election, so it is about as long as the sync itself.
const batchDelay = time.Millisecond

var (
	errKeyNotFound = errors.New("not found") // raft compares the text
	createdKey     = []byte("trimaran/created")
	anewKey        = []byte("trimaran/anew")
	sumKey         = []byte("trimaran/crc32c")     // of all else in the bucket
	sealedBucket   = []byte("\x00trimaran/sealed") // all buckets have a CRC
)

// OpenStable opens or creates the file path. It fails when another process has
// the file open.
func OpenStable(path string) (*Stable, error) {
	if err := checkBolt(path); err != nil {
		return nil, fmt.Errorf("open vote store: %w", err)
	}
	db, err := bbolt.Open(path, 0o600, boltOptions())
	if err != nil {
		return nil, fmt.Errorf("open vote store %s: %w", path, err)
	}
	db.MaxBatchDelay = batchDelay
	if err := db.Update(sealAll); err != nil {
		return nil, errors.Join(fmt.Errorf("open vote store %s: %w", path, err), db.Close())
	}
	return &Stable{db: db}, nil
}

// sealAll gives all groups of a file from before there were CRCs theirs.
func sealAll(tx *bbolt.Tx) error {
	if tx.Bucket(sealedBucket) != nil {
		return nil
	}
	var names [][]byte
	err := tx.ForEach(func(name []byte, _ *bbolt.Bucket) error {
		names = append(names, bytes.Clone(name))
		return nil
	})
	for _, name := range names {
		if bucket := tx.Bucket(name); err == nil && bucket != nil && bucket.Get(sumKey) == nil {
			err = seal(bucket)
		}
	}
	if err == nil {
		_, err = tx.CreateBucket(sealedBucket)
	}
	return err
}

// Close closes the file.
func (s *Stable) Close() error { return s.db.Close() }

// Group gives the store of one group; the name is any non-empty string.
func (s *Stable) Group(name string) *GroupStable {
	return &GroupStable{db: s.db, bucket: []byte(name), abandon: make(chan struct{})}
}

// Delete forgets a group. Only for a group that can never come back, such as
// one of a deleted topic: its votes are gone with it.
func (s *Stable) Delete(name string) error {
	return s.db.Batch(func(tx *bbolt.Tx) error {
		err := tx.DeleteBucket([]byte(name))
		if errors.Is(err, berrors.ErrBucketNotFound) {
			return nil
		}
		return err
	})
}

// The keys under which hashicorp/raft stores a vote, the term first (raft.go, persistVote).
const (
	keyVoteTerm      = "LastVoteTerm"
	keyVoteCandidate = "LastVoteCand"
)

// ErrVoted is the answer to a vote that would be the second in its term (Raft, section 5.2). hashicorp/raft takes heartbeats
// beside its main loop and can by that go back to an older term that it had left meanwhile, and then
// would vote as if it had not been in the newer one. Raft gives no vote that it cannot store.
var ErrVoted = errors.New("vote store: this node has voted")

// GroupStable is the raft.StableStore of one group.
type GroupStable struct {
	db     *bbolt.DB
	bucket []byte

	serving atomic.Bool // Raft runs: errors it cannot bear are kept from it
	abandon chan struct{}
	left    sync.Once

	newVote atomic.Bool // the term of a vote was stored whose candidate is to follow
}

// fullRetry is the pause before a vote that did not fit the disk is tried again.
const fullRetry = 50 * time.Millisecond

// Serving says that Raft is about to run: from now on a vote that does not fit the
// disk waits until it does. Raft panics when it cannot store its term (invariant 9).
func (g *GroupStable) Serving() { g.serving.Store(true) }

// Abandon lets go of calls of Raft that wait for room. The group's transport must
// be closed and its shutdown begun: what they are told is stored is not.
func (g *GroupStable) Abandon() { g.left.Do(func() { close(g.abandon) }) }

var _ raft.StableStore = (*GroupStable)(nil)

// Set implements raft.StableStore; the value is on stable storage when it returns. It fails with ErrVoted for another candidate
// in a term in which this node has voted.
func (g *GroupStable) Set(key, value []byte) error {
	if string(key) == keyVoteCandidate && !g.newVote.Swap(false) {
		if old, err := g.Get(key); err == nil && !bytes.Equal(old, value) {
			return fmt.Errorf("%w for %q, not for %q", ErrVoted, old, value)
		}
	}
	return g.set(key, value)
}

func (g *GroupStable) set(key, value []byte) error {
	if old, err := g.Get(key); err == nil && bytes.Equal(old, value) {
		return nil // Raft stores its term again whenever it starts
	}
	for {
		err := g.put(key, value)
		if !g.serving.Load() || !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
			return err
		}
		select {
		case <-g.abandon:
			return nil
		case <-time.After(fullRetry):
		}
	}
}

func (g *GroupStable) put(key, value []byte) error {
	key, value = bytes.Clone(key), bytes.Clone(value)
	return g.db.Batch(func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists(g.bucket)
		if err != nil {
			return err
		}
		if err := bucket.Put(key, value); err != nil {
			return err
		}
		return seal(bucket)
	})
}

// seal brings the CRC of a bucket up to date.
func seal(bucket *bbolt.Bucket) error {
	return bucket.Put(sumKey, binary.LittleEndian.AppendUint32(nil, sumOfBucket(bucket)))
}

func sumOfBucket(bucket *bbolt.Bucket) (crc uint32) {
	_ = bucket.ForEach(func(key, value []byte) error {
		if !bytes.Equal(key, sumKey) {
			sizes := binary.LittleEndian.AppendUint64(nil, uint64(len(key))<<32|uint64(len(value)))
			for _, part := range [][]byte{sizes, key, value} {
				crc = crc32.Update(crc, castagnoli, part)
			}
		}
		return nil
	})
	return crc
}

// isWhole reports whether all in the bucket is what was written.
func isWhole(bucket *bbolt.Bucket) bool {
	sum := bucket.Get(sumKey)
	return len(sum) == 4 && binary.LittleEndian.Uint32(sum) == sumOfBucket(bucket)
}

// Known reports whether anything of the group was ever stored.
func (g *GroupStable) Known() (known bool, err error) {
	err = g.db.View(func(tx *bbolt.Tx) error {
		known = tx.Bucket(g.bucket) != nil
		return nil
	})
	return known, err
}

// Check gives an error that wraps ErrDamaged if what the group has voted is not what was written.
func (g *GroupStable) Check() error {
	return g.db.View(func(tx *bbolt.Tx) error {
		if bucket := tx.Bucket(g.bucket); bucket != nil && !isWhole(bucket) {
			return fmt.Errorf("%w: the votes of %s are not what was written", ErrDamaged, g.bucket)
		}
		return nil
	})
}

// Get implements raft.StableStore.
func (g *GroupStable) Get(key []byte) ([]byte, error) {
	var value []byte
	err := g.db.View(func(tx *bbolt.Tx) error {
		if bucket := tx.Bucket(g.bucket); bucket != nil {
			value = bytes.Clone(bucket.Get(key))
		}
		return nil
	})
	if err == nil && value == nil {
		err = errKeyNotFound
	}
	return value, err
}

// SetUint64 implements raft.StableStore. It fails with ErrVoted for a vote in a term before that of the last one.
func (g *GroupStable) SetUint64(key []byte, value uint64) error {
	if string(key) == keyVoteTerm {
		old, err := g.GetUint64(key)
		if err == nil && value < old {
			return fmt.Errorf("%w in term %d, not in %d", ErrVoted, old, value)
		}
		g.newVote.Store(err != nil || value > old)
	}
	return g.set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 implements raft.StableStore.
func (g *GroupStable) GetUint64(key []byte) (uint64, error) {
	value, err := g.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("vote store: %q has %d bytes, want 8", key, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}

// MarkCreated records that this node has had a replica of the group. A replica
// that was here once and has lost its log may have lost acknowledged records
// and votes: it must not begin anew under the same identity (invariant 7).
func (g *GroupStable) MarkCreated() error { return g.Set(createdKey, []byte{1}) }

// Created reports whether MarkCreated was called.
func (g *GroupStable) Created() (bool, error) {
	_, err := g.Get(createdKey)
	if errors.Is(err, errKeyNotFound) {
		return false, nil
	}
	return err == nil, err
}

// BeginAnew forgets that this node has had a replica of the group, and keeps its
// term and its votes. For one that has left the group's configuration, as the
// leader of that term says: it gives no other vote in that term, and never forms
// the group (see Anew). Damaged ones cannot be kept.
func (g *GroupStable) BeginAnew(term uint64, leader string) error {
	return g.db.Batch(func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists(g.bucket)
		if err != nil {
			return err
		}
		if first, _ := bucket.Cursor().First(); first != nil && !isWhole(bucket) {
			if err := tx.DeleteBucket(g.bucket); err != nil {
				return err
			}
			if bucket, err = tx.CreateBucket(g.bucket); err != nil {
				return err
			}
		}
		number := func(key string) uint64 {
			if v := bucket.Get([]byte(key)); len(v) == 8 {
				return binary.BigEndian.Uint64(v)
			}
			return 0
		}
		put := func(key []byte, value []byte) {
			if err == nil {
				err = bucket.Put(key, value)
			}
		}
		// The keys are hashicorp/raft's.
		if number("CurrentTerm") < term {
			put([]byte("CurrentTerm"), binary.BigEndian.AppendUint64(nil, term))
		}
		if number("LastVoteTerm") < term {
			put([]byte("LastVoteTerm"), binary.BigEndian.AppendUint64(nil, term))
			put([]byte("LastVoteCand"), []byte(leader))
		}
		put(anewKey, []byte{1})
		if err == nil {
			err = bucket.Delete(createdKey)
		}
		if err == nil {
			err = seal(bucket)
		}
		return err
	})
}

// Anew reports whether BeginAnew was ever called: the group was formed long ago,
// and its configuration comes from its leader.
func (g *GroupStable) Anew() (bool, error) {
	_, err := g.Get(anewKey)
	if errors.Is(err, errKeyNotFound) {
		return false, nil
	}
	return err == nil, err
}
