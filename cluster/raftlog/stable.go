package raftlog

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// Stable keeps the votes and terms (raft.StableStore) of all raft groups of a node in one file
// (FORMAT.md, "Votes"), and in memory. Writes that arrive while another is committed are committed
// together, with one sync: an election writes twice per voter, and many raft groups elect at once
// when a node dies.
type Stable struct {
	disk  *disk  // whose rules for a failed sync hold here, too
	dir   string // that the file is in
	name  string // of the file
	least int64  // bytes that a new file is allocated with, at least

	mu         locks.Mutex[Stable] // guards what follows; nothing is waited for under it
	committing bool                // one of the callers of update is; it goes on with what waits
	waiting    []*pending          // in order of arrival

	// state guards groups. Nothing is done under it but to look or to put.
	state  locks.RWMutex[stableState]
	groups map[string]memberVotes // what is on stable storage

	// writing is held by whoever writes the file, over I/O, so nobody who reads takes it; state is
	// taken under it. It guards what follows.
	writing locks.Slow[stableWriting]
	file    vfs.File
	layout  votesLayout
	limit   int64 // bytes of the file from which on it is written anew
}

// stableState and stableWriting are the classes of a Stable's other mutexes.
type (
	stableState   struct{}
	stableWriting struct{}
)

// pending is one change that waits for its commit.
type pending struct {
	group string
	// nil of a raft group that is not known; the answer nil forgets it
	change func(old memberVotes) (memberVotes, error)
	turn   chan struct{} // closed when it is committed, or when its caller is to commit what waits

	// Set before turn is closed, if it is committed.
	done bool
	err  error
}

var (
	errKeyNotFound = errors.New("not found") // raft compares the text
	createdKey     = "trimaran/created"
	anewKey        = "trimaran/anew"
	// in place of all others, where votes are not what was written
	damagedKey = "trimaran/damaged"
)

// votesName is the file of the votes in a store's folder.
const votesName = "votes"

// OpenStable opens or creates the vote store in the folder of the log store, and shares its fate:
// after the first sync of either that fails, neither takes anything. The error wraps ErrDamaged if
// votes may be lost.
func (st *Store) OpenStable() (*Stable, error) {
	s := st.newStable()
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("vote store %s: %w", s.path(), err)
	}
	return s, nil
}

// newStable gives a vote store in the store's folder that is not open.
func (st *Store) newStable() *Stable {
	return &Stable{
		disk: st.disk, dir: st.dir, name: votesName, least: cmp.Or(st.votes, minVotesFile),
		groups: map[string]memberVotes{},
	}
}

// OpenStable opens or creates a vote store by itself, in the file path.
func OpenStable(path string, opts Options) (*Stable, error) {
	if opts.FS == nil {
		opts.FS = vfs.OS
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	d := &disk{fs: opts.FS, logger: opts.Logger, noSync: opts.NoSync, onFail: opts.OnFail}
	s := &Stable{disk: d, dir: filepath.Dir(path), name: filepath.Base(path), least: cmp.Or(opts.voteBytes, minVotesFile)}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("vote store %s: %w", path, err)
	}
	return s, nil
}

// update makes a change and returns when it is on stable storage.
func (s *Stable) update(group string, change func(old memberVotes) (memberVotes, error)) error {
	locks.MayWait("votes to be written")
	u := &pending{group: group, change: change, turn: make(chan struct{})}
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
	waited := s.waiting // this one is in it
	s.waiting = nil
	s.mu.Unlock()
	s.commit(waited)
	s.mu.Lock()
	if len(s.waiting) > 0 {
		close(s.waiting[0].turn)
	} else {
		s.committing = false
	}
	s.mu.Unlock()
	for _, other := range waited {
		if other.done = true; other != u {
			close(other.turn)
		}
	}
	return u.err
}

// commit makes changes, with one sync unless they are too many. One that fails is left out, and the
// others are made without it.
func (s *Stable) commit(waited []*pending) {
	for len(waited) > 0 {
		next := map[string]memberVotes{}
		size, n := 0, 0
		for n < len(waited) && size < splitBallot {
			u := waited[n]
			n++
			old, staged := next[u.group]
			if !staged {
				old = s.groups[u.group] // nobody else changes them
			}
			votes, err := u.change(old)
			if err == nil {
				err = checkVotes(u.group, votes)
			}
			if u.err = err; err == nil {
				next[u.group] = votes
				size += len(appendChange(nil, u.group, votes))
			}
		}
		var err error
		if len(next) > 0 {
			err = s.write(next)
		}
		for _, u := range waited[:n] {
			u.err = cmp.Or(u.err, err)
		}
		waited = waited[n:]
	}
}

// get gives what is kept of a raft group, nil if that is nothing.
func (s *Stable) get(group string) (memberVotes, error) {
	if err := s.disk.failed(); err != nil {
		return nil, err
	}
	s.state.RLock()
	defer s.state.RUnlock()
	return s.groups[group], nil
}

// Group gives the store of one raft group; the name is any non-empty string.
func (s *Stable) Group(name string) *MemberStable {
	return &MemberStable{stable: s, group: name, abandon: make(chan struct{})}
}

// Delete forgets a group. Only for a raft group that can never come back, such as
// one of a deleted topic: its votes are gone with it.
func (s *Stable) Delete(name string) error {
	if votes, err := s.get(name); err == nil && votes == nil {
		return nil
	}
	return s.update(name, func(memberVotes) (memberVotes, error) { return nil, nil })
}

// The keys under which hashicorp/raft stores its term, and a vote, the term first (raft.go,
// persistVote).
const (
	keyTerm          = "CurrentTerm"
	keyVoteTerm      = "LastVoteTerm"
	keyVoteCandidate = "LastVoteCand"
)

// ErrVoted is the answer to a vote that would be the second in its term (Raft, section 5.2).
// hashicorp/raft takes heartbeats beside its main loop and can by that go back to an older term
// that it had left meanwhile, and then would vote as if it had not been in the newer one. Raft
// gives no vote that it cannot store.
var ErrVoted = errors.New("vote store: this node has voted")

// MemberStable is the raft.StableStore of one group.
type MemberStable struct {
	stable *Stable
	group  string

	serving atomic.Bool // Raft runs: errors it cannot bear are kept from it
	abandon chan struct{}
	left    sync.Once

	// voteTerm is the term of a vote whose candidate is to follow; 0: of none. Raft stores the two
	// one after the other, and a crash between them would leave a vote in a new term for the
	// candidate of the last: when that one asks in the new term it would be given the vote again,
	// however old its log is. So they are stored together.
	voteTerm atomic.Uint64
}

// fullRetry is the pause before a vote that did not fit the disk is tried again.
const fullRetry = 50 * time.Millisecond

// Serving says that Raft is about to run: from now on a vote that does not fit the disk waits until
// it does, and one that cannot be stored until the raft group is closed: the node ends (see
// Options.OnFail). Raft panics when it cannot store its term (invariant 9).
func (g *MemberStable) Serving() { g.serving.Store(true) }

// Abandon lets go of calls of Raft that wait for room. The raft group's transport must
// be closed and its shutdown begun: what they are told is stored is not.
func (g *MemberStable) Abandon() { g.left.Do(func() { close(g.abandon) }) }

var _ raft.StableStore = (*MemberStable)(nil)

// Set implements raft.StableStore; the value is on stable storage when it returns. It fails with
// ErrVoted for another candidate in a term in which this node has voted.
func (g *MemberStable) Set(key, value []byte) error {
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
func (g *MemberStable) set(pairs ...pair) error {
	if g.stable.disk.failed() == nil && !slices.ContainsFunc(pairs, func(p pair) bool {
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
		if g.stable.disk.failed() == nil {
			if !errors.Is(err, vfs.ErrNoSpace) {
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

func (g *MemberStable) put(pairs []pair) error {
	return g.stable.update(g.group, func(old memberVotes) (memberVotes, error) {
		if err := old.check(g.group); err != nil {
			return nil, err
		}
		votes := old.clone()
		for _, p := range pairs {
			votes[p.key] = bytes.Clone(p.value)
		}
		return votes, nil
	})
}

// clone gives what can be changed.
func (v memberVotes) clone() memberVotes {
	votes := maps.Clone(v)
	if votes == nil {
		votes = memberVotes{}
	}
	return votes
}

// number gives a number that is stored, 0 if none is.
func (v memberVotes) number(key string) uint64 {
	if b := v[key]; len(b) == 8 {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// check gives an error that wraps ErrDamaged if the votes are not what was written.
func (v memberVotes) check(group string) error {
	if reason, damaged := v[damagedKey]; damaged {
		return fmt.Errorf("%w: group %s: %s", ErrDamaged, group, reason)
	}
	return nil
}

// Known reports whether anything of the raft group was ever stored.
func (g *MemberStable) Known() (known bool, err error) {
	votes, err := g.stable.get(g.group)
	return votes != nil, err
}

// Check gives an error that wraps ErrDamaged if what the raft group has voted is not what was
// written.
func (g *MemberStable) Check() error {
	votes, err := g.stable.get(g.group)
	if err != nil {
		return err
	}
	return votes.check(g.group)
}

// Get implements raft.StableStore.
func (g *MemberStable) Get(key []byte) ([]byte, error) {
	votes, err := g.stable.get(g.group)
	if err == nil {
		err = votes.check(g.group)
	}
	if err != nil {
		return nil, err
	}
	value, there := votes[string(key)]
	if !there {
		return nil, errKeyNotFound
	}
	return bytes.Clone(value), nil
}

// SetUint64 implements raft.StableStore; the value is on stable storage when it returns, but the
// term of a vote, which is stored with its candidate. It fails with ErrVoted for a vote in a term
// before that of the last one.
func (g *MemberStable) SetUint64(key []byte, value uint64) error {
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
func (g *MemberStable) GetUint64(key []byte) (uint64, error) {
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
func (g *MemberStable) MarkCreated() error { return g.Set([]byte(createdKey), []byte{1}) }

// Created reports whether MarkCreated was called.
func (g *MemberStable) Created() (bool, error) {
	_, err := g.Get([]byte(createdKey))
	if errors.Is(err, errKeyNotFound) {
		return false, nil
	}
	return err == nil, err
}

// BeginAnew forgets that this node has had a replica of the raft group, and keeps its
// term and its votes. For one that has left the raft group's configuration, as the
// leader of that term says: it gives no other vote in that term, and never forms
// the raft group (see Anew). Damaged ones cannot be kept.
func (g *MemberStable) BeginAnew(term uint64, leader string) error {
	return g.stable.update(g.group, func(old memberVotes) (memberVotes, error) {
		if old.check(g.group) != nil {
			old = nil
		}
		votes := old.clone()
		if votes.number(keyTerm) < term {
			votes[keyTerm] = number(term)
		}
		if votes.number(keyVoteTerm) < term {
			votes[keyVoteTerm], votes[keyVoteCandidate] = number(term), []byte(leader)
		}
		votes[anewKey] = []byte{1}
		delete(votes, createdKey)
		return votes, nil
	})
}

// Elect stores that this node is in a term and has voted in it for a candidate, in one step. It
// fails with ErrVoted in a term before that of its newest vote, or for another candidate in that
// one.
func (g *MemberStable) Elect(term uint64, candidate string) error {
	return g.stable.update(g.group, func(old memberVotes) (memberVotes, error) {
		if err := old.check(g.group); err != nil {
			return nil, err
		}
		if voted := old.number(keyVoteTerm); term < voted || term == voted && candidate != string(old[keyVoteCandidate]) || term < old.number(keyTerm) {
			return nil, fmt.Errorf("%w in term %d", ErrVoted, max(voted, old.number(keyTerm)))
		}
		votes := old.clone()
		votes[keyTerm], votes[keyVoteTerm], votes[keyVoteCandidate] = number(term), number(term), []byte(candidate)
		return votes, nil
	})
}

// Anew reports whether BeginAnew was ever called: the raft group was formed long ago,
// and its configuration comes from its leader.
func (g *MemberStable) Anew() (bool, error) {
	_, err := g.Get([]byte(anewKey))
	if errors.Is(err, errKeyNotFound) {
		return false, nil
	}
	return err == nil, err
}
