// Package drill runs the nodes of `trimaran dev` as processes of their own, and lets a page on this
// machine kill, pause and restart them, to see what the others do.
//
// You are here: below cmd/trimaran, which says how a node is started. A node that is served by
// `trimaran serve` knows nothing of this: what can end a node is who runs it. The package knows
// processes and signals, the page's files and its requests, and of Kafka nothing.
package drill

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// Ready is the line that a node writes to its output once it serves.
const Ready = "ready"

// codeLeft is the exit code of a node that has left its cluster for good.
const codeLeft = 3

// State is what a node's process does.
type State string

// The states of a node's process.
const (
	Starting State = "starting" // it runs, and does not serve yet
	Running  State = "running"
	Paused   State = "paused" // it is stopped by a signal, and has all that it had
	Stopping State = "stopping"
	Down     State = "down"
)

// Op is what can be done to a node.
type Op string

// The operations.
const (
	Kill    Op = "kill"    // SIGKILL
	Pause   Op = "pause"   // SIGSTOP
	Resume  Op = "resume"  // SIGCONT
	Restart Op = "restart" // end in good order, if it runs, and start
)

// ErrNot is what Do gives where the node is in no state for that.
var ErrNot = errors.New("not now")

// ErrLeft is what is known of a node that has left its cluster: it cannot be started again.
var ErrLeft = errors.New("it has left the cluster")

// Node is a node as it is now.
type Node struct {
	ID      string `json:"id"`
	Address string `json:"address"` // where it takes clients, host:port
	State   State  `json:"state"`
	Why     string `json:"why,omitempty"` // it is down
	PID     int    `json:"pid,omitempty"`
	SinceMs int64  `json:"since_ms"` // when the state began, in milliseconds since 1970
}

// Nodes are the processes.
type Nodes struct {
	command func(id string) *exec.Cmd
	say     func(string)
	failed  chan error

	mu     locks.Mutex[Nodes] // guards what follows; nothing is taken and nobody waits under it
	all    []*process
	ending bool          // nothing is started any more
	turned chan struct{} // closed and replaced when a state changes
}

type process struct {
	Node
	cmd   *exec.Cmd // of the last start
	stdin io.Closer // the node ends in good order once it is closed
	asked string    // why it ends, if that was asked for
	again bool      // start it when it has ended
	err   error     // why it is down
}

// New gives nodes that are not started. command makes a node's process: it has to end when its
// input does, and to write Ready. say takes a line for who runs this.
func New(nodes []Node, command func(id string) *exec.Cmd, say func(string)) *Nodes {
	n := &Nodes{command: command, say: say, failed: make(chan error, 1), turned: make(chan struct{})}
	for _, node := range nodes {
		node.State, node.Why, node.SinceMs = Down, "not started", time.Now().UnixMilli()
		n.all = append(n.all, &process{Node: node})
	}
	return n
}

// List gives all nodes as they are now.
func (n *Nodes) List() []Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make([]Node, len(n.all))
	for i, p := range n.all {
		all[i] = p.Node
	}
	return all
}

// Failed gives an error when a node ended that nobody had asked to, and no signal.
func (n *Nodes) Failed() <-chan error { return n.failed }

// StartAll starts all nodes and waits until they serve. A node that has left its cluster stays
// down; it is an error if that is all of them.
func (n *Nodes) StartAll(ctx context.Context) error {
	n.mu.Lock()
	var err error
	for _, p := range n.all {
		if err = n.start(p); err != nil {
			break
		}
	}
	n.mu.Unlock()
	if err != nil {
		return err
	}
	for {
		n.mu.Lock()
		up, starting := 0, 0
		for _, p := range n.all {
			switch p.State {
			case Running:
				up++
			case Down:
				err = errors.Join(err, fmt.Errorf("node %s: %w", p.ID, p.err))
			default:
				starting++
			}
		}
		turned := n.turned
		n.mu.Unlock()
		if starting == 0 && up > 0 {
			return nil
		} else if starting == 0 {
			return err
		}
		err = nil
		select {
		case <-turned:
		case failed := <-n.failed:
			return failed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Do does something to a node and does not wait for what follows. The error wraps ErrNot if the
// node is in no state for that.
func (n *Nodes) Do(op Op, id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var p *process
	for _, one := range n.all {
		if one.ID == id {
			p = one
		}
	}
	if p == nil {
		return fmt.Errorf("%w: there is no such node", ErrNot)
	}
	lives := p.State != Down
	switch {
	case n.ending:
		return fmt.Errorf("%w: all nodes are stopping", ErrNot)
	case op == Kill && lives:
		p.asked, p.again = "killed", false
		return n.signal(p, syscall.SIGKILL)
	case op == Pause && p.State == Running:
		n.turn(p, Paused)
		return n.signal(p, syscall.SIGSTOP)
	case op == Resume && p.State == Paused:
		n.turn(p, Running)
		return n.signal(p, syscall.SIGCONT)
	case op == Restart && p.State == Down && !errors.Is(p.err, ErrLeft):
		return n.start(p)
	case op == Restart && p.State == Running:
		p.again = true
		n.stop(p)
		return nil
	}
	return fmt.Errorf("%w: %s is %s", ErrNot, id, p.State)
}

// Stop ends all nodes, in good order as far as that can be until ctx ends.
func (n *Nodes) Stop(ctx context.Context) {
	n.mu.Lock()
	n.ending = true
	for _, p := range n.all {
		if p.State == Paused {
			_ = n.signal(p, syscall.SIGCONT)
		}
		if p.again = false; p.State != Down {
			n.stop(p)
		}
	}
	n.mu.Unlock()
	for {
		n.mu.Lock()
		live := 0
		for _, p := range n.all {
			if p.State != Down {
				live++
			}
			if p.State != Down && ctx.Err() != nil {
				_ = n.signal(p, syscall.SIGKILL)
			}
		}
		turned := n.turned
		n.mu.Unlock()
		if live == 0 {
			return
		}
		late := ctx.Done()
		if ctx.Err() != nil {
			late = nil // they are being killed
		}
		select {
		case <-turned:
		case <-late:
		}
	}
}

// What follows is called with mu held.

func (n *Nodes) turn(p *process, to State) {
	p.State, p.SinceMs = to, time.Now().UnixMilli()
	close(n.turned)
	n.turned = make(chan struct{})
}

func (n *Nodes) signal(p *process, s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("node %s: %w", p.ID, err)
	}
	return nil
}

func (n *Nodes) stop(p *process) {
	p.asked = "stopped"
	p.stdin.Close()
	n.turn(p, Stopping)
}

func (n *Nodes) start(p *process) error {
	cmd := n.command(p.ID)
	// A group of its own, so that Ctrl-C of a terminal comes to who runs the nodes alone. When that
	// one is gone nodes that are paused go on, and end: the system says so to groups that are left
	// behind (POSIX, orphaned process groups).
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("node %s: %w", p.ID, err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("node %s: %w", p.ID, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("node %s: %w", p.ID, err)
	}
	p.cmd, p.stdin, p.asked, p.again, p.Why, p.err, p.PID = cmd, in, "", false, "", nil, cmd.Process.Pid
	n.turn(p, Starting)
	go n.watch(p, cmd, out)
	return nil
}

// watch follows a process until it has ended.
func (n *Nodes) watch(p *process, cmd *exec.Cmd, out io.Reader) {
	var reading sync.WaitGroup
	reading.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if lines.Text() != Ready {
				continue
			}
			n.mu.Lock()
			if p.State == Starting {
				n.turn(p, Running)
			}
			n.mu.Unlock()
		}
		_, _ = io.Copy(io.Discard, out) // a line that is too long
	})
	reading.Wait()
	_ = cmd.Wait() // what became of it is in its state
	said := ""
	n.mu.Lock()
	p.stdin.Close()
	p.PID = 0
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch code := cmd.ProcessState.ExitCode(); {
	case code == codeLeft || code == 0 && p.asked == "":
		p.err = ErrLeft
		said = fmt.Sprintf("node %s has left the cluster", p.ID)
	case p.asked != "":
		p.err = errors.New(p.asked)
	case status.Signaled():
		// Somebody else does what this package is for.
		p.err = fmt.Errorf("ended by a signal: %s", status.Signal())
		said = fmt.Sprintf("node %s was %v", p.ID, p.err)
	default:
		p.err = fmt.Errorf("it ended with %s", cmd.ProcessState)
		select {
		case n.failed <- fmt.Errorf("node %s: %w", p.ID, p.err):
		default: // one is enough
		}
	}
	p.Why = p.err.Error()
	n.turn(p, Down)
	if p.again && !n.ending {
		if err := n.start(p); err != nil {
			p.err, p.Why, said = err, err.Error(), err.Error()
		}
	}
	n.mu.Unlock()
	if said != "" {
		n.say(said)
	}
}
