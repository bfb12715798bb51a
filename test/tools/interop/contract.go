package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Every client program has this command line:
//
//	client BOOTSTRAP MODE STEP TOPIC ARGUMENT
//
// INTEROP_LOGIN names a file that says how to log in, over TLS: lines name=value, with mechanism,
// user, password, token (for OAUTHBEARER), ca (file of PEM) and truststore (the same, PKCS #12).
// Without it the client does not log in and uses no TLS.
//
//	MODE     default, or a protocol version such as 0.8
//	STEP     login     ask for something, and say "# asking" before, and then "# in", or
//	                   "# refused WHY" with the client's own error of a login that failed
//	         create    make the topic with ARGUMENT partitions
//	         produce   write the records that come on stdin, compressed with codec
//	                   ARGUMENT; stdin is "key TAB value" per line, and each record
//	                   gets the header h=interop
//	         read      read ARGUMENT records in all from the start of each of the
//	                   topic's partitions, without a group, and end
//	         transact  write transactions with the transactional id ARGUMENT: lines of stdin are
//	                   records as for produce, or the word commit or abort, which ends the
//	                   transaction of the records before it; say "# committed" or "# aborted"
//	                   when that is done
//	         committed the step read with read_committed
//	         group     join group ARGUMENT, read and commit until stdin ends, then
//	                   leave. A group that has no offset begins at the earliest.
//
// On stdout a record that was read is "partition TAB offset TAB key TAB value" with
// "TAB name=value" for its header; a line that begins with "# " says something:
// "# produced N" when all of them are acknowledged, "# unsupported WHY" when the
// client has no such codec. Exit code 0 is success; stderr is for people.

// client is one run of a client program.
type client struct {
	step  string
	log   string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	done  chan struct{} // closed when the program has ended and all its output is read
	err   error         // how it ended, once done
	lax   bool          // stdout is not in the contract's form

	mu      sync.Mutex
	records []record
	said    []string
	times   []time.Time // when it was said
	bad     error       // the first line that broke the contract
}

// startClient runs one step. The program is killed when ctx ends.
func (a *attempt) startClient(ctx context.Context, step string, args ...string) (*client, error) {
	a.mu.Lock()
	a.runs++
	name := fmt.Sprintf("%02d-%s", a.runs, step)
	a.mu.Unlock()
	if err := os.MkdirAll(a.dir, 0o777); err != nil {
		return nil, err
	}
	c := &client{step: step, log: filepath.Join(a.dir, name+".log"), done: make(chan struct{})}
	log, err := os.Create(c.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	full := append(append([]string{}, a.command...), args...)
	fmt.Fprintf(log, "--- %s\n", strings.Join(full, " "))
	c.cmd = exec.Command(full[0], full[1:]...)
	c.cmd.Env = append(os.Environ(), a.env...)
	c.cmd.Dir = a.folder
	c.cmd.Stderr = log
	// A group of its own, so that what the program starts can be ended with it.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	a.mu.Lock()
	a.clients = append(a.clients, c)
	a.mu.Unlock()
	go c.read(out)
	context.AfterFunc(ctx, c.kill)
	return c, nil
}

// kill ends the program and what it started.
func (c *client) kill() {
	select {
	case <-c.done:
	default:
		syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
	}
}

func (c *client) read(out io.Reader) {
	in := bufio.NewReaderSize(out, 1<<20)
	for {
		line, err := in.ReadBytes('\n')
		if line = bytes.TrimSuffix(line, []byte{'\n'}); len(line) > 0 {
			c.line(line)
		}
		if err != nil {
			break
		}
	}
	c.err = c.cmd.Wait()
	close(c.done)
}

func (c *client) line(line []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if said, ok := bytes.CutPrefix(line, []byte("# ")); ok {
		c.said, c.times = append(c.said, string(said)), append(c.times, time.Now())
	} else if r, err := parseRecord(line); err != nil {
		if c.bad == nil && !c.lax {
			c.bad = err
		}
	} else {
		c.records = append(c.records, r)
	}
}

// got gives what was read so far.
func (c *client) got() []record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]record(nil), c.records...)
}

func (c *client) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.records)
}

// heard gives the rest of the first line that was said with this beginning.
func (c *client) heard(start string) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.said {
		if rest, ok := strings.CutPrefix(s, start); ok {
			return strings.TrimSpace(rest), true
		}
	}
	return "", false
}

// saidAt gives when the first line was said with this beginning.
func (c *client) saidAt(start string) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, s := range c.said {
		if strings.HasPrefix(s, start) {
			return c.times[i]
		}
	}
	return time.Time{}
}

// wait gives how the program ended.
func (c *client) wait(within time.Duration) error {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
		c.kill()
		return fmt.Errorf("%s: %w (%s)", c.step, errDeadline, within)
	}
	if c.err != nil {
		return fmt.Errorf("%s: %w: %s", c.step, c.err, c.complaint())
	}
	if c.bad != nil {
		return fmt.Errorf("%s: %w", c.step, c.bad)
	}
	return nil
}

// ended reports an error when the program has ended though it should go on.
func (c *client) ended() error {
	select {
	case <-c.done:
		err := c.err
		if err == nil {
			err = errors.New("ended by itself")
		}
		return fmt.Errorf("%s: %w: %s", c.step, err, c.complaint())
	default:
		return nil
	}
}

// complaint gives the last line that the program wrote to stderr.
func (c *client) complaint() string {
	all := strings.Split(strings.TrimSpace(tailOf(c.log, 12)), "\n")
	for i := len(all) - 1; i >= 0; i-- {
		line := strings.TrimSpace(all[i])
		if line != "" && !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "at ") && !strings.HasPrefix(line, "Node.js v") && line != "}" {
			return line
		}
	}
	return "(it said nothing)"
}

func tailOf(file string, n int) string {
	b, _ := os.ReadFile(file)
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}
