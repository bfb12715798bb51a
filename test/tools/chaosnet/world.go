package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/trimaran-io/trimaran/test/harness/hostnet"
)

const (
	clientPort = 9092
	peerPort   = 9192
	gossipPort = 9292
	clientHost = "c"
)

// world is the hosts, their network, and what is running.
type world struct {
	o       options
	out     io.Writer
	began   time.Time
	dir     string
	program string
	net     *hostnet.Network
	dice    *rand.Rand // of disturb alone

	mu    sync.Mutex // guards hosts' list and out
	hosts []*host    // those that are, or are to be, members

	counts map[string]int // of faults, by kind; disturb's own
	gone   []*host        // hosts whose node has left
}

// host is one machine with one node.
type host struct {
	w    *world
	id   string
	addr netip.Addr
	disk *disk
	proc *harness.Process
}

func (h *host) client() string { return fmt.Sprintf("%s:%d", h.addr, clientPort) }

func newWorld(o options, out io.Writer) (*world, error) {
	w := &world{o: o, out: out, dice: rand.New(rand.NewPCG(o.seed, 1)), counts: map[string]int{}}
	if os.Geteuid() != 0 {
		return w, fmt.Errorf("%w: this needs root", hostnet.ErrUnable)
	}
	var err error
	if w.program, err = harness.Program("trimaran"); err != nil {
		return w, err
	}
	if w.dir, err = os.MkdirTemp("", "trimaran-chaosnet-"); err != nil {
		return w, err
	}
	w.began = time.Now()
	w.net = hostnet.New(fmt.Sprintf("trc%d", os.Getpid()), rand.New(rand.NewPCG(o.seed, 2)))
	return w, w.net.Plug(clientHost, hostAddr(200))
}

func hostAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 93, 18, byte(i)}) }

// say tells what happens, with the time since the start.
func (w *world) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(w.out, "  %6.1f s  %s\n", time.Since(w.began).Seconds(), fmt.Sprintf(format, args...))
}

// addHost makes one more host. Its node is not started.
func (w *world) addHost() error {
	w.mu.Lock()
	i := len(w.hosts) + len(w.gone) + 1
	w.mu.Unlock()
	h := &host{w: w, id: fmt.Sprintf("n%d", i), addr: hostAddr(i)}
	if err := w.net.Plug(h.id, h.addr); err != nil {
		return err
	}
	var err error
	if h.disk, err = newDisk(w.dir, h.id); err != nil {
		return err
	}
	logs := w.dir
	if w.o.keep != "" {
		logs = w.o.keep
		if err := os.MkdirAll(logs, 0o755); err != nil {
			return err
		}
	}
	h.proc = &harness.Process{Name: h.id, Path: "/usr/bin/env", Log: filepath.Join(logs, h.id+".log")}
	w.mu.Lock()
	w.hosts = append(w.hosts, h)
	w.mu.Unlock()
	return nil
}

// list gives the hosts that are there now.
func (w *world) list() []*host {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*host(nil), w.hosts...)
}

func (h *host) start() error {
	var join []string
	for _, other := range h.w.list() {
		if other != h {
			join = append(join, fmt.Sprintf("%s:%d", other.addr, gossipPort))
		}
	}
	at := func(port int) string { return fmt.Sprintf("%s:%d", h.addr, port) }
	// Not ip netns exec: that gives each its own copy of the mounts, which keeps the others' disks
	// from being unmounted.
	h.proc.Args = []string{"nsenter", "--net=/var/run/netns/" + h.w.net.NS(h.id), h.w.program, "serve", "--node-id", h.id,
		"--data", filepath.Join(h.disk.mount, "data"), "--bootstrap-expect", fmt.Sprint(h.w.o.nodes),
		"--listen", at(clientPort), "--peer-listen", at(peerPort), "--gossip-listen", at(gossipPort), "--join", strings.Join(join, ",")}
	return h.proc.Start()
}

// kill ends the node as kill -9 does; one that has ended already is as good.
func (h *host) kill() error {
	if !h.proc.Running() {
		return nil
	}
	if err := h.proc.Signal(syscall.SIGKILL); err != nil && h.proc.Running() {
		return err
	}
	// what hangs in a frozen file system ends when that thaws
	_, err := h.proc.Wait(60 * time.Second)
	return err
}

// dial connects from the clients' host.
func (w *world) dial(addr string, within time.Duration) (conn net.Conn, err error) {
	err = hostnet.Inside(w.net.NS(clientHost), func() error {
		conn, err = net.DialTimeout("tcp4", addr, within)
		return err
	})
	return conn, err
}

// get fetches a page of a node from the clients' host.
func (w *world) get(h *host, path string, within time.Duration) (body string, status int, err error) {
	client := http.Client{Timeout: within, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return w.dial(h.client(), within) },
	}}
	resp, err := client.Get("http://" + h.client() + path)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	return string(b), resp.StatusCode, err
}

// trimaran runs a command of the product on the clients' host, as an operator does.
func (w *world) trimaran(within time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	var brokers []string
	for _, h := range w.list() {
		brokers = append(brokers, h.client())
	}
	all := append([]string{"--net=/var/run/netns/" + w.net.NS(clientHost), w.program}, args...)
	out, err := exec.CommandContext(ctx, "nsenter", append(all, "--brokers", strings.Join(brokers, ","))...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("trimaran %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

func (w *world) ready(within time.Duration) error {
	var last error
	err := harness.Eventually(within, func() bool {
		for _, h := range w.list() {
			body, status, err := w.get(h, "/readyz", 2*time.Second)
			if err != nil || status != http.StatusOK {
				last = fmt.Errorf("%s: %d %s %v", h.id, status, strings.TrimSpace(body), err)
				return false
			}
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("the nodes are not ready: %w", last)
	}
	return nil
}

func (w *world) createTopic(name string, partitions int) error {
	_, err := w.trimaran(60*time.Second, "topic", "create", name, "--partitions", fmt.Sprint(partitions), "--replication-factor", "3")
	return err
}

// settled returns when all nodes are ready, every partition takes records, and the cluster
// says that nothing is missing.
func (w *world) settled(within time.Duration, h *history) error {
	began := time.Now()
	if err := w.ready(within); err != nil {
		return err
	}
	since := h.acknowledgedEach()
	var last string
	err := harness.Eventually(within-time.Since(began), func() bool {
		for p, n := range h.acknowledgedEach() {
			if n < since[p]+5 {
				last = fmt.Sprintf("partition %d takes no records", p)
				return false
			}
		}
		s, err := w.status()
		if err != nil {
			last = err.Error()
			return false
		}
		last = s.missing()
		return last == ""
	})
	if err != nil {
		return fmt.Errorf("the cluster has not recovered %s after the last fault: %s", within, last)
	}
	w.say("recovered %.1f s after the last fault", time.Since(began).Seconds())
	return nil
}

type clusterStatus struct {
	Topics []struct {
		Name       string `json:"name"`
		Partitions []struct {
			Leader   string `json:"leader"`
			Replicas []struct {
				Role string `json:"role"`
			} `json:"replicas"`
		} `json:"partitions"`
	} `json:"topics"`
}

func (w *world) status() (*clusterStatus, error) {
	out, err := w.trimaran(20*time.Second, "cluster", "status", "--json")
	if err != nil {
		return nil, err
	}
	s := new(clusterStatus)
	return s, json.Unmarshal([]byte(out), s)
}

// missing says what is not as it should be, "" for nothing.
func (s *clusterStatus) missing() string {
	for _, t := range s.Topics {
		for i, p := range t.Partitions {
			if p.Leader == "" {
				return fmt.Sprintf("%s-%d has no leader", t.Name, i)
			}
			for _, r := range p.Replicas {
				if r.Role != "leader" && r.Role != "follower" {
					return fmt.Sprintf("%s-%d has a replica that is %s", t.Name, i, r.Role)
				}
			}
		}
	}
	if len(s.Topics) == 0 {
		return "no topic is listed"
	}
	return ""
}

// heal undoes what may be left of faults.
func (w *world) heal() error {
	var errs []error
	for _, h := range w.list() {
		if !h.proc.Running() {
			errs = append(errs, h.start())
		}
	}
	return errors.Join(errs...)
}

// complaints gives what no node may have written to its log.
func (w *world) complaints() (list []string) {
	for _, h := range append(w.list(), w.gone...) {
		if c := h.proc.Complaint(); c != "" {
			list = append(list, h.id+": "+c)
		}
	}
	return list
}

func (w *world) close() {
	for _, h := range append(w.list(), w.gone...) {
		if h.proc != nil && h.proc.Running() {
			_ = h.proc.Signal(syscall.SIGCONT)
			_ = h.proc.Signal(syscall.SIGKILL)
			_, _ = h.proc.Wait(10 * time.Second)
		}
		if h.disk != nil {
			_ = h.disk.unhang()
			_ = h.disk.detach()
		}
	}
	if w.net != nil {
		w.net.Close()
	}
	if w.dir != "" {
		os.RemoveAll(w.dir)
	}
}
