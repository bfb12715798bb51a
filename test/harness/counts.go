package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Counts are what processes have done, as the kernel counts it: how much work they were, on a busy
// machine as well as on a quiet one.
type Counts struct {
	CPU time.Duration // user and system, in ticks of 10 ms
	// Waits are context switches that a thread made since it had nothing to do (voluntary),
	// Preempted those that the kernel made since another one wanted the core.
	Waits, Preempted int64
	// Reads and Writes are system calls that read or write files, sockets or pipes: read, readv,
	// pread64, sendfile; write, writev, pwrite64. Those named after messages (recvfrom) are none.
	Reads, Writes int64
	Written       int64 // bytes that reached the disk's queue
}

// Switches are context switches of both kinds.
func (c Counts) Switches() int64 { return c.Waits + c.Preempted }

// Minus gives what was done between two readings.
func (c Counts) Minus(before Counts) Counts {
	return Counts{c.CPU - before.CPU, c.Waits - before.Waits, c.Preempted - before.Preempted,
		c.Reads - before.Reads, c.Writes - before.Writes, c.Written - before.Written}
}

func (c *Counts) add(o Counts) {
	*c = Counts{c.CPU + o.CPU, c.Waits + o.Waits, c.Preempted + o.Preempted,
		c.Reads + o.Reads, c.Writes + o.Writes, c.Written + o.Written}
}

// Counter reads the Counts of a few processes, all added up. The kernel forgets the switches of a
// thread that ends; the counter keeps what it saw last of it. What a thread does between the last
// reading and its end is lost: read often where threads come and go.
type Counter struct {
	processes []*Process

	mu      sync.Mutex // guards what follows
	threads map[thread][2]int64
	ended   [2]int64 // switches of threads that are gone
}

type thread struct{ pid, tid int }

// NewCounter counts for processes that run until the last Read.
func NewCounter(of ...*Process) *Counter {
	return &Counter{processes: of, threads: map[thread][2]int64{}}
}

// NodeCounter counts for all nodes of a cluster.
func (c *Cluster) NodeCounter() *Counter {
	var of []*Process
	for _, n := range c.Nodes {
		of = append(of, &n.Process)
	}
	return NewCounter(of...)
}

// Read gives what the processes have done so far.
func (c *Counter) Read() (sum Counts, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := map[thread][2]int64{}
	for _, p := range c.processes {
		one, err := p.counts()
		if err != nil {
			return sum, err
		}
		sum.add(one)
		if err := threadSwitches(p.Pid(), seen); err != nil {
			return sum, err
		}
	}
	for t, old := range c.threads {
		now, there := seen[t]
		if !there || now[0] < old[0] || now[1] < old[1] { // gone, or another thread has its number
			c.ended[0], c.ended[1] = c.ended[0]+old[0], c.ended[1]+old[1]
		}
	}
	c.threads = seen
	sum.Waits, sum.Preempted = c.ended[0], c.ended[1]
	for _, n := range seen {
		sum.Waits, sum.Preempted = sum.Waits+n[0], sum.Preempted+n[1]
	}
	return sum, nil
}

// counts gives what the kernel keeps for the process as a whole.
func (p *Process) counts() (c Counts, err error) {
	if c.CPU, err = p.CPUTime(); err != nil {
		return c, err
	}
	fields, err := procFields(fmt.Sprintf("/proc/%d/io", p.Pid()))
	if err != nil {
		return c, err
	}
	c.Reads, c.Writes, c.Written = fields["syscr"], fields["syscw"], fields["write_bytes"]
	return c, nil
}

// threadSwitches adds the switches of each thread of a process.
func threadSwitches(pid int, to map[thread][2]int64) error {
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(paths) == 0 {
		return fmt.Errorf("process %d has no threads (%v)", pid, err)
	}
	for _, path := range paths {
		fields, err := procFields(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		tid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return err
		}
		to[thread{pid, tid}] = [2]int64{fields["voluntary_ctxt_switches"], fields["nonvoluntary_ctxt_switches"]}
	}
	return nil
}

// procFields reads the numbers of a file with lines of a name, a colon and a number.
func procFields(path string) (map[string]int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	fields := map[string]int64{}
	for line := range strings.Lines(string(b)) {
		if name, rest, ok := strings.Cut(line, ":"); ok {
			if n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64); err == nil {
				fields[name] = n
			}
		}
	}
	return fields, nil
}

// Metrics gives the sum over all running nodes of each metric that has no labels.
func (c *Cluster) Metrics(names ...string) (map[string]float64, error) {
	sum := map[string]float64{}
	for _, n := range c.Nodes {
		if !n.Running() {
			continue
		}
		body, status, err := Get("http://" + n.Addr() + "/metrics")
		if err == nil && status != 200 {
			err = fmt.Errorf("status %d", status)
		}
		if err != nil {
			return nil, fmt.Errorf("metrics of %s: %w", n.ID, err)
		}
		for _, name := range names {
			v := metric(body, name)
			if v < 0 {
				return nil, fmt.Errorf("%s has no metric %s", n.ID, name)
			}
			sum[name] += v
		}
	}
	return sum, nil
}
