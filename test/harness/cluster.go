package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options say what Start starts.
type Options struct {
	Nodes      int      // 3 when 0
	Expect     int      // --bootstrap-expect; Nodes when 0
	Topics     string   // --topics, e.g. "events:3,one:1"
	NodeArgs   []string // further flags of every node, whose id stands where they say {node}
	ShimArgs   []string // further flags of the shim
	NoShim     bool
	NoWait     bool     // do not wait until the cluster serves
	Dir        string   // where data and logs go; a temporary folder when ""
	ShimTLS    bool     // the shim's gateways are wss://
	StartOrder []int    // node numbers from 1; 1, 2, 3 … when nil
	Env        []string // added to the nodes' environment
	Program    string   // the nodes' binary; the one of this tree when ""
	Hosts      []Host   // where nodes run, in their order; those behind the last one here

	// BySocket: tests come by the nodes' Unix sockets, where they are the super user. For nodes
	// whose clients have to log in.
	BySocket bool
}

// Host is a machine that a node runs on, such as a network namespace (package hostnet).
type Host struct {
	Addr  string   // IP address that the node listens on and others find it at
	Enter []string // command that runs a program there
}

// Cluster is a set of node processes and a shim.
type Cluster struct {
	Nodes []*Node
	Shim  *Process // nil with NoShim
	Dir   string

	options  Options
	shimPort int
	ownDir   bool
}

// Node is one `trimaran serve` process with its data directory and ports.
type Node struct {
	Process
	ID                   string
	Data                 string
	Client, Peer, Gossip int      // ports
	ExtraArgs            []string // further flags from the next Start on
	NoJoin               bool     // from the next Start on without --join
	Host                 string   // its IP address

	cluster *Cluster

	// ports is held while Client, Peer and Gossip change, and by those who ask for an address
	// beside that.
	ports sync.Mutex
}

// Addr is the node's client address.
func (n *Node) Addr() string {
	n.ports.Lock()
	defer n.ports.Unlock()
	return n.at(n.Client)
}

// at is a port of the node's.
func (n *Node) at(port int) string { return net.JoinHostPort(n.Host, strconv.Itoa(port)) }

// Socket is the node's Unix socket, as an address for DialWire and Seeds.
func (n *Node) Socket() string { return unixScheme + filepath.Join(n.Data, "trimaran.sock") }

// Driver is where a test itself reaches the node, see Options.BySocket.
func (n *Node) Driver() string {
	if n.cluster.options.BySocket {
		return n.Socket()
	}
	return n.Addr()
}

// WS is the node's address for WebSocket clients.
func (n *Node) WS() string { return "ws://" + n.Addr() }

// readyWithin is how long nodes that were started may take to serve: the race detector makes
// everything several times slower, and a machine may be busy with other tests.
const readyWithin = 2 * time.Minute

// Start builds the binaries, starts the nodes and the shim, and returns when
// every node answers ready.
func Start(o Options) (*Cluster, error) {
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Expect == 0 {
		o.Expect = o.Nodes
	}
	c := &Cluster{options: o, Dir: o.Dir}
	if c.Dir == "" {
		dir, err := os.MkdirTemp("", "trimaran-test-")
		if err != nil {
			return nil, err
		}
		c.Dir, c.ownDir = dir, true
	}
	for range o.Nodes {
		if _, err := c.AddNode(); err != nil {
			return c, err
		}
	}
	order := o.StartOrder
	if order == nil {
		for i := range c.Nodes {
			order = append(order, i+1)
		}
	}
	for _, i := range order {
		if err := c.Node(i).Start(); err != nil {
			return c, err
		}
	}
	if !o.NoShim {
		if err := c.startShim(); err != nil {
			return c, err
		}
	}
	if o.NoWait {
		return c, nil
	}
	return c, c.WaitReady(readyWithin)
}

// AddNode prepares one more node; its Start joins it to the others.
func (c *Cluster) AddNode() (*Node, error) {
	program := c.options.Program
	if program == "" {
		var err error
		if program, err = Program("trimaran"); err != nil {
			return nil, err
		}
	}
	i := len(c.Nodes) + 1
	id := fmt.Sprintf("n%d", i)
	n := &Node{ID: id, Data: filepath.Join(c.Dir, id), Host: "127.0.0.1", cluster: c}
	if i <= len(c.options.Hosts) {
		h := c.options.Hosts[i-1]
		n.Host, n.Under = h.Addr, h.Enter
	}
	n.Env, n.foreign = c.options.Env, c.options.Program != ""
	n.Name, n.Path, n.Log = id, program, filepath.Join(c.Dir, id+".log")
	if err := n.NewPorts(); err != nil {
		return nil, err
	}
	c.Nodes = append(c.Nodes, n)
	return n, nil
}

// NewPorts gives the node other ports; they count from its next Start.
func (n *Node) NewPorts() error {
	n.ports.Lock()
	defer n.ports.Unlock()
	for _, p := range []*int{&n.Client, &n.Peer, &n.Gossip} {
		port, err := FreePort()
		if err != nil {
			return err
		}
		*p = port
	}
	return nil
}

// Start runs the node. It is told the gossip addresses of all nodes as they are now.
func (n *Node) Start() error {
	o := n.cluster.options
	var join []string
	for _, other := range n.cluster.Nodes {
		if other != n {
			join = append(join, other.at(other.Gossip))
		}
	}
	n.Args = []string{"serve",
		"--data", n.Data,
		"--node-id", n.ID,
		"--listen", n.Addr(),
		"--peer-listen", n.at(n.Peer),
		"--gossip-listen", n.at(n.Gossip),
		"--bootstrap-expect", strconv.Itoa(o.Expect),
	}
	if len(join) > 0 && !n.NoJoin {
		n.Args = append(n.Args, "--join", strings.Join(join, ","))
	}
	if o.Topics != "" {
		n.Args = append(n.Args, "--topics", o.Topics)
	}
	for _, arg := range o.NodeArgs {
		n.Args = append(n.Args, strings.ReplaceAll(arg, "{node}", n.ID))
	}
	n.Args = append(n.Args, n.ExtraArgs...)
	return n.Process.Start()
}

// Ready asks the node's /readyz; nil is yes, else the error says what it answered.
func (n *Node) Ready() error {
	body, status, err := Get("http://" + n.Addr() + "/readyz")
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("%s answers /readyz with %d: %s", n.ID, status, strings.TrimSpace(body))
	}
	return nil
}

// WaitReady waits until the node serves.
func (n *Node) WaitReady(within time.Duration) error {
	var last error
	err := Eventually(within, func() bool {
		if !n.Running() {
			last = fmt.Errorf("%s has ended", n.ID)
			return false
		}
		last = n.Ready()
		return last == nil
	})
	if err != nil {
		return fmt.Errorf("%s is not ready: %w", n.ID, last)
	}
	return nil
}

// Restart starts the node again (killing it first where it runs) and waits until it serves.
func (n *Node) Restart() error {
	if n.Running() {
		if err := n.Kill9(); err != nil {
			return err
		}
	}
	if err := n.Start(); err != nil {
		return err
	}
	return n.WaitReady(readyWithin)
}

// Pause stops the node without ending it (SIGSTOP); Resume lets it go on.
func (n *Node) Pause() error  { return n.Signal(syscall.SIGSTOP) }
func (n *Node) Resume() error { return n.Signal(syscall.SIGCONT) }

// Node gives a node by number, from 1.
func (c *Cluster) Node(i int) *Node { return c.Nodes[i-1] }

// NodeByID gives the node with that id, nil when there is none.
func (c *Cluster) NodeByID(id string) *Node {
	for _, n := range c.Nodes {
		if n.ID == id {
			return n
		}
	}
	return nil
}

// Addrs gives the client addresses of all nodes.
func (c *Cluster) Addrs() []string {
	var out []string
	for _, n := range c.Nodes {
		out = append(out, n.Addr())
	}
	return out
}

// Gateways gives the WebSocket addresses of all nodes.
func (c *Cluster) Gateways() []string {
	scheme := "ws://"
	if c.options.ShimTLS {
		scheme = "wss://"
	}
	var out []string
	for _, n := range c.Nodes {
		out = append(out, scheme+n.Addr())
	}
	return out
}

// ShimAddr is where the shim listens.
func (c *Cluster) ShimAddr() string { return Loopback(c.shimPort) }

func (c *Cluster) startShim() error {
	program, err := Program("trimaran-shim")
	if err != nil {
		return err
	}
	if c.shimPort, err = FreePort(); err != nil {
		return err
	}
	c.Shim = &Process{Name: "shim", Path: program, Log: filepath.Join(c.Dir, "shim.log")}
	return c.StartShim()
}

// StartShim starts the shim on its port with the nodes' present addresses.
func (c *Cluster) StartShim() error {
	c.Shim.Args = append([]string{"--listen", c.ShimAddr(), "--gateways", strings.Join(c.Gateways(), ",")}, c.options.ShimArgs...)
	return c.Shim.Start()
}

// WaitReady waits until every running node serves and the shim accepts.
func (c *Cluster) WaitReady(within time.Duration) error {
	deadline := time.Now().Add(within)
	for _, n := range c.Nodes {
		if n.Running() {
			if err := n.WaitReady(time.Until(deadline)); err != nil {
				return err
			}
		}
	}
	if c.Shim != nil {
		if err := WaitTCP(c.ShimAddr(), time.Until(deadline)); err != nil {
			return fmt.Errorf("the shim does not accept: %w", err)
		}
	}
	return nil
}

// Close ends every process and removes the data. It gives what no process may
// have written to its log, "" when all is well.
func (c *Cluster) Close() string {
	var all []*Process
	if c.Shim != nil {
		all = append(all, c.Shim)
	}
	for _, n := range c.Nodes {
		all = append(all, &n.Process)
	}
	var wg sync.WaitGroup
	for _, p := range all {
		wg.Go(p.end)
	}
	wg.Wait()
	var complaints []string
	for _, p := range all {
		if s := p.Complaint(); s != "" {
			complaints = append(complaints, p.Name+": "+s)
		}
	}
	if c.ownDir {
		os.RemoveAll(c.Dir)
	}
	return strings.Join(complaints, "\n")
}

// Logs gives the last lines of every process's log.
func (c *Cluster) Logs(lines int) string {
	var b strings.Builder
	for _, n := range c.Nodes {
		fmt.Fprintf(&b, "=== %s\n%s\n", n.ID, n.Tail(lines))
	}
	if c.Shim != nil {
		fmt.Fprintf(&b, "=== shim\n%s\n", c.Shim.Tail(lines))
	}
	return b.String()
}

// Get fetches a URL with a time limit of 5 s.
func Get(url string) (body string, status int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", 0, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), resp.StatusCode, err
}

// Status is the part of `trimaran cluster status`'s JSON that tests look at.
type Status struct {
	ClusterID     string   `json:"cluster_id"`
	Controller    string   `json:"controller"`
	FeatureLevel  int      `json:"level"`
	Confirmed     bool     `json:"confirmed"`
	CatalogVoters []string `json:"catalog_voters"` // identities
	Nodes         []struct {
		ID          string `json:"id"`
		Alive       bool   `json:"alive"`
		CatalogRole string `json:"catalog_role"`
		Replicas    int    `json:"replicas"`
		State       string `json:"state"` // "" is active
	} `json:"nodes"`
	Topics []struct {
		Name              string            `json:"name"`
		ReplicationFactor int               `json:"replication_factor"`
		Partitions        []PartitionStatus `json:"partitions"`
	} `json:"topics"`
	GroupShards []PartitionStatus `json:"group_shards"`
}

// PartitionStatus is one partition of a topic, or one shard of consumer groups.
type PartitionStatus struct {
	Partition     int32  `json:"partition"`
	Leader        string `json:"leader"`
	HighWatermark int64  `json:"high_watermark"`
	Replicas      []struct {
		Node    string `json:"node"`
		Role    string `json:"role"`
		Applied int64  `json:"applied"`
		Lag     int64  `json:"lag"`
		Leaving bool   `json:"leaving"`
	} `json:"replicas"`
	// Tier is of topics with one: bytes that are still to go there, and the first offset that
	// replicas keep.
	Tier *struct {
		Waiting    int64 `json:"waiting"`
		LocalStart int64 `json:"local_start"`
	} `json:"tier"`
}

// statusKey is Trimaran's own API, the one behind `trimaran cluster status`.
const statusKey = 21586

// Status asks one node what `trimaran cluster status` shows.
func (n *Node) Status() (*Status, error) {
	w, err := DialWire(n.Driver())
	if err != nil {
		return nil, err
	}
	defer w.Close()
	w.Conn.SetDeadline(time.Now().Add(5 * time.Second))
	answer, err := w.Do(statusKey, 0, nil)
	if err != nil {
		return nil, err
	}
	r := Reader{B: answer}
	code := r.Int16()
	body := r.Bytes()
	if err := r.End(); err != nil {
		return nil, err
	}
	if code != 0 {
		return nil, ErrorCode(code)
	}
	var s Status
	if err := json.Unmarshal(body, &s); err != nil {
		return nil, fmt.Errorf("status: %w in %q", err, body)
	}
	return &s, nil
}

// Leader gives the node that leads a partition, as a running node knows it.
func (c *Cluster) Leader(topic string, partition int32, within time.Duration) (*Node, error) {
	last := errors.New("no node runs")
	var found *Node
	Eventually(within, func() bool {
		for _, n := range c.Nodes {
			if !n.Running() {
				continue
			}
			s, err := n.Status()
			if err != nil {
				last = err
				continue
			}
			for _, t := range s.Topics {
				if t.Name != topic {
					continue
				}
				for _, p := range t.Partitions {
					if p.Partition == partition && p.Leader != "" {
						if l := c.NodeByID(p.Leader); l != nil && l.Running() {
							found = l
							return true
						}
					}
				}
			}
			last = fmt.Errorf("%s knows no leader of %s-%d", n.ID, topic, partition)
		}
		return false
	})
	if found == nil {
		return nil, last
	}
	return found, nil
}
