package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// Stable keeps the votes and terms (raft.StableStore) of all groups of a node
// in one bbolt file, a bucket per group. Writes that arrive while another is
// committed are committed together, with one sync: an election writes twice per
// voter, and many groups elect at once when a node dies.
type Stable struct {
	db *bbolt.DB
	*boltGuard

	mu         sync.Mutex
	committing bool       // one of the callers of update is; it goes on with what waits
	waiting    []*pending // in order of arrival
}

// pending is one change that waits for its commit.
type pending struct {
	change func(*bbolt.Tx) error
	turn   chan struct{} // closed when it is committed, or when its caller is to commit what waits

	// Set before turn is closed, if it is committed.
	done bool
	err  error
}

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
	if err := db.Update(sealAll); err != nil {
		return nil, errors.Join(fmt.Errorf("open vote store %s: %w", path, err), db.Close())
	}
	return &Stable{db: db, boltGuard: &boltGuard{path: path}}, nil
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
func (s *Stable) Close() error { return s.close(s.db.Close) }

// view reads what is stored.
func (s *Stable) view(do func(*bbolt.Tx) error) error {
	return s.read(func() error { return s.db.View(do) })
}

// update makes a change and returns when it is on stable storage. It may run change more than once. bbolt's own Batch does
// the same with a fixed delay, which four commits in a row of every election would wait for.
func (s *Stable) update(change func(*bbolt.Tx) error) error {
	u := &pending{change: change, turn: make(chan struct{})}
	s.mu.Lock()
	s.waiting = append(s.waiting, u)
	wait := s.committing
	s.committing = true
	s.mu.Unlock()
	if wait {
		if <-u.turn; u.done {
			return u.err
		}
	}
	s.mu.Lock()
	group := s.waiting // this one is in it
	s.waiting = nil
	s.mu.Unlock()
	s.commit(group)
	s.mu.Lock()
	if len(s.waiting) > 0 {
		close(s.waiting[0].turn)
	} else {
		s.committing = false
	}
	s.mu.Unlock()
	for _, other := range group {
		if other.done = true; other != u {
			close(other.turn)
		}
	}
	return u.err
}

// commit makes changes in one transaction. One that fails is left out and the others are made without it.
func (s *Stable) commit(group []*pending) {
	for left := slices.Clone(group); len(left) > 0; {
		failed := -1
		var refused error
		err := s.write(func() error {
			err := s.db.Update(func(tx *bbolt.Tx) error {
				for i, u := range left {
					if err := u.change(tx); err != nil {
						failed = i
						return err
					}
				}
				return nil
			})
			if failed >= 0 { // the change's own error
				refused, err = err, nil
			}
			return err
		})
		if failed < 0 {
			for _, u := range left {
				u.err = err
			}
			return
		}
		left[failed].err = errors.Join(refused, err)
		left = slices.Delete(left, failed, failed+1)
	}
}

// Group gives the store of one group; the name is any non-empty string.
func (s *Stable) Group(name string) *GroupStable {
	return &GroupStable{stable: s, bucket: []byte(name), abandon: make(chan struct{})}
}

// Delete forgets a group. Only for a group that can never come back, such as
// one of a deleted topic: its votes are gone with it.
func (s *Stable) Delete(name string) error {
	return s.update(func(tx *bbolt.Tx) error {
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
	stable *Stable
	bucket []byte

	serving atomic.Bool // Raft runs: errors it cannot bear are kept from it
	abandon chan struct{}
	left    sync.Once

	// voteTerm is the term of a vote whose candidate is to follow; 0: of none. Raft stores the two one after the other, and a
	// crash between them would leave a vote in a new term for the candidate of the last: when that one asks in the
	// new term it would be given the vote again, however old its log is. So they are stored together.
	voteTerm atomic.Uint64
}

// fullRetry is the pause before a vote that did not fit the disk is tried again.
const fullRetry = 50 * time.Millisecond

// Serving says that Raft is about to run: from now on a vote that does not fit the
// disk waits until it does, and one that cannot be stored until the group is closed: the node ends (see OnFail). Raft panics
// when it cannot store its term (invariant 9).
func (g *GroupStable) Serving() { g.serving.Store(true) }

// Abandon lets go of calls of Raft that wait for room. The group's transport must
// be closed and its shutdown begun: what they are told is stored is not.
func (g *GroupStable) Abandon() { g.left.Do(func() { close(g.abandon) }) }

var _ raft.StableStore = (*GroupStable)(nil)

// Set implements raft.StableStore; the value is on stable storage when it returns. It fails with ErrVoted for another candidate
// in a term in which this node has voted.
func (g *GroupStable) Set(key, value []byte) error {
	if string(key) != keyVoteCandidate {
		return g.set(pair{string(key), value})
	}
	if term := g.voteTerm.Swap(0); term != 0 {
		return g.set(pair{keyVoteTerm, number(term)}, pair{keyVoteCandidate, value})
	}
	if old, err := g.Get(key); err == nil && !bytes.Equal(old, value) {
		return fmt.Errorf("%w for %q, not for %q", ErrVoted, old, value)
	}
	return g.set(pair{keyVoteCandidate, value})
}

// pair is a key and its value.
type pair struct {
	key   string
	value []byte
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// set stores all pairs or none.
func (g *GroupStable) set(pairs ...pair) error {
	if g.stable.failed() == nil && !slices.ContainsFunc(pairs, func(p pair) bool {
		old, err := g.Get([]byte(p.key))
		return err != nil || !bytes.Equal(old, p.value)
	}) {
		return nil // Raft stores its term again whenever it starts
	}
	for {
		err := g.put(pairs)
		if err == nil || !g.serving.Load() {
			return err
		}
		var again <-chan time.Time
		if g.stable.failed() == nil {
			if !noRoom(err) {
				return err
			}
			again = time.After(fullRetry)
		}
		select {
		case <-g.abandon:
			return nil
		case <-again:
		}
	}
}

func (g *GroupStable) put(pairs []pair) error {
	return g.stable.update(func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists(g.bucket)
		if err != nil {
			return err
		}
		for _, p := range pairs {
			if err := bucket.Put([]byte(p.key), p.value); err != nil {
				return err
			}
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
	err = g.stable.view(func(tx *bbolt.Tx) error {
		known = tx.Bucket(g.bucket) != nil
		return nil
	})
	return known, err
}

// Check gives an error that wraps ErrDamaged if what the group has voted is not what was written.
func (g *GroupStable) Check() error {
	return g.stable.view(func(tx *bbolt.Tx) error {
		if bucket := tx.Bucket(g.bucket); bucket != nil && !isWhole(bucket) {
			return fmt.Errorf("%w: the votes of %s are not what was written", ErrDamaged, g.bucket)
		}
		return nil
	})
}

// Get implements raft.StableStore.
func (g *GroupStable) Get(key []byte) ([]byte, error) {
	var value []byte
	err := g.stable.view(func(tx *bbolt.Tx) error {
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

// SetUint64 implements raft.StableStore; the value is on stable storage when it returns, but the term of a vote, which is
// stored with its candidate. It fails with ErrVoted for a vote in a term before that of the last one.
func (g *GroupStable) SetUint64(key []byte, value uint64) error {
	if string(key) == keyVoteTerm {
		old, err := g.GetUint64(key)
		if err == nil && value < old {
			return fmt.Errorf("%w in term %d, not in %d", ErrVoted, old, value)
		}
		if err == nil && value == old {
			value = 0
		}
		g.voteTerm.Store(value)
		return nil
	}
	return g.set(pair{string(key), number(value)})
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
	return g.stable.update(func(tx *bbolt.Tx) error {
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
		stored := func(key string) uint64 {
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
		if stored("CurrentTerm") < term {
			put([]byte("CurrentTerm"), number(term))
		}
		if stored("LastVoteTerm") < term {
			put([]byte("LastVoteTerm"), number(term))
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
