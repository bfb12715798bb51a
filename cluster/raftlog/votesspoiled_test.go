package raftlog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// TestVotesBesideErrors has one operation of many callers fail, whichever it is and in whichever
// way, and goes on. What was acknowledged is there after the end of the process, and after that of
// the power; and what is there is what was acknowledged or under way.
func TestVotesBesideErrors(t *testing.T) {
	kinds := []error{syscall.EIO, vfs.ErrNoSpace, vfs.ShortWrite{Bytes: 70, Err: vfs.ErrNoSpace}, vfs.ShortWrite{Bytes: 600, Err: vfs.ErrNoSpace},
		vfs.ShortWrite{Bytes: 20, Err: syscall.EIO}, syscall.EMFILE}
	for k, kind := range kinds {
		for fail, over := int64(1), false; !over; fail++ {
			for _, times := range []int64{1, 3} {
				over = votesBesideErrors(t, fmt.Sprintf("kind %d (%v), operation %d, %d times", k, kind, fail, times), kind, fail, times)
			}
		}
	}
}

func votesBesideErrors(t *testing.T, what string, kind error, fail, times int64) (over bool) {
	mem := votesDisk()
	var n atomic.Int64
	var last atomic.Value
	fs := vfs.Failing{FS: mem, Fail: func(op, name string) error {
		if at := n.Add(1); at >= fail && at < fail+times {
			last.Store(op + " " + name)
			var short vfs.ShortWrite
			if errors.As(kind, &short) && op != "write" {
				return short.Err
			}
			if op == "sync" || op == "syncdir" {
				return syscall.EIO
			}
			return kind
		}
		return nil
	}}
	const groups = 6
	acked, tried := make([]uint64, groups), make([]uint64, groups)
	live := func() {
		s, err := OpenStable("/data/votes", Options{FS: fs, voteBytes: 1200})
		if err != nil {
			return
		}
		defer s.Close()
		var all sync.WaitGroup
		for i := range groups {
			all.Go(func() {
				for range 8 {
					term := tried[i] + 1
					tried[i] = term
					g := s.Group(fmt.Sprint("g", i))
					err := g.SetUint64([]byte(keyTerm), term) // Raft ends if it fails
					if err == nil {
						err = castVote(g, term, fmt.Sprint("candidate ", term))
					}
					if err == nil {
						acked[i] = term
					} else if current, _ := g.GetUint64([]byte(keyTerm)); current < term {
						break
					}
				}
			})
		}
		all.Wait()
	}
	live()
	mem.Exit()
	live()
	over = n.Load() < fail
	for round := range 4 {
		mem.Exit()
		if round > 0 {
			mem = mem.Crash(rand.New(rand.NewPCG(uint64(round), uint64(fail))))
		}
		s, err := OpenStable("/data/votes", Options{FS: mem, voteBytes: 1200})
		if err != nil {
			t.Fatalf("%s (%v): %v", what, last.Load(), err)
		}
		for i := range groups {
			g := s.Group(fmt.Sprint("g", i))
			term, _ := g.GetUint64([]byte(keyVoteTerm))
			current, _ := g.GetUint64([]byte(keyTerm))
			who, _ := g.Get([]byte(keyVoteCandidate))
			if term < acked[i] || term > tried[i] || current < term || term > 0 && string(who) != fmt.Sprint("candidate ", term) {
				t.Fatalf("%s (%v), start %d: group %d voted for %q in term %d of %d; acknowledged was %d", what, last.Load(), round, i, who, term, current, acked[i])
			}
			acked[i] = term // what a start has found stays
		}
		if round%2 == 0 {
			s.Close()
		}
	}
	return over
}

// TestSpoiledVotes flips, zeroes and exchanges bytes of files of many lives, stopped in good order
// or not. Whoever has voted is known or refused, but for the last batch of a life that was cut off.
func TestSpoiledVotes(t *testing.T) {
	refused, damaged, lastLost, fine := 0, 0, 0, 0
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 4))
		mem := votesDisk()
		s, err := OpenStable("/data/votes", Options{FS: mem, voteBytes: 1500, NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		// With names of some lengths a page has a whole number of changes.
		name := func(i int) string { return fmt.Sprintf("group-%0*d", 1+int(seed%40), i) }
		var terms, before [12]uint64
		for range 1 + r.IntN(60) {
			before = terms
			i := r.IntN(len(terms))
			terms[i]++
			err := s.Group(name(i)).set(pair{keyTerm, number(terms[i])}, pair{keyVoteTerm, number(terms[i])}, pair{keyVoteCandidate, []byte("n")})
			if err != nil {
				t.Fatal(err)
			}
		}
		lastAt, size := s.layout.last, s.layout.size
		clean := r.IntN(2) == 0
		if clean {
			s.Close()
		}
		end := s.layout.end
		size = max(size, end)
		mem.Exit()
		f, _ := mem.Open("/data/votes")
		b := make([]byte, size)
		f.ReadAt(b, 0)
		at := r.Int64N(end)
		to := min(at+1+r.Int64N(512), end, size)
		switch r.IntN(4) {
		case 0:
			b[at] ^= 1 << r.IntN(8)
			to = at + 1
		case 1:
			clear(b[at:to])
		case 2:
			from := r.Int64N(end)
			copy(b[at:to], append([]byte(nil), b[from:]...))
		case 3: // a write that went elsewhere
			at = at / 512 * 512
			from := r.Int64N(end) / 512 * 512
			to = min(at+512, size)
			copy(b[at:to], append([]byte(nil), b[from:]...))
		}
		if lastBegins := s.layout.last; at < lastBegins && to > lastBegins {
			continue // all that was written last: nothing tells of it (FORMAT.md)
		}
		f.WriteAt(b, 0)
		s, err = OpenStable("/data/votes", Options{FS: mem, voteBytes: 1500, NoSync: true})
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
			refused++
			continue
		}
		kind := &fine
		for i := range terms {
			g := s.Group(name(i))
			if errors.Is(g.Check(), ErrDamaged) {
				kind = &damaged
				continue
			}
			switch got, _ := g.GetUint64([]byte(keyTerm)); {
			case got == terms[i]:
			case !clean && got == before[i] && to > lastAt:
				kind = &lastLost
			default:
				t.Fatalf("seed %d: group %d is in term %d, was in %d; clean %v, at %d, the last batch at %d to %d", seed, i, got, terms[i], clean, at, lastAt, end)
			}
		}
		*kind++
	}
	if refused == 0 || damaged == 0 || lastLost == 0 || fine == 0 {
		t.Error("some of this has not been tried")
	}
	t.Logf("%d refused, %d with damaged groups, %d without the last batch, %d fine", refused, damaged, lastLost, fine)
}
