package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// CPUTime is what the current run of the program has used, user and system, in the kernel's ticks
// of 10 ms.
func (p *Process) CPUTime() (time.Duration, error) {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on Linux
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid()))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses; utime and stime are the 14th and 15th.
	s := string(b)
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields behind the name", p.Pid(), len(fields))
	}
	var used time.Duration
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		used += time.Duration(n) * tick
	}
	return used, nil
}

// Switches is how often threads of the current run gave up a core to wait, and how often one was
// taken from them. Threads that have ended are not counted.
func (p *Process) Switches() (voluntary, forced uint64, err error) {
	tasks := fmt.Sprintf("/proc/%d/task", p.Pid())
	threads, err := os.ReadDir(tasks)
	if err != nil {
		return 0, 0, err
	}
	for _, t := range threads {
		b, err := os.ReadFile(filepath.Join(tasks, t.Name(), "status"))
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(line, ":")
			n, _ := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
			switch key {
			case "voluntary_ctxt_switches":
				voluntary += n
			case "nonvoluntary_ctxt_switches":
				forced += n
			}
		}
	}
	return voluntary, forced, nil
}

// WaitApplied waits until each replica's own end is the partition's, as node 1 tells it: two of
// three that acknowledge may leave the third behind unnoticed.
func (c *Cluster) WaitApplied(within time.Duration) error {
	var behind []string
	err := Eventually(within, func() bool {
		behind = nil
		s, err := c.Node(1).Status()
		if err != nil {
			behind = []string{err.Error()}
			return false
		}
		for _, t := range s.Topics {
			for _, p := range t.Partitions {
				for _, r := range p.Replicas {
					if r.Lag != 0 || r.Role == "offline" || r.Applied != p.HighWatermark {
						behind = append(behind, fmt.Sprintf("%s-%d on %s: %s, %d of %d", t.Name, p.Partition, r.Node, r.Role, r.Applied, p.HighWatermark))
					}
				}
			}
		}
		return len(behind) == 0
	})
	if err != nil {
		return fmt.Errorf("replicas are behind: %s", strings.Join(behind, "; "))
	}
	return nil
}
