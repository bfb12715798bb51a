package faults

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/trimaran-io/trimaran/test/harness"
)

// hosts are network namespaces on one switch, which is a namespace of its own: three for nodes and
// one for the clients. Nothing of the machine's own network is touched.
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

// A cut is made at a port of the switch. Nothing is refused or reset, packets are gone, as when a
// cable is drawn.
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

// TestCutsBetweenHosts needs root and network namespaces. It runs itself again on the clients'
// host.
func TestCutsBetweenHosts(t *testing.T) { onHosts(t, cutsBetweenHosts) }

// onHosts runs a test on the clients' host, where it calls work.
func onHosts(t *testing.T, work func(*testing.T, *hosts)) {
	if name := os.Getenv(insideEnv); name != "" {
		work(t, &hosts{t: t, name: name})
		return
	}
	t.Parallel()
	h, err := newHosts(t, fmt.Sprintf("tri%d%c", os.Getpid(), 'a'+hostsMade.Add(1)))
	if err != nil {
		t.Skipf("skipped: no network namespaces here: %v", err)
	}
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command("ip", "netns", "exec", h.ns("n9"), self, "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "8m")
	cmd.Env = append(os.Environ(), insideEnv+"="+h.name)
	out, err := cmd.CombinedOutput()
	t.Logf("on the clients' host:\n%s", out)
	must(t, err)
}

var hostsMade atomic.Int32

// TestAskFromItsOwnHost is the other half of TestCutsBetweenHosts: one produce to a node that is
// cut off.
func TestAskFromItsOwnHost(t *testing.T) {
	addr := os.Getenv(askEnv)
	if addr == "" {
		t.Skip("run by TestCutsBetweenHosts")
	}
	start := time.Now()
	w, err := harness.DialWire(addr)
	if err == nil {
		defer w.Close()
		w.Conn.SetDeadline(time.Now().Add(patience))
		_, err = w.Produce("hosts", 0, -1, "asked on the host of a node that is cut off")
	}
	took := time.Since(start)
	fmt.Printf("ANSWER %v after %v\n", err, took.Round(time.Millisecond))
	if took > 30*time.Second { // three times what the node was given
		t.Errorf("it took %v", took)
	}
}

// startNodes starts a node on each of three hosts and gives their addresses.
func (h *hosts) startNodes(t *testing.T) (addrs []string) {
	program, err := harness.Program("trimaran")
	must(t, err)
	dir := t.TempDir()
	for i := 1; i <= 3; i++ {
		id := fmt.Sprintf("n%d", i)
		start(t, &harness.Process{
			Name: id, Path: "/usr/bin/env", Log: filepath.Join(dir, id+".log"),
			Args: []string{"ip", "netns", "exec", h.ns(id), program, "serve", "--node-id", id, "--data", filepath.Join(dir, id), "--bootstrap-expect", "3",
				"--listen", address(i) + ":9092", "--peer-listen", address(i) + ":9192", "--gossip-listen", address(i) + ":9292",
				"--join", address(1) + ":9292," + address(2) + ":9292"},
		})
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
	return addrs
}

func start(t *testing.T, p *harness.Process) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s:\n%s", p.Name, p.Tail(40))
		}
		_ = p.Kill9()
	})
	must(t, p.Start())
}

func cutsBetweenHosts(t *testing.T, h *hosts) {
	addrs := h.startNodes(t)
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

// askCutOff produces on the host of a node that is cut off: the answer is an error that clients try
// again after, and comes in time.
func (h *hosts) askCutOff(t *testing.T, node, addr string) {
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command("ip", "netns", "exec", h.ns(node), self, "-test.run", "^TestAskFromItsOwnHost$", "-test.v")
	cmd.Env = append(os.Environ(), askEnv+"="+addr)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	_, answer, _ := strings.Cut(string(out), "ANSWER ")
	answer, _, _ = strings.Cut(answer, "\n")
	t.Logf("%s, cut off, answers a produce on its own host: %s", node, answer)
	// The end of the connection; until the node has noticed also NOT_LEADER_FOR_PARTITION,
	// LEADER_NOT_AVAILABLE or REQUEST_TIMED_OUT.
	if answer == "" || strings.HasPrefix(answer, "<nil>") || strings.HasPrefix(answer, "error code ") && !slices.Contains([]string{"5", "6", "7"}, strings.Fields(answer)[2]) {
		t.Errorf("that is no answer that a client would try again after:\n%s", out)
	}
}

// sever loses what two hosts send each other, and nothing else: each takes the other one for a
// machine that is not there.
func (h *hosts) sever(a, b int, on bool) {
	h.t.Helper()
	for _, way := range [][2]int{{a, b}, {b, a}} {
		entry := []string{"-n", h.ns(fmt.Sprintf("n%d", way[0])), "neigh"}
		if on {
			entry = append(entry, "replace", address(way[1]), "lladdr", "02:00:00:00:00:99", "dev", "eth0", "nud", "permanent")
		} else {
			entry = append(entry, "del", address(way[1]), "dev", "eth0")
		}
		if err := h.ip(entry...); err != nil {
			h.t.Fatal(err)
		}
	}
}

// TestClientsBesideLinksThatAreCut: clients reach every node all the time. While a node does not
// reach the others, clients behind the shim and one that knows all nodes go on at these. While two
// nodes do not reach each other, clients of both go on where they are.
func TestClientsBesideLinksThatAreCut(t *testing.T) {
	onHosts(t, func(t *testing.T, h *hosts) {
		addrs := h.startNodes(t)
		must(t, harness.CreateTopic(t.Context(), addrs[0], "hosts", 6, 3))
		must(t, harness.CreateTopic(t.Context(), addrs[0], "direct", 3, 3))
		program, err := harness.Program("trimaran-shim")
		must(t, err)
		shim := "127.0.0.1:9092"
		start(t, &harness.Process{Name: "shim", Path: program, Log: filepath.Join(t.TempDir(), "shim.log"),
			Args: []string{"--listen", shim, "--gateways", "ws://" + strings.Join(addrs, ",ws://"), "--metrics-listen", "127.0.0.1:9080"}})
		must(t, harness.Eventually(patience, func() bool {
			page, _, err := harness.Get("http://127.0.0.1:9080/metrics")
			return err == nil && strings.Count(page, "trimaran_shim_gateway_serving{") == 3 && strings.Count(page, "} 1\n") >= 6
		}))
		behind := harness.StartLoad("hosts", 6, []string{shim}, -1)
		defer behind.Stop()
		must(t, behind.Progress(20, patience))

		for cut := 1; cut <= 3; cut++ {
			client, err := kgo.NewClient(kgo.SeedBrokers(append(addrs[cut-1:cut:cut], addrs...)...), kgo.DefaultProduceTopic("direct"), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
			must(t, err)
			produce := func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				must(t, client.ProduceSync(ctx, &kgo.Record{Value: []byte("a")}).FirstErr())
			}
			produce()
			for _, other := range []int{1, 2, 3} {
				if other != cut {
					h.sever(cut, other, true)
				}
			}
			behind.ForgetSilence()
			began := time.Now()
			for range 9 {
				produce()
			}
			direct := time.Since(began)
			must(t, behind.Progress(50, patience))
			t.Logf("n%d cut off: longest silence of a partition behind the shim %v; 9 produces of a client that knows all nodes took %v", cut, behind.Silence().Round(time.Millisecond), direct.Round(time.Millisecond))
			client.Close()
			for _, other := range []int{1, 2, 3} {
				if other != cut {
					h.sever(cut, other, false)
				}
			}
			must(t, harness.Eventually(patience, func() bool {
				_, status, err := harness.Get("http://" + addrs[cut-1] + "/readyz")
				return err == nil && status == 200
			}))
			must(t, behind.Progress(20, patience))
		}
		for cut := 1; cut <= 3; cut++ {
			a, b := cut, cut%3+1
			loads := []*harness.Load{harness.StartLoad("direct", 3, addrs[a-1:a], -1), harness.StartLoad("direct", 3, addrs[b-1:b], -1)}
			for _, l := range loads {
				must(t, l.Progress(10, patience))
			}
			h.sever(a, b, true)
			for _, l := range loads {
				l.ForgetSilence()
				must(t, l.Progress(50, patience))
				t.Logf("n%d and n%d do not reach each other: longest silence of a partition %v", a, b, l.Silence().Round(time.Millisecond))
			}
			h.sever(a, b, false)
			for _, l := range loads {
				must(t, l.Stop())
			}
			must(t, behind.Progress(20, patience))
		}
		must(t, behind.Stop())
		must(t, behind.Verify(addrs[0], patience))
	})
}
