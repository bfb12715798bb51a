package membership

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// Config says how this node gossips.
type Config struct {
	// Self is what the others are told. Its Identity must be unique.
	Self Member
	// BindAddr is host:port to listen on, TCP and UDP; port 0 takes a free one.
	BindAddr string
	// AdvertiseAddr is host:port that others reach it at; "" is what it is bound to,
	// or for a wildcard a private address of this machine.
	AdvertiseAddr string
	// Join are gossip addresses of other nodes, host:port; host names are looked up each time. They
	// need not be up yet.
	Join []string
	// Hints remember where others were; nil for none.
	Hints Hints
	// Keys encrypt and authenticate gossip, 16, 24 or 32 bytes each, at most MaxKeys: the first one
	// what is sent, any of them what is heard. None: gossip is not encrypted.
	Keys [][]byte
	// Plaintext says what counts beside what is encrypted; without Keys it means nothing.
	Plaintext Plaintext
	// Foreign is told of nodes of other clusters, again and again; nil: nobody wants to know. It
	// must not wait for anything.
	Foreign func(Member)
	// Logger gets one line per node that came, left, failed or was kept out. Nil discards.
	Logger *slog.Logger
	// Transport carries the gossip in place of TCP and UDP at BindAddr, which must be the
	// transport's own address; nil for the real network. It is closed with the Gossip.
	Transport memberlist.Transport
}

// label stands before every packet and stream, so that another program's memberlist is not met by
// mistake.
const label = "trimaran/1"

// Gossip is this node's part in the gossip. All methods are safe for concurrent use.
type Gossip struct {
	cfg     Config
	log     *slog.Logger
	started int64  // ms since epoch: of two processes with one identity the later one counts
	name    string // memberlist's name of this process
	addr    string // gossip address that others are told
	list    *memberlist.Memberlist
	keys    keyring
	changed chan struct{} // capacity 1
	wake    chan struct{} // capacity 1: for the joining loop

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// updating is held by who changes what others are told, until memberlist has told them, which
	// takes its time: memberlist broadcasts what meta says then. Readers do not take it; mu may be
	// taken under it, and memberlist's locks.
	updating locks.Slow[gossipUpdating]

	// mu guards what follows. It is taken inside memberlist's own lock (its callbacks): nothing of
	// memberlist is called, nothing waited for and no other lock taken under it.
	mu   locks.Mutex[Gossip]
	self Member
	meta []byte
	// entries are the live members by memberlist's name, this one not among them, as its callbacks
	// told: what its own Members gives may change under the reader.
	entries map[string]entry
	foreign map[string]string // memberlist name → its cluster: known to be another one
	left    bool
	closed  bool
}

// gossipUpdating is the class of a Gossip's updating.
type gossipUpdating struct{}

// entry is one process that gossips.
type entry struct {
	Member
	started int64
}

// Start begins to gossip. It does not wait for others: finding them goes on in the background.
func Start(cfg Config) (*Gossip, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Gossip{
		cfg: cfg, log: cfg.Logger, started: time.Now().UnixMilli(), self: cfg.Self,
		changed: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		entries: make(map[string]entry), foreign: make(map[string]string),
	}
	var err error
	if g.meta, err = encodeMeta(cfg.Self, g.started); err != nil {
		return nil, err
	}
	mc, err := g.memberlistConfig()
	if err != nil {
		return nil, err
	}
	if g.list, err = memberlist.Create(mc); err != nil {
		return nil, fmt.Errorf("membership: %w", err)
	}
	// Not with the lock held: memberlist calls back with its own, which this takes, and others may
	// be joining already.
	addr := g.list.LocalNode().Address()
	g.mu.Lock()
	g.addr = addr
	g.mu.Unlock()
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.wg.Go(g.joinLoop)
	g.log.Info("gossip started", "addr", g.Addr())
	return g, nil
}

// memberlistConfig is tuned for nodes within a few milliseconds of each other: three
// nodes notice a dead one after about three seconds. Fast failover does not wait for it.
func (g *Gossip) memberlistConfig() (*memberlist.Config, error) {
	mc := memberlist.DefaultLANConfig()
	host, port, err := resolve(g.cfg.BindAddr)
	if err != nil {
		return nil, fmt.Errorf("membership: bind address: %w", err)
	}
	mc.BindAddr, mc.BindPort = host, port
	mc.AdvertisePort = port
	if g.cfg.AdvertiseAddr != "" {
		if mc.AdvertiseAddr, mc.AdvertisePort, err = resolve(g.cfg.AdvertiseAddr); err != nil {
			return nil, fmt.Errorf("membership: advertise address: %w", err)
		}
	}
	// The name is new with every process. Under the old one the others still know the process
	// before, until they notice that it is gone: they would take this one for it, at its old
	// address.
	var boot [4]byte
	_, _ = rand.Read(boot[:]) // never fails
	g.name = g.cfg.Self.Identity + "/" + hex.EncodeToString(boot[:])
	mc.Name = g.name
	mc.Transport = g.cfg.Transport
	mc.Label = label
	if err := g.useKeys(mc); err != nil {
		return nil, err
	}
	mc.Logger = newLogAdapter(g.log)
	// Nobody waits for gossip to notice who is gone (cluster/liveness), and each packet costs: it
	// wakes both nodes, and memberlist takes 64 KiB of memory for one that it reads.
	mc.ProbeInterval = time.Second
	mc.ProbeTimeout = 500 * time.Millisecond
	mc.SuspicionMaxTimeoutMult = 3
	mc.GossipInterval = 200 * time.Millisecond
	// Packets are a few dozen bytes, and the compressor takes more memory for each than all else
	// that an idle node does. What others compress is understood.
	mc.EnableCompression = false
	mc.PushPullInterval = 10 * time.Second
	mc.TCPTimeout = 3 * time.Second
	mc.DeadNodeReclaimTime = time.Second
	mc.Delegate = (*delegate)(g)
	mc.Events = (*events)(g)
	mc.Alive = (*gate)(g)
	return mc, nil
}

// resolve gives the IP address and port that memberlist wants for host:port.
func resolve(addr string) (string, int, error) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port of %q: %w", addr, err)
	}
	if host == "" {
		return "0.0.0.0", int(port), nil
	}
	if ip := net.ParseIP(host); ip != nil {
		return ip.String(), int(port), nil
	}
	ip, err := net.ResolveIPAddr("ip", host)
	if err != nil {
		return "", 0, err
	}
	return ip.IP.String(), int(port), nil
}

// Addr is the gossip address that others are told, host:port.
func (g *Gossip) Addr() string { return g.addr }

// Members lists the nodes that are alive as far as is known here, this one included,
// by identity. Nodes that are known to belong to another cluster are not among them; nodes that
// belong to none yet are. Of two processes with one identity the later started one is given.
func (g *Gossip) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	found := map[string]entry{}
	for name, e := range g.entries {
		if g.foreign[name] != "" || g.isForeign(e.Member) {
			continue
		}
		if old, ok := found[e.Identity]; !ok || e.started > old.started {
			found[e.Identity] = e
		}
	}
	// What this node says about itself needs no gossip.
	self := g.self
	self.GossipAddr = g.addr
	found[self.Identity] = entry{Member: self}
	out := make([]Member, 0, len(found))
	for _, e := range found {
		out = append(out, e.Member)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Identity < out[j].Identity })
	return out
}

// Twins are where other processes listen for nodes that gossip under this node's identity. The
// process before this one may be taken for alive for some seconds, and anybody can say that he is
// this node.
func (g *Gossip) Twins() (peerAddrs []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, e := range g.entries {
		if e.Identity == g.self.Identity && g.foreign[name] == "" && e.PeerAddr != "" {
			peerAddrs = append(peerAddrs, e.PeerAddr)
		}
	}
	slices.Sort(peerAddrs)
	return slices.Compact(peerAddrs)
}

// manyAddrs is how many processes of one identity there are only where somebody makes them up.
const manyAddrs = 4

// PeerAddrs are where processes listen for nodes that gossip under that identity, the latest start
// first. Anybody can say that he is that node; where many do the order is by chance, so that the
// right one comes to the front again and again.
func (g *Gossip) PeerAddrs(identity string) (addrs []string) {
	var found []entry
	g.mu.Lock()
	for name, e := range g.entries {
		if e.Identity == identity && e.PeerAddr != "" && g.foreign[name] == "" && !g.isForeign(e.Member) {
			found = append(found, e)
		}
	}
	g.mu.Unlock()
	slices.SortFunc(found, func(a, b entry) int { return cmp.Compare(b.started, a.started) })
	if len(found) > manyAddrs {
		mathrand.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
	}
	for _, e := range found {
		addrs = append(addrs, e.PeerAddr)
	}
	return addrs
}

// isForeign is called with mu held.
func (g *Gossip) isForeign(m Member) bool {
	return m.ClusterID != "" && g.self.ClusterID != "" && m.ClusterID != g.self.ClusterID
}

// Changed ticks when Members may have changed since the last tick was taken. It
// holds one tick, so it is for one listener and misses nothing.
func (g *Gossip) Changed() <-chan struct{} { return g.changed }

// Update changes what the others are told about this node. Identity must stay. An error
// means that it does not fit; the others go on knowing what was said before.
func (g *Gossip) Update(self Member) error {
	g.updating.Lock()
	defer g.updating.Unlock()
	// Memberlist drops the news, and never says so, when it refutes at that moment that this node
	// is suspected.
	var err error
	for range updateTries {
		if err = g.update(self, updateTimeout, false); err == nil {
			break
		}
	}
	return err
}

const (
	// updateTimeout is more than the broadcast of what this node says takes while others are there.
	updateTimeout = time.Second
	updateTries   = 3
)

// update is called with updating held; it waits for the broadcast for as long as timeout, which is
// above 0: else memberlist may wait for ever. After Leave nobody is told anything more.
func (g *Gossip) update(self Member, timeout time.Duration, leaving bool) error {
	g.mu.Lock()
	self.Leaving = g.left
	meta, err := encodeMeta(self, g.started)
	if err == nil && self.Identity != g.self.Identity {
		err = fmt.Errorf("membership: identity cannot change from %q to %q", g.self.Identity, self.Identity)
	}
	if err != nil {
		g.mu.Unlock()
		return err
	}
	g.self, g.meta = self, meta
	over := g.closed || g.left && !leaving
	g.mu.Unlock()
	g.tick()
	if over {
		return nil
	}
	locks.MayWait("gossip")
	if err := g.list.UpdateNode(timeout); err != nil {
		return fmt.Errorf("membership: %w", err)
	}
	return nil
}

// Leave tells the others that this node stops on purpose, so that they see it leave and
// not fail; it waits at most timeout for the word to get out. Close must follow.
func (g *Gossip) Leave(timeout time.Duration) error {
	g.updating.Lock()
	defer g.updating.Unlock()
	g.mu.Lock()
	if g.left || g.closed {
		g.mu.Unlock()
		return nil
	}
	g.left = true
	self := g.self
	alone := len(g.entries) == 0
	g.mu.Unlock()
	if alone {
		return nil
	}
	// First that it is going to leave, then that it has left: memberlist's second message does not
	// tell its receivers' callbacks whether a node left or failed.
	if err := g.update(self, max(timeout/2, time.Millisecond), true); err != nil {
		g.log.Debug("gossip: not everyone was told of leaving", "error", err)
	}
	locks.MayWait("gossip")
	if err := g.list.Leave(max(timeout/2, time.Millisecond)); err != nil {
		return fmt.Errorf("membership: leave: %w", err)
	}
	return nil
}

// Close stops gossiping. To others a node that closes without Leave has failed.
func (g *Gossip) Close() error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return nil
	}
	g.closed = true
	g.mu.Unlock()
	g.cancel()
	err := g.list.Shutdown()
	g.wg.Wait()
	if err != nil {
		return errors.Join(errors.New("membership: close"), err)
	}
	return nil
}

func (g *Gossip) tick() {
	for _, c := range []chan struct{}{g.changed, g.wake} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
