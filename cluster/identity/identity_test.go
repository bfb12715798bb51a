package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

const (
	dataDir = "/data"
	cluster = "0f5c7b1e-6a53-4c2e-9b7a-0d4e3f2a1b6c"
)

// opened gives a data directory that is open until the test ends.
func opened(t *testing.T, fsys vfs.FS) *Dir {
	t.Helper()
	d, err := Open(fsys, dataDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func write(t *testing.T, fsys vfs.FS, name, data string) {
	t.Helper()
	if err := vfs.ReplaceFile(fsys, name, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

// proposed is a proposal that the node is part of.
func proposed(id *Identity, clusterID string) *Proposal {
	return &Proposal{ClusterID: clusterID, Proposer: "n0.00000000", Nodes: []fsm.Node{
		{ID: "n0", Incarnation: "00000000"}, {ID: id.NodeID(), Incarnation: id.Incarnation()},
	}}
}

// A node is who it was, or does not start: one flipped digit would make another node of it.
func TestADamagedIdentityIsRefused(t *testing.T) {
	m := vfs.NewMem()
	d := opened(t, m)
	minted, err := d.Read("n1")
	if err != nil {
		t.Fatal(err)
	}
	write(t, m, d.Join("votes"), "some")
	minted.ClusterID = cluster
	minted.Forming = &Proposal{ClusterID: cluster, Proposer: "n1-1234", Nodes: []fsm.Node{{ID: "n1", Incarnation: minted.Incarnation}}}
	if err := d.Save(minted); err != nil {
		t.Fatal(err)
	}
	path := d.Join("node.json")
	good, err := vfs.ReadFile(m, path, maxFile)
	if err != nil {
		t.Fatal(err)
	}
	want := minted.sum()
	refused := 0
	for at := range good {
		for bit := range 8 {
			b := bytes.Clone(good)
			b[at] ^= 1 << bit
			write(t, m, path, string(b))
			file, err := d.Read("")
			if err != nil {
				refused++
			} else if file.sum() != want {
				t.Errorf("bit %d of byte %d flipped: %+v", bit, at, file)
			}
		}
	}
	if refused < len(good) {
		t.Errorf("%d of %d files are refused", refused, 8*len(good))
	}
	// From before there was a checksum.
	write(t, m, path, strings.Replace(string(good), `"checksum"`, `"nothing"`, 1))
	if _, err := d.Read("n1"); err != nil {
		t.Error(err)
	}
}

// FuzzFile gives a node any node.json: it takes it or says what is wrong.
func FuzzFile(f *testing.F) {
	f.Add([]byte(`{"format":1,"node_id":"n1","incarnation":"0123abcd"}`))
	f.Add([]byte(`{"format":2}`))
	f.Add([]byte(`{"format":1,"node_id":"n1","incarnation":"0123abcd","forming":{"nodes":[{}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := vfs.NewMem()
		d := opened(t, m)
		write(t, m, d.Join("node.json"), string(data))
		file, err := d.Read("")
		if err == nil && (fsm.CheckNodeID(file.NodeID) != nil || len(file.Incarnation) != 8) {
			t.Fatalf("taken: %+v", file)
		}
	})
}

// What was there without what must be beside it is refused, and says why.
func TestADirectoryThatLostSomethingIsRefused(t *testing.T) {
	const in = `{"format":1,"node_id":"n1","incarnation":"0123abcd","cluster_id":"c"}`
	const in2 = `{"format":2,"node_id":"n1","incarnation":"0123abcd","cluster_id":"c"}`
	const alone = `{"format":1,"node_id":"n1","incarnation":"0123abcd"}`
	for name, test := range map[string]struct {
		files map[string]string
		want  fsm.NodeID
		why   string // in the error; "": it is taken
	}{
		"empty":                      {nil, "n1", ""},
		"empty, a name of the host":  {nil, "", ""},
		"a name that cannot be":      {nil, "n/1", "node id"},
		"before it saw a cluster":    {map[string]string{"node.json": alone}, "", ""},
		"all there":                  {map[string]string{"node.json": in, "votes.db": "v"}, "n1", ""},
		"all there, the new form":    {map[string]string{"node.json": in2, "votes": "v"}, "n1", ""},
		"the new form, old votes":    {map[string]string{"node.json": in2, "votes.db": "v"}, "n1", "has lost votes"},
		"the old form, new votes":    {map[string]string{"node.json": in, "votes": "v"}, "n1", "has lost votes.db"},
		"of a newer program":         {map[string]string{"node.json": strings.Replace(in, ":1", ":3", 1)}, "n1", "written by another version"},
		"of another node":            {map[string]string{"node.json": in, "votes.db": "v"}, "n2", "belongs to node \"n1\""},
		"votes gone":                 {map[string]string{"node.json": in}, "n1", "has lost votes.db"},
		"votes emptied":              {map[string]string{"node.json": in, "votes.db": ""}, "n1", "has lost votes.db"},
		"no identity, but votes":     {map[string]string{"votes": "v"}, "n1", "lost its identity"},
		"no identity, but old votes": {map[string]string{"votes.db": "v"}, "n1", "lost its identity"},
		"no identity, but a catalog": {map[string]string{"catalog/raft.db": "x"}, "n1", "lost its identity"},
		"no identity, but replicas":  {map[string]string{"partitions/x-0/manifest": "x"}, "n1", "lost its identity"},
	} {
		m := vfs.NewMem()
		d := opened(t, m)
		for file, data := range test.files {
			if at := strings.LastIndex(file, "/"); at > 0 {
				if err := m.MkdirAll(d.Join(file[:at])); err != nil {
					t.Fatal(err)
				}
			}
			write(t, m, d.Join(file), data)
		}
		_, err := Load(d, test.want)
		if test.why == "" && err != nil || test.why != "" && (err == nil || !strings.Contains(err.Error(), test.why)) {
			t.Errorf("%s: %v, want %q", name, err, test.why)
		}
	}
}

func TestADirectoryIsOneProcess(t *testing.T) {
	m := vfs.NewMem()
	first := opened(t, m)
	if _, err := Open(m, dataDir); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("opened twice: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	opened(t, m)
}

// A node agrees to one cluster in its life, and belongs to one.
func TestANodeAgreesOnce(t *testing.T) {
	m := vfs.NewMem()
	d := opened(t, m)
	id, err := Load(d, "n1")
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Grant(&Proposal{ClusterID: "other", Proposer: "n0.00000000"}); !errors.Is(err, outcome.ErrClusterMismatch) {
		t.Errorf("it agrees to be left out: %v", err)
	}
	for range 2 {
		if err := id.Grant(proposed(id, cluster)); err != nil {
			t.Error(err)
		}
	}
	if err := id.Grant(proposed(id, "another")); !errors.Is(err, outcome.ErrClusterMismatch) {
		t.Errorf("it agrees twice: %v", err)
	}
	if err := id.Adopt(cluster); err != nil {
		t.Error(err)
	}
	if err := id.Grant(proposed(id, "another")); !errors.Is(err, outcome.ErrClusterMismatch) {
		t.Errorf("it agrees to another than it is in: %v", err)
	}
	if err := id.Leave(); err != nil {
		t.Error(err)
	}
	write(t, m, d.Join("votes"), "some")
	again, err := Load(d, "n1")
	if err != nil {
		t.Fatal(err)
	}
	if again.String() != id.String() || again.ClusterID() != cluster || again.Forming().Proposer != "n0.00000000" || !again.HasLeft() {
		t.Errorf("it was %+v, and is %+v", id.file.Load(), again.file.Load())
	}
}

// Of proposals that come at once a node agrees to one, also on disk, whenever the power goes.
func TestAGrantIsOnDiskBeforeItIsGiven(t *testing.T) {
	for steps := range 12 {
		m := vfs.NewMem()
		d := opened(t, m)
		id, err := Load(d, "n1")
		if err != nil {
			t.Fatal(err)
		}
		if err := m.SyncDir("/"); err != nil {
			t.Fatal(err)
		}
		done := 0
		var mu sync.Mutex
		m.OnStep(func(string, string) {
			mu.Lock()
			defer mu.Unlock()
			if done++; done > steps {
				m.Stop()
			}
		})
		granted := make([]error, 4)
		var asked sync.WaitGroup
		for i := range granted {
			asked.Go(func() { granted[i] = id.Grant(proposed(id, fmt.Sprint("c", i))) })
		}
		asked.Wait()
		after, err := Open(m.Crash(rand.New(rand.NewPCG(uint64(steps), 1))), dataDir)
		if err != nil {
			t.Fatal(err)
		}
		file, err := vfs.ReadFile(after.fs, after.Join(fileName), maxFile)
		if err != nil {
			t.Fatal(err)
		}
		given := 0
		for i, err := range granted {
			if err != nil {
				continue
			}
			given++
			if !strings.Contains(string(file), fmt.Sprintf(`"cluster_id": "c%d"`, i)) {
				t.Errorf("after %d operations: c%d was granted, and this is kept: %s", steps, i, file)
			}
		}
		if given > 1 {
			t.Errorf("after %d operations: %d were granted", steps, given)
		}
	}
}

// A file that was not synced is not what the node is.
func TestAChangeThatWasNotSyncedIsNone(t *testing.T) {
	failing := false
	fsys := vfs.Failing{FS: vfs.NewMem(), Fail: func(op, _ string) error {
		if failing && op == "sync" {
			return errors.New("medium error")
		}
		return nil
	}}
	id, err := Load(opened(t, fsys), "n1")
	if err != nil {
		t.Fatal(err)
	}
	failing = true
	if err := id.Adopt(cluster); !errors.As(err, new(vfs.NotSynced)) {
		t.Errorf("%v", err)
	}
	if id.ClusterID() != "" {
		t.Errorf("it is in %q", id.ClusterID())
	}
}

// twins are other processes of this identity, by address. nil: nobody answers there.
type twins struct {
	mu sync.Mutex
	at map[string]func(nonce [16]byte) Answer
}

func (g *twins) addresses() (addrs []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Sorted(maps.Keys(g.at))
}

func (g *twins) ask(ctx context.Context, addr string, nonce [16]byte) (Answer, error) {
	g.mu.Lock()
	answer := g.at[addr]
	g.mu.Unlock()
	if answer == nil {
		<-ctx.Done()
		return Answer{}, ctx.Err()
	}
	return answer(nonce), nil
}

func (g *twins) set(at map[string]func(nonce [16]byte) Answer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.at = at
}

// The later one of two with one data directory ends. Nobody else ends it, whatever he says.
func TestTheCopyEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := vfs.NewMem()
		id, err := Load(opened(t, m), "n1")
		if err != nil {
			t.Fatal(err)
		}
		stranger, err := Load(opened(t, vfs.NewMem()), "n1")
		if err != nil {
			t.Fatal(err)
		}
		stranger.name = id.name // he knows it from gossip
		ctx, cancel := context.WithCancel(t.Context())
		others, self := new(twins), Process{Boot: 7, Started: 1000}
		var log bytes.Buffer
		watch := Twins{Self: self, Addresses: others.addresses, Ask: others.ask, Logger: slog.New(slog.NewTextHandler(&log, nil))}
		ended := make(chan error, 1)
		began := time.Now()
		go func() { ended <- id.WatchForTwin(ctx, watch) }()
		by := func(who *Identity, p Process) func([16]byte) Answer {
			return func(nonce [16]byte) Answer { return Answer{id.name, p, who.Prove(nonce, p)} }
		}
		older, younger := Process{1, 999}, Process{9, 1000}
		var heard Answer
		for what, at := range map[string]map[string]func([16]byte) Answer{
			"nobody":                       nil,
			"one that does not answer":     {"a:1": nil},
			"a stranger":                   {"a:1": by(stranger, older)},
			"the copy, which is later":     {"a:1": by(id, younger)},
			"a mirror":                     {"a:1": by(id, self)},
			"a mirror that says it is old": {"a:1": func(nonce [16]byte) Answer { return Answer{id.name, older, id.Prove(nonce, self)} }},
			"another identity":             {"a:1": func(nonce [16]byte) Answer { return Answer{"n2.0123abcd", older, id.Prove(nonce, older)} }},
			"an answer that was heard once": {"a:1": func(nonce [16]byte) Answer {
				if heard.Identity == "" {
					heard = Answer{id.name, older, id.Prove([16]byte{1}, older)}
				}
				return heard
			}},
		} {
			others.set(at)
			time.Sleep(time.Hour)
			synctest.Wait()
			select {
			case err := <-ended:
				t.Fatalf("%s, after %v: %v", what, time.Since(began), err)
			default:
			}
		}
		if said := strings.Count(log.String(), "does not prove it"); said < 1 || said > 8 {
			t.Errorf("%d lines:\n%s", said, log.String())
		}
		others.set(map[string]func([16]byte) Answer{"a:1": nil, "b:1": by(id, older), "c:1": by(stranger, older)})
		time.Sleep(30 * time.Second)
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "is a copy") {
			t.Errorf("it ended with: %v", err)
		}
		go func() { ended <- id.WatchForTwin(ctx, watch) }()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("it was told to end: %v", err)
		}
	})
}

// The secret stays, and a directory of before there was one gets it.
func TestTheSecretOfADirectory(t *testing.T) {
	m := vfs.NewMem()
	d := opened(t, m)
	first, err := Load(d, "n1")
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(d, "n1")
	if err != nil || again.secret != first.secret || first.secret == (Secret{}) {
		t.Errorf("another secret: %v", err)
	}
	if err := m.Remove(d.Join(secretName)); err != nil {
		t.Fatal(err)
	}
	if again, err = Load(d, "n1"); err != nil || again.secret == first.secret || again.name != first.name {
		t.Errorf("%v", err)
	}
	write(t, m, d.Join(secretName), "short")
	if _, err = Load(d, "n1"); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("%v", err)
	}
}

// A directory of the old format stays one until it is said that its files were taken over.
func TestAnOldDirectoryIsOldUntilItIsMigrated(t *testing.T) {
	m := vfs.NewMem()
	d := opened(t, m)
	write(t, m, d.Join("node.json"), `{"format":1,"node_id":"n1","incarnation":"0123abcd","cluster_id":"c"}`)
	write(t, m, d.Join("votes.db"), "some")
	for _, old := range []bool{true, false} {
		id, err := Load(d, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := id.Adopt("c"); err != nil || id.OldFormat() != old {
			t.Errorf("old: %v, want %v, %v", id.OldFormat(), old, err)
		}
		write(t, m, d.Join("votes"), "some")
		if err := id.Migrated(); err != nil || id.OldFormat() {
			t.Errorf("it is still old: %v", err)
		}
	}
}

// No node starts while a recovery is under way, and clusters know what became of them.
func TestARecoveryKeepsANodeFromStarting(t *testing.T) {
	m := vfs.NewMem()
	d := opened(t, m)
	if _, err := d.Read("n1"); err != nil {
		t.Fatal(err)
	}
	if b, err := d.Recovery(); b != nil || err != nil {
		t.Fatalf("%q, %v", b, err)
	}
	if err := d.BeginRecovery([]byte("plan")); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(d, "n1"); !errors.Is(err, ErrUnfinished) {
		t.Errorf("a node starts in the middle of a recovery: %v", err)
	}
	if b, err := d.Recovery(); string(b) != "plan" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	file, err := d.Look()
	if err != nil {
		t.Fatal(err)
	}
	file.ClusterID, file.Lost = Recovered(cluster, []byte("what all know")), []string{"n2.00000002"}
	if err := errors.Join(d.Save(file), d.EndRecovery(), d.EndRecovery(), vfs.ReplaceFile(m, d.Join("votes"), []byte("votes"))); err != nil {
		t.Fatal(err)
	}
	id, err := Load(d, "n1")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(id.Lost(), file.Lost) || Formed(id.ClusterID()) != cluster || !Succeeds(id.ClusterID(), cluster) {
		t.Errorf("recovered as %s without %q", id.ClusterID(), id.Lost())
	}
	again := Recovered(id.ClusterID(), []byte("more"))
	if !Succeeds(again, cluster) || !Succeeds(again, id.ClusterID()) || Succeeds(cluster, again) || Succeeds(again, again) || Succeeds(again, "") || Formed(again) != cluster {
		t.Errorf("recovered twice: %s", again)
	}
}
