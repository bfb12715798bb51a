package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// hosts are network namespaces on one switch, which is a namespace of its own: three for nodes and one for the
// clients. Nothing of the machine's own network is touched.
type hosts struct {
	t    testing.TB
	name string // of all namespaces, as a prefix
}

func (h *hosts) ns(host string) string { return h.name + "-" + host }

func (h *hosts) ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func address(node int) string { return fmt.Sprintf("10.93.17.%d", node) }

const clients = 9 // the host number of the clients

// newHosts makes the namespaces, or says why it cannot.
func newHosts(t testing.TB, name string) (*hosts, error) {
	h := &hosts{t: t, name: name}
	t.Cleanup(func() {
		for _, host := range []string{"n1", "n2", "n3", "n9", "sw"} {
			_ = exec.Command("ip", "netns", "del", h.ns(host)).Run()
		}
	})
	steps := [][]string{{"netns", "add", h.ns("sw")}, {"-n", h.ns("sw"), "link", "add", "br0", "type", "bridge"}, {"-n", h.ns("sw"), "link", "set", "br0", "up"}}
	for _, i := range []int{1, 2, 3, clients} {
		ns, port := h.ns(fmt.Sprintf("n%d", i)), fmt.Sprintf("p%d", i)
		steps = append(steps, []string{"netns", "add", ns},
			[]string{"-n", h.ns("sw"), "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", ns},
			[]string{"-n", h.ns("sw"), "link", "set", port, "master", "br0", "up"},
			[]string{"-n", ns, "addr", "add", address(i) + "/24", "dev", "eth0"},
			[]string{"-n", ns, "link", "set", "eth0", "up"},
			[]string{"-n", ns, "link", "set", "lo", "up"})
	}
	for _, step := range steps {
		if err := h.ip(step...); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// A cut is made at a port of the switch. Nothing is refused or reset, packets are gone, as when a cable is drawn.
type cut struct {
	what      string
	make, end [][]string
}

// drop is a queue that is too small for any packet.
func drop(ns, device string) (begin, end []string) {
	return []string{"netns", "exec", ns, "tc", "qdisc", "add", "dev", device, "root", "tbf", "rate", "8bit", "burst", "1", "latency", "1ms"},
		[]string{"netns", "exec", ns, "tc", "qdisc", "del", "dev", device, "root"}
}

func (h *hosts) cuts(node string) []cut {
	port := "p" + strings.TrimPrefix(node, "n")
	deaf, hears := drop(h.ns("sw"), port)
	mute, speaks := drop(h.ns(node), "eth0")
	return []cut{
		{"cut off", [][]string{{"-n", h.ns("sw"), "link", "set", port, "down"}}, [][]string{{"-n", h.ns("sw"), "link", "set", port, "up"}}},
		{"sends and hears nothing", [][]string{deaf}, [][]string{hears}},
		{"hears and sends nothing", [][]string{mute}, [][]string{speaks}},
	}
}

const (
	insideEnv = "TRIMARAN_TEST_HOSTS" // set in the process that runs on the clients' host
	askEnv    = "TRIMARAN_TEST_ASK"   // set in one that asks a node from its own host
)

// TestCutsBetweenHosts needs root and network namespaces. It runs itself again on the clients' host.
func TestCutsBetweenHosts(t *testing.T) {
	if name := os.Getenv(insideEnv); name != "" {
		cutsBetweenHosts(t, &hosts{t: t, name: name})
		return
	}
	t.Parallel()
	h, err := newHosts(t, fmt.Sprintf("tri%d", os.Getpid()))
	if err != nil {
		t.Skipf("skipped: no network namespaces here: %v", err)
	}
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command("ip", "netns", "exec", h.ns("n9"), self, "-test.run", "^TestCutsBetweenHosts$", "-test.v", "-test.timeout", "8m")
	cmd.Env = append(os.Environ(), insideEnv+"="+h.name)
	out, err := cmd.CombinedOutput()
	t.Logf("on the clients' host:\n%s", out)
	must(t, err)
}

// TestAskFromItsOwnHost is the other half of TestCutsBetweenHosts: one produce to a node that is cut off.
func TestAskFromItsOwnHost(t *testing.T) {
	addr := os.Getenv(askEnv)
	if addr == "" {
		t.Skip("run by TestCutsBetweenHosts")
	}
	w, err := harness.DialWire(addr)
	must(t, err)
	defer w.Close()
	w.Conn.SetDeadline(time.Now().Add(30 * time.Second))
	start := time.Now()
	_, err = w.Produce("hosts", 0, -1, "asked on the host of a node that is cut off")
	fmt.Printf("ANSWER %v after %v\n", err, time.Since(start).Round(time.Millisecond))
}

func cutsBetweenHosts(t *testing.T, h *hosts) {
	program, err := harness.Program("trimaran")
	must(t, err)
	dir := t.TempDir()
	var addrs []string
	processes := map[string]*harness.Process{}
	for i := 1; i <= 3; i++ {
		id := fmt.Sprintf("n%d", i)
		p := &harness.Process{
			Name: id, Path: "/usr/bin/env", Log: filepath.Join(dir, id+".log"),
			Args: []string{"ip", "netns", "exec", h.ns(id), program, "serve", "--node-id", id, "--data", filepath.Join(dir, id), "--bootstrap-expect", "3",
				"--listen", address(i) + ":9092", "--peer-listen", address(i) + ":9192", "--gossip-listen", address(i) + ":9292",
				"--join", address(1) + ":9292," + address(2) + ":9292"},
		}
		processes[id] = p
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("%s:\n%s", p.Name, p.Tail(40))
			}
			_ = p.Kill9()
		})
		must(t, p.Start())
		addrs = append(addrs, address(i)+":9092")
	}
	must(t, harness.Eventually(patience, func() bool {
		for _, addr := range addrs {
			if _, status, err := harness.Get("http://" + addr + "/readyz"); err != nil || status != 200 {
				return false
			}
		}
		return true
	}))
	must(t, harness.CreateTopic(t.Context(), addrs[0], "hosts", 6, 3))
	l := harness.StartLoad("hosts", 6, addrs, -1)
	defer l.Stop()
	must(t, l.Progress(20, patience))
	for i, node := range []string{"n3", "n1", "n2"} {
		c := h.cuts(node)[i]
		for _, step := range c.make {
			must(t, h.ip(step...))
		}
		l.ForgetSilence()
		must(t, l.Progress(50, patience))
		t.Logf("%s %s: longest silence of a partition %v", node, c.what, l.Silence().Round(time.Millisecond))
		if i == 0 {
			h.askCutOff(t, node, addrs[2])
		}
		for _, step := range c.end {
			must(t, h.ip(step...))
		}
		must(t, l.Progress(20, patience))
		must(t, harness.Eventually(patience, func() bool {
			_, status, err := harness.Get("http://" + addrs[strings.Index("123", node[1:])] + "/readyz")
			return err == nil && status == 200
		}))
	}
	must(t, l.Stop())
	t.Log(l)
	for _, addr := range addrs {
		must(t, l.Verify(addr, patience))
	}
}

// askCutOff produces on the host of a node that is cut off: the answer is an error that clients try again after, and comes in time.
func (h *hosts) askCutOff(t *testing.T, node, addr string) {
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command("ip", "netns", "exec", h.ns(node), self, "-test.run", "^TestAskFromItsOwnHost$", "-test.v")
	cmd.Env = append(os.Environ(), askEnv+"="+addr)
	start := time.Now()
	out, err := cmd.CombinedOutput()
	must(t, err)
	_, answer, _ := strings.Cut(string(out), "ANSWER ")
	answer, _, _ = strings.Cut(answer, "\n")
	t.Logf("%s, cut off, answers a produce on its own host: %s", node, answer)
	// NOT_LEADER_FOR_PARTITION, LEADER_NOT_AVAILABLE or REQUEST_TIMED_OUT.
	if !strings.HasPrefix(answer, "error code 6 ") && !strings.HasPrefix(answer, "error code 5 ") && !strings.HasPrefix(answer, "error code 7 ") {
		t.Errorf("that is no answer that a client would try again after:\n%s", out)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}
