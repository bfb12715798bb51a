package membership_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trimaran-io/trimaran/cluster/membership"
	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// TestMain checks that nothing is left running. memberlist does not wait for a probe of a
// node that is gone, which ends by itself: hence the patience.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		deadline := time.Now().Add(10 * time.Second)
		err := goleak.Find()
		for err != nil && time.Now().Before(deadline) {
			err = goleak.Find()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// journal is a log that tests can read.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) count(what string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.b.String(), what)
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

func member(id string) membership.Member {
	return membership.Member{
		Identity: id + ".0000abcd", NodeID: id, Incarnation: "0000abcd", PeerAddr: "127.0.0.1:1",
		ClientAddr: "127.0.0.1:2", Zone: "z-" + id, Version: "1.2.3", Expect: 3,
	}
}

func start(t *testing.T, cfg membership.Config) *membership.Gossip {
	t.Helper()
	if cfg.BindAddr == "" {
		cfg.BindAddr = "127.0.0.1:0"
	}
	g, err := membership.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g
}

// sees waits until g lists exactly these identities' node ids.
func sees(t *testing.T, g *membership.Gossip, want ...string) {
	t.Helper()
	slices.Sort(want)
	deadline := time.After(30 * time.Second)
	for {
		var got []string
		for _, m := range g.Members() {
			got = append(got, m.NodeID)
		}
		slices.Sort(got)
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-g.Changed():
		case <-time.After(50 * time.Millisecond):
		case <-deadline:
			t.Fatalf("members %v, want %v", got, want)
		}
	}
}

func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// freeAddr gives an address that nobody listens on now.
func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

func TestNodesMeetInAnyOrderAndTellEachOther(t *testing.T) {
	t.Parallel()
	later := freeAddr(t)
	_, port, _ := net.SplitHostPort(later)
	// a is told of a node that is not up yet, by host name.
	a := start(t, membership.Config{Self: member("a"), Join: []string{"localhost:" + port}})
	sees(t, a, "a")
	b := start(t, membership.Config{Self: member("b"), BindAddr: later})
	c := start(t, membership.Config{Self: member("c"), Join: []string{later, "127.0.0.1:1"}})
	for _, g := range []*membership.Gossip{a, b, c} {
		sees(t, g, "a", "b", "c")
	}
	for _, m := range c.Members() {
		want := member(m.NodeID)
		want.GossipAddr = m.GossipAddr
		if m != want || m.GossipAddr == "" {
			t.Errorf("member %+v, want %+v", m, want)
		}
	}
	formed := member("b")
	formed.ClusterID, formed.Expect = "cluster-1", 0
	if err := b.Update(formed); err != nil {
		t.Fatal(err)
	}
	until(t, "a hears of b's cluster", func() bool {
		return slices.ContainsFunc(a.Members(), func(m membership.Member) bool { return m.ClusterID == "cluster-1" })
	})
	formed.Identity = "somebody.else"
	if err := b.Update(formed); err == nil {
		t.Error("a node changed its identity")
	}
}

// Whoever mistyped an address is told, once, and a node that is met ends it.
func TestANodeThatMeetsNobodySaysSoOnce(t *testing.T) {
	var log journal
	addr := freeAddr(t)
	a := start(t, membership.Config{Self: member("n1"), Join: []string{addr, "not-there.invalid:1"}, Logger: log.logger()})
	until(t, "a word of it", func() bool { return log.count("no other node is met") > 0 })
	if text := log.text(); log.count("no other node is met") != 1 || !strings.Contains(text, addr) || !strings.Contains(text, "not-there.invalid") {
		t.Errorf("logged: %s", text)
	}
	start(t, membership.Config{Self: member("n2"), BindAddr: addr})
	sees(t, a, "n1", "n2")
}

func TestLeaveIsNotFailure(t *testing.T) {
	t.Parallel()
	var seen journal
	a := start(t, membership.Config{Self: member("a"), Logger: seen.logger()})
	b := start(t, membership.Config{Self: member("b"), Join: []string{a.Addr()}})
	c := start(t, membership.Config{Self: member("c"), Join: []string{a.Addr()}})
	// A node that has met nobody has nobody to tell.
	for _, g := range []*membership.Gossip{a, b, c} {
		sees(t, g, "a", "b", "c")
	}
	if err := b.Leave(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	sees(t, a, "a", "c")
	if seen.count(`msg="node left" node=b.0000abcd`) != 1 || seen.count("node failed") != 0 {
		t.Errorf("log:\n%s", seen.text())
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	sees(t, a, "a")
	if seen.count(`msg="node failed" node=c.0000abcd`) != 1 {
		t.Errorf("log:\n%s", seen.text())
	}
}

func TestTwoClustersDoNotMerge(t *testing.T) {
	t.Parallel()
	var seen journal
	of := func(id, cluster string) membership.Member {
		m := member(id)
		m.ClusterID = cluster
		return m
	}
	a1 := start(t, membership.Config{Self: of("a1", "A"), Logger: seen.logger()})
	a2 := start(t, membership.Config{Self: of("a2", "A"), Join: []string{a1.Addr()}})
	b1 := start(t, membership.Config{Self: of("b1", "B"), Join: []string{a1.Addr()}})
	b2 := start(t, membership.Config{Self: of("b2", "B"), Join: []string{b1.Addr(), a2.Addr()}})
	sees(t, a1, "a1", "a2")
	sees(t, b1, "b1", "b2")
	until(t, "b1 noticed", func() bool { return seen.count("node of another cluster kept out") > 0 })
	// One without a cluster is anybody's candidate: b1, should it ask at a1's address again, lists
	// it, too, until it happens to exchange lists with it.
	fresh := start(t, membership.Config{Self: of("new", ""), Join: []string{a1.Addr()}})
	sees(t, a1, "a1", "a2", "new")
	// A node that was seen without a cluster and then founds one of its own is not a candidate any
	// more.
	if err := fresh.Update(of("new", "C")); err != nil {
		t.Fatal(err)
	}
	sees(t, a1, "a1", "a2")
	sees(t, fresh, "new")
	if n := seen.count("node=b1.0000abcd"); n > 1 {
		t.Errorf("b1 logged %d times", n)
	}
	_ = b2
}

func TestRestartFindsOthersByHintsAndNewAddressCounts(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "hints")
	a := start(t, membership.Config{Self: member("a")})
	b := start(t, membership.Config{Self: member("b"), Join: []string{a.Addr()}, Hints: vfs.Small{FS: vfs.OS, Path: file}})
	sees(t, b, "a", "b")
	until(t, "hints written", func() bool {
		text, _ := os.ReadFile(file)
		return strings.Contains(string(text), a.Addr())
	})
	before := b.Addr()
	if err := b.Close(); err != nil { // as a crash: nobody was told
		t.Fatal(err)
	}
	moved := member("b")
	moved.PeerAddr = "127.0.0.1:999"
	b = start(t, membership.Config{Self: moved, Hints: vfs.Small{FS: vfs.OS, Path: file}})
	if b.Addr() == before {
		t.Log("the same port again")
	}
	sees(t, b, "a", "b")
	until(t, "a knows b's new address", func() bool {
		return slices.ContainsFunc(a.Members(), func(m membership.Member) bool { return m.PeerAddr == "127.0.0.1:999" && m.GossipAddr == b.Addr() })
	})
	sees(t, a, "a", "b")
	if files, _ := filepath.Glob(file + ".*"); len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
}

func TestSameNodeIDWithTwoIncarnationsShowsBoth(t *testing.T) {
	t.Parallel()
	a := start(t, membership.Config{Self: member("a")})
	other := member("a")
	other.Identity, other.Incarnation = "a.ffff0000", "ffff0000"
	b := start(t, membership.Config{Self: other, Join: []string{a.Addr()}})
	sees(t, a, "a", "a")
	sees(t, b, "a", "a")
}

func TestSecretKeyKeepsOthersOut(t *testing.T) {
	t.Parallel()
	key := []byte("0123456789abcdef")
	a := start(t, membership.Config{Self: member("a"), Keys: [][]byte{key}})
	b := start(t, membership.Config{Self: member("b"), Keys: [][]byte{key}, Join: []string{a.Addr()}})
	stranger := start(t, membership.Config{Self: member("x"), Join: []string{a.Addr()}})
	sees(t, a, "a", "b")
	sees(t, b, "a", "b")
	sees(t, stranger, "x")
	if _, err := membership.Start(membership.Config{Self: member("y"), BindAddr: "127.0.0.1:0", Keys: [][]byte{[]byte("short")}}); err == nil {
		t.Error("a key of 5 bytes was taken")
	}
}

func TestStartRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	long := member("a")
	long.Zone = strings.Repeat("z", 500)
	for _, c := range []struct {
		name string
		cfg  membership.Config
		is   error
	}{
		{"too long", membership.Config{Self: long, BindAddr: "127.0.0.1:0"}, membership.ErrMetaTooLong},
		{"no identity", membership.Config{BindAddr: "127.0.0.1:0"}, nil},
		{"no port", membership.Config{Self: member("a"), BindAddr: "127.0.0.1"}, nil},
		{"bad port", membership.Config{Self: member("a"), BindAddr: "127.0.0.1:99999"}, nil},
		{"bad advertise", membership.Config{Self: member("a"), BindAddr: "127.0.0.1:0", AdvertiseAddr: "nowhere"}, nil},
	} {
		g, err := membership.Start(c.cfg)
		if err == nil {
			_ = g.Close()
			t.Errorf("%s: started", c.name)
		} else if c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	g := start(t, membership.Config{Self: member("a")})
	if err := g.Update(long); !errors.Is(err, membership.ErrMetaTooLong) {
		t.Errorf("update: %v", err)
	}
	if got := g.Members(); len(got) != 1 || got[0].Zone != "z-a" {
		t.Errorf("after a refused update: %+v", got)
	}
	if err := errors.Join(g.Leave(time.Second), g.Close(), g.Close(), g.Leave(time.Second)); err != nil {
		t.Error(err)
	}
}

func Example() {
	g, err := membership.Start(membership.Config{
		Self:     membership.Member{Identity: "n1.0000abcd", NodeID: "n1", Expect: 3},
		BindAddr: "127.0.0.1:0",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = g.Close() }()
	for _, m := range g.Members() {
		fmt.Println(m.NodeID)
	}
	// Output: n1
}
