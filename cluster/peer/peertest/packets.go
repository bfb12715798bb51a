package peertest

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// packetBacklog is how many packets wait for a reader; the next ones are lost, as UDP's are.
const packetBacklog = 256

// Gossip gives node a transport of memberlist at addr, an IP address and a port that nobody else
// has. Streams and packets meet the same faults as other connections; a packet that meets a cut is
// lost and not held back.
func (n *Network) Gossip(node, addr string) (memberlist.Transport, error) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(portText)
	if err != nil || net.ParseIP(host) == nil {
		return nil, fmt.Errorf("peertest: %q is not an IP address and a port", addr)
	}
	l, err := n.Listen(node, addr)
	if err != nil {
		return nil, err
	}
	g := &gossip{
		net: n, node: node, addr: addr, ip: net.ParseIP(host), port: port, listener: l,
		packets: make(chan *memberlist.Packet, packetBacklog), streams: make(chan net.Conn), closed: make(chan struct{}),
	}
	n.mu.Lock()
	n.gossips[addr] = g
	n.mu.Unlock()
	g.accepting.Go(g.accept)
	return g, nil
}

type gossip struct {
	net       *Network
	node      string
	addr      string
	ip        net.IP
	port      int
	listener  net.Listener
	packets   chan *memberlist.Packet
	streams   chan net.Conn
	accepting sync.WaitGroup
	once      sync.Once
	closed    chan struct{}
}

func (g *gossip) accept() {
	for {
		c, err := g.listener.Accept()
		if err != nil {
			return
		}
		select {
		case g.streams <- c:
		case <-g.closed:
			_ = c.Close()
			return
		}
	}
}

func (g *gossip) FinalAdvertiseAddr(string, int) (net.IP, int, error) { return g.ip, g.port, nil }

func (g *gossip) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	g.net.mu.Lock()
	defer g.net.mu.Unlock()
	to := g.net.gossips[addr]
	if to == nil || g.net.refuse[to.node] || g.net.cut[way{g.node, to.node}] {
		return now, nil // who sends a packet does not learn what became of it
	}
	p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: address(g.addr), Timestamp: now}
	if d := g.net.latencyLocked(way{g.node, to.node}); d > 0 {
		time.AfterFunc(d, func() { p.Timestamp = time.Now(); to.take(p) })
	} else {
		to.take(p)
	}
	return now, nil
}

func (g *gossip) take(p *memberlist.Packet) {
	select {
	case g.packets <- p:
	default:
	}
}

func (g *gossip) PacketCh() <-chan *memberlist.Packet { return g.packets }
func (g *gossip) StreamCh() <-chan net.Conn           { return g.streams }

func (g *gossip) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c, err := g.net.Dial(g.node)(ctx, addr)
	if err != nil && ctx.Err() != nil {
		return nil, &net.OpError{Op: "dial", Net: "peertest", Addr: address(addr), Err: syscall.ETIMEDOUT}
	}
	return c, err
}

func (g *gossip) Shutdown() error {
	g.once.Do(func() {
		g.net.mu.Lock()
		delete(g.net.gossips, g.addr)
		g.net.mu.Unlock()
		close(g.closed)
		_ = g.listener.Close()
		g.accepting.Wait()
	})
	return nil
}
