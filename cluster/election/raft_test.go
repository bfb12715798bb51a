package election_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/election"
	"github.com/trimaran-io/trimaran/cluster/link/peertest"
)

// words is a state machine that remembers what was applied.
type words struct {
	mu   sync.Mutex
	list []string
	pad  int // bytes that make a snapshot larger
}

func (w *words) Apply(l *raft.Log) any {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, string(l.Data))
	return nil
}

func (w *words) Snapshot() (raft.FSMSnapshot, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return wordsSnapshot{append([]string(nil), w.list...), w.pad}, nil
}

func (w *words) Restore(r io.ReadCloser) error {
	defer func() { _ = r.Close() }()
	var snap savedWords
	if err := json.NewDecoder(r).Decode(&snap); err != nil {
		return err
	}
	if !bytes.Equal(snap.Pad, padding(len(snap.Pad))) {
		return errors.New("the snapshot came in another order than it was sent")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = snap.List
	return nil
}

func (w *words) applied() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.list...)
}

type savedWords struct {
	List []string
	Pad  []byte
}

// padding is n bytes that show when they are out of order.
func padding(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * i >> 8)
	}
	return b
}

type wordsSnapshot struct {
	list []string
	pad  int
}

func (s wordsSnapshot) Persist(sink raft.SnapshotSink) error {
	if err := json.NewEncoder(sink).Encode(savedWords{s.list, padding(s.pad)}); err != nil {
		return err
	}
	return sink.Close()
}

func (s wordsSnapshot) Release() {}

// member is one node of one group.
type member struct {
	id    string
	link  node
	trans *election.Member
	raft  *raft.Raft
	fsm   *words
	snaps raft.SnapshotStore
	logs  *raft.InmemStore
}

func (m *member) stop() {
	if m.raft != nil {
		_ = m.raft.Shutdown().Error()
	}
	_ = m.link.Close()
}

func startMember(t *testing.T, n *peertest.Network, id, group string, change func(*raft.Config)) *member {
	t.Helper()
	m := &member{id: id, link: linkOn(t, n, id), fsm: &words{}, snaps: raft.NewInmemSnapshotStore(), logs: raft.NewInmemStore()}
	m.open(t, group, change)
	return m
}

func (m *member) open(t *testing.T, group string, change func(*raft.Config)) {
	t.Helper()
	m.openOn(t, group, change, m.logs)
}

func (m *member) openOn(t *testing.T, group string, change func(*raft.Config), logs raft.LogStore) {
	t.Helper()
	m.trans = m.link.Transport(group).(*election.Member)
	cfg := raft.DefaultConfig()
	cfg.LocalID = raft.ServerID(m.id)
	cfg.Logger = hclog.NewNullLogger()
	cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaderLeaseTimeout = 500*time.Millisecond, 500*time.Millisecond, 250*time.Millisecond
	cfg.CommitTimeout = 20 * time.Millisecond
	if change != nil {
		change(cfg)
	}
	var err error
	if m.raft, err = raft.NewRaft(cfg, m.fsm, logs, m.logs, m.snaps, m.trans); err != nil {
		t.Fatal(err)
	}
}

func configurationOf(members ...*member) (c raft.Configuration) {
	for _, m := range members {
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(m.id), Address: raft.ServerAddress(m.id)})
	}
	return c
}

func bootstrap(t *testing.T, members ...*member) {
	t.Helper()
	c := configurationOf(members...)
	for _, m := range members {
		if err := m.raft.BootstrapCluster(c).Error(); err != nil {
			t.Fatal(err)
		}
	}
}

// leader waits until exactly one of the members leads and the others that are not excluded follow
// it.
func leader(t *testing.T, members ...*member) *member {
	t.Helper()
	var found *member
	until(t, "a leader", func() bool {
		found = nil
		for _, m := range members {
			if m.raft.State() == raft.Leader && m.raft.VerifyLeader().Error() == nil {
				found = m
			}
		}
		return found != nil
	})
	return found
}

func propose(t *testing.T, m *member, from, to int) {
	t.Helper()
	var futures []raft.ApplyFuture
	for i := from; i < to; i++ {
		futures = append(futures, m.raft.Apply(fmt.Appendf(nil, "entry %d", i), 10*time.Second))
	}
	for i, f := range futures {
		if err := f.Error(); err != nil {
			t.Fatalf("entry %d: %v", from+i, err)
		}
	}
}

func allHave(t *testing.T, count int, members ...*member) {
	t.Helper()
	for _, m := range members {
		until(t, fmt.Sprintf("%s has %d entries", m.id, count), func() bool { return len(m.fsm.applied()) >= count })
		for i, w := range m.fsm.applied() {
			if want := fmt.Sprintf("entry %d", i); w != want {
				t.Fatalf("%s: at %d stands %.40q", m.id, i, w)
			}
		}
	}
}

func three(t *testing.T, n *peertest.Network, group string, change func(*raft.Config)) []*member {
	t.Helper()
	ms := []*member{startMember(t, n, "a", group, change), startMember(t, n, "b", group, change), startMember(t, n, "c", group, change)}
	bootstrap(t, ms...)
	return ms
}

func TestRaftElectsAndReplicates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		ms := three(t, n, "g", nil)
		defer func() {
			for _, m := range ms {
				m.stop()
			}
		}()
		l := leader(t, ms...)
		for i := 0; i < 10_000; i += 1000 {
			propose(t, l, i, i+1000)
		}
		allHave(t, 10_000, ms...)
		s := l.link.Stats()
		if s.FramesOut < s.Writes {
			t.Errorf("%d frames in %d writes", s.FramesOut, s.Writes)
		}
	})
}

func TestRaftOverRealSockets(t *testing.T) {
	book := map[string]string{}
	var ms []*member
	for _, id := range []string{"a", "b", "c"} {
		ms = append(ms, &member{id: id, link: tcpLink(t, id, book), fsm: &words{}, snaps: raft.NewInmemSnapshotStore(), logs: raft.NewInmemStore()})
	}
	for _, m := range ms {
		m.open(t, "g", func(c *raft.Config) {
			// Real time: a busy machine must not take the leadership away.
			c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 3*time.Second, 3*time.Second, 2*time.Second
		})
	}
	t.Cleanup(func() {
		for _, m := range ms {
			m.stop()
		}
	})
	bootstrap(t, ms...)
	l := leader(t, ms...)
	propose(t, l, 0, 2000)
	allHave(t, 2000, ms...)
}

func TestLeaderBehindACutIsReplacedAndCatchesUp(t *testing.T) {
	for name, cut := range map[string]func(n *peertest.Network, l string, others []string){
		"both ways": func(n *peertest.Network, l string, others []string) { n.Isolate(l, others...) },
		"its words do not arrive": func(n *peertest.Network, l string, others []string) {
			for _, o := range others {
				n.CutOneWay(l, o)
			}
		},
		"answers do not arrive": func(n *peertest.Network, l string, others []string) {
			for _, o := range others {
				n.CutOneWay(o, l)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := peertest.New()
				ms := three(t, n, "g", nil)
				defer func() {
					for _, m := range ms {
						m.stop()
					}
				}()
				first := leader(t, ms...)
				propose(t, first, 0, 100)
				var rest []*member
				var names []string
				for _, m := range ms {
					if m != first {
						rest, names = append(rest, m), append(names, m.id)
					}
				}
				cut(n, first.id, names)
				began := time.Now()
				second := leader(t, rest...)
				propose(t, second, 100, 200)
				if took := time.Since(began); took > 10*time.Second {
					t.Errorf("a new leader took %v", took)
				}
				until(t, "the old leader steps down", func() bool { return first.raft.State() != raft.Leader })
				n.HealAll()
				l := leader(t, ms...)
				propose(t, l, 200, 300)
				allHave(t, 300, ms...)
			})
		})
	}
}

func TestLeadershipTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		ms := three(t, n, "g", nil)
		defer func() {
			for _, m := range ms {
				m.stop()
			}
		}()
		l := leader(t, ms...)
		propose(t, l, 0, 10)
		for _, m := range ms {
			if m == l {
				continue
			}
			if err := l.raft.LeadershipTransferToServer(raft.ServerID(m.id), raft.ServerAddress(m.id)).Error(); err != nil {
				t.Fatal(err)
			}
			until(t, "transfer", func() bool { return leader(t, ms...) == m })
			propose(t, m, 10, 20)
			break
		}
		allHave(t, 20, ms...)
	})
}

func TestSnapshotReachesAFreshFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		small := func(c *raft.Config) { c.TrailingLogs = 10 }
		ms := three(t, n, "g", small)
		fresh := startMember(t, n, "d", "g", small)
		var asked string
		fresh.trans.BeforeInstall(func(_ context.Context, from string, req *raft.InstallSnapshotRequest) error {
			asked = from
			time.Sleep(25 * time.Second) // virtual: longer than a message may take
			return nil
		})
		all := append(ms, fresh)
		defer func() {
			for _, m := range all {
				m.stop()
			}
		}()
		l := leader(t, ms...)
		for _, m := range ms {
			m.fsm.pad = 10 << 20 // more than a stream's window
		}
		propose(t, l, 0, 1000)
		if err := l.raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		if err := l.raft.AddVoter("d", "d", 0, 0).Error(); err != nil {
			t.Fatal(err)
		}
		propose(t, l, 1000, 1100)
		until(t, "the snapshot is there", func() bool { return len(fresh.fsm.applied()) >= 1100 })
		allHave(t, 1100, all...)
		if asked != l.id {
			t.Errorf("BeforeInstall heard %q, the leader is %q", asked, l.id)
		}
	})
}

func TestManyGroupsShareTheConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		ids := []string{"a", "b", "c"}
		links := map[string]node{}
		for _, id := range ids {
			links[id] = linkOn(t, n, id)
		}
		const groups = 40
		var all [groups][]*member
		for g := range all {
			for _, id := range ids {
				m := &member{id: id, link: links[id], fsm: &words{}, snaps: raft.NewInmemSnapshotStore(), logs: raft.NewInmemStore()}
				m.open(t, fmt.Sprintf("group-%d", g), nil)
				all[g] = append(all[g], m)
			}
			bootstrap(t, all[g]...)
		}
		for g := range all {
			l := leader(t, all[g]...)
			propose(t, l, 0, 20)
		}
		for g := range all {
			allHave(t, 20, all[g]...)
		}
		for _, id := range ids {
			if c := links[id].Stats().Connections; c != 8 {
				t.Errorf("%s has %d connections, want 2 to and 2 from each of two others", id, c)
			}
		}
		for g := range all {
			for _, m := range all[g] {
				_ = m.raft.Shutdown().Error()
			}
		}
		for _, id := range ids {
			if g := links[id].Stats().Groups; g != 0 {
				t.Errorf("%s still has %d groups after their shutdown", id, g)
			}
			_ = links[id].Close()
		}
	})
}
