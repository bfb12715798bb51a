package raftlog

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// openStable opens a vote store that is closed with the test, or before.
func openStable(t *testing.T, path string) *Stable {
	t.Helper()
	stable, err := OpenStable(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stable.Close() })
	return stable
}

// TestOneVoteInATerm: also for a Raft that has gone back to an older term, and after a restart.
func TestOneVoteInATerm(t *testing.T) {
	path := filepath.Join(t.TempDir(), "votes")
	stable := openStable(t, path)
	group := stable.Group("g")
	vote := func(term uint64, candidate string) error {
		if err := group.SetUint64([]byte(keyVoteTerm), term); err != nil {
			return err
		}
		return group.Set([]byte(keyVoteCandidate), []byte(candidate))
	}
	for _, v := range []struct {
		term      uint64
		candidate string
		denied    bool
		restart   bool
	}{
		{1, "a", false, false},
		{1, "a", false, false},
		{1, "b", true, false},
		{3, "b", false, false},
		{3, "a", true, true},
		{2, "b", true, false},
		{3, "b", false, true},
		{4, "a", false, false},
		{4, "b", true, false},
	} {
		if v.restart {
			if err := stable.Close(); err != nil {
				t.Fatal(err)
			}
			stable = openStable(t, path)
			group = stable.Group("g")
		}
		err := vote(v.term, v.candidate)
		if v.denied != errors.Is(err, ErrVoted) || !v.denied && err != nil {
			t.Errorf("a vote for %s in term %d: %v", v.candidate, v.term, err)
		}
	}
	if term, err := group.GetUint64([]byte(keyVoteTerm)); err != nil || term != 4 {
		t.Errorf("the last vote was in term %d, %v", term, err)
	}
	if candidate, err := group.Get([]byte(keyVoteCandidate)); err != nil || string(candidate) != "a" {
		t.Errorf("it was for %s, %v", candidate, err)
	}
}

// TestAVoteIsStoredWhole: Raft stores its term and then its candidate. After a crash between the
// two, the new term with the candidate before would be a vote that was never given: Raft grants it
// again without a look at the candidate's log.
func TestAVoteIsStoredWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "votes")
	stable := openStable(t, path)
	group := stable.Group("g")
	for _, err := range []error{
		group.SetUint64([]byte(keyVoteTerm), 1), group.Set([]byte(keyVoteCandidate), []byte("a")),
		group.SetUint64([]byte(keyVoteTerm), 2), // and the process ends
		stable.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	stable = openStable(t, path)
	group = stable.Group("g")
	term, err := group.GetUint64([]byte(keyVoteTerm))
	if err != nil {
		t.Fatal(err)
	}
	candidate, err := group.Get([]byte(keyVoteCandidate))
	if err != nil || term != 1 || string(candidate) != "a" {
		t.Errorf("the vote is one in term %d for %s, %v; given was one in term 1 for a", term, candidate, err)
	}
}

// TestAChangeThatFailsFailsAlone: those that were to share its commit are made.
func TestAChangeThatFailsFailsAlone(t *testing.T) {
	stable := openStable(t, filepath.Join(t.TempDir(), "votes"))
	wrong := errors.New("wrong")
	begun, proceed := make(chan struct{}), make(chan struct{})
	var callers sync.WaitGroup
	callers.Go(func() {
		var once sync.Once
		if err := stable.update("first", func(old memberVotes) (memberVotes, error) {
			once.Do(func() { close(begun); <-proceed }) // all others wait behind this one
			return memberVotes{}, nil
		}); err != nil {
			t.Error(err)
		}
	})
	<-begun
	for i := range 10 {
		callers.Go(func() {
			group := stable.Group(fmt.Sprint(i))
			if i == 5 {
				if err := stable.update("5", func(memberVotes) (memberVotes, error) { return nil, wrong }); !errors.Is(err, wrong) {
					t.Errorf("the one that fails is told %v", err)
				}
			} else if err := group.MarkCreated(); err != nil {
				t.Errorf("group %d: %v", i, err)
			}
		})
	}
	for waits := false; !waits; {
		stable.mu.Lock()
		waits = len(stable.waiting) == 10
		stable.mu.Unlock()
		runtime.Gosched()
	}
	close(proceed)
	callers.Wait()
	for i := range 10 {
		if created, err := stable.Group(fmt.Sprint(i)).Created(); created != (i != 5) || err != nil {
			t.Errorf("group %d: created %v, %v", i, created, err)
		}
	}
	if err := stable.Group("after").MarkCreated(); err != nil {
		t.Error(err)
	}
}
