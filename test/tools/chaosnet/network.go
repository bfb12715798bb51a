package main

import (
	"container/heap"
	"encoding/binary"
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

// network is a router in this process: each host has a TUN device, and what it sends is read
// here and written to the device of the host that it is for, late, or not at all, as the rules say.
type network struct {
	prefix string // of the namespaces' names

	mu    sync.Mutex // guards what follows; held for no write to a device
	ports map[netip.Addr]*port
	rules []*rule
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

// rule is one fault of the network. The zero netip.Addr stands for any host.
type rule struct {
	from, to netip.Addr
	port     uint16  // TCP or UDP port, of either side; 0: any
	lose     float64 // share of the packets that are gone; 1 is a cut
	least    time.Duration
	most     time.Duration // delay, rolled for each packet: so they overtake each other
	reset    float64       // share of the TCP packets whose sender is answered with RST
}

func (r *rule) covers(from, to netip.Addr, a, b uint16) bool {
	return (!r.from.IsValid() || r.from == from) && (!r.to.IsValid() || r.to == to) && (r.port == 0 || r.port == a || r.port == b)
}

func newNetwork(prefix string, dice *rand.Rand) *network {
	n := &network{prefix: prefix, ports: map[netip.Addr]*port{}, dice: dice, wake: make(chan struct{}, 1)}
	n.wg.Go(n.deliverLate)
	return n
}

func (n *network) ns(name string) string { return n.prefix + "-" + name }

// inside runs f on a thread that is in a namespace. Sockets and devices that f opens stay there.
func inside(ns string, f func() error) error {
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

// plug makes a host: a namespace with a TUN device.
func (n *network) plug(name string, addr netip.Addr) error {
	ns := n.ns(name)
	if err := ip("netns", "add", ns); err != nil {
		return fmt.Errorf("%w: %w", errUnable, err)
	}
	p := &port{addr: addr, ns: ns, lines: make(chan []byte, 4096)}
	err := inside(ns, func() error {
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
		return fmt.Errorf("%w: a TUN device: %w", errUnable, err)
	}
	for _, step := range [][]string{
		{"addr", "add", addr.String() + "/24", "dev", "tun0"},
		{"link", "set", "tun0", "mtu", "9000", "up"},
		{"link", "set", "lo", "up"},
	} {
		if err := ip(append([]string{"-n", ns}, step...)...); err != nil {
			return fmt.Errorf("%w: %w", errUnable, err)
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

// close takes everything down.
func (n *network) close() {
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
		_ = ip("netns", "del", p.ns)
	}
}

func (n *network) nudge() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// apply adds a fault; the function ends it.
func (n *network) apply(rules ...*rule) (end func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rules = append(n.rules, rules...)
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		var left []*rule
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

func (n *network) read(p *port) {
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
func (n *network) route(from *port, packet []byte) {
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
		if r.lose > 0 && n.dice.Float64() < r.lose {
			return
		}
		if tcp && r.reset > 0 && packet[head+13]&tcpRST == 0 && n.dice.Float64() < r.reset {
			send(from, resetOf(packet, head))
			return
		}
		if r.most > 0 {
			delay += r.least + time.Duration(n.dice.Int64N(int64(r.most-r.least)+1))
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

func (n *network) deliverLate() {
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
