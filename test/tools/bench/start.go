package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// starts is how often each kind of start is measured; the median counts.
const starts = 9

// askAgain is the pause of the client that waits for a node: what is measured is no finer.
const askAgain = time.Millisecond

// startOf is what a node that starts finds, and who creates the topic.
type startOf struct {
	name  string
	kept  bool     // the data of the start before
	flags []string // of trimaran dev
}

// startOne prints how long it takes from the start of a program that is a cluster of one node to
// the first record that it acknowledges.
func (b *bench) startOne() error {
	program, err := harness.Program("trimaran")
	if err != nil {
		return err
	}
	for _, s := range []startOf{
		{name: "empty directory, the topic is created by the client's Metadata request"},
		{name: "empty directory, the topic is created by --topics", flags: []string{"--topics", "first:1"}},
		{name: "restart after SIGTERM, the topic is there", kept: true},
	} {
		var connected, acknowledged []time.Duration
		dir := filepath.Join(b.diskDir, "start")
		for range starts {
			if !s.kept {
				if err := os.RemoveAll(dir); err != nil {
					return err
				}
			}
			c, a, err := startAndProduce(program, dir, s)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			connected, acknowledged = append(connected, c), append(acknowledged, a)
		}
		fmt.Printf("  %s: connected after %s, first record acknowledged after %s (worst of %d: %s)\n", s.name,
			ms(quantile(connected, 0.5)), ms(quantile(acknowledged, 0.5)), starts, ms(slices.Max(acknowledged)))
	}
	return os.RemoveAll(filepath.Join(b.diskDir, "start"))
}

// startAndProduce starts the program and gives how long it took to be connected to, and to
// acknowledge a record.
func startAndProduce(program, dir string, s startOf) (connected, acknowledged time.Duration, err error) {
	base, err := harness.FreePortBase(0, 100, 200) // of clients, peers and gossip (trimaran dev)
	if err != nil {
		return 0, 0, err
	}
	addr := harness.Loopback(base)
	p := &harness.Process{
		Name: "dev", Path: program, Log: dir + ".log",
		Args: append([]string{"dev", "--data", dir, "--listen", addr}, s.flags...),
	}
	began := time.Now()
	if err := p.Start(); err != nil {
		return 0, 0, err
	}
	defer func() {
		err = errors.Join(err, p.Signal(syscall.SIGTERM))
		if _, waited := p.Wait(10 * time.Second); waited != nil {
			err = errors.Join(err, waited, p.Kill9())
		}
	}()
	var w *harness.Wire
	err = again(func() (err error) {
		w, err = harness.DialWire(addr)
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	defer w.Close()
	connected = time.Since(began)
	err = again(func() error {
		_, err := w.Produce("first", 0, -1, "hello")
		if code := harness.ErrorCode(0); errors.As(err, &code) && len(s.flags) == 0 && !s.kept {
			_, _ = w.Metadata("first") // which creates it; Produce says whether it is there
		}
		return err
	})
	return connected, time.Since(began), err
}

// again asks until there is no error, for 10 s at most.
func again(ask func() error) error {
	for deadline := time.Now().Add(10 * time.Second); ; <-time.After(askAgain) {
		if err := ask(); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
