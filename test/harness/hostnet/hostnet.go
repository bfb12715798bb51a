// Package hostnet gives a test hosts of its own: network namespaces whose links go through this
// process, which cuts, loses, delays, reorders and resets what it is told to (Rule).
//
// A packet that is lost is gone, as with a drawn cable: nobody is told, and established connections
// learn it as they do on real networks. Nothing of the machine's own network is touched.
//
// You are here: below the tools that break networks. It knows addresses and packets, and nothing of
// the product.
package hostnet

import (
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnable means that this machine does not give what is needed: root, namespaces, TUN devices.
var ErrUnable = errors.New("not possible here")

// Network is a router in this process: each host has a TUN device, and what it sends is read
// here and written to the device of the host that it is for, late, or not at all, as the rules say.
type Network struct {
	prefix string // of the namespaces' names

	mu    sync.Mutex // guards what follows; held for no write to a device
	ports map[netip.Addr]*port
	rules []*Rule
	dice  *rand.Rand
	late  packets // a heap, by time
	wake  chan struct{}
	ended bool

	wg sync.WaitGroup
}

// port is one host's device.
type port struct {
	addr   netip.Addr
	ns     string
	device *os.File
	lines  chan []byte // what is to be written to it
}

// Rule is one fault of the network. The zero netip.Addr stands for any host.
type Rule struct {
	From, To netip.Addr
	Port     uint16  // TCP or UDP port, of either side; 0: any
	Lose     float64 // share of the packets that are gone; 1 is a cut
	Least    time.Duration
	Most     time.Duration // delay, rolled for each packet: so they overtake each other
	Reset    float64       // share of the TCP packets whose sender is answered with RST
}

func (r *Rule) covers(from, to netip.Addr, a, b uint16) bool {
	return (!r.From.IsValid() || r.From == from) && (!r.To.IsValid() || r.To == to) && (r.Port == 0 || r.Port == a || r.Port == b)
}

// New makes one without hosts. prefix begins the names of its namespaces, which nobody else may
// use; dice say which packets are lost and how long one takes.
func New(prefix string, dice *rand.Rand) *Network {
	n := &Network{prefix: prefix, ports: map[netip.Addr]*port{}, dice: dice, wake: make(chan struct{}, 1)}
	n.wg.Go(n.deliverLate)
	return n
}

// NS is the name of a host's namespace, as ip netns has it.
func (n *Network) NS(name string) string { return n.prefix + "-" + name }

// Inside runs f on a thread that is in a namespace. Sockets and devices that f opens stay there.
func Inside(ns string, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	other, err := os.Open("/var/run/netns/" + ns)
	if err != nil {
		return err
	}
	defer other.Close()
	if err := unix.Setns(int(other.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	failed := f()
	if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
		panic(err) // the thread would be lost to this process
	}
	return failed
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// Plug makes a host: a namespace with a TUN device, in a network of 255 hosts (/24). The error
// wraps ErrUnable.
func (n *Network) Plug(name string, addr netip.Addr) error {
	ns := n.NS(name)
	if err := ip("netns", "add", ns); err != nil {
		return fmt.Errorf("%w: %w", ErrUnable, err)
	}
	return n.plug(ns, addr, func(f func() error) error { return Inside(ns, f) })
}

// PlugHere makes this process' own namespace a host. It must be one that nobody else is in, see
// Own.
func (n *Network) PlugHere(addr netip.Addr) error {
	return n.plug("", addr, func(f func() error) error { return f() })
}

// plug gives the host a device. ns is "" for this process' own.
func (n *Network) plug(ns string, addr netip.Addr, there func(func() error) error) error {
	p := &port{addr: addr, ns: ns, lines: make(chan []byte, 4096)}
	err := there(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		ifr, err := unix.NewIfreq("tun0")
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			unix.Close(fd)
			return err
		}
		p.device = os.NewFile(uintptr(fd), "tun")
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w: a TUN device: %w", ErrUnable, err)
	}
	for _, step := range [][]string{
		{"addr", "add", addr.String() + "/24", "dev", "tun0"},
		{"link", "set", "tun0", "mtu", "9000", "up"},
		{"link", "set", "lo", "up"},
	} {
		if ns != "" {
			step = append([]string{"-n", ns}, step...)
		}
		if err := ip(step...); err != nil {
			return fmt.Errorf("%w: %w", ErrUnable, err)
		}
	}
	n.mu.Lock()
	n.ports[addr] = p
	n.mu.Unlock()
	n.wg.Go(func() { n.read(p) })
	n.wg.Go(func() {
		for packet := range p.lines {
			_, _ = p.device.Write(packet) // an interface that is down loses it, as it should
		}
	})
	return nil
}

// Close takes everything down.
func (n *Network) Close() {
	n.mu.Lock()
	n.ended = true
	ports := n.ports
	n.ports = map[netip.Addr]*port{}
	n.mu.Unlock()
	n.nudge()
	for _, p := range ports {
		p.device.Close()
		close(p.lines)
	}
	n.wg.Wait()
	for _, p := range ports {
		if p.ns != "" {
			_ = ip("netns", "del", p.ns)
		}
	}
}

func (n *Network) nudge() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Apply adds a fault; the function ends it.
func (n *Network) Apply(rules ...*Rule) (end func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rules = append(n.rules, rules...)
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		var left []*Rule
		for _, r := range n.rules {
			mine := false
			for _, m := range rules {
				mine = mine || m == r
			}
			if !mine {
				left = append(left, r)
			}
		}
		n.rules = left
	}
}

func (n *Network) read(p *port) {
	buffer := make([]byte, 1<<16)
	for {
		size, err := p.device.Read(buffer)
		if err != nil {
			return
		}
		if size >= 20 && buffer[0]>>4 == 4 {
			n.route(p, append([]byte(nil), buffer[:size]...))
		}
	}
}

const (
	protocolTCP = 6
	protocolUDP = 17
)

// route decides what becomes of a packet.
func (n *Network) route(from *port, packet []byte) {
	src, _ := netip.AddrFromSlice(packet[12:16])
	dst, _ := netip.AddrFromSlice(packet[16:20])
	head := int(packet[0]&15) * 4
	var a, b uint16
	tcp := packet[9] == protocolTCP && len(packet) >= head+20
	if tcp || packet[9] == protocolUDP && len(packet) >= head+8 {
		a, b = binary.BigEndian.Uint16(packet[head:]), binary.BigEndian.Uint16(packet[head+2:])
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	to := n.ports[dst]
	if to == nil || n.ended {
		return
	}
	var delay time.Duration
	for _, r := range n.rules {
		if !r.covers(src, dst, a, b) {
			continue
		}
		if r.Lose > 0 && n.dice.Float64() < r.Lose {
			return
		}
		if tcp && r.Reset > 0 && packet[head+13]&tcpRST == 0 && n.dice.Float64() < r.Reset {
			send(from, resetOf(packet, head))
			return
		}
		if r.Most > 0 {
			delay += r.Least + time.Duration(n.dice.Int64N(int64(r.Most-r.Least)+1))
		}
	}
	if delay == 0 {
		send(to, packet)
		return
	}
	heap.Push(&n.late, latePacket{time.Now().Add(delay), to, packet})
	n.nudge()
}

// send gives a packet to a device; one that does not take them fast enough loses it, as a queue
// does. The caller holds the network's mutex, so lines is not closed.
func send(to *port, packet []byte) {
	select {
	case to.lines <- packet:
	default:
	}
}

type latePacket struct {
	at     time.Time
	to     *port
	packet []byte
}

type packets []latePacket

func (p packets) Len() int           { return len(p) }
func (p packets) Less(i, j int) bool { return p[i].at.Before(p[j].at) }
func (p packets) Swap(i, j int)      { p[i], p[j] = p[j], p[i] }
func (p *packets) Push(x any)        { *p = append(*p, x.(latePacket)) }
func (p *packets) Pop() any {
	old := *p
	last := old[len(old)-1]
	old[len(old)-1] = latePacket{}
	*p = old[:len(old)-1]
	return last
}

func (n *Network) deliverLate() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		n.mu.Lock()
		if n.ended {
			n.mu.Unlock()
			return
		}
		next := time.Hour
		for len(n.late) > 0 {
			if next = time.Until(n.late[0].at); next > 0 {
				break
			}
			p := heap.Pop(&n.late).(latePacket)
			if n.ports[p.to.addr] == p.to {
				send(p.to, p.packet)
			}
			next = time.Hour
		}
		n.mu.Unlock()
		timer.Reset(next)
		select {
		case <-timer.C:
		case <-n.wake:
		}
	}
}

const (
	tcpRST = 4
	tcpACK = 16
)

// resetOf makes the RST that the receiver of a TCP packet could have sent (RFC 9293, 3.5.2).
func resetOf(packet []byte, head int) []byte {
	out := make([]byte, 40)
	out[0], out[8], out[9] = 0x45, 64, protocolTCP
	binary.BigEndian.PutUint16(out[2:], 40)
	copy(out[12:16], packet[16:20])
	copy(out[16:20], packet[12:16])
	tcp := out[20:]
	copy(tcp[0:2], packet[head+2:head+4])
	copy(tcp[2:4], packet[head:head+2])
	flags := packet[head+13]
	data := len(packet) - head - int(packet[head+12]>>4)*4
	ack := binary.BigEndian.Uint32(packet[head+4:]) + uint32(max(data, 0))
	if flags&3 != 0 { // SYN and FIN take a number
		ack++
	}
	copy(tcp[4:8], packet[head+8:head+12]) // its acknowledgement is our sequence number
	binary.BigEndian.PutUint32(tcp[8:], ack)
	tcp[12], tcp[13] = 5<<4, tcpRST|tcpACK
	binary.BigEndian.PutUint16(out[10:], checksum(out[:20], 0))
	var pseudo uint32
	for i := 12; i < 20; i += 2 {
		pseudo += uint32(binary.BigEndian.Uint16(out[i:]))
	}
	pseudo += protocolTCP + 20
	binary.BigEndian.PutUint16(tcp[16:], checksum(tcp, pseudo))
	return out
}

// checksum is that of IP and TCP (RFC 1071).
func checksum(b []byte, sum uint32) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
