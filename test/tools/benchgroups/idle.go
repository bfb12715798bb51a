package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// settle is how long the nodes are left alone before they are watched: they even out who leads
// half a minute after their start.
const settle = 40 * time.Second

// idleInTurns measures this program and, if there is one, the old one of that commit.
func idleInTurns(dir string, partitions int32, window time.Duration, commit, old string) error {
	if old == "" {
		return idle(filepath.Join(dir, "1"), "", partitions, window)
	}
	for turn := range 2 {
		for i, program := range []string{old, ""} {
			fmt.Printf("turn %d, %s: ", turn+1, []string{commit, "this program"}[i])
			if err := idle(filepath.Join(dir, fmt.Sprint(turn, i)), program, partitions, window); err != nil {
				return err
			}
		}
	}
	return nil
}

func idle(dir, program string, partitions int32, window time.Duration) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := start(dir, program, partitions, nil)
	if err != nil {
		return err
	}
	defer c.Close()

	// A cold start: all nodes end and begin again.
	for _, n := range c.Nodes {
		if err := n.Signal(syscall.SIGTERM); err != nil {
			return err
		}
	}
	for _, n := range c.Nodes {
		if _, err := n.Wait(time.Minute); err != nil {
			return err
		}
	}
	began := time.Now()
	for _, n := range c.Nodes {
		if err := n.Start(); err != nil {
			return err
		}
	}
	if _, err := allLed(c, partitions, 5*time.Minute); err != nil {
		return fmt.Errorf("after a cold start: %w\n%s", err, c.Logs(20))
	}
	cold := time.Since(began)

	time.Sleep(settle)
	before, err := readAll(c)
	if err != nil {
		return err
	}
	at := time.Now()
	time.Sleep(window)
	took := time.Since(at)
	after, err := readAll(c)
	if err != nil {
		return err
	}
	leads, err := allLed(c, partitions, time.Minute)
	if err != nil {
		return err
	}
	fmt.Printf("%d partitions, 3 replicas each; all led %.2f s after a cold start of three processes\n", partitions, cold.Seconds())
	for i, n := range c.Nodes {
		fmt.Printf("  %s: idle CPU %.2f %% of a core over %.0f s, %.0f context switches/s, RSS %d MB, leads %d\n", n.ID,
			100*(after[i].cpu-before[i].cpu).Seconds()/took.Seconds(), took.Seconds(),
			float64(after[i].switches-before[i].switches)/took.Seconds(), residentMB(n.Pid()), leads[n.ID])
	}
	printGoroutines(c.Node(1))
	return nil
}

// usage is what a node has used so far.
type usage struct {
	cpu      time.Duration
	switches uint64 // of threads that wait
}

func readAll(c *harness.Cluster) ([]usage, error) {
	var all []usage
	for _, n := range c.Nodes {
		cpu, err := n.CPUTime()
		if err != nil {
			return nil, err
		}
		switches, _, err := n.Switches()
		if err != nil {
			return nil, err
		}
		all = append(all, usage{cpu, switches})
	}
	return all, nil
}

func residentMB(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(kb), " kB"))
			return n >> 10
		}
	}
	return 0
}

var createdBy = regexp.MustCompile(`(?m)^created by (\S+)`)

// printGoroutines ends the node with SIGQUIT, on which Go's runtime prints all
// goroutines, and counts them by the function that began them.
func printGoroutines(n *harness.Node) {
	if n.Signal(syscall.SIGQUIT) != nil {
		return
	}
	n.Wait(time.Minute)
	kinds, all := map[string]int{}, 0
	for _, m := range createdBy.FindAllStringSubmatch(n.Output(), -1) {
		kinds[m[1][strings.LastIndex(m[1], "/")+1:]]++
		all++
	}
	fmt.Printf("  goroutines of %s: %d\n", n.ID, all)
	names := make([]string, 0, len(kinds))
	for k := range kinds {
		names = append(names, k)
	}
	slices.SortFunc(names, func(a, b string) int { return kinds[b] - kinds[a] })
	for _, k := range names[:min(12, len(names))] {
		fmt.Printf("  %8d %s\n", kinds[k], k)
	}
}
