package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// spoilEach opens a file with each of many bytes flipped, one after the other, and cut short.
func spoilEach(t *testing.T, path string, check func(path, what string)) {
	t.Helper()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	spoiled := filepath.Join(t.TempDir(), "spoiled")
	try := func(b []byte, what string) {
		if err := os.WriteFile(spoiled, b, 0o600); err != nil {
			t.Fatal(err)
		}
		check(spoiled, what)
	}
	step := 1
	for at := 0; at < len(good); at += step {
		if good[at] == 0 && at%512 != 0 {
			continue
		}
		b := bytes.Clone(good)
		b[at] ^= 1 << (at % 8)
		try(b, fmt.Sprintf("bit %d of byte %d flipped", at%8, at))
	}
	for size := 1; size < len(good); size += 5000 {
		try(good[:size], fmt.Sprintf("cut to %d bytes", size))
	}
}

// The same of the votes: what a raft group has voted is as it was, or the raft group or the node
// does not go on with it.
func TestDamagedVotesAreNotUsed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "votes")
	s, err := OpenStable(path, Options{voteBytes: 1, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	const groups = 60
	name := func(i int) string { return fmt.Sprintf("group-%02d", i) }
	for i := range groups {
		g := s.Group(name(i))
		for _, err := range []error{
			g.SetUint64([]byte("CurrentTerm"), uint64(1000+i)), g.SetUint64([]byte(keyVoteTerm), uint64(1000+i)),
			g.Set([]byte(keyVoteCandidate), fmt.Appendf(nil, "node-%d", i)), g.MarkCreated(),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	refused, alone, whole := 0, 0, 0
	spoilEach(t, path, func(path, what string) {
		s, err := OpenStable(path, Options{voteBytes: 1, NoSync: true})
		if errors.Is(err, ErrDamaged) {
			refused++
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer s.Close()
		bad := 0
		for i := range groups {
			g := s.Group(name(i))
			if err := g.Check(); errors.Is(err, ErrDamaged) {
				// It begins anew with what its leader says, and nothing else.
				if err := g.BeginAnew(7, "leader"); err != nil {
					t.Fatal(err)
				}
				term, err := g.GetUint64([]byte("CurrentTerm"))
				if created, cerr := g.Created(); err != nil || cerr != nil || created || term != 7 || g.Check() != nil {
					t.Fatalf("%s: anew in term %d, %v, %v, %v", what, term, created, err, cerr)
				}
				bad++
				continue
			}
			if known, err := g.Known(); err != nil || !known {
				t.Fatalf("%s: nothing is known of group %d, %v", what, i, err)
			}
			term, _ := g.GetUint64([]byte("CurrentTerm"))
			voted, _ := g.GetUint64([]byte(keyVoteTerm))
			candidate, _ := g.Get([]byte(keyVoteCandidate))
			created, _ := g.Created()
			if term != uint64(1000+i) || voted != term || string(candidate) != fmt.Sprintf("node-%d", i) || !created && i < groups-1 {
				t.Fatalf("%s: group %d is in term %d, has voted for %q in term %d, %v", what, i, term, candidate, voted, created)
			}
		}
		if bad > 0 {
			alone++
		} else {
			whole++
		}
	})
	if refused == 0 || alone == 0 || whole == 0 { // which pages are where differs from run to run
		t.Errorf("%d files refused, %d with groups refused, %d whole", refused, alone, whole)
	}
}

// votesDisk is a file system in memory with an empty folder /data.
func votesDisk() *vfs.Mem {
	mem := vfs.NewMem()
	mem.MkdirAll("/data")
	mem.SyncDir("/")
	return mem
}

// castVote stores a term and a vote as Raft does.
func castVote(g *MemberStable, term uint64, candidate string) error {
	for _, err := range []error{
		g.SetUint64([]byte(keyTerm), term), g.SetUint64([]byte(keyVoteTerm), term), g.Set([]byte(keyVoteCandidate), []byte(candidate)),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// allVotes gives what a vote store has.
func allVotes(s *Stable) map[string]memberVotes {
	s.state.RLock()
	defer s.state.RUnlock()
	return maps.Clone(s.groups)
}

func sameMember(a, b memberVotes) bool {
	return (a == nil) == (b == nil) && maps.EqualFunc(a, b, func(a, b []byte) bool { return bytes.Equal(a, b) })
}

// TestVotesAfterCrashes takes the power at each operation of a life with votes, and holds what is
// there then against what was acknowledged, and what was under way: all of that is there, or
// nothing.
func TestVotesAfterCrashes(t *testing.T) {
	start := crashStart(t)
	for seed := start; seed < start+uint64(max(crashSeeds(t)/75, 1)); seed++ {
		for stop, over := int64(1), false; !over; stop++ {
			over = votesCrash(t, seed, stop)
		}
	}
}

// votesCrash stops after so many operations; over is that the life ended before.
func votesCrash(t *testing.T, seed uint64, stop int64) (over bool) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, uint64(stop)))
	mem := votesDisk()
	model := map[string]memberVotes{} // acknowledged
	var group string                  // of what is under way
	var before, after memberVotes
	live := func(steps int) {
		stable, err := OpenStable("/data/votes", Options{FS: mem, voteBytes: 1500})
		if err != nil {
			return
		}
		defer stable.Close()
		for i := range steps {
			group = fmt.Sprint("group-", random.IntN(5))
			before, after = model[group], nil
			if i%9 == 8 {
				err = stable.Delete(group)
			} else {
				after = before.clone()
				value := bytes.Repeat([]byte{byte(i)}, random.IntN(60))
				after["key"], after["other"] = value, value
				err = stable.Group(group).set(pair{"key", value}, pair{"other", value})
			}
			if err != nil {
				return
			}
			if model[group], before = after, after; after == nil {
				delete(model, group)
			}
		}
	}
	live(10)
	var left atomic.Int64
	left.Store(stop)
	mem.OnStep(func(string, string) {
		if left.Add(-1) == 0 {
			mem.Stop()
		}
	})
	live(30)
	over = left.Load() > 0
	for range 2 { // the second start finds what the first has made of it
		mem.Exit()
		mem = mem.Crash(random)
		stable, err := OpenStable("/data/votes", Options{FS: mem, voteBytes: 1500})
		if err != nil {
			t.Fatalf("seed %d, stopped at operation %d: %v", seed, stop, err)
		}
		got := allVotes(stable)
		if v := got[group]; !sameMember(v, before) && !sameMember(v, after) {
			t.Fatalf("seed %d, stopped at operation %d: %s has %q, and had %q or %q", seed, stop, group, v, before, after)
		}
		delete(got, group)
		delete(model, group)
		if !maps.EqualFunc(got, model, sameMember) {
			t.Fatalf("seed %d, stopped at operation %d: %q instead of %q", seed, stop, got, model)
		}
		// What follows a torn end is good, too.
		if err := castVote(stable.Group("last"), 3, "a"); err != nil {
			t.Fatal(err)
		}
		model["last"] = allVotes(stable)["last"]
	}
	return over
}

// TestTheFirstFailedSyncEndsTheVotes: whichever sync it is, of the file or of its folder, no vote
// is acknowledged after it, nor anything in a log; and what was acknowledged before is there when
// the power has gone.
func TestTheFirstFailedSyncEndsTheVotes(t *testing.T) {
	for fail, over := int64(1), false; !over; fail++ {
		mem := votesDisk()
		var begun atomic.Bool
		var syncs, told atomic.Int64
		st, err := OpenStore("/data", Options{
			JournalBytes: 8 << 10, ReserveBytes: -1, voteBytes: 1500, OnFail: func(error) { told.Add(1) },
			FS: vfs.Failing{FS: mem, Fail: func(op, name string) error {
				if vote := name == "/data" || filepath.Dir(name) == "/data"; vote && begun.Load() && (op == "sync" || op == "syncdir") && syncs.Add(1) == fail {
					return fmt.Errorf("%s %s: %w", op, name, syscall.EIO)
				}
				return nil
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		log, err := st.OpenLog(filepath.Join(st.Groups(), "g"), LogOptions{Group: "g", Span: testSpan, Fresh: true})
		if err != nil {
			t.Fatal(err)
		}
		begun.Store(true)
		stable, err := st.OpenStable()
		acknowledged := uint64(0)
		for term := uint64(1); err == nil && term <= 20; term++ {
			if err = castVote(stable.Group("g"), term, "a"); err == nil {
				acknowledged = term
			}
		}
		over = syncs.Load() < fail
		if failed := told.Load() == 1; failed == over || failed != (err != nil) {
			t.Fatalf("sync %d: the node was told %d times, and Raft %v", fail, told.Load(), err)
		}
		if !over {
			if err := log.StoreLog(entry(1, 1)); err == nil {
				t.Errorf("sync %d: an entry is acknowledged after it failed", fail)
			}
			if stable != nil {
				if err := castVote(stable.Group("other"), 1, "b"); err == nil {
					t.Errorf("sync %d: a vote is acknowledged after it failed", fail)
				}
			}
		}
		// A restart finds in the page cache what the disk has not; what it has found once must
		// stay.
		mem.Exit()
		for round := range 3 {
			if round > 0 {
				mem.Exit()
				mem = mem.Crash(rand.New(rand.NewPCG(uint64(round), uint64(fail))))
			}
			again, err := OpenStable("/data/votes", Options{FS: mem})
			if err != nil {
				t.Fatalf("sync %d: %v", fail, err)
			}
			term, err := again.Group("g").GetUint64([]byte(keyVoteTerm))
			if term < acknowledged || term > acknowledged+1 || acknowledged > 0 && err != nil {
				t.Errorf("sync %d, start %d: known was a vote in term %d, and there is one in %d, %v",
					fail, round, acknowledged, term, err)
			}
			acknowledged = term
		}
	}
}

// TestAVoteThatCannotBeStoredEndsTheVoteStore: Raft, which would panic, waits until its raft group
// is closed; the node is told once, what is tried later fails, too, though the disk would take it,
// and nothing of it was stored.
func TestAVoteThatCannotBeStoredEndsTheVoteStore(t *testing.T) {
	mem := votesDisk()
	var broken atomic.Bool
	var told atomic.Int64
	notice := make(chan error, 1)
	stable, err := OpenStable("/data/votes", Options{
		OnFail: func(err error) { told.Add(1); notice <- err },
		FS: vfs.Failing{FS: mem, Fail: func(op, name string) error {
			if broken.Load() {
				return syscall.EIO
			}
			return nil
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	running, other, starting := stable.Group("running"), stable.Group("other"), stable.Group("starting")
	if err := errors.Join(running.SetUint64([]byte("CurrentTerm"), 7), other.SetUint64([]byte("CurrentTerm"), 7)); err != nil {
		t.Fatal(err)
	}
	running.Serving()
	other.Serving()
	broken.Store(true)
	done := make(chan error)
	go func() { done <- running.SetUint64([]byte("CurrentTerm"), 8) }()
	select {
	case err := <-notice:
		t.Log(err)
	case err := <-done:
		t.Fatalf("Raft was told %v", err)
	}
	broken.Store(false)
	if err := starting.MarkCreated(); err == nil {
		t.Error("a later write is believed")
	}
	if _, err := running.GetUint64([]byte("CurrentTerm")); err == nil {
		t.Error("what may not be stored is read")
	}
	go func() { done <- other.Set([]byte("LastVoteCand"), []byte("a")) }()
	select {
	case err := <-done:
		t.Fatalf("Raft was told %v", err)
	default:
	}
	running.Abandon()
	other.Abandon()
	for range 2 {
		if err := <-done; err != nil {
			t.Errorf("Raft, which is shut down, is told %v", err)
		}
	}
	if told.Load() != 1 {
		t.Errorf("the node was told %d times", told.Load())
	}
	if err := stable.Close(); err != nil {
		t.Error(err)
	}
	again, err := OpenStable("/data/votes", Options{FS: mem})
	if err != nil {
		t.Fatal(err)
	}
	if term, err := again.Group("running").GetUint64([]byte("CurrentTerm")); err != nil || term != 7 {
		t.Errorf("stored is term %d, %v", term, err)
	}
}

// TestVotesOnAFullDisk: there is room ahead; when that is used up a vote waits until there is more,
// and the store opens.
func TestVotesOnAFullDisk(t *testing.T) {
	mem := votesDisk()
	stable, err := OpenStable("/data/votes", Options{FS: mem, voteBytes: 2000})
	if err != nil {
		t.Fatal(err)
	}
	mem.SetFree(0)
	g := stable.Group("g")
	if err := castVote(g, 1, "a"); err != nil {
		t.Fatalf("there is room for it: %v", err)
	}
	term := uint64(2)
	for ; err == nil; term++ {
		err = g.SetUint64([]byte(keyTerm), term)
	}
	if !errors.Is(err, vfs.ErrNoSpace) || term < 5 || term > 200 {
		t.Fatalf("in term %d: %v", term, err)
	}
	g.Serving()
	done := make(chan error)
	go func() { done <- castVote(g, term, "b") }()
	select {
	case err := <-done:
		t.Fatalf("Raft was told %v", err)
	case <-time.After(2 * fullRetry):
	}
	if err := stable.Group("other").MarkCreated(); !errors.Is(err, vfs.ErrNoSpace) {
		t.Errorf("a group that starts is told %v", err)
	}
	mem.SetFree(1 << 20)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := stable.Close(); err != nil {
		t.Error(err)
	}
	for i := range uint64(3) {
		mem.SetFree(0)
		again, err := OpenStable("/data/votes", Options{FS: mem, voteBytes: 2000})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := again.Group("g").GetUint64([]byte(keyTerm)); err != nil || got != term {
			t.Errorf("term %d, %v; acknowledged was %d", got, err, term)
		}
		mem.Exit()
		mem = mem.Crash(rand.New(rand.NewPCG(1, i)))
	}
}

// TestVotesOfANewerProgram are not touched.
func TestVotesOfANewerProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "votes")
	if err := openStable(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[7]++
	putSum(b[:votesHeader])
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStable(path, Options{}); !errors.Is(err, ErrVersion) {
		t.Error(err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, b) {
		t.Errorf("it was changed: %v", err)
	}
}

// TestTheVoteFileStaysSmall: however many votes, and they are all there.
func TestTheVoteFileStaysSmall(t *testing.T) {
	mem := votesDisk()
	stable, err := OpenStable("/data/votes", Options{FS: mem, voteBytes: 4000})
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(2000) {
		if err := castVote(stable.Group(fmt.Sprint(i%10)), 1+i/10, fmt.Sprint("node-", i%3)); err != nil {
			t.Fatal(err)
		}
	}
	if stable.layout.end > 16_000 {
		t.Errorf("the votes of 10 groups take %d bytes", stable.layout.end)
	}
	want := allVotes(stable)
	if err := stable.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := OpenStable("/data/votes", Options{FS: mem})
	if err != nil || len(want) != 10 || !maps.EqualFunc(allVotes(again), want, sameMember) {
		t.Errorf("%d groups, %v", len(want), err)
	}
	if names, _ := mem.List("/data"); len(names) != 1 {
		t.Errorf("in the folder are %v", names)
	}
}

// TestMoreThanFitsIsRefused: and what is stored with it is not.
func TestMoreThanFitsIsRefused(t *testing.T) {
	stable, err := OpenStable("/data/votes", Options{FS: votesDisk()})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		stable.Group("g").Set([]byte("key"), make([]byte, maxVotesValue+1)),
		stable.Group(string(make([]byte, maxRaftGroupName+1))).MarkCreated(),
		stable.Group("").MarkCreated(),
	} {
		if err == nil {
			t.Error("it is stored")
		}
	}
	if got := allVotes(stable); len(got) > 0 {
		t.Errorf("%q", got)
	}
}

// FuzzVotes: no file makes the parser do what it should not, and what it gives is given again when
// it is written.
func FuzzVotes(f *testing.F) {
	v := votesLayout{secret: 7, end: votesHeader}
	b := encodeVotes(&v, map[string]memberVotes{"g": {"key": []byte("value")}, "h": {}})
	v.size = v.end + 200
	copy(b, v.header())
	b = v.appendBallot(b, appendChange(nil, "g", memberVotes{"other": nil}), 1)
	b = v.appendBallot(b, appendChange(nil, "h", nil), 1)
	b = append(b, make([]byte, 100)...)
	f.Add(b, uint16(0), byte(0))
	f.Add(b, uint16(votesHeader+ballotHeader+3), byte(1))
	f.Add(b[:90], uint16(3), byte(1))
	f.Fuzz(func(t *testing.T, b []byte, at uint16, bits byte) {
		if int(at) < len(b) {
			b[at] ^= bits
		}
		if len(b) >= votesHeader && at >= votesHeader {
			putSum(b[:votesHeader])
		}
		v, groups, _, err := parseVotesFile(b)
		if err != nil {
			return
		}
		if v.end > int64(len(b)) || v.last > v.end {
			t.Fatalf("it ends at %d of %d", v.end, len(b))
		}
		again := votesLayout{secret: v.secret, end: votesHeader}
		file := encodeVotes(&again, groups)
		again.size = again.end
		copy(file, again.header())
		_, same, torn, err := parseVotesFile(file)
		if err != nil || torn || !maps.EqualFunc(groups, same, sameMember) {
			t.Fatalf("%q is read as %q, %v, %v", groups, same, torn, err)
		}
	})
}

// putSum makes a header good.
func putSum(b []byte) {
	n := len(b) - 4
	binary.LittleEndian.PutUint32(b[n:], crc32.Checksum(b[:n], castagnoli))
}
