package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

type bench struct {
	options
	diskDir, memoryDir string
	disk               ceiling       // of three writers, as first measured
	roundTrip          time.Duration // of loopback
	count              int           // clusters started
}

// with runs f on a fresh cluster whose data is below parent, then waits until every replica has
// everything.
func (b *bench) with(parent string, env []string, program string, f func(*harness.Cluster) error) error {
	b.count++
	dir := filepath.Join(parent, strconv.Itoa(b.count))
	if err := os.Mkdir(dir, 0o777); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := harness.Start(harness.Options{Dir: dir, Env: env, Program: cmp.Or(program, b.program)})
	if err == nil {
		if err = f(c); err == nil {
			err = c.WaitApplied(time.Minute)
		}
	}
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, c.Logs(20))
	}
	c.Close()
	return err
}

// usage is what the processes have used so far.
type usage struct {
	cpu   time.Duration
	shim  time.Duration // of cpu, what the shim on the way has used
	wrote int64         // bytes, of the nodes
}

func used(c *harness.Cluster, shim *harness.Process) (u usage, err error) {
	for _, n := range c.Nodes {
		if err = u.add(&n.Process, true); err != nil {
			return u, err
		}
	}
	if shim != nil {
		nodes := u.cpu
		err = u.add(shim, false)
		u.shim = u.cpu - nodes
	}
	return u, err
}

func (u *usage) add(p *harness.Process, node bool) error {
	cpu, err := p.CPUTime()
	if err != nil {
		return err
	}
	u.cpu += cpu
	if !node {
		return nil
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(p.Pid()) + "/io")
	if err != nil {
		return nil // not everywhere readable: the column stays empty
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			u.wrote += n
		}
	}
	return nil
}

// drop deletes a topic and waits until its files are gone, so that what follows finds the room, in
// memory above all: a virtual machine pays much for memory that it has not touched before.
func drop(c *harness.Cluster, topic string) error {
	replicas := func() (n int) {
		for _, node := range c.Nodes {
			dirs, _ := os.ReadDir(filepath.Join(node.Data, "partitions"))
			n += len(dirs)
		}
		return n
	}
	s, err := c.Node(1).Status()
	if err != nil {
		return err
	}
	left := replicas()
	for _, t := range s.Topics {
		if t.Name == topic {
			left -= len(t.Partitions) * t.ReplicationFactor
		}
	}
	if err := c.DeleteTopic(context.Background(), topic); err != nil {
		return err
	}
	if err := harness.Eventually(2*time.Minute, func() bool { return replicas() <= left }); err != nil {
		return fmt.Errorf("files of %s are still there: %w", topic, err)
	}
	return nil
}

// quiet waits until the nodes have done what follows the creation of topics, moving leaders above
// all: until all of them together take less than half a core for two seconds.
func quiet(c *harness.Cluster) error {
	const step = 500 * time.Millisecond
	calm := 0
	for range 120 {
		before, err := used(c, nil)
		if err != nil {
			return err
		}
		time.Sleep(step)
		after, err := used(c, nil)
		if err != nil {
			return err
		}
		if after.cpu-before.cpu > step/2 {
			calm = 0
		} else if calm++; calm == 4 {
			return nil
		}
	}
	return errors.New("the nodes are still busy with themselves after a minute")
}
