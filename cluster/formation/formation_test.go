package formation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trimaran-io/trimaran/cluster/identity"
	"github.com/trimaran-io/trimaran/cluster/membership"
	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

var errUnreached = fmt.Errorf("%w: not reached", outcome.ErrNoLeader)

// world is some nodes on disks in memory, and the gossip and the calls between them.
type world struct {
	t *testing.T

	mu    sync.Mutex // guards the fields below; nothing is called under it
	nodes []*node
	rng   *rand.Rand
	lossy bool // calls fail, before or after they are served, and gossip forgets
	// registered are the nodes in the catalog of each cluster, by the id of the node.
	registered map[string]map[fsm.NodeID]fsm.Node
}

// node is one process after the other on one disk.
type node struct {
	w      *world
	name   fsm.NodeID
	expect int
	told   bool

	disk    *vfs.Mem
	dir     *identity.Dir
	who     *identity.Identity
	forming *Formation
	stop    context.CancelFunc // nil: it does not run
	ended   chan error
	changed chan struct{}
	ever    map[string]bool // clusters that it was in
}

func newWorld(t *testing.T, expect ...int) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(1, 1)), registered: map[string]map[fsm.NodeID]fsm.Node{}}
	for i, e := range expect {
		disk := vfs.NewMem()
		if err := errors.Join(disk.MkdirAll("/data"), disk.SyncDir("/")); err != nil {
			t.Fatal(err)
		}
		w.nodes = append(w.nodes, &node{w: w, name: fsm.NodeID(fmt.Sprintf("n%d", i+1)), expect: e, disk: disk, changed: make(chan struct{}), ever: map[string]bool{}})
	}
	t.Cleanup(func() {
		for _, n := range w.nodes {
			n.kill()
		}
	})
	return w
}

// start runs a node until kill.
func (n *node) start() {
	n.w.t.Helper()
	dir, err := identity.Open(n.disk, "/data")
	if err != nil {
		n.w.t.Fatal(err)
	}
	who, err := identity.Load(dir, n.name)
	if err != nil {
		n.w.t.Fatal(err)
	}
	// A node has a file of votes before it looks for others.
	if err := vfs.ReplaceFile(n.disk, dir.Join("votes"), []byte("votes")); err != nil {
		n.w.t.Fatal(err)
	}
	f := New(Config{
		Identity: who,
		Self:     fsm.Node{ID: who.NodeID(), Incarnation: who.Incarnation(), FeatureLevel: fsm.FeatureLevel},
		Expect:   n.expect, Told: n.told, Gossip: n,
		Propose: n.w.propose, Join: n.w.join,
		Adopted: func(id string) {
			n.w.mu.Lock()
			n.ever[id] = true
			n.w.mu.Unlock()
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	n.w.mu.Lock()
	n.dir, n.who, n.forming, n.stop, n.ended = dir, who, f, cancel, make(chan error, 1)
	ended := n.ended
	n.w.mu.Unlock()
	go func() { ended <- f.Run(ctx) }()
}

// kill ends the process at once; the power stays.
func (n *node) kill() {
	n.w.mu.Lock()
	stop, ended := n.stop, n.ended
	n.stop = nil
	n.w.mu.Unlock()
	if stop == nil {
		return
	}
	stop()
	<-ended
	n.disk.Exit()
}

// crash is kill with the power going at some moment of what is written then.
func (n *node) crash(rng *rand.Rand) {
	n.disk.Stop()
	n.kill()
	n.disk = n.disk.Crash(rng)
}

// Members implements Gossip.
func (n *node) Members() (out []membership.Member) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	for _, other := range n.w.nodes {
		if other.stop == nil || other != n && n.w.lossy && n.w.rng.IntN(4) == 0 {
			continue
		}
		m := membership.Member{Identity: other.who.String(), NodeID: string(other.name), Incarnation: other.who.Incarnation(), PeerAddr: other.who.String(), ClusterID: other.who.ClusterID(), Expect: other.expect}
		if m.ClusterID != "" {
			m.Expect = 0
		}
		out = append(out, m)
	}
	return out
}

// Changed implements Gossip.
func (n *node) Changed() <-chan struct{} { return n.changed }

// reached gives a node that runs, unless the network loses the call.
func (w *world) reached(name string) (*node, *Formation, *identity.Identity) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.nodes {
		if n.stop != nil && n.who.String() == name && !(w.lossy && w.rng.IntN(3) == 0) {
			return n, n.forming, n.who
		}
	}
	return nil, nil, nil
}

// answered loses an answer now and then.
func (w *world) answered() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lossy && w.rng.IntN(3) == 0 {
		return errUnreached
	}
	return nil
}

func (w *world) propose(_ context.Context, name string, proposal *identity.Proposal) error {
	n, f, _ := w.reached(name)
	if n == nil {
		return errUnreached
	}
	if err := f.Grant(proposal); err != nil {
		return err
	}
	return w.answered()
}

func (w *world) join(ctx context.Context, addr string, asking fsm.Node) (string, error) {
	n, f, who := w.reached(addr)
	if n == nil {
		return "", errUnreached
	}
	id, err := f.Admit(ctx, asking.Identity(), asking, func(_ context.Context, node fsm.Node) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		catalog := w.registered[who.ClusterID()]
		if catalog == nil {
			catalog = map[fsm.NodeID]fsm.Node{}
			w.registered[who.ClusterID()] = catalog
		}
		if had, is := catalog[node.ID]; is && had.Incarnation != node.Incarnation {
			return fmt.Errorf("%w: another has that name", outcome.ErrNodeConflict)
		}
		catalog[node.ID] = node
		return nil
	})
	if err == nil {
		err = w.answered()
	}
	return id, err
}

// says waits in virtual time until a node waits for something that reads like this.
func (n *node) says(text string) {
	n.w.t.Helper()
	time.Sleep(time.Second)
	synctest.Wait()
	if got := n.forming.Waiting(); !strings.Contains(got, text) {
		n.w.t.Errorf("node %s says %q, want %q", n.name, got, text)
	}
	if id := n.who.ClusterID(); id != "" {
		n.w.t.Errorf("node %s is in cluster %s", n.name, id)
	}
}

// together waits until all nodes are in one cluster.
func (w *world) together() string {
	w.t.Helper()
	for range 600 {
		ids := map[string]bool{}
		for _, n := range w.nodes {
			ids[n.who.ClusterID()] = true
		}
		if len(ids) == 1 && !ids[""] {
			return w.nodes[0].who.ClusterID()
		}
		time.Sleep(time.Second)
		synctest.Wait()
	}
	for _, n := range w.nodes {
		w.t.Errorf("node %s is in %q and waits: %s", n.name, n.who.ClusterID(), n.forming.Waiting())
	}
	return ""
}

func (w *world) startAll() {
	for _, n := range w.nodes {
		n.start()
	}
}

// Nodes lose power again and again while they form their cluster, on a network that loses calls and
// answers and with gossip that does not see everybody. There is never more than one cluster, and
// all are in it in the end.
func TestAClusterFormsOnceWhateverHappens(t *testing.T) {
	seeds := uint64(200)
	if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 2))
			expect := []int{3, 3, 3, 0, 0}[:3+rng.IntN(3)]
			w := newWorld(t, expect...)
			w.rng, w.lossy = rand.New(rand.NewPCG(seed, 3)), true
			w.startAll()
			for range 10 + rng.IntN(20) {
				time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond)
				n := w.nodes[rng.IntN(len(w.nodes))]
				switch {
				case n.stop == nil:
				case rng.IntN(2) == 0:
					n.kill()
				default:
					n.crash(rng)
				}
				time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond)
				if n.stop == nil {
					n.start()
				}
			}
			id := w.together()
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, n := range w.nodes {
				if delete(n.ever, id); len(n.ever) > 0 {
					t.Errorf("seed %d: node %s is in cluster %s and was in %v", seed, n.name, id, n.ever)
				}
			}
		})
	}
}

// Every node may stop at any step of the formation; what stands in their node.json then is one of
// these.
func TestAFormationThatWasCutShortIsResumed(t *testing.T) {
	for name, step := range map[string]struct{ granted, adopted []int }{
		"proposed, nobody asked":     {granted: []int{0}},
		"proposed, one has granted":  {granted: []int{0, 1}},
		"all granted":                {granted: []int{0, 1, 2}},
		"adopted by the proposer":    {granted: []int{0, 1, 2}, adopted: []int{0}},
		"one follower adopted first": {granted: []int{0, 1, 2}, adopted: []int{0, 2}},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 3, 3, 3)
			const id = "0123456789abcdef0123456789abcdef"
			proposal := &identity.Proposal{ClusterID: id}
			for _, n := range w.nodes {
				n.expect = 4 // nobody proposes anything of its own
				n.start()
				proposal.Nodes = append(proposal.Nodes, fsm.Node{ID: n.name, Incarnation: n.who.Incarnation()})
			}
			proposal.Proposer = w.nodes[0].who.String()
			for _, n := range w.nodes {
				n.kill()
				n.expect = 3
			}
			for _, i := range step.granted {
				if err := w.nodes[i].who.Grant(proposal); err != nil {
					t.Fatal(err)
				}
			}
			for _, i := range step.adopted {
				if err := w.nodes[i].who.Adopt(id); err != nil {
					t.Fatal(err)
				}
			}
			w.startAll()
			if got := w.together(); got != id {
				t.Errorf("%s: the cluster is %s, the proposal was %s", name, got, id)
			}
		})
	}
}

// What a node waits for is said, and is not more than what can be.
func TestANodeThatWaitsSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 3)
		w.startAll()
		for _, n := range w.nodes {
			n.says("--bootstrap-expect")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 2)
		w.nodes[1].name = "n1"
		w.startAll()
		for _, n := range w.nodes {
			n.says("two nodes are named n1")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 3)
		w.startAll()
		w.nodes[0].says("2 of 3 expected are here")
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		w.startAll()
		w.nodes[0].says("waiting to meet a node of a cluster")
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.nodes[0].told = true // its disk may be gone
		w.startAll()
		w.nodes[0].says("waiting to meet another node")
	})
}

func TestANodeAloneFormsItsCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.startAll()
		w.together()
	})
}

// A node that has agreed waits for its proposer, and follows it wherever that is.
func TestAGrantBindsANodeToItsProposer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 2)
		w.nodes[1].start()
		bound := w.nodes[1]
		other := &identity.Proposal{ClusterID: "abab", Proposer: "zz.0000ffff", Nodes: []fsm.Node{{ID: "n2", Incarnation: bound.who.Incarnation()}, {ID: "zz", Incarnation: "0000ffff"}}}
		if err := bound.who.Grant(other); err != nil {
			t.Fatal(err)
		}
		w.nodes[0].start()
		bound.says("waiting for zz.0000ffff")
		if w.nodes[0].who.String() < bound.who.String() {
			w.nodes[0].says("waiting for n2 to agree")
		}
		if err := w.nodes[0].who.Adopt("cdcd"); err != nil { // a cluster without its proposer
			t.Fatal(err)
		}
		bound.says("bring zz.0000ffff back")
		if err := w.nodes[0].who.Adopt("abab"); err != nil {
			t.Fatal(err)
		}
		if got := w.together(); got != "abab" {
			t.Errorf("it is in %s", got)
		}
	})
}

// A name that is taken is a reason to end, and not to wait.
func TestANodeThatIsRefusedEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 0)
		w.nodes[0].start()
		time.Sleep(time.Second)
		synctest.Wait()
		w.registered[w.nodes[0].who.ClusterID()] = map[fsm.NodeID]fsm.Node{"n2": {ID: "n2", Incarnation: "0000ffff"}}
		w.nodes[1].start()
		time.Sleep(time.Second)
		synctest.Wait()
		select {
		case err := <-w.nodes[1].ended:
			if !errors.Is(err, outcome.ErrNodeConflict) {
				t.Errorf("it ended with: %v", err)
			}
			w.nodes[1].ended <- err // for kill
		default:
			t.Errorf("it goes on, and waits: %s", w.nodes[1].forming.Waiting())
		}
	})
}

// Who asks to be admitted is who it says.
func TestOnlyANodeItselfIsAdmitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 2)
		w.nodes[0].start() // which waits for the other one
		register := func(context.Context, fsm.Node) error { return errors.New("registered") }
		n9 := fsm.Node{ID: "n9", Incarnation: "00000009"}
		if _, err := w.nodes[0].forming.Admit(t.Context(), "n9.00000009", n9, register); outcome.Code(err) != outcome.ErrNoLeader {
			t.Errorf("before there is a cluster: %v", err)
		}
		w.nodes[1].start()
		w.together()
		for _, from := range []string{"n8.00000009", ""} {
			if _, err := w.nodes[0].forming.Admit(t.Context(), from, n9, register); outcome.Code(err) != outcome.ErrUnknown {
				t.Errorf("from %q: %v", from, err)
			}
		}
		if _, err := w.nodes[0].forming.Admit(t.Context(), "n9.00000009", n9, register); err == nil || err.Error() != "registered" {
			t.Errorf("itself: %v", err)
		}
	})
}

// A node agrees to nothing that it is not part of, nor to what names no cluster.
func TestAProposalThatIsNoneIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.startAll()
		self := []fsm.Node{{ID: "n1", Incarnation: w.nodes[0].who.Incarnation()}}
		for _, test := range []struct {
			p    identity.Proposal
			code outcome.Error
		}{
			{identity.Proposal{ClusterID: "c", Proposer: "n9.00000000"}, outcome.ErrClusterMismatch},
			{identity.Proposal{Proposer: "n9.00000000", Nodes: self}, outcome.ErrUnknown},
		} {
			if err := w.nodes[0].forming.Grant(&test.p); outcome.Code(err) != test.code {
				t.Errorf("%+v: %v", test.p, err)
			}
		}
		if w.nodes[0].who.Forming() != nil || w.nodes[0].who.ClusterID() != "" {
			t.Error("it was agreed to")
		}
	})
}
