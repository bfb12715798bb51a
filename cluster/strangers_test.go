package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/catalog"
	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/membership"
	"github.com/trimaran-io/trimaran/cluster/peertls"
	"github.com/trimaran-io/trimaran/cluster/raftlink"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/security/certs"
)

// pki is the CAs of a test and their files: that of the cluster in ca, and one of somebody else's.
type pki struct {
	t             *testing.T
	dir           string
	ours, foreign *certs.CA
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	p := &pki{t: t, dir: t.TempDir()}
	for _, ca := range []**certs.CA{&p.ours, &p.foreign} {
		var err error
		if *ca, err = certs.NewCA(10 * 365 * 24 * time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	p.save("ours", p.ours.Pair)
	p.save("foreign", p.foreign.Pair)
	return p
}

func (p *pki) save(name string, pair certs.Pair) {
	p.t.Helper()
	if _, _, err := pair.Save(p.dir, name, true); err != nil {
		p.t.Fatal(err)
	}
}

// guard gives that of a node with a certificate of one of the CAs.
func (p *pki) guard(ca *certs.CA, nodeID string, mode peertls.Mode) *peertls.Guard {
	p.t.Helper()
	pair, err := ca.Node(nodeID, nil, 365*24*time.Hour)
	if err != nil {
		p.t.Fatal(err)
	}
	by := "ours"
	if ca == p.foreign {
		by = "foreign"
	}
	name := by + "-" + nodeID
	p.save(name, pair)
	file := func(s string) string { return filepath.Join(p.dir, s) }
	g, err := peertls.New(peertls.Config{
		Files: certs.Files{Cert: file(name + ".crt"), Key: file(name + ".key"), CA: file(by + ".crt")}, Mode: mode, RequireIdentity: true,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return g
}

// secure gives all nodes of a cluster certificates.
func (p *pki) secure(c *testCluster) {
	for _, n := range c.nodes {
		n.cfg.PeerTLS = p.guard(p.ours, string(n.cfg.NodeID), peertls.Require)
	}
}

// ways are how strangers come: in plaintext, or with some certificate.
func (p *pki) ways(c *testCluster) map[string]peertls.DialFunc {
	plain := peertls.DialFunc(c.net.under.Dial("evil"))
	client, err := p.ours.Client("n2", time.Hour)
	if err != nil {
		p.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(client.Cert, client.Key)
	if err != nil {
		p.t.Fatal(err)
	}
	return map[string]peertls.DialFunc{
		"in plaintext":               plain,
		"with a foreign certificate": p.guard(p.foreign, "n2", peertls.Require).Dialer(plain),
		"as another node":            p.guard(p.ours, "n3", peertls.Require).Dialer(plain),
		"as one that is not there":   p.guard(p.ours, "n9", peertls.Require).Dialer(plain),
		"with a client's certificate": func(ctx context.Context, addr string) (net.Conn, error) {
			nc, err := plain(ctx, addr)
			if err != nil {
				return nil, err
			}
			return tls.Client(nc, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}, NextProtos: []string{peertls.ALPN}}), nil
		},
	}
}

// asker takes calls to nodes over a stranger's link.
type asker struct{ *link.Link }

func (a asker) Call(ctx context.Context, identity string, kind uint8, payload ...[]byte) ([]byte, error) {
	reply, err := a.Link.Call(ctx, identity, kind, payload...)
	if err != nil {
		return nil, err
	}
	return calls.DecodeReply(reply)
}

// stranger is a link under an identity of its choice.
func (c *testCluster) stranger(identity string, dial peertls.DialFunc) asker {
	l := link.New(link.Config{
		Self: identity, Dial: dial,
		Resolve: func(identity string) (string, bool) {
			for _, n := range c.nodes {
				if n.identity == identity {
					addr, _ := n.Addresses()
					return addr, true
				}
			}
			return "", false
		},
	})
	l.Start()
	return asker{l}
}

// standing is what no stranger may change: who leads in which term, who belongs to the cluster,
// which topics and records there are, which sessions between nodes, and what is said of disks.
func (c *testCluster) standing(id fsm.PartitionID) string {
	var b strings.Builder
	for i, n := range c.nodes {
		view := n.Topics()
		for _, node := range view.Nodes() {
			fmt.Fprintf(&b, "%d knows %s %+v\n", i+1, node.Identity(), node)
		}
		for _, topic := range view.All() {
			fmt.Fprintf(&b, "%d has topic %s\n", i+1, topic.Name)
		}
		if g := n.catalog.Member(); g != nil {
			leader, _ := g.Raft.LeaderWithID()
			fmt.Fprintf(&b, "%d catalog: term %s, leader %s\n", i+1, g.Raft.Stats()["term"], leader)
		}
		if r := n.replica(id); r != nil {
			leader, _ := r.Member.Raft.LeaderWithID()
			fmt.Fprintf(&b, "%d partition: term %s, leader %s, last %d\n", i+1, r.Member.Raft.Stats()["term"], leader, r.Member.Raft.LastIndex())
		}
		for _, other := range c.nodes {
			if p := n.link.Known(other.identity); p != nil && other != n {
				v := p.Look()
				fmt.Fprintf(&b, "%d with %s: %p %p, full %v\n", i+1, other.identity, v.Out, v.In, n.room.SaysFull(other.identity))
			}
		}
		fmt.Fprintf(&b, "%d failed: %v\n", i+1, n.Err())
	}
	return b.String()
}

// scene is a cluster that is attacked.
type scene struct {
	*testCluster
	id       fsm.PartitionID
	leader   string // of the catalog
	follower string // of the catalog, and not n2
	led      string // who leads the partition
	voter    string // of the partition, does not lead it, and not n3
}

// attacks are what strangers have done to a cluster that trusts whoever reaches its ports. Each
// says whether it was told what it should not know, or that it had been done.
var attacks = map[string]func(ctx context.Context, s *scene, dial peertls.DialFunc) (told bool){
	"asks for replicas": func(ctx context.Context, s *scene, dial peertls.DialFunc) bool {
		evil := s.stranger("evil.00000000", dial)
		defer evil.Close()
		_, err := calls.ReplicaStatus.Ask(ctx, evil, s.leader, calls.Nothing{})
		return err == nil
	},
	"reads records": func(ctx context.Context, s *scene, dial peertls.DialFunc) bool {
		evil := s.stranger("evil.00000000", dial)
		defer evil.Close()
		got, err := calls.Read.Ask(ctx, evil, s.led, calls.ReadRequest{Partition: s.id, MaxBytes: 1 << 20})
		return err == nil && strings.Contains(string(got.Batches), "top secret")
	},
	"appends records": func(ctx context.Context, s *scene, dial peertls.DialFunc) bool {
		evil := s.stranger("evil.00000000", dial)
		defer evil.Close()
		_, err := calls.Append.Ask(ctx, evil, s.led, calls.AppendRequest{Partition: s.id, Batches: []kafkaproto.Batch{prototest.Batch("forged")}})
		return err == nil
	},
	"deletes a topic": func(ctx context.Context, s *scene, dial peertls.DialFunc) bool {
		evil := s.stranger("evil.00000000", dial)
		defer evil.Close()
		command := fsm.CatalogCommand{DeleteTopic: &fsm.DeleteTopic{Name: "spare"}}.Encode()
		_, err := calls.CatalogApply.Ask(ctx, evil, s.leader, command)
		return err == nil
	},
	"joins": func(ctx context.Context, s *scene, dial peertls.DialFunc) bool {
		evil := s.stranger("evil.00000000", dial)
		defer evil.Close()
		_, err := calls.Join.Ask(ctx, evil, s.leader, fsm.Node{ID: "evil", Incarnation: "00000000", FeatureLevel: fsm.FeatureLevel})
		return err == nil
	},
	"drains a node": func(ctx context.Context, s *scene, dial peertls.DialFunc) bool {
		evil := s.stranger("evil.00000000", dial)
		defer evil.Close()
		_, err := calls.Administer.Ask(ctx, evil, s.leader, admin.Request{Op: admin.OpDrain, Node: "n3"})
		return err == nil
	},
	"takes a node's session over": func(ctx context.Context, s *scene, dial peertls.DialFunc) bool {
		evil := s.stranger(s.nodes[1].identity, dial)
		defer evil.Close()
		_, err := calls.Member.Ask(ctx, evil, s.nodes[0].identity, calls.Nothing{})
		return err == nil
	},
	"says that a disk is full": func(ctx context.Context, s *scene, dial peertls.DialFunc) bool {
		evil := s.stranger(s.nodes[1].identity, dial)
		defer evil.Close()
		_, err := calls.Full.Ask(ctx, evil, s.nodes[0].identity, true)
		return err == nil
	},
	"asks for a vote in term 1,000,000": func(_ context.Context, s *scene, dial peertls.DialFunc) bool {
		return s.raft(dial, func(t *raftlink.Transport, header raft.RPCHeader) bool {
			var resp raft.RequestVoteResponse
			err := t.RequestVote(raft.ServerID(s.leader), "", &raft.RequestVoteRequest{
				RPCHeader: header, Term: 1_000_000, LastLogIndex: 1 << 40, LastLogTerm: 999_999, LeadershipTransfer: true,
			}, &resp)
			return err == nil && resp.Granted
		})
	},
	"leads in term 1,000,000": func(_ context.Context, s *scene, dial peertls.DialFunc) bool {
		return s.raft(dial, func(t *raftlink.Transport, header raft.RPCHeader) bool {
			var resp raft.AppendEntriesResponse
			err := t.AppendEntries(raft.ServerID(s.follower), "", &raft.AppendEntriesRequest{RPCHeader: header, Term: 1_000_000}, &resp)
			return err == nil && resp.Success
		})
	},
	"installs a snapshot": func(_ context.Context, s *scene, dial peertls.DialFunc) bool {
		return s.raft(dial, func(t *raftlink.Transport, header raft.RPCHeader) bool {
			var resp raft.InstallSnapshotResponse
			forged := "not a catalog"
			err := t.InstallSnapshot(raft.ServerID(s.follower), "", &raft.InstallSnapshotRequest{
				RPCHeader: header, SnapshotVersion: 1, Term: 1_000_000, LastLogIndex: 1 << 40, LastLogTerm: 999_999,
				Configuration: raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "evil.00000000", Address: "evil"}}}),
				Size:          int64(len(forged)),
			}, &resp, strings.NewReader(forged))
			return err == nil && resp.Success
		})
	},
	"has a node's replica leave its group": func(ctx context.Context, s *scene, dial peertls.DialFunc) bool {
		evil := s.stranger(s.voter, dial)
		defer evil.Close()
		_, err := calls.Leave.Ask(ctx, evil, s.led, s.id)
		return err == nil
	},
	"has a follower stand for election": func(_ context.Context, s *scene, dial peertls.DialFunc) bool {
		return s.raft(dial, func(t *raftlink.Transport, header raft.RPCHeader) bool {
			var resp raft.TimeoutNowResponse
			return t.TimeoutNow(raft.ServerID(s.follower), "", &raft.TimeoutNowRequest{RPCHeader: header}, &resp) == nil
		})
	},
}

// raft speaks as n2's member of the catalog's group.
func (s *scene) raft(dial peertls.DialFunc, say func(t *raftlink.Transport, header raft.RPCHeader) bool) bool {
	self := s.nodes[1].identity
	evil := s.stranger(self, dial)
	defer evil.Close()
	t := raftlink.New(evil.Link, raftlink.Config{Timeout: 3 * time.Second}).Open(catalog.Group, nil)
	defer t.Close()
	return say(t, raft.RPCHeader{ProtocolVersion: 3, ID: []byte(self), Addr: []byte(self)})
}

// newScene starts a cluster, secured or not, and waits until nothing moves any more.
func newScene(t *testing.T, p *pki, secured bool) *scene {
	t.Helper()
	c := newTestCluster(t, 3)
	if secured {
		p.secure(c)
	}
	c.startAll()
	s := &scene{testCluster: c, id: fsm.PartitionID{Topic: c.topic("kept", 1, 3).ID}}
	c.topic("spare", 1, 3)
	c.mustAppend(0, s.id, "top secret")
	time.Sleep(3 * time.Minute)
	s.led = c.nodes[c.leaderOf(s.id)].identity
	for _, n := range c.nodes {
		if n.catalog.Member().Raft.State() == raft.Leader {
			s.leader = n.identity
		}
	}
	for i := range c.nodes {
		id := c.nodes[i].identity
		if i != 1 && id != s.leader {
			s.follower = id
		}
		if id != s.led && i != 2 {
			s.voter = id // not n3, whose certificate one of the strangers has
		}
	}
	return s
}

// TestStrangersAreNotHeard: no attack changes or learns anything, however the stranger comes.
func TestStrangersAreNotHeard(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPKI(t)
		s := newScene(t, p, true)
		before := s.standing(s.id)
		for what, attack := range attacks {
			for how, dial := range p.ways(s.testCluster) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				if attack(ctx, s, dial) {
					t.Errorf("%s: a stranger %s", how, what)
				}
				cancel()
			}
		}
		time.Sleep(30 * time.Second)
		if after := s.standing(s.id); after != before {
			t.Errorf("it was\n%s\nand is\n%s", before, after)
		}
		s.mustAppend(1, s.id, "and goes on")
	})
}

// TestAttacksHurtWhoTrustsStrangers: the attacks are such that a cluster without certificates
// notices each of them, so that the test before this one can fail.
func TestAttacksHurtWhoTrustsStrangers(t *testing.T) {
	for _, what := range slices.Sorted(maps.Keys(attacks)) {
		runInBubble(t, what, func(t *testing.T) {
			s := newScene(t, nil, false)
			before := s.standing(s.id)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			told := attacks[what](ctx, s, peertls.DialFunc(s.net.under.Dial("evil")))
			time.Sleep(time.Second)
			if !told && s.standing(s.id) == before {
				t.Error("nothing has happened")
			}
		})
	}
}

// gossips has somebody gossip who says of himself what he likes.
func (c *testCluster) gossipsAs(self membership.Member, keys [][]byte, addr string) *membership.Gossip {
	c.t.Helper()
	transport, err := c.net.under.Gossip("evil", addr)
	if err != nil {
		c.t.Fatal(err)
	}
	var join []string
	for _, n := range c.nodes {
		if n.Node != nil {
			_, gossip := n.Addresses()
			join = append(join, gossip)
		}
	}
	g, err := membership.Start(membership.Config{Self: self, BindAddr: addr, Join: join, Keys: keys, Transport: transport})
	if err != nil {
		c.t.Fatal(err)
	}
	return g
}

// TestGossipEndsNoNodeAndMovesNone: a stranger says that he is n2, was so before n2 was started and
// is so since, and answers as n2 at an address of his own. The cluster has no certificates, and no
// key of gossip that he does not have.
func TestGossipEndsNoNodeAndMovesNone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3)
		c.startAll()
		id := fsm.PartitionID{Topic: c.topic("kept", 1, 3).ID}
		c.kill(1)
		self := c.nodes[1].Node.member()
		self.PeerAddr = "10.9.9.9:7000"
		older := c.gossipsAs(self, c.keys, "10.9.9.9:7946")
		defer older.Close()
		time.Sleep(5 * time.Second)
		c.start(1)
		// Without certificates whoever answers as n2 where nobody else does is taken for it, so he
		// begins to answer when n2 was found.
		eventually(t, "n2 is reached", func() error { return c.nodes[1].Ready() })
		time.Sleep(5 * time.Second)
		ln, err := c.net.under.Listen("evil", self.PeerAddr)
		if err != nil {
			t.Fatal(err)
		}
		evil := link.New(link.Config{
			Self: self.Identity, Listener: ln,
			Handler: func(context.Context, string, uint8, []byte) []byte { return calls.EncodeReply(make([]byte, 64), nil) },
		})
		evil.Start()
		defer evil.Close()
		younger := c.gossipsAs(self, c.keys, "10.9.9.9:7947")
		defer younger.Close()
		eventually(t, "the stranger is heard", func() error {
			if !slices.Contains(c.nodes[1].gossip.Twins(), self.PeerAddr) || !slices.Contains(c.nodes[0].gossip.PeerAddrs(self.Identity), self.PeerAddr) {
				return fmt.Errorf("not heard")
			}
			return nil
		})
		time.Sleep(5 * time.Minute)
		if err := c.nodes[1].Err(); err != nil {
			t.Errorf("n2 ended: %v", err)
		}
		for range 3 {
			for _, pair := range [][2]string{{"n1", "n2"}, {"n2", "n3"}, {"n1", "n3"}} {
				c.net.under.Break(pair[0], pair[1])
			}
			time.Sleep(time.Minute)
			for _, i := range []int{0, 2} {
				v := c.nodes[i].link.Known(self.Identity).Look()
				if v.Out == nil || v.Out.Boot() != c.nodes[1].link.Boot() {
					t.Errorf("node %d speaks to somebody else than n2", i+1)
				}
			}
		}
		c.mustAppend(1, id, "n2 serves")
	})
}

// TestWithoutAKeyNobodyIsHeardInGossip, and nobody hears.
func TestWithoutAKeyNobodyIsHeardInGossip(t *testing.T) {
	for name, secured := range map[string]bool{"with keys": true, "without": false} {
		runInBubble(t, name, func(t *testing.T) {
			c := newTestCluster(t, 3)
			if !secured {
				for _, n := range c.nodes {
					n.cfg.GossipKeys = nil
				}
			}
			c.startAll()
			var strangers []*membership.Gossip
			for i, keys := range [][][]byte{nil, {make([]byte, 32)}} {
				strangers = append(strangers, c.gossipsAs(membership.Member{Identity: fmt.Sprint("evil", i, ".00000000"), NodeID: fmt.Sprint("evil", i), Incarnation: "00000000", PeerAddr: "10.9.9.9:1"}, keys, fmt.Sprint("10.9.9.9:79", 50+i)))
			}
			time.Sleep(2 * time.Minute)
			heard := len(c.nodes[0].gossip.Members()) > 3 || len(strangers[0].Members()) > 1 || len(strangers[1].Members()) > 1
			if heard == secured {
				t.Errorf("heard: %v", heard)
			}
			for _, g := range strangers {
				_ = g.Close()
			}
		})
	}
}

// successors have strangers say, in gossip with the right key and on the peer link, that they are
// of what became of a cluster.
type successors struct {
	*testCluster
	forged string
	asked  [5]atomic.Int64
}

func (s *successors) says(i int, identity string, guard *peertls.Guard) {
	s.t.Helper()
	addr := fmt.Sprintf("10.9.9.%d:7000", i)
	ln, err := s.net.under.Listen("evil", addr)
	if err != nil {
		s.t.Fatal(err)
	}
	ln = counted{ln, &s.asked[i]}
	dial := peertls.DialFunc(s.net.under.Dial("evil"))
	if guard != nil {
		ln, dial = guard.Listener(ln), guard.Dialer(dial)
	}
	l := link.New(link.Config{Self: identity, Listener: ln, Dial: dial, ClusterID: func() string { return s.forged }})
	l.Start()
	s.t.Cleanup(func() { _ = l.Close() })
	node, incarnation, _ := strings.Cut(identity, ".")
	g := s.gossipsAs(membership.Member{Identity: identity, NodeID: node, Incarnation: incarnation, ClusterID: s.forged, PeerAddr: addr}, s.keys, fmt.Sprintf("10.9.9.%d:7946", i))
	s.t.Cleanup(func() { _ = g.Close() })
}

// goOn fails the test if a node has ended, or has not asked who says so.
func (s *successors) goOn(strangers int) {
	s.t.Helper()
	time.Sleep(5 * time.Minute)
	for i, n := range s.nodes {
		if err := n.Err(); err != nil {
			s.t.Errorf("node %d ended: %v", i+1, err)
		}
	}
	for i := 1; i <= strangers; i++ {
		if s.asked[i].Load() == 0 {
			s.t.Errorf("nobody has asked stranger %d", i)
		}
	}
}

// end waits until a node has ended.
func (s *successors) end(i int) {
	s.t.Helper()
	eventually(s.t, "the node ends", func() error {
		if err := s.nodes[i].Err(); !errors.Is(err, ErrLeftOut) {
			return fmt.Errorf("node %d: %v", i+1, err)
		}
		return nil
	})
	s.kill(i)
}

// TestAForgedSuccessorEndsNoNode: with certificates only a node is believed that the cluster was
// recovered without those that it has.
func TestAForgedSuccessorEndsNoNode(t *testing.T) { inBubble(t, testAForgedSuccessorEndsNoNode) }

func testAForgedSuccessorEndsNoNode(t *testing.T) {
	p := newPKI(t)
	c := newTestCluster(t, 3)
	p.secure(c)
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("kept", 1, 3).ID}
	s := &successors{testCluster: c, forged: c.nodes[0].who.ClusterID() + ".0badf00d"}
	s.says(1, "evil1.00000000", nil)
	s.says(2, "n2.00000000", p.guard(p.foreign, "n2", peertls.Require))
	s.says(3, "evil3.00000000", p.guard(p.ours, "n9", peertls.Require)) // another node's
	s.goOn(3)
	c.mustAppend(1, id, "goes on")
	s.says(4, "n9.00000000", p.guard(p.ours, "n9", peertls.Require))
	for i := range c.nodes {
		s.end(i)
	}
}

// TestAForgedSuccessorEndsNoMajority: without certificates anybody can say so, and of nodes that
// have run for a while only one ends that finds no majority of its own.
func TestAForgedSuccessorEndsNoMajority(t *testing.T) {
	inBubble(t, testAForgedSuccessorEndsNoMajority)
}

func testAForgedSuccessorEndsNoMajority(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("kept", 1, 3).ID}
	time.Sleep(successorGrace)
	s := &successors{testCluster: c, forged: c.nodes[0].who.ClusterID() + ".0badf00d"}
	s.says(1, "evil1.00000000", nil)
	s.goOn(1)
	c.mustAppend(1, id, "goes on")
	c.kill(1)
	s.goOn(1)
	c.kill(2)
	s.end(0)
}

// counted is a listener that counts its connections.
type counted struct {
	net.Listener
	n *atomic.Int64
}

func (l counted) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return nc, err
}
