package raftlog

import (
	"errors"
	"path/filepath"
	"testing"
)

// TestOneVoteInATerm: also for a Raft that has gone back to an older term, and after a restart.
func TestOneVoteInATerm(t *testing.T) {
	path := filepath.Join(t.TempDir(), "votes.db")
	stable, err := OpenStable(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stable.Close() }()
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
			if stable, err = OpenStable(path); err != nil {
				t.Fatal(err)
			}
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
