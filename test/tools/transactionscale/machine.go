package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

const mib = 1 << 20

// memoryOf gives the bytes of memory that a process has for itself (RssAnon): files that the kernel
// keeps are not among them.
func memoryOf(p *harness.Process) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no RssAnon", p.Pid())
}

// most gives the memory of the node that has most.
func (r *run) most() (most int64) {
	for _, n := range r.cluster.Nodes {
		if m, err := memoryOf(&n.Process); err == nil { // one that was killed has none
			most = max(most, m)
		}
	}
	return most
}

// watchMemory looks ten times a second until stop is called, which gives the most that any node
// had.
func (r *run) watchMemory(ctx context.Context) (stop func() int64) {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	var most int64
	work.Go(func() {
		for ctx.Err() == nil {
			most = max(most, r.most())
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	return func() int64 {
		cancel()
		work.Wait()
		return most
	}
}

// sizeOf adds up the files below a folder. Files may come and go.
func sizeOf(dir string) (size int64) {
	filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil
		}
		if info, err := e.Info(); err == nil {
			size += info.Size()
		}
		return nil
	})
	return size
}
